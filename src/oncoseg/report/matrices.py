"""Confusion matrices, of voxels and of patients, each cell with its share of the row and its interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from oncoseg.report import curves, words
from oncoseg.report.curves import Curve, drawing

SHADE = "#0072B2"
"""A cell's colour; the larger its share of the row, the darker."""

DARKEST = 0.55
"""Opacity of a cell that holds all of its row, so that black text stays readable."""


class Cell(NamedTuple):
    """A number of things, what they are a part of, and the interval of their share where there is one."""

    number: int
    whole: int
    low: float | None = None
    high: float | None = None


def of_voxels(name: str, voxels: Mapping[str, Any]) -> Curve:
    """The matrix of all patients' voxels together.

    Args:
        name: of the file, without ending.
        voxels: counts and rates, see `evaluate.curves.describe`.
    """
    rows = {
        "tumour": _row(voxels["tp"], voxels["fn"], voxels["recall"], found_first=True),
        "background": _row(voxels["fp"], voxels["tn"], voxels["specificity"], found_first=False),
    }
    title = "Voxels"
    if lost := voxels.get("not_comparable"):
        # shares of a background of which some was never judged would flatter
        rows["background"] = [cell._replace(whole=0) for cell in rows["background"]]
        title += f"\n{lost}"
    return _matrix(name, title, rows, ["tumour", "background"])


def of_patients(name: str, detection: Mapping[str, Any]) -> Curve:
    """The matrix of patients with and without tumour, of whom some is marked or nothing.

    Args:
        name: of the file, without ending.
        detection: counts and rates, see `evaluate.curves.describe`.
    """
    missing = detection["missing"]
    rows = {
        "some tumour": _row(
            detection["tp"], detection["fn"], detection["sensitivity"], found_first=True, missing=missing[0]
        ),
        "none": _row(
            detection["fp"], detection["tn"], detection["specificity"], found_first=False, missing=missing[1]
        ),
    }
    columns = ["some tumour", "none"]
    if not any(missing):
        return _matrix(name, "Patients", {title: row[:2] for title, row in rows.items()}, columns)
    return _matrix(name, "Patients", rows, [*columns, "no prediction"])


def _row(first: int, second: int, rate: Mapping[str, Any], found_first: bool, missing: int = 0) -> list[Cell]:
    """Cells of which one has the rate; the other's interval mirrors it only where nothing is missing."""
    whole = first + second + missing
    ends = (rate["low"], rate["high"])
    mirrored = (None, None) if missing or ends[0] is None else (1 - ends[1], 1 - ends[0])
    right, wrong = Cell(first, whole), Cell(second, whole)
    if found_first:
        cells = [right._replace(low=ends[0], high=ends[1]), wrong._replace(low=mirrored[0], high=mirrored[1])]
    else:
        cells = [right._replace(low=mirrored[0], high=mirrored[1]), wrong._replace(low=ends[0], high=ends[1])]
    return [*cells, Cell(missing, whole)]


def _matrix(name: str, title: str, rows: Mapping[str, Sequence[Cell]], columns: Sequence[str]) -> Curve:
    with drawing(1.6 + 1.35 * len(columns), 3.1) as (figure, axes):
        for place, row in enumerate(rows.values()):
            for column, cell in enumerate(row[: len(columns)]):
                _draw(axes, column, place, cell)
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel="prediction", ylabel="truth")
        axes.set_title(curves.wrapped(title))
        axes.set_xticks([place + 0.5 for place in range(len(columns))], columns)
        axes.set_yticks([place + 0.5 for place in range(len(rows))], rows, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        said = "; ".join(f"truth {truth}: {_words(columns, row)}" for truth, row in rows.items())
        return Curve(
            name,
            curves.svg_of(figure),
            f"Confusion matrix of {', '.join(title.lower().splitlines())}. {said}.",
        )


def _draw(axes: Axes, x: int, y: int, cell: Cell) -> None:
    share = cell.number / cell.whole if cell.whole else 0.0
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=SHADE, alpha=DARKEST * share, linewidth=0))
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="#88929a", linewidth=0.8))
    lines = [words.percent(cell.number, cell.whole), _interval(cell), words.number(cell.number)]
    texts = [line for line in lines if line]
    for place, text in enumerate(texts):
        height = y + 0.5 + 0.2 * (place - (len(texts) - 1) / 2)
        look: dict[str, Any] = {"weight": "bold", "fontsize": 10} if place == 0 else {"fontsize": 9}
        axes.text(x + 0.5, height, text, ha="center", va="center", **look)


def _interval(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"{words.percent(cell.low, 1)[:-2]}–{words.percent(cell.high, 1)}"


def _words(columns: Sequence[str], row: Sequence[Cell]) -> str:
    return ", ".join(
        f"predicted {column} {words.percent(cell.number, cell.whole)} ({_interval(cell) or 'no interval'}), "
        f"{cell.number}"
        for column, cell in zip(columns, row, strict=False)
    )
