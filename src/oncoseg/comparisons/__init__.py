"""Which of several systems is better, how surely, and in words. The patient is the unit."""

from oncoseg.comparisons.differences import (
    SignFlip,
    cohen_d,
    holm,
    rank_biserial,
    share_positive,
    sign_flip,
    smallest_p,
    wilcoxon_p,
)
from oncoseg.comparisons.rank_stability import RankStability, SystemRank, rank_stability
from oncoseg.comparisons.systems import ALPHA, Comparison, as_family, compare_systems, paired
from oncoseg.comparisons.trainings import SeedVariation, across_seeds

__all__ = [
    "ALPHA",
    "Comparison",
    "RankStability",
    "SeedVariation",
    "SignFlip",
    "SystemRank",
    "across_seeds",
    "as_family",
    "cohen_d",
    "compare_systems",
    "holm",
    "paired",
    "rank_biserial",
    "rank_stability",
    "share_positive",
    "sign_flip",
    "smallest_p",
    "wilcoxon_p",
]
