"""What a study shows: its networks' scores and costs, the paired tests, and the slices of its figure."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from oncoseg import models
from oncoseg.errors import RunError
from oncoseg.evaluate.compare import Contest, compare
from oncoseg.evaluate.overlap_table import OverlapRow, overlap_table
from oncoseg.evaluate.panels import Panel, View, read_panels, write_panels
from oncoseg.evaluate.run import view_of
from oncoseg.files import read_json, write_json
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.studies.study import Run, Study
from oncoseg.study_folder import SIDE, TIMING_FILE, StudyFolder, is_complete, minutes_spent

CHOSEN_BY = ("median", "only", "best")
"""The role by which the figure's patient is chosen: the first of these that there is. Of fewer than three
patients there is no median."""


class Result(NamedTuple):
    """One run that is trained and evaluated.

    Attributes:
        run: which.
        folder: its run folder.
        summary: of its evaluation, summary.json.
        overlap: its rows of table 1.
        cost: its row of table 2.
    """

    run: Run
    folder: RunFolder
    summary: Mapping[str, Any]
    overlap: list[OverlapRow]
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


class Spread(NamedTuple):
    """One cost of several trainings: its mean, and the least and the most."""

    mean: float
    least: float
    most: float


class Network(NamedTuple):
    """One variant of a group, over those of its trainings that are done.

    Attributes:
        group: the study's.
        variant: the study's.
        trainings: one or more, in the order of the seeds.
        overlap: its rows of table 1; of several trainings their means.
        printed: what the paper prints.
    """

    group: str
    variant: str
    trainings: list[Result]
    overlap: list[OverlapRow]
    printed: Mapping[str, float]

    @property
    def cost(self) -> Cost:
        """Of its first training that is done; cases, parameters and multiply-adds are those of all."""
        return self.trainings[0].cost

    def spread(self, cost: str) -> Spread:
        """Of `epochs`, `minutes` or `seconds` over its trainings."""
        values = [getattr(one.cost, cost) for one in self.trainings]
        least, most = min(values), max(values)
        return Spread(least if least == most else fmean(values), least, most)


class FigureRow(NamedTuple):
    """One row of the figure.

    Attributes:
        group: the study's.
        seed: of the trainings that are shown, the study's first; None where there are no others.
        panel: the chosen patient's slice, as the group's first variant predicts it, and why it was chosen.
        views: variant → the same slice as it predicts it.
    """

    group: str
    seed: int | None
    panel: Panel
    views: dict[str, View]


class StudyResults(NamedTuple):
    """All that a study's tables and page show.

    Attributes:
        study: the study.
        networks: those with a run that is done, in the study's order.
        missing: the runs that are not done.
        contests: group → its variants against each other, where there are two or more.
        figure: its rows.
        synthetic: whether phantoms are among the cases.
    """

    study: Study
    networks: list[Network]
    missing: list[Run]
    contests: dict[str, Contest]
    figure: list[FigureRow]
    synthetic: bool

    @property
    def results(self) -> list[Result]:
        """Every training that is done, network by network."""
        return [one for network in self.networks for one in network.trainings]

    def of_group(self, group: str) -> list[Network]:
        """Those of one group."""
        return _of_group(self.networks, group)

    def first_trainings(self, group: str) -> list[Result]:
        """Of a group's networks the trainings with the study's first seed, which are those that are drawn."""
        return _first_trainings(self.networks, group, self.study.first_seed)


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
    results = [_result(run, folder.run(run)) for run in done]
    networks = _networks(study, results)
    contests = {group: found for group in study.groups if (found := _contest(study, group, networks))}
    return StudyResults(
        study,
        networks,
        [run for run in runs if run not in done],
        contests,
        [row for group in study.groups for row in _figure_rows(folder, group, study.first_seed, networks)],
        any(result.summary["synthetic"] for result in results),
    )


def _networks(study: Study, results: Sequence[Result]) -> list[Network]:
    of: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        of.setdefault((one.run.group, one.run.variant), []).append(one)
    return [
        Network(group, variant, trainings, _overlap(trainings), study.printed(group, variant))
        for group in study.groups
        for variant in study.variants
        if (trainings := of.get((group, variant)))
    ]


def _overlap(trainings: Sequence[Result]) -> list[OverlapRow]:
    first, *others = trainings
    return overlap_table(*(one.evaluation for one in trainings)) if others else first.overlap


def _of_group(networks: Sequence[Network], group: str) -> list[Network]:
    return [network for network in networks if network.group == group]


def _first_trainings(networks: Sequence[Network], group: str, seed: int | None) -> list[Result]:
    of = _of_group(networks, group)
    return [one for network in of for one in network.trainings if one.run.seed == seed]


def _result(run: Run, folder: RunFolder) -> Result:
    evaluation = folder.path / "evaluation" / SIDE
    try:
        summary = dict(read_json(evaluation / "summary.json"))
        timing = dict(read_json(evaluation / TIMING_FILE))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{evaluation} is damaged ({error}); expected what `oncoseg study` wrote. Delete it, and go on "
            "with the study."
        ) from error
    return Result(run, folder, summary, overlap_table(evaluation), _cost(run.recipe, folder, timing))


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


def _contest(study: Study, group: str, networks: Sequence[Network]) -> Contest | None:
    """All variants of a group against each other; all tests of the group are one family."""
    folders = {
        network.variant: [one.evaluation for one in network.trainings]
        for network in _of_group(networks, group)
    }
    return compare(folders, metrics=study.tested) if len(folders) > 1 else None


def _figure_rows(
    folder: StudyFolder, group: str, seed: int | None, networks: Sequence[Network]
) -> list[FigureRow]:
    """One row per modality: the patient with the median Dice of the group's first variant that is done."""
    of = _first_trainings(networks, group, seed)
    if not of:
        return []
    panels = read_panels(of[0].evaluation, of[0].summary["panels"])
    rows = []
    for modality in dict.fromkeys(panel.group for panel in panels):
        if chosen := _chosen([panel for panel in panels if panel.group == modality]):
            views = {of[0].run.variant: chosen.view}
            for other in of[1:]:
                views[other.run.variant] = _kept_view(folder, other, chosen)
            rows.append(FigureRow(group, seed, chosen, views))
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
    name = "-".join((*result.folder.path.relative_to(folder.runs).parts, chosen.group))
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
