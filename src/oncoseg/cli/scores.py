"""An evaluation's table on the terminal, with what its figures mean."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncoseg.cli import terminal


def print_scores(folder: Path) -> None:
    """Print the table of an evaluation folder with its definitions, averagings and empty-mask rule.

    Args:
        folder: what `evaluate_run` wrote.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    names = list(summary["table"][0]["scores"])
    rows = [
        (row["group"], row["averaging"], row["units"], *(_score(row["scores"][name]) for name in names))
        for row in summary["table"]
    ]
    title = f"Scores on the {summary['split']} set (threshold {summary['threshold']:g})"
    terminal.print_table(title, ("modality", "averaging", "n", *names), rows, right=3)
    terminal.say(f"In brackets: {summary['confidence']:.0%} interval over patients.")
    for name, meaning in (summary["definitions"] | summary["averagings"]).items():
        terminal.say(f"  {name}: {meaning}")
    terminal.say(f"  Empty masks: {summary['empty_rule']}")


def _score(score: Mapping[str, Any]) -> str | None:
    if score["mean"] is None:
        return None
    interval = "" if score["low"] is None else f" [{score['low']:.2f}, {score['high']:.2f}]"
    return f"{score['mean']:.3f}{interval}"
