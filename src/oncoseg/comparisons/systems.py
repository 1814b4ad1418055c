"""Systems against each other on the same patients: numbers, and a sentence that says what they show."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.comparisons.differences import (
    PERMUTATIONS,
    cohen_d,
    holm,
    rank_biserial,
    share_positive,
    sign_flip,
    smallest_p,
    wilcoxon_p,
)
from oncoseg.statistics import ROUNDING, Summary, common_patients, summarise

ALPHA = 0.05
"""Level of the tests: how often, at most, a family of comparisons of equal systems shows any difference."""

RESOLUTION = 10
"""Random signs give p in steps; this many steps, times the comparisons of the family, stay below ALPHA."""


class Comparison(NamedTuple):
    """System a against system b by one metric, on the patients for whom both have a value.

    Differences are a − b in the metric's unit, and effect sizes are positive where a is greater, which is
    better only with `higher_is_better`.

    Attributes:
        a: name of the one system.
        b: name of the other.
        higher_is_better: whether greater values of the metric are better.
        difference: over `n` pairs; `undefined` pairs are left out as one value or both are NaN.
        undefined_a: patients left out whose value of a is NaN.
        undefined_b: patients left out whose value of b is NaN.
        only_a: patients left out because b lacks them.
        only_b: patients left out because a lacks them.
        p: of the sign-flip test, two-sided; NaN without pairs.
        exact: whether all assignments of signs were tried for p, not a random part.
        p_adjusted: p after Holm's correction over the family.
        p_smallest: the least adjusted p that so few patients can give, whatever their values.
        family: number of comparisons in the family.
        p_wilcoxon: of Wilcoxon's signed-rank test, two-sided, pairs without difference dropped.
        p_wilcoxon_adjusted: the same after Holm's correction over the family.
        cohen_d: d_z, mean over standard deviation of the differences; NaN where they do not vary.
        rank_biserial: matched-pairs rank-biserial correlation in [−1, 1]; NaN where no pair differs.
        share_a_better: share of pairs in which a is better, pairs without difference counted half.
        unit: of the metric, as it stands in the sentence; empty where it has none.
    """

    a: str
    b: str
    higher_is_better: bool
    difference: Summary
    undefined_a: int
    undefined_b: int
    only_a: int
    only_b: int
    p: float
    exact: bool
    p_adjusted: float
    p_smallest: float
    family: int
    p_wilcoxon: float
    p_wilcoxon_adjusted: float
    cohen_d: float
    rank_biserial: float
    share_a_better: float
    unit: str = ""

    @property
    def n(self) -> int:
        """Pairs that were compared."""
        return self.difference.n

    @property
    def left_out(self) -> int:
        """Patients of either system that were not compared."""
        return self.difference.undefined + self.only_a + self.only_b

    @property
    def better(self) -> str | None:
        """The system shown to be better: adjusted p at most ALPHA *and* 0 outside the interval; or None.

        The interval is of this comparison alone; it is not widened for the family. Where all patients have
        the same difference there is none, and p decides.
        """
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        if not self.n or mean == 0 or self.p_adjusted > ALPHA:
            return None
        if low is not None and high is not None and low <= 0 <= high:
            return None
        return self.a if (mean > 0) == self.higher_is_better else self.b

    @property
    def sentence(self) -> str:
        """The result in words. "No difference shown" does not mean that there is none: see the interval."""
        return _verdict(self) + _left_out(self)


def paired(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    names: tuple[str, str] = ("A", "B"),
    higher_is_better: bool = True,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare two systems' values of one metric, as the only comparison of its family.

    Args:
        a: of the one system, one per patient; NaN where undefined. What an empty mask or a missing
            prediction scores has to be settled before: a pair with NaN is left out, and counted.
        b: of the other system, for the same patients in the same order.
        names: of the systems.
        higher_is_better: whether greater values of the metric are better.
        permutations: random assignments of signs, where there are too many to try all.
        seed: of bootstrap and random signs.

    Raises:
        ValueError: the two differ in length, or hold infinite values.
    """
    left, right = _checked(a, b)
    undefined = np.isnan(left) | np.isnan(right)
    differences = _without_noise(left[~undefined], right[~undefined])
    test, wilcoxon = sign_flip(differences, permutations, seed), wilcoxon_p(differences)
    return Comparison(
        *names,
        higher_is_better=higher_is_better,
        difference=summarise(differences, seed)._replace(undefined=int(undefined.sum())),
        undefined_a=int(np.isnan(left).sum()),
        undefined_b=int(np.isnan(right).sum()),
        only_a=0,
        only_b=0,
        p=test.p,
        exact=test.exact,
        p_adjusted=test.p,
        p_smallest=smallest_p(len(differences)),
        family=1,
        p_wilcoxon=wilcoxon,
        p_wilcoxon_adjusted=wilcoxon,
        cohen_d=cohen_d(differences),
        rank_biserial=rank_biserial(differences),
        share_a_better=share_positive(differences if higher_is_better else -differences),
    )


def compare_systems(
    table: Mapping[str, Mapping[str, float]],
    *,
    reference: str | None = None,
    higher_is_better: bool = True,
    common_only: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every two systems, or every system with one, as one family under Holm's correction.

    Args:
        table: system → patient → value of one metric; NaN where undefined. Missing predictions have
            their value already.
        reference: the system that every other one is compared with, as its `b`; None for every pair.
        higher_is_better: whether greater values of the metric are better.
        common_only: compare two systems on the patients that both have, rather than raise.
        seed: of bootstrap and random signs.

    Raises:
        ValueError: fewer than two systems, an unknown reference, infinite values, or systems with
            different patients without `common_only`.
    """
    if len(table) < 2 or (reference is not None and reference not in table):
        raise ValueError(
            f"Expected two or more systems with the reference among them, got {list(table)} and the "
            f"reference {reference!r}."
        )
    pairs = list(itertools.combinations(table, 2))
    if reference is not None:
        pairs = [(system, reference) for system in table if system != reference]
    permutations = max(PERMUTATIONS, math.ceil(RESOLUTION * len(pairs) / ALPHA))

    def compare(a: str, b: str) -> Comparison:
        patients, lacking = common_patients({a: table[a], b: table[b]}, common_only)
        values = ([table[system][patient] for patient in patients] for system in (a, b))
        found = paired(
            *values, names=(a, b), higher_is_better=higher_is_better, permutations=permutations, seed=seed
        )
        return found._replace(only_a=lacking[b], only_b=lacking[a])

    return as_family([compare(a, b) for a, b in pairs])


def as_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Make one family of comparisons, over several metrics for instance: Holm's correction over them all.

    A comparison without pairs has no p and does not count.
    """
    p = holm([each.p for each in comparisons])
    wilcoxon = holm([each.p_wilcoxon for each in comparisons])
    # Holm's correction is monotone in every p, so that of the least possible p is the least possible.
    smallest = holm([smallest_p(each.n) for each in comparisons])
    return [
        each._replace(
            p_adjusted=float(p[i]),
            p_wilcoxon_adjusted=float(wilcoxon[i]),
            p_smallest=float(smallest[i]),
            family=int(np.count_nonzero(~np.isnan(p))),
        )
        for i, each in enumerate(comparisons)
    ]


def _checked(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"Expected one value per patient of each system, got shapes {left.shape} and {right.shape}."
        )
    if np.isinf(left).any() or np.isinf(right).any():
        raise ValueError("Expected finite values or NaN, got infinite ones: have a policy replace them.")
    return left, right


def _without_noise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences a − b, of which those that are equal but for rounding errors become exactly equal."""
    largest = float(max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)))
    decimals = -math.floor(math.log10(ROUNDING) + math.log10(largest)) if largest else 0
    return np.asarray(np.round(a - b, decimals))


def _left_out(result: Comparison) -> str:
    """How many patients do not count, and whose fault it is: a false alarm may be worth 0 beside no value."""
    if not result.left_out:
        return ""
    undefined = ""
    if result.undefined_a != result.undefined_b:
        undefined = (
            f"; undefined for {result.a} in {result.undefined_a}, for {result.b} in {result.undefined_b}"
        )
    return f" (patients left out: {result.left_out}{undefined})"


def _verdict(result: Comparison) -> str:
    a, b = result.a, result.b
    correction = f" after Holm's correction over {result.family} comparisons" if result.family > 1 else ""
    if not result.n:
        return f"{a} and {b}: no patients to compare them on"
    if result.p_smallest > ALPHA:
        return (
            f"{a} and {b}: too few patients to say: with n = {result.n} the smallest possible p is "
            f"{result.p_smallest:.3g}{correction}"
        )
    p = f"p = {result.p_adjusted:.2g}{correction}"
    mean, low, high = (getattr(result.difference, name) for name in ("mean", "low", "high"))
    if low is None:
        return _verdict_of_equal_differences(result, mean, p)
    if result.better is None:
        seen = _with_unit(f"{_number(mean)} [{_number(low)}, {_number(high)}]", result)
        return f"no difference shown between {a} and {b}: {a} − {b} = {seen}, {p}"
    low, high = sorted((abs(low), abs(high)))
    by = _with_unit(f"{_number(abs(mean))} [{_number(low)}, {_number(high)}]", result)
    return f"{_better_than(result)} by {by}, {p}"


def _verdict_of_equal_differences(result: Comparison, mean: float, p: str) -> str:
    a, b = result.a, result.b
    each = f"in each of {result.n} patients"
    if mean == 0:
        return f"no difference between {a} and {b} {each}"
    if result.better is None:
        seen = _with_unit(_number(mean), result)
        return f"no difference shown between {a} and {b}: {a} − {b} = {seen} {each}, {p}"
    return f"{_better_than(result)} by {_with_unit(_number(abs(mean)), result)} {each}, {p}"


def _better_than(result: Comparison) -> str:
    """Both are named: of three systems, `A is better` leaves open than which."""
    other = result.b if result.better == result.a else result.a
    return f"{result.better} is better than {other}"


def _with_unit(number: str, result: Comparison) -> str:
    return f"{number} {result.unit}" if result.unit else number


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
