"""Counting: one pass over the predictions, one case in memory at a time."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.errors import DataError
from oncoseg.evaluate.panels import Candidate, candidates
from oncoseg.metrics import Confusion
from oncoseg.predict import CasePrediction
from oncoseg.recipe import ALL_MODALITIES
from oncoseg.volume import MM3_PER_ML


class SliceRow(NamedTuple):
    """One axial slice: whose it is, its index along k from 0, its counts and its AUC (or NaN)."""

    modality: str
    patient: str
    case_id: str
    slice_index: int
    counts: Confusion
    auc: float


@dataclass
class PatientTally:
    """Everything that is kept of one patient of one modality; 160 kB with its histogram.

    Attributes:
        modality: a name in the recipe's modalities.
        patient: the data set's own public id.
        cases: number of cases.
        slices: number of axial slices.
        counts: voxels of all cases together.
        histogram: see `metrics.probability_histogram`.
        truth_ml: tumour volume in millilitres; NaN when a case has no voxel size.
        predicted_ml: predicted volume, likewise.
        candidate: the slice to show for this patient.
    """

    modality: str
    patient: str
    cases: int = 0
    slices: int = 0
    counts: Confusion = metrics.NO_VOXELS
    histogram: np.ndarray = field(default_factory=lambda: np.zeros((2, metrics.PROBABILITY_BINS), np.int64))
    truth_ml: float = 0.0
    predicted_ml: float = 0.0
    candidate: Candidate | None = None

    @property
    def dice(self) -> float:
        """Dice of this patient; NaN when truth and prediction are both empty."""
        return metrics.score("dice", self.counts)

    def add(self, counts: Confusion, histogram: np.ndarray, slices: int, voxel_ml: float) -> None:
        """Add one case's voxels; `voxel_ml` is NaN when the voxel size is not known."""
        self.cases += 1
        self.slices += slices
        self.counts = metrics.pool([self.counts, counts])
        self.histogram += histogram
        self.truth_ml += (counts.tp + counts.fn) * voxel_ml
        self.predicted_ml += (counts.tp + counts.fp) * voxel_ml


@dataclass
class Tally:
    """What one pass over the predictions leaves.

    Attributes:
        slices: every axial slice in order of arrival.
        patients: (modality, patient) → its tally.
        false_alarms: modality → the slice without tumour in which most was predicted.
    """

    slices: list[SliceRow] = field(default_factory=list)
    patients: dict[tuple[str, str], PatientTally] = field(default_factory=dict)
    false_alarms: dict[str, Candidate] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """Modalities in order of arrival, then ALL_MODALITIES if there are several."""
        modalities = list(dict.fromkeys(modality for modality, _ in self.patients))
        return [*modalities, ALL_MODALITIES] if len(modalities) > 1 else modalities

    def patients_of(self, group: str) -> list[PatientTally]:
        """Patients of a modality, or all."""
        return [patient for patient in self.patients.values() if group in (ALL_MODALITIES, patient.modality)]

    def slices_of(self, group: str) -> list[SliceRow]:
        """Slices of a modality, or all."""
        return [row for row in self.slices if group in (ALL_MODALITIES, row.modality)]


def tally(predictions: Iterable[CasePrediction], threshold: float) -> Tally:
    """Count every prediction; a voxel is tumour from probability `threshold`.

    Raises:
        DataError: no case, the same case twice, or arrays that do not fit each other.
    """
    result = Tally()
    seen: set[tuple[str, str]] = set()
    for case in predictions:
        if (case.modality, case.case_id) in seen:
            raise DataError(f"Case {case.case_id!r} ({case.modality}) came twice; expected every case once.")
        seen.add((case.modality, case.case_id))
        _check(case)
        _count(case, threshold, result)
    if not seen:
        raise DataError("There is no case to evaluate; expected at least one prediction with its truth.")
    return result


def _count(case: CasePrediction, threshold: float, result: Tally) -> None:
    predicted = case.probability >= threshold
    histogram = np.zeros((2, metrics.PROBABILITY_BINS), np.int64)
    rows = []
    for row, part in _slices(case, predicted):
        histogram += part
        rows.append(row)
    patient = result.patients.setdefault(
        (case.modality, case.patient), PatientTally(case.modality, case.patient)
    )
    voxel_ml = math.nan if case.spacing_mm is None else math.prod(case.spacing_mm) / MM3_PER_ML
    patient.add(metrics.pool(row.counts for row in rows), histogram, len(rows), voxel_ml)
    best, false_alarm = candidates(case, predicted)
    if patient.candidate is None or best.size > patient.candidate.size:
        patient.candidate = best
    known = result.false_alarms.get(case.modality)
    if false_alarm is not None and (known is None or false_alarm.size > known.size):
        result.false_alarms[case.modality] = false_alarm
    result.slices.extend(rows)


def _slices(case: CasePrediction, predicted: np.ndarray) -> Iterator[tuple[SliceRow, np.ndarray]]:
    for k in range(case.truth.shape[2]):
        truth = case.truth[..., k]
        histogram = metrics.probability_histogram(case.probability[..., k], truth)
        counts = metrics.confusion(truth, predicted[..., k])
        yield (
            SliceRow(case.modality, case.patient, case.case_id, k, counts, metrics.roc_auc(histogram)),
            histogram,
        )


def _check(case: CasePrediction) -> None:
    shapes = {case.image.shape, case.truth.shape, case.probability.shape}
    if len(shapes) != 1 or case.truth.ndim != 3 or case.truth.size == 0 or case.truth.dtype != bool:
        raise DataError(
            f"Case {case.case_id!r}: expected image, bool truth and probability on one grid i j k, got "
            f"{case.image.shape}, {case.truth.dtype} {case.truth.shape} and {case.probability.shape}."
        )
    low, high = case.probability.min(), case.probability.max()
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"Case {case.case_id!r}: expected probabilities in [0, 1], got {low} to {high}. Apply the "
            "sigmoid first; NaN comes from a network that did not train or from NaN in the image."
        )
