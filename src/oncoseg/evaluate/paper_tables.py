"""Tables for papers: the same cells as Markdown and as a LaTeX tabular."""

import math
import re
from collections.abc import Sequence

from oncoseg.statistics import Summary

LATEX_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"\ensuremath{-}",
    "–": "--",
} | {letter: f"\\{letter}" for letter in "_%&#${}"}
"""What a letter is written as in LaTeX, whatever its encoding and fonts."""

MARKDOWN_LETTERS = re.compile(r"([\\`*<>|~])")
"""Letters that Markdown would take for its own in a cell. Not `_`, which means itself within a word."""

NOT_DEFINED = "–"
"""Stands for a value that is not there."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown (pipes); its cells mean themselves."""
    lines = [_markdown_row(columns), f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *map(_markdown_row, rows)]) + "\n"


def latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A LaTeX tabular that needs no package; its cells mean themselves.

    Args:
        columns: headings; the first column is aligned to the left, the others to the right.
        rows: cells.
        notes: stand above it as comments.
    """
    return "\n".join(
        [
            *(f"% {' '.join(note.split())}" for note in notes),
            f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            "\\hline",
            _latex_row(columns),
            "\\hline",
            *map(_latex_row, rows),
            "\\hline",
            "\\end{tabular}\n",
        ]
    )


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`0.835 [0.821, 0.852]`, all with the same digits, or a dash where there is no value.

    Below zero with a minus, which a hyphen is not in a typeset table.
    """
    if value is None or math.isnan(value):
        return NOT_DEFINED
    text = f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return text.replace("-", "−")


def in_cell(summary: Summary) -> str:
    """Mean, interval and number of patients."""
    return f"{with_interval(summary.mean, summary.low, summary.high)} (n={summary.n})"


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (MARKDOWN_LETTERS.sub(r"\\\1", " ".join(cell.split())) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ("".join(LATEX_LETTERS.get(letter, letter) for letter in cell) for cell in cells)
    return f"{' & '.join(escaped)} \\\\"
