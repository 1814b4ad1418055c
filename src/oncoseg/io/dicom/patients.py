"""A key that stands for a patient without naming them, so that series of one patient stay together.

The key is a hash of PatientID and IssuerOfPatientID with a secret salt, as identifiers are short enough to
be guessed from a plain hash. The salt is made once per user and kept in the user's configuration folder
(`$XDG_CONFIG_HOME/oncoseg/patient-salt`, by default `~/.config`), readable by the user alone; or it is given.
Keys are the same in every run with one salt. Who deletes the salt gets other keys.
"""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from oncoseg.errors import DataError

SALT_BYTES = 32
"""Length of a salt that is made here."""

KEY_DIGITS = 16
"""Hexadecimal digits of a key: two of a million patients share one with a chance of 1 in 10⁷."""


def patient_key(patient_id: str, issuer: str, salt: bytes) -> str:
    """Hash an identifier (HMAC-SHA-256, RFC 2104).

    Args:
        patient_id: PatientID; not empty.
        issuer: IssuerOfPatientID, or empty.
        salt: see `user_salt`.
    """
    return hmac.new(salt, json.dumps([issuer, patient_id]).encode(), hashlib.sha256).hexdigest()[:KEY_DIGITS]


def user_salt() -> bytes:
    """This user's salt, made on first use.

    Raises:
        DataError: it can be neither read nor made.
    """
    path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "oncoseg" / "patient-salt"
    try:
        if not path.exists():
            _make(path)
        salt = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The secret with which patients are told apart could not be kept in {path} ({error.strerror}). "
            "Make that folder writable, or set XDG_CONFIG_HOME to one that is."
        ) from error
    if len(salt) < SALT_BYTES:
        raise DataError(
            f"{path} is damaged; expected {SALT_BYTES} random bytes. Delete it: patients get new keys."
        )
    return salt


def _make(path: Path) -> None:
    """Write a new salt; where another process was first, its salt stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SALT_BYTES))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
