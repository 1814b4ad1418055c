"""Writing NIfTI on the grid of the image that a result belongs to."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.files import atomic_file
from oncoseg.io import NIFTI_SUFFIXES
from oncoseg.io.nifti_header import affine_mm, forms_differ, millimetres_per_unit
from oncoseg.volume import Volume

GZIP_LEVEL = 1
"""isal's level (0 to 3); masks pack well at any."""

LARGEST_NIFTI_1_SIDE = 32767
"""Voxels along an axis that NIfTI-1 can count."""

AFFINE_EQUAL_MM = 1e-9
"""An affine this near to the source header's is the header's own, and its fields are copied bit by bit."""

QFORM_OFF_VOXELS = 0.1
"""A qform cannot hold axes that are not perpendicular. It is left out where it would place a corner further
from where it lies than this share of the smallest voxel side; programs that read no sheared sform, such as
those of ITK, then refuse the file rather than show it elsewhere."""

GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Header fields that say where the grid lies; with `pixdim` and `xyzt_units` all that is ever copied."""

SCANNER, ALIGNED, MILLIMETRE = 1, 2, 2
"""NIfTI codes for coordinates of a scanner, for those of something else, and for lengths in millimetres."""


def write_nifti(path: Path, array: np.ndarray, like: Volume, dtype: str) -> None:
    """Write `i j k` voxels of one type on the grid of `like`, atomically and reproducibly byte by byte.

    A fourth axis of length 1 in the source is kept, so that the result has the source's very shape.

    Raises:
        DataError: another type or suffix than expected.
        GeometryError: another shape than the grid of `like`.
    """
    if array.dtype != np.dtype(dtype):
        raise DataError(f"Cannot write {path}: expected {dtype} voxels, got {array.dtype}.")
    header = _header_like(like)
    header.set_data_dtype(array.dtype)
    header.set_data_shape((*like.grid, *(n for n in header.get_data_shape()[3:] if n == 1)))
    _write(path, header, [array], like)


def write_volumes(
    path: Path, volumes: Iterable[np.ndarray], count: int, like: Volume, dtype: np.dtype
) -> None:
    """Write images as NIfTI with as exact a place as the format can hold, and nothing else of their source.

    Where both forms of the source disagree, only the sform, by which it was read, is written. Where the
    voxel size is unknown, only the axes' directions are: `pixdim` is 0 and the unit unknown.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        volumes: `i j k` voxels, one after the other, so that they need not be in memory together; more than
            one make a 4D file.
        count: how many.
        like: gives the grid.
        dtype: of the file; every volume must be of it.

    Raises:
        DataError: another type or suffix.
        GeometryError: another shape than the grid.
        RunError: the disk is full or the folder cannot be written.
    """
    header = _image_header(like)
    header.set_data_shape(like.grid if count == 1 else (*like.grid, count))
    header.set_data_dtype(dtype)
    _write(path, header, volumes, like)


def _write(path: Path, header: Any, volumes: Iterable[np.ndarray], like: Volume) -> None:
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise DataError(f"Cannot write {path}: expected a name that ends in {' or '.join(NIFTI_SUFFIXES)}.")
    header.set_slope_inter(1, 0)
    with atomic_file(path) as temporary, _opened(temporary) as file:
        header.write_to(file)
        for array in volumes:
            if array.shape != like.grid:
                raise GeometryError(f"Cannot write {path}: expected the grid {like.grid}, got {array.shape}.")
            if array.dtype != header.get_data_dtype():
                raise DataError(
                    f"Cannot write {path}: expected {header.get_data_dtype()}, got {array.dtype}."
                )
            for k in range(array.shape[2]):
                file.write(array[..., k].tobytes(order="F"))


def _image_header(like: Volume) -> Any:
    """A fresh header with the place of `like` and nothing else of its source.

    NIfTI-1 unless the grid is too large for it, as many programs read nothing else.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    fits = max(like.grid) <= LARGEST_NIFTI_1_SIDE
    if not like.spacing_known:
        header = Nifti1Header() if fits else Nifti2Header()
        header.set_data_shape(like.grid)
        header.set_sform(like.affine_ras, ALIGNED)
        header["pixdim"][1:4] = 0
        return header
    if isinstance(like.header, Nifti2Header) and fits:
        header = Nifti1Header()
        header["xyzt_units"] = MILLIMETRE
        _set_affine(header, like.affine_ras, int(like.header["qform_code"]), SCANNER)
    else:
        header = _header_like(like)
    if forms_differ(header, like.grid):
        header["qform_code"] = 0
    return header


def _header_like(like: Volume) -> Any:
    """A fresh header with the geometry of `like` and nothing else of its source.

    For a stack of 2D images, whose voxel size and place are unknown, it states neither (codes 0).
    """
    from nibabel.nifti1 import Nifti1Header

    source = like.header if isinstance(like.header, Nifti1Header) else None
    if source is None:
        header = Nifti1Header()
        if like.spacing_known:
            header["xyzt_units"] = MILLIMETRE
            _set_affine(header, like.affine_ras, SCANNER, SCANNER)
            if forms_differ(header, like.grid, QFORM_OFF_VOXELS):
                header["qform_code"] = 0
        return header
    header = type(source)()
    header.set_data_shape(source.get_data_shape())
    header["xyzt_units"] = source["xyzt_units"]
    if np.abs(affine_mm(source) - like.affine_ras).max() > AFFINE_EQUAL_MM:
        _set_affine(header, like.affine_ras, int(source["qform_code"]), int(source["sform_code"]) or SCANNER)
        return header
    for field in GEOMETRY_FIELDS:
        header[field] = source[field]
    header["pixdim"][:4] = source["pixdim"][:4]
    return header


def _set_affine(header: Any, affine_ras: np.ndarray, qform_code: int, sform_code: int) -> None:
    scale = 1 / millimetres_per_unit(header)
    affine = np.diag([scale, scale, scale, 1.0]) @ affine_ras
    header.set_qform(affine, code=qform_code, strip_shears=True)
    header.set_sform(affine, code=sform_code)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open for writing; gzip without name and time, so that equal content gives equal files."""
    from isal import igzip

    with path.open("wb") as plain:
        if not path.name.lower().endswith(".gz"):
            yield plain
            return
        with igzip.IGzipFile("", "wb", GZIP_LEVEL, plain, mtime=0) as packed:  # type: ignore[no-untyped-call]
            yield cast(IO[bytes], packed)
