"""What a probability map does at every threshold: ROC, precision–recall, FROC, and the reliability curve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from oncoseg.metrics.froc import LUNA16_FALSE_POSITIVES
from oncoseg.report import curves, words
from oncoseg.report.curves import COLOURS, Curve, drawing, drawing_pair

Parts = Mapping[str, Mapping[str, Any]]
"""Title → what `evaluate.curves.describe` says of a class; one line each."""

BAND_OPACITY = 0.18
"""Of the intervals around curves."""

FALSE_RATE = "false positive rate (share of background voxels)"
RECALL = "recall (share of tumour voxels)"
PRECISION = "precision (share of marked voxels)"
SHARE = "share that is tumour (0 to 1)"
"""Titles of the axes, with what stands for a unit."""

CHANCE: dict[str, Any] = {"color": "#88929a", "linestyle": ":", "linewidth": 1.2}
"""How the line of a useless (or, of reliability, a perfect) prediction is drawn."""


def roc(name: str, parts: Parts) -> Curve | None:
    """ROC curves over voxels with their bands; a dot for the mask. None where no part has one."""
    drawn = {title: part["roc"] for title, part in parts.items() if part.get("roc")}
    if not drawn:
        return None
    with drawing(4.1, 3.9) as (figure, axes):
        axes.plot([0, 1], [0, 1], **CHANCE, label="chance")
        for (title, curve), look in zip(drawn.items(), curves.looks(list(drawn)), strict=True):
            x, y = curve["false_positive_rate"], curve["recall"]["value"]
            axes.plot([0, *x], [0, *y], **look, label=f"{title}: {words.estimate(curve['auc'])}")
            _band(axes, x, curve["recall"], look["color"])
            _dot(axes, curve["mask"], look["color"])
        _unit_square(axes, FALSE_RATE, RECALL, _title("ROC over voxels", *parts.values()))
        axes.legend(title="area under the curve", loc="lower right", fontsize=9, title_fontsize=9)
        areas = "; ".join(f"{title} {words.estimate(curve['auc'])}" for title, curve in drawn.items())
        alt = f"ROC curve over voxels, recall over false positive rate. Area under the curve: {areas}."
        return Curve(name, curves.svg_of(figure), alt)


def precision_recall(name: str, parts: Parts) -> Curve | None:
    """Precision–recall curves over voxels with their bands; a dot for the mask. None where there is none."""
    drawn = {title: part["precision_recall"] for title, part in parts.items() if part.get("precision_recall")}
    if not drawn:
        return None
    with drawing(4.1, 3.9) as (figure, axes):
        for (title, curve), look in zip(drawn.items(), curves.looks(list(drawn)), strict=True):
            x, y = curve["recall"], curve["precision"]["value"]
            label = f"{title}: {words.estimate(curve['average_precision'])}"
            axes.plot(x, y, **look, label=label)
            _band(axes, x, curve["precision"], look["color"])
            axes.axhline(curve["chance"], **CHANCE)
            _dot(axes, curve["mask"], look["color"])
        _unit_square(axes, RECALL, PRECISION, _title("Precision–recall over voxels", *parts.values()))
        axes.legend(title="average precision", loc="best", fontsize=9, title_fontsize=9)
        means = "; ".join(
            f"{title} {words.estimate(curve['average_precision'])}, by chance {curve['chance']:.2g}"
            for title, curve in drawn.items()
        )
        alt = f"Precision–recall curve over voxels. Average precision: {means}."
        return Curve(name, curves.svg_of(figure), alt)


def froc(name: str, part: Mapping[str, Any]) -> Curve | None:
    """The FROC curve of lesions, with LUNA16's points and the curve's band. None where there is none."""
    if not part.get("froc"):
        return None
    curve, colour = part["froc"], COLOURS[0]
    with drawing(4.6, 3.6) as (figure, axes):
        axes.plot(curve["false_positives_per_case"], curve["sensitivity"]["value"], color=colour)
        _band(axes, curve["false_positives_per_case"], curve["sensitivity"], colour)
        points = [(p["false_positives_per_case"], p["value"]) for p in curve["points"]]
        if all(value is not None for _, value in points):
            axes.plot(*zip(*points, strict=True), linestyle="", marker="o", color=colour)
        axes.set_xscale("log", base=2)
        axes.set_xticks(LUNA16_FALSE_POSITIVES, map(words.fraction, LUNA16_FALSE_POSITIVES))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(
            xlabel="false positive lesions per case (number)", ylabel="share of true lesions found (0 to 1)"
        )
        axes.set(ylim=(-0.02, 1.02), title=_title("FROC of lesions", part, why="lesions_not_comparable"))
        readings = ", ".join(
            f"{words.estimate(p)} at {p['false_positives_per_case']:g}" for p in curve["points"]
        )
        alt = (
            f"FROC curve of {curve['lesions']} lesions. Sensitivity by false positives per case: {readings}."
        )
        return Curve(name, curves.svg_of(figure), alt)


def reliability(name: str, part: Mapping[str, Any]) -> Curve | None:
    """Observed share of tumour over predicted probability, and voxels per bin. None where there is none."""
    if not part.get("reliability"):
        return None
    curve, colour = part["reliability"], COLOURS[0]
    x, y, low, high = (
        np.array(values, float)
        for values in (
            curve["mean_probability"],
            curve["observed_share"]["value"],
            curve["observed_share"]["low"] or curve["observed_share"]["value"],
            curve["observed_share"]["high"] or curve["observed_share"]["value"],
        )
    )
    filled = ~np.isnan(x)
    with drawing_pair(4.1, 4.3, (3, 1)) as (figure, axes, below):
        axes.plot([0, 1], [0, 1], **CHANCE, label="perfect")
        reach = np.stack([y - low, high - y])[:, filled]
        axes.errorbar(
            x[filled], y[filled], reach, color=colour, marker="o", markersize=5, capsize=3, linewidth=1.4
        )
        _unit_square(axes, "", SHARE, _title("Reliability over voxels", part))
        edges = np.linspace(0, 1, len(x) + 1)
        below.bar(edges[:-1], curve["voxels"], width=1 / len(x), align="edge", color="#b8c2ca", edgecolor="w")
        axes.legend(loc="upper left", fontsize=9)
        below.set_yscale("log")
        below.set(xlabel="predicted probability (0 to 1)", ylabel="voxels (number)", xlim=(-0.02, 1.02))
        pairs = ", ".join(f"{a:.2f} → {b:.2f}" for a, b in zip(x[filled], y[filled], strict=True))
        alt = f"Reliability curve, predicted probability → share that is tumour, by bin: {pairs}."
        return Curve(name, curves.svg_of(figure), alt)


def _title(title: str, *parts: Mapping[str, Any], why: str = "not_comparable") -> str:
    """The title, and below it what is missing where it makes curves of no use for a comparison."""
    missing = dict.fromkeys(filter(None, ((part.get("maps") or {}).get(why) for part in parts)))
    return curves.wrapped("\n".join([title, *missing]))


def _unit_square(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _band(axes: Axes, x: list[float], curve: Mapping[str, Any], colour: str) -> None:
    if curve["low"] is not None:
        low, high = (np.array(curve[end], float) for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)


def _dot(axes: Axes, place: list[Any], colour: str) -> None:
    if None not in place:
        axes.plot(*place, marker="o", color=colour, markeredgecolor="white", markersize=8, zorder=5)
