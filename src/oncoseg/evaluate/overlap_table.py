"""Overlap of an evaluation, with both meanings of mean IoU and pixel accuracy, under every averaging.

Papers print an "mIoU" without saying of what the mean is: of the classes with the background among them, or
of the images' IoU of the foreground. Both are here, from the counts that `oncoseg evaluate` wrote.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from oncoseg import metrics, statistics
from oncoseg.errors import DataError
from oncoseg.evaluate import long_table
from oncoseg.metrics import BOTH_EMPTY_IS_ONE, Confusion
from oncoseg.metrics.catalogue import Policy
from oncoseg.statistics import Summary

MEANINGS = {
    "dice": "2·TP / (2·TP + FP + FN).",
    "miou_foreground": "IoU of the tumour alone, TP / (TP + FP + FN), then averaged.",
    "miou_classes": (
        "The mean of the tumour's IoU and the background's, TN / (TN + FP + FN), then averaged. It is high "
        "where background is plenty. Undefined where either is."
    ),
    "precision": "TP / (TP + FP), the share of the predicted voxels that are tumour.",
    "recall": "TP / (TP + FN), the share of the tumour that is found.",
    "accuracy": "(TP + TN) / all voxels. It flatters: background is plenty.",
}
"""Score → definition, in the order of tables."""


class OverlapRow(NamedTuple):
    """One class of one modality under one averaging.

    Attributes:
        modality: a name in the recipe's modalities.
        label: the class.
        averaging: a name in `table.AVERAGINGS`.
        scores: name in MEANINGS → summary.
    """

    modality: str
    label: str
    averaging: str
    scores: dict[str, Summary]


def overlap_table(evaluation: Path) -> list[OverlapRow]:
    """Read an evaluation of a run.

    Raises:
        DataError: it lacks its tables, or they are damaged.
    """
    try:
        return _rows(evaluation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{evaluation} cannot be read ({type(error).__name__}); expected what `oncoseg evaluate RUN` "
            "wrote. Evaluate the run again."
        ) from error


def mean_iou(counts: Confusion, changes: Policy | None = None) -> float:
    """Mean of the IoU of tumour and of background; NaN where either is undefined.

    Args:
        counts: of one slice, patient or set.
        changes: of the policy for empty masks, such as BOTH_EMPTY_IS_ONE.
    """
    return (metrics.score("iou", counts, changes) + metrics.background_iou(counts)) / 2


def _rows(evaluation: Path) -> list[OverlapRow]:
    patients: dict[tuple[str, str], dict[str, Confusion]] = {}
    for row in long_table.read_counts(evaluation):
        of = patients.setdefault((row["group"], row["class"]), {})
        of[row["patient"]] = metrics.pool([of.get(row["patient"], metrics.NO_VOXELS), _counts(row)])
    labels = list(dict.fromkeys(label for _, label in patients))
    slices: dict[tuple[str, str], list[Confusion]] = {}
    with (evaluation / "per_slice.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = row["class"] if len(labels) > 1 else labels[0]
            slices.setdefault((row["modality"], label), []).append(_counts(row))
    rows: list[OverlapRow] = []
    for (modality, label), each in patients.items():
        counts = list(each.values())
        rows += [
            OverlapRow(modality, label, "patient", _scores(counts, statistics.summarise)),
            OverlapRow(modality, label, "pooled", _scores([metrics.pool(counts)], statistics.plain_summary)),
            *_of_slices(modality, label, slices[modality, label]),
        ]
    return rows


def _of_slices(modality: str, label: str, counts: Sequence[Confusion]) -> list[OverlapRow]:
    plain = statistics.plain_summary
    strict, lenient = _scores(counts, plain), _scores(counts, plain, BOTH_EMPTY_IS_ONE)
    return [
        OverlapRow(modality, label, "slice", strict),
        OverlapRow(modality, label, "slice-empty-is-one", lenient),
    ]


def _scores(
    counts: Sequence[Confusion],
    summarise: Callable[[Sequence[float]], Summary],
    changes: Policy | None = None,
) -> dict[str, Summary]:
    of: dict[str, Callable[[Confusion], float]] = {
        "dice": lambda one: metrics.score("dice", one, changes),
        "miou_foreground": lambda one: metrics.score("iou", one, changes),
        "miou_classes": lambda one: mean_iou(one, changes),
        "precision": lambda one: metrics.score("precision", one, changes),
        "recall": lambda one: metrics.score("recall", one, changes),
        "accuracy": metrics.accuracy,
    }
    return {name: summarise([of[name](one) for one in counts]) for name in MEANINGS}


def _counts(row: dict[str, str]) -> Confusion:
    return Confusion(*(int(row[name]) for name in Confusion._fields))
