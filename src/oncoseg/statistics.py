"""Means and medians with intervals. The patient is the unit: slices of one patient are not independent."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Coverage of every interval."""

RESAMPLES = 9_999
"""Bootstrap samples; the ends of an interval then move by about 1 % of its width between seeds."""

SMALLEST_SAMPLE = 5
"""With fewer patients no interval is given: a bootstrap of so few is far too narrow."""

ROUGH_SAMPLE = 10
"""With fewer patients an interval is called rough: it covers the truth less often than it says."""

ROUNDING = 1e-12
"""Sums that differ by less, relative to what is summed, are equal: floats depend on the order of adding."""

CHUNK = 2**22
"""Numbers that are in memory at once while resampling (32 MiB of float64)."""


ROWS = 256
"""Samples in memory at once while a statistic is resampled."""


class Summary(NamedTuple):
    """What is known about a score from some patients.

    Attributes:
        mean: of the defined values; NaN when there is none.
        median: of the defined values; NaN when there is none.
        low: lower end of the interval of the mean; None where there is no interval.
        high: upper end.
        n: defined values.
        undefined: values left out because the score is not defined for them.
        note: how the intervals were made and whether they are rough, or why there is none; empty where there
            is no value that could have one.
        median_low: lower end of the interval of the median; None where there is no interval.
        median_high: upper end.
    """

    mean: float
    median: float
    low: float | None
    high: float | None
    n: int
    undefined: int
    note: str
    median_low: float | None = None
    median_high: float | None = None


class Estimate(NamedTuple):
    """A number that several patients make together, such as a rate over all their voxels.

    Attributes:
        value: NaN where undefined.
        low: lower end of the interval; None where there is none.
        high: upper end.
        n: patients whose drawing anew decides the interval.
        note: how the interval was made and whether it is rough, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    note: str


class Band(NamedTuple):
    """A curve with the pointwise interval of each of its points.

    Attributes:
        value: of the curve; NaN where undefined.
        low: lower ends, never above the curve; None where there is no interval.
        high: upper ends, never below it.
        note: as of an Estimate.
    """

    value: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    note: str


Statistic = Callable[[np.ndarray], np.ndarray]
"""How often each patient is in each sample (`samples patients`, float64) → `samples columns`, NaN where
a sample leaves a column undefined."""


class Draws(NamedTuple):
    """Bootstrap samples: RESAMPLES times n patients, drawn from n with replacement.

    Attributes:
        counts: how often each patient was drawn; `samples patients`, uint8.
        middle: the two middle ones of the drawn indices in ascending order (for odd n twice the same);
            `samples 2`. Of ascending values, those at these indices have the sample's median as mean.
    """

    counts: np.ndarray
    middle: np.ndarray


class _Interval(NamedTuple):
    low: float
    high: float
    method: str


def summarise(values: Sequence[float] | np.ndarray, seed: int = 0) -> Summary:
    """Mean and median of independent values, one per patient, each with its bootstrap interval.

    The intervals are bias-corrected and accelerated (BCa; Efron 1987, "Better bootstrap confidence
    intervals"). Where BCa is not defined, as for a median among ties, it is the percentile interval, and
    the note says so. With fewer than SMALLEST_SAMPLE values there is no interval, nor where all are equal:
    a bootstrap would have no width, though no false alarm in ten patients is no proof that there is none.

    Args:
        values: one per patient; NaN where undefined.
        seed: of the resampling.
    """
    plain = plain_summary(values)
    every = np.asarray(values, dtype=float)
    defined = every[~np.isnan(every)]
    if not plain.n:
        return plain
    if plain.n < SMALLEST_SAMPLE:
        return plain._replace(note=_too_few(plain.n))
    if np.ptp(defined) == 0:
        return plain._replace(note=all_equal(plain.n))
    mean, median = _mean_interval(defined, seed), _median_interval(np.sort(defined), seed)
    one_value = median.low == median.high
    method = "no interval: nearly all samples have the same one" if one_value else median.method
    note = mean.method if mean.method == method else f"{mean.method}; of the median: {method}"
    return plain._replace(
        low=mean.low,
        high=mean.high,
        note=note + rough(plain.n),
        median_low=None if one_value else median.low,
        median_high=None if one_value else median.high,
    )


def summarise_shares(values: Sequence[float] | np.ndarray, seed: int = 0) -> Summary:
    """As `summarise`, of what is yes (1) or no (0) in each patient: a share, with Wilson's interval.

    Patients of whom it is true in part, as of some of their cases, leave it to the bootstrap.

    Args:
        values: in [0, 1], one per patient; NaN where undefined.
        seed: of the resampling.
    """
    plain, every = plain_summary(values), np.asarray(values, dtype=float)
    if plain.n < SMALLEST_SAMPLE or not np.isin(every[~np.isnan(every)], (0, 1)).all():
        return summarise(values, seed)
    share = proportion(int(np.nansum(every)), plain.n)
    note = f"{share.note}; of the median: no interval, each is yes or no{rough(plain.n)}"
    return plain._replace(low=share.low, high=share.high, note=note)


def all_equal(n: int) -> str:
    """The note where a bootstrap cannot tell how values vary."""
    return f"no interval: all {n} values are equal"


def plain_summary(values: Sequence[float] | np.ndarray, note: str = "") -> Summary:
    """Mean and median without an interval, for values that are not independent or only one.

    Args:
        values: NaN where undefined.
        note: why there is no interval.
    """
    every = np.asarray(values, dtype=float)
    defined = every[~np.isnan(every)]
    mean = float(defined.mean()) if len(defined) else math.nan
    median = float(np.median(defined)) if len(defined) else math.nan
    return Summary(mean, median, None, None, len(defined), len(every) - len(defined), note)


def rough(n: int) -> str:
    """What to add to a note on an interval from n patients: a warning, or nothing from ROUGH_SAMPLE on."""
    return f"; rough: {n} patients, fewer than {ROUGH_SAMPLE}" if n < ROUGH_SAMPLE else ""


def rough_sentence(numbers: Iterable[int]) -> str:
    """What stands beside intervals some of which are rough; empty where none is.

    Args:
        numbers: of patients, from each of which there is an interval.
    """
    few = [n for n in numbers if SMALLEST_SAMPLE <= n < ROUGH_SAMPLE]
    if not few:
        return ""
    return (
        f"Intervals from fewer than {ROUGH_SAMPLE} patients are rough (here from {min(few)}): they hold the "
        "truth less often than they say."
    )


def percentiles(distribution: np.ndarray) -> tuple[float, float]:
    """The percentile interval: what lies between the tails of a bootstrap distribution."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(distribution, (tail, 1 - tail))
    return float(low), float(high)


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Bootstrap distribution of the means of several columns, all over the same drawn patients.

    Args:
        values: `patients columns`, without NaN, at least one patient.
        seed: of the resampling.

    Returns:
        `RESAMPLES columns`.
    """
    counts, rows = draws(len(values), seed).counts, max(1, CHUNK // len(values))
    parts = [counts[first : first + rows].astype(float) @ values for first in range(0, RESAMPLES, rows)]
    return np.concatenate(parts) / len(values)


def estimate(statistic: Statistic, n: int, deciding: int | None = None, seed: int = 0) -> list[Estimate]:
    """What a statistic of n patients says, each column with its bootstrap interval over the patients.

    BCa as in `summarise`, for statistics that are no means, such as a share of all patients' voxels or
    the area under their common curve. Samples that leave a column undefined are left out of its interval.

    Args:
        statistic: of any weights of the patients.
        n: patients, at least one.
        deciding: how many of them can move the statistic, such as those with tumour for the share found;
            below SMALLEST_SAMPLE there is no interval. None for all.
        seed: of the resampling.
    """
    decisive = n if deciding is None else deciding
    values = statistic(np.ones((1, n)))[0]
    if decisive < SMALLEST_SAMPLE:
        return [Estimate(float(value), None, None, decisive, _too_few(decisive)) for value in values]
    samples, without = _resampled(statistic, n, seed), statistic(1 - np.eye(n))
    return [
        _estimate(float(value), sample, left_out, decisive)
        for value, sample, left_out in zip(values, samples.T, without.T, strict=True)
    ]


def band(statistic: Statistic, n: int, deciding: int | None = None, seed: int = 0) -> Band:
    """A curve with a pointwise percentile interval from drawing the patients anew.

    Each point's interval stands for itself: the whole curve leaves the band more often than 5 % of the
    time. Where resampling shifts a point (bias), the band is widened so that it holds the curve.

    Args:
        statistic: one column for each point.
        n: patients, at least one.
        deciding: as in `estimate`.
        seed: of the resampling.
    """
    decisive = n if deciding is None else deciding
    values = statistic(np.ones((1, n)))[0]
    if decisive < SMALLEST_SAMPLE:
        return Band(values, None, None, _too_few(decisive))
    samples = _resampled(statistic, n, seed)
    low, high = np.array([_percentiles_of_defined(sample) for sample in samples.T]).T
    low, high = np.fmin(low, values), np.fmax(high, values)
    return Band(values, low, high, "pointwise percentile bootstrap" + rough(decisive))


def proportion(count: int, n: int) -> Estimate:
    """The share of n patients, each of whom does or does not, with Wilson's score interval.

    A bootstrap would call 5 of 5 certain; this one says 57 to 100 %. Source: Wilson, JASA 1927.
    """
    if not n:
        return Estimate(math.nan, None, None, 0, "no interval: no patient")
    from scipy.special import ndtri

    share, z = count / n, -float(ndtri((1 - CONFIDENCE) / 2))
    centre, reach = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + side * reach) / (1 + z**2 / n) for side in (-1, 1))
    return Estimate(share, min(low, share), max(high, share), n, "Wilson's score interval")


@lru_cache(maxsize=4)
def draws(n: int, seed: int | tuple[int, ...]) -> Draws:
    """Draw bootstrap samples of n patients; kept, because every score of the patients uses the same.

    Args:
        n: patients, at least one. The memory kept is RESAMPLES · n bytes.
        seed: of the resampling.
    """
    rng, rows = np.random.default_rng(seed), max(1, CHUNK // n)
    blocks = [_draw(n, min(rows, RESAMPLES - first), rng) for first in range(0, RESAMPLES, rows)]
    drawn = Draws(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    for array in drawn:
        array.setflags(write=False)  # it is handed out again
    return drawn


def common_patients(
    table: Mapping[str, Mapping[str, float]], common_only: bool = False
) -> tuple[list[str], dict[str, int]]:
    """The patients that all systems have, in alphabetical order.

    Args:
        table: system → patient → value.
        common_only: leave out patients that some system lacks, rather than raise.

    Returns:
        The patients, and system → number of patients that it lacks.

    Raises:
        ValueError: the systems have different patients, and `common_only` is not set: a system that
            lacks the difficult patients would seem better than it is.
    """
    every = set[str]().union(*table.values())
    lacking = {system: sorted(every - set(values)) for system, values in table.items()}
    for system, patients in lacking.items():
        if patients and not common_only:
            raise ValueError(
                f"Expected every system to have the same {len(every)} patients, but {system!r} lacks "
                f"{len(patients)} ({_some(patients)}): give missing predictions a value, or compare common "
                "patients only."
            )
    common = every.difference(*lacking.values())
    return sorted(common), {system: len(patients) for system, patients in lacking.items()}


def _too_few(n: int) -> str:
    return f"no interval: {n} patient{'' if n == 1 else 's'}, fewer than {SMALLEST_SAMPLE}"


def _some(names: Collection[str], shown: int = 3) -> str:
    return ", ".join(list(names)[:shown]) + (", …" if len(names) > shown else "")


def _percentiles_of_defined(sample: np.ndarray) -> tuple[float, float]:
    defined = _defined(sample)
    return percentiles(defined) if defined.size else (math.nan, math.nan)


def _defined(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[~np.isnan(values)])


def _resampled(statistic: Statistic, n: int, seed: int) -> np.ndarray:
    """`RESAMPLES columns` of a statistic; few samples are in memory at once."""
    counts = draws(n, seed).counts
    parts = range(0, RESAMPLES, ROWS)
    return np.concatenate([statistic(counts[first : first + ROWS].astype(float)) for first in parts])


def _estimate(value: float, samples: np.ndarray, without: np.ndarray, n: int) -> Estimate:
    defined = _defined(samples)
    if math.isnan(value) or not defined.size:
        return Estimate(value, None, None, n, "no interval: not defined")
    if np.ptp(defined) <= ROUNDING * np.abs(defined).max():
        return Estimate(value, None, None, n, f"no interval: all {n} patients are alike")
    influence = without.mean() - without
    levels = _bca_levels(defined, value, influence, ROUNDING * float(np.abs(defined).max()))
    if np.isnan(levels).any():
        low, high = percentiles(defined)
        words = "percentile bootstrap; BCa is not defined for these values"
    else:
        low, high = (float(end) for end in np.quantile(defined, levels))
        words = "BCa bootstrap"
    return Estimate(value, low, high, n, words + rough(n))


def _draw(n: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    in_row = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    counts = np.bincount(in_row.ravel(), minlength=rows * n).reshape(rows, n)
    so_far = counts.cumsum(axis=1)
    middle = [(so_far > place).argmax(axis=1) for place in ((n - 1) // 2, n // 2)]
    return counts.astype(np.uint8), np.stack(middle, axis=1)


def _mean_interval(values: np.ndarray, seed: int) -> _Interval:
    distribution = resampled_means(values[:, None], seed)[:, 0]
    return _interval(values, distribution, values.mean(), values - values.mean())


def _median_interval(ascending: np.ndarray, seed: int) -> _Interval:
    distribution = ascending[draws(len(ascending), seed).middle].mean(axis=1)
    without = _medians_without_each(ascending)
    return _interval(ascending, distribution, np.median(ascending), without.mean() - without)


def _medians_without_each(ascending: np.ndarray) -> np.ndarray:
    """The jackknife of the median: entry i is the median of all values but the i-th smallest."""
    n = len(ascending)
    # Leaving out a value below a place moves the following value onto that place.
    places = np.array([(n - 2) // 2, (n - 1) // 2])
    left_out = np.arange(n)[:, None]
    return np.asarray(ascending[places + (left_out <= places)].mean(axis=1))


def _interval(
    values: np.ndarray, distribution: np.ndarray, estimate: float, influence: np.ndarray
) -> _Interval:
    """The BCa interval, or the percentile interval where that is not defined.

    Args:
        values: the sample.
        distribution: the estimate in every bootstrap sample.
        estimate: from the sample.
        influence: of each value, up to a factor: by how much the estimate falls without it.
    """
    levels = _bca_levels(distribution, estimate, influence, ROUNDING * float(np.abs(values).max()))
    if np.isnan(levels).any():
        words = "percentile bootstrap; BCa is not defined for these values"
        return _Interval(*percentiles(distribution), words)
    low, high = np.quantile(distribution, levels)
    return _Interval(float(low), float(high), "BCa bootstrap")


def _bca_levels(
    distribution: np.ndarray, estimate: float, influence: np.ndarray, tolerance: float
) -> np.ndarray:
    """Which quantiles of the distribution end the interval; NaN where BCa is not defined.

    Efron & Tibshirani 1993, "An introduction to the bootstrap", equations 14.10 (levels), 14.14 (bias; a
    sample that ties with the estimate counts half as below) and 14.15 (acceleration, from the jackknife).
    """
    from scipy.special import ndtr, ndtri

    square = float(np.sum(influence**2))
    if square <= len(influence) * tolerance**2:
        return np.full(2, math.nan)
    acceleration = float(np.sum(influence**3)) / (6 * square**1.5)
    below, not_above = distribution < estimate - tolerance, distribution <= estimate + tolerance
    bias = ndtri((below.mean() + not_above.mean()) / 2)
    tail = (1 - CONFIDENCE) / 2
    shifted = bias + ndtri((tail, 1 - tail))
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))
