"""Looking through a folder of DICOM files, by their headers alone."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from oncoseg.errors import DataError
from oncoseg.io.dicom.assemble import left_out, volumes
from oncoseg.io.dicom.findings import Annotation, Survey
from oncoseg.io.dicom.findings import LeftOut as LeftOut
from oncoseg.io.dicom.headers import Header, NotDicomError, quiet, read_header
from oncoseg.io.dicom.kinds import ANNOTATIONS, VOLUMES, kind_of
from oncoseg.io.dicom.patients import patient_key, user_salt
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.sources import DICOMDIR, files_at

READERS = 4
"""Threads that read headers: on a cold disk they wait for several files at once."""

FILES_TOLD = 50
"""Progress is told after so many files, and at the end."""

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

Gaps = Literal["refuse", "split"]
"""What becomes of a series with missing slices: nothing, or one volume for each stretch without a gap."""


def find_series(path: Path, *, gaps: Gaps = "refuse", salt: bytes | None = None) -> list[Series]:
    """The series that are volumes; see `survey` for what was left out, and for the arguments."""
    return survey(path, gaps=gaps, salt=salt).series


def survey(
    path: Path, *, gaps: Gaps = "refuse", salt: bytes | None = None, progress: Progress | None = None
) -> Survey:
    """Look through DICOM files; reads headers alone.

    Args:
        path: a folder, which is searched at any depth, whatever its files are called; a DICOMDIR; a single
            file; or a zip, which stays unpacked until the program ends (see `zips.unpacked` for shorter).
        gaps: what becomes of a series with missing slices.
        salt: for `Series.patient`; this user's own where left out (see `patients.py`).
        progress: called with (files done, files in all).

    Raises:
        DataError: there is nothing at `path`, or it is a zip or a DICOMDIR that cannot be used.
    """
    return survey_files(files_at(path), gaps=gaps, salt=salt, progress=progress)


def survey_files(
    files: Iterable[Path],
    *,
    gaps: Gaps = "refuse",
    salt: bytes | None = None,
    progress: Progress | None = None,
) -> Survey:
    """As `survey`, of these files."""
    found = Survey()
    headers = _headers(list(files), found, progress)
    patients = _Patients(salt)
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        key = (patients.key(header), header.text("StudyInstanceUID"), header.text("SeriesInstanceUID"))
        groups[*key, _kind(header)].append(header)
    for (patient, *_, kind), some in groups.items():
        if kind in ANNOTATIONS.values():
            found.annotations += [_annotation(header, kind, patient) for header in some]
        elif kind == DICOMDIR:
            continue  # the files that it lists are found by themselves
        elif kind == "image":
            made, refused = volumes(some, patient, gaps == "split")
            found.series += made
            found.left_out += refused
        else:
            found.left_out.append(left_out(some, kind, _reason(kind)))
    damaged = {file.parent for each in found.left_out if each.kind == "damaged" for file in each.files}
    found.series = sorted((_beside_damage(each, damaged) for each in found.series), key=_order)
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
        return patient_key(header.text("StudyInstanceUID"), "a study without a patient", self._salt)


def _headers(files: Collection[Path], found: Survey, progress: Progress | None) -> list[Header]:
    def read(file: Path) -> Header | DataError:
        try:
            return read_header(file, VOLUMES)
        except DataError as error:
            return error

    headers = []
    with quiet(), ThreadPoolExecutor(READERS) as threads:
        for done, (file, header) in enumerate(zip(files, threads.map(read, files), strict=True), 1):
            if progress and (done % FILES_TOLD == 0 or done == len(files)):
                progress(done, len(files))
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
    image_type = header.text("ImageType").upper().split("\\")
    if "LOCALIZER" in image_type:
        return "localiser"
    if "MOSAIC" in image_type:
        return "mosaic"
    if header.text("BurnedInAnnotation").upper() == "YES":
        return "burned-in text"
    return "image"


def _reason(kind: str) -> str:
    return {
        "localiser": "single slices that plan a scan, no volume",
        "mosaic": "all slices lie side by side in one picture; export them as single slices",
        "burned-in text": "text is drawn into the pixels, which would be taken for anatomy",
    }.get(kind, "no volume of CT, MR or PET")


def _annotation(header: Header, kind: str, patient: str) -> Annotation:
    return Annotation(
        file=header.file,
        kind=kind,
        uid=header.text("SeriesInstanceUID"),
        study_uid=header.text("StudyInstanceUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
        description=header.text("SeriesDescription"),
        patient=patient,
        made_by=header.text("ManufacturerModelName"),
    )


def _beside_damage(series: Series, damaged: Collection[Path]) -> Series:
    """Remark on damaged files in its folders: one may be its last slice, where no gap shows."""
    if not {file.parent for file in series.files} & set(damaged):
        return series
    words = "damaged files lie beside its own: slices may be missing at its ends"
    return replace(series, remarks=(*series.remarks, words))


def _order(series: Series) -> tuple[str, int, str, str]:
    return series.study_uid, series.number or 0, series.uid, series.part
