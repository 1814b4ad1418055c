"""Metrics as pure functions of masks, probabilities and voxel sizes; of one file per family."""

from oncoseg.metrics.catalogue import BOTH_EMPTY_IS_ONE, score, situation_of
from oncoseg.metrics.histogram import (
    PROBABILITY_BINS,
    Roc,
    average_precision,
    probability_histogram,
    roc_auc,
    roc_auc_error,
    roc_curve,
)
from oncoseg.metrics.overlap import (
    BACKGROUND_SCORES,
    NO_VOXELS,
    SCORES,
    Confusion,
    accuracy,
    confusion,
    dice,
    f1,
    iou,
    pool,
    precision,
    recall,
    specificity,
)

__all__ = [
    "BACKGROUND_SCORES",
    "BOTH_EMPTY_IS_ONE",
    "NO_VOXELS",
    "PROBABILITY_BINS",
    "SCORES",
    "Confusion",
    "Roc",
    "accuracy",
    "average_precision",
    "confusion",
    "dice",
    "f1",
    "iou",
    "pool",
    "precision",
    "probability_histogram",
    "recall",
    "roc_auc",
    "roc_auc_error",
    "roc_curve",
    "score",
    "situation_of",
    "specificity",
]
