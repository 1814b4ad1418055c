"""Planes that may be one volume → a `Series`, with remarks on what was odd."""

import hashlib
from collections.abc import Sequence

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.dicom.geometry import Gap, GapError, Placed, place
from oncoseg.io.dicom.headers import Header
from oncoseg.io.dicom.kinds import kind_of
from oncoseg.io.dicom.parts import Part, places
from oncoseg.io.dicom.planes import Plane
from oncoseg.io.dicom.remarks import remarks_on
from oncoseg.io.dicom.series import Series, Slice

PROTOCOL = (
    *("ProtocolName", "SequenceName", "EchoTime", "RepetitionTime", "InversionTime"),
    *("ContrastBolusAgent", "ImageType"),
)
"""Keywords that say what contrast an image has."""


def series_of(part: Part, patient: str, split_gaps: bool) -> list[Series]:
    """The volumes that a part of a series makes: one, or one for each stretch without a gap.

    Args:
        part: see `parts.split`.
        patient: see `Series.patient`.
        split_gaps: whether missing slices part the series; else they are an error.

    Raises:
        GeometryError: it makes none; says why.
    """
    planes, remarks = _without_duplicates(part.planes)
    try:
        return [_series(place(planes), part.label, patient, remarks)]
    except GapError as error:
        if not split_gaps:
            raise GapError(
                f"{error}. Find the missing files, or ask for the stretches without a gap", error.gaps
            ) from error
        stretches = _stretches(planes, error.gaps)
    words = "cut where slices are missing"
    return [
        _series(
            place(some),
            ", ".join(filter(None, [part.label, f"stretch {number} of {len(stretches)}"])),
            patient,
            [*remarks, words],
        )
        for number, some in enumerate(stretches, 1)
    ]


def _without_duplicates(planes: Sequence[Plane]) -> tuple[list[Plane], list[str]]:
    """One plane for each place.

    Raises:
        GeometryError: different images lie at one place.
    """
    kept, dropped, different = [], 0, 0
    for group in places(planes):
        group = sorted(group, key=lambda plane: (str(plane.header.file), plane.frame or 0))
        same = len(group) == 1 or len({_digest(plane) for plane in group}) == 1
        kept.append(group[0])
        dropped += len(group) - 1
        different += not same
    if different:
        raise GeometryError(
            f"at {different} of {len(kept)} places there are several different images, and nothing in the "
            "headers tells them apart; expected one. Put them into series of their own"
        )
    return kept, [f"{dropped} duplicate(s) of slices, equal pixel by pixel, left out"] if dropped else []


def _digest(plane: Plane) -> bytes:
    """Equal for planes whose stored pixels and their meaning are equal."""
    stored = plane.pixels.format
    if stored.encapsulated and stored.frames > 1:
        return str(plane.frame).encode()  # frames of one compressed file are not taken apart for this
    with plane.header.file.open("rb") as file:
        file.seek(plane.pixels.offset)
        pixels = file.read(-1 if stored.encapsulated else stored.frame_bytes)
    meaning = repr((stored.transfer_syntax, stored.rows, stored.columns, stored.signed, plane.pixels[2:]))
    return hashlib.sha256(meaning.encode() + pixels).digest()


def _stretches(planes: Sequence[Plane], gaps: Sequence[Gap]) -> list[list[Plane]]:
    ordered = [group[0] for group in places(planes)]
    ends = [gap.after + 1 for gap in gaps]
    return [ordered[start:stop] for start, stop in zip([0, *ends], [*ends, len(ordered)], strict=True)]


def _series(placed: Placed, label: str, patient: str, remarks: Sequence[str]) -> Series:
    first = placed.planes[0]
    header, stored = first.header, first.pixels.format
    return Series(
        uid=header.text("SeriesInstanceUID"),
        study_uid=header.text("StudyInstanceUID"),
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
        modality=header.text("Modality") or kind_of(header.text("SOPClassUID")),
        description=header.text("SeriesDescription"),
        number=series_number(header),
        slices=tuple(
            Slice(
                plane.header.file,
                plane.frame,
                plane.header.text("SOPInstanceUID"),
                plane.position_lps_mm,
                plane.pixels,
            )  # type: ignore[arg-type]
            for plane in placed.planes
        ),
        grid=(stored.columns, stored.rows, len(placed.planes)),
        affine_ras=placed.affine_ras,
        remarks=(*remarks, *placed.remarks, *remarks_on(placed.planes)),
        part=label,
        patient=patient,
        protocol={keyword: header.text(keyword) for keyword in PROTOCOL if header.text(keyword)},
    )


def series_number(header: Header) -> int | None:
    """SeriesNumber; None where it is missing or no number."""
    try:
        number = header.number("SeriesNumber")
    except DataError:
        return None
    return None if number is None else int(number)
