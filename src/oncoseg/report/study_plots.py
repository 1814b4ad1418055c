"""The figure of a study, and how its networks learned."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oncoseg.datasets.folders import safe_id
from oncoseg.evaluate.panels import View
from oncoseg.report import words
from oncoseg.report.curves import Curve, drawing, looks, svg_of
from oncoseg.report.examples import CONTOURS, IMAGE, TILE_DPI, UPRIGHT, add_key, draw_tile, png_of
from oncoseg.study_results import FigureRow

TILE_INCHES = 1.9
"""Side of a picture."""

MARGIN_INCHES = (0.5, 1.3)
"""Room beside the pictures and above and below them: headings, and the key."""

HEADING_LETTERS = 18
"""In a line above a picture."""

BELOW: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 9}
"""How the numbers below pictures are written."""


def figure(rows: Sequence[FigureRow], variants: Sequence[str], synthetic: bool) -> bytes:
    """Image, truth and one column per variant; a row per group; as PNG.

    Args:
        rows: not empty.
        variants: in the order of the columns; one that a row does not have stays empty.
        synthetic: whether phantoms are shown, which is then written below.
    """
    columns = 2 + len(variants)
    size = (TILE_INCHES * columns + MARGIN_INCHES[0], (TILE_INCHES + 0.25) * len(rows) + MARGIN_INCHES[1])
    drawn = Figure(figsize=size, dpi=TILE_DPI, layout="constrained")
    grid = drawn.subplots(len(rows), columns, squeeze=False)
    for axes_of_row, row in zip(grid, rows, strict=True):
        view = row.panel.view
        draw_tile(axes_of_row[0], view, IMAGE)
        draw_tile(axes_of_row[1], view.of_truth_alone(), CONTOURS)
        for axes, variant in zip(axes_of_row[2:], variants, strict=True):
            _draw_variant(axes, row.views.get(variant))
        axes_of_row[0].text(-0.06, 0.5, row_name(row), transform=axes_of_row[0].transAxes, **UPRIGHT)
    for axes, heading in zip(grid[0], ("image", "truth", *variants), strict=True):
        axes.set_title("\n".join(textwrap.wrap(heading, HEADING_LETTERS)), fontsize=10)
    add_key(drawn, synthetic, [row.panel.view for row in rows])
    return png_of(drawn, "white")


def row_name(row: FigureRow) -> str:
    """What a row shows: the group, the modality where it says more, and the seed where there are several."""
    modality = words.group_name(row.panel.group)
    named = modality.casefold() in re.findall(r"\w+", row.group.casefold())
    more = "" if not row.panel.group or modality == "MRI" or named else modality
    return "\n".join(filter(None, (row.group, more, "" if row.seed is None else f"seed {row.seed}")))


def _draw_variant(axes: Axes, view: View | None) -> None:
    if view is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not trained yet", transform=axes.transAxes, ha="center", va="center")
        return
    draw_tile(axes, view, CONTOURS)
    dice = f"{view.focus}: Dice" if view.focus else "Dice"
    axes.text(0.5, -0.03, f"{dice} {words.score(view.dice)}", transform=axes.transAxes, **BELOW)


def learning_curves(group: str, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Curve]:
    """Validation loss and Dice of a group's variants over the epochs, one plot each per modality.

    Args:
        group: the study's.
        logs: variant → rows of its log.csv.
    """
    modalities = dict.fromkeys(row["modality"] for log in logs.values() for row in log)
    return [
        _learning_curve(group, modality, quantity, logs)
        for modality in modalities
        for quantity in ("dice", "loss")
    ]


def _learning_curve(
    group: str, modality: str, quantity: str, logs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Curve:
    name, ends = "Dice" if quantity == "dice" else "loss", []
    with drawing(4.9, 3.1) as (drawn, axes):
        for (variant, log), look in zip(logs.items(), looks(list(logs)), strict=True):
            values = [row[f"validation_{quantity}"] for row in log if row["modality"] == modality]
            axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=variant, **look)
            ends.append(f"{variant} ends at {words.score(values[-1]) if values else '–'}")
        axes.set(
            xlabel="epoch (number)",
            ylabel="validation Dice (0 to 1)" if quantity == "dice" else "validation loss (no unit)",
            title=f"{group}: {name}",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if quantity == "dice":
            axes.set_ylim(0, 1)
        axes.legend(loc="best", fontsize=8)
        file_name = f"learning-{safe_id(group)}-{safe_id(modality)}-{quantity}"
        return Curve(file_name, svg_of(drawn), f"{group}, validation {name}: {'; '.join(ends)}.")
