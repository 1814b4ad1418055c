"""The page of an evaluation of masks: every metric with its interval, how it spreads, and what was ruled."""

import json
from pathlib import Path

from oncoseg.errors import DataError
from oncoseg.evaluate import curves
from oncoseg.files import write_bytes, write_text
from oncoseg.metrics.catalogue import SITUATIONS
from oncoseg.report import pages
from oncoseg.report.parts import plots_of, read_parts


def write_evaluation(folder: Path) -> Path:
    """Write FOLDER/index.html from the tables that `evaluate_masks` left there, and its plots as SVG files.

    Returns:
        The page's path. It needs no other file and no network.

    Raises:
        DataError: the folder lacks its tables, or another version made them.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        described = curves.read(folder)["parts"]
    except (OSError, ValueError) as error:
        raise DataError(
            f"The evaluation in {folder} cannot be shown ({error}). Make it again with oncoseg evaluate."
        ) from error
    parts = read_parts(folder, summary["table"], described)
    for plot in plots_of(parts):
        write_bytes(folder / f"{plot.name}.svg", plot.svg)
    path = folder / "index.html"
    write_text(
        path,
        pages.render(
            "evaluation.html.jinja",
            summary=summary,
            synthetic=summary["synthetic"],
            parts=parts,
            situations=SITUATIONS,
        ),
    )
    return path
