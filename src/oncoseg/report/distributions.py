"""Plots of how values spread over patients: histogram and Bland–Altman."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from oncoseg.datasets.folders import safe_id
from oncoseg.report.curves import COLOURS, Curve, drawing, svg_of

BINS = 20
"""Of the histogram of a score between 0 and 1."""

SMALLEST_FOR_LIMITS = 10
"""With fewer cases no limits of agreement are drawn: they rest on a standard deviation."""

NORMAL_95 = 1.96
"""Standard deviations to either side that hold 95 % of a normal distribution."""


def histogram(name: str, title: str, values: Sequence[float]) -> Curve:
    """How many patients have which score.

    Args:
        name: of the file, without ending.
        title: of the horizontal axis.
        values: in [0, 1]; NaN is left out and counted in the title.
    """
    defined = [value for value in values if not math.isnan(value)]
    left_out = f" ({len(values) - len(defined)} undefined)" if len(defined) < len(values) else ""
    with drawing(4.1, 2.7) as (figure, axes):
        axes.hist(defined, bins=BINS, range=(0, 1), color=COLOURS[0])
        axes.set(xlim=(0, 1), xlabel=title + left_out, ylabel="patients")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return Curve(safe_id(name), svg_of(figure), f"Histogram of {title} over {len(defined)} patients.")


def volumes_in_words(true_ml: Sequence[float], predicted_ml: Sequence[float]) -> str:
    """Mean difference and limits of agreement, each with its 95 % interval, or why there is none.

    Standard errors as in Bland and Altman, Lancet 1986: s / √n of the mean difference, √3 times as much of a
    limit; quantiles of Student's t.

    Args:
        true_ml: one per case.
        predicted_ml: likewise.
    """
    difference = np.array(predicted_ml) - np.array(true_ml)
    n, bias = len(difference), float(difference.mean())
    if n < SMALLEST_FOR_LIMITS:
        return (
            f"Volumes: predicted minus true is {bias:+.2f} ml in the mean of {n} cases. Limits of agreement "
            f"rest on a standard deviation and are not given of fewer than {SMALLEST_FOR_LIMITS}."
        )
    from scipy.stats import t

    sd = float(difference.std(ddof=1))
    reach = float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    bounds = [(bias, reach)] + [(bias + side * NORMAL_95 * sd, math.sqrt(3) * reach) for side in (-1, 1)]
    mean, low, high = (f"{x:+.2f} [{x - around:+.2f}, {x + around:+.2f}]" for x, around in bounds)
    return (
        f"Volumes: predicted minus true is {mean} ml in the mean of {n} cases, limits of agreement {low} and "
        f"{high}."
    )


def bland_altman(name: str, true_ml: Sequence[float], predicted_ml: Sequence[float]) -> Curve:
    """Difference of predicted and true volume over their mean, with the mean difference and its limits.

    Bland and Altman, Lancet 1986: 95 % limits of agreement are the mean difference ± 1.96 standard
    deviations, if differences are normally distributed and do not depend on size.

    Args:
        name: of the file, without ending.
        true_ml: one per case.
        predicted_ml: likewise.
    """
    true, predicted = np.array(true_ml), np.array(predicted_ml)
    middle, difference = (true + predicted) / 2, predicted - true
    bias = float(difference.mean())
    lines = {f"mean {bias:+.2f}": bias}
    if len(difference) >= SMALLEST_FOR_LIMITS:
        reach = NORMAL_95 * float(difference.std(ddof=1))
        lines |= {f"95 % limit {bias + side * reach:+.2f}": bias + side * reach for side in (1, -1)}
    with drawing(4.1, 3.2) as (figure, axes):
        axes.scatter(middle, difference, s=26, color=COLOURS[0], alpha=0.65, linewidths=0, zorder=2)
        for (label, height), style in zip(lines.items(), ("-", "--", "--"), strict=False):
            axes.axhline(height, color="black", linestyle=style, linewidth=1.2, zorder=1)
            axes.annotate(
                label, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9
            )
        axes.set(xlabel="mean of true and predicted volume (ml)", ylabel="predicted − true (ml)")
        words = "; ".join(f"{label} ml" for label in lines)
        return Curve(safe_id(name), svg_of(figure), f"Bland–Altman plot of {len(true)} volumes: {words}.")
