"""Implicit shapes in millimetres: signed distances (negative inside), soft steps and smooth random fields.

A phantom is described by functions of position rather than by voxels, so one anatomy can be sampled on
any grid, or on a small crop of it. Distances of ellipsoids follow https://iquilezles.org/articles/ellipsoids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions in millimetres of the samples along each axis of a grid, one dimension each."""

Point = Sequence[float] | np.ndarray
"""A position or three extents, in millimetres."""

SPLINE_NOISE_STD = 0.479**1.5
"""Standard deviation of a 3D cubic B-spline with unit normal coefficients, averaged over a cell."""

TINY_MM = 1e-6
"""Keeps divisions by a distance finite."""


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A random function of position with mean 0 and standard deviation about 1.

    A cubic B-spline on a coarse lattice, so it is smooth, and the same function on every grid.

    Attributes:
        coefficients: one normal number per lattice point.
        start: position of the first lattice point along each axis, in millimetres.
        step_mm: distance between lattice points; details are about twice this wide.
    """

    coefficients: np.ndarray
    start: Point
    step_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, low: Point, high: Point, step_mm: float) -> "SmoothField":
        """Draw a field that covers the box between `low` and `high` (millimetres)."""
        counts = [int(np.ceil((b - a) / step_mm)) + 4 for a, b in zip(low, high, strict=True)]
        coefficients = rng.standard_normal(counts, dtype=np.float32)
        return cls(coefficients / np.float32(SPLINE_NOISE_STD), [a - step_mm for a in low], step_mm)

    def on(self, axes: Axes) -> np.ndarray:
        """Sample the field on a grid, float32 `i j k`."""
        values = self.coefficients
        for axis in (2, 1, 0):
            weights = _spline_weights(axes[axis], self.start[axis], self.step_mm, values.shape[axis])
            values = np.moveaxis(np.tensordot(values, weights, axes=(axis, 1)), -1, axis)
        return np.ascontiguousarray(values)


def mesh(axes: Axes) -> Axes:
    """Positions along x, y and z as float32 arrays that broadcast to the grid."""
    x, y, z = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
    return x, y, z


def ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: Point, radii: Point) -> np.ndarray:
    """Signed distance to an ellipsoid, good to first order near its surface."""
    scaled = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip((x, y, z), centre, radii, strict=True)]
    size = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / np.float32(r)) ** 2 for s, r in zip(scaled, radii, strict=True)))
    tiny = np.float32(TINY_MM)
    distance: np.ndarray = (size + tiny) * (size - 1) / (slope + tiny / np.float32(min(radii)))
    return distance


def tube(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, start: Point, end: Point, radii: tuple[float, float]
) -> np.ndarray:
    """Signed distance to a straight tube with round ends whose radius runs from `radii[0]` to `radii[1]`."""
    along = np.subtract(end, start).astype(np.float32)
    from_start = [p - np.float32(s) for p, s in zip((x, y, z), start, strict=True)]
    projected = sum(f * a for f, a in zip(from_start, along, strict=True))
    t = np.clip(projected / np.float32(along @ along + TINY_MM), 0, 1)
    squared = sum((f - t * a) ** 2 for f, a in zip(from_start, along, strict=True))
    distance: np.ndarray = np.sqrt(squared) - (np.float32(radii[0]) + t * np.float32(radii[1] - radii[0]))
    return distance


def inside(distance: np.ndarray, width_mm: float) -> np.ndarray:
    """Share of a voxel inside a surface: 1 to 0 over `width_mm`, as partial volume does it."""
    return np.clip(np.float32(0.5) - distance / np.float32(width_mm), 0, 1)


def blend(below: np.ndarray, above: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    """Cover `below` with `above` where `share` is 1, and mix both where it is between 0 and 1."""
    return below + share * (above - below)


def random_direction(rng: np.random.Generator) -> np.ndarray:
    """A unit vector, uniform on the sphere."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _spline_weights(positions: np.ndarray, start: float, step_mm: float, count: int) -> np.ndarray:
    """Weights of `count` lattice points at each position (rows sum to 1)."""
    u = np.clip((np.asarray(positions, dtype=np.float64) - start) / step_mm, 1, count - 2 - TINY_MM)
    cell = np.floor(u).astype(int)
    t = u - cell
    parts = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = np.zeros((len(u), count), dtype=np.float32)
    rows = np.arange(len(u))
    for offset, part in enumerate(parts):
        weights[rows, cell - 1 + offset] = part / 6
    return weights
