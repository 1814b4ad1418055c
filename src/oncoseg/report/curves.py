"""The report's curves, each an SVG of its own, in colours that the colour-blind can tell apart."""

import base64
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oncoseg.datasets.folders import safe_id
from oncoseg.report import words

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
"""Okabe and Ito's colours for modalities and systems, in order of appearance."""

JITTER = 0.22
"""Vertical spread of the dots of the strip plot."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7ea",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#88929a",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "oncoseg",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
}
"""One look for all plots; text stays text."""


TITLE_LETTERS = 34
"""In a line of a title, which the narrowest plot (4.1 inches) has room for."""


class Curve(NamedTuple):
    """A drawn plot.

    Attributes:
        name: of its file, without ending.
        svg: the file's content.
        alt: what it shows, in words.
        broad: whether it needs the page's whole width to be read.
        caption: what stands above it on the page; empty where its title says enough.
    """

    name: str
    svg: bytes
    alt: str
    broad: bool = False
    caption: str = ""

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def learning_curves(log: Sequence[Mapping[str, Any]], modalities: Iterable[str]) -> list[Curve]:
    """Loss and Dice over epochs, one plot each per modality (the paper's Fig. 3), and the consistency loss.

    Args:
        log: rows of log.csv.
        modalities: in the order of the plots; those that the log does not have are left out.

    Returns:
        One plot per modality and quantity, and one of the consistency where there is any.
    """
    steps = list(dict.fromkeys((row["stage"], row["epoch"]) for row in log))
    plots = []
    for modality in modalities:
        rows = [row for row in log if row["modality"] == modality]
        if not rows:
            continue
        x = [steps.index((row["stage"], row["epoch"])) + 1 for row in rows]
        for quantity in ("loss", "dice"):
            plots.append(_learning_curve(modality, quantity, rows, x, steps))
    known = {place: row["consistency"] for place, row in _by_epoch(log).items() if _is_known(row)}
    return [*plots, _consistency_curve(known, steps)] if known else plots


def _by_epoch(log: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float], Mapping[str, Any]]:
    """(Stage, epoch) → one of its rows; those of the other modalities have the same consistency."""
    return {(row["stage"], row["epoch"]): row for row in log}


def _is_known(row: Mapping[str, Any]) -> bool:
    return not math.isnan(row.get("consistency", math.nan))


def _consistency_curve(known: Mapping[tuple[str, float], float], steps: list[tuple[str, float]]) -> Curve:
    """What scans without a mask gave, where they were learnt from."""
    x, values = [steps.index(place) + 1 for place in known], list(known.values())
    with drawing(3.9, 2.7) as (figure, axes):
        axes.plot(x, values, color=COLOURS[2], linestyle="-.", marker="^", markersize=3, label="training")
        _mark_stages(axes, steps)
        axes.set(xlabel="epoch (number)", ylabel="mean square (no unit)", title="Scans without a mask")
        axes.set_xlim(0.5, len(steps) + 0.5)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        ends = f"it begins at {values[0]:.2g} and ends at {values[-1]:.2g}"
        alt = f"Consistency loss of scans without a mask over {len(values)} epochs: {ends}."
        return Curve("learning-consistency", svg_of(figure), alt)


def _learning_curve(
    modality: str,
    quantity: str,
    rows: Sequence[Mapping[str, Any]],
    x: list[int],
    steps: list[tuple[str, float]],
) -> Curve:
    name = "Dice" if quantity == "dice" else "loss"
    train, validation = ([row[f"{side}_{quantity}"] for row in rows] for side in ("train", "validation"))
    with drawing(3.9, 2.7) as (figure, axes):
        axes.plot(x, train, color=COLOURS[0], linestyle="--", marker="o", markersize=3, label="training")
        axes.plot(x, validation, color=COLOURS[1], marker="s", markersize=3, label="validation")
        _mark_stages(axes, steps)
        axes.set(
            xlabel="epoch (number)",
            ylabel="Dice (0 to 1)" if quantity == "dice" else "loss (no unit)",
            title=f"{words.group_name(modality)}: {name}",
        )
        axes.set_xlim(0.5, len(steps) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if quantity == "dice":
            axes.set_ylim(0, 1)
        axes.legend(loc="best", fontsize=9)
        ends = f"training ends at {words.score(train[-1])}, validation at {words.score(validation[-1])}"
        alt = f"{words.group_name(modality)} {name} over {len(steps)} epochs: {ends}."
        return Curve(f"learning-{safe_id(modality)}-{quantity}", svg_of(figure), alt)


def _mark_stages(axes: Axes, steps: list[tuple[str, float]]) -> None:
    stages = [stage for stage, _ in steps]
    for index in range(1, len(stages)):
        if stages[index] != stages[index - 1]:
            axes.axvline(index + 0.5, color="#88929a", linestyle=":", linewidth=1)
            axes.text(
                index + 0.6, 0.02, f"{stages[index]} →", transform=axes.get_xaxis_transform(), fontsize=8
            )


def strip_plot(
    patients: Sequence[Mapping[str, Any]], scores: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Curve:
    """Dice of every patient, with mean and interval, one line per modality and class.

    Args:
        patients: rows of per_patient.csv.
        scores: modality and class (empty where there is one) → summary of Dice per patient.
    """
    titles = [words.class_title(*key) for key in scores]
    with drawing(6.4, 0.9 + 0.85 * len(titles)) as (figure, axes):
        for place, (key, colour) in enumerate(zip(scores, colours(titles), strict=True)):
            values = sorted(
                p["dice"]
                for p in patients
                if (p["modality"], p["class"]) == key and not math.isnan(p["dice"])
            )
            height = place + JITTER * np.array([-1, 0.33, -0.33, 1])[np.arange(len(values)) % 4]
            axes.scatter(values, height, s=26, color=colour, alpha=0.65, linewidths=0, zorder=2)
            mark_mean(axes, scores[key], place)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(titles) - 0.45, -0.55), xlabel="Dice of a patient (0 to 1)")
        axes.set_yticks(range(len(titles)), titles)
        axes.grid(visible=False, axis="y")
        means = "; ".join(
            f"{title} mean {words.score(found['mean'])}"
            for title, found in zip(titles, scores.values(), strict=True)
        )
        return Curve("patients", svg_of(figure), f"Dice of every patient as dots. {means}.")


def system_strips(
    file_name: str,
    title: str,
    values: Mapping[str, Sequence[float]],
    summaries: Mapping[str, Mapping[str, float | None]],
    share: bool,
) -> Curve:
    """One metric of every patient, with mean and interval, one line per system.

    Args:
        file_name: without ending; letters that do not belong into one are replaced.
        title: of the horizontal axis.
        values: system → one per patient; NaN where undefined, which is not drawn.
        summaries: system → mean, low and high.
        share: whether values lie between 0 and 1.
    """
    with drawing(6.4, 0.9 + 0.7 * len(values)) as (figure, axes):
        for place, (system, colour) in enumerate(zip(values, colours(list(values)), strict=True)):
            defined = np.sort([value for value in values[system] if not math.isnan(value)])
            height = place + JITTER * np.array([-1, 0.33, -0.33, 1])[np.arange(len(defined)) % 4]
            axes.scatter(defined, height, s=26, color=colour, alpha=0.65, linewidths=0, zorder=2)
            mark_mean(axes, summaries[system], place)
        axes.set(ylim=(len(values) - 0.45, -0.55), xlabel=title)
        if share:
            axes.set_xlim(-0.02, 1.02)
        axes.set_yticks(range(len(values)), list(values))
        axes.grid(visible=False, axis="y")
        means = "; ".join(
            f"{system} mean {words.score(found['mean'])}" for system, found in summaries.items()
        )
        return Curve(safe_id(file_name), svg_of(figure), f"{title}, as dots. {means}.")


def mark_mean(axes: Axes, dice: Mapping[str, Any], place: float) -> None:
    """Draw a mean as a diamond on its interval, at a height."""
    if dice["mean"] is None or math.isnan(dice["mean"]):
        return
    if dice["low"] is not None:
        axes.plot([dice["low"], dice["high"]], [place, place], color="black", linewidth=2.2, zorder=3)
    axes.plot(
        [dice["mean"]], [place], marker="D", color="white", markeredgecolor="black", markersize=8, zorder=4
    )


def wrapped(title: str) -> str:
    """A title in lines that fit over a plot of the smallest width."""
    return "\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, TITLE_LETTERS))


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one set of axes in the one look; sizes in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


@contextmanager
def drawing_pair(width: float, height: float, ratio: tuple[int, int]) -> Iterator[tuple[Figure, Axes, Axes]]:
    """A figure with two sets of axes below each other on one horizontal axis; `ratio` of their heights."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=ratio)
        yield figure, above, below


def svg_of(figure: Figure) -> bytes:
    """The figure as an SVG file without a date."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue()


def colours(groups: Sequence[str]) -> list[str]:
    """A colour for each group."""
    return [COLOURS[i % len(COLOURS)] for i in range(len(groups))]


def looks(groups: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and style of one line per group; the styles tell them apart in grey, too."""
    styles = ("-", "--", "-.", ":")
    return [
        {"color": colour, "linestyle": styles[i % len(styles)], "linewidth": 1.8}
        for i, colour in enumerate(colours(groups))
    ]
