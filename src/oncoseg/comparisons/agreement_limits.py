"""Limits of agreement of two ways to measure, where some patients were measured several times."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.statistics import CONFIDENCE, Estimate, Statistic, estimate

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


def limits_of_agreement(differences: Sequence[float], patients: Sequence[Hashable], seed: int = 0) -> Limits:
    """The range that holds the difference of 95 % of single cases, if differences are about normal.

    The variance of a difference is that between patients and that within them together, from a one-way
    analysis of variance (Bland and Altman, J. Biopharm. Stat. 2007, section 3, for a true value that varies
    between the measurements): several cases of one patient are not independent. A negative component
    between patients is kept, so that differences that cancel within a patient do not widen the limits.

    With one case per patient this is Bland and Altman's method of 1986 (Lancet), and the intervals are
    theirs: s / √n of the mean, √3 times as much of a limit, with Student's t. Elsewhere patients are drawn
    anew with all their cases (BCa bootstrap).

    Args:
        differences: one per case, at least one.
        patients: whose case it is.
        seed: of the bootstrap.
    """
    groups: dict[Hashable, list[float]] = {}
    for difference, patient in zip(differences, patients, strict=True):
        groups.setdefault(patient, []).append(difference)
    n, cases = len(groups), len(differences)
    statistic = _moments(list(groups.values()))
    if n < SMALLEST_FOR_LIMITS:
        few = f"no interval: {n} patients, fewer than {SMALLEST_FOR_LIMITS}"
        mean = float(np.mean(differences))
        return Limits(Estimate(mean, None, None, n, few), None, None, cases, n)
    found = estimate(statistic, n, seed=seed) if n < cases else _by_student(statistic(np.ones((1, n)))[0], n)
    mean_difference, lower, upper = found
    return Limits(mean_difference, lower, upper, cases, n)


def _moments(groups: Sequence[Sequence[float]]) -> Statistic:
    """Weights of the patients → mean, lower and upper limit."""
    size = np.array([len(group) for group in groups], dtype=float)
    centre = float(np.mean([value for group in groups for value in group]))
    means = np.array([np.mean(group) for group in groups]) - centre
    within = np.array([np.sum((np.array(group) - np.mean(group)) ** 2) for group in groups])

    def of_weights(weights: np.ndarray) -> np.ndarray:
        n, cases = weights.sum(axis=1), weights @ size
        mean = weights @ (size * means) / cases
        between = np.maximum(weights @ (size * means**2) - cases * mean**2, 0) / (n - 1)
        free = cases - n
        inside = np.where(free > 0, weights @ within / np.maximum(free, 1), 0)
        usual_size = (cases - weights @ size**2 / cases) / (n - 1)
        reach = NORMAL_95 * np.sqrt(between / usual_size + (1 - 1 / usual_size) * inside)
        return np.stack([centre + mean, centre + mean - reach, centre + mean + reach], axis=1)

    return of_weights


def _by_student(values: np.ndarray, n: int) -> list[Estimate]:
    """Intervals of mean, lower and upper limit of n independent differences."""
    from scipy.stats import t

    mean, lower, upper = map(float, values)
    sd = (upper - lower) / 2 / NORMAL_95
    reach = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    of_each = ((mean, reach), (lower, math.sqrt(3) * reach), (upper, math.sqrt(3) * reach))
    return [Estimate(x, x - around, x + around, n, "Student's t") for x, around in of_each]
