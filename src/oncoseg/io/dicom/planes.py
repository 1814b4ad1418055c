"""One file's header → its planes: where each lies, what its numbers mean, what sets it apart from others."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from oncoseg.errors import DataError
from oncoseg.io.dicom.frames import frames_of
from oncoseg.io.dicom.headers import Header, number_of, numbers_of, text_of
from oncoseg.io.dicom.pixel_format import LARGEST_SLICE_PIXELS as LARGEST_SLICE_PIXELS
from oncoseg.io.dicom.pixel_format import pixel_format
from oncoseg.io.dicom.rescale import rescale
from oncoseg.io.dicom.series import PixelFormat, Pixels

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


class Plane(NamedTuple):
    """One slice as its header describes it: a single-frame file, or a frame of a multi-frame one.

    Attributes:
        header: of its file.
        frame: number of the frame, or None.
        position_lps_mm: centre of the first pixel.
        cosines: direction of a row, then of a column, in LPS.
        pixel_spacing_mm: distance of rows, then of columns.
        thickness_mm: SliceThickness, or None.
        values: all that the file says of it, by keyword.
        apart: what tells it apart from others at its place; see `APART`.
        pixels: what reading them needs.
    """

    header: Header
    frame: int | None
    position_lps_mm: tuple[float, float, float]
    cosines: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    thickness_mm: float | None
    values: Mapping[str, Any]
    apart: Mapping[str, str]
    pixels: Pixels

    def text(self, keyword: str) -> str:
        """One of its values as text, its components joined by a backslash; empty where there is none."""
        return text_of(self.values.get(keyword))


def planes_of(header: Header) -> list[Plane]:
    """The planes of one file.

    Raises:
        DataError: something that a plane needs is missing, damaged or cannot be read. Says what, not where.
    """
    stored = pixel_format(header)
    frames = frames_of(header)
    if frames is None:
        return [_plane(header, None, header.values, stored)]
    if len(frames) != stored.frames:
        raise DataError(f"it declares {stored.frames} frames and describes {len(frames)}")
    return [_plane(header, number, header.values | frame, stored) for number, frame in enumerate(frames)]


def _plane(header: Header, frame: int | None, values: Mapping[str, Any], stored: PixelFormat) -> Plane:
    found = {}
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        numbers = numbers_of(values.get(keyword), keyword, count)
        if numbers is None:
            raise DataError(f"{keyword} is missing, so that its place in the patient is unknown")
        found[keyword] = numbers
    x, y, z = found["ImagePositionPatient"]
    slope, intercept = rescale(values)
    offset = (header.pixels_at or 0) + (0 if stored.encapsulated else (frame or 0) * stored.frame_bytes)
    return Plane(
        header=header,
        frame=frame,
        position_lps_mm=(x, y, z),
        cosines=found["ImageOrientationPatient"],
        pixel_spacing_mm=found["PixelSpacing"],
        thickness_mm=number_of(values.get("SliceThickness"), "SliceThickness"),
        values=values,
        apart={words: _shown(values[keyword]) for words, keyword in APART.items() if keyword in values},
        pixels=Pixels(stored, offset, slope, intercept),
    )


def _shown(value: Any) -> str:
    """A value as text that is the same for equal numbers however they are written."""
    shown = []
    for part in text_of(value).split("\\"):
        try:
            number = float(part)
            shown.append(f"{number:g}" if math.isfinite(number) else part)
        except ValueError:
            shown.append(part.strip())
    return "\\".join(shown)
