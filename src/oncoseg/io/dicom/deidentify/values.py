"""What becomes of one value, by its kind (value representation, PS3.5 section 6.2)."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oncoseg.io.dicom.deidentify.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from pydicom import DataElement

NUMBERS = frozenset(["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"])
"""Binary numbers, which hold no text."""

_DECIMALS = re.compile(rb"[0-9+\-.eE\\ ]*\0?")
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?|")


def kept_value(element: "DataElement", pseudonyms: Pseudonyms) -> Any:
    """The value that takes an element's place; None where it is not what its kind allows, and must go.

    Dates are moved by whole days and UIDs replaced. Times of day stay, so that intervals are what they were.
    """
    if element.VR in NUMBERS:
        return element.value
    changes: dict[str, Callable[[str], str | None]] = {
        "UI": pseudonyms.uid,
        "DA": pseudonyms.date,
        "DT": pseudonyms.date_time,
        "TM": lambda text: text if _TIME.fullmatch(text) else None,
        "CS": lambda text: text if _CODE.fullmatch(text) else None,
        "DS": _number,
        "IS": _number,
    }
    change = changes.get(element.VR)
    if change is None:
        return None
    values = [change(str(value).strip(" \0")) for value in _values(element.value)]
    if any(value is None for value in values):
        return None
    return values[0] if len(values) == 1 else values


def are_decimals(raw: bytes) -> bool:
    """Whether the bytes of an element are nothing but numbers in decimal, with what separates them."""
    return _DECIMALS.fullmatch(raw) is not None


def _number(text: str) -> str | None:
    return text if are_decimals(text.encode()) else None


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return [""]
    return list(value) if isinstance(value, list) or type(value).__name__ == "MultiValue" else [value]
