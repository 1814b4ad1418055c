"""`Series`: what the headers of one DICOM series say, sorted into a grid; no voxel is decoded for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class PixelFormat:
    """How the numbers of a file's pixels are stored (PS3.3, C.7.6.3).

    Attributes:
        transfer_syntax: its UID.
        little_endian: byte order of uncompressed pixels.
        encapsulated: whether the pixels are compressed.
        rows: pixels along j.
        columns: pixels along i.
        frames: in the file; 1 for single-frame files.
        bits_allocated: 8, 16 or 32.
        bits_stored: how many of them count.
        high_bit: the highest that counts.
        signed: two's complement.
        inverted: low numbers are meant to be bright (MONOCHROME1).
        padding: lowest and highest stored number that marks pixels outside the image, or None.
    """

    transfer_syntax: str
    little_endian: bool
    encapsulated: bool
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool = False
    padding: tuple[int, int] | None = None

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame."""
        return self.rows * self.columns * self.bits_allocated // 8


class Pixels(NamedTuple):
    """Where one slice's pixels lie, and what its numbers mean.

    Attributes:
        format: how they are stored.
        offset: where the frame begins in the file; for compressed ones, where the file's pixel data begins.
        slope: value = slope × stored number + intercept.
        intercept: see `slope`.
    """

    format: PixelFormat
    offset: int
    slope: float
    intercept: float


class Slice(NamedTuple):
    """One plane of a series.

    Attributes:
        file: where it lies.
        frame: which frame of a multi-frame file, from 0; None for a single-frame file.
        sop_instance_uid: of the file.
        position_lps_mm: centre of the first pixel, in DICOM's patient coordinates.
        pixels: what reading them needs.
    """

    file: Path
    frame: int | None
    sop_instance_uid: str
    position_lps_mm: tuple[float, float, float]
    pixels: Pixels | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """One series that makes a volume, or a part of one that does.

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
        affine_ras: 4×4, voxel index to RAS+ millimetres. Sheared where the gantry was tilted.
        remarks: what was odd and could safely be dealt with, in words.
        part: what sets it apart from other parts of the same series, such as `echo time 90 ms`.
        patient: stands for the patient without naming them, the same in all series (`patients.py`).
        protocol: what else describes the contrast (`ProtocolName`, `EchoTime`, …), for guessing channels; its
            texts are shown and never stored, like the description.
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
    part: str = ""
    patient: str = ""
    protocol: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files in the order of the slices, each once."""
        return tuple(dict.fromkeys(each.file for each in self.slices))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along i, j, k."""
        i, j, k = np.linalg.norm(self.affine_ras[:3, :3], axis=0).tolist()
        return i, j, k
