"""ROC and precision–recall of any number of voxels from a histogram of probabilities, in bounded memory."""

import math
from typing import NamedTuple

import numpy as np

from oncoseg.metrics.ranking import paired_chunks

LOGIT_LIMIT = 16.0
"""Probabilities are binned by their logit in ±this; float32 cannot tell 1 from σ(17)."""

PROBABILITY_BINS = 10_000
"""Bins of a `probability_histogram`; even, so that a bin begins exactly at probability 0.5."""

CHUNK_VOXELS = 1 << 20
"""Voxels looked at together: some 20 MB of working memory."""


def probability_histogram(
    probability: np.ndarray, truth: np.ndarray, bins: int = PROBABILITY_BINS
) -> np.ndarray:
    """Count voxels by probability, apart for background and tumour.

    Histograms of parts add up to the histogram of the whole, so that any number of voxels needs the
    same memory. Bins are equally wide in logit(p), because a network's probabilities crowd near 0.

    Args:
        probability: in [0, 1], real, any shape; may be a memory map.
        truth: bool, of the same shape.
        bins: even, so that one begins exactly at probability 0.5.

    Returns:
        int64 counts `2 × bins`; row 0 background, row 1 tumour, bins by rising probability.

    Raises:
        ValueError: another shape or type, or a probability outside [0, 1] or NaN.
    """
    counts = np.zeros(2 * bins, np.int64)
    for part, tumour in paired_chunks(probability, truth, CHUNK_VOXELS):
        cells = probability_bin(part, bins)
        cells[tumour] += bins
        counts += np.bincount(cells, minlength=2 * bins)
    return counts.reshape(2, bins)


def probability_bin(probability: np.ndarray, bins: int = PROBABILITY_BINS) -> np.ndarray:
    """The bin of a `probability_histogram` that each probability falls into, int32, from 0."""
    single = probability.astype(np.float32, copy=False)  # several times as fast as float64
    with np.errstate(divide="ignore"):
        logit = np.log(single / (1 - single))
    steps = np.floor(logit * np.float32(bins / (2 * LOGIT_LIMIT)))
    cells: np.ndarray = np.clip(steps, -(bins // 2), bins // 2 - 1).astype(np.int32)
    cells += bins // 2
    return cells


def bin_edges(bins: int = PROBABILITY_BINS) -> np.ndarray:
    """The least probability of each bin of a `probability_histogram`."""
    edges = np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, bins + 1)[:-1]
    probability = 1 / (1 + np.exp(-edges))
    probability[0] = 0.0
    return probability


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
    threshold = np.concatenate([[np.inf], bin_edges(len(tumour))[occupied]])
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
