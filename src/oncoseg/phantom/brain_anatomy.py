"""A healthy head without its skull: shares of fluid, grey and white matter on any grid.

Positions are millimetres from the middle of the brain: x to one side, y forward, z up.
"""

from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.shapes import Axes, SmoothField, ellipsoid, inside, mesh, tube

FIELD_OF_VIEW_MM = (240.0, 240.0, 155.0)
"""Size of a BraTS volume; every grid covers it."""

HALF_MM = tuple(extent / 2 for extent in FIELD_OF_VIEW_MM)
"""From the middle of the brain to the edge of the field of view."""

CEREBRUM_CENTRE = (0.0, 0.0, 5.0)
"""Middle of the cerebrum, in millimetres from the middle of the field of view."""

CEREBRUM_RADII = (66.0, 84.0, 58.0)
"""Half width, length and height of an average cerebrum, in millimetres."""

BASE_FLATTENING = 2.2
"""How many times lower the cerebrum's lower half is than its upper half."""

CORTEX_MM = 3.5
"""Thickness of grey matter along the surface and along each furrow."""

FURROW_DEPTH_MM = 20.0
"""How deep furrows reach below the surface."""

VENTRICLE_PATH = (
    ((9, 34, 6), (11, 8, 17), (3.5, 5.0)),
    ((11, 8, 17), (18, -26, 15), (5.0, 5.5)),
    ((18, -26, 15), (25, -50, 2), (5.5, 3.0)),
    ((22, -30, 8), (32, 0, -20), (4.0, 2.0)),
)
"""One lateral ventricle as tubes: start, end, radius at both; the other one mirrors it."""

DEEP_GREY = (((10, -10, 5), (8, 14, 9)), ((26, 4, 3), (6, 17, 10)), ((16, 22, 10), (5, 10, 8)))
"""Centre and radii of thalamus, lentiform nucleus and head of the caudate nucleus, mirrored."""


Mass = tuple[np.ndarray, float]
"""Centre and radius of a tumour, in millimetres."""


@dataclass(frozen=True, eq=False)
class Brain:
    """Healthy tissue on a grid, arrays `i j k`.

    Attributes:
        mask: True in the brain, with the fluid around it.
        fluid: share of cerebrospinal fluid in each voxel, 0 to 1.
        grey: share of grey matter; the rest of the brain is white matter.
        depth_mm: distance to the surface, positive inside.
        ventricle_mm: distance to the ventricles, negative inside.
        across_mm: distance from the plane between both halves.
    """

    mask: np.ndarray
    fluid: np.ndarray
    grey: np.ndarray
    depth_mm: np.ndarray
    ventricle_mm: np.ndarray
    across_mm: np.ndarray


def draw_field(rng: np.random.Generator, step_mm: float) -> SmoothField:
    """A smooth random field over the field of view."""
    return SmoothField.draw(rng, [-half for half in HALF_MM], HALF_MM, step_mm)


def grow_brain(rng: np.random.Generator, axes: Axes, voxel_mm: float, masses: list[Mass]) -> Brain:
    """Draw one person's brain and sample it.

    Args:
        rng: source of randomness.
        axes: positions of the voxels.
        voxel_mm: a typical voxel size, for partial volume.
        masses: the tumours; they push the tissue around them aside.
    """
    x, y, z = _person(rng, axes, masses)
    across = np.abs(x)
    cerebrum, cerebellum, stem = _lobes(across, y, z)
    surface = np.minimum(np.minimum(cerebrum, cerebellum), stem)
    surface = surface + np.float32(0.7) * draw_field(rng, 14).on(axes)
    ventricles = _ventricles(rng, across, y, z)
    furrow = _furrows(rng, axes, cerebrum, cerebellum)
    callosum = ellipsoid(across, y, z, (0, -2, 4), (30, 44, 28))
    fissure = across + np.maximum(-callosum, 0)
    furrow = np.where(cerebrum < 0, np.minimum(furrow, fissure), furrow)

    fluid = np.maximum(inside(furrow - np.float32(0.7), voxel_mm), inside(ventricles, voxel_mm))
    fluid = np.maximum(fluid, inside(-surface - np.float32(0.8), voxel_mm))
    grey = inside(np.minimum(furrow, -surface) - np.float32(CORTEX_MM), voxel_mm)
    grey = np.maximum(grey, np.float32(0.75) * _deep_grey(across, y, z, voxel_mm))
    grey = np.where(stem < 0, np.float32(0.25), grey)
    return Brain(surface < 1.5, fluid, (1 - fluid) * grey, -surface, ventricles, across)


def _person(rng: np.random.Generator, axes: Axes, masses: list[Mass]) -> Axes:
    """Positions in the average brain that lie at the voxels of this person's."""
    size = rng.uniform(0.93, 1.06) * rng.uniform(0.97, 1.03, 3)
    tilt = rng.normal(0, 0.04, 2)
    x, y, z = mesh(axes)
    x, y = x + np.float32(tilt[0]) * y, y - np.float32(tilt[0]) * x
    y, z = y + np.float32(tilt[1]) * z, z - np.float32(tilt[1]) * y
    x, y, z = np.broadcast_arrays(x, y, z)
    for centre, radius in masses:
        offset = [p - np.float32(c) for p, c in zip((x, y, z), centre, strict=True)]
        reach = np.float32(2 * (1.3 * radius) ** 2)
        push = np.float32(0.45) * np.exp(-sum(o * o for o in offset) / reach)
        x, y, z = (p - push * o for p, o in zip((x, y, z), offset, strict=True))
    warp = [np.float32(rng.uniform(1.5, 3.5)) * draw_field(rng, 35).on(axes) for _ in range(3)]
    x, y, z = (p / np.float32(s) + w for p, s, w in zip((x, y, z), size, warp, strict=True))
    return x, y, z


def _lobes(across: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distances to the cerebrum with its temporal lobes, the cerebellum and the brain stem."""
    narrower_in_front = across * (1 + np.float32(0.0016) * y)
    above_middle = z - np.float32(CEREBRUM_CENTRE[2])
    flat_base = np.where(above_middle < 0, above_middle * np.float32(BASE_FLATTENING), above_middle)
    dome = ellipsoid(narrower_in_front, y, flat_base, (0, 0, 0), CEREBRUM_RADII)
    temporal = ellipsoid(across, y, z, (38, 6, -24), (24, 42, 24))
    cerebellum = ellipsoid(across, y, z, (20, -48, -34), (34, 32, 24))
    stem = tube(across, y, z, (0, -8, -8), (0, -28, -70), (19.0, 9.0))
    return np.minimum(dome, temporal), cerebellum, stem


def _ventricles(rng: np.random.Generator, across: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    widening = np.float32(rng.uniform(-2.0, 2.5))
    lateral = [tube(across, y, z, *part) for part in VENTRICLE_PATH]
    distance = np.minimum.reduce(lateral) - widening
    third = ellipsoid(across, y, z, (0, -4, -2), (2.5 + float(widening) / 4, 14, 9))
    fourth = ellipsoid(across, y, z, (0, -36, -36), (6, 4, 9))
    nearest: np.ndarray = np.minimum(distance, np.minimum(third, fourth))
    return nearest


def _furrows(
    rng: np.random.Generator, axes: Axes, cerebrum: np.ndarray, cerebellum: np.ndarray
) -> np.ndarray:
    """Distance to the nearest furrow: the zero surface of a random field, faded out in depth."""
    folds = np.abs(draw_field(rng, 8).on(axes)) * np.float32(6.0)
    too_deep = np.maximum(-cerebrum - np.float32(FURROW_DEPTH_MM), 0)
    leaves = np.abs(draw_field(rng, 4).on(axes)) * np.float32(3.0) + np.float32(0.9)
    distance: np.ndarray = np.where(cerebellum < np.minimum(cerebrum, 0), leaves, folds + too_deep)
    return distance


def _deep_grey(across: np.ndarray, y: np.ndarray, z: np.ndarray, voxel_mm: float) -> np.ndarray:
    nuclei = [ellipsoid(across, y, z, centre, radii) for centre, radii in DEEP_GREY]
    return inside(np.minimum.reduce(nuclei), 1.5 * voxel_mm)
