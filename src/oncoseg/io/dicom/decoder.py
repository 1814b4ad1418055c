"""Compressed pixels → numbers, in a process of its own: decoders are native code that may crash.

pydicom takes the fragments apart and calls the decoder; which ones there are depends on what is installed.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.dicom.jpeg_extended import decode_twelve_bits, twelve_bit_jpeg
from oncoseg.io.dicom.series import Pixels
from oncoseg.limited import LimitedProcess, LostError

DECODER_MEMORY_BYTES = 2 << 30
"""What a decoder may take: a slice of 8192×8192 pixels needs a quarter."""

DECODER_SECONDS = 60.0
"""How long decoding some slices may take; one of 512×512 pixels takes some hundredths of a second."""

JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
"""Transfer syntaxes for which no second decoder is tried: CharLS takes ten seconds to find data truncated."""

INSTALL = 'pip install "oncoseg[codecs]"'
"""What brings the decoders that are missing."""


class Frame(NamedTuple):
    """What decoding one frame needs."""

    file: Path
    number: int
    pixels: Pixels


class Decoder:
    """Decodes slices in another process, for one thread at a time. Close it."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process = LimitedProcess(decode_all, DECODER_MEMORY_BYTES, DECODER_SECONDS)

    def numbers(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """The stored numbers of some slices, each with axes row, column.

        Raises:
            DataError: the data of one is damaged, or there is no decoder for it.
        """
        try:
            return self._process(frames)
        except LostError as error:
            if len(frames) > 1:  # to tell which one it was
                return [numbers for frame in frames for numbers in self.numbers([frame])]
            raise DataError(
                f"{frames[0].file} is probably damaged: the decoder of its compressed pixels {error}. "
                "Copy it again."
            ) from error

    def close(self) -> None:
        """End the process."""
        self._process.close()


def decode_all(frames: Sequence[Frame]) -> list[np.ndarray]:
    """Decode some frames in this process; see `Decoder.numbers`."""
    return [decode(frame) for frame in frames]


def decode(frame: Frame) -> np.ndarray:
    """Decode one frame in this process; see `Decoder.numbers`."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    stored = frame.pixels.format
    syntax = UID(stored.transfer_syntax)
    try:
        available = find_spec("gdcm") if twelve_bit_jpeg(stored) else get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise DataError(
            f"{frame.file} is compressed as {syntax.name}, which is not read. Export it uncompressed."
        ) from error
    if not available:
        raise DataError(f"{frame.file} is compressed as {syntax.name}; reading that needs {INSTALL}.")
    try:
        numbers = _numbers(frame)
    except Exception as error:  # each decoder has its own errors
        raise DataError(
            f"{frame.file} is damaged: its compressed pixels cannot be decoded. Copy it again."
        ) from error
    if numbers.shape != (stored.rows, stored.columns):
        raise DataError(f"{frame.file} is damaged: its compressed pixels are of another size than declared.")
    return np.ascontiguousarray(numbers)


def _numbers(frame: Frame) -> np.ndarray:
    from pydicom.pixels.decoders.base import get_decoder

    stored = frame.pixels.format
    with frame.file.open("rb") as file:
        file.seek(frame.pixels.offset)
        if twelve_bit_jpeg(stored):
            return decode_twelve_bits(file, frame.number, stored)
        decoder = get_decoder(stored.transfer_syntax)
        gdcm_alone = stored.transfer_syntax in JPEG_LS and "gdcm" in decoder.available_plugins
        numbers, _ = decoder.as_array(
            file,
            index=frame.number,
            raw=True,
            decoding_plugin="gdcm" if gdcm_alone else "",
            **_options(frame),  # type: ignore[arg-type]
        )
    return numbers


def _options(frame: Frame) -> dict[str, object]:
    stored = frame.pixels.format
    return {
        "rows": stored.rows,
        "columns": stored.columns,
        "number_of_frames": stored.frames,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": int(stored.signed),
        "bits_allocated": stored.bits_allocated,
        "bits_stored": stored.bits_stored,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB",
    }
