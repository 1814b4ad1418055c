"""`Evaluation`: the tables, curves and pictures of one set of predictions, and its files."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg import metrics
from oncoseg.evaluate import summary_tables
from oncoseg.evaluate.choosing import choose
from oncoseg.evaluate.panels import Panel, write_panels
from oncoseg.evaluate.table import (
    AVERAGINGS,
    DEFINITIONS,
    EMPTY_RULE,
    TableRow,
    by_score,
    histogram,
    table,
)
from oncoseg.evaluate.tally import PatientTally, SliceRow, Tally, tally
from oncoseg.files import atomic_file, without_nan, write_json
from oncoseg.predict import CasePrediction
from oncoseg.recipe import Published
from oncoseg.statistics import CONFIDENCE

FORMAT_VERSION = 3
"""Version of the evaluation's files."""

CURVE_POINTS = 400
"""Most points kept of a curve; they are spread evenly along it."""

COUNT_NAMES = metrics.Confusion._fields
"""Columns of counts in the CSV files."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found; `write` puts it into files.

    Attributes:
        threshold: probability from which a voxel is tumour.
        seed: of the bootstrap.
        table: every group under every averaging.
        patients: one row per modality and patient.
        slices: one row per axial slice.
        curves: group → ROC and precision–recall points, AUC, confusion matrix.
        panels: slices to show.
        published: the paper's rows, for comparison.
        split: which side of the run's split this is, or None.
        weights: SHA-256 of the run's weights, or None.
        prediction: how the probabilities were computed (recipe's `prediction`, precision, device).
        data: group → fingerprint of the images and masks that were read.
        synthetic: whether phantoms are among the cases.
        scoring: how the tables of all metrics beside it were made.
    """

    threshold: float
    seed: int
    table: list[TableRow]
    patients: list[PatientTally]
    slices: list[SliceRow]
    curves: dict[str, dict[str, Any]]
    panels: list[Panel]
    published: tuple[Published, ...] = ()
    split: str | None = None
    weights: str | None = None
    prediction: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
    scoring: Mapping[str, Any] = field(default_factory=dict)

    def row(self, group: str, averaging: str = "patient") -> TableRow:
        """The table's row of a modality (or `all`) under an averaging."""
        return next(row for row in self.table if (row.group, row.averaging) == (group, averaging))

    def write(self, folder: Path) -> Path:
        """Write summary.json, .md and .tex, per_patient.csv, per_slice.csv, curves.json and panels.npz.

        An earlier summary is removed first and the new one written last, so that a folder with a
        summary is always complete.
        """
        (folder / "summary.json").unlink(missing_ok=True)
        _write_csv(folder / "per_patient.csv", [_patient_row(patient) for patient in self.patients])
        _write_csv(folder / "per_slice.csv", [_slice_row(row) for row in self.slices])
        write_json(folder / "curves.json", self.curves)
        shown = write_panels(folder, self.panels)
        summary = without_nan(self._summary() | {"panels": shown})
        summary_tables.write_tables(folder, summary_tables.of_run(summary))
        write_json(folder / "summary.json", summary)
        return folder

    def _summary(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "split": self.split,
            "weights": self.weights,
            "synthetic": self.synthetic,
            "data": dict(self.data),
            "scoring": dict(self.scoring),
            "prediction": dict(self.prediction),
            "threshold": self.threshold,
            "confidence": CONFIDENCE,
            "seed": self.seed,
            "empty_rule": EMPTY_RULE,
            "definitions": DEFINITIONS,
            "averagings": AVERAGINGS,
            "table": [_table_row(row) for row in self.table],
            "published": [row.model_dump() for row in self.published],
        }


def evaluate_predictions(
    predictions: Iterable[CasePrediction],
    threshold: float,
    published: Sequence[Published] = (),
    seed: int = 0,
) -> Evaluation:
    """Score predictions of any origin against their truth.

    One case is in memory at a time; kept are counts, a histogram and one slice per patient.

    Args:
        predictions: every case once; a patient's cases need not follow each other.
        threshold: probability from which a voxel is tumour, in (0, 1).
        published: a paper's rows to print beside.
        seed: of the bootstrap.

    Raises:
        DataError: no case, a case that came twice, arrays that do not fit, probabilities outside [0, 1].
    """
    counted = tally(predictions, threshold)
    patients = sorted(counted.patients.values(), key=lambda p: (counted.groups.index(p.modality), p.patient))
    return Evaluation(
        threshold,
        seed,
        table(counted, seed),
        patients,
        counted.slices,
        _curves(counted),
        _panels(counted),
        tuple(published),
    )


def _panels(counted: Tally) -> list[Panel]:
    views = counted.views()
    return [
        Panel(one.group, one.label, roles, one.patient, one.dice, views[one.shown])
        for roles, one in choose(counted.candidates(), counted.largest_errors())
    ]


def _curves(counted: Tally) -> dict[str, dict[str, Any]]:
    return {group: _curve(counted.patients_of(group)) for group in counted.groups}


def _curve(patients: list[PatientTally]) -> dict[str, Any]:
    counts = metrics.pool(patient.counts for patient in patients)
    voxels = histogram(patients)
    area, error = metrics.roc_auc(voxels), metrics.roc_auc_error(voxels)
    words = {
        "confusion": counts._asdict(),
        "auc": area,
        "auc_error": error,
        "average_precision": metrics.average_precision(voxels),
    }
    points = {} if math.isnan(area) else {"points": _points(metrics.roc_curve(voxels))}
    return dict(without_nan(words | points))


def _points(curve: metrics.Roc) -> dict[str, list[float]]:
    x, recall, precision = curve.false_positive_rate, curve.recall, curve.precision
    way = np.cumsum(np.abs(np.diff(x, prepend=0)) + np.abs(np.diff(recall, prepend=0)))
    way += np.cumsum(np.abs(np.diff(precision, prepend=1)))
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], CURVE_POINTS)).clip(0, len(way) - 1))
    return {
        "threshold": np.minimum(curve.threshold, 1.0)[kept].tolist(),
        "false_positive_rate": x[kept].tolist(),
        "recall": recall[kept].tolist(),
        "precision": precision[kept].tolist(),
    }


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
