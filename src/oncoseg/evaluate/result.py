"""`Evaluation`: the tables, curves and pictures of one set of predictions, and its files."""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction
from oncoseg.evaluate import summary, summary_tables
from oncoseg.evaluate.case_masks import CaseMasks
from oncoseg.evaluate.choosing import choose
from oncoseg.evaluate.panels import Panel, write_panels
from oncoseg.evaluate.scoring import (
    ALL_CLASSES,
    TUMOUR,
    CaseScores,
    Scoring,
    as_json,
    of_patients,
    score_case,
)
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
from oncoseg.statistics import CONFIDENCE

FORMAT_VERSION, OF_SEVERAL = 4, 5
"""Version of the evaluation's files, and of one of several classes, whose tables say of which a row is."""

COUNT_NAMES = metrics.Confusion._fields
"""Columns of counts in the CSV files."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found; `write` puts it into files.

    Attributes:
        threshold: probability from which a voxel is tumour; of several classes, of all together.
        seed: of the bootstrap.
        table: every group and class under every averaging.
        patients: one row per modality, class and patient.
        slices: one row per axial slice and class.
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

    @property
    def classes(self) -> list[str]:
        """Names of the classes; of several, those of all together come last."""
        return list(dict.fromkeys(row.label for row in self.table))

    def row(self, group: str, averaging: str = "patient", label: str = TUMOUR) -> TableRow:
        """The table's row of a modality (or `all`) and class under an averaging."""
        wanted = group, label, averaging
        return next(row for row in self.table if (row.group, row.label, row.averaging) == wanted)

    def curves_of(self, group: str, label: str = TUMOUR) -> dict[str, Any]:
        """The curves of a modality (or `all`) and class."""
        return next(part for part in self.curves if (part["group"], part["class"]) == (group, label))

    def write(self, folder: Path) -> Path:
        """Write the tables of `summary.write`, per_patient.csv, per_slice.csv and panels.npz.

        An earlier summary is removed first and the new one written last, so that a folder with a
        summary is always complete.
        """
        (folder / "summary.json").unlink(missing_ok=True)
        _write_csv(
            folder / "per_patient.csv", [self._of_class(p.label, _patient_row(p)) for p in self.patients]
        )
        _write_csv(
            folder / "per_slice.csv", [self._of_class(row.label, _slice_row(row)) for row in self.slices]
        )
        shown, of_each = write_panels(folder, self.panels), of_patients(self.cases, self.scoring)
        written = without_nan(self._summary(of_each) | {"panels": shown})
        summary.write(folder, self.cases, of_each, self.curves, written, summary_tables.of_run(written))
        return folder

    def _summary(self, patients: Sequence[CaseScores]) -> dict[str, Any]:
        return {
            "format_version": format_version(self.classes),
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
            "table": [self._of_class(row.label, _table_row(row)) for row in self.table],
            "published": [row.model_dump(exclude_none=True) for row in self.published],
        }

    def _of_class(self, label: str, row: dict[str, Any]) -> dict[str, Any]:
        """A row that says of which class it is, where there are several."""
        return {"class": label, **row} if len(self.classes) > 1 else row


def format_version(classes: Collection[str]) -> int:
    """Of an evaluation's files, by the classes of its network."""
    return FORMAT_VERSION if len(classes) == 1 else OF_SEVERAL


def evaluate_predictions(
    predictions: Iterable[CasePrediction],
    threshold: float,
    published: Sequence[Published] = (),
    seed: int = 0,
    scoring: Scoring | None = None,
    shown: str | None = None,
) -> Evaluation:
    """Score predictions of any origin against their truth.

    One case is in memory at a time; kept are counts, histograms and one slice per patient (of each of several
    classes, where none is named that is shown).

    Args:
        predictions: every case once; a patient's cases need not follow each other.
        threshold: probability from which a voxel is tumour, in (0, 1).
        published: a paper's rows to print beside.
        seed: of the bootstrap.
        scoring: of the table of all metrics.
        shown: of several classes, the one by which patients and slices are chosen for the pictures; None
            for the one of which there is least in all truths.

    Raises:
        DataError: no case, a case that came twice, arrays that do not fit, probabilities outside [0, 1].
    """
    chosen, scored = scoring or Scoring(), list[CaseScores]()
    lost: dict[str, list[str]] = {}
    counted = tally(_scored(_noting(predictions, lost), threshold, chosen, scored), shown)
    order = {of: place for place, of in enumerate(product(counted.groups, counted.labels))}
    patients = sorted(counted.patients.values(), key=lambda p: (order[p.modality, p.label], p.patient))
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
    label = counted.class_to_show()
    views = counted.views(label)
    return [
        Panel(one.group, one.label, roles, one.patient, one.dice, views[one.shown])
        for roles, one in choose(counted.candidates(label), counted.largest_errors(label))
    ]


def _noting(predictions: Iterable[CasePrediction], lost: dict[str, list[str]]) -> Iterator[CasePrediction]:
    """Pass predictions on, and keep which ones are empty as the organ was not found."""
    for case in predictions:
        if not case.organ_found:
            lost.setdefault(case.modality, []).append(case.case_id)
        yield case


def _scored(
    predictions: Iterable[CasePrediction], threshold: float, scoring: Scoring, scored: list[CaseScores]
) -> Iterator[CaseMasks]:
    """Pass predictions on, and keep every metric of each."""
    for case in predictions:
        masks = CaseMasks(case, threshold)
        yield masks  # whoever takes it checks it first
        scored += _score(masks, scoring)


def _score(masks: CaseMasks, scoring: Scoring) -> list[CaseScores]:
    """Each class, and where there are several all of them together."""
    case = masks.case
    classes: dict[str, list[int]] = {name: [index] for index, name in enumerate(masks.names, 1)}
    classes |= {ALL_CLASSES: [*range(1, len(classes) + 1)]} if classes else {TUMOUR: [1]}
    maps = {name: partial(_map_of, case, indices) for name, indices in classes.items()}
    of_case = case.case_id, case.patient, masks.truth, masks.predicted, case.spacing_mm
    found = fingerprints(masks.truth, classes)
    rows = score_case(*of_case, classes, scoring, maps, case.modality, case.axes_mm)
    return [row._replace(truth=found[row.label]) for row in rows]


def _map_of(case: CasePrediction, indices: list[int]) -> np.ndarray:
    """Probability of a class; the greatest of several together."""
    if case.classes is None or len(indices) > 1:
        return case.probability
    of_class: np.ndarray = case.classes.probability[indices[0] - 1]
    return of_class


def _curves(scored: Sequence[CaseScores], scoring: Scoring, seed: int) -> list[dict[str, Any]]:
    """Of every modality and class, and of all modalities together where there are several."""
    curves = summary.describe(of_patients(scored, scoring), scoring, seed)
    if len({row.group for row in scored}) < 2:
        return curves
    whole = [row._replace(group=ALL_MODALITIES) for row in scored]
    return curves + summary.describe(of_patients(whole, scoring), scoring, seed)


def _table_row(row: TableRow) -> dict[str, Any]:
    cells = {name: value for name, value in row._asdict().items() if name != "label"}
    return cells | {"scores": {name: summary._asdict() for name, summary in row.scores.items()}}


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
