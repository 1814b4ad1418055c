"""Limits of agreement of two ways to measure, where some patients were measured several times."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.statistics import CONFIDENCE, Estimate

SMALLEST_FOR_LIMITS = 10
"""With fewer patients no limits of agreement are given: they rest on a standard deviation."""

NORMAL_95 = 1.96
"""Standard deviations to either side that hold 95 % of a normal distribution."""


class Limits(NamedTuple):
    """Mean difference and 95 % limits of agreement.

    Attributes:
        mean: of all differences, each case counting alike.
        lower: the lower limit; None with fewer patients than SMALLEST_FOR_LIMITS.
        upper: the upper limit.
        cases: differences.
        patients: who have them.
    """

    mean: Estimate
    lower: Estimate | None
    upper: Estimate | None
    cases: int
    patients: int


class _Spread(NamedTuple):
    """Variances of a single difference, of the mean of all, and of the standard deviation of a single one."""

    single: float
    of_mean: float
    of_sd: float


def limits_of_agreement(differences: Sequence[float], patients: Sequence[Hashable]) -> Limits:
    """The range that holds the difference of 95 % of single cases, if differences are about normal.

    The variance of a difference is that between patients and that within them together, from a one-way
    analysis of variance (Bland and Altman, J. Biopharm. Stat. 2007, section 3, for a true value that varies
    between the measurements): several cases of one patient are not independent. A negative component
    between patients is kept, so that differences that cancel within a patient do not widen the limits.

    Intervals are by Student's t with patients − 1 degrees of freedom. With one case per patient all is as in
    Bland and Altman, Stat. Methods Med. Res. 1999: a limit has the variance s² (1 / n + 1.96² / (2 (n − 1))).
    With several, the mean's variance is that of clusters, and the standard deviation's follows from those of
    the two mean squares.

    Args:
        differences: one per case, at least one.
        patients: whose case it is.
    """
    groups: dict[Hashable, list[float]] = {}
    for difference, patient in zip(differences, patients, strict=True):
        groups.setdefault(patient, []).append(difference)
    n, cases, mean = len(groups), len(differences), float(np.mean(differences))
    if n < SMALLEST_FOR_LIMITS:
        few = f"no interval: {n} patients, fewer than {SMALLEST_FOR_LIMITS}"
        return Limits(Estimate(mean, None, None, n, few), None, None, cases, n)
    spread = _spread([np.array(group) for group in groups.values()], mean)
    reach = NORMAL_95 * math.sqrt(spread.single)
    of_limit = spread.of_mean + NORMAL_95**2 * spread.of_sd
    return Limits(
        _by_student(mean, spread.of_mean, n),
        _by_student(mean - reach, of_limit, n),
        _by_student(mean + reach, of_limit, n),
        cases,
        n,
    )


def _spread(groups: Sequence[np.ndarray], mean: float) -> _Spread:
    n, size = len(groups), np.array([len(group) for group in groups])
    cases, off = int(size.sum()), np.array([group.mean() - mean for group in groups])
    between = float(np.sum(size * off**2)) / (n - 1)
    within = sum(float(np.sum((group - group.mean()) ** 2)) for group in groups) / max(cases - n, 1)
    share = (n - 1) / (cases - float(np.sum(size**2)) / cases)
    single = share * between + (1 - share) * within
    of_mean = float(np.sum((size * off) ** 2)) * n / (n - 1) / cases**2
    of_single = 2 * ((share * between) ** 2 / (n - 1) + ((1 - share) * within) ** 2 / max(cases - n, 1))
    return _Spread(single, of_mean, of_single / (4 * single) if single else 0.0)


def _by_student(value: float, variance: float, n: int) -> Estimate:
    from scipy.stats import t

    reach = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach, n, "Student's t")
