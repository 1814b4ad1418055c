"""Tumours and cysts of the liver. Positions are those of `oncoseg.phantom.abdomen`."""

from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.abdomen import WATER, Abdomen, Phase, liver_distance, position
from oncoseg.phantom.shapes import Axes, SmoothField, blend, ellipsoid, inside, mesh

KINDS = {"poorly perfused": 0.5, "rim": 0.3, "lively": 0.2}
"""Kind of tumour → share of all: metastases without and with a bright rim, hepatocellular carcinoma."""

MOST_TUMOURS, WITHOUT = 6, 0.1
"""Most tumours of a patient, and the share of patients who have none."""

MOST_CYSTS = 2
"""Cysts look like tumours, are none, and are not marked."""

MEDIAN_RADIUS_MM, RADIUS_SPREAD, RADIUS_MM = 10.0, 0.6, (3.0, 45.0)
"""Median and logarithmic standard deviation of a tumour's radius before it is cut to the range."""

SEARCH_MM = 8.0
"""Grid on which places for lesions are sought."""

SEARCH_LOW, SEARCH_HIGH = (-150, -90, -95), (80, 90, 110)
"""Box in which places for lesions are sought, in millimetres."""

BUMPS_CAP = 2.0
"""Random displacements are cut at so many standard deviations."""

RIM_MM = 4.0
"""Thickness of a bright rim."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """What a lesion is before it is sampled; lengths in millimetres.

    Attributes:
        kind: a key of KINDS, or `cyst`.
        centre: its middle.
        radius: on average.
        stretch: its extents relative to `radius`.
        bumps: displaces its surface by `irregularity` × `radius`.
        irregularity: see `bumps`.
        hu: Hounsfield units of its inside.
        rim_hu: Hounsfield units of its outermost part.
        edge_mm: width over which it fades into the liver.
    """

    kind: str
    centre: np.ndarray
    radius: float
    stretch: np.ndarray
    bumps: SmoothField
    irregularity: float
    hu: float
    rim_hu: float
    edge_mm: float


def draw_lesions(rng: np.random.Generator, abdomen: Abdomen, least: int = 0) -> list[Lesion]:
    """Draw a patient's tumours and cysts, within the liver and, where there is room, apart.

    Args:
        rng: source of randomness.
        abdomen: whose they are.
        least: how many tumours there are at least.
    """
    count = 0 if rng.uniform() < WITHOUT else int(rng.integers(1, MOST_TUMOURS + 1))
    kinds = [str(rng.choice(list(KINDS), p=list(KINDS.values()))) for _ in range(max(count, least))]
    kinds += ["cyst"] * int(rng.integers(0, MOST_CYSTS + 1))
    x, y, z = (np.arange(a, b, SEARCH_MM) for a, b in zip(SEARCH_LOW, SEARCH_HIGH, strict=True))
    depth = -liver_distance(*position(abdomen, (x, y, z)))
    lesions: list[Lesion] = []
    for kind in kinds:
        radius = float(np.clip(rng.lognormal(np.log(MEDIAN_RADIUS_MM), RADIUS_SPREAD), *RADIUS_MM))
        centre = _draw_place(rng, depth, (x, y, z), radius, lesions)
        lesions.append(_draw(rng, abdomen.phase, kind, centre, radius))
    return lesions


def distance_mm(lesion: Lesion, axes: Axes) -> np.ndarray:
    """Signed distance to the lesion's surface, negative inside; float32 `i j k`."""
    x, y, z = mesh(axes)
    smooth = ellipsoid(x, y, z, lesion.centre, lesion.stretch * lesion.radius)
    around: Axes = tuple(axis - c for axis, c in zip(axes, lesion.centre, strict=True))
    bumps = np.clip(lesion.bumps.on(around), -BUMPS_CAP, BUMPS_CAP)
    distance: np.ndarray = smooth + np.float32(lesion.irregularity * lesion.radius) * bumps
    return distance


def cover(hu: np.ndarray, lesion: Lesion, distance: np.ndarray, in_liver: np.ndarray) -> np.ndarray:
    """Hounsfield units with a lesion in them.

    Args:
        hu: of the abdomen without it.
        lesion: what to add.
        distance: to its surface on the same grid.
        in_liver: share of each voxel that is liver; no lesion grows beyond it.
    """
    covered = blend(hu, lesion.rim_hu, inside(distance, lesion.edge_mm) * in_liver)
    return blend(covered, lesion.hu, inside(distance + np.float32(RIM_MM), 2 * lesion.edge_mm) * in_liver)


def reach_mm(lesion: Lesion) -> float:
    """No part of the lesion lies further than this from its middle, along any axis."""
    return lesion.radius * (float(lesion.stretch.max()) + BUMPS_CAP * lesion.irregularity) + lesion.edge_mm


def _draw(rng: np.random.Generator, phase: Phase, kind: str, centre: np.ndarray, radius: float) -> Lesion:
    vary = rng.normal(0, 6)
    hu = {"poorly perfused": phase.tumour, "rim": phase.tumour - 15, "lively": phase.lively, "cyst": WATER}[
        kind
    ]
    rim = 0.5 * (phase.liver + phase.portal) if kind == "rim" else hu
    box = [-3 * radius - 5] * 3, [3 * radius + 5] * 3
    return Lesion(
        kind=kind,
        centre=centre,
        radius=radius,
        stretch=rng.uniform(0.8, 1.25, 3),
        bumps=SmoothField.draw(rng, *box, max(0.8 * radius, 2.5)),
        irregularity=0.02 if kind == "cyst" else rng.uniform(0.05, 0.18),
        hu=hu if kind == "cyst" else hu + vary,
        rim_hu=rim if kind == "cyst" else rim + vary,
        edge_mm=1.0 if kind == "cyst" else rng.uniform(1.5, 4.0),
    )


def _draw_place(
    rng: np.random.Generator, depth: np.ndarray, axes: Axes, radius: float, others: list[Lesion]
) -> np.ndarray:
    deep = depth > min(0.6 * radius, 0.8 * float(depth.max()))
    free = np.ones_like(deep)
    for other in others:
        squared = sum((p - np.float32(c)) ** 2 for p, c in zip(mesh(axes), other.centre, strict=True))
        free &= squared > (1.2 * (radius + other.radius)) ** 2
    choices = (deep & free, deep)
    found = np.argwhere(next(places for places in choices if places.any()))
    return np.array([axis[n] for axis, n in zip(axes, found[rng.integers(len(found))], strict=True)])
