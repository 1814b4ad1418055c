"""Exact distances from the voxels of one surface to the nearest of another, on the same grid.

Predictions that are of use have nearly all of their surface within some voxels of the truth's. So the
near places are looked up first, in the order of their distance, and a k-d tree is asked for the rest.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

REACH_VOXELS = 3
"""How far the neighbourhood of a voxel is looked up (some 250 places) before the k-d tree is asked.

To look up all of it takes no longer than a question to the tree: at worst the time doubles, but where
surfaces are close it falls to a tenth. SciPy's distance transform of the box is slower than either, even
for surfaces far apart."""

LONGEST_REACH_VOXELS = 16
"""Bound of that along the finer axes of very anisotropic images."""

LEAF_POINTS = 32
"""Points in a leaf of the k-d tree. A tree answers one batch of questions; a coarse one is built faster."""


Steps = tuple[tuple[float, ...], ...]
"""Rows of a matrix whose columns say where a step along each axis leads, in mm; perpendicular or not."""


class NearPlaces(NamedTuple):
    """The places around a voxel in the order of their distance, with none left out in between.

    Attributes:
        steps_mm: matrix whose columns say where a step along each axis leads.
        offsets: in voxels; places × axes.
        distances_mm: of the places.
        margin: of background, in voxels, that a mask needs on every side for all lookups to be inside.
    """

    steps_mm: Steps
    offsets: np.ndarray
    distances_mm: np.ndarray
    margin: tuple[int, ...]


@lru_cache(maxsize=16)
def near_places(steps_mm: Steps) -> NearPlaces:
    """List the places that are looked up around each voxel of a surface."""
    steps = np.array(steps_mm)
    # of the planes of voxels across each axis; where axes are perpendicular, the voxel size
    distances_of_planes_mm = 1 / np.linalg.norm(np.linalg.inv(steps), axis=1)
    mean_mm = abs(np.linalg.det(steps)) ** (1 / len(steps))
    reach = [int(min(REACH_VOXELS * mean_mm / mm, LONGEST_REACH_VOXELS)) for mm in distances_of_planes_mm]
    offsets = np.argwhere(np.ones([2 * voxels + 1 for voxels in reach])) - reach
    distances_mm = np.linalg.norm(offsets @ steps.T, axis=1)
    # From here on the offsets are not complete: this far lies the nearest place beyond their box.
    limit_mm = min((voxels + 1) * mm for voxels, mm in zip(reach, distances_of_planes_mm, strict=True))
    order = np.argsort(distances_mm)[: np.count_nonzero(distances_mm < limit_mm)]
    margin = tuple(max(voxels, 1) + 1 for voxels in reach)
    return NearPlaces(steps_mm, offsets[order], distances_mm[order], margin)


def nearest_mm(surface: np.ndarray, other: np.ndarray, places: NearPlaces) -> np.ndarray:
    """Distance in mm from every voxel of one surface to the nearest of the other.

    Args:
        surface: bool, contiguous, with the margin that `places` asks for.
        other: the same, and not empty.
        places: for the grid of both.

    Returns:
        Distances in the order of `np.flatnonzero(surface)`.
    """
    where = np.flatnonzero(surface)
    distances_mm = np.empty(len(where))
    left = np.arange(len(where))
    for step, distance_mm in zip(places.offsets @ other.strides, places.distances_mm, strict=True):
        hit = other.ravel()[where + step]  # a bool has one byte, so that strides count voxels
        distances_mm[left[hit]] = distance_mm
        where, left = where[~hit], left[~hit]
        if not len(left):
            return distances_mm
    distances_mm[left] = _nearest_by_tree_mm(where, other, places.steps_mm)
    return distances_mm


def _nearest_by_tree_mm(where: np.ndarray, other: np.ndarray, steps_mm: Steps) -> np.ndarray:
    from scipy.spatial import cKDTree

    def points_mm(flat: np.ndarray) -> np.ndarray:
        points: np.ndarray = np.stack(np.unravel_index(flat, other.shape), axis=1) @ np.transpose(steps_mm)
        return points

    # Unlike balanced and compact ones, this tree is fast for points far off a surface, too.
    tree = cKDTree(points_mm(np.flatnonzero(other)), LEAF_POINTS, compact_nodes=False, balanced_tree=False)
    return np.asarray(tree.query(points_mm(where))[0])
