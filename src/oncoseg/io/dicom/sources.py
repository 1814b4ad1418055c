"""Where DICOM files come from: a folder, what a DICOMDIR lists, or a zip that is unpacked for a while."""

import os
from pathlib import Path

from oncoseg.errors import DataError

MOST_FILES = 1_000_000
"""No folder may hold more files."""


def files_below(path: Path) -> list[Path]:
    """All files in a folder at any depth, sorted; links to folders are not followed.

    Raises:
        DataError: there is nothing at `path`, or more than `MOST_FILES`.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist; expected a folder of DICOM files.")
    files: list[Path] = []
    for folder, _, names in os.walk(path):
        files += [Path(folder, name) for name in names]
        if len(files) > MOST_FILES:
            raise DataError(f"{path} holds more than {MOST_FILES} files; name a folder within it.")
    return sorted(file for file in files if file.is_file())
