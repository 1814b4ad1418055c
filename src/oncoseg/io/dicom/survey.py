"""What lies in a folder of DICOM files: series that are volumes, annotations, and the rest with reasons."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.dicom.assemble import series_number, series_of
from oncoseg.io.dicom.headers import Header, NotDicomError, quiet, read_header
from oncoseg.io.dicom.kinds import ANNOTATIONS, MULTI_FRAME, VOLUMES, kind_of
from oncoseg.io.dicom.parts import COSINE_EQUAL, Part, normal, places, split
from oncoseg.io.dicom.patients import patient_key, user_salt
from oncoseg.io.dicom.planes import Plane, planes_of
from oncoseg.io.dicom.series import Series

FEWEST_SLICES = 3
"""Fewer slices of one orientation, beside slices of another in the same series, are a localiser."""

READERS = 4
"""Threads that read headers: on a cold disk they wait for several files at once."""

Gaps = Literal["refuse", "split"]
"""What becomes of a series with missing slices: nothing, or one volume for each stretch without a gap."""


@dataclass(frozen=True)
class Annotation:
    """An object that marks something in images.

    Attributes:
        file: where it lies.
        kind: `RTSTRUCT`, `SEG` or `SR`.
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        sop_instance_uid: of the file.
        frame_of_reference_uid: empty where it does not say at its top level.
        description: SeriesDescription; shown and never stored.
        patient: see `Series.patient`.
    """

    file: Path
    kind: str
    uid: str
    study_uid: str
    sop_instance_uid: str
    frame_of_reference_uid: str
    description: str
    patient: str


@dataclass(frozen=True)
class LeftOut:
    """Files that make no volume.

    Attributes:
        kind: `localiser`, `secondary capture`, `dose report`, …; `refused` for what should be a volume and
            cannot be one; `damaged` for a file that cannot be parsed.
        reason: in words that say how to mend it, where that is possible.
        files: which.
        uid: SeriesInstanceUID; empty where it is unknown.
        study_uid: StudyInstanceUID.
        modality: as for `Series`.
        description: SeriesDescription; shown and never stored.
        number: SeriesNumber, or None.
    """

    kind: str
    reason: str
    files: tuple[Path, ...]
    uid: str = ""
    study_uid: str = ""
    modality: str = ""
    description: str = ""
    number: int | None = None


@dataclass
class Survey:
    """What was found.

    Attributes:
        series: those that are volumes, by study, number, UID and part.
        annotations: objects that mark something in images.
        left_out: everything else that is DICOM, with the reason.
        not_dicom: how many files are no DICOM files.
    """

    series: list[Series] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    not_dicom: int = 0


def find_series(path: Path, *, gaps: Gaps = "refuse", salt: bytes | None = None) -> list[Series]:
    """The series in a folder that are volumes; see `survey` for what was left out, and for the arguments."""
    return survey(path, gaps=gaps, salt=salt).series


def survey(path: Path, *, gaps: Gaps = "refuse", salt: bytes | None = None) -> Survey:
    """Look through DICOM files; reads headers alone.

    Args:
        path: a folder, which is searched at any depth, whatever its files are called; or one file.
        gaps: what becomes of a series with missing slices.
        salt: for `Series.patient`; this user's own where left out.

    Raises:
        DataError: there is nothing at `path`.
    """
    from oncoseg.io.dicom.sources import files_below

    return survey_files(files_below(path), gaps=gaps, salt=salt)


def survey_files(files: Iterable[Path], *, gaps: Gaps = "refuse", salt: bytes | None = None) -> Survey:
    """As `survey`, of these files."""
    found = Survey()
    headers = _headers(files, found)
    patients = _Patients(salt)
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    aside: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        patient, kind = patients.key(header), _kind(header)
        if kind in ANNOTATIONS.values():
            found.annotations.append(_annotation(header, kind, patient))
            continue
        series = (patient, header.text("StudyInstanceUID"), header.text("SeriesInstanceUID"))
        (groups if kind == "image" else aside)[*series, kind].append(header)
    for (*_, kind), some in aside.items():
        found.left_out.append(_left_out(some, kind, _reason(kind)))
    for (patient, *_), some in groups.items():
        _volumes(some, patient, gaps, found)
    _mention_damage(found)
    found.series.sort(key=lambda each: (each.study_uid, each.number or 0, each.uid, each.part))
    return found


class _Patients:
    """Keys of patients; the salt is only asked for when there is a patient."""

    def __init__(self, salt: bytes | None) -> None:
        self._salt = salt

    def key(self, header: Header) -> str:
        self._salt = user_salt() if self._salt is None else self._salt
        identifier = header.text("PatientID")
        if identifier:
            return patient_key(identifier, header.text("IssuerOfPatientID"), self._salt)
        return patient_key(header.text("StudyInstanceUID"), "study without a patient", self._salt)


def _headers(files: Iterable[Path], found: Survey) -> list[Header]:
    def read(file: Path) -> Header | DataError:
        try:
            return read_header(file, MULTI_FRAME)
        except DataError as error:
            return error

    headers = []
    files = list(files)
    with quiet(), ThreadPoolExecutor(READERS) as threads:
        for file, header in zip(files, threads.map(read, files), strict=True):
            if isinstance(header, NotDicomError):
                found.not_dicom += 1
            elif isinstance(header, DataError):
                found.left_out.append(LeftOut("damaged", str(header), (file,)))
            else:
                headers.append(header)
    return headers


def _kind(header: Header) -> str:
    """`image` for what may be a slice, else what it is."""
    sop_class = header.text("SOPClassUID")
    if sop_class not in VOLUMES:
        return kind_of(sop_class)
    if "LOCALIZER" in header.text("ImageType").upper().split("\\"):
        return "localiser"
    if header.text("BurnedInAnnotation").upper() == "YES":
        return "burned-in annotation"
    return "image"


def _reason(kind: str) -> str:
    return {
        "localiser": "a localiser: single slices that plan a scan, no volume",
        "burned-in annotation": "text is drawn into its pixels",
    }.get(kind, f"{kind}: no volume of CT, MR or PET")


def _annotation(header: Header, kind: str, patient: str) -> Annotation:
    return Annotation(
        header.file,
        kind,
        header.text("SeriesInstanceUID"),
        header.text("StudyInstanceUID"),
        header.text("SOPInstanceUID"),
        header.text("FrameOfReferenceUID"),
        header.text("SeriesDescription"),
        patient,
    )


def _left_out(headers: Sequence[Header], kind: str, reason: str) -> LeftOut:
    first = headers[0]
    return LeftOut(
        kind,
        reason,
        tuple(header.file for header in headers),
        first.text("SeriesInstanceUID"),
        first.text("StudyInstanceUID"),
        modality_of(first),
        first.text("SeriesDescription"),
        series_number(first),
    )


def modality_of(header: Header) -> str:
    """Modality; what the SOP class is for, where that is not said."""
    return header.text("Modality") or kind_of(header.text("SOPClassUID"))


def _volumes(headers: list[Header], patient: str, gaps: Gaps, found: Survey) -> None:
    """Add the volumes of one series, and what of it was left out."""
    planes: list[Plane] = []
    unfit: list[tuple[Header, str]] = []
    with quiet():
        for header in headers:
            try:
                planes += planes_of(header)
            except DataError as error:
                unfit.append((header, str(error)))
    if not headers[0].text("SeriesInstanceUID"):
        unfit = [
            (header, "SeriesInstanceUID is missing, so that nothing says which belong together")
            for header in headers
        ]
    if unfit:
        reasons = Counter(reason for _, reason in unfit)
        words = "; ".join(
            f"{count} of {len(headers)} file(s): {reason}" for reason, count in reasons.most_common(3)
        )
        found.left_out.append(_left_out(headers, "refused", words))
        return
    parts = split(planes)
    for part in parts:
        if _is_localiser(part, parts):
            words = f"a localiser: {len(part.planes)} slice(s) beside slices of another orientation"
            found.left_out.append(_left_out([plane.header for plane in part.planes], "localiser", words))
            continue
        try:
            found.series += series_of(part, patient, gaps == "split")
        except GeometryError as error:
            label = f"{part.label}: " if part.label else ""
            headers = list({plane.header.file: plane.header for plane in part.planes}.values())
            found.left_out.append(_left_out(headers, "refused", f"{label}{error}"))


def _is_localiser(part: Part, parts: Sequence[Part]) -> bool:
    """Whether it has few slices and lies beside parts of another orientation."""
    own = normal(part.planes[0])
    others = [normal(other.planes[0]) for other in parts]
    if all(np.abs(own - other).max() <= COSINE_EQUAL for other in others):
        return False
    return len(places(part.planes)) < FEWEST_SLICES


def _mention_damage(found: Survey) -> None:
    """A damaged file may be the last slice of what lies beside it, where no gap shows."""
    damaged = {file.parent for each in found.left_out if each.kind == "damaged" for file in each.files}
    words = "damaged files lie beside its own: slices may be missing at its ends"
    found.series = [
        replace(each, remarks=(*each.remarks, words))
        if {file.parent for file in each.files} & damaged
        else each
        for each in found.series
    ]
