"""Lesions of masks, which are their connected components, and what those of two masks share."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

Box = tuple[slice, ...]
"""Part of an image, a slice per axis."""

REACH = {(2, 4): 1, (2, 8): 2, (3, 6): 1, (3, 18): 2, (3, 26): 3}
"""(axes, connectivity) → axes along which neighbours may differ; the connectivity counts neighbours."""

DEFAULT_CONNECTIVITY = {2: 8, 3: 26}
"""Axes → connectivity: voxels that touch by a corner are of one lesion, as in BraTS."""

BLOCK_VOXELS = 8
"""Edge of the blocks by which a mask is cut into regions; only sets the speed."""


class Lesions(NamedTuple):
    """Lesions of a mask. Each is cut out: an image of labels would need far more memory and time.

    Attributes:
        shape: of the mask.
        boxes: of lesion 1, 2, …
        masks: bool, lesion 1, 2, … within its box, without any other.
        voxels: int64, size of lesion 1, 2, …
        voxel_mm3: volume of a voxel; in 2D its area in mm².
        dropped: lesions left out because they are too small.
    """

    shape: tuple[int, ...]
    boxes: list[Box]
    masks: list[np.ndarray]
    voxels: np.ndarray
    voxel_mm3: float
    dropped: int


def find_lesions(
    mask: np.ndarray,
    spacing_mm: Sequence[float],
    connectivity: int | None = None,
    min_volume_mm3: float = 0.0,
) -> Lesions:
    """Connected components of a mask. An empty mask has none.

    A minimum for the truth makes false positives of predictions that match a dropped lesion; a minimum
    for the prediction takes away its small false positives. Whoever sets one says so.

    Args:
        mask: bool, 2D or 3D.
        spacing_mm: voxel size along every axis.
        connectivity: neighbours that a voxel is joined with: 4 or 8 in 2D, 6, 18 or 26 in 3D; by
            default DEFAULT_CONNECTIVITY.
        min_volume_mm3: smaller lesions are dropped; in 2D an area in mm².

    Raises:
        ValueError: another dtype, number of axes, connectivity or spacing.
    """
    structure = _neighbourhood(mask, connectivity)
    voxel_mm3 = _voxel_volume(mask, spacing_mm)
    boxes, masks = [], []
    for region, part in regions(mask):
        labels, _ = ndimage.label(part, structure=structure)
        for label, inner in enumerate(ndimage.find_objects(labels), 1):
            boxes.append(_within(region, inner))
            masks.append(labels[inner] == label)
    voxels = np.array([np.count_nonzero(lesion) for lesion in masks], np.int64)
    kept = np.flatnonzero(voxels * voxel_mm3 >= min_volume_mm3)
    return Lesions(
        mask.shape,
        [boxes[index] for index in kept],
        [masks[index] for index in kept],
        voxels[kept],
        voxel_mm3,
        len(voxels) - len(kept),
    )


class Overlaps(NamedTuple):
    """What true and predicted lesions share; the first three of all lesions, the others of each pair.

    Attributes:
        truth_voxels: size of true lesion 1, 2, …
        prediction_voxels: size of predicted lesion 1, 2, …
        voxel_mm3: volume of a voxel; in 2D its area in mm².
        truth: the true lesion's label.
        prediction: the predicted lesion's label.
        voxels: in both, at least 1.
    """

    truth_voxels: np.ndarray
    prediction_voxels: np.ndarray
    voxel_mm3: float
    truth: np.ndarray
    prediction: np.ndarray
    voxels: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair, in (0, 1]."""
        iou: np.ndarray = self.voxels / (self._sizes - self.voxels)
        return iou

    @property
    def dice(self) -> np.ndarray:
        """Dice of each pair, in (0, 1]."""
        dice: np.ndarray = 2 * self.voxels / self._sizes
        return dice

    @property
    def _sizes(self) -> np.ndarray:
        sizes: np.ndarray = self.truth_voxels[self.truth - 1] + self.prediction_voxels[self.prediction - 1]
        return sizes


def lesion_overlaps(truth: Lesions, prediction: Lesions) -> Overlaps:
    """Count the voxels that true and predicted lesions share; no pairs where either has no lesion.

    Raises:
        ValueError: the images differ in shape.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"Expected lesions of one image's shape, got {truth.shape} and {prediction.shape}.")
    corners = np.array([[(side.start, side.stop) for side in box] for box in prediction.boxes])
    starts, stops = np.moveaxis(corners.reshape(-1, len(truth.shape), 2), 2, 0)
    pairs = []
    for label, (box, lesion) in enumerate(zip(truth.boxes, truth.masks, strict=True), 1):
        first, last = [side.start for side in box], [side.stop for side in box]
        for near in np.flatnonzero(((starts < last) & (stops > first)).all(axis=1)):
            voxels = _shared_voxels(box, lesion, prediction.boxes[near], prediction.masks[near])
            pairs.append((label, near + 1, voxels))
    found = np.array([pair for pair in pairs if pair[2]], np.int64).reshape(-1, 3)
    return Overlaps(truth.voxels, prediction.voxels, truth.voxel_mm3, *found.T)


def regions(mask: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Parts of a mask that share no lesion: touching blocks with tumour, without the empty space between.

    Args:
        mask: bool.

    Yields:
        The part's box, and the mask within it without what belongs to other parts.
    """
    blocks = mask
    for axis in np.argsort(np.abs(mask.strides))[::-1]:  # long runs of memory first
        blocks = _any_in_blocks(blocks, axis)
    numbers, _ = ndimage.label(blocks, structure=np.ones((3,) * mask.ndim))
    for number, coarse in enumerate(ndimage.find_objects(numbers), 1):
        box = tuple(slice(s.start * BLOCK_VOXELS, s.stop * BLOCK_VOXELS) for s in coarse)
        part = mask[box]
        inside = numbers[coarse] == number
        for axis, size in enumerate(part.shape):
            inside = inside.repeat(BLOCK_VOXELS, axis).take(np.arange(size), axis)
        yield box, part & inside


def part_of(box: Box, outer: Box) -> Box:
    """Where a box lies in an array that holds the outer box."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))


def _neighbourhood(mask: np.ndarray, connectivity: int | None) -> np.ndarray:
    if mask.dtype != bool or mask.ndim not in DEFAULT_CONNECTIVITY:
        raise ValueError(f"Expected a bool mask of two or three axes, got {mask.dtype} {mask.shape}.")
    neighbours = DEFAULT_CONNECTIVITY[mask.ndim] if connectivity is None else connectivity
    if (mask.ndim, neighbours) not in REACH:
        known = [number for axes, number in REACH if axes == mask.ndim]
        raise ValueError(f"Expected a connectivity of {known} in {mask.ndim}D, got {connectivity}.")
    structure: np.ndarray = ndimage.generate_binary_structure(mask.ndim, REACH[mask.ndim, neighbours])
    return structure


def _voxel_volume(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    if len(spacing_mm) != mask.ndim or not all(0 < size < math.inf for size in spacing_mm):
        raise ValueError(f"Expected {mask.ndim} voxel sizes above 0 mm, got {tuple(spacing_mm)}.")
    return math.prod(float(size) for size in spacing_mm)


def _any_in_blocks(mask: np.ndarray, axis: int) -> np.ndarray:
    """Shorten an axis by BLOCK_VOXELS; slices are much faster than `np.logical_or.reduceat`."""
    first = np.moveaxis(mask, axis, 0)
    blocks = first[::BLOCK_VOXELS].copy("K")
    for offset in range(1, BLOCK_VOXELS):
        part = first[offset::BLOCK_VOXELS]
        blocks[: len(part)] |= part
    return np.moveaxis(blocks, 0, axis)


def _within(outer: Box, inner: Box) -> Box:
    return tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))


def _shared_voxels(box: Box, mask: np.ndarray, other_box: Box, other_mask: np.ndarray) -> int:
    sides = zip(box, other_box, strict=True)
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in sides)
    shared = mask[part_of(common, box)] & other_mask[part_of(common, other_box)]
    return int(np.count_nonzero(shared))
