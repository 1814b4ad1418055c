"""Pixel data without what may hide in it: unused bits, bytes behind the pixels, comments of JPEG files.

No pixel's value changes.
"""

from typing import TYPE_CHECKING

import numpy as np

from oncoseg.errors import DataError

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

JPEG_BEGINS, JPEG_2000_BEGINS = b"\xff\xd8", b"\xff\x4f"
"""First bytes of a frame: JPEG (baseline, lossless, LS) and the codestream of JPEG 2000."""

MARKER = 0xFF
"""First byte of every marker."""

SCAN, TILE = 0xDA, 0x90
"""Markers that end the headers of either."""

ENDS = b"\xff\xd9"
"""Last bytes of either."""

JPEG_TEXTS = frozenset([*range(0xE0, 0xF0), 0xFE])
JPEG_2000_TEXTS = frozenset([0x64])
"""Markers of segments that hold comments and applications' own data (ISO 10918-1 B.2.4, ISO 15444-1 A.9)."""


def clean_pixels(dataset: "Dataset") -> "DataElement":
    """The pixel data of a file, as a new element.

    Args:
        dataset: with its file meta information; pixels of whole numbers.

    Raises:
        DataError: fewer bytes than the header says, or compressed frames that are damaged.
    """
    from pydicom import DataElement

    encapsulated = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    data = _clean_frames(dataset) if encapsulated else _clean_numbers(dataset)
    element = DataElement("PixelData", "OB" if dataset["PixelData"].VR == "OB" else "OW", data)
    element.is_undefined_length = encapsulated
    return element


def _clean_numbers(dataset: "Dataset") -> bytes:
    bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
    length = (int(bits) * int(dataset.get("NumberOfFrames") or 1) + 7) // 8
    data: bytes = bytes(dataset.PixelData[:length])
    if len(data) < length:
        raise DataError(f"its pixels are truncated: {len(data)} of {length} bytes are there. Copy it again")
    unused = dataset.BitsAllocated - dataset.BitsStored
    if dataset.BitsAllocated in (8, 16, 32) and unused > 0:
        data = _without_unused_bits(dataset, data, unused)
    return data + b"\0" * (length % 2)


def _without_unused_bits(dataset: "Dataset", data: bytes, unused: int) -> bytes:
    """Zero the bits that do not belong to a number, or fill them with its sign."""
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    kind = "i" if dataset.get("PixelRepresentation") else "u"
    numbers = np.frombuffer(data, f"{order}{kind}{dataset.BitsAllocated // 8}")
    above = dataset.BitsAllocated - 1 - dataset.HighBit
    below = unused - above
    if above < 0 or below < 0:
        raise DataError(
            f"its pixels have {dataset.BitsStored} bits up to bit {dataset.HighBit}; expected others"
        )
    used: np.ndarray = ((numbers << above) >> (above + below)) << below
    return used.astype(numbers.dtype).tobytes()


def _clean_frames(dataset: "Dataset") -> bytes:
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import RLELossless

    count = int(dataset.get("NumberOfFrames") or 1)
    clean = bytes if dataset.file_meta.TransferSyntaxUID == RLELossless else _without_texts
    try:
        frames = [clean(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=count)]
    except (ValueError, IndexError) as error:
        raise DataError("its compressed pixels are damaged, or neither JPEG nor run lengths") from error
    return encapsulate(frames)


def _without_texts(frame: bytes) -> bytes:
    """A JPEG or JPEG 2000 frame without comments.

    Raises:
        ValueError: it is neither.
        IndexError: it ends within its headers.
    """
    if frame.startswith(JPEG_BEGINS):
        return _without_segments(frame, JPEG_TEXTS, SCAN)
    if frame.startswith(JPEG_2000_BEGINS):
        return _without_segments(frame, JPEG_2000_TEXTS, TILE)
    raise ValueError("expected a frame of JPEG or JPEG 2000")


def _without_segments(frame: bytes, dropped: frozenset[int], last: int) -> bytes:
    """Leave out marker segments of a header, and what lies behind the end of the image."""
    kept, at = frame[:2], 2
    while frame[at + 1] != last:
        if frame[at] != MARKER:
            raise ValueError("expected a marker")
        length = 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at + 1] not in dropped:
            kept += frame[at : at + length]
        at += length
    end = frame.rfind(ENDS)
    return kept + frame[at : end + 2 if end > at else None]
