"""The page of an evaluation of masks: every metric with its interval, how it spreads, and what was ruled."""

import json
import math
from pathlib import Path
from typing import Any

from oncoseg.evaluate import long_table
from oncoseg.evaluate.panels import Panel, read_panels
from oncoseg.evaluate.pictures import MOST_CLASSES
from oncoseg.files import write_bytes, write_text
from oncoseg.metrics.catalogue import SITUATIONS
from oncoseg.report import examples, pages
from oncoseg.report.curves import Curve
from oncoseg.report.distributions import bland_altman, histogram

SHOWN = ("dice", "surface_dice", "lesion_f1")
"""Metrics whose histogram is drawn."""

LISTED = ("dice", "precision", "recall", "surface_dice", "hd95_max_mm", "volume_difference_ml", "lesion_f1")
"""Metrics in the list of patients."""


def write_evaluation(folder: Path) -> Path:
    """Write FOLDER/index.html from what `evaluate_masks` left there, its plots as SVG, a picture as PNG.

    Returns:
        The page's path. It needs no other file and no network.

    Raises:
        DataError: the folder lacks its tables.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows, counts = long_table.read(folder), long_table.read_counts(folder)
    panels = read_panels(folder, summary.get("panels", []))
    parts = [
        _part(group, label, rows, counts, summary) | {"examples": _examples(group, label, panels)}
        for group, label in _parts(rows)
    ]
    for part in parts:
        for plot in part["plots"]:
            write_bytes(folder / f"{plot.name}.svg", plot.svg)
    if panels:
        write_bytes(folder / "examples.png", examples.overview(panels, summary["synthetic"]))
    path = folder / "index.html"
    write_text(
        path,
        pages.render(
            "evaluation.html.jinja",
            summary=summary,
            synthetic=summary["synthetic"],
            parts=parts,
            situations=SITUATIONS,
            listed=LISTED,
            most_classes=MOST_CLASSES,
        ),
    )
    return path


def _parts(rows: list[long_table.Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.group, row.label) for row in rows))


def _part(
    group: str,
    label: str,
    rows: list[long_table.Row],
    counts: list[dict[str, str]],
    summary: dict[str, Any],
) -> dict[str, Any]:
    of_metric: dict[str, dict[str, long_table.Row]] = {}
    for row in rows:
        if (row.group, row.label) == (group, label):
            of_metric.setdefault(row.metric, {})[row.patient] = row
    name = "-".join(filter(None, (group, label)))
    plots = [
        histogram(f"histogram-{name}-{metric}", metric, [row.value for row in of_metric[metric].values()])
        for metric in SHOWN
        if any(not math.isnan(row.value) for row in of_metric.get(metric, {}).values())
    ]
    patients = sorted(of_metric["dice"], key=lambda patient: _worst_first(of_metric["dice"][patient].value))
    return {
        "title": " ".join(filter(None, (group, label))),
        "table": [row for row in summary["table"] if (row["group"], row["class"]) == (group, label)],
        "plots": plots + _volumes(name, group, label, counts),
        "patients": [
            {"patient": patient, "rows": {m: of_metric[m][patient] for m in LISTED}} for patient in patients
        ],
    }


def _examples(group: str, label: str, panels: list[Panel]) -> list[examples.Example]:
    return [examples.example(panel) for panel in panels if (panel.group, panel.label) == (group, label)]


def _worst_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _volumes(name: str, group: str, label: str, counts: list[dict[str, str]]) -> list[Curve]:
    volumes = [
        (float(row["true_ml"]), float(row["predicted_ml"]))
        for row in counts
        if (row["group"], row["class"]) == (group, label) and row["true_ml"]
    ]
    return [bland_altman(f"volumes-{name}", *zip(*volumes, strict=True))] if volumes else []
