"""Metrics as pure functions of masks, probabilities and voxel sizes; of one file per family."""

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
    NO_VOXELS,
    SCORES,
    Confusion,
    EmptyRule,
    confusion,
    dice,
    f1,
    iou,
    pool,
    precision,
    recall,
    score,
)

__all__ = [
    "NO_VOXELS",
    "PROBABILITY_BINS",
    "SCORES",
    "Confusion",
    "EmptyRule",
    "Roc",
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
]
