"""The files of one DICOM series, as a data set names them → the series, or its size from the first header."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.dicom.choosing import listed
from oncoseg.io.dicom.headers import quiet, read_header
from oncoseg.io.dicom.kinds import VOLUMES
from oncoseg.io.dicom.parts import normal
from oncoseg.io.dicom.planes import Plane, planes_of
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import survey_files
from oncoseg.io.dicom.values import values_type

SHOWN_REASONS = 3
"""How many reasons why files are no series are told."""


def series_of(files: Sequence[Path]) -> Series:
    """The series that files make all together; its patient is not asked for and stays empty.

    Raises:
        DataError: they are not all DICOM, make no volume or several, or some cannot be part of it.
    """
    found = survey_files(files, salt=b"")
    if found.not_dicom or found.annotations:
        others = found.not_dicom + len(found.annotations)
        raise DataError(
            f"{others} of {len(files)} files from {files[0]} on are no DICOM images; expected the slices "
            "of one series."
        )
    if found.left_out:
        reasons = "; ".join(f"{each.kind}: {each.reason}" for each in found.left_out[:SHOWN_REASONS])
        raise DataError(f"The DICOM files from {files[0]} on are no volume: {reasons}.")
    if len(found.series) != 1:
        raise DataError(
            f"The DICOM files from {files[0]} on are {len(found.series)} series; expected one. Name the "
            f"files of one of them:\n{listed(found.series)}"
        )
    return replace(found.series[0], patient="")


def expected_bytes(files: Sequence[Path]) -> int:
    """Size of a series in memory, judged by its first file.

    Raises:
        DataError: that cannot be used.
    """
    planes = _planes(files[0])
    kind = values_type([planes[0].pixels], planes[0].text("Modality"))
    return math.prod(_grid(planes, files)) * kind.itemsize


def expected_voxels(files: Sequence[Path]) -> int:
    """Number of voxels of a series, judged by its first file.

    Raises:
        DataError: that cannot be used.
    """
    return math.prod(_grid(_planes(files[0]), files))


def axial_slices(files: Sequence[Path]) -> int:
    """Number of slices of a series along the axis nearest to head–feet, judged by its first file.

    Raises:
        DataError: that cannot be used.
    """
    from nibabel.orientations import io_orientation

    planes = _planes(files[0])
    first = planes[0]
    directions = np.eye(4)
    directions[:3, :3] = np.column_stack([first.cosines[:3], first.cosines[3:], normal(first)])
    axis = int(np.flatnonzero(io_orientation(directions)[:, 0] == 2)[0])
    return _grid(planes, files)[axis]


def _planes(file: Path) -> list[Plane]:
    with quiet():
        try:
            return planes_of(read_header(file, VOLUMES))
        except DataError as error:
            told = str(error)
            raise DataError(told if str(file) in told else f"{file} cannot be a slice: {told}.") from error


def _grid(planes: Sequence[Plane], files: Sequence[Path]) -> tuple[int, int, int]:
    stored = planes[0].pixels.format
    return stored.columns, stored.rows, len(planes) * len(files)
