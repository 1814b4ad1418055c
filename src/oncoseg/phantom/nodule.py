"""Lung nodules of several kinds, and four readers who outline them differently.

Positions are those of `oncoseg.phantom.thorax`.
"""

from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.shapes import Axes, SmoothField, ellipsoid, inside, mesh, random_direction, tube
from oncoseg.phantom.thorax import Anatomy

KINDS = {"solid": 0.45, "sub-solid": 0.2, "spiculated": 0.17, "juxta-pleural": 0.18}
"""Kind of nodule → share of all nodules."""

DIAMETER_MM = (4.0, 25.0)
"""Smallest and largest nodule."""

MEDIAN_DIAMETER_MM, DIAMETER_SPREAD = 8.5, 0.5
"""Median and logarithmic standard deviation before cutting to `DIAMETER_MM`."""

BUMPS_CAP = 2.0
"""Random displacements are cut at so many standard deviations, so that no nodule vanishes."""

PLEURA_MM = 0.5
"""Readers' outlines reach so far into the chest wall."""


@dataclass(frozen=True)
class Reader:
    """How someone outlines nodules.

    Attributes:
        bias_mm: outlines lie this far outside the edge, on average.
        jitter_mm: standard deviation of an outline around that.
        missed: share of nodules not marked.
        partial: share of marked nodules of which only some slices are marked.
    """

    bias_mm: float
    jitter_mm: float
    missed: float
    partial: float


READERS = (
    Reader(bias_mm=0.25, jitter_mm=0.25, missed=0.03, partial=0.05),
    Reader(bias_mm=-0.25, jitter_mm=0.30, missed=0.18, partial=0.15),
    Reader(bias_mm=0.50, jitter_mm=0.40, missed=0.28, partial=0.15),
    Reader(bias_mm=-0.45, jitter_mm=0.35, missed=0.40, partial=0.25),
)
"""The same four for every nodule; shares of missed nodules are near those of LIDC-IDRI's slices."""

HARDER = 1.5
"""Readers miss sub-solid nodules so many times as often."""


@dataclass(frozen=True, eq=False)
class Nodule:
    """What a nodule is before it is sampled; lengths in millimetres.

    Attributes:
        kind: a key of `KINDS`.
        centre: its middle.
        radius: on average.
        stretch: its extents relative to `radius`.
        bumps: displaces its surface by `irregularity` × `radius`.
        irregularity: see `bumps`.
        hu: Hounsfield units.
        edge_mm: width over which it fades into the lung.
        spicules: ends of the fine spikes around it, (n, 3).
    """

    kind: str
    centre: np.ndarray
    radius: float
    stretch: np.ndarray
    bumps: SmoothField
    irregularity: float
    hu: float
    edge_mm: float
    spicules: np.ndarray


def draw_nodule(
    rng: np.random.Generator, anatomy: Anatomy, axes: Axes, others: list[Nodule], apart_mm: float
) -> Nodule:
    """Draw a nodule at a place in the lungs that suits its kind, away from the others where there is room.

    Args:
        rng: source of randomness.
        anatomy: the lungs on a coarse grid.
        axes: positions of that grid.
        others: nodules of this patient drawn so far.
        apart_mm: distance between nodules along at least one axis.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    diameter = np.exp(rng.normal(np.log(MEDIAN_DIAMETER_MM), DIAMETER_SPREAD))
    radius = float(np.clip(diameter, *DIAMETER_MM)) / 2
    centre = _draw_place(rng, anatomy, axes, others, apart_mm, *_depths(kind, radius))
    box = [-3 * radius - 5] * 3, [3 * radius + 5] * 3
    return Nodule(
        kind=kind,
        centre=centre,
        radius=radius,
        stretch=rng.uniform(0.85, 1.2, 3),
        bumps=SmoothField.draw(rng, *box, max(0.8 * radius, 2.0)),
        irregularity=0.2 if kind == "spiculated" else rng.uniform(0.03, 0.15),
        hu=_draw_hu(rng, kind),
        edge_mm=rng.uniform(2.5, 5.0) if kind == "sub-solid" else rng.uniform(1.0, 2.0),
        spicules=_draw_spicules(rng, centre, radius) if kind == "spiculated" else np.zeros((0, 3)),
    )


def distance_mm(nodule: Nodule, axes: Axes) -> np.ndarray:
    """Signed distance to the nodule's surface without its spicules, negative inside."""
    x, y, z = mesh(axes)
    smooth = ellipsoid(x, y, z, nodule.centre, nodule.stretch * nodule.radius)
    around: Axes = tuple(axis - c for axis, c in zip(axes, nodule.centre, strict=True))
    bumps = np.clip(nodule.bumps.on(around), -BUMPS_CAP, BUMPS_CAP)
    distance: np.ndarray = smooth + np.float32(nodule.irregularity * nodule.radius) * bumps
    return distance


def share(nodule: Nodule, distance: np.ndarray, axes: Axes) -> np.ndarray:
    """Share of each voxel that the nodule with its spicules fills, 0 to 1."""
    filled = inside(distance, nodule.edge_mm)
    x, y, z = mesh(axes)
    for end in nodule.spicules:
        spike = tube(x, y, z, nodule.centre, end, (0.3 * nodule.radius, 0.2))
        filled = np.maximum(filled, inside(spike, nodule.edge_mm))
    return filled


def outline(
    rng: np.random.Generator, nodule: Nodule, distance: np.ndarray, lung_mm: np.ndarray, axes: Axes
) -> np.ndarray:
    """Masks of all readers, bool `r i j k`; at least one of them marks the nodule."""
    masks = [_read(rng, reader, nodule, distance, axes) for reader in READERS]
    harder = HARDER if nodule.kind == "sub-solid" else 1.0
    marked = [rng.uniform() >= reader.missed * harder for reader in READERS]
    if not any(marked):
        marked[0] = True
    return np.stack([mask & bool(seen) for mask, seen in zip(masks, marked, strict=True)]) & (
        lung_mm < PLEURA_MM
    )


def _read(
    rng: np.random.Generator, reader: Reader, nodule: Nodule, distance: np.ndarray, axes: Axes
) -> np.ndarray:
    """One reader's outline of a nodule that was seen."""
    low, high = ([float(axis[n]) for axis in axes] for n in (0, -1))
    field = SmoothField.draw(rng, low, high, max(0.7 * nodule.radius, 2.5))
    jitter = reader.jitter_mm + 0.05 * nodule.radius * (2.0 if nodule.kind == "sub-solid" else 1.0)
    edge = reader.bias_mm + jitter * np.clip(field.on(axes), -BUMPS_CAP, BUMPS_CAP)
    least = np.float32(-0.5 * nodule.radius)
    mask: np.ndarray = distance < np.maximum(edge, least)
    if rng.uniform() < reader.partial:
        height = axes[2] - nodule.centre[2]
        cut = rng.uniform(0.1, 0.6) * nodule.radius
        mask &= height < cut if rng.uniform() < 0.5 else height > -cut
    return mask


def _depths(kind: str, radius: float) -> tuple[float, float]:
    """How far below the lung's surface a nodule's middle may lie, least and most, in millimetres."""
    return (0.3 * radius, 0.8 * radius) if kind == "juxta-pleural" else (radius + 1.5, np.inf)


def _draw_place(
    rng: np.random.Generator,
    anatomy: Anatomy,
    axes: Axes,
    others: list[Nodule],
    apart_mm: float,
    least_mm: float,
    most_mm: float,
) -> np.ndarray:
    depth = -anatomy.lung
    suitable = (depth > least_mm) & (depth < most_mm)
    free = np.ones_like(suitable)
    for other in others:
        offsets = [np.abs(p - c) for p, c in zip(mesh(axes), other.centre, strict=True)]
        free &= np.maximum(np.maximum(offsets[0], offsets[1]), offsets[2]) > apart_mm
    choices = (suitable & free, suitable, depth == depth.max())
    found = np.argwhere(next(places for places in choices if places.any()))
    return np.array([axis[n] for axis, n in zip(axes, found[rng.integers(len(found))], strict=True)])


def _draw_hu(rng: np.random.Generator, kind: str) -> float:
    if kind == "sub-solid":
        return rng.uniform(-650, -350)
    calcified = kind == "solid" and rng.uniform() < 0.12
    return rng.uniform(200, 400) if calcified else rng.uniform(-60, 80)


def _draw_spicules(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    count = rng.integers(7, 15)
    return np.stack([centre + random_direction(rng) * radius * rng.uniform(1.4, 2.2) for _ in range(count)])
