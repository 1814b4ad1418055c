"""The page of an evaluation of masks: every metric with its interval, how it spreads, and what was ruled."""

import json
from collections.abc import Sequence
from pathlib import Path

from oncoseg.errors import DataError
from oncoseg.evaluate import curves
from oncoseg.evaluate.panels import Panel, read_panels
from oncoseg.evaluate.pictures import MOST_CLASSES
from oncoseg.files import write_text
from oncoseg.metrics.catalogue import SITUATIONS
from oncoseg.report import examples, pages
from oncoseg.report.figures import write_figures
from oncoseg.report.parts import Origin, Part, plots_of, read_parts


def write_evaluation(folder: Path) -> Path:
    """Write FOLDER/index.html from what `evaluate_masks` left there, its plots as SVG, a picture as PNG.

    Returns:
        The page's path. It needs no other file and no network.

    Raises:
        DataError: the folder lacks its tables, or another version made them.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        described = curves.read(folder)["parts"]
        panels = read_panels(folder, summary.get("panels", []))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The evaluation in {folder} cannot be shown ({error}). Make it again with oncoseg evaluate."
        ) from error
    origin = Origin({*summary["missing"], *summary["failures"]}, summary.get("readers", False))
    parts = read_parts(folder, summary["table"], described, origin)
    write_figures(
        folder, plots_of(parts), examples.overview(panels, summary["synthetic"]) if panels else None
    )
    path = folder / "index.html"
    write_text(
        path,
        pages.render(
            "evaluation.html.jinja",
            summary=summary,
            title="Agreement of readers" if summary.get("readers") else "Evaluation",
            synthetic=summary["synthetic"],
            parts=parts,
            situations=SITUATIONS,
            examples=_examples(parts, panels),
            keys=examples.keys(panel.view for panel in panels),
            most_classes=MOST_CLASSES,
        ),
    )
    return path


def _examples(parts: Sequence[Part], panels: Sequence[Panel]) -> dict[str, list[examples.Example]]:
    """Name of a part → its pictures, where it has any."""
    found = {
        part.name: [
            examples.example(panel)
            for panel in panels
            if (panel.group, panel.label) == (part.group, part.label)
        ]
        for part in parts
    }
    return {name: shown for name, shown in found.items() if shown}
