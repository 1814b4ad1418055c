"""The headers of one series → the volumes that it makes, and what of it makes none and why."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.dicom.findings import LeftOut
from oncoseg.io.dicom.geometry import Gap, GapError, Placed, place
from oncoseg.io.dicom.headers import DEFLATED, Header, quiet
from oncoseg.io.dicom.kinds import kind_of
from oncoseg.io.dicom.parts import COSINE_EQUAL, Part, normal, places, split
from oncoseg.io.dicom.planes import Plane, planes_of
from oncoseg.io.dicom.remarks import remarks_on
from oncoseg.io.dicom.series import Series, Slice

BLOCK_BYTES = 1 << 20
"""How much of a file is read at a time while slices are compared."""

FEWEST_SLICES = 3
"""Fewer slices of one orientation, beside slices of another in the same series, are a localiser."""

SHOWN_REASONS = 3
"""How many different reasons why files cannot be slices are told."""

PROTOCOL = (
    *("ProtocolName", "SequenceName", "EchoTime", "RepetitionTime", "InversionTime"),
    *("ContrastBolusAgent", "ImageType"),
)
"""Keywords that say what contrast an image has."""


def volumes(headers: Sequence[Header], patient: str, split_gaps: bool) -> tuple[list[Series], list[LeftOut]]:
    """Turn the images of one series into volumes.

    Args:
        headers: of images that may be slices, all of one series.
        patient: see `Series.patient`.
        split_gaps: whether missing slices part the series; else it is left out.
    """
    planes, reasons = _planes(headers)
    if reasons:
        told = (f"{n} of {len(headers)} file(s): {why}" for why, n in reasons.most_common(SHOWN_REASONS))
        return [], [left_out(headers, "refused", "; ".join(told))]
    made, refused = [], []
    parts = split(planes)
    localisers = _localisers(parts)
    if localisers:
        words = f"{len(localisers)} orientation(s) of fewer than {FEWEST_SLICES} slices each, no volume"
        some = [plane for part in localisers for plane in part.planes]
        refused.append(left_out(_headers_of(some), "localiser", words))
    aside = set(map(id, localisers))
    for part in parts:
        if id(part) in aside:
            continue
        try:
            made += _series_of(part, patient, split_gaps)
        except GeometryError as error:
            label = f"{part.label}: " if part.label else ""
            refused.append(left_out(_headers_of(part.planes), "refused", f"{label}{error}"))
    return made, refused


def left_out(headers: Sequence[Header], kind: str, reason: str) -> LeftOut:
    """Say that files of one series were left out."""
    first = headers[0]
    return LeftOut(
        kind=kind,
        reason=reason,
        files=tuple(header.file for header in headers),
        uid=first.text("SeriesInstanceUID"),
        study_uid=first.text("StudyInstanceUID"),
        modality=_modality(first),
        description=first.text("SeriesDescription"),
        number=_series_number(first),
    )


def _localisers(parts: Sequence[Part]) -> list[Part]:
    """Parts of few slices, where there are several orientations."""
    normals = np.array([normal(part.planes[0]) for part in parts])
    if np.abs(normals - normals[0]).max() <= COSINE_EQUAL:
        return []
    return [part for part in parts if len(places(part.planes)) < FEWEST_SLICES]


def _headers_of(planes: Sequence[Plane]) -> list[Header]:
    return list({plane.header.file: plane.header for plane in planes}.values())


def _planes(headers: Sequence[Header]) -> tuple[list[Plane], Counter[str]]:
    """All planes, and why files have none."""
    planes: list[Plane] = []
    reasons: Counter[str] = Counter()
    with quiet():
        for header in headers:
            try:
                if not header.text("SeriesInstanceUID"):
                    raise DataError(
                        "SeriesInstanceUID is missing, so that nothing says which belong together"
                    )
                planes += planes_of(header)
            except DataError as error:
                reasons[str(error)] += 1
    return planes, reasons


def _series_of(part: Part, patient: str, split_gaps: bool) -> list[Series]:
    """The volumes that a part of a series makes: one, or one for each stretch without a gap.

    Raises:
        GeometryError: it makes none; says why.
    """
    planes, remarks = _without_duplicates(part.planes)
    try:
        return [_series(place(planes), part.label, patient, remarks)]
    except GapError as error:
        if not split_gaps:
            raise
        stretches = _stretches(planes, error.gaps)
    made = []
    for number, stretch in enumerate(stretches, 1):
        words = f"stretch {number} of {len(stretches)} without a gap"
        label = f"{part.label}, {words}" if part.label else words
        made.append(_series(place(stretch), label, patient, [*remarks, "cut where slices are missing"]))
    return made


def _without_duplicates(planes: Sequence[Plane]) -> tuple[list[Plane], list[str]]:
    """One plane for each place, and a remark on the others.

    Raises:
        GeometryError: different images lie at one place.
    """
    groups = places(planes)
    different = sum(len(group) > 1 and len(set(map(_digest, group))) > 1 for group in groups)
    if different:
        raise GeometryError(
            f"at {different} of {len(groups)} places there are several different images that no header tells "
            "apart; expected one. Put them into folders of their own, and name one"
        )
    dropped = len(planes) - len(groups)
    kept = [min(group, key=lambda plane: (str(plane.header.file), plane.frame or 0)) for group in groups]
    return kept, [f"{dropped} duplicate(s) of slices, equal in every pixel, left out"] if dropped else []


def _digest(plane: Plane) -> bytes:
    """Equal for planes whose stored pixels and their meaning are equal."""
    stored = plane.pixels.format
    deflated = stored.transfer_syntax == DEFLATED
    if (stored.encapsulated or deflated) and stored.frames > 1:
        return f"{plane.header.file} {plane.frame}".encode()  # such a file is not unpacked just for this
    meaning = repr((stored.transfer_syntax, stored.rows, stored.columns, stored.signed, plane.pixels[2:]))
    digest = hashlib.sha256(meaning.encode())
    try:
        with plane.header.file.open("rb") as file:
            file.seek(0 if deflated else plane.pixels.offset)
            left = None if stored.encapsulated or deflated else stored.frame_bytes
            while block := file.read(BLOCK_BYTES if left is None else min(left, BLOCK_BYTES)):
                digest.update(block)
                left = None if left is None else left - len(block)
    except OSError as error:
        raise GeometryError(f"{plane.header.file} cannot be read: {error.strerror}") from error
    return digest.digest()


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
        modality=_modality(header),
        description=header.text("SeriesDescription"),
        number=_series_number(header),
        slices=tuple(
            Slice(
                plane.header.file,
                plane.frame,
                plane.header.text("SOPInstanceUID"),
                plane.position_lps_mm,
                plane.pixels,
            )
            for plane in placed.planes
        ),
        grid=(stored.columns, stored.rows, len(placed.planes)),
        affine_ras=placed.affine_ras,
        remarks=(*remarks, *placed.remarks, *remarks_on(placed.planes)),
        part=label,
        patient=patient,
        protocol={keyword: first.text(keyword) for keyword in PROTOCOL if first.text(keyword)},
    )


def _modality(header: Header) -> str:
    """Modality; what the SOP class is for, where that is not said."""
    return header.text("Modality") or kind_of(header.text("SOPClassUID"))


def _series_number(header: Header) -> int | None:
    """SeriesNumber; None where it is missing or no number."""
    try:
        number = header.number("SeriesNumber")
    except DataError:
        return None
    return None if number is None else int(number)
