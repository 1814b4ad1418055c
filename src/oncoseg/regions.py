"""Boxes of voxels: where a box lies on other axes, and which one holds what was found.

A box is the first voxel and the one after the last along i, j and k of a canonical grid, unless another grid
is named.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from nibabel.orientations import io_orientation

from oncoseg.volume import Volume

Side = tuple[int, int]
Box = tuple[Side, Side, Side]
"""First voxel and the one after the last, along i, j and k."""

CELL = 4
"""In-plane side, in voxels, of the cells in which what was found is counted: of 512×512×800 voxels, 13 MB.
Boxes are rounded outwards to whole cells."""


def whole(grid: tuple[int, int, int]) -> Box:
    """All of a grid."""
    return (0, grid[0]), (0, grid[1]), (0, grid[2])


def read_box(values: Sequence[Sequence[int]]) -> Box:
    """A box as JSON holds it."""
    i, j, k = ((int(first), int(stop)) for first, stop in values)
    return i, j, k


def slices_of(box: Box) -> tuple[slice, slice, slice]:
    """For indexing an array `i j k`."""
    i, j, k = (slice(*side) for side in box)
    return i, j, k


def on_own_axes(box: Box, like: Volume) -> Box:
    """A canonical box on the axes of the grid that it is of."""
    turned = []
    for size, (axis, direction) in zip(like.grid, io_orientation(like.affine_ras), strict=True):
        first, stop = box[int(axis)]
        turned.append((first, stop) if direction > 0 else (size - stop, size - first))
    return read_box(turned)


def cropped(volume: Volume, box: Box) -> Volume:
    """The voxels in a box on the volume's own axes; each stays where it was in the patient."""
    moved = np.eye(4)
    moved[:3, 3] = [first for first, _ in box]
    array = volume.array[(slice(None), *slices_of(box))]
    return replace(volume, array=array, affine_ras=volume.affine_ras @ moved)


class Found:
    """Collects what was found, slab by slab, and gives the box of its largest connected part.

    Args:
        grid: voxels along i, j, k of the canonical grid.
    """

    def __init__(self, grid: tuple[int, int, int]) -> None:
        self._grid = grid
        self._counts = np.zeros((-(-grid[0] // CELL), -(-grid[1] // CELL), grid[2]), np.uint8)

    def add(self, start: int, marks: np.ndarray) -> None:
        """Take in slices from `start` on: bool, canonical `i j k`."""
        rows, columns, _ = self._counts.shape
        beyond = [(0, cells * CELL - size) for cells, size in zip((rows, columns), marks.shape, strict=False)]
        padded = np.pad(marks, (*beyond, (0, 0)))
        cells = padded.reshape(rows, CELL, columns, CELL, -1).sum(axis=(1, 3), dtype=np.uint8)
        self._counts[..., start : start + marks.shape[2]] = cells

    def box(self, margin: Sequence[int]) -> Box | None:
        """The box around the part with the most voxels, touching cells being connected.

        Args:
            margin: voxels along i, j, k by which it is dilated, within the grid.

        Returns:
            The box; None where nothing was found.
        """
        from scipy import ndimage

        parts, count = ndimage.label(self._counts, np.ones((3, 3, 3)))
        if not count:
            return None
        sizes = np.bincount(parts.ravel(), weights=self._counts.ravel())
        extent = ndimage.find_objects(parts)[int(sizes[1:].argmax())]
        sides = []
        for part, cell, more, size in zip(extent, (CELL, CELL, 1), margin, self._grid, strict=True):
            sides.append((max(0, part.start * cell - more), min(size, part.stop * cell + more)))
        return read_box(sides)


def margin_voxels(margin_mm: float, spacing_mm: Sequence[float]) -> list[int]:
    """Voxels along each axis that reach at least so far."""
    return [math.ceil(margin_mm / size) for size in spacing_mm]
