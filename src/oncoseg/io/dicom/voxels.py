"""The voxels of a `Series`: whole, or some slices at a time within bounded memory."""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.checks import check_finite
from oncoseg.io.dicom.series import Pixels, Series, Slice
from oncoseg.io.dicom.values import fill, stored_type, values_type
from oncoseg.volume import Volume

READERS = 2
"""Threads that read slices."""


def read_series(series: Series) -> Volume:
    """Decode a series.

    Returns:
        Axes `1 i j k`; Hounsfield units for CT (int16, at least −1024), else what the file's rescale gives,
        as whole numbers where they are such and float32 otherwise. Its header is the series.

    Raises:
        DataError: a file cannot be decoded, or has changed.
    """
    with SeriesSlabs(series) as slabs:
        return slabs.like.with_array(slabs.slab(2, 0, slabs.grid[2])[None])


class SeriesSlabs:
    """A series opened for reading some slices at a time.

    Slabs along k never hold more than themselves; one along another axis keeps all voxels in memory from
    then on.

    Attributes:
        series: what is read.
        grid: number of voxels along i, j, k.
        like: the grid with voxels that are all 0 and take no memory; its header is the series.
        dtype: type of the slabs.
    """

    def __init__(self, series: Series) -> None:
        """Check that the series says where its pixels are."""
        self.series, self.grid = series, series.grid
        self._pixels = [_pixels(each) for each in series.slices]
        self.dtype = values_type(self._pixels, series.modality)
        empty = np.broadcast_to(np.uint8(0), (1, *series.grid))
        self.like = Volume(empty, series.affine_ras, header=series)
        self._whole: np.ndarray | None = None

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray:
        """Read the slices `start` ≤ index < `stop` of one array axis, with axes `i j k`.

        Raises:
            DataError: a file is missing, damaged or cannot be decoded.
            IndexError: the range is empty or outside the axis.
        """
        if not 0 <= start < stop <= self.grid[axis]:
            raise IndexError(f"Expected 0 <= start < stop <= {self.grid[axis]}, got {start} and {stop}.")
        if axis == 2 and self._whole is None:
            return self._read(start, stop)
        if self._whole is None:
            self._whole = self._read(0, self.grid[2])
        part = [slice(None)] * 3
        part[axis] = slice(start, stop)
        return np.array(self._whole[tuple(part)], order="F")

    def close(self) -> None:
        """Let go of what is held."""
        self._whole = None

    def __enter__(self) -> "SeriesSlabs":
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what is held."""
        self.close()

    def _read(self, start: int, stop: int) -> np.ndarray:
        i, j, _ = self.grid
        buffer = np.empty((stop - start, j, i), self.dtype)

        def read(k: int) -> None:
            numbers = self._numbers(self.series.slices[k], self._pixels[k])
            fill(buffer[k - start], numbers, self._pixels[k], self.series.modality)

        with ThreadPoolExecutor(READERS) as threads:
            list(threads.map(read, range(start, stop)))
        check_finite(buffer, self.series.slices[start].file)
        return buffer.T

    def _numbers(self, plane: Slice, pixels: Pixels) -> np.ndarray:
        stored = pixels.format
        try:
            numbers = np.fromfile(
                plane.file, stored_type(stored), stored.rows * stored.columns, offset=pixels.offset
            )
        except OSError as error:
            raise DataError(f"{plane.file} cannot be read: {error.strerror}.") from error
        if len(numbers) != stored.rows * stored.columns:
            raise DataError(f"{plane.file} has changed since it was looked at: it is shorter. Copy it again.")
        return numbers.reshape(stored.rows, stored.columns)


def _pixels(plane: Slice) -> Pixels:
    if plane.pixels is None:
        raise DataError(f"{plane.file} was not looked at for its pixels; expected a series from find_series.")
    return plane.pixels
