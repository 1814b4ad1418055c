"""Stored numbers → values: bits, padding, rescale (PS3.3, C.7.6.3, C.7.5.1 and C.11.1)."""

from collections.abc import Sequence

import numpy as np

from oncoseg.io.dicom.kinds import UNITS_KNOWN
from oncoseg.io.dicom.series import PixelFormat, Pixels

LOWEST_HU = -1024
"""Below are padding and artefacts, neither tissue nor air; the scale of 12-bit scanners begins here."""

HIGHEST_TISSUE_HU = 3071
"""The scale of 12-bit scanners ends here; beyond it padding is looked for, never among tissue."""


def values_type(pixels: Sequence[Pixels], modality: str) -> np.dtype:
    """The type in which a series is read: whole numbers where the rescale gives such, else float32.

    CT becomes int16, others the first of int16, uint16 and int32 that holds all that the bits allow.
    """
    if any(each.slope != 1 or each.intercept != int(each.intercept) for each in pixels):
        return np.dtype(np.float32)
    if modality == "CT":
        return np.dtype(np.int16)
    for kind in (np.int16, np.uint16, np.int32):
        if all(_fits(each, np.dtype(kind)) for each in set(pixels)):
            return np.dtype(kind)
    return np.dtype(np.float32)


def fill(out: np.ndarray, numbers: np.ndarray, pixels: Pixels, modality: str) -> int:
    """Turn one slice of stored numbers into values.

    Args:
        out: receives the values; of `values_type`, axes row, column.
        numbers: as they are stored, axes row, column.
        pixels: how they are stored, and what they mean.
        modality: CT has a floor, `LOWEST_HU`; of the others padding becomes 0.

    Returns:
        How many values of CT lay below the floor and were raised to it.
    """
    outside = _outside(numbers, pixels, modality)
    numbers = _meant_bits(numbers, pixels.format)
    if pixels.format.inverted and modality not in UNITS_KNOWN:
        numbers = sum(_stored_range(pixels.format)) - numbers.astype(np.int64)
    if out.dtype.kind == "f":
        out[...] = numbers * float(pixels.slope) + float(pixels.intercept)
    elif _fits(pixels, out.dtype):
        np.add(numbers, int(pixels.intercept), out=out, dtype=out.dtype, casting="unsafe")
    else:
        wide = numbers.astype(np.int64) + int(pixels.intercept)
        out[...] = np.clip(wide, np.iinfo(out.dtype).min, np.iinfo(out.dtype).max)
    if outside is not None:
        out[outside] = LOWEST_HU if modality == "CT" else 0
    return _raise_floor(out) if modality == "CT" else 0


def _raise_floor(hounsfield: np.ndarray) -> int:
    if hounsfield.min() >= LOWEST_HU:
        return 0
    below = int(np.count_nonzero(hounsfield < LOWEST_HU))
    np.maximum(hounsfield, LOWEST_HU, out=hounsfield)
    return below


def _fits(pixels: Pixels, kind: np.dtype) -> bool:
    """Whether every number that the bits allow is of this type after the rescale."""
    low, high = (number + pixels.intercept for number in _stored_range(pixels.format))
    return bool(np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def _stored_range(stored: PixelFormat) -> tuple[int, int]:
    bits = stored.bits_stored
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if stored.signed else (0, (1 << bits) - 1)


def _meant_bits(numbers: np.ndarray, stored: PixelFormat) -> np.ndarray:
    """Drop bits above and below those that count, such as overlays of old; the sign is extended."""
    above = stored.bits_allocated - 1 - stored.high_bit
    drop = stored.bits_allocated - stored.bits_stored
    return (numbers << above) >> drop if drop else numbers


def _outside(numbers: np.ndarray, pixels: Pixels, modality: str) -> np.ndarray | None:
    """Which pixels are marked as padding; None for none.

    In CT a mark that is a number of tissue is a mistake, and one below the floor becomes air anyway, unless
    it has more bits than count.
    """
    if pixels.format.padding is None:
        return None
    low, high = pixels.format.padding
    first, last = _stored_range(pixels.format)
    fits = first <= low and high <= last
    lowest = min(low * pixels.slope, high * pixels.slope) + pixels.intercept
    if modality == "CT" and fits and lowest <= HIGHEST_TISSUE_HU:
        return None
    return (numbers >= low) & (numbers <= high)
