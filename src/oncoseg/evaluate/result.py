"""`Evaluation`: the tables, curves and pictures of one set of predictions, and its files."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction
from oncoseg.evaluate import summary, summary_tables
from oncoseg.evaluate.choosing import choose
from oncoseg.evaluate.panels import Panel, write_panels
from oncoseg.evaluate.scoring import TUMOUR, CaseScores, Scoring, as_json, of_patients, score_case
from oncoseg.evaluate.table import (
    AVERAGINGS,
    DEFINITIONS,
    EMPTY_RULE,
    TableRow,
    by_score,
    table,
)
from oncoseg.evaluate.tally import PatientTally, SliceRow, Tally, tally
from oncoseg.evaluate.truths import fingerprints
from oncoseg.files import atomic_file, without_nan
from oncoseg.recipe import ALL_MODALITIES, Published
from oncoseg.shares import to_labels
from oncoseg.statistics import CONFIDENCE

FORMAT_VERSION = 4
"""Version of the evaluation's files."""

ALL_CLASSES = "all classes"
"""What several classes together are called where one of them has the name TUMOUR."""

COUNT_NAMES = metrics.Confusion._fields
"""Columns of counts in the CSV files."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found; `write` puts it into files.

    Attributes:
        threshold: probability from which a voxel is tumour; of several classes, of all together.
        seed: of the bootstrap.
        table: every group under every averaging.
        patients: one row per modality and patient.
        slices: one row per axial slice.
        cases: every metric of every case and class.
        scoring: how they were scored.
        curves: see `curves.describe`, of every modality and class, and of all modalities together.
        panels: slices to show.
        published: the paper's rows, for comparison.
        split: which side of the run's split this is, or None.
        weights: SHA-256 of the run's weights, or None.
        prediction: how the probabilities were computed (recipe's `prediction`, precision, device).
        data: group → fingerprint of the images and masks that were read.
        synthetic: whether phantoms are among the cases.
        organ_not_found: modality → ids of the cases in which a cascade's first stage found no organ.
        remarks: what the reader has to know besides.
    """

    threshold: float
    seed: int
    table: list[TableRow]
    patients: list[PatientTally]
    slices: list[SliceRow]
    cases: list[CaseScores]
    scoring: Scoring
    curves: list[dict[str, Any]]
    panels: list[Panel]
    published: tuple[Published, ...] = ()
    split: str | None = None
    weights: str | None = None
    prediction: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
    organ_not_found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    @property
    def count(self) -> int:
        """How many cases there are."""
        return len({(row.group, row.case) for row in self.cases})

    def row(self, group: str, averaging: str = "patient") -> TableRow:
        """The table's row of a modality (or `all`) under an averaging."""
        return next(row for row in self.table if (row.group, row.averaging) == (group, averaging))

    def curves_of(self, group: str, label: str = TUMOUR) -> dict[str, Any]:
        """The curves of a modality (or `all`) and class."""
        return next(part for part in self.curves if (part["group"], part["class"]) == (group, label))

    def write(self, folder: Path) -> Path:
        """Write the tables of `summary.write`, per_patient.csv, per_slice.csv and panels.npz.

        An earlier summary is removed first and the new one written last, so that a folder with a
        summary is always complete.
        """
        (folder / "summary.json").unlink(missing_ok=True)
        _write_csv(folder / "per_patient.csv", [_patient_row(patient) for patient in self.patients])
        _write_csv(folder / "per_slice.csv", [_slice_row(row) for row in self.slices])
        shown, of_each = write_panels(folder, self.panels), of_patients(self.cases, self.scoring)
        written = without_nan(self._summary(of_each) | {"panels": shown})
        summary.write(folder, self.cases, of_each, self.curves, written, summary_tables.of_run(written))
        return folder

    def _summary(self, patients: Sequence[CaseScores]) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "split": self.split,
            "weights": self.weights,
            "synthetic": self.synthetic,
            "data": dict(self.data),
            "remarks": list(self.remarks),
            "organ_not_found": dict(self.organ_not_found),
            "scoring": as_json(self.scoring),
            "metrics": summary.summarise(patients, self.scoring),
            "prediction": dict(self.prediction),
            "threshold": self.threshold,
            "confidence": CONFIDENCE,
            "seed": self.seed,
            "empty_rule": EMPTY_RULE,
            "definitions": DEFINITIONS,
            "averagings": AVERAGINGS,
            "table": [_table_row(row) for row in self.table],
            "published": [row.model_dump(exclude_none=True) for row in self.published],
        }


def evaluate_predictions(
    predictions: Iterable[CasePrediction],
    threshold: float,
    published: Sequence[Published] = (),
    seed: int = 0,
    scoring: Scoring | None = None,
) -> Evaluation:
    """Score predictions of any origin against their truth.

    One case is in memory at a time; kept are counts, histograms and one slice per patient.

    Args:
        predictions: every case once; a patient's cases need not follow each other.
        threshold: probability from which a voxel is tumour, in (0, 1).
        published: a paper's rows to print beside.
        seed: of the bootstrap.
        scoring: of the table of all metrics.

    Raises:
        DataError: no case, a case that came twice, arrays that do not fit, probabilities outside [0, 1].
    """
    chosen, scored = scoring or Scoring(), list[CaseScores]()
    lost: dict[str, list[str]] = {}
    counted = tally(_scored(_noting(predictions, lost), threshold, chosen, scored), threshold)
    patients = sorted(counted.patients.values(), key=lambda p: (counted.groups.index(p.modality), p.patient))
    return Evaluation(
        threshold,
        seed,
        table(counted, seed),
        patients,
        counted.slices,
        scored,
        chosen,
        _curves(scored, chosen, seed),
        _panels(counted),
        tuple(published),
        organ_not_found=lost,
    )


def _panels(counted: Tally) -> list[Panel]:
    views = counted.views()
    return [
        Panel(one.group, one.label, roles, one.patient, one.dice, views[one.shown])
        for roles, one in choose(counted.candidates(), counted.largest_errors())
    ]


def _noting(predictions: Iterable[CasePrediction], lost: dict[str, list[str]]) -> Iterator[CasePrediction]:
    """Pass predictions on, and keep which ones are empty as the organ was not found."""
    for case in predictions:
        if not case.organ_found:
            lost.setdefault(case.modality, []).append(case.case_id)
        yield case


def _scored(
    predictions: Iterable[CasePrediction], threshold: float, scoring: Scoring, scored: list[CaseScores]
) -> Iterator[CasePrediction]:
    """Pass predictions on, and keep every metric of each."""
    for case in predictions:
        yield case  # whoever takes it checks it first
        scored += _score(case, threshold, scoring)


def _score(case: CasePrediction, threshold: float, scoring: Scoring) -> list[CaseScores]:
    """All tumour together, and each class where there are several."""
    truth, prediction = case.truth, case.probability >= threshold
    classes, maps = {TUMOUR: [1]}, {TUMOUR: lambda: case.probability}
    if (each := case.classes) is not None:
        whole = ALL_CLASSES if TUMOUR in each.names else TUMOUR
        indices = {name: index for index, name in enumerate(each.names, 1)}
        truth, prediction = each.truth, _labels_of(each.probability, threshold)
        classes = {whole: list(indices.values()), **{name: [index] for name, index in indices.items()}}
        maps = {whole: lambda: case.probability} | {
            name: partial(each.probability.__getitem__, index - 1) for name, index in indices.items()
        }
    of_case = case.case_id, case.patient, truth, prediction, case.spacing_mm
    found = fingerprints(truth, classes)
    rows = score_case(*of_case, classes, scoring, maps, case.modality, case.axes_mm)
    return [row._replace(truth=found[row.label]) for row in rows]


def _labels_of(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Class indices `i j k` of probabilities `classes i j k`, slice by slice to spare memory."""
    labels = np.zeros(probability.shape[1:], np.uint8)
    for k in range(probability.shape[3]):
        labels[..., k] = to_labels(probability[..., k], threshold)
    return labels


def _curves(scored: Sequence[CaseScores], scoring: Scoring, seed: int) -> list[dict[str, Any]]:
    """Of every modality and class, and of all modalities together where there are several."""
    curves = summary.describe(of_patients(scored, scoring), scoring, seed)
    if len({row.group for row in scored}) < 2:
        return curves
    whole = [row._replace(group=ALL_MODALITIES) for row in scored if row.label == scored[0].label]
    return curves + summary.describe(of_patients(whole, scoring), scoring, seed)


def _table_row(row: TableRow) -> dict[str, Any]:
    return row._asdict() | {"scores": {name: summary._asdict() for name, summary in row.scores.items()}}


def _patient_row(patient: PatientTally) -> dict[str, Any]:
    return {
        "modality": patient.modality,
        "patient": patient.patient,
        "cases": patient.cases,
        "slices": patient.slices,
        **patient.counts._asdict(),
        **by_score(patient.counts, metrics.roc_auc(patient.histogram)),
        "truth_ml": patient.truth_ml,
        "predicted_ml": patient.predicted_ml,
    }


def _slice_row(row: SliceRow) -> dict[str, Any]:
    return {
        "modality": row.modality,
        "patient": row.patient,
        "case": row.case_id,
        "slice": row.slice_index,
        **row.counts._asdict(),
        **by_score(row.counts, row.auc),
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v != v else v for k, v in row.items()})
