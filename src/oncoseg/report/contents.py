"""Reading a run folder, complete or not, into what the report's template shows."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from oncoseg.cascade_folder import last_run
from oncoseg.errors import RecipeError, RunError
from oncoseg.evaluate import curves
from oncoseg.evaluate.panels import Panel, read_panels
from oncoseg.evaluate.result import format_version
from oncoseg.evaluate.scoring import ALL_CLASSES
from oncoseg.folds_folder import FoldsFolder, is_cross_validation, split_of_model
from oncoseg.networks import weights_sha256
from oncoseg.recipe import ALL_MODALITIES, Published, Recipe
from oncoseg.recipes import get_recipe
from oncoseg.report import words
from oncoseg.report.origin import Origin, read_origin
from oncoseg.report.parts import Part, read_parts
from oncoseg.run_folder import RunFolder
from oncoseg.split import PARTS, UNLABELLED
from oncoseg.statistics import rough_sentence

SPLIT_ORDER = ("out-of-fold", "test", "validation", "train")
"""The first of these that was evaluated is reported."""

NAMES = ("modality", "class", "patient")
"""Columns of per_patient.csv that are no numbers."""


@dataclass(frozen=True)
class Notice:
    """Something the run lacks, and the command that makes it."""

    text: str
    command: str


@dataclass(frozen=True)
class DataRow:
    """One modality's data set: what is known of it, (patients, cases) per side, and its problems in words.

    `unlabelled` are the (patients, cases) that were learnt from without a mask.
    """

    modality: str
    folder: str
    layout: str
    sides: dict[str, tuple[int, int]]
    fingerprint: str
    substituted: str
    synthetic: bool
    remarks: list[str]
    unlabelled: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Rows:
    """The table's rows of one modality (or all) and class.

    Attributes:
        group: the modality, or `all`.
        label: the class, where there are several; else empty.
        of: averaging → row.
    """

    group: str
    label: str
    of: dict[str, dict[str, Any]]

    @property
    def title(self) -> str:
        """For people: `CT, liver`."""
        return words.class_title(self.group, self.label)

    def holds(self, paper: Published) -> bool:
        """Whether a paper's figures stand below these."""
        return self.group == paper.row and self.label in ("", paper.of_class or ALL_CLASSES)

    @property
    def headline(self) -> bool:
        """Whether it stands for itself: neither all modalities nor all classes together."""
        return self.group != ALL_MODALITIES and self.label != ALL_CLASSES


@dataclass(frozen=True)
class Evaluated:
    """An evaluation's files.

    Attributes:
        split: which side.
        threshold: probability from which a voxel is tumour.
        summary: summary.json.
        rows: of the table, modality by modality and class by class.
        parts: every metric and the curves of each modality and class.
        curves: class → title → what curves.json says of it in a modality, and in all together.
        patients: per_patient.csv as numbers (NaN where undefined), class by class, worst Dice first.
        panels: slices to show.
        caution: that intervals of the table are rough; empty where they are not.
    """

    split: str
    threshold: float
    summary: dict[str, Any]
    rows: list[Rows]
    parts: list[Part]
    curves: dict[str, dict[str, dict[str, Any]]]
    patients: list[dict[str, Any]]
    panels: list[Panel]
    caution: str

    @property
    def classes(self) -> list[str]:
        """Their names where there are several, all of them together last; else one that is empty."""
        return list(dict.fromkeys(row.label for row in self.rows))

    def beside_none(self, papers: Sequence[Published]) -> list[Published]:
        """The paper's figures of a modality or class that was not evaluated."""
        return [paper for paper in papers if not any(rows.holds(paper) for rows in self.rows)]

    @property
    def shown_class(self) -> str:
        """Of several classes the one by which the pictures were chosen."""
        return next((panel.view.focus for panel in self.panels), "")


@dataclass(frozen=True)
class Contents:
    """All that the template shows; its fields are the template's variables."""

    run_name: str
    recipe: Recipe
    data: list[DataRow]
    synthetic: bool
    log: list[dict[str, Any]]
    evaluation: Evaluated | None
    changes: list[tuple[str, str, str]]
    metadata: list[tuple[str, str]]
    notices: list[Notice]
    origin: Origin | None = None
    folds: int = 0
    """Of a cross-validation; 0 for a run."""


def read_run(run: Path, elsewhere: Path | None = None) -> Contents:
    """Read everything there is.

    Args:
        run: the run folder, or that of a cross-validation.
        elsewhere: an evaluation to take in place of the run's own.

    Raises:
        RunError: not a run folder, or a damaged file.
    """
    folder = RunFolder(run)
    recipe, sides, records = folder.recipe(), split_of_model(run), folder.data()
    data = [_data_row(name, sides[name], records.get(name, {})) for name in sides]
    last = last_run(run)
    metrics = last.metrics() if (last.path / "metrics.json").is_file() else {}
    evaluation = _read_evaluation(run, elsewhere)
    log = read_log(last.log)
    folds = FoldsFolder(run).runs() if is_cross_validation(run) else []
    if folds:
        notices = _notices_of_folds(run, folds, evaluation)
    else:
        notices = _notices(folder, bool(metrics.get("finished")), log, evaluation)
    return Contents(
        run_name=run.resolve().name,
        recipe=recipe,
        data=data,
        synthetic=any(row.synthetic for row in data)
        or (evaluation is not None and evaluation.summary["synthetic"]),
        log=log,
        evaluation=evaluation,
        changes=_changes(recipe),
        metadata=list(_flat(metrics)),
        notices=notices,
        origin=read_origin(last, folds),
        folds=len(folds),
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of log.csv with numbers where numbers are; a last row cut short is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    return [{name: _number(text) for name, text in row.items()} for row in rows]


def _data_row(modality: str, sides: dict[str, Any], record: dict[str, Any]) -> DataRow:
    path = Path(record.get("path", ""))
    taught = record.get("unlabelled", {})
    swaps = record.get("substituted_channels") or {}
    return DataRow(
        modality,
        path.name,
        str(record.get("layout", "")),
        {part: (len(p := sides.get(part, {})), sum(len(cases) for cases in p.values())) for part in PARTS},
        str(record.get("fingerprint", "")),
        ", ".join(f"{missing} taken from {used}" for missing, used in swaps.items()),
        record.get("synthetic") is True,
        [*_remarks(record), *_hidden(sides, record)],
        (taught.get("patients", 0), taught.get("cases", 0)),
    )


def _hidden(sides: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Whose masks are hidden (`split.labelled`), or are not there, and who is not learnt from either."""
    patients = sides.get(UNLABELLED, {})
    if not patients or "unlabelled" in record:
        return []
    cases = sum(len(of_one) for of_one in patients.values())
    return [f"{cases} cases of {len(patients)} patients count as without a mask and were not learnt from."]


def _remarks(record: dict[str, Any]) -> list[str]:
    """What was wrong with a data set: the first problem of each kind, and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for problem in record.get("problems") or []:
        kinds.setdefault(problem["kind"], []).append(problem["message"])
    remarks = [
        found[0] + (f" (the first of {len(found)} such problems)" if len(found) > 1 else "")
        for found in kinds.values()
    ]
    without = record.get("without_truth", 0)
    return [*remarks, f"{without} cases without a mask were left out."] if without else remarks


def _read_evaluation(run: Path, elsewhere: Path | None) -> Evaluated | None:
    if elsewhere is not None:
        if not (elsewhere / "summary.json").is_file():
            raise RunError(
                f"{elsewhere} holds no evaluation; expected a folder that `oncoseg evaluate RUN --out` wrote."
            )
        return _evaluated(elsewhere, f"oncoseg evaluate {run} --out {elsewhere} --replace")
    for split in SPLIT_ORDER:
        folder = run / "evaluation" / split
        if (folder / "summary.json").is_file():
            return _evaluated(folder, f"oncoseg evaluate {run} --split {split} --replace")
    return None


def _evaluated(folder: Path, again: str) -> Evaluated:
    try:
        return _tables(folder)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise RunError(
            f"The evaluation in {folder} cannot be shown ({error}). Make it again: {again}"
        ) from error


def _tables(folder: Path) -> Evaluated:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if "weights" not in summary:
        raise ValueError("it is of masks, not of a run")
    of_metrics = {row["class"] for row in summary["metrics"]["table"]}
    if summary["format_version"] != format_version(of_metrics):
        raise ValueError(f"made by another version of oncoseg, format {summary['format_version']}")
    rows: dict[tuple[str, str], Rows] = {}
    for row in summary["table"]:
        key = row["group"], row.get("class", "")
        rows.setdefault(key, Rows(*key, {})).of[row["averaging"]] = row
    classes = list(dict.fromkeys(label for _, label in rows))
    with (folder / "per_patient.csv").open(newline="", encoding="utf-8") as file:
        patients: list[dict[str, Any]] = [
            {"class": ""} | {k: v if k in NAMES else _number(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    patients.sort(key=lambda row: (classes.index(row["class"]), math.isnan(row["dice"]), row["dice"]))
    panels = read_panels(folder, summary["panels"])
    described = curves.read(folder)["parts"]
    of_class: dict[str, dict[str, Any]] = {}
    for part in described:
        of_class.setdefault(part["class"], {})[words.group_name(part["group"])] = part
    parts = read_parts(folder, summary["metrics"]["table"], described)
    scores = [score for row in summary["table"] for score in row["scores"].values()]
    return Evaluated(
        summary["split"],
        summary["threshold"],
        summary,
        list(rows.values()),
        parts,
        of_class,
        patients,
        panels,
        rough_sentence(score["n"] for score in scores if score["low"] is not None),
    )


def _changes(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(Field, the system's own value, this run's value) wherever they differ."""
    try:
        default = get_recipe(recipe.name)
    except RecipeError:
        return []
    usual = dict(_flat(default.model_dump(mode="json", exclude={"published", "deviations"})))
    here = dict(_flat(recipe.model_dump(mode="json", exclude={"published", "deviations"})))
    names = list(dict.fromkeys([*usual, *here]))
    return [
        (name, usual.get(name, "–"), here.get(name, "–"))
        for name in names
        if usual.get(name) != here.get(name)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return pairs


def _notices(
    folder: RunFolder, finished: bool, log: list[dict[str, Any]], evaluation: Evaluated | None
) -> list[Notice]:
    notices = []
    if not log:
        text = "No epoch has been finished yet, so there are no learning curves."
        notices.append(Notice(text, f"oncoseg train --resume --out {folder.path}"))
    elif not finished:
        last = log[-1]
        text = f"Training is not finished; the log ends after {last['stage']} epoch {last['epoch']:g}."
        notices.append(Notice(text, f"oncoseg train --resume --out {folder.path}"))
    evaluate = f"oncoseg evaluate {folder.path} --split test"
    if evaluation is None:
        notices.append(
            Notice("This run has not been evaluated, so there are no scores and examples.", evaluate)
        )
    elif last_run(folder.path).model.is_file() and evaluation.summary["weights"] not in (
        None,
        weights_sha256(folder.path),
    ):
        text = "The weights have changed since the evaluation shown here was made."
        notices.append(Notice(text, f"{evaluate} --replace"))
    elif evaluation.split != "test":
        notices.append(Notice(f"Only the {evaluation.split} side has been evaluated.", evaluate))
    return notices


def _notices_of_folds(path: Path, folds: list[RunFolder], evaluation: Evaluated | None) -> list[Notice]:
    """Each fold has a report of its own, with its learning curves."""
    evaluate = f"oncoseg evaluate {path}"
    if left := [fold.path.name for fold in folds if not fold.is_finished()]:
        text = f"{len(left)} of {len(folds)} folds are not trained to the end: {', '.join(left)}."
        return [Notice(text, f"oncoseg train --resume --out {path}")]
    if evaluation is None:
        text = "This cross-validation has not been evaluated, so there are no scores and examples."
        return [Notice(text, evaluate)]
    if evaluation.summary["weights"] != weights_sha256(path):
        text = "The weights have changed since the evaluation shown here was made."
        return [Notice(text, f"{evaluate} --replace")]
    return []


def _number(text: str) -> Any:
    if text == "":
        return math.nan
    try:
        return float(text)
    except ValueError:
        return text
