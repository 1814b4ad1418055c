"""ROC and precision–recall of any number of voxels from a histogram of probabilities, in bounded memory."""

import math
from typing import NamedTuple

import numpy as np

LOGIT_LIMIT = 16.0
"""Probabilities are binned by their logit in ±this; float32 cannot tell 1 from σ(17)."""

PROBABILITY_BINS = 10_000
"""Bins of a `probability_histogram`; even, so that a bin begins exactly at probability 0.5."""


def probability_histogram(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count voxels by probability, apart for background and tumour.

    Histograms of parts add up to the histogram of the whole, so that any number of voxels needs the
    same memory. Bins are equally wide in logit(p), because a network's probabilities crowd near 0.

    Args:
        probability: in [0, 1], any shape.
        truth: bool, of the same shape.

    Returns:
        int64 counts `2 × PROBABILITY_BINS`; row 0 background, row 1 tumour, bins by rising probability.
    """
    if probability.shape != truth.shape or truth.dtype != bool:
        raise ValueError(
            f"Expected probabilities and a bool mask of one shape, got {probability.shape} and "
            f"{truth.dtype} {truth.shape}."
        )
    cells = _bin_of(probability).ravel() + PROBABILITY_BINS * truth.ravel()
    return np.bincount(cells, minlength=2 * PROBABILITY_BINS).reshape(2, PROBABILITY_BINS)


class Roc(NamedTuple):
    """Operating points from the strictest threshold to the loosest, equally long arrays.

    Attributes:
        threshold: a voxel is positive from this probability.
        false_positive_rate: share of background voxels called tumour.
        recall: share of tumour voxels found (true positive rate).
        precision: share of predicted voxels that are tumour; 1 where nothing is predicted.
    """

    threshold: np.ndarray
    false_positive_rate: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def roc_curve(histogram: np.ndarray) -> Roc:
    """Operating points of a `probability_histogram`, one per occupied bin, from (0, 0) to (1, 1).

    Raises:
        ValueError: without tumour or without background there is no curve.
    """
    background, tumour = histogram
    if not background.sum() or not tumour.sum():
        raise ValueError("Expected both tumour and background voxels; with one of them no ROC curve exists.")
    occupied = np.flatnonzero(background + tumour)[::-1]
    false = np.concatenate([[0], np.cumsum(background[occupied])])
    true = np.concatenate([[0], np.cumsum(tumour[occupied])])
    threshold = np.concatenate([[np.inf], _lower_edges()[occupied]])
    precise = np.concatenate([[1.0], true[1:] / (true[1:] + false[1:])])
    return Roc(threshold, false / false[-1], true / true[-1], precise)


def roc_auc(histogram: np.ndarray) -> float:
    """Area under the ROC curve, the chance that a tumour voxel gets more than a background voxel.

    Equal bins count half. NaN without tumour or without background. The exact area lies within
    `roc_auc_error` of it. Source: Hanley and McNeil, Radiology 1982.
    """
    background, tumour = histogram.astype(float)
    pairs = background.sum() * tumour.sum()
    below = np.cumsum(background) - background
    return float((tumour * (below + background / 2)).sum() / pairs) if pairs else math.nan


def roc_auc_error(histogram: np.ndarray) -> float:
    """Largest possible error of `roc_auc` through binning: half the share of pairs in one bin."""
    background, tumour = histogram.astype(float)
    pairs = background.sum() * tumour.sum()
    return float((tumour * background).sum() / 2 / pairs) if pairs else math.nan


def average_precision(histogram: np.ndarray) -> float:
    """Area under the precision–recall steps, Σ (Rₙ − Rₙ₋₁)·Pₙ; NaN where no curve exists.

    Chance level is the share of tumour voxels, not 0.5.
    """
    if not histogram[0].sum() or not histogram[1].sum():
        return math.nan
    curve = roc_curve(histogram)
    return float((np.diff(curve.recall) * curve.precision[1:]).sum())


def _bin_of(probability: np.ndarray) -> np.ndarray:
    exact = probability.astype(np.float64)
    with np.errstate(divide="ignore"):
        logit = np.log(exact) - np.log1p(-exact)
    share = (np.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT) + LOGIT_LIMIT) / (2 * LOGIT_LIMIT)
    bins: np.ndarray = (share * PROBABILITY_BINS).astype(np.int32)
    return bins.clip(max=PROBABILITY_BINS - 1)


def _lower_edges() -> np.ndarray:
    edges = np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, PROBABILITY_BINS + 1)[:-1]
    probability = 1 / (1 + np.exp(-edges))
    probability[0] = 0.0
    return probability
