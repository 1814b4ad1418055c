"""Reading NIfTI-1 and NIfTI-2: whole volumes, or slabs of them within bounded memory.

nibabel reads the header; the voxels come straight from the file, through isal's gzip where they are
compressed, which is three times as fast as zlib. NIfTI's world is RAS+ already.
"""

import logging
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.checks import check_finite
from oncoseg.volume import Volume

GZIP_MAGIC = b"\x1f\x8b"
"""First bytes of every gzip file."""

LARGEST_DEFLATE_RATIO = 1032
"""No gzip file unpacks to more than this many times its size (zlib's technical details)."""

READ_BLOCK_BYTES = 1 << 22
"""How much is unpacked at a time, so that packed and unpacked data never lie in memory twice."""

MILLIMETRES_PER_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}
"""NIfTI's space units: metre, millimetre, micrometre. Unknown (0) is taken as millimetre."""

_quiet = logging.getLogger("oncoseg.io.nifti.header")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


def read_nifti(path: Path) -> Volume:
    """Read a whole NIfTI file as `1 i j k`.

    The affine is the sform's where its code is set, else the qform's, else voxel sizes alone. A
    trailing axis of length 1 is dropped.

    Raises:
        DataError: the file cannot be used; the message says why.
    """
    with open_slabs(path) as slabs:
        return slabs.like.with_array(slabs.slab(2, 0, slabs.grid[2])[None])


def open_slabs(path: Path) -> "NiftiSlabs":
    """Open a NIfTI file for reading a few slices at a time; close it, or use it in a `with`.

    Raises:
        DataError: the file is missing, no single-file NIfTI, not 3D, or not of one number a voxel.
        GeometryError: its affine is singular or not finite.
    """
    file = _open(path)
    try:
        return NiftiSlabs(path, file)
    except BaseException:
        file.close()
        raise


class NiftiSlabs:
    """An open NIfTI file.

    A plain file is memory-mapped. A gzip file is unpacked forwards, so slabs along the last axis in
    rising order never hold more than themselves; a step back unpacks from the start again, and a
    slab along another axis keeps the stored voxels in memory from then on.

    Attributes:
        path: the file.
        header: nibabel's header.
        grid: number of voxels along i, j, k.
        affine_ras: 4×4, voxel index to RAS+ millimetres.
        spacing_known: False when the header holds no voxel size.
        like: the grid with voxels that are all 0 and take no memory, to write results onto.
        dtype: type of the slabs: the stored one, or float32 where the header asks for scaling.
    """

    def __init__(self, path: Path, file: BufferedIOBase) -> None:
        """Read the header; use `open_slabs`, which opens the file rightly."""
        self.path = path
        self._file = file
        self.header, self.spacing_known = _read_header(file, path)
        self.grid = _grid(self.header, path)
        self._stored = _numeric_dtype(self.header, path)
        self.affine_ras = affine_mm(self.header)
        self.like = _empty_volume(path, self.grid, self.affine_ras, self.spacing_known, self.header)
        self._offset = int(self.header.get_data_offset())
        slope, intercept = self.header.get_slope_inter()
        self._scaling = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
        self.dtype = np.dtype(np.float32) if self._scaling else self._stored.newbyteorder("=")
        _check_size(path, self._offset + int(np.prod(self.grid)) * self._stored.itemsize)
        self._voxels: np.ndarray | None = None
        if not _named_gzip(path):
            self._voxels = np.memmap(path, self._stored, "r", self._offset, self.grid, order="F")

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray:
        """Read the slices `start` ≤ index < `stop` of one array axis, with axes `i j k`.

        Raises:
            DataError: the file is damaged or truncated, or holds NaN or infinite voxels.
            IndexError: the range is empty or outside the axis.
        """
        if not 0 <= start < stop <= self.grid[axis]:
            raise IndexError(f"Expected 0 <= start < stop <= {self.grid[axis]}, got {start} and {stop}.")
        if self._voxels is None and axis != 2:
            self._voxels = self._stream(0, self.grid[2])
        if self._voxels is None:
            array = self._numbers(self._stream(start, stop))
        else:
            part = [slice(None)] * 3
            part[axis] = slice(start, stop)
            array = self._numbers(np.array(self._voxels[tuple(part)], order="F"))
        check_finite(array, self.path)
        return array

    def close(self) -> None:
        """Close the file; slabs that were read stay valid."""
        self._voxels = None
        self._file.close()

    def __enter__(self) -> "NiftiSlabs":
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _stream(self, start: int, stop: int) -> np.ndarray:
        i, j, k = self.grid
        buffer = np.empty((stop - start, j, i), self._stored)
        try:
            self._file.seek(self._offset + start * i * j * self._stored.itemsize)
            filled = _fill(self._file, buffer)
            if stop == k:
                self._file.read(1)  # reaches the end, where gzip compares its checksum
        except _unpacking_errors() as error:
            raise DataError(_damaged(self.path, str(error))) from error
        if not filled:
            raise DataError(_damaged(self.path, "it ends before its last voxel"))
        return buffer.T

    def _numbers(self, stored: np.ndarray) -> np.ndarray:
        """Apply the header's scaling, slice by slice in float64; or only make the byte order native."""
        if self._scaling is None:
            return stored.astype(self.dtype, order="K", copy=False)
        slope, intercept = self._scaling
        values = np.empty(stored.shape, np.float32, order="F")
        for k in range(stored.shape[2]):
            values[..., k] = stored[..., k] * float(slope) + float(intercept)
        return values


def affine_mm(header: Any) -> np.ndarray:
    """The header's best affine, in millimetres whatever unit the header states."""
    scale = millimetres_per_unit(header)
    return np.diag([scale, scale, scale, 1.0]) @ np.asarray(header.get_best_affine(), np.float64)


def millimetres_per_unit(header: Any) -> float:
    """Length of the header's space unit; the space unit is in the low three bits of `xyzt_units`."""
    return MILLIMETRES_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def _open(path: Path) -> BufferedIOBase:
    try:
        with path.open("rb") as plain:
            magic = plain.read(2)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a NIfTI file there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    if not magic:
        raise DataError(f"{path} is empty; expected a NIfTI file. Copy it again.")
    if _named_gzip(path) and magic != GZIP_MAGIC:
        raise DataError(
            f"{path} is named .gz but is not gzip-compressed; if it is a plain NIfTI file, rename it to "
            f"{path.name[: -len('.gz')]}, else copy it again."
        )
    if not _named_gzip(path) and magic == GZIP_MAGIC:
        raise DataError(f"{path} is gzip-compressed but not named so; rename it to {path.name}.gz.")
    if _named_gzip(path):
        from isal import igzip

        return cast(BufferedIOBase, igzip.open(path, "rb"))  # type: ignore[no-untyped-call]
    return path.open("rb")


def _read_header(file: BufferedIOBase, path: Path) -> tuple[Any, bool]:
    """Read and check the header; also whether it holds a voxel size."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        size = file.read(4)
        file.seek(0)
        sizes = {int.from_bytes(size, "little"), int.from_bytes(size, "big")}
        if not sizes & {348, 540}:
            raise DataError(f"{path} is not a NIfTI file: it does not begin with a NIfTI header.")
        header = (Nifti1Header if 348 in sizes else Nifti2Header).from_fileobj(file, check=False)
        sized = bool(int(header["sform_code"]) > 0 or (header["pixdim"][1:4] != 0).all())
        header.check_fix(logger=_quiet)
        # asked for here so that an impossible value is reported as this file's
        header.get_best_affine(), header.get_slope_inter(), header.get_data_dtype()
    except _unpacking_errors() as error:
        raise DataError(_damaged(path, str(error))) from error
    except (HeaderDataError, WrapStructError, ValueError, KeyError) as error:
        raise DataError(f"{path} has a damaged NIfTI header: {error}. Export or copy it again.") from error
    if not header.is_single:
        raise DataError(f"{path} is half of a .hdr/.img pair; expected a single .nii file. Convert it first.")
    return header, sized


def _grid(header: Any, path: Path) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise DataError(
            f"{path} has {len(shape)} dimensions of size {'×'.join(map(str, shape)) or '0'}; expected a 3D "
            "image (or 4D with one volume). Save each volume as a file of its own."
        )
    return shape[0], shape[1], shape[2]


def _empty_volume(
    path: Path, grid: tuple[int, int, int], affine_ras: np.ndarray, spacing_known: bool, header: Any
) -> Volume:
    try:
        return Volume(np.broadcast_to(np.uint8(0), (1, *grid)), affine_ras, spacing_known, header)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error} Mend its sform or qform.") from error


def _numeric_dtype(header: Any, path: Path) -> np.dtype:
    dtype: np.dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "colour" if dtype.names else str(dtype)
        raise DataError(f"{path} holds {what} voxels; expected one real number per voxel. Convert it first.")
    return dtype


def _check_size(path: Path, needed: int) -> None:
    """Check that the file can hold its voxels before memory is taken for them."""
    size = path.stat().st_size * (LARGEST_DEFLATE_RATIO if _named_gzip(path) else 1)
    if size < needed:
        raise DataError(_damaged(path, f"its header asks for {needed} bytes, more than it can hold"))


def _fill(file: BufferedIOBase, buffer: np.ndarray) -> bool:
    """Fill a contiguous array from the file; False when the file ends first."""
    view = buffer.reshape(-1).view(np.uint8).data
    position = 0
    while position < len(view):
        count = file.readinto(view[position : position + READ_BLOCK_BYTES])
        if not count:
            return False
        position += count
    return True


def _named_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is truncated or damaged: {reason.rstrip('.') or 'it cannot be unpacked'}. Copy it again."


def _unpacking_errors() -> tuple[type[Exception], ...]:
    from isal import isal_zlib

    return (EOFError, OSError, isal_zlib.error)  # type: ignore[return-value]
