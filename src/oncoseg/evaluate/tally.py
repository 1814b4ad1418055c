"""Counting: one pass over the predictions, one case in memory at a time."""

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction
from oncoseg.errors import DataError
from oncoseg.evaluate.case_masks import CaseMasks, ClassMask
from oncoseg.evaluate.choosing import FALSE_ALARM, FALSE_SLICE, Candidate, error_of
from oncoseg.evaluate.panels import View, telling_slice, view_at
from oncoseg.evaluate.scoring import ALL_CLASSES
from oncoseg.metrics import Confusion
from oncoseg.recipe import ALL_MODALITIES
from oncoseg.volume import MM3_PER_ML


class SliceRow(NamedTuple):
    """A class on one axial slice: whose it is, its index along k from 0, its counts and its AUC (or NaN)."""

    modality: str
    label: str
    patient: str
    case_id: str
    slice_index: int
    counts: Confusion
    auc: float


@dataclass
class PatientTally:
    """Everything that is kept of one class of one patient of one modality; 160 kB with its histogram.

    Attributes:
        modality: a name in the recipe's modalities.
        label: the class.
        patient: the data set's own public id.
        cases: number of cases.
        slices: number of axial slices.
        counts: voxels of all cases together.
        histogram: see `metrics.probability_histogram`.
        truth_ml: true volume in millilitres; NaN when a case has no voxel size.
        predicted_ml: predicted volume, likewise.
        shown: (true, predicted) voxels of the case that may be shown for this patient, the one with the
            most of the class, and its slice.
    """

    modality: str
    label: str
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
        slices: every class on every axial slice in order of arrival.
        patients: (modality, class, patient) → its tally.
        errors: (modality, class, kind of error) → its voxels, the patient and the slice of the largest.
        shown: the class of which pictures are kept; None for every one.
    """

    slices: list[SliceRow] = field(default_factory=list)
    patients: dict[tuple[str, str, str], PatientTally] = field(default_factory=dict)
    errors: dict[tuple[str, str, str], tuple[int, str, View]] = field(default_factory=dict)
    shown: str | None = None

    @property
    def groups(self) -> list[str]:
        """Modalities in order of arrival, then ALL_MODALITIES if there are several."""
        modalities = list(dict.fromkeys(modality for modality, _, _ in self.patients))
        return [*modalities, ALL_MODALITIES] if len(modalities) > 1 else modalities

    @property
    def labels(self) -> list[str]:
        """Classes, those of all together last."""
        return list(dict.fromkeys(label for _, label, _ in self.patients))

    def patients_of(self, group: str, label: str) -> list[PatientTally]:
        """Patients of a modality, or all."""
        return [
            patient
            for patient in self.patients.values()
            if group in (ALL_MODALITIES, patient.modality) and patient.label == label
        ]

    def class_to_show(self) -> str:
        """The one that was named, else the one of which there is least in all truths, but some."""
        if self.shown is not None:
            return self.shown
        *others, last = [label for label in self.labels if label != ALL_CLASSES]
        volumes = {label: self._true_volume(label) for label in (*others, last)}
        return min((label for label in volumes if volumes[label]), key=volumes.__getitem__, default=last)

    def _true_volume(self, label: str) -> float:
        """In millilitres; in voxels where a size is unknown, which it is of all classes of a case alike."""
        patients = self.patients_of(ALL_MODALITIES, label)
        volume = math.fsum(patient.truth_ml for patient in patients)
        voxels = sum(patient.counts.tp + patient.counts.fn for patient in patients)
        return float(voxels) if math.isnan(volume) else volume

    def views(self, label: str) -> dict[Hashable, View]:
        """What may be shown of a class, by modality, case and slice."""
        kept = [
            (patient.modality, patient.shown[1])
            for patient in self.patients.values()
            if patient.shown and patient.label == label
        ]
        kept += [(modality, view) for (modality, of, _), (*_, view) in self.errors.items() if of == label]
        return {(modality, view.case_id, view.slice_index): view for modality, view in kept}

    def candidates(self, label: str) -> list[Candidate]:
        """Every patient with the class in truth or prediction."""
        return [
            _candidate(patient, patient.counts.tp + patient.counts.fn, patient.shown[1])
            for patient in self.patients.values()
            if patient.label == label and patient.shown and any(patient.shown[0])
        ]

    def largest_errors(self, label: str) -> list[tuple[str, Candidate]]:
        """The largest error of each kind of every modality."""
        return [
            (kind, _candidate(self.patients[modality, label, patient], voxels, view))
            for (modality, of, kind), (voxels, patient, view) in self.errors.items()
            if of == label
        ]

    def slices_of(self, group: str, label: str) -> list[SliceRow]:
        """A class on the slices of a modality, or on all."""
        return [row for row in self.slices if group in (ALL_MODALITIES, row.modality) and row.label == label]


def tally(cases: Iterable[CaseMasks], shown: str | None = None) -> Tally:
    """Count every prediction, class by class.

    Args:
        cases: every case once.
        shown: the class of which pictures are kept; None for every one.

    Raises:
        DataError: no case, the same case twice, or arrays that do not fit each other.
    """
    result = Tally(shown=shown)
    seen: set[tuple[str, str]] = set()
    for masks in cases:
        case = masks.case
        if (case.modality, case.case_id) in seen:
            raise DataError(f"Case {case.case_id!r} ({case.modality}) came twice; expected every case once.")
        seen.add((case.modality, case.case_id))
        _check(case)
        for one in masks.each():
            _count(masks, one, result)
    if not seen:
        raise DataError("There is no case to evaluate; expected at least one prediction with its truth.")
    return result


def _count(masks: CaseMasks, one: ClassMask, result: Tally) -> None:
    case = masks.case
    histogram = np.zeros((2, metrics.PROBABILITY_BINS), np.int64)
    rows = []
    for row, part in _slices(case, one):
        histogram += part
        rows.append(row)
    key = case.modality, one.label, case.patient
    patient = result.patients.setdefault(key, PatientTally(*key))
    voxel_ml = math.nan if case.spacing_mm is None else math.prod(case.spacing_mm) / MM3_PER_ML
    patient.add(metrics.pool(row.counts for row in rows), histogram, len(rows), voxel_ml)
    if one.label == result.shown or (result.shown is None and one.label != ALL_CLASSES):
        _keep_views(masks, one, [row.counts for row in rows], result)
    result.slices.extend(rows)


def _keep_views(masks: CaseMasks, one: ClassMask, of_slices: list[Confusion], result: Tally) -> None:
    """Keep this case's slice if it may be shown, in place of one that may not any more."""
    case, counts = masks.case, metrics.pool(of_slices)
    patient = result.patients[case.modality, one.label, case.patient]
    size = counts.tp + counts.fn, counts.tp + counts.fp
    if patient.shown is None or size > patient.shown[0]:
        patient.shown = size, view_of_case(masks, telling_slice(one.truth, one.predicted), one.label)
    found: dict[str, tuple[int, int]] = {}
    if kind := error_of(counts):
        found[kind] = size[kind == FALSE_ALARM], telling_slice(one.truth, one.predicted)
    if not counts.truth_empty:
        false_slice = max(range(len(of_slices)), key=lambda k: _false_pixels(of_slices[k]))
        found[FALSE_SLICE] = _false_pixels(of_slices[false_slice]), false_slice
    for name, (voxels, k) in found.items():
        known = result.errors.get((case.modality, one.label, name))
        if voxels and (known is None or voxels > known[0]):
            view = view_of_case(masks, k, one.label)
            result.errors[case.modality, one.label, name] = voxels, case.patient, view


def _false_pixels(counts: Confusion) -> int:
    """What was predicted on a slice, if there is nothing in the truth."""
    return counts.fp if counts.truth_empty else 0


def view_of_case(masks: CaseMasks, k: int, label: str) -> View:
    """One slice of a case, of which a class is told of in numbers and all classes are drawn."""
    case = masks.case
    both = masks.truth, masks.predicted
    classes = masks.names, label if masks.names else ""
    view = view_at(k, case.case_id, *both, case.spacing_mm, case.letters, *classes)
    return view.over(case.image[..., k], case.ground)


def _candidate(patient: PatientTally, size: float, view: View) -> Candidate:
    shown = (patient.modality, view.case_id, view.slice_index)
    return Candidate(patient.modality, patient.label, patient.patient, patient.dice, size, shown)


def _slices(case: CasePrediction, one: ClassMask) -> Iterator[tuple[SliceRow, np.ndarray]]:
    of = case.modality, one.label, case.patient, case.case_id
    for k in range(one.truth.shape[2]):
        truth = one.truth[..., k]
        histogram = metrics.probability_histogram(one.probability[..., k], truth)
        counts = metrics.confusion(truth, one.predicted[..., k])
        yield SliceRow(*of, k, counts, metrics.roc_auc(histogram)), histogram


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
