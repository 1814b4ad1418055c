"""Trees of vessels: straight pieces that branch at random, and the distance to them on any grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.shapes import Axes, mesh, tube

LENGTH_RATIO, RADIUS_RATIO = 0.86, 0.79
"""Of a vessel's branches to itself; 2^(-1/3) = 0.79 is Murray's law (1926, https://doi.org/10.1073/pnas.12.3.207)."""

FAR_MM = 10.0
"""What is said of positions that are nowhere near a vessel."""

MARGIN_MM = 2.0
"""Distances are exact so far around each vessel."""


@dataclass(frozen=True)
class Tree:
    """How a tree branches.

    Attributes:
        generations: how often each vessel divides.
        root_length_mm: of the first vessels.
        root_radius_mm: of the first vessels.
        least_radius_mm: vessels do not get thinner than this.
    """

    generations: int
    root_length_mm: float
    root_radius_mm: float
    least_radius_mm: float


@dataclass(frozen=True, eq=False)
class Vessels:
    """Straight pieces of vessels: `starts` and `ends` (n, 3), `radii` (n, 2) at both ends, in millimetres."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray

    def thicker_than(self, radius_mm: float) -> "Vessels":
        """Those pieces whose mean radius is at least so large."""
        kept = self.radii.mean(axis=1) >= radius_mm
        return Vessels(self.starts[kept], self.ends[kept], self.radii[kept])


def join(*trees: Vessels) -> Vessels:
    """Several trees as one."""
    starts, ends, radii = (np.concatenate(parts) for parts in zip(*(_arrays(t) for t in trees), strict=True))
    return Vessels(starts, ends, radii)


def grow(
    rng: np.random.Generator,
    tree: Tree,
    starts: np.ndarray,
    directions: np.ndarray,
    within: Callable[[np.ndarray], np.ndarray],
) -> Vessels:
    """Grow trees by generations.

    Args:
        rng: source of randomness.
        tree: how they branch.
        starts: where the first vessels begin, (n, 3) in millimetres.
        directions: where they lead, (n, 3).
        within: points (n, 3) → whether a vessel that ends there goes on, (n,).
    """
    directions = _unit(directions)
    length, radius = tree.root_length_mm, tree.root_radius_mm
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(tree.generations + 1):
        ends = starts + directions * length * rng.uniform(0.6, 1.4, (len(starts), 1))
        thinner = max(radius * RADIUS_RATIO, tree.least_radius_mm)
        pieces.append((starts, ends, np.full((len(starts), 2), (radius, 0.5 * (radius + thinner)))))
        alive = within(ends)
        starts = np.repeat(ends[alive], 2, axis=0)
        directions = _fork(rng, directions[alive])
        length, radius = length * LENGTH_RATIO, thinner
    starts, ends, radii = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Vessels(starts, ends, radii)


def vessel_distance(vessels: Vessels, axes: Axes) -> np.ndarray:
    """Signed distance to the nearest vessel, exact within `MARGIN_MM` of it, else at most `FAR_MM`."""
    distance = np.full([len(axis) for axis in axes], np.float32(FAR_MM))
    reach = vessels.radii.max(axis=1, keepdims=True) + MARGIN_MM
    low = np.minimum(vessels.starts, vessels.ends) - reach
    high = np.maximum(vessels.starts, vessels.ends) + reach
    first = np.stack([np.searchsorted(axis, low[:, n]) for n, axis in enumerate(axes)], axis=1)
    last = np.stack([np.searchsorted(axis, high[:, n]) for n, axis in enumerate(axes)], axis=1)
    x, y, z = mesh(axes)
    for n in np.flatnonzero((last > first).all(axis=1)):
        i, j, k = (slice(a, b) for a, b in zip(first[n], last[n], strict=True))
        piece = tube(x[i], y[:, j], z[:, :, k], vessels.starts[n], vessels.ends[n], tuple(vessels.radii[n]))
        np.minimum(distance[i, j, k], piece, out=distance[i, j, k])
    return distance


def _arrays(vessels: Vessels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return vessels.starts, vessels.ends, vessels.radii


def _fork(rng: np.random.Generator, directions: np.ndarray) -> np.ndarray:
    """Two directions for each, bent to opposite sides by unequal angles."""
    across = _unit(np.cross(directions, rng.standard_normal(directions.shape)))
    bends = np.tan(np.radians(rng.uniform((15, -60), (35, -25), (len(directions), 2))))
    return _unit((directions[:, None] + bends[..., None] * across[:, None]).reshape(-1, 3))


def _unit(vectors: np.ndarray) -> np.ndarray:
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units
