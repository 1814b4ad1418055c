"""Stored numbers → values: bits, padding, rescale (PS3.3, C.7.6.3, C.7.5.1 and C.11.1)."""

from collections.abc import Sequence

import numpy as np

from oncoseg.io.dicom.series import PixelFormat, Pixels

LOWEST_HU = -1024
"""Below are padding and artefacts, neither tissue nor air; the scale of 12-bit scanners begins here."""

HIGHEST_TISSUE_HU = 3071
"""The scale of 12-bit scanners ends here; beyond it padding is looked for, never among tissue."""

INT16 = np.iinfo(np.int16)
"""Bounds of the type in which CT is read."""


def values_type(pixels: Sequence[Pixels], modality: str) -> np.dtype:
    """The type in which a series is read: whole numbers where the rescale gives such, else float32.

    CT becomes int16, others the first of int16, uint16 and int32 that holds all that the bits allow.
    """
    if any(each.slope != 1 or each.intercept != int(each.intercept) for each in pixels):
        return np.dtype(np.float32)
    if modality == "CT":
        return np.dtype(np.int16)
    low = min(_stored_range(each.format)[0] + each.intercept for each in pixels)
    high = max(_stored_range(each.format)[1] + each.intercept for each in pixels)
    for kind in (np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def stored_type(stored: PixelFormat) -> np.dtype:
    """The type of stored numbers."""
    order = "<" if stored.little_endian else ">"
    return np.dtype(f"{order}{'i' if stored.signed else 'u'}{stored.bits_allocated // 8}")


def fill(out: np.ndarray, numbers: np.ndarray, pixels: Pixels, modality: str) -> None:
    """Turn one slice of stored numbers into values.

    Args:
        out: receives the values; of `values_type`, axes row, column.
        numbers: of `stored_type`, axes row, column.
        pixels: how they are stored, and what they mean.
        modality: CT has a floor, `LOWEST_HU`; of the others padding becomes 0.
    """
    outside = _outside(numbers, pixels, modality)
    numbers = _meant_bits(numbers, pixels.format)
    if pixels.format.inverted and modality not in ("CT", "PT"):
        low, high = _stored_range(pixels.format)
        numbers = (low + high) - numbers.astype(np.int64)
    if out.dtype.kind == "f":
        out[...] = numbers * float(pixels.slope) + float(pixels.intercept)
    elif modality == "CT":
        _fill_hounsfield(out, numbers, int(pixels.intercept))
    else:
        np.add(numbers, int(pixels.intercept), out=out, dtype=np.int64, casting="unsafe")
    if modality == "CT":
        np.maximum(out, LOWEST_HU, out=out)
    if outside is not None:
        out[outside] = LOWEST_HU if modality == "CT" else 0


def _fill_hounsfield(out: np.ndarray, numbers: np.ndarray, intercept: int) -> None:
    """Add, and stay within 16 bits; nothing in a body comes near their upper end."""
    if numbers.dtype.itemsize < 4:
        values = numbers.astype(np.int32) + intercept
    else:
        values = numbers.astype(np.int64) + intercept
    np.clip(values, INT16.min, INT16.max, out=values)
    out[...] = values


def _stored_range(stored: PixelFormat) -> tuple[int, int]:
    bits = stored.bits_stored
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if stored.signed else (0, (1 << bits) - 1)


def _meant_bits(numbers: np.ndarray, stored: PixelFormat) -> np.ndarray:
    """Drop bits above and below those that count, such as overlays of old; the sign is extended."""
    above = stored.bits_allocated - 1 - stored.high_bit
    drop = stored.bits_allocated - stored.bits_stored
    if drop == 0:
        return numbers
    return (numbers << above) >> drop


def _outside(numbers: np.ndarray, pixels: Pixels, modality: str) -> np.ndarray | None:
    """Which pixels are marked as padding; None for none.

    In CT, padding is below the floor anyway, and a mark among the numbers of tissue is a mistake.
    """
    if pixels.format.padding is None:
        return None
    low, high = pixels.format.padding
    if (
        modality == "CT"
        and min(low * pixels.slope, high * pixels.slope) + pixels.intercept <= HIGHEST_TISSUE_HU
    ):
        return None
    marked: np.ndarray = (numbers >= low) & (numbers <= high)
    return marked if marked.any() else None
