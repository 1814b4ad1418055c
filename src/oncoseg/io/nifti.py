"""Reading NIfTI-1 and NIfTI-2: whole volumes, or slabs of them within bounded memory.

nibabel reads the header (`oncoseg.io.nifti_header`); the voxels come straight from the file, through isal's
gzip where they are compressed, which is three times as fast as zlib.
"""

import math
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.checks import LARGEST_DEFLATE_RATIO, check_finite, check_memory, check_regular
from oncoseg.io.nifti_header import NiftiHeader, read_header
from oncoseg.volume import Volume

GZIP_MAGIC = b"\x1f\x8b"
"""First bytes of every gzip file."""

READ_BLOCK_BYTES = 1 << 22
"""How much is unpacked at a time, so that packed and unpacked data never lie in memory twice."""


def read_nifti(path: Path, components: Sequence[int | None] = (None,)) -> list[Volume]:
    """Read volumes of a NIfTI file, each as `1 i j k`.

    Args:
        path: the file.
        components: indices along the fourth axis; None for the one volume of a 3D file, where a trailing
            axis of length 1 is dropped. Best in rising order, as a compressed file is unpacked forwards.

    Raises:
        DataError: the file cannot be used; the message says why.
    """
    with open_slabs(path, components[0]) as slabs:
        return [slabs.volume(component) for component in components]


def open_slabs(path: Path, component: int | None = None) -> "NiftiSlabs":
    """Open a NIfTI file for reading a few slices at a time; close it, or use it in a `with`.

    Args:
        path: the file.
        component: which volume, counted along the fourth axis; None where there is one.

    Raises:
        DataError: the file is missing, no single-file NIfTI, not 2D, 3D or 4D, not of one number a voxel, or
            without that volume.
        GeometryError: its affine is singular.
    """
    file = _open(path)
    try:
        return NiftiSlabs(path, file, component)
    except BaseException:
        file.close()
        raise


class NiftiSlabs:
    """An open NIfTI file.

    A plain file is memory-mapped. A gzip file is unpacked forwards, so slabs along the last axis in
    rising order never hold more than themselves; a step back unpacks from the start again, and a
    slab along another axis keeps the volume's stored voxels in memory from then on.

    Attributes:
        path: the file.
        header: what its header says.
        grid: number of voxels along i, j, k.
        like: the grid with voxels that are all 0 and take no memory, to write results onto.
        dtype: type of the slabs: the stored one, or float32 where the header asks for scaling.
    """

    def __init__(self, path: Path, file: BufferedIOBase, component: int | None = None) -> None:
        """Read the header; use `open_slabs`, which opens the file rightly."""
        self.path = path
        self._file = file
        try:
            self.header = read_header(file, path)
        except _unpacking_errors() as error:
            raise DataError(_damaged(path, str(error))) from error
        self.grid = self.header.grid
        self._component = self._checked(component)
        stored = self.header.stored.newbyteorder("=")
        self.dtype = np.dtype(np.float32) if self.header.scaling else stored
        self._check_size()
        self.like = _empty_volume(path, self.header, self.dtype)
        self._voxels: np.ndarray | None = None

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray:
        """Read the slices `start` ≤ index < `stop` of one array axis, with axes `i j k`.

        Raises:
            DataError: the file is damaged or truncated, or holds NaN or infinite voxels.
            IndexError: the range is empty or outside the axis.
        """
        if not 0 <= start < stop <= self.grid[axis]:
            raise IndexError(f"Expected 0 <= start < stop <= {self.grid[axis]}, got {start} and {stop}.")
        self._check_memory(axis, stop - start)
        if self._voxels is None and not _named_gzip(self.path):
            self._voxels = self._mapped()
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

    def volume(self, component: int | None = None) -> Volume:
        """Read a whole volume as `1 i j k`; afterwards slabs are of this one.

        Raises:
            DataError: see `slab`, or there is no such volume.
        """
        self._component, self._voxels = self._checked(component), None
        return self.like.with_array(self.slab(2, 0, self.grid[2])[None])

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

    def _checked(self, component: int | None) -> int:
        count = self.header.volumes
        if component is None and count > 1:
            raise DataError(
                f"{self.path} is 4D and holds {count} volumes; expected one. Save each volume as a file of "
                "its own, or use a layout that names the volumes, such as decathlon, or a table with FILE#0."
            )
        if component is not None and not 0 <= component < count:
            raise DataError(f"{self.path} holds {count} volume(s); expected one with the number {component}.")
        return component or 0

    def _check_size(self) -> None:
        """Check that the file can hold its voxels before memory is taken for them."""
        needed = self.header.offset + self.header.volumes * self.header.volume_bytes
        ratio = LARGEST_DEFLATE_RATIO if _named_gzip(self.path) else 1
        if self.path.stat().st_size * ratio < needed:
            asked = f"its header asks for {needed} bytes, more than it can hold"
            raise DataError(_damaged(self.path, asked))

    def _check_memory(self, axis: int, slices: int) -> None:
        """Check that there is room for a slab and what it is made of; a sparse file may declare anything."""
        stored, values = self.header.stored.itemsize, self.dtype.itemsize if self.header.scaling else 0
        whole = math.prod(self.grid)
        slab = whole // self.grid[axis] * slices
        kept = whole if self._voxels is None and axis != 2 and _named_gzip(self.path) else 0
        check_memory(self.path, (slab + kept) * stored + slab * values)

    def _start(self) -> int:
        """Where the chosen volume begins in the unpacked file."""
        return self.header.offset + self._component * self.header.volume_bytes

    def _mapped(self) -> np.ndarray:
        return np.memmap(self.path, self.header.stored, "r", self._start(), self.grid, order="F")

    def _stream(self, start: int, stop: int) -> np.ndarray:
        i, j, k = self.grid
        slice_bytes = i * j * self.header.stored.itemsize
        buffer = np.empty((stop - start, j, i), self.header.stored)
        try:
            self._file.seek(self._start() + start * slice_bytes)
            filled = _fill(self._file, buffer)
            if stop == k:
                self._file.read(1)  # reaches the end of the last volume, where gzip compares its checksum
        except _unpacking_errors() as error:
            raise DataError(_damaged(self.path, str(error))) from error
        if not filled:
            raise DataError(_damaged(self.path, "it ends before its last voxel"))
        return buffer.T

    def _numbers(self, stored: np.ndarray) -> np.ndarray:
        """Apply the header's scaling, slice by slice in float64; or only make the byte order native."""
        if self.header.scaling is None:
            return stored.astype(self.dtype, order="K", copy=False)
        slope, intercept = self.header.scaling
        values = np.empty(stored.shape, np.float32, order="F")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by `check_finite`
            for k in range(stored.shape[2]):
                values[..., k] = stored[..., k] * slope + intercept
        return values


def _open(path: Path) -> BufferedIOBase:
    check_regular(path)
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
            f"{path.name[: -len('.gz')]} or compress it with gzip, else copy it again."
        )
    if not _named_gzip(path) and magic == GZIP_MAGIC:
        raise DataError(f"{path} is gzip-compressed but not named so; rename it to {path.name}.gz.")
    if _named_gzip(path):
        from isal import igzip

        return cast(BufferedIOBase, igzip.open(path, "rb"))  # type: ignore[no-untyped-call]
    return path.open("rb")


def _empty_volume(path: Path, header: NiftiHeader, dtype: np.dtype) -> Volume:
    voxels = np.broadcast_to(np.zeros((), dtype), (1, *header.grid))
    try:
        return Volume(voxels, header.affine_ras, header.spacing_known, header.fields)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error} Mend its sform or qform.") from error


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
