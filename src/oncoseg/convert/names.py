"""Names of cases and patients in converted data: kept, or replaced by salted pseudonyms.

A pseudonym is a hash of the name with a secret salt, so that who knows the names but not the salt cannot tell
which is which. The same salt gives the same pseudonyms in every conversion; a patient who is named by the
PatientID gets the one that reading or de-identifying the DICOM files gives.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from oncoseg.datasets.base import Case
from oncoseg.datasets.folders import safe_id
from oncoseg.errors import DataError
from oncoseg.files import disk_errors, write_text
from oncoseg.io.dicom.patients import patient_key

CASE_DIGITS, SITE_DIGITS = 8, 4
"""Hexadecimal digits of what comes after a patient's pseudonym in a case's, and of a site's."""

SALT_BYTES = 32
"""Length of a salt that is made here."""

SHORTEST_SALT = 16
"""Bytes; a shorter salt could be guessed."""


def pseudonyms(cases: Sequence[Case], salt: bytes) -> list[Case]:
    """The cases under salted pseudonyms of their names, their patients and their sites.

    Raises:
        DataError: two cases get one name, which a million patients make likely once in a billion times.
    """
    renamed = [_renamed(case, salt) for case in cases]
    if len({case.id for case in renamed}) < len(renamed):
        raise DataError("Two cases get one pseudonym. Use another salt: --salt-file NEW.")
    return renamed


def safe_patients(cases: Sequence[Case]) -> list[Case]:
    """The cases with patients' names that every file system and table can hold."""
    return [replace(case, patient=safe_id(case.patient)) for case in cases]


def read_salt(path: Path) -> bytes:
    """Read a salt; a new one is made where there is no file, readable by this user alone.

    Raises:
        DataError: it cannot be read, or is too short.
        RunError: it cannot be written.
    """
    if not path.exists():
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SALT_BYTES))
    try:
        salt = path.read_bytes()
    except OSError as error:
        raise DataError(f"The salt {path} cannot be read: {error.strerror}.") from error
    if len(salt) < SHORTEST_SALT:
        raise DataError(f"The salt {path} has {len(salt)} bytes; expected at least {SHORTEST_SALT}.")
    return salt


def write_key(path: Path, out: Path, cases: Sequence[Case], renamed: Sequence[Case]) -> None:
    """Write which pseudonym is whose, for the clinic alone: a CSV file that only this user can read.

    Raises:
        DataError: the file would lie within the converted data, or is there already.
    """
    if path.exists() or out.resolve() in path.resolve().parents:
        raise DataError(
            f"The key {path} must be a new file outside of {out}, as who gets the data must not get the key."
        )
    lines = ["pseudonym,case,patient_pseudonym,patient"]
    lines += [
        ",".join(_quoted(text) for text in (new.id, old.id, new.patient, old.patient))
        for old, new in zip(cases, renamed, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")
    path.chmod(0o600)


def _renamed(case: Case, salt: bytes) -> Case:
    patient = f"P{patient_key(case.patient, '', salt)}"
    own = f"{patient}-{_hashed(salt, CASE_DIGITS, 'case', case.patient, case.id)}"
    site = None if case.site is None else f"S{_hashed(salt, SITE_DIGITS, 'site', case.site)}"
    return replace(case, id=own, patient=patient, site=site)


def _hashed(salt: bytes, digits: int, *what: str) -> str:
    return hmac.new(salt, json.dumps(what).encode(), hashlib.sha256).hexdigest()[:digits]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
