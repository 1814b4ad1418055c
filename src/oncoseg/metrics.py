"""Segmentation scores as pure functions of counts, and ROC-AUC in bounded memory.

Masks are reduced to a `Confusion` once; every score is a function of it. What a score means where
a mask is empty is a rule of its own (`EmptyRule`), stated beside every table.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np

LOGIT_LIMIT = 16.0
"""Probabilities are binned by their logit in ±this; float32 cannot tell 1 from σ(17)."""

PROBABILITY_BINS = 10_000
"""Bins of a `probability_histogram`; even, so that a bin begins exactly at probability 0.5."""

EmptyRule = Literal["both-empty-undefined", "both-empty-is-one"]
"""What a unit without tumour in truth and prediction scores: nothing (left out, counted), or 1."""


class Confusion(NamedTuple):
    """Numbers of voxels: true positives, false positives, false negatives, true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def truth_empty(self) -> bool:
        """Whether the truth marks no voxel."""
        return self.tp + self.fn == 0

    @property
    def prediction_empty(self) -> bool:
        """Whether the prediction marks no voxel."""
        return self.tp + self.fp == 0


NO_VOXELS = Confusion(0, 0, 0, 0)
"""Counts of nothing, where every sum starts."""


def confusion(truth: np.ndarray, prediction: np.ndarray) -> Confusion:
    """Count voxels of two bool masks of one shape, any number of axes.

    Raises:
        ValueError: the masks differ in shape or are not bool.
    """
    if truth.shape != prediction.shape or truth.dtype != bool or prediction.dtype != bool:
        raise ValueError(
            f"Expected two bool masks of one shape, got {truth.dtype} {truth.shape} and "
            f"{prediction.dtype} {prediction.shape}."
        )
    tp = int(np.count_nonzero(truth & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Confusion(tp, fp, fn, truth.size - tp - fp - fn)


def pool(counts: Iterable[Confusion]) -> Confusion:
    """Sum counts as if all voxels were of one image."""
    return Confusion(*(sum(column) for column in zip(NO_VOXELS, *counts, strict=True)))


def dice(counts: Confusion) -> float:
    """Dice = 2·TP / (2·TP + FP + FN), in [0, 1]; NaN when both masks are empty."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: Confusion) -> float:
    """Intersection over union (Jaccard) = TP / (TP + FP + FN), in [0, 1]; NaN when both are empty."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: Confusion) -> float:
    """Share of predicted voxels that are tumour = TP / (TP + FP); NaN for an empty prediction."""
    return _ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: Confusion) -> float:
    """Share of tumour voxels that are found (sensitivity) = TP / (TP + FN); NaN for an empty truth."""
    return _ratio(counts.tp, counts.tp + counts.fn)


def f1(counts: Confusion) -> float:
    """Harmonic mean of precision and recall; on the same counts it *is* Dice."""
    return dice(counts)


SCORES: dict[str, Callable[[Confusion], float]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
"""Name → function of counts. `score` adds the rule for empty masks."""


def score(name: str, counts: Confusion, empty: EmptyRule = "both-empty-undefined") -> float:
    """A score with the rule for empty masks applied.

    Both masks empty: NaN, or 1 with `both-empty-is-one`. Exactly one empty: 0, precision of an empty
    prediction included, so that finding less is never rewarded; only recall stays undefined (NaN)
    where there is nothing to find.

    Args:
        name: a name in SCORES.
        counts: of one slice, patient or set.
        empty: what both masks empty means.
    """
    if counts.truth_empty and counts.prediction_empty:
        return 1.0 if empty == "both-empty-is-one" else math.nan
    if counts.truth_empty and name == "recall":
        return math.nan
    if counts.truth_empty or counts.prediction_empty:
        return 0.0
    return SCORES[name](counts)


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


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


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
