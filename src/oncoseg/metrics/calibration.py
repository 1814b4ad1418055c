"""Whether probabilities mean what they say: among voxels given 0.7, are 70 % tumour?

All scores follow from sums per bin of probability, which add up over slabs, cases and sets.

Over whole volumes the sea of easy background, rightly given about 0, makes every score here but the
maximum look good whatever happens at the tumour. To ask about the tumour, pass the voxels of a region,
such as the organ or a margin around truth and prediction: `calibration_sums(p[region], t[region])`.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from oncoseg.metrics.ranking import paired_chunks

CALIBRATION_BINS = 15
"""Bins of a reliability curve, as in Guo et al. 2017; scores with other numbers do not compare."""

CHUNK_VOXELS = 1 << 20
"""Voxels looked at together: some 50 MB of working memory."""


class CalibrationSums(NamedTuple):
    """Sums over voxels, by bin of probability; `pool_calibration` adds them (`+` would join the tuples).

    Attributes:
        voxels: number per bin, int64.
        probability: sum of their probabilities per bin, float64.
        positives: tumour voxels per bin, int64.
        squared_error: Σ (p − y)² over the voxels of all bins, y being 1 for tumour and 0 else.
    """

    voxels: np.ndarray
    probability: np.ndarray
    positives: np.ndarray
    squared_error: float


class Reliability(NamedTuple):
    """A reliability curve, one point per bin; a perfectly calibrated one has both shares equal.

    Attributes:
        mean_probability: of the bin's voxels; NaN in an empty bin.
        observed_share: of the bin's voxels that are tumour; NaN in an empty bin.
        voxels: number in the bin.
    """

    mean_probability: np.ndarray
    observed_share: np.ndarray
    voxels: np.ndarray


def calibration_sums(
    probability: np.ndarray, truth: np.ndarray, bins: int = CALIBRATION_BINS
) -> CalibrationSums:
    """Sum voxels up by probability, in equally wide bins ((b − 1)/bins, b/bins], b = 1 … bins.

    An edge belongs to the bin below it, and 0 to the first, as in Guo et al. and scikit-learn.

    Args:
        probability: of tumour, in [0, 1], real, any shape; may be a memory map.
        truth: bool, of the same shape; without tumour the sums are as well defined as with it.
        bins: at least 1.

    Raises:
        ValueError: another shape or type, a probability outside [0, 1] or NaN, or no bins.
    """
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got {bins}.")
    nothing = CalibrationSums(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64), 0.0)
    parts = (_sums(*chunk, bins) for chunk in paired_chunks(probability, truth, CHUNK_VOXELS))
    return pool_calibration([nothing, *parts])


def pool_calibration(sums: Iterable[CalibrationSums]) -> CalibrationSums:
    """Add sums of slabs, cases or sets as if all voxels were of one image.

    Raises:
        ValueError: nothing to add, or sums with different numbers of bins.
    """
    every = list(sums)
    lengths = sorted({len(part.voxels) for part in every})
    if len(lengths) != 1:
        raise ValueError(f"Expected sums with one number of bins, got numbers of bins {lengths}.")
    voxels, probability, positives, squared_error = zip(*every, strict=True)
    return CalibrationSums(
        np.sum(voxels, axis=0),
        np.sum(probability, axis=0),
        np.sum(positives, axis=0),
        math.fsum(squared_error),
    )


def brier(sums: CalibrationSums) -> float:
    """Mean squared difference of probability and truth, in [0, 1]; 0 is perfect, NaN without voxels.

    It rewards calibration and discrimination together, and does not depend on the bins. Answering the
    share q of tumour everywhere scores q·(1 − q), which is tiny where tumour is rare. Source: Brier,
    Monthly Weather Review 1950, whose sum over both classes is twice this.
    """
    voxels = int(sums.voxels.sum())
    return sums.squared_error / voxels if voxels else math.nan


def expected_calibration_error(sums: CalibrationSums) -> float:
    """Gap between mean probability and observed share, averaged over voxels, in [0, 1]; NaN without any.

    Source: Naeini et al., AAAI 2015, and Guo et al., ICML 2017, eq. 3. This is the binary form, of the
    tumour's probability. Guo's compares the predicted class's confidence max(p, 1 − p) with accuracy;
    it puts p and 1 − p into one bin, where too high and too low can cancel, so its values differ.
    """
    voxels = int(sums.voxels.sum())
    gaps = np.abs(sums.probability - sums.positives)  # already weighted with the bin's voxels
    return float(gaps.sum()) / voxels if voxels else math.nan


def maximum_calibration_error(sums: CalibrationSums) -> float:
    """Largest gap between mean probability and observed share of any bin, in [0, 1]; NaN without voxels.

    A bin of a single voxel counts as much as any other. Source: Naeini et al. 2015; Guo et al. 2017,
    eq. 5, with the difference that `expected_calibration_error` names.
    """
    curve = reliability(sums)
    gaps = np.abs(curve.mean_probability - curve.observed_share)[curve.voxels > 0]
    return float(gaps.max()) if len(gaps) else math.nan


def reliability(sums: CalibrationSums) -> Reliability:
    """Mean probability and observed share of tumour per bin; NaN in bins without voxels."""
    number = np.where(sums.voxels > 0, sums.voxels, np.nan)
    return Reliability(sums.probability / number, sums.positives / number, sums.voxels)


def _sums(probability: np.ndarray, truth: np.ndarray, bins: int) -> CalibrationSums:
    exact = probability.astype(np.float64)
    bin_of = np.maximum(np.ceil(exact * bins) - 1, 0).astype(np.intp)
    voxels = np.bincount(bin_of + bins * truth, minlength=2 * bins).reshape(2, bins)
    total = np.bincount(bin_of, weights=exact, minlength=bins)
    error = exact - truth
    return CalibrationSums(voxels.sum(axis=0), total, voxels[1], float(error @ error))
