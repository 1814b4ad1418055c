"""Tests and effect sizes of paired differences, one per patient, as pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.statistics import CHUNK, ROUNDING

EXACT_FLIPS = 2**16
"""Up to so many assignments of signs all are tried; beyond them, random ones."""

PERMUTATIONS = 9_999
"""Random assignments of signs; p is then at least 1 / 10 000."""

SIGNS = 1
"""Tells the random signs' stream from the bootstrap's, which has the same seed."""


class SignFlip(NamedTuple):
    """Result of `sign_flip`: p, and whether all assignments of signs were tried for it."""

    p: float
    exact: bool


def sign_flip(differences: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> SignFlip:
    """Paired permutation test of the mean difference, two-sided.

    If the systems are alike, a patient's two values could as well be exchanged, which flips the
    difference's sign: p is the share of assignments of signs whose mean is as far from 0 as the one seen.
    Of m random assignments k of which are, p = (k + 1) / (m + 1), never 0 (Phipson & Smyth 2010,
    "Permutation p-values should never be zero").

    Args:
        differences: one per patient, without NaN.
        permutations: m, where the assignments are more than EXACT_FLIPS.
        seed: of the random signs.

    Returns:
        p in (0, 1], NaN without differences.
    """
    if not len(differences):
        return SignFlip(math.nan, True)
    varied = differences[differences != 0]  # the sign of 0 changes nothing
    as_far = np.abs(varied.sum()) - ROUNDING * np.abs(varied).sum()
    if 2 ** len(varied) <= EXACT_FLIPS:
        return SignFlip(float(np.mean(np.abs(_all_flips(varied)) >= as_far)), True)
    far = int(np.count_nonzero(np.abs(_random_flips(varied, permutations, seed)) >= as_far))
    return SignFlip((far + 1) / (permutations + 1), False)


def smallest_p(n: int) -> float:
    """The least p of the sign-flip test on n patients: 2 / 2ⁿ, when all differences have one sign."""
    return min(1.0, 2.0 ** (1 - n)) if n else math.nan


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945), by SciPy, exact for small samples without ties.

    Differences of 0 are dropped (`zero_method="wilcox"`), as Wilcoxon did. NaN without differences; 1 where
    all are 0.
    """
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0 if len(differences) else math.nan
    return float(wilcoxon(differences, zero_method="wilcox").pvalue)


def cohen_d(differences: np.ndarray) -> float:
    """Cohen's d_z, mean over standard deviation (n − 1) of the differences; NaN where they do not vary."""
    if len(differences) < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(differences.mean() / differences.std(ddof=1))


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014, "The simple difference formula").

    The differences other than 0 are ranked by size; it is the share of the sum of ranks that is positive
    minus the share that is negative, in [−1, 1]. NaN where no difference is other than 0.
    """
    from scipy.stats import rankdata

    varied = differences[differences != 0]
    if not len(varied):
        return math.nan
    ranks = rankdata(np.abs(varied))
    return float(np.sum(ranks * np.sign(varied)) / ranks.sum())


def share_positive(differences: np.ndarray) -> float:
    """Share of differences above 0, those of 0 counted half; NaN without differences."""
    return float(np.mean(np.sign(differences) + 1) / 2) if len(differences) else math.nan


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust the p of a family of tests (Holm 1979, "A simple sequentially rejective test").

    Rejecting where the adjusted p is at most α keeps the chance of any false rejection at most α.

    Args:
        p_values: in [0, 1]; NaN where there was no test, which does not count in the family.

    Returns:
        Adjusted p in the same order; NaN stays.

    Raises:
        ValueError: a p outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    made = p[~np.isnan(p)]
    if np.any((made < 0) | (made > 1)):
        raise ValueError(f"Expected p-values in [0, 1], got {made.min()} to {made.max()}.")
    order = np.argsort(made)
    steps = made[order] * np.arange(len(made), 0, -1)
    adjusted = np.full(p.shape, math.nan)
    adjusted[np.flatnonzero(~np.isnan(p))[order]] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def _all_flips(differences: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def _random_flips(differences: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    rng, n = np.random.default_rng((seed, SIGNS)), len(differences)
    rows = max(1, CHUNK // n)
    kept = [  # a sum with signs ±1 is twice the sum of those kept, less the sum of all
        _random_bits(min(rows, permutations - first), n, rng) @ differences
        for first in range(0, permutations, rows)
    ]
    return np.asarray(2 * np.concatenate(kept) - differences.sum())


def _random_bits(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    packed = rng.integers(256, size=(rows, math.ceil(n / 8)), dtype=np.uint8)
    return np.unpackbits(packed, axis=1, count=n).astype(float)
