"""What the tests of docs/metrics.md share: the page's tables, small masks, and our scores of them."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.evaluate.scoring import CaseScores, Scoring, score_case
from oncoseg.metrics import surface

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
TOLERANCE_MM = 1.0
"""Of surface Dice."""

WORDS = {"undefined": math.isnan, "∞": math.isinf}
"""How the page writes values that are no numbers."""


class Masks(NamedTuple):
    truth: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, ...] = (1, 1, 1)
    probability: np.ndarray | None = None


def rows_below(heading: str) -> list[list[str]]:
    """The cells of a section's first table, without the rule under its head."""
    section = PAGE.split(f"# {heading}\n")[1].split("\n#")[0]
    table = re.search(r"(?m)^(\|.*\n)+", section)[0]
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
    return [head, *rows]


def boxes(size: int, *corners: tuple[tuple[int, int], ...]) -> np.ndarray:
    mask = np.zeros((size,) * 3, bool)
    for corner in corners:
        mask[tuple(slice(*side) for side in corner)] = True
    return mask


def scored(masks: Masks) -> CaseScores:
    """As `oncoseg evaluate` scores volumes."""
    truth, prediction = (mask.astype(np.uint8) for mask in (masks.truth, masks.prediction))
    scoring = Scoring(tolerance_mm=TOLERANCE_MM)
    return score_case("", "", truth, prediction, masks.spacing_mm, {"tumour": (1,)}, scoring)[0]


def ours(name: str, of_surface: Callable[[surface.SurfaceDistances], float] | None = None):
    """A function that scores volumes; planes by the function itself."""

    def value(_, masks: Masks) -> float:
        if masks.truth.ndim == 2:
            return of_surface(surface.surface_distances(*masks[:3]))
        return scored(masks).values[name]

    return value


def is_said(text: str, value: float) -> bool:
    """Whether a cell of the page gives the value, in as many digits as it has."""
    if text in WORDS:
        return WORDS[text](value)
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-digits + 1e-6
