"""An evaluation's table on the terminal, with what its figures mean."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncoseg.cli import terminal
from oncoseg.files import SYNTHETIC_SENTENCE

if TYPE_CHECKING:
    from oncoseg.evaluate.compare import Contest

FORFEITED = "forfeited"
"""The rule of a metric without a mean; see oncoseg.evaluate.scoring.FORFEITED."""

NOTES = {
    "missing": ("case", "without a prediction"),
    "unlisted": ("case", "not in the list of patients and therefore taken for a patient each"),
    "without_truth": ("prediction", "without a truth, left out"),
}
"""Lists in a summary → what is said of them."""

PUBLISHED = "paper, other data"
"""What stands in place of an averaging in a published row."""

UNITS = {
    "n": "patients, slices, or 1 when pooled, whose Dice is averaged; another n stands with the score.",
    "empty": "no tumour in truth and prediction.",
    "zero": "tumour in only one of the two, so that Dice is 0.",
}
"""Columns that count units, with their meaning."""


def print_scores(folder: Path) -> None:
    """Print the table of an evaluation folder with its definitions, averagings and empty-mask rule.

    The published figures are its last rows, marked as of other data.

    Args:
        folder: what `evaluate_run` wrote.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    names = list(summary["table"][0]["scores"])
    rows: list[Sequence[Any]] = [
        (
            *(row["group"], row["averaging"], *_units(row)),
            *(_score(row["scores"][name], row["scores"]["dice"]["n"]) for name in names),
        )
        for row in summary["table"]
    ]
    rows += [_published(row, names) for row in summary["published"]]
    mirrors = "on" if summary["prediction"].get("flips") else "off"
    used = f"threshold {summary['threshold']:g}, mirror averaging {mirrors}"
    title = f"Scores on the {summary['split']} set ({used})"
    terminal.print_table(title, ("modality", "averaging", *UNITS, *names), rows, right=3)
    if summary["synthetic"]:
        terminal.say(SYNTHETIC_SENTENCE)
    if any(score["low"] is not None for row in summary["table"] for score in row["scores"].values()):
        terminal.say(f"In brackets: {summary['confidence']:.0%} interval over patients.")
    else:
        terminal.say("No intervals: there are too few patients.")
    for name, meaning in UNITS.items():
        terminal.say(f"  {name}: {meaning}")
    for name, meaning in (summary["definitions"] | summary["averagings"]).items():
        terminal.say(f"  {name}: {meaning}")
    if summary["published"]:
        terminal.say(f"  {PUBLISHED}: as printed, averaged in its own way; not directly comparable.")
    terminal.say(f"  Empty masks: {summary['empty_rule']}")


def print_mask_scores(summary: Mapping[str, Any]) -> None:
    """Print what `evaluate_masks` found: mean and median of every class and metric, and its rules."""
    rows = [
        (
            " ".join(filter(None, (row["group"], row["class"]))),
            row["metric"],
            _with_interval(row["mean"], row["low"], row["high"]),
            _with_interval(row["median"], row["median_low"], row["median_high"]),
            row["n"],
            ", ".join(f"{rule} {count}" for rule, count in row["rules"].items()),
        )
        for row in summary["table"]
    ]
    columns = ("class", "metric", "mean over patients", "median", "n", "patients by rule")
    terminal.print_table(f"Scores of {summary['patients']} patients", columns, rows)
    if summary["synthetic"]:
        terminal.say(SYNTHETIC_SENTENCE)
    if all(row["low"] is None for row in summary["table"]):
        terminal.say("No intervals: there are too few patients.")
    else:
        terminal.say(f"In brackets: {summary['confidence']:.0%} interval over patients.")
    terminal.say(
        f"Empty and missing masks: policy {summary['scoring']['policy']}; summary.json has every metric's "
        "definition and what it is worth in each situation."
    )
    if any(FORFEITED in row["rules"] for row in summary["table"]):
        terminal.say(
            f"  {FORFEITED}: no mean, as files are missing and no value is bad enough for what they may hold."
        )
    for kind, words in NOTES.items():
        if found := summary.get(kind):
            noun, what = words
            terminal.note(f"{counted(len(found), noun)} {what}, the first is {found[0]}")


def counted(number: int, noun: str) -> str:
    """As in `1 case`, `2 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.3f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _published(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, ...]:
    """The paper's row, with two digits as papers print them."""
    scores = (row["scores"].get(name) for name in names)
    return (
        row["row"],
        PUBLISHED,
        *(None for _ in UNITS),
        *(None if score is None else f"{score:.2f}" for score in scores),
    )


def _units(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["scores"]["dice"]["n"], row["both_empty"], row["truth_empty"] + row["prediction_empty"]


def _score(score: Mapping[str, Any], usual_n: int) -> str | None:
    if score["mean"] is None:
        return None
    interval = "" if score["low"] is None else f" [{score['low']:.2f}, {score['high']:.2f}]"
    other = "" if score["n"] == usual_n else f" (n={score['n']})"
    return f"{score['mean']:.3f}{interval}{other}"


def print_contest(contest: "Contest") -> None:
    """Print means of every system, and what each comparison shows."""
    for part in contest.parts:
        places = {place.system: place for place in part.ranking.systems}
        rows = [
            (
                system,
                _with_interval(found.mean, found.low, found.high),
                found.n,
                f"{places[system].rank:g}",
                _share(places[system].first_share),
            )
            for system, found in part.summaries.items()
        ]
        title = " ".join(filter(None, (part.group, part.label, part.metric)))
        terminal.print_table(title, ("system", "mean over patients", "n", "rank", "first in"), rows)
        for each in part.comparisons:
            terminal.say(f"  {each.sentence}")
        for system, variation in part.variation.items():
            terminal.say(f"  {system}: {variation.sentence}")
        terminal.say("")
    if contest.synthetic:
        terminal.say(SYNTHETIC_SENTENCE)
    for remark in (*contest.remarks, *(each.sentence for each in contest.false_alarms)):
        terminal.say(remark)
    terminal.say(
        "In brackets: 95 % interval over patients. First in: share of bootstrap samples of the patients in "
        "which the system is first."
    )


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"
