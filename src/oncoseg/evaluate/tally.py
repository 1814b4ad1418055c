"""Counting: one pass over the predictions, one case in memory at a time."""

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction
from oncoseg.errors import DataError
from oncoseg.evaluate.choosing import FALSE_ALARM, FALSE_SLICE, Candidate, error_of
from oncoseg.evaluate.panels import View, telling_slice, view_at
from oncoseg.evaluate.scoring import TUMOUR
from oncoseg.metrics import Confusion
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
        shown: (true, predicted) voxels of the case that may be shown for this patient, the one with the
            most tumour, and its slice.
    """

    modality: str
    patient: str
    cases: int = 0
    slices: int = 0
    counts: Confusion = metrics.NO_VOXELS
    histogram: np.ndarray = field(default_factory=lambda: np.zeros((2, metrics.PROBABILITY_BINS), np.int64))
    truth_ml: float = 0.0
    predicted_ml: float = 0.0
    shown: tuple[tuple[int, int], View] | None = None

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
        errors: (modality, kind of error) → its voxels, the patient and the slice of the largest.
    """

    slices: list[SliceRow] = field(default_factory=list)
    patients: dict[tuple[str, str], PatientTally] = field(default_factory=dict)
    errors: dict[tuple[str, str], tuple[int, str, View]] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """Modalities in order of arrival, then ALL_MODALITIES if there are several."""
        modalities = list(dict.fromkeys(modality for modality, _ in self.patients))
        return [*modalities, ALL_MODALITIES] if len(modalities) > 1 else modalities

    def patients_of(self, group: str) -> list[PatientTally]:
        """Patients of a modality, or all."""
        return [patient for patient in self.patients.values() if group in (ALL_MODALITIES, patient.modality)]

    def views(self) -> dict[Hashable, View]:
        """What may be shown, by modality, case and slice."""
        kept = [(patient.modality, patient.shown[1]) for patient in self.patients.values() if patient.shown]
        kept += [(modality, view) for (modality, _), (*_, view) in self.errors.items()]
        return {(modality, view.case_id, view.slice_index): view for modality, view in kept}

    def candidates(self) -> list[Candidate]:
        """Every patient with tumour or a prediction."""
        return [
            _candidate(patient, patient.counts.tp + patient.counts.fn, patient.shown[1])
            for patient in self.patients.values()
            if patient.shown and any(patient.shown[0])
        ]

    def largest_errors(self) -> list[tuple[str, Candidate]]:
        """The largest error of each kind of every modality."""
        return [
            (kind, _candidate(self.patients[modality, patient], voxels, view))
            for (modality, kind), (voxels, patient, view) in self.errors.items()
        ]

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
    _keep_views(case, predicted, [row.counts for row in rows], result)
    result.slices.extend(rows)


def _keep_views(
    case: CasePrediction, predicted: np.ndarray, of_slices: list[Confusion], result: Tally
) -> None:
    """Keep this case's slice if it may be shown, in place of one that may not any more."""
    patient, counts = result.patients[case.modality, case.patient], metrics.pool(of_slices)
    size = counts.tp + counts.fn, counts.tp + counts.fp
    if patient.shown is None or size > patient.shown[0]:
        patient.shown = size, _view(case, predicted, telling_slice(case.truth, predicted))
    found: dict[str, tuple[int, int]] = {}
    if kind := error_of(counts):
        found[kind] = size[kind == FALSE_ALARM], telling_slice(case.truth, predicted)
    if not counts.truth_empty:
        false_slice = max(range(len(of_slices)), key=lambda k: _false_pixels(of_slices[k]))
        found[FALSE_SLICE] = _false_pixels(of_slices[false_slice]), false_slice
    for name, (voxels, k) in found.items():
        known = result.errors.get((case.modality, name))
        if voxels and (known is None or voxels > known[0]):
            result.errors[case.modality, name] = voxels, case.patient, _view(case, predicted, k)


def _false_pixels(counts: Confusion) -> int:
    """What was predicted on a slice, if it has no tumour."""
    return counts.fp if counts.truth_empty else 0


def _view(case: CasePrediction, predicted: np.ndarray, k: int) -> View:
    view = view_at(k, case.case_id, case.truth, predicted, case.spacing_mm, case.letters)
    return view.over(case.image[..., k], case.ground)


def _candidate(patient: PatientTally, size: float, view: View) -> Candidate:
    shown = (patient.modality, view.case_id, view.slice_index)
    return Candidate(patient.modality, TUMOUR, patient.patient, patient.dice, size, shown)


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
