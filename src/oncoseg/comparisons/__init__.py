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
from oncoseg.comparisons.trainings import (
    FEWEST_SEEDS,
    SeedVariation,
    across_seeds,
    between_trainings,
    mean_of_trainings,
)

__all__ = [
    "ALPHA",
    "FEWEST_SEEDS",
    "Comparison",
    "RankStability",
    "SeedVariation",
    "SignFlip",
    "SystemRank",
    "across_seeds",
    "as_family",
    "between_trainings",
    "cohen_d",
    "compare_systems",
    "holm",
    "mean_of_trainings",
    "paired",
    "rank_biserial",
    "rank_stability",
    "share_positive",
    "sign_flip",
    "smallest_p",
    "wilcoxon_p",
]
