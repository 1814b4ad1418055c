"""A marker in the patient that no turn and no mirror leaves as it is, and DICOM series that show it.

A bright block with three arms: a long one to the Left, a middle one to Superior, a short one to
Posterior. It is defined in DICOM's patient coordinates (LPS: x to the Left, y to Posterior, z to
Superior; mm), and a voxel shows it where its centre lies in it. Where that is follows from the header
alone, by the equation of PS3.3 C.7.6.2.1.1, so that nothing here is of the program that is tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dicom_files import multi_frame, slices, write

BLOCK_MM = np.array([-37.3, 21.7, 104.1])
"""Where the block's centre lies in the patient."""

HALF_MM = 4.15
"""Half of the width of the block and of its arms."""

REACH_MM = {"L": 19.3, "P": 11.2, "S": 15.1}
"""How far from the block's centre the arms end."""

TENTH = 0.1
"""Of a voxel: no centroid may lie further from where it should, along any axis of the grid."""

ROTATIONS = [
    (*np.array(row), *np.array(column))
    for (row, column) in (
        (one * np.eye(3)[a], other * np.eye(3)[b])
        for a, b in permutations(range(3), 2)
        for one, other in product((1.0, -1.0), repeat=2)
    )
]
"""The 24 ways to lay rows and columns along the patient's axes; the normal follows from both."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a series lie, in DICOM's own words.

    Attributes:
        cosines: ImageOrientationPatient: along a row, down a column.
        size: pixels along i and j, and slices.
        spacing_mm: along i, j and from slice to slice.
        shear_mm: how far each slice is moved along its columns against the one before (a tilted gantry).
        offset_mm: of the grid's centre from the block's.
        dark: stored number outside of the marker; of CT, −1000 HU.
        bright: inside; of CT, 1000 HU.
    """

    cosines: Sequence[float] = (1, 0, 0, 0, 1, 0)
    size: tuple[int, int, int] = (24, 22, 18)
    spacing_mm: tuple[float, float, float] = (1.5, 2.0, 3.0)
    shear_mm: float = 0.0
    offset_mm: Sequence[float] = (6.5, 3.0, 4.5)
    dark: int = 24
    bright: int = 2024

    @property
    def steps_lps(self) -> np.ndarray:
        """3×3: its columns are the steps to the next voxel along i, j and k."""
        row, column = np.array(self.cosines[:3], float), np.array(self.cosines[3:], float)
        step = np.cross(row, column) * self.spacing_mm[2] + column * self.shear_mm
        return np.column_stack([row * self.spacing_mm[0], column * self.spacing_mm[1], step])

    @property
    def first_lps_mm(self) -> np.ndarray:
        """Centre of the first voxel."""
        middle = (np.array(self.size) - 1) / 2
        return np.asarray(BLOCK_MM + self.offset_mm - self.steps_lps @ middle)

    def places_mm(self, ijk: np.ndarray) -> np.ndarray:
        """Centres of voxels (n×3), from their indices."""
        return np.asarray(self.first_lps_mm + ijk @ self.steps_lps.T)

    @property
    def marked(self) -> np.ndarray:
        """Which voxels show the marker, axes `i j k`."""
        every = np.argwhere(np.ones(self.size, bool))
        return is_marked(self.places_mm(every)).reshape(self.size)

    @property
    def marked_mm(self) -> np.ndarray:
        """The centres of these."""
        return self.places_mm(np.argwhere(self.marked))

    def images(self, **more: Any) -> list[Any]:
        """A series, one dataset per slice, with the arguments of `dicom_files.slices`."""
        return slices(self._stored, cosines=self.cosines, spacing_mm=self.spacing_mm, at=self._at, **more)

    def enhanced(self, order: Sequence[int] | None = None, **more: Any) -> Any:
        """The same as one multi-frame image, whose frames are the slices in the given order."""
        order = range(self.size[2]) if order is None else order
        return multi_frame(
            self._stored[..., list(order)],
            cosines=self.cosines,
            spacing_mm=self.spacing_mm,
            at=[self._at[k] for k in order],
            **more,
        )

    def write(self, folder: Path, order: int = 1, **more: Any) -> Path:
        """Write the series into a folder, by names that run with the slices (1) or against them (−1)."""
        images = self.images(**more)
        for number, image in enumerate(images[::order], 1):
            image.InstanceNumber = number
        write(images[::order], folder)
        return folder

    @property
    def _stored(self) -> np.ndarray:
        return np.where(self.marked, self.bright, self.dark).astype(np.uint16)

    @property
    def _at(self) -> list[list[float]]:
        return [self.places_mm(np.array([0, 0, k])).tolist() for k in range(self.size[2])]


class Found(NamedTuple):
    """What another program sees of a mask.

    Attributes:
        centroid_mm: of its voxels or of what its contours enclose, in patient coordinates (LPS).
        low_mm: the smallest coordinates of its voxels' centres or of its contours' points.
        high_mm: the largest.
        voxels: how many; NaN where it counts none.
    """

    centroid_mm: np.ndarray
    low_mm: np.ndarray
    high_mm: np.ndarray
    voxels: float

    @classmethod
    def of(cls, places_mm: np.ndarray) -> "Found":
        """Of the centres of voxels (n×3)."""
        return cls(places_mm.mean(0), places_mm.min(0), places_mm.max(0), len(places_mm))


def is_marked(places_mm: np.ndarray) -> np.ndarray:
    """Which of the places (n×3, LPS) lie in the marker."""
    away = places_mm - BLOCK_MM
    inside = np.zeros(len(away), bool)
    for axis, reach in enumerate(REACH_MM.values()):
        others = [other for other in range(3) if other != axis]
        along = (away[:, axis] > -HALF_MM) & (away[:, axis] < reach)
        inside |= along & (np.abs(away[:, others]) < HALF_MM).all(axis=1)
    return inside


def assert_is_marker(found: Found, grid: Grid, exact: bool = True) -> None:
    """Check the place of a mask, and that its arms point to Left, Posterior and Superior.

    Args:
        found: what another program sees.
        grid: of the series that shows the marker.
        exact: whether it must be the very same voxels.
    """
    expected = grid.marked_mm
    away_voxels = np.linalg.solve(grid.steps_lps, found.centroid_mm - expected.mean(axis=0))
    assert np.abs(away_voxels).max() < TENTH
    if exact and not np.isnan(found.voxels):
        assert found.voxels == len(expected)
    a_voxel = (1 + TENTH) * np.abs(grid.steps_lps).sum(axis=1)
    for axis, (side, reach) in enumerate(REACH_MM.items()):
        to_side, to_other = found.high_mm[axis] - BLOCK_MM[axis], BLOCK_MM[axis] - found.low_mm[axis]
        assert abs(to_side - reach) < a_voxel[axis], f"the arm to {side}"
        assert abs(to_other - HALF_MM) < a_voxel[axis], f"the side against {side}"
        assert to_side > to_other
