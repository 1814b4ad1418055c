"""Synthetic studies, each in a public data set's own layout, for machines without any data.

Scores on them are never results about patients.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from oncoseg.phantom.brain_mri import make_brain_mri
from oncoseg.phantom.folder import Progress
from oncoseg.phantom.hospital_dicom import make_hospital_dicom
from oncoseg.phantom.liver_ct import make_liver_ct, make_vessel_ct
from oncoseg.phantom.lung_ct import make_lung_ct
from oncoseg.phantom.lung_ct_dicom import make_lung_ct_dicom

__all__ = [
    "PHANTOMS",
    "SIZED",
    "MakePhantom",
    "Progress",
    "make_brain_mri",
    "make_hospital_dicom",
    "make_liver_ct",
    "make_lung_ct",
    "make_lung_ct_dicom",
    "make_vessel_ct",
]


class MakePhantom(Protocol):
    """Writes `cases` synthetic cases below the new folder `out`; equal seeds give equal voxels."""

    def __call__(self, out: Path, cases: int, seed: int, progress: Progress | None = None) -> None:
        """Write the cases; see `oncoseg.phantom.folder.write_cases` for what it raises."""


PHANTOMS: dict[str, MakePhantom] = {
    "brain-mri": make_brain_mri,
    "lung-ct": make_lung_ct,
    "liver-ct": make_liver_ct,
    "vessel-ct": make_vessel_ct,
    "lung-ct-dicom": make_lung_ct_dicom,
    "hospital-dicom": make_hospital_dicom,
}
"""Each phantom by its name on the command line."""

SIZED: dict[str, Callable[..., None]] = {
    "brain-mri": make_brain_mri,
    "liver-ct": make_liver_ct,
    "vessel-ct": make_vessel_ct,
    "hospital-dicom": make_hospital_dicom,
}
"""Those that also take `size`, the number of voxels along i, j, k."""
