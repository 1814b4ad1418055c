"""The stored numbers of one slice, where they are not compressed."""

import zlib

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import DEFLATED, LARGEST_HEADER_BYTES, data_set_begins, inflate
from oncoseg.io.dicom.series import PixelFormat, Pixels, Slice


def stored_type(stored: PixelFormat) -> np.dtype:
    """The type of stored numbers."""
    order = "<" if stored.little_endian else ">"
    return np.dtype(f"{order}{'i' if stored.signed else 'u'}{stored.bits_allocated // 8}")


def stored_numbers(plane: Slice, pixels: Pixels) -> np.ndarray:
    """Read the numbers of an uncompressed slice, of `stored_type`, axes row, column.

    Raises:
        DataError: the file is gone, damaged or shorter than when it was looked at.
    """
    stored = pixels.format
    kind, count = stored_type(stored), stored.rows * stored.columns
    try:
        if stored.transfer_syntax == DEFLATED:
            most = pixels.offset + stored.frame_bytes
            with plane.file.open("rb") as file:  # deflating adds some bytes in a thousand at most
                packed = file.read(LARGEST_HEADER_BYTES + most + most // 256)
            data = inflate(packed[data_set_begins(packed) :], most)
            numbers = np.frombuffer(data[pixels.offset :][: stored.frame_bytes], kind)
        else:
            numbers = np.fromfile(plane.file, kind, count, offset=pixels.offset)
    except (OSError, ValueError, zlib.error) as error:
        raise DataError(f"{plane.file} cannot be read: {error}. Copy it again.") from error
    if len(numbers) != count:
        raise DataError(f"{plane.file} is truncated: its pixels are not all there. Copy it again.")
    return numbers.reshape(stored.rows, stored.columns)
