"""From counts to the table: every score under three averagings, each defined in words."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg import metrics, statistics
from oncoseg.evaluate.tally import PatientTally, SliceRow, Tally
from oncoseg.metrics import BOTH_EMPTY_IS_ONE, Confusion
from oncoseg.metrics.catalogue import METRICS, Policy
from oncoseg.statistics import Summary

SCORE_NAMES = (*metrics.SCORES, "auc")
"""Columns of the table, in the order of the paper's Table 1."""

DEFINITIONS = {name: METRICS[name].definition for name in SCORE_NAMES}
"""What each column means, printed beside the table."""

AVERAGINGS = {
    "patient": (
        "All voxels of all slices of a patient are counted together, then scored, then "
        "averaged; every patient, of whichever modality, weighs the same, and one who has several counts "
        "once, with their mean. This is the headline."
    ),
    "slice": (
        "Every axial slice is scored, then averaged. No interval: slices of a "
        "patient are not independent. AUC only over slices with tumour."
    ),
    "slice-empty-is-one": (
        "As per slice, but a rightly empty slice scores 1, as in much published code. For "
        "comparison only: it rises with the number of slices without tumour."
    ),
    "pooled": (
        "All voxels of all patients are counted as one image; large tumours decide. One number, "
        "so no interval."
    ),
}
"""What each averaging means, printed beside the table."""

EMPTY_RULE = (
    "Where truth and prediction are both empty nothing can be scored: left out of the mean and "
    "counted. Where only one of them is empty Dice, IoU, F1 and precision are 0, also the precision of an "
    "empty prediction, so that finding less is never rewarded. Recall and AUC need tumour in the truth: "
    "without it they are left out."
)
"""The strict policy of `metrics.catalogue` in words, as far as this table needs it."""


class TableRow(NamedTuple):
    """One group under one averaging.

    Attributes:
        group: a modality, or ALL.
        label: the class.
        averaging: a name in AVERAGINGS.
        units: patients, slices, or 1 when pooled.
        both_empty: units without tumour in truth and prediction.
        truth_empty: units without tumour in which some was predicted.
        prediction_empty: units with tumour in which none was predicted.
        scores: name in SCORE_NAMES → summary.
    """

    group: str
    label: str
    averaging: str
    units: int
    both_empty: int
    truth_empty: int
    prediction_empty: int
    scores: dict[str, Summary]


def table(tally: Tally, seed: int) -> list[TableRow]:
    """Rows for each modality and, when there are several, for all together; of each class by class."""
    return [
        row
        for group in tally.groups
        for label in tally.labels
        for row in _group(
            (group, label), tally.patients_of(group, label), tally.slices_of(group, label), seed
        )
    ]


def histogram(patients: Sequence[PatientTally]) -> np.ndarray:
    """The probability histogram of all patients together."""
    return np.asarray(np.sum([patient.histogram for patient in patients], axis=0))


def _group(
    of: tuple[str, str], patients: list[PatientTally], slices: list[SliceRow], seed: int
) -> list[TableRow]:
    per_patient = [patient.counts for patient in patients]
    patient_auc = [metrics.roc_auc(patient.histogram) for patient in patients]
    per_slice = [row.counts for row in slices]
    slice_auc = [row.auc for row in slices]
    pooled = [metrics.pool(per_patient)]
    pooled_auc = [metrics.roc_auc(histogram(patients))]

    def with_interval(values: Sequence[float]) -> Summary:
        return statistics.summarise(_once([patient.patient for patient in patients], values), seed)

    def without(values: Sequence[float]) -> Summary:
        return statistics.plain_summary(values, "no interval: not independent, or one number only")

    return [
        _row(of, "patient", per_patient, patient_auc, with_interval),
        _row(of, "slice", per_slice, slice_auc, without),
        _row(of, "slice-empty-is-one", per_slice, slice_auc, without, BOTH_EMPTY_IS_ONE),
        _row(of, "pooled", pooled, pooled_auc, without),
    ]


def _once(names: Sequence[str], values: Sequence[float]) -> list[float]:
    """One value for each patient, who may have several modalities: the mean over those that define it."""
    of_each: dict[str, list[float]] = {name: [] for name in names}
    for name, value in zip(names, values, strict=True):
        if not math.isnan(value):
            of_each[name].append(value)
    return [math.fsum(found) / len(found) if found else math.nan for found in of_each.values()]


def _row(
    of: tuple[str, str],
    averaging: str,
    counts: list[Confusion],
    auc: list[float],
    summarise: Callable[[Sequence[float]], Summary],
    changes: Policy | None = None,
) -> TableRow:
    scores = {name: summarise([metrics.score(name, c, changes) for c in counts]) for name in metrics.SCORES}
    return TableRow(
        *of,
        averaging,
        len(counts),
        sum(c.truth_empty and c.prediction_empty for c in counts),
        sum(c.truth_empty and not c.prediction_empty for c in counts),
        sum(c.prediction_empty and not c.truth_empty for c in counts),
        scores | {"auc": summarise(auc)},
    )


def by_score(counts: Confusion, auc: float) -> dict[str, float]:
    """Every score of one slice or patient; NaN where it is not defined."""
    return {name: metrics.score(name, counts) for name in metrics.SCORES} | {"auc": auc}
