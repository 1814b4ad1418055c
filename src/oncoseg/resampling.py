"""Resampling volumes to other voxel sizes, and back. Training and prediction share every line here.

The field of view stays: the outer faces of an axis's first and last voxel lie where they lay (PyTorch's
`align_corners=False`), so that n voxels of d mm become m of n·d/m mm. Values are interpolated linearly; where
an axis shrinks the filter widens with it (antialiasing), so that nothing falls between the new voxels.
Beyond the border nothing counts, so that a voxel there is the mean of what its filter covers of the image.

Axial slices are computed one after the other and then mixed along k, always in the same order. A slab of
the result therefore has the very same numbers as the whole, and no more than a slab is ever held.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import sparse

from oncoseg.errors import DataError
from oncoseg.shares import likeliest

SPACING_TOLERANCE = 0.01
"""An axis whose voxel size differs from the wanted one by no more than this share is left as it is."""

MOST_VOXELS = 2_000_000_000
"""Of a resampled volume; more are a mistake in the spacing."""

ROUNDING = 1e-5
"""Shares that differ by less are a tie."""

Grid = tuple[int, int, int]
"""Number of voxels along i, j, k."""

Spacing = tuple[float, float, float]
"""Voxel size along i, j, k in millimetres."""


def target_shape(grid: Grid, spacing_mm: Spacing, target_spacing_mm: Spacing) -> Grid:
    """How many voxels a grid has after resampling to voxels of about `target_spacing_mm`; at least one.

    Raises:
        DataError: more than `MOST_VOXELS`.
    """
    i, j, k = (
        size if abs(is_mm / wanted_mm - 1) <= SPACING_TOLERANCE else max(1, round(size * is_mm / wanted_mm))
        for size, is_mm, wanted_mm in zip(grid, spacing_mm, target_spacing_mm, strict=True)
    )
    if i * j * k > max(MOST_VOXELS, math.prod(grid)):
        raise DataError(
            f"{_shown(grid)} voxels of {_shown(spacing_mm)} mm would become {i}×{j}×{k} of "
            f"{_shown(target_spacing_mm)} mm; expected at most {MOST_VOXELS:.0e} in all. Choose larger "
            "voxels in preparation.spacing_mm."
        )
    return i, j, k


def needed_slices(slices: int, target_slices: int, start: int, stop: int) -> slice:
    """The source slices along k on which target slices start … stop − 1 depend."""
    used = np.unique(_linear(slices, target_slices)[start:stop].indices)
    return slice(int(used[0]), int(used[-1]) + 1)


def resample_slab(voxels: np.ndarray, slices: int, shape: Grid, start: int, stop: int) -> np.ndarray:
    """Target slices start … stop − 1 along k, float32 `c i j k`.

    Args:
        voxels: `c i j k` of any number type, of k only those that `needed_slices` names.
        slices: the source has along k in all.
        shape: of the whole target.
        start: the first target slice.
        stop: the one after the last.
    """
    weights = [
        _linear(size, target) for size, target in zip((*voxels.shape[1:3], slices), shape, strict=True)
    ]
    return _resample(voxels, weights, needed_slices(slices, shape[2], start, stop), start, stop)


def resample_volume(voxels: np.ndarray, shape: Grid) -> np.ndarray:
    """Voxels `c i j k` of any number type on another grid of the same field of view, float32."""
    return resample_slab(voxels, voxels.shape[-1], shape, 0, shape[2])


def resample_labels_slab(
    labels: np.ndarray, classes: int, slices: int, shape: Grid, start: int, stop: int
) -> np.ndarray:
    """Target slices start … stop − 1 of class indices `i j k`, uint8.

    A voxel of which all classes together cover at least half goes to the class that covers most of it, so
    that a small lesion keeps its volume instead of depending on where nearest neighbour happens to look; see
    `shares`. Where an axis shrinks that is the exact share, where it grows each class is interpolated as an
    image.

    Args:
        labels: `i j k`, of k only those that `needed_slices` names.
        classes: highest class index.
        slices: see `resample_slab`.
        shape: likewise.
        start: likewise.
        stop: likewise.
    """
    if shape == (*labels.shape[:2], slices):
        return labels.astype(np.uint8)
    weights = [_shares(size, target) for size, target in zip((*labels.shape[:2], slices), shape, strict=True)]
    one_hot = np.stack([labels == index for index in range(1, classes + 1)])
    covered = _resample(one_hot, weights, needed_slices(slices, shape[2], start, stop), start, stop)
    together = covered.sum(axis=0)
    return likeliest(covered, together >= 1 - together - ROUNDING)


def resample_labels(labels: np.ndarray, classes: int, shape: Grid) -> np.ndarray:
    """Class indices `i j k` on another grid of the same field of view, uint8; see `resample_labels_slab`."""
    return resample_labels_slab(labels, classes, labels.shape[-1], shape, 0, shape[2])


def restore_slab(probability: np.ndarray, grid: Grid, start: int, stop: int) -> np.ndarray:
    """Undo `resample_volume` for probabilities: slices start … stop − 1 of the source, float32 `c i j k`.

    Args:
        probability: `c i j k` on the whole target grid; only what the slab needs of it is read.
        grid: of the source.
        start: the first slice of the source.
        stop: the one after the last.
    """
    slices = probability.shape[-1]
    needed = needed_slices(slices, grid[2], start, stop)
    return resample_slab(probability[..., needed], slices, grid, start, stop)


def _resample(
    voxels: np.ndarray, weights: list[sparse.csr_array], needed: slice, start: int, stop: int
) -> np.ndarray:
    along_i, along_j, along_k = weights
    mixing = along_k[start:stop].toarray()[:, needed]
    mixed = np.zeros((stop - start, len(voxels), along_i.shape[0], along_j.shape[0]), np.float32)
    for number, of_slice in enumerate(mixing.T):
        targets = np.flatnonzero(of_slice)
        plane = _in_plane(voxels[..., number], along_i, along_j) if len(targets) else None
        for target in targets:
            mixed[target] += of_slice[target] * plane
    return np.moveaxis(mixed, 0, -1)


def _in_plane(plane: np.ndarray, along_i: sparse.csr_array, along_j: sparse.csr_array) -> np.ndarray:
    """One slice `c i j` as float32 at another size."""
    pixels = np.ascontiguousarray(plane, dtype=np.float32)
    if plane.shape[1:] == (along_i.shape[0], along_j.shape[0]) or not pixels.any():
        return np.resize(pixels, (len(pixels), along_i.shape[0], along_j.shape[0]))
    return np.stack([(along_j @ (along_i @ channel).T).T for channel in pixels])


@lru_cache(maxsize=16)
def _linear(source: int, target: int) -> sparse.csr_array:
    """What each of the target's places takes of each of the source's; float32 `target source`."""
    ratio = source / target
    centres = (np.arange(target) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(source) - centres[:, None])
    return _normalised(np.clip(1 - distance / max(1, ratio), 0, None))


@lru_cache(maxsize=16)
def _shares(source: int, target: int) -> sparse.csr_array:
    """Likewise of shares: where the axis shrinks, how much of the new place each of the old covers."""
    if target >= source:
        return _linear(source, target)
    faces = np.arange(target + 1) * (source / target)
    starts, ends = faces[:-1, None], faces[1:, None]
    old = np.arange(source)
    return _normalised(np.clip(np.minimum(ends, old + 1) - np.maximum(starts, old), 0, None))


def _normalised(weights: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def _shown(numbers: Sequence[float]) -> str:
    return "×".join(f"{number:.3g}" if number < 1000 else f"{number:.0f}" for number in numbers)
