"""One file's header → its planes: where each lies, what its numbers mean, what sets it apart from others.

A single-frame file is one plane. A multi-frame file describes its frames in functional groups, shared by all
or per frame (PS3.3, C.7.6.16).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED_LENGTH,
    UNREADABLE,
    Header,
    is_list,
    number_of,
    numbers_of,
)
from oncoseg.io.dicom.kinds import MULTI_FRAME
from oncoseg.io.dicom.series import PixelFormat, Pixels

LARGEST_SLICE_PIXELS = 1 << 26
"""No slice may have more, such as 8192×8192: more is a damaged header."""

LARGEST_COMPRESSION = 2000
"""Pixels may not claim to unpack to more than this many times their file; blank slices reach hundreds."""

NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED})
"""Transfer syntaxes whose pixels lie there as plain numbers."""

GREY = ("MONOCHROME1", "MONOCHROME2")
"""Photometric interpretations of one number per pixel that is no colour."""

APART = {
    "echo time": "EchoTime",
    "b-value": "DiffusionBValue",
    "gradient direction": "DiffusionGradientOrientation",
    "temporal position": "TemporalPositionIdentifier",
    "trigger time": "TriggerTime",
    "image type": "ImageType",
    "acquisition": "AcquisitionNumber",
}
"""What tells images at one place apart, in the order in which it is tried: words → keyword."""

FRAME_VALUES = {
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RescaleType": ("PixelValueTransformationSequence", "RescaleType"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "StackID": ("FrameContentSequence", "StackID"),
}
"""Keyword of a single-frame file → the functional group and keyword that say the same of a frame."""

FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
"""Functional groups that hold a frame's FrameType."""


class Plane(NamedTuple):
    """One slice as its header describes it.

    Attributes:
        header: of its file.
        frame: number of the frame, or None.
        position_lps_mm: centre of the first pixel.
        cosines: direction of a row, then of a column, in LPS.
        pixel_spacing_mm: distance of rows, then of columns.
        thickness_mm: SliceThickness, or None.
        stack: StackID of a multi-frame image.
        apart: what tells it apart from others at its place; see `APART`.
        pixels: what reading them needs.
    """

    header: Header
    frame: int | None
    position_lps_mm: tuple[float, ...]
    cosines: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    thickness_mm: float | None
    stack: str
    apart: Mapping[str, str]
    pixels: Pixels


def planes_of(header: Header) -> list[Plane]:
    """The planes of one file.

    Raises:
        DataError: something that a plane needs is missing, damaged or cannot be read. Says what, not where.
    """
    stored = pixel_format(header)
    groups = _functional_groups(header)
    if groups is None:
        return [_plane(header, None, header.values, stored)]
    if len(groups) != stored.frames:
        raise DataError(f"it declares {stored.frames} frames and describes {len(groups)}")
    return [
        _plane(header, frame, header.values | _frame_values(group), stored)
        for frame, group in enumerate(groups)
    ]


def pixel_format(header: Header) -> PixelFormat:
    """How a file's pixels are stored, checked against the file's size before anything is read.

    Raises:
        DataError: see `planes_of`.
    """
    if header.pixels_at is None:
        raise DataError("it holds no pixels of whole numbers; it may be truncated")
    if header.whole("SamplesPerPixel", 1) != 1 or header.text("PhotometricInterpretation") not in GREY:
        raise DataError("it is a colour image; expected grey")
    if "ModalityLUTSequence" in header.values:
        raise DataError(
            "its numbers are translated by a modality table, which is not read; expected a linear rescale"
        )
    allocated = header.whole("BitsAllocated")
    stored_bits = header.whole("BitsStored", allocated)
    high = header.whole("HighBit", stored_bits - 1)
    if allocated not in (8, 16, 32) or not stored_bits - 1 <= high < allocated or stored_bits < 1:
        raise DataError(
            f"it stores {stored_bits} of {allocated} bits up to bit {high}; expected 8, 16 or 32 bits"
        )
    signed = header.whole("PixelRepresentation", 0)
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
        inverted=header.text("PhotometricInterpretation") == "MONOCHROME1",
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


def _functional_groups(header: Header) -> list[dict[str, Any]] | None:
    """Of each frame: functional group → its first item. None for a single-frame image."""
    if header.text("SOPClassUID") not in MULTI_FRAME:
        if header.whole("NumberOfFrames", 1) > 1:
            raise DataError("it holds several frames without saying where each lies")
        return None
    per_frame = header.values.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None or per_frame is UNREADABLE:
        raise DataError("it is a multi-frame image that does not describe its frames")
    shared = _groups(header.values.get("SharedFunctionalGroupsSequence", [])[:1])
    common = shared[0] if shared else {}
    return [common | own for own in _groups(per_frame)]


def _groups(items: Any) -> list[dict[str, Any]]:
    wanted = {*(group for group, _ in FRAME_VALUES.values()), *FRAME_TYPES, "RealWorldValueMappingSequence"}
    try:
        return [
            {name: item[name].value[0] for name in wanted if name in item and item[name].value}
            for item in items
        ]
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError("the description of its frames is damaged") from error


def _frame_values(groups: Mapping[str, Any]) -> dict[str, Any]:
    """What a frame's functional groups say, under the keywords of a single-frame file."""
    values = {}
    for keyword, (group, name) in FRAME_VALUES.items():
        value = groups[group].get(name) if group in groups else None
        if value is not None and value != "":
            values[keyword] = value
    for group in FRAME_TYPES:
        if group in groups and groups[group].get("FrameType"):
            values["ImageType"] = groups[group].get("FrameType")
    return values


def _plane(header: Header, frame: int | None, values: Mapping[str, Any], stored: PixelFormat) -> Plane:
    found = {}
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        numbers = numbers_of(values.get(keyword), keyword, count)
        if numbers is None:
            raise DataError(f"{keyword} is missing, so that its place in the patient is unknown")
        found[keyword] = numbers
    slope = number_of(values.get("RescaleSlope"), "RescaleSlope")
    intercept = number_of(values.get("RescaleIntercept"), "RescaleIntercept")
    if slope == 0:
        raise DataError("RescaleSlope is 0")
    offset = (header.pixels_at or 0) + (0 if stored.encapsulated else (frame or 0) * stored.frame_bytes)
    return Plane(
        header=header,
        frame=frame,
        position_lps_mm=found["ImagePositionPatient"],
        cosines=found["ImageOrientationPatient"],
        pixel_spacing_mm=found["PixelSpacing"],
        thickness_mm=number_of(values.get("SliceThickness"), "SliceThickness"),
        stack=str(values.get("StackID", "")),
        apart={words: _shown(values[keyword]) for words, keyword in APART.items() if keyword in values},
        pixels=Pixels(stored, offset, 1.0 if slope is None else slope, intercept or 0.0),
    )


def _shown(value: Any) -> str:
    """A value as text that is the same for equal numbers however they are written."""
    if value is UNREADABLE:
        return ""
    parts = [str(part).strip() for part in (value if is_list(value) else [value])]
    shown = []
    for part in parts:
        try:
            number = float(part)
            shown.append(f"{number:g}" if math.isfinite(number) else part)
        except ValueError:
            shown.append(part)
    return "\\".join(shown)
