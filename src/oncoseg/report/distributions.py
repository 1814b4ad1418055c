"""Plots of how values spread over patients: histogram and Bland–Altman."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from oncoseg.comparisons.agreement_limits import SMALLEST_FOR_LIMITS, Limits, limits_of_agreement
from oncoseg.datasets.folders import safe_id
from oncoseg.report import curves, words
from oncoseg.report.curves import COLOURS, Curve, drawing
from oncoseg.statistics import Estimate

BINS = 20
"""Of the histogram of a score between 0 and 1."""


class Volumes(NamedTuple):
    """True and predicted volume of one case.

    Attributes:
        patient: whose case it is.
        true_ml: in the truth.
        predicted_ml: in the prediction.
        absent: whether there is no prediction that can be used, so that it counts as empty.
    """

    patient: str
    true_ml: float
    predicted_ml: float
    absent: bool = False


def histogram(name: str, metric: str, values: Sequence[float]) -> Curve:
    """How many patients have which score.

    Args:
        name: of the file, without ending.
        metric: what the values are of.
        values: in [0, 1]; NaN is left out and counted.
    """
    defined = [value for value in values if not math.isnan(value)]
    undefined = len(values) - len(defined)
    left_out = f", {undefined} undefined" if undefined else ""
    with drawing(4.1, 2.7) as (figure, axes):
        axes.hist(defined, bins=BINS, range=(0, 1), color=COLOURS[0])
        axes.set(xlim=(0, 1), xlabel=words.axis_title(metric), ylabel="number of patients")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        caption = f"Histogram of {metric} over {words.patients(len(defined))}{left_out}."
        return Curve(safe_id(name), curves.svg_of(figure), caption, caption=caption)


def volumes_of_readers(limits: Limits) -> str:
    """Limits of agreement of readers; without intervals, as a mask has part in several comparisons."""
    of = f"{words.counted(limits.cases, 'comparison')} of {words.patients(limits.patients)}"
    said = f"Volumes of readers, prediction minus truth, in {of}: mean {_plain(limits.mean.value)} ml, "
    if limits.lower is None or limits.upper is None:
        return f"{said}no limits of agreement, from fewer than {SMALLEST_FOR_LIMITS} patients."
    return (
        f"{said}limits of agreement {_plain(limits.lower.value)} and {_plain(limits.upper.value)} ml, which "
        "are to hold 95 % of the differences if these are about normal and do not grow with the volume. "
        "No intervals: the comparisons of a patient share masks."
    )


def volumes_in_words(cases: Sequence[Volumes], limits: Limits) -> str:
    """Mean difference and limits of agreement, each with its 95 % interval, and how they were made.

    Args:
        cases: what the limits are of.
        limits: of predicted minus true volume.
    """
    of = f"{words.cases(limits.cases)} of {words.patients(limits.patients)}"
    said = f"Volumes: predicted minus true is {_signed(limits.mean)} ml in the mean of {of}"
    if limits.lower is None or limits.upper is None:
        return (
            f"{said}. Limits of agreement rest on a standard deviation and are not given of fewer than "
            f"{SMALLEST_FOR_LIMITS} patients.{_absent(cases)}"
        )
    several = limits.cases > limits.patients
    how = (
        "Cases of one patient are not independent: the limits add the variance between patients to that "
        "within them (Bland and Altman 2007)."
        if several
        else "Made as by Bland and Altman (1999)."
    )
    return (
        f"{said}; limits of agreement {_signed(limits.lower)} and {_signed(limits.upper)} ml. They are to "
        "hold 95 % of single cases, if differences are about normal and do not grow with the volume; "
        f"intervals by Student's t over patients. {how}{_absent(cases)}"
    )


def bland_altman(name: str, cases: Sequence[Volumes], readers: bool = False) -> Curve:
    """Difference of predicted and true volume over their mean, with the mean difference and its limits.

    Args:
        name: of the file, without ending.
        cases: one dot each, a cross where there is no prediction.
        readers: whether they are comparisons of readers.
    """
    true, predicted, absent = (np.array([case[field] for case in cases]) for field in (1, 2, 3))
    middle, difference = (true + predicted) / 2, predicted - true
    limits = limits_of_agreement(difference.tolist(), [case.patient for case in cases])
    lines = {f"mean {_plain(limits.mean.value)}": limits.mean.value} | {
        f"95 % limit {_plain(limit.value)}": limit.value
        for limit in (limits.upper, limits.lower)
        if limit is not None
    }
    with drawing(4.1, 3.2) as (figure, axes):
        axes.scatter(
            middle[~absent], difference[~absent], s=26, color=COLOURS[0], alpha=0.65, linewidths=0, zorder=2
        )
        axes.scatter(middle[absent], difference[absent], s=26, color=COLOURS[1], marker="x", zorder=2)
        for (label, height), style in zip(lines.items(), ("-", "--", "--"), strict=False):
            axes.axhline(height, color="black", linestyle=style, linewidth=1.2, zorder=1)
            axes.annotate(
                label, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9
            )
        axes.set(xlabel="mean of true and predicted volume (ml)", ylabel="predicted − true volume (ml)")
        said = "; ".join(f"{label} ml" for label in lines)
        return Curve(
            safe_id(name),
            curves.svg_of(figure),
            f"Bland–Altman plot of {len(cases)} volumes: {said}.",
            caption=volumes_of_readers(limits) if readers else volumes_in_words(cases, limits),
        )


def _absent(cases: Sequence[Volumes]) -> str:
    absent = sum(case.absent for case in cases)
    if not absent:
        return ""
    return f" A cross is a missing prediction, which counts as an empty one ({words.cases(absent)})."


def _signed(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _plain(estimate.value)
    return f"{_plain(estimate.value)} [{_plain(estimate.low)}, {_plain(estimate.high)}]"


def _plain(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
