"""What stands for patients, UIDs and dates: the same wherever the same secret is used.

Everything is a keyed hash (HMAC-SHA-256, RFC 2104) of the original, so that files of one patient that are
converted on different days, or a mask and its images, still belong together, and without the secret nothing
leads back.
"""

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from oncoseg.io.dicom.patients import patient_key

if TYPE_CHECKING:
    from pydicom import Dataset

STANDARD_UID = "1.2.840.10008."
"""Begins the UIDs that the standard defines; they say what something is, not whose."""

LEAST_DAYS, MOST_DAYS = 365, 3650
"""Dates go back by as many days, at least and at most; the same number for all dates of a patient."""


@dataclass(frozen=True)
class Pseudonyms:
    """Replacements for one patient.

    Attributes:
        patient: stands for the patient: `P` and 16 hexadecimal digits.
        secret: what the hashes are keyed with.
    """

    patient: str
    secret: bytes

    @classmethod
    def of(cls, dataset: "Dataset", secret: bytes) -> "Pseudonyms":
        """For the patient of a file; without a PatientID, a study is a patient."""
        identifier = str(dataset.get("PatientID") or "").strip()
        if identifier:
            key = patient_key(identifier, str(dataset.get("IssuerOfPatientID") or "").strip(), secret)
        else:
            key = patient_key(str(dataset.get("StudyInstanceUID", "")), "study without a patient", secret)
        return cls(f"P{key}", secret)

    def uid(self, original: str) -> str:
        """A UID made from a hash (`2.25.` and a number, PS3.5 B.2); the standard's own stay."""
        from pydicom._uid_dict import UID_dictionary

        if not original or (original.startswith(STANDARD_UID) and original in UID_dictionary):
            return original
        digest = self._hash("uid", original)
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"

    def date(self, original: str) -> str:
        """A date (VR DA) moved back with all others of the patient; empty where it is none."""
        digits = original.strip().replace(".", "")
        if not re.fullmatch(r"\d{8}", digits):
            return ""
        try:
            moved = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) - timedelta(self._days)
        except (ValueError, OverflowError):
            return ""
        return moved.strftime("%Y%m%d")

    def date_time(self, original: str) -> str:
        """A date and time (VR DT) with its date moved and without a time zone; empty where it has no day."""
        found = re.fullmatch(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?)(?:[+-]\d{4})?", original.strip())
        moved = self.date(found[1]) if found else ""
        return moved + found[2] if found and moved else ""

    @cached_property
    def _days(self) -> int:
        drawn = int.from_bytes(self._hash("days", self.patient)[:8], "big")
        return LEAST_DAYS + drawn % (MOST_DAYS - LEAST_DAYS + 1)

    def _hash(self, what: str, original: str) -> bytes:
        return hmac.new(self.secret, f"{what}\0{original}".encode(), hashlib.sha256).digest()
