"""A page's figures as files of their own beside it."""

from collections.abc import Iterable
from pathlib import Path

from oncoseg.files import disk_errors, write_bytes
from oncoseg.report.curves import Curve

KINDS = (
    "confusion",
    "detection",
    "froc",
    "histogram",
    "learning",
    "patients",
    "precision-recall",
    "reliability",
    "roc",
    "spread",
    "volumes",
)
"""What the names of plots begin with."""

OVERVIEW = "examples.png"
"""The file of the pictures."""


def write_figures(folder: Path, plots: Iterable[Curve], pictures: bytes | None = None) -> None:
    """Write the plots as SVG and the pictures as PNG, and take away those of an earlier page.

    A figure that no page shows would be taken for a part of the present one. Only files that are named as
    plots of ours go.

    Args:
        folder: of the page.
        plots: in any order.
        pictures: a PNG file's content; None where there are none.

    Raises:
        RunError: the folder cannot be written.
    """
    written = set()
    for plot in plots:
        write_bytes(folder / f"{plot.name}.svg", plot.svg)
        written.add(f"{plot.name}.svg")
    if pictures is not None:
        write_bytes(folder / OVERVIEW, pictures)
    with disk_errors(folder):
        for path in folder.glob("*.svg"):
            if path.name not in written and _is_ours(path.stem):
                path.unlink()
        if pictures is None:
            (folder / OVERVIEW).unlink(missing_ok=True)


def _is_ours(stem: str) -> bool:
    return any(stem == kind or stem.startswith(f"{kind}-") for kind in KINDS)
