"""What a page shows of each modality and class: every metric, how it spreads, and the curves."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.datasets.folders import safe_id
from oncoseg.evaluate import long_table
from oncoseg.evaluate.long_table import Row
from oncoseg.evaluate.summary_tables import interval_kinds
from oncoseg.metrics.catalogue import METRICS
from oncoseg.report import captions, matrices, operating, words
from oncoseg.report.boxes import Scale, boxes
from oncoseg.report.curves import Curve
from oncoseg.report.distributions import Volumes, bland_altman, histogram
from oncoseg.statistics import SMALLEST_SAMPLE, rough_sentence

HISTOGRAMS = ("dice", "surface_dice", "lesion_f1")
"""Metrics whose histogram is drawn."""

LISTED = ("dice", "precision", "recall", "surface_dice", "hd95_max_mm", "volume_difference_ml", "lesion_f1")
"""Metrics in the list of patients."""

AXES: dict[str, tuple[Scale, str, str]] = {
    "share": ("share", "score (0 to 1)", "Metrics between 0 and 1; what each means stands at the end."),
    "mm": ("mm", "distance (mm)", "Distances; the axis is logarithmic from 1 mm on."),
}
"""Axes that several metrics share: scale, title, and what stands above."""


class Origin(NamedTuple):
    """Where the masks come from, as far as plots have to know.

    Attributes:
        absent: cases without a prediction that can be used.
        readers: whether truth and prediction are both readers'.
    """

    absent: Collection[str] = ()
    readers: bool = False


NO_ORIGIN = Origin()
"""Predictions of a run: all are there."""


class Figure(NamedTuple):
    """Plots that belong together, and the sentences below them."""

    title: str
    plots: list[Curve]
    caption: list[str]


class Part(NamedTuple):
    """One modality and class.

    Attributes:
        group: the modality, or empty.
        label: the class.
        name: of its files.
        title: for people.
        table: rows of the summary: metric, mean, median, intervals, rules.
        figures: in the order of the page.
        numbers: what was read off the curves, with intervals: (name, estimate).
        patients: patient → metric of LISTED → row, worst Dice first.
        intervals: how those of the table were made.
        caution: that intervals are rough; empty where they are not.
    """

    group: str
    label: str
    name: str
    title: str
    table: list[dict[str, Any]]
    figures: list[Figure]
    numbers: list[tuple[str, dict[str, Any]]]
    patients: dict[str, dict[str, Row]]
    intervals: str
    caution: str


def read_parts(
    folder: Path,
    table: Sequence[dict[str, Any]],
    described: Sequence[dict[str, Any]],
    origin: Origin = NO_ORIGIN,
) -> list[Part]:
    """Put together what an evaluation folder holds.

    Args:
        folder: with the tables that `evaluate.summary.write` left.
        table: rows of its summary.
        described: the parts of its curves.json.
        origin: of the masks.

    Raises:
        DataError: it lacks its tables.
    """
    rows, counts = long_table.read(folder), long_table.read_counts(folder)
    parts = {(part["group"], part["class"]): part for part in described}
    return [
        _part(
            group,
            label,
            [row for row in table if (row["group"], row["class"]) == (group, label)],
            [row for row in rows if (row.group, row.label) == (group, label)],
            [row for row in counts if (row["group"], row["class"]) == (group, label)],
            parts[group, label],
            origin,
        )
        for group, label in dict.fromkeys((row.group, row.label) for row in rows)
    ]


def plots_of(parts: Sequence[Part]) -> Iterator[Curve]:
    """Every plot of the parts."""
    return (plot for part in parts for figure in part.figures for plot in figure.plots)


def title_of(group: str, label: str) -> str:
    """What a modality and class are called."""
    return " ".join(filter(None, (words.group_name(group) if group else "", label)))


def _part(
    group: str,
    label: str,
    table: list[dict[str, Any]],
    rows: list[Row],
    counts: list[dict[str, str]],
    described: Mapping[str, Any],
    origin: Origin,
) -> Part:
    of_metric: dict[str, dict[str, Row]] = {}
    for row in rows:
        of_metric.setdefault(row.metric, {})[row.patient] = row
    name, title = safe_id("-".join(filter(None, (group, label)))), title_of(group, label)
    spread = [*_boxes(name, of_metric), *_histograms(name, of_metric), *_volumes(name, counts, origin)]
    figures = [
        Figure("How patients spread", spread, captions.of_spread(rows)),
        *_curves(name, title, described),
    ]
    patients = sorted(of_metric["dice"], key=lambda patient: _worst_first(of_metric["dice"][patient].value))
    listed = {patient: {m: of_metric[m][patient] for m in LISTED} for patient in patients}
    caution = rough_sentence(row["n"] for row in table if row["low"] is not None)
    return Part(
        group,
        label,
        name,
        title,
        table,
        figures,
        list(_numbers(described)),
        listed,
        interval_kinds(table),
        caution,
    )


def _curves(name: str, title: str, described: Mapping[str, Any]) -> Iterator[Figure]:
    one = {title: described}
    ranked = [operating.roc(f"roc-{name}", one), operating.precision_recall(f"precision-recall-{name}", one)]
    matrix = matrices.of_voxels(f"confusion-{name}", described["voxels"])
    reliability = operating.reliability(f"reliability-{name}", described)
    voxels = [plot for plot in (*ranked, reliability, matrix) if plot is not None]
    yield Figure("Voxels of all patients together", voxels, captions.of_voxels(described))
    if described["maps"] is not None:
        froc = operating.froc(f"froc-{name}", described)
        yield Figure("Lesions", [froc] if froc else [], captions.of_lesions(described))
    if described["detection"] is not None:
        matrix = matrices.of_patients(f"detection-{name}", described["detection"])
        yield Figure("Patients with and without tumour", [matrix], captions.of_detection(described))


def _boxes(name: str, of_metric: Mapping[str, Mapping[str, Row]]) -> Iterator[Curve]:
    """Shares together, millimetres together, and each other metric alone."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for metric, of_patient in of_metric.items():
        if any(not math.isnan(row.value) for row in of_patient.values()):
            groups.setdefault(_axis(metric), {})[metric] = list(of_patient.values())
    for axis, values in sorted(groups.items(), key=lambda group: group[0] not in AXES):
        scale, title, caption = AXES.get(axis) or _alone(axis)
        yield boxes(f"spread-{name}-{axis}", title, values, scale)._replace(caption=caption)


def _axis(metric: str) -> str:
    unit = METRICS[metric].unit
    return unit if unit == "mm" else "share" if not unit and metric not in words.UNITS_OF_SHARES else metric


def _alone(metric: str) -> tuple[Scale, str, str]:
    """Scale, title and caption of an axis for one metric."""
    scale: Scale = "count" if METRICS[metric].unit == "lesions" else "value"
    return scale, words.axis_title(metric), f"{metric}: {METRICS[metric].definition}"


def _histograms(name: str, of_metric: Mapping[str, Mapping[str, Row]]) -> Iterator[Curve]:
    for metric in HISTOGRAMS:
        values = [row.value for row in of_metric.get(metric, {}).values()]
        if sum(not math.isnan(value) for value in values) >= SMALLEST_SAMPLE:
            yield histogram(f"histogram-{name}-{metric}", metric, values)


def _volumes(name: str, counts: list[dict[str, str]], origin: Origin) -> Iterator[Curve]:
    known = [row for row in counts if row["true_ml"]]
    if known:
        volumes = [
            Volumes(
                row["patient"],
                float(row["true_ml"]),
                float(row["predicted_ml"]),
                row["case"] in origin.absent,
            )
            for row in known
        ]
        yield bland_altman(f"volumes-{name}", volumes, origin.readers)


def _worst_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _numbers(described: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was read off the curves and matrices."""
    voxels, detection = described["voxels"], described["detection"]
    for name in ("recall", "specificity", "precision"):
        yield f"voxels: {name}", voxels[name]
    if described.get("roc"):
        yield "voxels: area under the ROC curve", described["roc"]["auc"]
        yield "voxels: average precision", described["precision_recall"]["average_precision"]
    if described.get("reliability"):
        yield "voxels: Brier score", described["reliability"]["brier"]
        yield "voxels: expected calibration error", described["reliability"]["calibration_error"]
    if described.get("froc"):
        for point in described["froc"]["points"]:
            rate = point["false_positives_per_case"]
            yield f"lesions: share found at {words.fraction(rate)} false positives per case", point
        yield "lesions: mean of these, LUNA16's score", described["froc"]["score"]
    if detection is not None:
        yield "patients with tumour in whom some is marked", detection["sensitivity"]
        yield "patients without tumour in whom nothing is marked", detection["specificity"]
