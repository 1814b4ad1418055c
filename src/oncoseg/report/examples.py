"""The report's examples: slices with the outlines of truth and prediction."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oncoseg.display import Letters
from oncoseg.evaluate.panels import Panel, View
from oncoseg.report import words
from oncoseg.report.contours import outlines

TRUTH_LINE: dict[str, Any] = {"color": "#56B4E9", "linestyle": "solid"}
"""Reference outline."""

PREDICTION_LINE: dict[str, Any] = {"color": "#F0A000", "linestyle": (0, (3.5, 3))}
"""Predicted outline: dashes, which tell it from the other one without colours, too."""

CLASS_COLOURS = (
    ("#2F8FDB", "#9EDCFF"),
    ("#E2560C", "#FFC46B"),
    ("#0CA678", "#8FF0CF"),
    ("#CF5CA6", "#FFB3E0"),
    ("#C9B400", "#FFF7A8"),
    ("#9AA3AB", "#F2F4F6"),
)
"""Of truth and prediction, where there are several classes: one hue each after Okabe and Ito, dark and light,
so that a dashed outline shows on the solid one below it. All further classes have the last."""

HALO = "#000000a0"
"""Behind lines and letters, so that they show on any ground."""

TILE_INCHES = 2.4
"""Side of an example's picture."""

TILE_HEADING_INCHES = 0.8
"""Room for the titles above the rows of `overview` and the key below them."""

TILE_DPI = 150
"""Resolution of the examples."""

UPRIGHT: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center", "ma": "center", "fontsize": 10}
"""How the rows of `overview` are labelled."""

IMAGE, CONTOURS, CLOSE_UP = "Image", "Truth and prediction", "Close-up"
"""What is shown of an example."""

CLOSE_UP_MARGIN = 1.0
"""Room around the truth (else the prediction) in a close-up, as a share of its size."""

CLOSE_UP_SMALLEST = 24
"""Least side of a close-up, in sides of the source's pixels (the shorter ones)."""

KEY_COLUMNS = 4
"""Most classes beside each other in the key of several."""

LONGEST_BAR = 0.3
"""Of the scale bar, as a share of the picture's width."""

LETTERING: dict[str, Any] = {"color": "white", "fontsize": 8, "fontweight": "bold"}
"""Of what is written into a picture."""

SIDES = (
    (0.02, 0.5, "left", "center"),
    (0.98, 0.5, "right", "center"),
    (0.5, 0.98, "center", "top"),
    (0.5, 0.02, "center", "bottom"),
)
"""Place and alignment of the letters at the left, right, top and bottom, as shares of the picture."""


class Tile(NamedTuple):
    """A picture as a data URI, its title and what it shows in words."""

    source: str
    title: str
    alt: str


class Example(NamedTuple):
    """A panel as the pages show it."""

    title: str
    caption: str
    note: str
    tiles: list[Tile]


def example(panel: Panel) -> Example:
    """Title, caption and pictures of a panel.

    Drawn as radiologists look: the patient's right on the left, anterior at the top.
    """
    title = words.panel_title(panel)
    tiles = []
    for name in _tile_names([panel.view]):
        figure = Figure(figsize=(TILE_INCHES, TILE_INCHES), dpi=TILE_DPI, facecolor="black")
        draw_tile(figure.add_axes((0, 0, 1, 1)), panel.view, name)
        source = "data:image/png;base64," + base64.b64encode(png_of(figure, "black")).decode()
        tiles.append(Tile(source, name, f"{title}, {panel.patient}: {name.lower()}"))
    return Example(title, words.panel_caption(panel), panel.view.note, tiles)


def overview(panels: Sequence[Panel], synthetic: bool) -> bytes:
    """The median patient of each modality and class as one PNG, a row each, for a slide.

    Args:
        panels: not empty; where there is no median, the best or only patient is shown.
        synthetic: whether phantoms are shown, which is then written below.
    """
    rows = {(panel.group, panel.label): panel for panel in panels}
    for role in ("best", "only", "median"):  # the last one that there is
        rows |= {(panel.group, panel.label): panel for panel in panels if role in panel.roles}
    names = _tile_names([panel.view for panel in rows.values()])
    size = (TILE_INCHES * len(names), TILE_INCHES * len(rows) + TILE_HEADING_INCHES)
    figure = Figure(figsize=size, dpi=TILE_DPI, layout="constrained")
    grid = figure.subplots(len(rows), len(names), squeeze=False)
    for axes_of_row, panel in zip(grid, rows.values(), strict=True):
        for axes, name in zip(axes_of_row, names, strict=True):
            draw_tile(axes, panel.view, name)
        first = axes_of_row[0]
        first.text(-0.04, 0.5, words.panel_row(panel), transform=first.transAxes, **UPRIGHT)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, loc="left", fontsize=11)
    add_key(figure, synthetic, [panel.view for panel in panels])
    return png_of(figure, "white")


class Key(NamedTuple):
    """What an outline means.

    Attributes:
        label: in words.
        colour: `#RRGGBB`.
        dashed: whether it is drawn in dashes, as predictions are.
    """

    label: str
    colour: str
    dashed: bool


def keys(views: Iterable[View]) -> list[Key]:
    """Of all outlines in some pictures: truth and prediction, of each class where there are several."""
    classes = max((view.classes for view in views), key=len, default=())
    return [
        Key(" ".join(filter(None, (name, what))), str(look["color"]), look["linestyle"] != "solid")
        for name, looks in zip(classes or ("",), _looks(classes), strict=True)
        for what, look in zip(("truth", "prediction"), looks, strict=True)
    ]


def add_key(figure: Figure, synthetic: bool, views: Iterable[View]) -> None:
    """Say below a figure which line is which, and whether phantoms are shown."""
    shown = keys(views)
    lines = [
        Line2D(
            [],
            [],
            color=key.colour,
            linestyle=PREDICTION_LINE["linestyle"] if key.dashed else "solid",
            linewidth=2,
            label=key.label,
            path_effects=_halo(3.5) if len(shown) > 2 else None,  # the lighter colours need a dark ground
        )
        for key in shown
    ]
    note = "synthetic phantoms, no patients" if synthetic else None
    # a column for each class: truth above its prediction; of one class both beside each other
    columns = 2 if len(lines) == 2 else min(len(lines) // 2, KEY_COLUMNS)
    figure.legend(handles=lines, title=note, loc="outside lower center", ncols=columns, frameon=False)


def _looks(classes: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of truth and prediction of each class."""
    if not classes:
        return [(TRUTH_LINE, PREDICTION_LINE)]
    last = len(CLASS_COLOURS) - 1
    colours = [CLASS_COLOURS[min(place, last)] for place in range(len(classes))]
    return [(TRUTH_LINE | {"color": dark}, PREDICTION_LINE | {"color": light}) for dark, light in colours]


def _tile_names(views: Iterable[View]) -> list[str]:
    """An image alone is worth a picture only where there is one."""
    return [IMAGE, CONTOURS, CLOSE_UP] if any(view.ground for view in views) else [CONTOURS, CLOSE_UP]


def draw_tile(axes: Axes, view: View, name: str) -> None:
    """Draw a slice as radiologists look; `name` is IMAGE, CONTOURS or CLOSE_UP."""
    image, truth, prediction = (_as_seen(each) for each in (view.image, view.truth, view.prediction))
    width, height = view.pixel_mm or (1.0, 1.0)
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=height / width, interpolation="bilinear")
    if name == CLOSE_UP:
        rows, columns = close_up(truth if truth.any() else prediction, height / width)
        axes.set(xlim=(columns[0] - 0.5, columns[1] - 0.5), ylim=(rows[1] - 0.5, rows[0] - 0.5))
    if name != IMAGE:
        # every truth below every prediction
        masks, looks = list(view.masks()), _looks(view.classes)
        for kind in (0, 1):
            for both, look in zip(masks, looks, strict=True):
                _outline(axes, _as_seen(both[kind]), look[kind])
    if view.letters is not None:
        _letters(axes, view.letters)
    if view.pixel_mm is not None:
        _scale_bar(axes, width)


def _as_seen(pixels: np.ndarray) -> np.ndarray:
    """Rows and columns, the patient's right on the left and anterior at the top."""
    return pixels.T[::-1, ::-1]


def png_of(figure: Figure, background: str) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=background)
    return file.getvalue()


def _outline(axes: Axes, mask: np.ndarray, look: Mapping[str, Any]) -> None:
    for line in outlines(mask):
        axes.plot(*line.T, **look, linewidth=1.4, path_effects=_halo(2.8))


def _halo(width: float) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=width, foreground=HALO)]


def _letters(axes: Axes, letters: Letters) -> None:
    for text, (x, y, ha, va) in zip(letters, SIDES, strict=True):
        axes.text(x, y, text, ha=ha, va=va, transform=axes.transAxes, **LETTERING, path_effects=_halo(2))


def _scale_bar(axes: Axes, pixel_width_mm: float) -> None:
    left, right = axes.get_xlim()
    length_mm = bar_length_mm((right - left) * pixel_width_mm)
    start = left + 0.04 * (right - left)
    x, place = [start, start + length_mm / pixel_width_mm], axes.get_xaxis_transform()
    axes.plot(x, [0.04, 0.04], color="white", linewidth=2, transform=place, path_effects=_halo(4))
    text = f"{length_mm / 10:g} cm" if length_mm >= 10 else f"{length_mm:g} mm"
    axes.text(start, 0.065, text, ha="left", va="bottom", transform=place, **LETTERING, path_effects=_halo(2))


def bar_length_mm(width_mm: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50, … mm that is at most LONGEST_BAR of a picture's width."""
    most = LONGEST_BAR * width_mm
    decade = 10.0 ** math.floor(math.log10(most))
    return max(step * decade for step in (1, 2, 5) if step * decade <= most)


def close_up(mask: np.ndarray, aspect: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """First and last row, first and last column around a mask: as high as wide; all where it is empty.

    Args:
        mask: bool, axes row and column.
        aspect: height of a pixel over its width.
    """
    if not mask.any():
        return (0, mask.shape[0]), (0, mask.shape[1])
    pixel = (aspect, 1.0)
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    size = max((span[-1] - span[0] + 1) * side for span, side in zip(spans, pixel, strict=True))
    side = max(size * (1 + CLOSE_UP_MARGIN), CLOSE_UP_SMALLEST * min(pixel))
    rows, columns = (
        _span((span[0] + span[-1] + 1) / 2, min(side / each, length), length)
        for span, each, length in zip(spans, pixel, mask.shape, strict=True)
    )
    return rows, columns


def _span(middle: float, size: float, length: int) -> tuple[float, float]:
    """A part of an axis around a place, moved so that it lies inside."""
    start = min(max(middle - size / 2, 0), length - size)
    return start, start + size
