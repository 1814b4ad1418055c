"""Masks in the form that each user uses: NIfTI for anyone, DICOM SEG and RTSTRUCT beside DICOM images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from oncoseg import io
from oncoseg.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np

    from oncoseg.io.dicom.origin import Algorithm
    from oncoseg.volume import Volume

MASK_FORMATS = {"nifti": ".nii.gz", "seg": "_seg.dcm", "rtstruct": "_rtstruct.dcm"}
"""Format of a mask → how its file's name ends, after the name of the case."""


def check_mask_format(name: str, like: "Volume | None" = None) -> None:
    """Check that there is such a format, and that a mask of some images can be written in it.

    Raises:
        DataError: an unknown format; or one of DICOM for images that are not DICOM, to which it would refer.
    """
    if name not in MASK_FORMATS:
        raise DataError(f"Unknown format {name!r} of masks; {nearest(name, MASK_FORMATS)}")
    if like is not None and name != "nifti":
        from oncoseg.io.dicom.series import Series

        if not isinstance(like.header, Series):
            raise DataError(
                f"A mask can be written as {name} for DICOM images only, because it refers to them; these "
                "are none. Leave --format out for NIfTI, or name the DICOM images."
            )


def write_mask(
    path: Path,
    name: str,
    labels: "np.ndarray",
    like: "Volume",
    classes: Mapping[int, str],
    algorithm: "Algorithm",
) -> None:
    """Write a label map in one of `MASK_FORMATS`, atomically.

    Args:
        path: ends as the format asks.
        name: the format.
        labels: uint8, axes `i j k` on the grid of `like`, 0 is background.
        like: the images that it is of; their header says which series they are.
        classes: label value → what it marks.
        algorithm: what made it.

    Raises:
        DataError: see `check_mask_format`, `write_labels`, `write_seg` and `write_rtstruct`.
        GeometryError: another shape than the grid of `like`.
        RunError: the disk is full or the folder cannot be written.
    """
    check_mask_format(name, like)
    if name == "nifti":
        io.write_labels(path, labels, like)
    elif name == "seg":
        from oncoseg.io.dicom.seg_writer import write_seg

        write_seg(path, labels, like.header, classes, algorithm)
    else:
        from oncoseg.io.dicom.rtstruct_writer import write_rtstruct

        write_rtstruct(path, labels, like.header, classes, algorithm)
