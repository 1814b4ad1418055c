"""Distances between the surfaces of two masks, found once and reduced to every metric.

There are two kinds of surface, since the definitions in use differ:

- Boundary voxels: those of the mask with a face neighbour outside, at their centres. What lies beyond
  the image is outside. Every voxel counts the same.
- Surface elements: the corners of the voxel grid where voxels inside and outside meet. Each counts with
  its area (`surface_elements`); in 2D with its length, and "area" means that.

Three metrics go by the name of HD95 and differ on the same masks. So that nobody mixes them, none has
that name here: there are `hd95_pooled` (as in MedPy), `hd95_max` (MONAI) and `hd95_area` (DeepMind's
surface-distance, BraTS 2023).
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from oncoseg.metrics.boxes import bounding_box
from oncoseg.metrics.nearest import Steps, near_places, nearest_mm
from oncoseg.metrics.surface_elements import element_areas

ROUNDING = 1e-9
"""Relative slack of comparisons: 3 voxels of 1.1 mm are within 3.3 mm, and 19 of 20 equal areas are 95 %."""

SLAB_VOXELS = 2**19
"""Size of the pieces in which a mask is searched for its surface, so that they stay in the cache."""


class SurfaceDistances(NamedTuple):
    """Distances in mm from every piece of either surface to the nearest piece of the other.

    In no particular order, but areas and elements in the same.

    Attributes:
        voxels_truth_to_prediction_mm: one for each boundary voxel of the truth.
        voxels_prediction_to_truth_mm: one for each boundary voxel of the prediction.
        elements_truth_to_prediction_mm: one for each surface element of the truth.
        elements_prediction_to_truth_mm: one for each surface element of the prediction.
        truth_areas: of the truth's surface elements, in mm² (2D: mm).
        prediction_areas: of the prediction's surface elements, in mm² (2D: mm).
    """

    voxels_truth_to_prediction_mm: np.ndarray
    voxels_prediction_to_truth_mm: np.ndarray
    elements_truth_to_prediction_mm: np.ndarray
    elements_prediction_to_truth_mm: np.ndarray
    truth_areas: np.ndarray
    prediction_areas: np.ndarray


def surface_distances(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    axes_mm: np.ndarray | None = None,
) -> SurfaceDistances:
    """Measure all distances between the surfaces of two masks.

    An empty mask has no surface, and no distance: what it scores is to be settled before. Memory
    is needed for four bool arrays of the box around both masks, and some 100 bytes for each piece of
    surface.

    Args:
        truth: bool, 2D or 3D.
        prediction: bool, of the same shape.
        spacing_mm: of every axis.
        axes_mm: where they are not perpendicular, as after a tilted gantry, a matrix whose columns say where
            a step along each axis leads; it decides then. Coordinates × axes.

    Raises:
        ValueError: shapes, types, spacing or axes are not as above, or a mask is empty.
    """
    _check(truth, prediction, spacing_mm, axes_mm)
    order = np.argsort(np.abs(truth.strides))[::-1]  # of NIfTI images, the first axis varies fastest
    places = near_places(_steps(spacing_mm, axes_mm, order))
    true, predicted = _crop(truth.transpose(order), prediction.transpose(order), places.margin)
    voxels = _by_slabs(_boundary_voxels, true), _by_slabs(_boundary_voxels, predicted)
    voxel_distances = nearest_mm(*voxels, places), nearest_mm(*voxels[::-1], places)
    del voxels
    elements = _by_slabs(_surface_elements, true), _by_slabs(_surface_elements, predicted)
    return SurfaceDistances(
        *voxel_distances,
        nearest_mm(*elements, places),
        nearest_mm(*elements[::-1], places),
        _areas(true, elements[0], places.steps_mm),
        _areas(predicted, elements[1], places.steps_mm),
    )


def hausdorff(distances: SurfaceDistances) -> float:
    """Hausdorff distance in mm: the largest distance from any boundary voxel to the other boundary."""
    return hd_max(distances, 100)


def hd_pooled(distances: SurfaceDistances, percentile: float) -> float:
    """Percentile in mm of the boundary voxels' distances of both directions joined.

    Between two distances it is interpolated linearly. The direction with more voxels weighs more.
    """
    return float(np.percentile(_both_ways(distances), percentile))


def hd_max(distances: SurfaceDistances, percentile: float) -> float:
    """Larger one of the two directed percentiles in mm of the boundary voxels' distances.

    Between two distances it is interpolated linearly.
    """
    there, back = distances.voxels_truth_to_prediction_mm, distances.voxels_prediction_to_truth_mm
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def hd_area(distances: SurfaceDistances, percentile: float) -> float:
    """Larger one of the two directed percentiles in mm of the surface elements' distances by area.

    A directed percentile is the least distance within which that share of the surface's area lies,
    without interpolation. So is `compute_robust_hausdorff` of DeepMind's surface-distance, save that
    rounding may take it a step further where the share is met exactly, as by 19 of 20 equal areas.

    Raises:
        ValueError: the percentile is not in 0–100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"Expected a percentile in 0–100, got {percentile}.")
    return max(
        _area_percentile(distances.elements_truth_to_prediction_mm, distances.truth_areas, percentile),
        _area_percentile(distances.elements_prediction_to_truth_mm, distances.prediction_areas, percentile),
    )


def hd95_pooled(distances: SurfaceDistances) -> float:
    """95th percentile in mm of the boundary voxels' distances of both directions joined."""
    return hd_pooled(distances, 95)


def hd95_max(distances: SurfaceDistances) -> float:
    """Larger one of the two directed 95th percentiles in mm, by boundary voxels."""
    return hd_max(distances, 95)


def hd95_area(distances: SurfaceDistances) -> float:
    """Larger one of the two directed 95th percentiles in mm, by the area of surface elements."""
    return hd_area(distances, 95)


def average_surface_distance(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance (ASSD): mean in mm over the boundary voxels of both masks.

    So is MONAI's with `symmetric=True`; without, it is `mean_distance_prediction_to_truth`. Others take
    the mean of the two directed means (MedPy; MASD in Metrics Reloaded), or weight by area (DeepMind).
    """
    return float(_both_ways(distances).mean())


def mean_distance_truth_to_prediction(distances: SurfaceDistances) -> float:
    """Mean in mm over the truth's boundary voxels; large where tumour is missed."""
    return float(distances.voxels_truth_to_prediction_mm.mean())


def mean_distance_prediction_to_truth(distances: SurfaceDistances) -> float:
    """Mean in mm over the prediction's boundary voxels; large where something else is marked."""
    return float(distances.voxels_prediction_to_truth_mm.mean())


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Normalised surface Dice (Nikolov et al., JMIR 2021): share of both surfaces within a tolerance.

    The area of the surface elements of either mask that are no further than the tolerance from the
    other's, over the area of all, in [0, 1]. MONAI's counts boundary voxels instead, unless it is
    called with `use_subvoxels=True`.

    Raises:
        ValueError: the tolerance is negative or not a number.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"Expected a tolerance of 0 mm or more, got {tolerance_mm}.")
    limit_mm = tolerance_mm * (1 + ROUNDING)
    truth_within = distances.truth_areas[distances.elements_truth_to_prediction_mm <= limit_mm]
    prediction_within = distances.prediction_areas[distances.elements_prediction_to_truth_mm <= limit_mm]
    area = distances.truth_areas.sum() + distances.prediction_areas.sum()
    return float((truth_within.sum() + prediction_within.sum()) / area)


SURFACE_METRICS: dict[str, Callable[[SurfaceDistances], float]] = {
    "hausdorff": hausdorff,
    "hd95_pooled": hd95_pooled,
    "hd95_max": hd95_max,
    "hd95_area": hd95_area,
    "average_surface_distance": average_surface_distance,
    "mean_distance_truth_to_prediction": mean_distance_truth_to_prediction,
    "mean_distance_prediction_to_truth": mean_distance_prediction_to_truth,
}
"""Name → function of distances, in mm, 0 is best. `surface_dice` needs a tolerance and stands alone."""


def _both_ways(distances: SurfaceDistances) -> np.ndarray:
    return np.concatenate([distances.voxels_truth_to_prediction_mm, distances.voxels_prediction_to_truth_mm])


def _area_percentile(distances_mm: np.ndarray, areas: np.ndarray, percentile: float) -> float:
    order = np.argsort(distances_mm)
    covered = np.cumsum(areas[order])
    wanted = covered[-1] * (percentile / 100) * (1 - ROUNDING)
    return float(distances_mm[order[np.searchsorted(covered, wanted)]])


def _steps(spacing_mm: Sequence[float], axes_mm: np.ndarray | None, order: np.ndarray) -> Steps:
    """The axes in another order, as a square matrix with the same lengths and angles."""
    if axes_mm is None:
        square = np.diag(np.asarray(spacing_mm, float)[order])
    else:
        square = np.asarray(np.linalg.qr(np.asarray(axes_mm, float)[:, order], mode="r"))
    return tuple(tuple(row) for row in square.tolist())


def _check(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], axes_mm: np.ndarray | None
) -> None:
    if truth.shape != prediction.shape or truth.dtype != bool or prediction.dtype != bool:
        raise ValueError(
            f"Expected two bool masks of one shape, got {truth.dtype} {truth.shape} and "
            f"{prediction.dtype} {prediction.shape}."
        )
    if truth.ndim not in (2, 3):
        raise ValueError(f"Expected masks with 2 or 3 axes, got {truth.ndim}.")
    if len(spacing_mm) != truth.ndim or not all(0 < mm < math.inf for mm in spacing_mm):
        raise ValueError(f"Expected {truth.ndim} positive spacings in mm, got {tuple(spacing_mm)}.")
    if axes_mm is not None and not (
        np.shape(axes_mm)[1:] == (truth.ndim,)
        and np.isfinite(axes_mm).all()
        and np.linalg.matrix_rank(axes_mm) == truth.ndim
    ):
        raise ValueError(f"Expected {truth.ndim} independent axes in columns, got {np.asarray(axes_mm)}.")
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if not mask.any():
            raise ValueError(f"Expected masks that mark something, got an empty {name}: it has no surface.")


def _crop(truth: np.ndarray, prediction: np.ndarray, margin: tuple[int, ...]) -> list[np.ndarray]:
    """Copies of two masks, cut to their common box and framed by a margin of background."""
    box = bounding_box(truth, prediction)
    inner = tuple(slice(width, width + s.stop - s.start) for s, width in zip(box, margin, strict=True))
    framed = []
    for mask in (truth, prediction):
        copy = np.zeros([s.stop + width for s, width in zip(inner, margin, strict=True)], bool)
        copy[inner] = mask[box]
        framed.append(copy)
    return framed


def _by_slabs(find: Callable[[np.ndarray], np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Apply a function that looks one voxel far to thin slabs of a mask with a margin."""
    found = np.zeros_like(mask)
    thickness = max(1, SLAB_VOXELS // mask[0].size)
    for start in range(1, len(mask) - 1, thickness):
        stop = min(start + thickness, len(mask) - 1)
        found[start:stop] = find(mask[start - 1 : stop + 1])[1:-1]
    return found


def _boundary_voxels(slab: np.ndarray) -> np.ndarray:
    """Voxels of a mask with a face neighbour outside; wrong in the first and the last plane."""
    mask = slab.ravel()
    deep = mask.copy()
    for step in slab.strides:  # a bool has one byte; shifts reach into the next row's margin at most
        deep[step:] &= mask[:-step]
        deep[:-step] &= mask[step:]
    return np.reshape(mask ^ deep, slab.shape)


def _surface_elements(slab: np.ndarray) -> np.ndarray:
    """Corners of voxels inside and outside, each at its lowest voxel; wrong in the last plane."""
    every = some = slab.ravel()
    for step in slab.strides:
        every, some = every[:-step] & every[step:], some[:-step] | some[step:]
    found = np.zeros(slab.size, bool)
    found[: len(every)] = every ^ some
    return found.reshape(slab.shape)


def _areas(mask: np.ndarray, elements: np.ndarray, steps_mm: Steps) -> np.ndarray:
    """Areas of a mask's surface elements in the order of `np.flatnonzero`."""
    where = np.flatnonzero(elements)
    code = np.zeros(len(where), np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim)):
        code |= mask.ravel()[where + np.dot(corner, mask.strides)].view(np.uint8) << bit
    return np.take(element_areas(steps_mm), code)
