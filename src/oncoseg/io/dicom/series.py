"""`Series`: what the headers of one DICOM series say, sorted into a grid; no voxel is decoded for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Slice(NamedTuple):
    """One plane of a series.

    Attributes:
        file: where it lies.
        frame: which frame of a multi-frame file, from 0; None for a single-frame file.
        sop_instance_uid: of the file.
        position_lps_mm: centre of the first pixel, in DICOM's patient coordinates.
    """

    file: Path
    frame: int | None
    sop_instance_uid: str
    position_lps_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Series:
    """One series that makes a volume.

    The grid's axes are i along a row of pixels (column index), j down a column (row index), k along the
    normal from the first slice to the last; nothing is flipped.

    Attributes:
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        frame_of_reference_uid: empty where the files do not say.
        modality: `CT`, `MR`, `PT`, …
        description: SeriesDescription, as it stands; it may name a patient, so it is shown and never stored.
        number: SeriesNumber, or None.
        slices: one per index k, sorted by position along the normal (row direction × column direction).
        grid: voxels along i, j, k.
        affine_ras: 4×4, voxel index to RAS+ millimetres.
        remarks: what was odd and could safely be dealt with, in words.
    """

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    number: int | None
    slices: tuple[Slice, ...]
    grid: tuple[int, int, int]
    affine_ras: np.ndarray
    remarks: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files in the order of the slices, each once."""
        return tuple(dict.fromkeys(each.file for each in self.slices))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along i, j, k."""
        i, j, k = np.linalg.norm(self.affine_ras[:3, :3], axis=0).tolist()
        return i, j, k
