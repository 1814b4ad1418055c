"""Scores of overlap as pure functions of counts.

Masks are reduced to a `Confusion` once; every score is a function of it. Here a score is NaN where its
formula divides by zero; what it is worth where a mask is empty, `catalogue.score` decides.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


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


def background_iou(counts: Confusion) -> float:
    """IoU of what is not tumour = TN / (TN + FP + FN), in [0, 1]; NaN where all is tumour in both."""
    return _ratio(counts.tn, counts.tn + counts.fp + counts.fn)


def precision(counts: Confusion) -> float:
    """Share of predicted voxels that are tumour = TP / (TP + FP); NaN for an empty prediction."""
    return _ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: Confusion) -> float:
    """Share of tumour voxels that are found (sensitivity) = TP / (TP + FN); NaN for an empty truth."""
    return _ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Confusion) -> float:
    """Share of background voxels left alone = TN / (TN + FP); NaN without background."""
    return _ratio(counts.tn, counts.tn + counts.fp)


def accuracy(counts: Confusion) -> float:
    """Share of voxels that are right = (TP + TN) / all; NaN without voxels."""
    return _ratio(counts.tp + counts.tn, sum(counts))


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
"""Name → function of counts, without a rule for empty masks."""

BACKGROUND_SCORES: dict[str, Callable[[Confusion], float]] = {
    "specificity": specificity,
    "accuracy": accuracy,
}
"""Those that count the background, too; they flatter, as most of it is easy."""


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
