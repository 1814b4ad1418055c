"""Seeds of the training as a second source of variation beside the patients."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError
from oncoseg.statistics import (
    ROUNDING,
    SMALLEST_SAMPLE,
    all_equal,
    draws,
    percentiles,
    plain_summary,
    resampled_means,
    rough,
)

FEWEST_SEEDS = 3
"""With fewer trainings nothing is said on how much results vary between them."""

TRAININGS = 2
"""Tells the drawing of trainings from that of patients, which has the same seed."""


class SeedVariation(NamedTuple):
    """A score of several trainings of one recipe, on the same patients.

    Attributes:
        mean: over patients of the mean over trainings; NaN without patients.
        low: lower end of its interval; None with too few patients.
        high: upper end.
        patient_sd: standard deviation, over patients, of the mean over trainings; NaN with fewer than two.
        seed_sd: standard deviation, over trainings, of the mean over patients; NaN with fewer than two.
        n: patients with a value in every training.
        left_out: patients whose value is undefined in some training.
        seeds: trainings.
        note: how the interval was made, or why there is none.
    """

    mean: float
    low: float | None
    high: float | None
    patient_sd: float
    seed_sd: float
    n: int
    left_out: int
    seeds: int
    note: str

    @property
    def sentence(self) -> str:
        """The result in words, with a warning where there are too few trainings."""
        interval = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        start = f"mean {self.mean:.3g}{interval} over {self.n} patients"
        if self.seeds >= FEWEST_SEEDS:
            return f"{start} and {self.seeds} trainings; between trainings it varies by SD {self.seed_sd:.2g}"
        trainings = "1 training" if self.seeds == 1 else f"{self.seeds} trainings"
        return f"{start}; {trainings}: too few to say how much it varies between trainings"


def mean_of_trainings(system: str, trainings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Patient → mean over trainings; undefined where it is in any of them.

    Raises:
        DataError: trainings of different patients.
    """
    if any(of.keys() != trainings[0].keys() for of in trainings):
        raise DataError(f"The trainings of {system} were evaluated on different patients; expected the same.")
    return {patient: math.fsum(of[patient] for of in trainings) / len(trainings) for patient in trainings[0]}


def between_trainings(trainings: Sequence[Mapping[str, float]], seed: int = 0) -> SeedVariation:
    """`across_seeds` of trainings that scored the same patients, each as patient → value."""
    return across_seeds(np.array([[of[patient] for of in trainings] for patient in trainings[0]]), seed)


def across_seeds(values: np.ndarray, seed: int = 0) -> SeedVariation:
    """Mean over patients and trainings, its interval, and how much of it varies with which of the two.

    Every training has scored every patient, so that a lucky training is lucky for all patients at once:
    a bootstrap sample draws trainings once and has them for all its drawn patients (the pigeonhole
    bootstrap of Owen 2007, "The pigeonhole bootstrap"). Trainings drawn for each patient anew would take
    their luck for independent and average it away. Few trainings still make the interval too narrow: s of
    them show only (s − 1) / s of the variance between trainings, and one shows nothing.

    Args:
        values: `patients seeds`, of one metric; a patient with NaN in any training is left out of all.
        seed: of the bootstrap.

    Raises:
        ValueError: not two axes, no training, or infinite values.
    """
    every = np.asarray(values, dtype=float)
    if every.ndim != 2 or not every.shape[1] or np.isinf(every).any():
        raise ValueError(f"Expected finite values or NaN, patients × seeds, got an array of {every.shape}.")
    defined = every[~np.isnan(every).any(axis=1)]
    n, seeds = defined.shape
    low, high, note = _interval(defined, seed)
    return SeedVariation(
        plain_summary(defined.mean(axis=1)).mean,
        low,
        high,
        _sd(defined.mean(axis=1)),
        _sd(defined.mean(axis=0)) if n else math.nan,
        n,
        len(every) - n,
        seeds,
        note,
    )


def _interval(values: np.ndarray, seed: int) -> tuple[float | None, float | None, str]:
    n, seeds = values.shape
    if n < SMALLEST_SAMPLE:
        return None, None, f"no interval: {n} patients, fewer than {SMALLEST_SAMPLE}"
    if np.ptp(values) == 0:
        return None, None, all_equal(n)
    of_training = resampled_means(values, seed)
    weights = draws(seeds, (seed, TRAININGS)).counts / seeds
    low, high = percentiles(np.sum(of_training * weights, axis=1))
    drawn = "patients and trainings" if seeds > 1 else "patients, of one training"
    return low, high, f"percentile bootstrap of {drawn}{rough(n)}"


def _sd(values: np.ndarray) -> float:
    if len(values) < 2:
        return math.nan
    alike = np.ptp(values) <= ROUNDING * np.abs(values).max()
    return 0.0 if alike else float(values.std(ddof=1))
