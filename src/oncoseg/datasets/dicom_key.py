"""Which case is whose, for the clinic alone: cases of DICOM have salted keys for names."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.files import atomic_file

COLUMNS = ("case", "patient", "patient_id", "first_image")
"""Of the file: the keys, then what they stand for."""


def check_new(path: Path, data: Path) -> None:
    """Check that a key may be written, before any work is done for it.

    Raises:
        DataError: the file is there already, or would lie within the data.
    """
    if path.exists() or data.resolve() in path.resolve().parents:
        raise DataError(
            f"The key {path} must be a new file outside of {data}, as who gets the data must not get the key."
        )


def write_key(path: Path, cases: Sequence[Case]) -> None:
    """Write a CSV file, readable by this user alone, with the PatientID behind each case's keys.

    Args:
        path: the file; see `check_new`.
        cases: of a DICOM folder.

    Raises:
        DataError: an image that cannot be read.
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for case in cases:
        first = next(iter(case.images.values())).files[0]
        rows.writerow((case.id, case.patient, _patient_id(first), first.resolve()))
    with atomic_file(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _patient_id(file: Path) -> str:
    from pydicom import dcmread

    try:
        return str(dcmread(file, specific_tags=["PatientID"], stop_before_pixels=True).get("PatientID", ""))
    except Exception as error:  # whatever a damaged file brings about
        raise DataError(f"{file} cannot be read any more ({type(error).__name__}).") from error
