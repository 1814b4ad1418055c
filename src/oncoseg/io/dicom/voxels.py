"""The voxels of a `Series`: whole, or some slices at a time within bounded memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.checks import check_finite, check_memory
from oncoseg.io.dicom.decoder import Decoder, Frame
from oncoseg.io.dicom.series import Pixels, Series, Slice
from oncoseg.io.dicom.stored import stored_numbers
from oncoseg.io.dicom.values import LOWEST_HU, fill, values_type
from oncoseg.processes import available_processors
from oncoseg.volume import Volume

BATCH = 8
"""Slices that one thread reads at a time, as asking another process for each alone would cost more."""

MOST_READERS = 4
"""Threads that read slices, and processes that decode them, at most; no more than there are processors."""


def read_series(series: Series) -> Volume:
    """Decode a series.

    Returns:
        Axes `1 i j k`; Hounsfield units for CT (int16, at least −1024), else what the file's rescale gives,
        as whole numbers where they are such and float32 otherwise. Its header is the series, with a remark
        on what was raised to −1024.

    Raises:
        DataError: a file cannot be decoded, or has changed.
    """
    with open_series(series) as slabs:
        volume = slabs.like.with_array(slabs.slab(2, 0, slabs.grid[2])[None])
        if not slabs.raised:
            return volume
    words = f"{slabs.raised} voxel(s) below {LOWEST_HU} HU became {LOWEST_HU} HU"
    return replace(volume, header=replace(series, remarks=(*series.remarks, words)))


def open_series(series: Series) -> "SeriesSlabs":
    """Open a series for reading a few slices at a time; close it, or use it in a `with`.

    Raises:
        DataError: the series does not say where its pixels are.
    """
    return SeriesSlabs(series)


class SeriesSlabs:
    """An open series.

    Slabs along k never hold more than themselves; one along another axis keeps all voxels in memory from
    then on.

    Attributes:
        series: what is read.
        grid: number of voxels along i, j, k.
        like: the grid with voxels that are all 0 and take no memory; its header is the series.
        dtype: type of the slabs.
        raised: how many values of CT were raised to −1024 HU so far.
    """

    def __init__(self, series: Series) -> None:
        """Use `open_series`."""
        self.series, self.grid, self.raised = series, series.grid, 0
        self._pixels = [_pixels(each) for each in series.slices]
        self.dtype = values_type(self._pixels, series.modality)
        self.like = Volume(np.broadcast_to(np.uint8(0), (1, *self.grid)), series.affine_ras, header=series)
        self._whole: np.ndarray | None = None
        self._readers = min(available_processors(), MOST_READERS)
        self._decoders: SimpleQueue[Decoder] = SimpleQueue()
        for _ in range(self._readers):
            self._decoders.put(Decoder())

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
        """End the decoders; slabs that were read stay valid."""
        self._whole = None
        for _ in range(self._readers):
            decoder = self._decoders.get()
            decoder.close()
            self._decoders.put(decoder)

    def __enter__(self) -> "SeriesSlabs":
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the decoders."""
        self.close()

    def _read(self, start: int, stop: int) -> np.ndarray:
        columns, rows, _ = self.grid
        check_memory(self.series.files[0], (stop - start) * rows * columns * self.dtype.itemsize)
        buffer = np.empty((stop - start, rows, columns), self.dtype)

        def read(some: range) -> int:
            raised = 0
            for k, numbers in zip(some, self._numbers(some), strict=True):
                raised += fill(buffer[k - start], numbers, self._pixels[k], self.series.modality)
                check_finite(buffer[k - start], self.series.slices[k].file)
            return raised

        with ThreadPoolExecutor(self._readers) as threads:
            batches = [range(k, min(k + BATCH, stop)) for k in range(start, stop, BATCH)]
            reading = [threads.submit(read, some) for some in batches]
            try:
                self.raised += sum(each.result() for each in reading)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        return buffer.T

    def _numbers(self, some: range) -> Iterator[np.ndarray]:
        """The stored numbers of some slices; compressed ones are decoded together."""
        packed = [k for k in some if self._pixels[k].format.encapsulated]
        decoded = dict(zip(packed, self._decoded(packed), strict=True)) if packed else {}
        for k in some:
            yield decoded[k] if k in decoded else stored_numbers(self.series.slices[k], self._pixels[k])

    def _decoded(self, packed: Sequence[int]) -> list[np.ndarray]:
        slices = [self.series.slices[k] for k in packed]
        decoder = self._decoders.get()
        try:
            return decoder.numbers([Frame(each.file, each.frame or 0, _pixels(each)) for each in slices])
        finally:
            self._decoders.put(decoder)


def _pixels(plane: Slice) -> Pixels:
    if plane.pixels is None:
        raise DataError(f"{plane.file} was not looked at for its pixels; expected a series of find_series.")
    return plane.pixels
