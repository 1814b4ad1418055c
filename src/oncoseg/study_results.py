"""What a study shows: its two tables, the paired tests, and the slices of its figure."""

import csv
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg import models
from oncoseg.errors import RunError
from oncoseg.evaluate import contest_files
from oncoseg.evaluate.compare import Contest, compare
from oncoseg.evaluate.overlap_table import MEANINGS, OverlapRow, overlap_table
from oncoseg.evaluate.panels import Panel, View, read_panels, write_panels
from oncoseg.evaluate.run import view_of
from oncoseg.files import atomic_file, atomic_folder, read_json, write_json
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.statistics import Summary
from oncoseg.studies.study import PRINTED_COSTS, PRINTED_SCORES, Run, Study
from oncoseg.study_folder import SIDE, TIMING_FILE, StudyFolder, is_complete, minutes_spent

TABLE_1, TABLE_2, TESTS = "table1.csv", "table2.csv", "tests.csv"
"""What `write_results` writes."""

CHOSEN_BY = ("median", "only", "best")
"""The role by which the figure's patient is chosen: the first of these that there is. Of fewer than three
patients there is no median."""

OTHER_DATA, SAME_DATA = "other data", "the same data"
"""How published figures are marked."""


class Result(NamedTuple):
    """One run that is trained and evaluated.

    Attributes:
        run: which.
        folder: its run folder.
        summary: of its evaluation, summary.json.
        overlap: its rows of table 1.
        printed: what the paper prints.
        cost: its row of table 2.
    """

    run: Run
    folder: RunFolder
    summary: Mapping[str, Any]
    overlap: list[OverlapRow]
    printed: Mapping[str, float]
    cost: "Cost"

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.folder.path / "evaluation" / SIDE


class Cost(NamedTuple):
    """What a run cost, and what its network does.

    Attributes:
        epochs: of joint training that were finished.
        minutes: of all calls that trained it.
        seconds: of predicting the test side, from files to probabilities on their grid.
        cases: of the test side.
        hardware: on which it was trained.
        parameters: of its network.
        multiply_adds: for one slice, or one window of a volume.
    """

    epochs: int
    minutes: float
    seconds: float
    cases: int
    hardware: str
    parameters: int
    multiply_adds: int


class FigureRow(NamedTuple):
    """One row of the figure.

    Attributes:
        group: the study's.
        panel: the chosen patient's slice, as the group's first variant predicts it, and why it was chosen.
        views: variant → the same slice as it predicts it.
    """

    group: str
    panel: Panel
    views: dict[str, View]


class StudyResults(NamedTuple):
    """All that a study's tables and page show.

    Attributes:
        study: the study.
        results: of the runs that are done, in the study's order.
        missing: the runs that are not.
        contests: group → its variants against each other, where there are two or more.
        figure: its rows.
        synthetic: whether phantoms are among the cases.
    """

    study: Study
    results: list[Result]
    missing: list[Run]
    contests: dict[str, Contest]
    figure: list[FigureRow]
    synthetic: bool

    def of_group(self, group: str) -> list[Result]:
        """Those of one group."""
        return [result for result in self.results if result.run.group == group]


def read_results(out: Path) -> StudyResults:
    """Put together what there is of a study; the figure's other networks predict its one case now.

    Raises:
        RunError: not a study, or no run of it is trained and evaluated.
        DataError: an evaluation that cannot be read, or cases that are not there any more.
    """
    folder = StudyFolder(out)
    study = folder.study()
    runs = study.runs()
    done = [run for run in runs if is_complete(folder, study, run)]
    if not done:
        raise RunError(
            f"No run of the study {out} is trained and evaluated yet; expected one. Go on with "
            f"`oncoseg study --resume --out {out}`."
        )
    results = [_result(run, folder.run(run), study) for run in done]
    contests = {group: found for group in study.groups if (found := _contest(study, group, results))}
    return StudyResults(
        study,
        results,
        [run for run in runs if run not in done],
        contests,
        [row for group in study.groups for row in _figure_rows(folder, group, results)],
        any(result.summary["synthetic"] for result in results),
    )


def write_results(found: StudyResults, out: Path) -> None:
    """Write the tables and the tests of each group, in place of earlier ones."""
    _write_csv(out / TABLE_1, (row for result in found.results for row in _table_1(found.study, result)))
    _write_csv(out / TABLE_2, (_table_2(found.study, result) for result in found.results))
    tests = [row for group, contest in found.contests.items() for row in _tests(group, contest)]
    (out / TESTS).unlink(missing_ok=True)
    if tests:
        _write_csv(out / TESTS, tests)
    for group, contest in found.contests.items():
        place = StudyFolder(out).comparison(group)
        shutil.rmtree(place, ignore_errors=True)
        with atomic_folder(place) as unfinished:
            contest_files.write(contest, unfinished)


def _result(run: Run, folder: RunFolder, study: Study) -> Result:
    evaluation = folder.path / "evaluation" / SIDE
    try:
        summary = dict(read_json(evaluation / "summary.json"))
        timing = dict(read_json(evaluation / TIMING_FILE))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{evaluation} is damaged ({error}); expected what `oncoseg study` wrote. Delete it, and go on "
            "with the study."
        ) from error
    printed = study.printed(run.group, run.variant)
    return Result(run, folder, summary, overlap_table(evaluation), printed, _cost(run.recipe, folder, timing))


def size_of_input(recipe: Recipe) -> tuple[int, ...]:
    """What multiply-adds are counted for: a whole slice, or a window of a volume."""
    prepared = recipe.preparation
    return recipe.example_size if prepared.spatial_dims == 3 else prepared.slice_size


def network_cost(recipe: Recipe) -> models.Cost:
    """Parameters and multiply-adds of a recipe's network, for its input."""
    name, classes = recipe.network.name, len(recipe.classes)
    return models.describe(name, recipe.network_arguments, recipe.in_channels, classes, size_of_input(recipe))


def _cost(recipe: Recipe, folder: RunFolder, timing: Mapping[str, Any]) -> Cost:
    with folder.log.open(newline="", encoding="utf-8") as file:
        epochs = {row["epoch"] for row in csv.DictReader(file) if row["stage"] == "joint"}
    calls = folder.record().get("calls") or [{}]
    used = [call.get("hardware", {}) for call in calls]
    where = dict.fromkeys(str(one.get("gpu") or one.get("processor") or "not known") for one in used)
    minutes = minutes_spent(folder)
    return Cost(
        len(epochs), minutes, timing["seconds"], timing["cases"], "; ".join(where), *network_cost(recipe)
    )


def _contest(study: Study, group: str, results: Sequence[Result]) -> Contest | None:
    """All variants of a group against each other; all tests of the group are one family."""
    folders = {one.run.variant: one.evaluation for one in results if one.run.group == group}
    return compare(folders, metrics=study.tested) if len(folders) > 1 else None


# figure ---------------------------------------------------------------------------------------


def _figure_rows(folder: StudyFolder, group: str, results: Sequence[Result]) -> list[FigureRow]:
    """One row per modality: the patient with the median Dice of the group's first variant that is done."""
    of = [result for result in results if result.run.group == group]
    if not of:
        return []
    panels = read_panels(of[0].evaluation, of[0].summary["panels"])
    rows = []
    for modality in dict.fromkeys(panel.group for panel in panels):
        if chosen := _chosen([panel for panel in panels if panel.group == modality]):
            views = {of[0].run.variant: chosen.view}
            for other in of[1:]:
                views[other.run.variant] = _kept_view(folder, other, chosen)
            rows.append(FigureRow(group, chosen, views))
    return rows


def _chosen(panels: Sequence[Panel]) -> Panel | None:
    for role in CHOSEN_BY:
        for panel in panels:
            if role in panel.roles:
                return panel
    return None


def _kept_view(folder: StudyFolder, result: Result, chosen: Panel) -> View:
    """The chosen slice as another network predicts it, which is kept, as predicting takes its time."""
    view = chosen.view
    name = "-".join((result.folder.path.parent.name, result.folder.path.name, chosen.group))
    place = folder.path / "figure" / name
    of = {"weights": result.summary["weights"], "case": view.case_id, "slice": view.slice_index}
    of |= {"class": chosen.label} if view.classes else {}
    try:
        kept = json.loads((place / "view.json").read_text(encoding="utf-8"))
        if kept["of"] == of:
            return read_panels(place, kept["panels"])[0].view
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass  # not there, or damaged: it is made anew
    found = view_of(result.folder.path, SIDE, chosen.group, view.case_id, view.slice_index, chosen.label)
    panels = write_panels(place, [chosen._replace(view=found)])
    write_json(place / "view.json", {"of": of, "panels": panels})
    return found


# tables ---------------------------------------------------------------------------------------


def _table_1(study: Study, result: Result) -> Iterable[dict[str, Any]]:
    for row in result.overlap:
        yield {
            "group": result.run.group,
            "variant": result.run.variant,
            "modality": row.modality,
            "class": row.label,
            "averaging": row.averaging,
            "n": row.scores["dice"].n,
            "undefined": row.scores["dice"].undefined,
            **{
                f"{name}{end}": value
                for name in MEANINGS
                for end, value in _with_ends(row.scores[name]).items()
            },
            **_published(study, result, PRINTED_SCORES),
            "synthetic": result.summary["synthetic"],
        }


def _with_ends(summary: Summary) -> dict[str, float | None]:
    return {"": summary.mean, "_low": summary.low, "_high": summary.high}


def _table_2(study: Study, result: Result) -> dict[str, Any]:
    return {
        "group": result.run.group,
        "variant": result.run.variant,
        "epochs": result.cost.epochs,
        "training_minutes": result.cost.minutes,
        "inference_seconds": result.cost.seconds,
        "test_cases": result.cost.cases,
        "parameters": result.cost.parameters,
        "multiply_adds": result.cost.multiply_adds,
        "hardware": result.cost.hardware,
        **_published(study, result, PRINTED_COSTS),
    }


def _published(study: Study, result: Result, names: Sequence[str]) -> dict[str, Any]:
    """The paper's figures in columns of their own, and whether they are of the same data."""
    rows = study.published.rows if study.published else ()
    used = [name for name in names if any(name in row.scores for row in rows)]
    there = any(name in result.printed for name in used)
    return {
        **{f"published_{name}": result.printed.get(name) for name in used},
        "published_on": mark(study) if there else None,
    }


def mark(study: Study) -> str:
    """How the study's published figures are marked."""
    return SAME_DATA if study.published and study.published.same_data else OTHER_DATA


def _tests(group: str, contest: Contest) -> Iterable[dict[str, Any]]:
    for part in contest.parts:
        for each in part.comparisons:
            yield {
                "group": group,
                "modality": part.group,
                "class": part.label,
                "metric": part.metric,
                "a": each.a,
                "b": each.b,
                "n": each.n,
                "difference": each.difference.mean,
                "low": each.difference.low,
                "high": each.difference.high,
                "p": each.p,
                "p_holm": each.p_adjusted,
                "family": each.family,
                "better": each.better,
                "in_words": each.sentence,
            }


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """What is undefined is empty."""
    listed = list(rows)
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(listed[0]))
        writer.writeheader()
        writer.writerows(
            {name: "" if _undefined(cell) else cell for name, cell in row.items()} for row in listed
        )


def _undefined(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))
