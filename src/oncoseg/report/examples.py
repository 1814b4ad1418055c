"""The report's examples: slices with the outlines of truth and prediction."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oncoseg.report import words

TRUTH_COLOUR = "#56B4E9"
"""Reference outline, drawn solid."""

PREDICTION_COLOUR = "#F0A000"
"""Predicted outline, drawn dashed."""

TILE_INCHES = 2.4
"""Side of an example's picture."""

TILE_HEADING_INCHES = 0.8
"""Room for the titles above the rows of `overview` and the key below them."""

UPRIGHT: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center", "ma": "center", "fontsize": 10}
"""How the rows of `overview` are labelled."""

TILES = ("Image", "Truth", "Prediction", "Close-up")
"""What is shown of an example."""

TILE_DPI = 150
"""Resolution of the examples."""

CLOSE_UP_MARGIN = 1.0
"""Room around the truth in a close-up, as a share of its size."""

CLOSE_UP_SMALLEST = 24
"""Least side of a close-up in pixels of the source."""


def panel_tiles(panel: Mapping[str, Any]) -> list[dict[str, str]]:
    """An example as four pictures: image, truth, prediction, close-up (the paper's Fig. 5).

    Shown as radiologists look: the patient's right on the left, anterior at the top.

    Args:
        panel: `image`, `truth`, `prediction` (uint8, axes `i j`), `aspect` and words about them.
    """
    who = f"{words.group_name(panel['modality'])}, {words.ROLE_TITLES[panel['role']].lower()}"
    tiles = []
    for title in TILES:
        figure = Figure(figsize=(TILE_INCHES, TILE_INCHES), dpi=TILE_DPI, facecolor="black")
        _draw_tile(figure.add_axes((0, 0, 1, 1)), panel, title)
        source = "data:image/png;base64," + base64.b64encode(_png(figure, "black")).decode()
        tiles.append({"source": source, "title": title, "alt": f"{who}: {title.lower()}"})
    return tiles


def overview(panels: Sequence[Mapping[str, Any]], synthetic: bool) -> bytes:
    """The median patient of each modality as one PNG, a row each, for a slide.

    Args:
        panels: see `panel_tiles`; where a modality has no median, its best patient is shown.
        synthetic: whether phantoms are shown, which is then written below.
    """
    rows = {panel["modality"]: panel for panel in panels if panel["role"] == "best"}
    rows |= {panel["modality"]: panel for panel in panels if panel["role"] == "median"}
    size = (TILE_INCHES * len(TILES), TILE_INCHES * len(rows) + TILE_HEADING_INCHES)
    figure = Figure(figsize=size, dpi=TILE_DPI, layout="constrained")
    grid = figure.subplots(len(rows), len(TILES), squeeze=False)
    for axes_of_row, panel in zip(grid, rows.values(), strict=True):
        for axes, title in zip(axes_of_row, TILES, strict=True):
            _draw_tile(axes, panel, title)
        axes_of_row[0].text(-0.04, 0.5, _row_label(panel), transform=axes_of_row[0].transAxes, **UPRIGHT)
    for axes, title in zip(grid[0], TILES, strict=True):
        axes.set_title(title, loc="left", fontsize=11)
    keys = [
        Line2D([], [], color=TRUTH_COLOUR, linestyle="solid", linewidth=2, label="truth"),
        Line2D([], [], color=PREDICTION_COLOUR, linestyle="dashed", linewidth=2, label="prediction"),
    ]
    note = "synthetic phantoms, no patients" if synthetic else None
    figure.legend(handles=keys, title=note, loc="outside lower center", ncols=2, frameon=False)
    return _png(figure, "white")


def _row_label(panel: Mapping[str, Any]) -> str:
    role = words.ROLE_TITLES[panel["role"]].lower()
    return f"{words.group_name(panel['modality'])}, {role}\nDice {words.score(panel['patient_dice'])}"


def _draw_tile(axes: Axes, panel: Mapping[str, Any], title: str) -> None:
    image, truth, prediction = (panel[name].T[::-1, ::-1] for name in ("image", "truth", "prediction"))
    near, aspect = title == "Close-up", panel["aspect"]
    shown_truth = truth if near or title == "Truth" else None
    shown_prediction = prediction if near or title == "Prediction" else None
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="bilinear")
    if near:
        rows, columns = _close_up(truth if truth.any() else prediction)
        axes.set(xlim=(columns[0] - 0.5, columns[1] - 0.5), ylim=(rows[1] - 0.5, rows[0] - 0.5))
    else:
        _fill(axes, shown_truth, TRUTH_COLOUR, aspect)
        _fill(axes, shown_prediction, PREDICTION_COLOUR, aspect)
    _outline(axes, shown_truth, TRUTH_COLOUR, "solid")
    _outline(axes, shown_prediction, PREDICTION_COLOUR, "dashed")


def _png(figure: Figure, background: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=background)
    return file.getvalue()


def _fill(axes: Axes, mask: np.ndarray | None, colour: str, aspect: float) -> None:
    if mask is not None and mask.any():
        tint = np.zeros((*mask.shape, 4))
        tint[mask > 0] = matplotlib.colors.to_rgba(colour, 0.3)
        axes.imshow(tint, aspect=aspect, interpolation="nearest")


def _outline(axes: Axes, mask: np.ndarray | None, colour: str, style: str) -> None:
    if mask is None or not mask.any():
        return
    # a border of background closes outlines at the edge of the image
    padded = np.pad(mask, 1)
    places = [np.arange(-1, size + 1) for size in mask.shape]
    lines = axes.contour(places[1], places[0], padded, [0.5], colors=colour, linewidths=1.6, linestyles=style)
    lines.set_path_effects([patheffects.withStroke(linewidth=2.6, foreground="#00000090")])


def _close_up(mask: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """First and last row, first and last column around the mask: a square, all if it is empty."""
    if not mask.any():
        return (0, mask.shape[0]), (0, mask.shape[1])
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    size = max(span[-1] - span[0] + 1 for span in spans)
    side = min(max(size * (1 + CLOSE_UP_MARGIN), CLOSE_UP_SMALLEST), *mask.shape)
    starts = [(span[0] + span[-1] + 1 - side) / 2 for span in spans]
    inside = [min(max(start, 0), length - side) for start, length in zip(starts, mask.shape, strict=True)]
    return (inside[0], inside[0] + side), (inside[1], inside[1] + side)
