"""The files behind a path: a folder, a single file, what a DICOMDIR lists, or a zip."""

import atexit
import os
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import DEFLATED, ITEM, LARGEST_HEADER_BYTES, MOST_ITEMS, meta_of, quiet, text_of
from oncoseg.io.dicom.zips import is_zip, unpacked

MOST_FILES = 1_000_000
"""No folder may hold more files."""

DICOMDIR = "DICOMDIR"
"""Name of the file that lists those of a disc (PS3.10, section 8.6)."""


def files_at(path: Path) -> list[Path]:
    """All files of a folder at any depth, of a DICOMDIR or of a zip; or the file itself. Sorted.

    Links to folders are not followed. A zip is unpacked into a temporary folder that is removed when the
    program ends.

    Raises:
        DataError: there is nothing at `path`, it holds more than `MOST_FILES`, or it cannot be used.
    """
    if path.is_file() and path.name.upper() == DICOMDIR:
        return _listed(path)
    if path.is_file() and is_zip(path):
        until_exit = ExitStack()
        atexit.register(until_exit.close)
        return _below(until_exit.enter_context(unpacked(path)))
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist; expected a folder of DICOM files, a DICOMDIR or a zip.")
    return _below(path)


def _below(path: Path) -> list[Path]:
    files: list[Path] = []
    for folder, _, names in os.walk(path):
        files += [Path(folder, name) for name in names]
        if len(files) > MOST_FILES:
            raise DataError(f"{path} holds more than {MOST_FILES} files; name a folder within it.")
    return sorted(file for file in files if file.is_file())


def _listed(path: Path) -> list[Path]:
    """The files that a DICOMDIR names; those that are not there are named all the same.

    Raises:
        DataError: it cannot be parsed, or names files outside its folder.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_HEADER_BYTES else b""
        if not data or data.count(ITEM) > MOST_ITEMS:
            raise DataError(f"{path} is empty or too large for a list of files; name the folder instead.")
        records = _records(path, data)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Name the folder instead.") from error
    found = []
    for record in records:
        parts = text_of(record).split("\\")
        if not all(part.strip(". ") and "/" not in part and ":" not in part for part in parts):
            raise DataError(f"{path} names files outside its own folder; name the folder instead.")
        found.append(_as_on_disk(path.parent, parts))
    return sorted(set(found))


def _records(path: Path, data: bytes) -> list[Any]:
    from pydicom import dcmread

    try:
        with quiet():
            if meta_of(data)[0].get("TransferSyntaxUID") == DEFLATED:
                raise ValueError(
                    "a list of files is never deflated (PS3.10, 8.6), and could unpack to anything"
                )
            records = dcmread(BytesIO(data)).DirectoryRecordSequence
            return [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError(f"{path} is damaged; name the folder instead.") from error


def _as_on_disk(folder: Path, parts: list[str]) -> Path:
    """A listed file; names are upper case in a DICOMDIR and often lower case on disk."""
    file = folder
    for part in parts:
        lower = file / part.lower()
        file = lower if not (file / part).exists() and lower.exists() else file / part
    return file
