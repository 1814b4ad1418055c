"""How a file's pixels are stored, from its header, checked before anything is read (PS3.3, C.7.6.3)."""

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED_LENGTH, Header
from oncoseg.io.dicom.series import PixelFormat

LARGEST_SLICE_PIXELS = 1 << 26
"""No slice may have more, such as 8192×8192: more is a damaged header."""

LARGEST_COMPRESSION = 2000
"""Pixels may not claim to unpack to more than this many times their file; blank slices reach hundreds."""

LARGEST_UNPACKING_BYTES = 32 << 30
"""Each frame of a deflated file is reached by unpacking all before it: together no more than this."""

NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED})
"""Transfer syntaxes whose pixels lie there as plain numbers."""

GREY = ("MONOCHROME1", "MONOCHROME2")
"""Photometric interpretations of one number per pixel that is no colour."""


def pixel_format(header: Header) -> PixelFormat:
    """How a file's pixels are stored, checked against the file's size before anything is read.

    Raises:
        DataError: something is missing, odd or too large. Says what, not where.
    """
    if header.pixels_at is None:
        raise DataError("it holds no pixels of whole numbers; it may be truncated")
    shown = header.text("PhotometricInterpretation") or "MONOCHROME2"
    if header.whole("SamplesPerPixel", 1) != 1 or shown not in GREY:
        raise DataError("it is a colour image; expected grey")
    if "ModalityLUTSequence" in header.values:
        raise DataError(
            "its numbers are translated by a modality table, which is not read; expected a linear rescale"
        )
    allocated = header.whole("BitsAllocated")
    stored_bits = header.whole("BitsStored", allocated)
    high = header.whole("HighBit", stored_bits - 1)
    if allocated == 8 and header.transfer_syntax == BIG_ENDIAN:
        raise DataError("it stores 8 bits in big-endian order, which writers do in two ways. Export it anew")
    if allocated not in (8, 16, 32) or not stored_bits - 1 <= high < allocated or stored_bits < 1:
        raise DataError(
            f"it stores {stored_bits} of {allocated} bits up to bit {high}; expected 8, 16 or 32 bits"
        )
    signed = header.whole("PixelRepresentation")
    if signed not in (0, 1):
        raise DataError(f"PixelRepresentation is {signed}; expected 0 or 1")
    stored = PixelFormat(
        transfer_syntax=header.transfer_syntax,
        little_endian=header.little_endian,
        encapsulated=header.transfer_syntax not in NATIVE,
        rows=header.whole("Rows"),
        columns=header.whole("Columns"),
        frames=header.whole("NumberOfFrames", 1),
        bits_allocated=allocated,
        bits_stored=stored_bits,
        high_bit=high,
        signed=signed == 1,
        inverted=shown == "MONOCHROME1",
        padding=_padding(header),
    )
    _check_size(header, stored)
    return stored


def _check_size(header: Header, stored: PixelFormat) -> None:
    if min(stored.rows, stored.columns, stored.frames) < 1:
        raise DataError(f"it declares {stored.frames} frames of {stored.columns}×{stored.rows} pixels")
    needed, size = stored.frames * stored.frame_bytes, header.file.stat().st_size
    if stored.rows * stored.columns > LARGEST_SLICE_PIXELS or needed > max(size, 1) * LARGEST_COMPRESSION:
        raise DataError(
            f"it declares {stored.frames} frames of {stored.columns}×{stored.rows} pixels, more than its "
            f"{size} bytes can hold"
        )
    if stored.transfer_syntax == DEFLATED and stored.frames * needed > LARGEST_UNPACKING_BYTES:
        raise DataError("it is deflated as a whole and holds many frames; export it uncompressed")
    if stored.encapsulated != (header.pixels_length == UNDEFINED_LENGTH):
        raise DataError("its pixels are not stored as its transfer syntax says")
    if stored.encapsulated or stored.transfer_syntax == DEFLATED:
        return
    there = min(size - (header.pixels_at or 0), header.pixels_length)
    if there < needed:
        raise DataError(f"its pixels are truncated: {there} of {needed} bytes are there. Copy it again")


def _padding(header: Header) -> tuple[int, int] | None:
    if "PixelPaddingValue" not in header.values:
        return None
    value = header.whole("PixelPaddingValue")
    limit = header.whole("PixelPaddingRangeLimit", value)
    return min(value, limit), max(value, limit)
