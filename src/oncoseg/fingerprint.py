"""What the headers of a data set say about its images: how many voxels they have, and of which size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from oncoseg import io
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.volume import to_canonical

Grid = tuple[int, int, int]
"""Voxels along right, anterior, superior."""

Spacing = tuple[float, float, float]
"""Voxel size along right, anterior, superior in millimetres."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fingerprint:
    """Grids of all images of a data set; no voxel is read for it.

    Attributes:
        grids: of each case.
        spacings_mm: of each case.
    """

    grids: tuple[Grid, ...]
    spacings_mm: tuple[Spacing, ...]

    def __add__(self, other: "Fingerprint") -> "Fingerprint":
        """Of both data sets together."""
        return Fingerprint(self.grids + other.grids, self.spacings_mm + other.spacings_mm)

    def spacing_percentile_mm(self, percentile: float) -> Spacing:
        """Of the voxel sizes, each axis on its own."""
        i, j, k = np.percentile(self.spacings_mm, percentile, axis=0).tolist()
        return i, j, k

    def grid_percentile(self, percentile: float) -> Grid:
        """Of the numbers of voxels, each axis on its own, rounded."""
        i, j, k = np.rint(np.percentile(self.grids, percentile, axis=0)).astype(int).tolist()
        return i, j, k

    def extents_mm(self) -> np.ndarray:
        """How large each image's field of view is, axes `case axis`."""
        return np.asarray(np.array(self.grids) * np.array(self.spacings_mm))


def read_fingerprint(cases: Sequence[Case], progress: Progress | None = None) -> Fingerprint:
    """Read the headers of every case's first channel.

    Args:
        cases: of one data set; at least one.
        progress: called with (cases done, cases in all).

    Raises:
        DataError: no cases, an unreadable file, or images without a voxel size (PNG, TIFF).
    """
    if not cases:
        raise DataError("Expected cases to plan for, got none.")
    grids: list[Grid] = []
    spacings: list[Spacing] = []
    for number, case in enumerate(cases, 1):
        volume = io.read_grid(next(iter(case.images.values())))
        if not volume.spacing_known:
            raise DataError(
                f"Case {case.id}: its files hold no voxel size; expected images with one (DICOM, NIfTI, "
                "NRRD, MetaImage) for a system in 3D."
            )
        volume, _ = to_canonical(volume)
        grids.append(volume.grid)
        spacings.append(volume.spacing_mm)
        if progress:
            progress(number, len(cases))
    return Fingerprint(tuple(grids), tuple(spacings))
