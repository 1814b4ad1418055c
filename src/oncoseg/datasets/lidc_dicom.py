"""LIDC-IDRI as it is downloaded: CT series as DICOM, and the readers' marks as XML, in any folders.

The XML may lie beside the images, as in TCIA's older downloads, or in a folder of its own: a reading is found
by the SeriesInstanceUID that it is of. Every reader is a mask of all nodules of 3 mm and more that they
outlined. Chest X-rays and their readings are passed over. Armato et al., 2011,
https://doi.org/10.1118/1.3528204.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from oncoseg.datasets.base import Case, Layout, Problem, Progress, Scan
from oncoseg.datasets.folders import GLANCE_FOLDERS, collect, safe_id, walk
from oncoseg.errors import DataError
from oncoseg.io import ImageRef
from oncoseg.io.dicom.headers import looks_like_dicom, quiet, read_header
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.sources import files_at
from oncoseg.io.dicom.survey import survey_files
from oncoseg.io.lidc_masks import Slices, outlined
from oncoseg.io.lidc_xml import ROOT, LidcRead, OtherXmlError, read_lidc_xml
from oncoseg.processes import processes_within, run_each

LABELS = {1: "nodule"}
"""The masks' one value."""

PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
"""The collection's public numbers of its patients; folders are called so, and PatientID is one."""

PUBLIC = b"the collection's identifiers are public"
"""Salt of the keys of patients whose number cannot be told; there is no secret to keep."""

READERS = 4
"""Readings of a scan by design; one scan of the collection holds the readings of two such panels."""

MANY_FOLDERS, PROCESS_GIB = 32, 0.5
"""From how many patients on several processes look through them, and what one needs."""

DEPTH = 4
"""Recognising a layout looks no deeper below a folder."""

GLANCE_FILES, GLANCE_BYTES = 3, 2048
"""How many files of a folder, and how much of an XML, recognising looks at."""


class Folder(NamedTuple):
    """What lies in one folder: CT series with their patients, and why others are left out."""

    scans: list[tuple[Series, str]]
    left_out: list[str]


class Reading(NamedTuple):
    """An XML file and what it holds."""

    file: Path
    read: LidcRead


def recognise(path: Path) -> bool:
    """True when one of the first folders holds an LIDC reading of CT, or is a patient's and holds DICOM."""
    return any(
        any(_is_reading(folder / name) for name in files)
        or (PATIENT.fullmatch(folder.name) is not None and _holds_dicom(folder))
        for folder, files, _ in walk(path.resolve(), DEPTH, GLANCE_FOLDERS)
    )


def scan(path: Path, progress: Progress | None = None) -> Scan:
    """Describe every CT series; tells (files done, files in all) after each folder."""
    return collect("lidc_dicom", _described(path.resolve(), progress))


def _described(path: Path, progress: Progress | None) -> Iterator[tuple[Case | None, list[Problem]]]:
    files = [file for file in files_at(path) if not _is_hidden(file.relative_to(path))]
    texts = [file for file in files if file.suffix.lower() == ".xml"]
    readings, problems = _readings(texts)
    if problems:
        yield None, problems
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() != ".xml":
            groups[_group(file)].append(file)
    count = processes_within(None, None, PROCESS_GIB, len(groups)) if len(groups) >= MANY_FOLDERS else 0
    found, done = {}, len(texts)
    for folder, looked in run_each(_look, groups.items(), count, "scanning"):
        found[folder] = looked
        done += len(groups[folder])
        if progress:
            progress(done, len(files))
    if readings and not any(each.scans for each in found.values()):
        text = f"{len(readings)} series have readings (XML), but there is no CT image (DICOM). Add them."
        yield None, [Problem("missing-image", None, text)]
    for folder in groups:
        for reason in found[folder].left_out:
            text = f"{folder}: a series is left out: {reason.rstrip('.')}. Copy its files again."
            yield None, [Problem("no-case", None, text)]
        yield from _named(found[folder].scans, readings)


def _look(item: tuple[Path, Sequence[Path]]) -> tuple[Path, Folder]:
    """What lies in one folder."""
    folder, files = item
    found = survey_files(files, salt=PUBLIC)
    scans = [(series, _patient(series, folder)) for series in found.series if series.modality == "CT"]
    reasons = [
        each.reason
        for each in found.left_out
        if each.kind in ("refused", "damaged") and each.modality in ("CT", "")
    ]
    return folder, Folder(scans, reasons)


def _named(
    scans: Sequence[tuple[Series, str]], readings: Mapping[str, Sequence[Reading]]
) -> Iterator[tuple[Case, list[Problem]]]:
    """Cases with ids: the patient's number, and the scan's where there are several."""
    counts, numbers = Counter(patient for _, patient in scans), Counter[str]()
    for series, patient in scans:
        numbers[patient] += 1
        case_id = patient if counts[patient] == 1 else f"{patient}_{numbers[patient]}"
        yield _describe(case_id, patient, series, readings.get(series.uid, ()))


def _describe(
    case_id: str, patient: str, series: Series, readings: Sequence[Reading]
) -> tuple[Case, list[Problem]]:
    images = {"CT": ImageRef(series.files)}
    if not readings:
        text = f"{case_id}: no XML has its readers' marks, so it has no truth and can only be predicted. Add "
        problem = Problem(
            "missing-mask", case_id, f"{text}the collection's XML files anywhere in the folder."
        )
        return Case(case_id, patient, images, (), LABELS), [problem]
    file, read = readings[0]
    masks = tuple(
        ImageRef((file,), grid_of=series.files, structures=((f"reader {reader}", 1),))
        for reader in range(1, min(read.readers, READERS) + 1)
    )
    problems = [*_ambiguous(case_id, readings), *_absent(case_id, series, read)]
    return Case(case_id, patient, images, masks, LABELS), problems


def _ambiguous(case_id: str, readings: Sequence[Reading]) -> Iterator[Problem]:
    """Problems where there are more readings of a series than there should be."""
    file, read = readings[0]
    if len({_payload(each.read) for each in readings}) > 1:
        text = f"{case_id}: {len(readings)} XML files that differ are of it; {file.name} is used. Remove the "
        yield Problem("duplicate-mask", case_id, f"{text}superseded ones.")
    if read.readers > READERS:
        text = (
            f"{case_id}: expected {READERS} readings in {file.name}, got {read.readers}; the first {READERS}"
        )
        yield Problem("surplus-readers", case_id, f"{text} are used.")


def _absent(case_id: str, series: Series, read: LidcRead) -> Iterator[Problem]:
    """A problem where marks lie in slices that are not here."""
    slices = Slices(series)
    nodules = outlined(read)
    small = [mark for mark in read.nodules if not mark.is_outlined]
    kinds = {
        "outline(s) of nodules": [outline for mark in nodules for outline in mark.outlines],
        "nodule(s) below 3 mm": [outline for mark in small for outline in mark.outlines],
        "non-nodule(s)": [mark.outline for mark in read.non_nodules],
    }
    words = []
    for kind, outlines in kinds.items():
        absent = sum(slices.find(outline) is None for outline in outlines)
        if absent:
            words.append(f"{absent} of {len(outlines)} {kind}")
    if words:
        text = f"{case_id}: {' and '.join(words)} are marked in slices that are not here; they are left out."
        yield Problem("missing-image-slice", case_id, f"{text} Restore the slices.")


def _readings(files: Sequence[Path]) -> tuple[dict[str, list[Reading]], list[Problem]]:
    """The readings of CT by series, corrected ones first; and which files cannot be read."""
    found: dict[str, list[Reading]] = defaultdict(list)
    problems = []
    for file in sorted(files, key=lambda each: ("correction" not in each.name, each)):
        try:
            read = read_lidc_xml(file)
        except OtherXmlError:
            continue
        except DataError as error:
            problems.append(Problem("unreadable", None, str(error)))
        else:
            found[read.series_uid].append(Reading(file, read))
    return found, problems


def _payload(read: LidcRead) -> int:
    """Equal for readings with the same nodules."""
    return hash(
        tuple(
            (mark.reader, *mark.ratings.items(), each.image, each.included, each.points.tobytes())
            for mark in read.nodules
            for each in mark.outlines
        )
    )


def _patient(series: Series, folder: Path) -> str:
    """The collection's number of the patient, which is public; else one that names nobody."""
    with quiet():
        identifier = read_header(series.files[0]).text("PatientID")
    for name in (identifier, *folder.parts[::-1]):
        if PATIENT.fullmatch(name):
            return name
    return safe_id(series.patient)


def _group(file: Path) -> Path:
    """The patient's folder that a file lies in, else its own folder."""
    return next((folder for folder in file.parents if PATIENT.fullmatch(folder.name)), file.parent)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _is_reading(file: Path) -> bool:
    if file.suffix.lower() != ".xml":
        return False
    try:
        with file.open("rb") as opened:
            return ROOT.encode() in opened.read(GLANCE_BYTES)
    except OSError:
        return False


def _holds_dicom(folder: Path) -> bool:
    return any(
        looks_like_dicom(below / name)
        for below, files, _ in walk(folder, DEPTH, GLANCE_FOLDERS)
        for name in files[:GLANCE_FILES]
    )


LAYOUT = Layout(
    title="LIDC-IDRI: LIDC-IDRI-NNNN/…/*.dcm, with the readers' XML files beside the images or elsewhere",
    channels=("CT",),
    recognise=recognise,
    scan=scan,
    watched=scan,
    anonymous=True,
)
"""The layout `lidc_dicom`."""
