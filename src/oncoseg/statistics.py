"""Means with intervals. The patient is the unit: slices of one patient are not independent."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Coverage of every interval."""

RESAMPLES = 9_999
"""Bootstrap samples; the ends of an interval then move by about 1 % of its width between seeds."""

SMALLEST_SAMPLE = 5
"""With fewer patients no interval is given: a bootstrap of so few is far too narrow."""


class Summary(NamedTuple):
    """What is known about a score from some patients.

    Attributes:
        mean: of the defined values; NaN when there is none.
        median: of the defined values; NaN when there is none.
        low: lower end of the interval of the mean; None where there is no interval.
        high: upper end.
        n: defined values.
        undefined: values left out because the score is not defined for them.
        note: how the interval was made, or why there is none.
    """

    mean: float
    median: float
    low: float | None
    high: float | None
    n: int
    undefined: int
    note: str


def summarise(values: Sequence[float], seed: int = 0) -> Summary:
    """Mean and median of independent values, one per patient, with the mean's bootstrap interval.

    The interval is bias-corrected and accelerated (BCa; Efron 1987). Where BCa is not defined, as
    when all values are equal, it is the percentile interval, and the note says so.

    Args:
        values: one per patient; NaN where undefined.
        seed: of the resampling.
    """
    every = np.asarray(values, dtype=float)
    defined = every[~np.isnan(every)]
    low, high, note = _interval(defined, seed)
    return plain_summary(values)._replace(low=low, high=high, note=note)


def plain_summary(values: Sequence[float], note: str = "") -> Summary:
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


def _interval(values: np.ndarray, seed: int) -> tuple[float | None, float | None, str]:
    if len(values) < SMALLEST_SAMPLE:
        return None, None, f"no interval: {len(values)} patients, fewer than {SMALLEST_SAMPLE}"
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0]), "percentile bootstrap; all values are equal"
    low, high = _bootstrap(values, seed, "BCa")
    if math.isnan(low) or math.isnan(high):
        low, high = _bootstrap(values, seed, "percentile")
        return low, high, "percentile bootstrap; BCa is not defined for these values"
    return low, high, "BCa bootstrap"


def _bootstrap(values: np.ndarray, seed: int, method: str) -> tuple[float, float]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)
