"""Reading and writing images. The only place where file formats and other conventions exist."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncoseg.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from oncoseg.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""One file that holds a volume."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
"""One file per axial slice."""


@dataclass(frozen=True)
class ImageRef:
    """Where one single-channel image or mask lies on disk.

    Attributes:
        files: one file that holds a volume, or one 2D image or DICOM instance per slice, in the order of
            the third axis; or the files of an annotation (RTSTRUCT, DICOM SEG, LIDC XML).
        component: which component of a colour image (0 red, 1 green, 2 blue); None for grey ones.
        grid_of: of an annotation, the files of the DICOM series on whose grid it is read; else empty.
        structures: of an annotation, (name of a structure or segment, label value that it gets); where
            two overlap the later one is kept.
    """

    files: tuple[Path, ...]
    component: int | None = None
    grid_of: tuple[Path, ...] = ()
    structures: tuple[tuple[str, int], ...] = ()


def read(ref: ImageRef) -> "Volume":
    """Read one channel.

    Returns:
        Array with axes `1 i j k` in the file's own type; float32 where the file asks for scaling.

    Raises:
        DataError: missing, unreadable or truncated file, wrong number of dimensions, colour where
            grey is expected, or voxels that are not finite numbers.
    """
    return _component(_decode(ref.files), ref)


def read_channels(refs: Mapping[str, ImageRef]) -> "Volume":
    """Read several channels of one grid as `c i j k`, in the mapping's order; no file is decoded twice.

    Raises:
        DataError: see `read`.
        GeometryError: the channels do not share a grid.
    """
    from oncoseg.volume import stack_channels

    if not refs:
        raise DataError("Expected at least one channel to read, got none.")
    decoded: dict[tuple[Path, ...], Volume] = {}
    for ref in refs.values():
        if ref.files not in decoded:
            decoded[ref.files] = _decode(ref.files)
    return stack_channels({name: _component(decoded[ref.files], ref) for name, ref in refs.items()})


def voxel_bytes(ref: ImageRef) -> int:
    """Size in memory of what `read` would decode, from the header of the first file alone.

    Raises:
        DataError: the file is missing or unreadable.
    """
    first = ref.files[0]
    if first.name.lower().endswith(NIFTI_SUFFIXES):
        from oncoseg.io.nifti import open_slabs

        with open_slabs(first) as slabs:
            return math.prod(slabs.grid) * slabs.dtype.itemsize
    from oncoseg.io.images import read_stack

    return read_stack([first]).array.nbytes * len(ref.files)


def orientation_known(volume: "Volume") -> bool:
    """Whether the source says how the patient lies in the grid.

    PNG and TIFF do not, nor does NIfTI with the codes of qform and sform both 0.
    """
    from nibabel.nifti1 import Nifti1Header

    header = volume.header
    placed = not isinstance(header, Nifti1Header) or max(header["qform_code"], header["sform_code"]) > 0
    return volume.spacing_known and bool(placed)


def write_labels(path: Path, labels: "np.ndarray", like: "Volume") -> None:
    """Write a label map as uint8 NIfTI on the grid of `like`, atomically.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        labels: uint8, axes `i j k`, 0 is background.
        like: gives the affine; where it was read from NIfTI, also the qform and sform codes and
            the units. Nothing else of its header is copied, as free text may name a patient. Where
            it is a stack of 2D images, neither size nor place is claimed: codes 0, unit unknown.

    Raises:
        DataError: another type or suffix.
        GeometryError: another shape than the grid of `like`.
        RunError: the disk is full or the folder cannot be written.
    """
    from oncoseg.io.nifti_writer import write_nifti

    write_nifti(path, labels, like, "uint8")


def write_scalars(path: Path, values: "np.ndarray", like: "Volume") -> None:
    """Write numbers such as probabilities (float32, axes `i j k`); otherwise as `write_labels`."""
    from oncoseg.io.nifti_writer import write_nifti

    write_nifti(path, values, like, "float32")


def _decode(files: tuple[Path, ...]) -> "Volume":
    """Read every component of a volume file or of a stack of 2D images."""
    if not files:
        raise DataError("Expected at least one image file, got none.")
    name = files[0].name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        from oncoseg.io.nifti import read_nifti

        if len(files) != 1:
            raise DataError(f"Expected one NIfTI file per channel, got {len(files)} from {files[0]} on.")
        return read_nifti(files[0])
    if name.endswith(IMAGE_SUFFIXES):
        from oncoseg.io.images import read_stack

        return read_stack(files)
    known = ", ".join(NIFTI_SUFFIXES + IMAGE_SUFFIXES)
    raise DataError(f"{files[0]} has a suffix that cannot be read; expected one of {known}.")


def _component(volume: "Volume", ref: ImageRef) -> "Volume":
    count = volume.array.shape[0]
    if ref.component is None and count == 1:
        return volume
    if ref.component is None:
        raise DataError(f"{ref.files[0]} is a colour image; expected a grey one. Convert it to grey first.")
    if not 0 <= ref.component < count or count == 1:
        raise DataError(
            f"{ref.files[0]} has {count} component(s); expected colour with component {ref.component}."
        )
    return volume.with_array(volume.array[ref.component : ref.component + 1])
