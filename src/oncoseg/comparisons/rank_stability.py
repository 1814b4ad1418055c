"""How much a ranking of systems depends on which patients happened to be in the test set."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from oncoseg.statistics import (
    CONFIDENCE,
    ROUNDING,
    SMALLEST_SAMPLE,
    common_patients,
    plain_summary,
    resampled_means,
    rough,
)


class SystemRank(NamedTuple):
    """One system's place.

    Attributes:
        system: its name.
        mean: of its values over the ranked patients; NaN without patients.
        rank: 1 is best; systems with equal means share the mean of their ranks; NaN without patients.
        low: lower end of the interval of the rank; None with too few patients.
        high: upper end.
        first_share: share of bootstrap samples in which it is first, a shared first place split evenly;
            None with too few patients.
        left_out: patients that it lacks or for whom its value is undefined, and that are therefore left
            out for every system.
    """

    system: str
    mean: float
    rank: float
    low: float | None
    high: float | None
    first_share: float | None
    left_out: int


class RankStability(NamedTuple):
    """A ranking by means and how it holds when patients are drawn anew.

    Attributes:
        systems: in the order of their ranks.
        n: patients for whom every system has a value.
        left_out: patients for whom some system has none.
        tau_mean: mean of Kendall's τ_b between the ranking and that of each bootstrap sample, 1 where it
            never changes; None with too few patients or where all systems are equal.
        tau_low: lower end of the interval of τ_b.
        tau_high: upper end.
        note: how it was made, or why there are no intervals.
    """

    systems: tuple[SystemRank, ...]
    n: int
    left_out: int
    tau_mean: float | None
    tau_low: float | None
    tau_high: float | None
    note: str


def rank_stability(
    table: Mapping[str, Mapping[str, float]],
    *,
    higher_is_better: bool = True,
    common_only: bool = False,
    seed: int = 0,
) -> RankStability:
    """Rank systems by their means, over all patients and over bootstrap samples of them.

    Wiesenfarth et al. 2021, "Methods and open-source toolkit for analyzing and visualizing challenge
    results": "aggregate then rank", with the stability of the ranking by bootstrap. In every sample all
    systems have the same patients. Intervals of ranks are percentiles.

    Args:
        table: system → patient → value of one metric; NaN where undefined, which leaves the patient out
            for every system.
        higher_is_better: whether the greatest mean is first.
        common_only: rank on the patients that all systems have, rather than raise.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two systems, infinite values, or systems with different patients without
            `common_only`.
    """
    if len(table) < 2:
        raise ValueError(f"Expected two or more systems to rank, got {list(table)}.")
    common, _ = common_patients(table, common_only)
    values = np.array([[of[patient] for patient in common] for of in table.values()], dtype=float).T
    if np.isinf(values).any():
        raise ValueError("Expected finite values or NaN, got infinite ones: have a policy replace them.")
    values = values[~np.isnan(values).any(axis=1)]
    ranking = _ranking(table, values, higher_is_better)
    if ranking.n < SMALLEST_SAMPLE:
        return ranking
    order = [list(table).index(place.system) for place in ranking.systems]
    return _with_intervals(ranking, values[:, order], higher_is_better, seed)


def without_stability(ranking: RankStability) -> RankStability:
    """The ranking alone: of patients too few for any test a bootstrap would tell more than they know."""
    if ranking.n < SMALLEST_SAMPLE:
        return ranking
    return ranking._replace(
        systems=tuple(place._replace(low=None, high=None, first_share=None) for place in ranking.systems),
        tau_mean=None,
        tau_low=None,
        tau_high=None,
        note=f"no intervals: {ranking.n} patients are too few for any test to show a difference",
    )


def _ranking(
    table: Mapping[str, Mapping[str, float]], values: np.ndarray, higher_is_better: bool
) -> RankStability:
    everyone = len(set[str]().union(*table.values()))
    means = np.array([plain_summary(column).mean for column in values.T])
    ranks = _ranks(means[None], _tolerance(values), higher_is_better)[0]
    missing = [everyone - plain_summary(list(of.values())).n for of in table.values()]
    systems = [
        SystemRank(name, float(mean), float(rank), None, None, None, left_out)
        for name, mean, rank, left_out in zip(table, means, ranks, missing, strict=True)
    ]
    return RankStability(
        tuple(sorted(systems, key=lambda place: place.rank)),
        len(values),
        everyone - len(values),
        None,
        None,
        None,
        f"no intervals: {len(values)} patients, fewer than {SMALLEST_SAMPLE}",
    )


def _with_intervals(
    ranking: RankStability, values: np.ndarray, higher_is_better: bool, seed: int
) -> RankStability:
    drawn = _ranks(resampled_means(values, seed), _tolerance(values), higher_is_better)
    first = drawn == drawn.min(axis=1, keepdims=True)
    share = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    systems = tuple(
        place._replace(low=float(low), high=float(high), first_share=float(part))
        for place, low, high, part in zip(ranking.systems, *_interval(drawn), share, strict=True)
    )
    tau_mean, tau_low, tau_high = _tau_summary(np.array([place.rank for place in systems]), drawn)
    note = f"percentile bootstrap{rough(ranking.n)}"
    return ranking._replace(systems=systems, tau_mean=tau_mean, tau_low=tau_low, tau_high=tau_high, note=note)


def _tolerance(values: np.ndarray) -> float:
    return ROUNDING * float(np.abs(values).max(initial=0))


def _ranks(means: np.ndarray, tolerance: float, higher_is_better: bool) -> np.ndarray:
    """Ranks in every row, 1 for the best; equal means share the mean of their ranks; NaN stays."""
    goodness = means if higher_is_better else -means
    ranks = np.full(means.shape, 0.5)
    for other in goodness.T[:, :, None]:
        ranks += 0.5 * (other > goodness + tolerance) + 0.5 * (other >= goodness - tolerance)
    return np.where(np.isnan(means), math.nan, ranks)


def _interval(distribution: np.ndarray) -> np.ndarray:
    """Percentiles of every column, without interpolation: a rank that occurred."""
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.quantile(distribution, (tail, 1 - tail), axis=0, method="inverted_cdf"))


def _tau_summary(ranks: np.ndarray, drawn: np.ndarray) -> tuple[float | None, float | None, float | None]:
    tau = _kendall_tau(ranks, drawn)
    tau = tau[~np.isnan(tau)]
    if not len(tau):
        return None, None, None
    low, high = _interval(tau)
    return float(tau.mean()), float(low), float(high)


def _kendall_tau(ranks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Kendall's τ_b (Kendall 1945) of a ranking with each row of `drawn`; NaN where all systems tie."""
    agreement, untied, untied_drawn = (np.zeros(len(drawn)) for _ in range(3))
    for shift in range(1, len(ranks)):
        order = np.sign(ranks[shift:] - ranks[:-shift])
        order_drawn = np.sign(drawn[:, shift:] - drawn[:, :-shift])
        agreement += (order * order_drawn).sum(axis=1)
        untied += np.abs(order).sum()
        untied_drawn += np.abs(order_drawn).sum(axis=1)
    pairs = np.sqrt(untied * untied_drawn)
    undefined = np.full(len(drawn), math.nan)
    return np.asarray(np.divide(agreement, pairs, out=undefined, where=pairs > 0))
