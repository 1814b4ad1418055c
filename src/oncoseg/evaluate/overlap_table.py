"""Overlap of an evaluation, with both meanings of mean IoU and pixel accuracy, under every averaging.

Papers print an "mIoU" without saying of what the mean is: of the classes with the background among them, or
of the images' IoU of the foreground. Both are here, from the counts that `oncoseg evaluate` wrote.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from oncoseg import metrics, statistics
from oncoseg.comparisons import SeedVariation, between_trainings, mean_of_trainings
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

LENIENT = "slice-empty-is-one"
"""The averaging in `table.AVERAGINGS` under which a rightly empty slice is 1."""


class OverlapRow(NamedTuple):
    """One class of one modality under one averaging.

    Attributes:
        modality: a name in the recipe's modalities.
        label: the class.
        averaging: a name in `table.AVERAGINGS`.
        scores: name in MEANINGS → summary.
        variation: name in MEANINGS → how it varies between trainings; only of several, and per patient.
    """

    modality: str
    label: str
    averaging: str
    scores: dict[str, Summary]
    variation: dict[str, SeedVariation]


class _Counts(NamedTuple):
    """What a row is made of: the counts of each patient or slice, or of all voxels."""

    modality: str
    label: str
    averaging: str
    counts: dict[str, Confusion]


def overlap_table(*trainings: Path) -> list[OverlapRow]:
    """Read an evaluation of a run, or those of several trainings of one network on the same patients.

    Of several, a patient's score is the mean over them, as in `evaluate.compare`. Under the other averagings
    it is the trainings' figures whose mean is given, with the n of the one with the fewest.

    Raises:
        DataError: an evaluation lacks its tables, or they are damaged; or the patients differ.
    """
    read = [_read(evaluation) for evaluation in trainings]
    return [_row(several) for several in zip(*read, strict=True)]


def _read(evaluation: Path) -> list[_Counts]:
    try:
        return _counts_of(evaluation)
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


def _counts_of(evaluation: Path) -> list[_Counts]:
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
    rows: list[_Counts] = []
    for (modality, label), each in patients.items():
        pooled = {"": metrics.pool(list(each.values()))}
        rows += [_Counts(modality, label, "patient", each), _Counts(modality, label, "pooled", pooled)]
        of_slices = {str(number): counts for number, counts in enumerate(slices[modality, label])}
        rows += [_Counts(modality, label, name, of_slices) for name in ("slice", LENIENT)]
    return rows


def _row(several: Sequence[_Counts]) -> OverlapRow:
    """One row from the same counts of every training."""
    modality, label, averaging, _ = several[0]
    scores: dict[str, Summary] = {}
    variation: dict[str, SeedVariation] = {}
    for name in MEANINGS:
        values = [
            {unit: _score(name, counts, averaging) for unit, counts in of.counts.items()} for of in several
        ]
        if averaging == "patient":
            means = mean_of_trainings(f"a network ({modality} {label})", values)
            scores[name] = statistics.summarise(list(means.values()))
            variation |= {name: between_trainings(values)} if len(several) > 1 else {}
        else:
            scores[name] = _mean_of_means(values)
    return OverlapRow(modality, label, averaging, scores, variation)


def _mean_of_means(trainings: Sequence[Mapping[str, float]]) -> Summary:
    """The mean of the trainings' means: their slices are not left out together, as patients are.

    A slice without tumour is undefined in a training that rightly finds none there, and 0 in one with a false
    alarm. Left out of both, it would raise the mean above those of all trainings.
    """
    each = [statistics.plain_summary(list(of.values())) for of in trainings]
    if len(each) == 1:
        return each[0]
    return min(each, key=lambda one: one.n)._replace(
        mean=math.fsum(one.mean for one in each) / len(each),
        median=math.nan,
        note=f"mean of {len(each)} trainings",
    )


def _score(name: str, counts: Confusion, averaging: str) -> float:
    changes = BOTH_EMPTY_IS_ONE if averaging == LENIENT else None
    if name == "accuracy":
        return metrics.accuracy(counts)
    if name == "miou_classes":
        return mean_iou(counts, changes)
    return metrics.score("iou" if name == "miou_foreground" else name, counts, changes)


def _counts(row: dict[str, str]) -> Confusion:
    return Confusion(*(int(row[name]) for name in Confusion._fields))
