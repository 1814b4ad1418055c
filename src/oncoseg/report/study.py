"""The page of a study: the paper's tables and figure, with intervals, tests and the published figures."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.comparisons import ALPHA, FEWEST_SEEDS, Comparison
from oncoseg.evaluate.compare import Contest, Part
from oncoseg.evaluate.overlap_table import MEANINGS
from oncoseg.evaluate.scoring import ALL_CLASSES
from oncoseg.evaluate.summary_tables import OF_CLASSES as ABOUT_CLASSES
from oncoseg.evaluate.table import AVERAGINGS
from oncoseg.files import write_bytes, write_text
from oncoseg.report import pages, words
from oncoseg.report.comparison import write_comparison
from oncoseg.report.contents import read_log
from oncoseg.report.curves import Curve
from oncoseg.report.figures import write_figures
from oncoseg.report.study_plots import figure, learning_curves, row_name
from oncoseg.split import PARTS
from oncoseg.statistics import rough_sentence
from oncoseg.studies.study import PRINTED_COSTS, PRINTED_SCORES
from oncoseg.study_folder import StudyFolder
from oncoseg.study_results import FigureRow, Network, StudyResults, read_results
from oncoseg.study_tables import mark, write_results

TITLES = {
    "dice": "Dice (DSC)",
    "miou_foreground": "mIoU, tumour",
    "miou_classes": "mIoU, tumour and background",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Pixel accuracy",
}
"""Headings of table 1."""

OF_CLASSES = {"miou_foreground": "mIoU of the class", "miou_classes": "mIoU, class and background"}
"""In place of these where some run has several classes."""

FIGURE = "figure3.png"
"""The file of the pictures, beside the page."""


def write_study(out: Path, results: StudyResults | None = None) -> Path:
    """Write a study's tables, tests, figure and OUT/index.html from the runs that are done.

    Args:
        out: the study's folder.
        results: what `read_results` gave; None to read them.

    Returns:
        The page's path. It needs no other file and no network; it links to each group's comparison.

    Raises:
        RunError: not a study, or no run of it is trained and evaluated.
        DataError: an evaluation or a case that cannot be read.
    """
    found = results or read_results(out)
    write_results(found, out)
    for group, contest in found.contests.items():
        write_comparison(contest, StudyFolder(out).comparison(group))
    plots = {group: _curves(found, group) for group in found.study.groups}
    pictures = figure(found.figure, list(found.study.variants), found.synthetic) if found.figure else None
    write_figures(out, [plot for each in plots.values() for plot in each])
    if pictures:
        write_bytes(out / FIGURE, pictures)
    page = out / "index.html"
    write_text(page, _page(found, out, plots, pictures))
    return page


MAY_TURN = "the intervals over patients and trainings overlap, so that other trainings may show none"
"""Said of differences between networks that were trained several times: the tests know the patients alone."""


class Conclusion(NamedTuple):
    """What a group's paired tests show.

    Attributes:
        text: in one sentence.
        tests: how many, in words.
        any: whether they could show anything.
    """

    text: str
    tests: str
    any: bool


def conclude(group: str, contest: Contest) -> Conclusion:
    """Sum a group's paired tests up."""
    comparisons = [each for part in contest.parts for each in part.comparisons]
    overlapping = sum(
        each.better is not None and _overlap_between_trainings(part, each)
        for part in contest.parts
        for each in part.comparisons
    )
    tests = words.counted(len(comparisons), "paired test")
    if better := [each for each in comparisons if each.better]:
        shows = "shows" if len(better) == 1 else "show"
        doubt = f"; in {overlapping} of them {MAY_TURN}" if overlapping else ""
        return Conclusion(f"{group}: {len(better)} of {tests} {shows} a difference{doubt}.", tests, True)
    unable = sum(not each.p_smallest <= ALPHA for each in comparisons)  # NaN without a patient
    if unable == len(comparisons):
        n = max(each.n for each in comparisons)
        why = f"no test of {words.patients(n)} could have shown a difference"
        why = why if n else "no patient has a score of two networks"
        return Conclusion(f"{group}: nothing can be said, as {why}.", tests, False)
    networks = "the two" if len(contest.systems) == 2 else f"any two of the {len(contest.systems)}"
    but = f", of which {unable} could not have shown one" if unable else ""
    return Conclusion(
        f"{group}: no difference shown between {networks} networks ({tests}{but}).", tests, True
    )


def _overlap_between_trainings(part: Part, each: Comparison) -> bool:
    """Whether both were trained several times and other trainings could change their places."""
    of = [part.variation[name] for name in (each.a, each.b) if name in part.variation]
    ends = [(one.low, one.high) for one in of if one.low is not None and one.high is not None]
    return len(ends) == 2 and max(low for low, _ in ends) <= min(high for _, high in ends)


def _page(found: StudyResults, out: Path, plots: Mapping[str, list[Curve]], pictures: bytes | None) -> str:
    source = "data:image/png;base64," + base64.b64encode(pictures).decode() if pictures else ""
    split, data = StudyFolder(out).split(), StudyFolder(out).data()
    return pages.render(
        "study.html.jinja",
        study=found.study,
        out_name=out.resolve().name,
        synthetic=found.synthetic,
        missing=[StudyFolder(out).left(run) for run in found.missing],
        command=f"oncoseg study --resume --out {out}",
        conclusions={group: conclude(group, one) for group, one in found.contests.items()},
        contests=found.contests,
        places={group: _place(found, out, group) for group in found.contests},
        table_1={group: list(_patients(found, group)) for group in found.study.groups},
        averaged={group: list(_averaged(found, group)) for group in found.study.groups},
        table_2={group: found.of_group(group) for group in found.study.groups},
        printed=_printed(found, PRINTED_SCORES),
        printed_costs=_printed(found, PRINTED_COSTS),
        titles=titles(found),
        about_classes=ABOUT_CLASSES if _has_classes(found) else "",
        shown_class=", ".join(dict.fromkeys(filter(None, (row.panel.view.focus for row in found.figure)))),
        mark=mark(found.study),
        meanings=MEANINGS,
        averagings=AVERAGINGS,
        budget=_budget(found),
        hardware="; ".join(dict.fromkeys(result.cost.hardware for result in found.results)),
        caution=_caution(found),
        fewest_seeds=FEWEST_SEEDS,
        sides={name: {part: len(parts.get(part, {})) for part in PARTS} for name, parts in split.items()},
        data=data,
        figure=source,
        figure_rows=[_in_words(row) for row in found.figure],
        plots=plots,
    )


def titles(found: StudyResults) -> dict[str, str]:
    """Headings of table 1, by the classes of the study."""
    return TITLES | (OF_CLASSES if _has_classes(found) else {})


def _has_classes(found: StudyResults) -> bool:
    """Whether some run has several."""
    return any(len({row.label for row in result.overlap}) > 1 for result in found.results)


def _printed(found: StudyResults, names: Sequence[str]) -> list[str]:
    """What the paper prints of any run, in the order of the columns."""
    rows = found.study.published.rows if found.study.published else ()
    return [name for name in names if any(name in row.scores for row in rows)]


def _place(found: StudyResults, out: Path, group: str) -> str:
    return (StudyFolder(out).comparison(group) / "index.html").relative_to(out).as_posix()


def _patients(found: StudyResults, group: str) -> Iterator[dict[str, Any]]:
    """Rows of table 1: per patient."""
    for network in found.of_group(group):
        for row in network.overlap:
            if row.averaging == "patient":
                # what a paper prints of a network is of all its classes together, where it has several
                several = len({one.label for one in network.overlap}) > 1
                printed = {} if several and row.label != ALL_CLASSES else network.printed
                name = _name(found, network, row.modality, row.label)
                yield {"name": name, "row": row, "printed": printed}


def _averaged(found: StudyResults, group: str) -> Iterator[dict[str, Any]]:
    """The other averagings."""
    for averaging in AVERAGINGS:
        for network in found.of_group(group):
            for row in network.overlap:
                if row.averaging == averaging != "patient":
                    name = _name(found, network, row.modality, row.label)
                    yield {"name": name, "averaging": words.AVERAGING_NAMES[averaging], "row": row}


def _name(found: StudyResults, network: Network, modality: str, label: str) -> str:
    """The variant, with modality and class where there are several; and how many trainings, unless all."""
    several = len({row.modality for row in network.overlap}) > 1
    classes = len({row.label for row in network.overlap}) > 1
    more = [words.group_name(modality) if several else "", label if classes else ""]
    return ", ".join(filter(None, (network.variant, *more, _so_far(found, network))))


def _so_far(found: StudyResults, network: Network) -> str:
    """How many of a network's trainings are done, in words; empty where all are."""
    done, asked = len(network.trainings), len(found.study.seeds)
    return f"{done} of {asked} trainings" if found.study.several and done < asked else ""


def _budget(found: StudyResults) -> str:
    """How much training every run had, in words."""
    if (each := found.study.minutes_each) is not None:
        return (
            f"Every run had the same budget: {each:g} minutes of training, or all its epochs where these "
            "took less. The weights with the best validation Dice until then were kept; the schedule of the "
            "learning rate follows the epochs asked for and was not shortened."
        )
    epochs = {result.run.recipe.training.max_epochs for result in found.results}
    if len(epochs) == 1:
        return f"Every run had the same budget: {words.counted(epochs.pop(), 'epoch')}."
    return f"The runs were asked for different numbers of epochs ({', '.join(map(str, sorted(epochs)))})."


def _caution(found: StudyResults) -> str:
    scores = [one for result in found.results for row in result.overlap for one in row.scores.values()]
    return rough_sentence(one.n for one in scores if one.low is not None)


def _in_words(row: FigureRow) -> str:
    """Who is shown, and by which rule."""
    name, view = row_name(row).replace("\n", ", "), row.panel.view
    role = words.roles(row.panel)
    of_class = f" of {view.focus}" if view.focus else ""
    dice = f"Dice{of_class} {words.score(row.panel.patient_dice)}"
    first = next(iter(row.views))
    return (
        f"{name}: {role} of {first} ({dice}), {row.panel.patient}, slice {view.slice_index} of {view.slices}."
    )


def _curves(found: StudyResults, group: str) -> list[Curve]:
    logs = {one.run.variant: read_log(one.folder.log) for one in found.first_trainings(group)}
    return learning_curves(group, logs) if logs else []
