"""An evaluation's table on the terminal, with what its figures mean."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oncoseg.cli import terminal

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
        terminal.say("These are synthetic phantoms: the figures say nothing about patients.")
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
