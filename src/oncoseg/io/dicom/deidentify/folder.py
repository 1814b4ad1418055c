"""A folder of DICOM files, de-identified into another."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncoseg import __version__
from oncoseg.errors import DataError, RunError
from oncoseg.files import atomic_file, new_folder, write_json
from oncoseg.io.dicom.deidentify.dataset import deidentify
from oncoseg.io.dicom.deidentify.risks import shows_face, text_in_pixels
from oncoseg.io.dicom.headers import looks_like_dicom, quiet
from oncoseg.io.dicom.patients import user_salt
from oncoseg.io.dicom.sources import files_at

if TYPE_CHECKING:
    from pydicom import Dataset

RECORD_FILE = "deidentification.json"
"""In an output folder: says that its files were made here, and tells one secret from another."""

CHECK_DIGITS = 8
"""Hexadecimal digits of the secret's hash in the record; far too few to find the secret by."""

FACES = (
    "{count} file(s) are, or may be, thin slices of heads, from which a face can be drawn: remove the faces, "
    "with a program for defacing, before you share them."
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Deidentified:
    """What became of a folder.

    Attributes:
        written: the new files.
        patients: how many there are.
        left_out: reason → how many files were not converted for it.
        warnings: what to look after before sharing, in words.
    """

    written: tuple[Path, ...]
    patients: int
    left_out: dict[str, int]
    warnings: tuple[str, ...]


def deidentify_folder(
    source: Path, out: Path, salt: bytes | None = None, progress: Progress | None = None
) -> Deidentified:
    """De-identify all DICOM files below a folder; see `deidentify`.

    Files lie in `out/PATIENT/STUDY/SERIES/INSTANCE.dcm`, all of them pseudonyms. What cannot be cleaned is
    left out and counted: reports and other objects that are text, images with text in their pixels, and
    damaged files. Neither paths nor values of the source are kept or told. The same call goes on where an
    earlier one was stopped.

    Args:
        source: searched at any depth.
        out: new, empty, or made by an earlier call with the same salt; neither in `source` nor around it.
        salt: what pseudonyms are made with; this user's own where left out, which lies in a file that the
            user alone can read (`patients.py`).
        progress: called with (files done, files in all).

    Raises:
        DataError: nothing at `source`.
        RunError: `out` holds other files, or cannot be written.
    """
    secret = user_salt() if salt is None else salt
    files = files_at(source)
    _claim(out, source, secret)
    written: list[Path] = []
    left_out: Counter[str] = Counter()
    faces = 0
    for number, file in enumerate(files, start=1):
        if looks_like_dicom(file):
            try:
                original = _read(file)
                written.append(_write(deidentify(original, secret), out))
                faces += shows_face(original)
            except DataError as error:
                left_out[str(error)] += 1
        else:
            left_out["no DICOM file"] += 1
        if progress is not None:
            progress(number, len(files))
    warnings = (FACES.format(count=faces),) if faces else ()
    patients = {file.relative_to(out).parts[0] for file in written}
    return Deidentified(tuple(written), len(patients), dict(left_out), warnings)


def _claim(out: Path, source: Path, secret: bytes) -> None:
    """Make the output folder, or take one that an earlier call with the same secret left.

    Raises:
        RunError: it holds other files, or lies in the source or around it.
    """
    here, there = out.resolve(), source.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise RunError(f"{out} and {source} overlap; expected an output folder of its own. Choose another.")
    check = hmac.new(secret, b"check", hashlib.sha256).hexdigest()[:CHECK_DIGITS]
    record = {"oncoseg": __version__, "secret": check}
    if _record(out) != record:
        new_folder(out, "The output folder")
        write_json(out / RECORD_FILE, record)


def _record(out: Path) -> object:
    try:
        return json.loads((out / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read(file: Path) -> "Dataset":
    """Read a whole file.

    Raises:
        DataError: it is damaged, or its pixels may hold text. Names neither the file nor what it says.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with quiet():
        try:
            dataset = dcmread(file, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a file without a header of its own
                explicit = not dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = (
                    ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
                )
            reason = text_in_pixels(dataset)
        except Exception as error:  # pydicom raises nearly anything on damaged bytes
            raise DataError("damaged: it cannot be read") from error
    if reason:
        raise DataError(reason)
    return dataset


def _write(dataset: "Dataset", out: Path) -> Path:
    from pydicom import dcmwrite

    folder = out / str(dataset.PatientID) / str(dataset.StudyInstanceUID) / str(dataset.SeriesInstanceUID)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    with atomic_file(path) as temporary, quiet():
        dcmwrite(temporary, dataset, enforce_file_format=True)
    return path
