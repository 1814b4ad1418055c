"""Box and dots per metric: how its values spread over patients."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from oncoseg.datasets.folders import safe_id
from oncoseg.evaluate.long_table import Row
from oncoseg.report import curves, words
from oncoseg.report.curves import COLOURS, JITTER, Curve, drawing
from oncoseg.statistics import SMALLEST_SAMPLE

Scale = Literal["share", "mm", "count", "value"]
"""Of the axis: from 0 to 1; millimetres, logarithmic from 1 on; whole numbers; anything else."""

WHISKER = 1.5
"""Whiskers end at the outermost value within this many heights of the box (Tukey 1977)."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, without their whole part, spread dots evenly whatever their number."""

MOST_VECTOR_DOTS = 2_000
"""With more dots they are drawn as pixels: an SVG of so many is slow to show."""

DISTANCES_MM = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
"""What is written at the axis of millimetres."""


def boxes(name: str, title: str, values: Mapping[str, Sequence[Row]], scale: Scale) -> Curve:
    """A box and one dot per patient for each metric, with a cross where a rule decided the value.

    The box holds the middle half, the line in it is the median, whiskers end within 1.5 boxes. Fewer
    than SMALLEST_SAMPLE values have no box.

    Args:
        name: of the file, without ending.
        title: of the horizontal axis, with the unit.
        values: metric → one row per patient, one defined at least; the undefined are counted beside its
            name, which a single count or value does not need.
        scale: of the horizontal axis.
    """
    broad = scale in ("share", "mm")
    vector = sum(map(len, values.values())) <= MOST_VECTOR_DOTS
    with drawing(7.2 if broad else 4.1, 0.9 + 0.42 * len(values)) as (figure, axes):
        for place, rows in enumerate(values.values()):
            defined = sorted((row for row in rows if not math.isnan(row.value)), key=lambda row: row.value)
            if len(defined) >= SMALLEST_SAMPLE:
                _box(axes, np.array([row.value for row in defined]), place)
            _dots(axes, defined, place, rasterized=not vector)
        names = [_with_undefined(*each) for each in values.items()]
        axes.set(ylim=(len(values) - 0.45, -0.55), xlabel=title)
        axes.set_yticks(range(len(values)), names if broad else [""] * len(names))
        axes.tick_params(axis="y", length=3 if broad else 0)
        axes.grid(visible=False, axis="y")
        _set_scale(axes, scale)
        alt = f"{title}, as boxes and dots. Medians: {_medians(values)}."
        return Curve(safe_id(name), curves.svg_of(figure), alt, broad)


def _with_undefined(metric: str, rows: Sequence[Row]) -> str:
    undefined = sum(math.isnan(row.value) for row in rows)
    return f"{metric} ({undefined} undefined)" if undefined else metric


def _medians(values: Mapping[str, Sequence[Row]]) -> str:
    return "; ".join(
        f"{metric} {words.score(float(np.nanmedian([row.value for row in rows])))}"
        for metric, rows in values.items()
    )


def _box(axes: Axes, ascending: np.ndarray, place: float) -> None:
    low, middle, high = np.quantile(ascending, (0.25, 0.5, 0.75))
    reach = WHISKER * (high - low)
    ends = ascending[(ascending >= low - reach) & (ascending <= high + reach)][[0, -1]]
    axes.add_patch(Rectangle((low, place - 0.32), high - low, 0.64, facecolor="#e9eef2", edgecolor="black"))
    for end, edge in zip(ends, (low, high), strict=True):
        axes.plot([end, edge], [place, place], color="black", linewidth=1)
        axes.plot([end, end], [place - 0.16, place + 0.16], color="black", linewidth=1)
    axes.plot([middle, middle], [place - 0.32, place + 0.32], color="black", linewidth=2.4)


def _dots(axes: Axes, ascending: Sequence[Row], place: float, rasterized: bool) -> None:
    heights = place + JITTER * (2 * ((GOLDEN * np.arange(len(ascending)) + 0.5) % 1) - 1)
    values = np.array([row.value for row in ascending])
    ruled = np.array([bool(row.rule) for row in ascending])
    look: dict[str, Any] = {"zorder": 5, "rasterized": rasterized}
    axes.scatter(values[~ruled], heights[~ruled], s=18, color=COLOURS[0], alpha=0.6, linewidths=0, **look)
    axes.scatter(values[ruled], heights[ruled], s=22, color=COLOURS[1], marker="x", linewidths=1.2, **look)


def _set_scale(axes: Axes, scale: Scale) -> None:
    if scale == "share":
        axes.set_xlim(-0.02, 1.02)
    elif scale == "mm":
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.4)
        shown = [tick for tick in DISTANCES_MM if tick <= axes.get_xlim()[1]]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(left=-0.1)
    elif axes.dataLim.width == 0:
        axes.set_xlim(axes.dataLim.x0 - 1, axes.dataLim.x1 + 1)
    if scale == "count":  # nothing is found less than no times
        axes.set_xlim(left=max(axes.get_xlim()[0], -0.05 * axes.get_xlim()[1]))
    if scale in ("count", "value"):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=scale == "count"))
