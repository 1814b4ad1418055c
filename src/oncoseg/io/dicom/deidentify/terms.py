"""Coded terms, rebuilt from the standard's dictionaries: the file's own words are not taken over."""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

UNKNOWN = ("removed", "99ONCOSEG", "Removed by de-identification")
"""Value, scheme and meaning of a term that is in no dictionary here (schemes of one's own begin with 99)."""


def cleaned_terms(items: "Iterable[Dataset]") -> "list[Dataset]":
    """The same terms with the dictionaries' meanings; only value, scheme, meaning and modifiers of each."""
    return [_cleaned(item) for item in items]


def _cleaned(item: "Dataset") -> "Dataset":
    from pydicom import Dataset

    from oncoseg.io.dicom.codes import CONCEPTS

    value, scheme = str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))
    ours = {(term.scheme, term.value): term.meaning for _, c in CONCEPTS for term in (c.category, c.kind)}
    meaning = ours.get((scheme, value)) or _meanings().get((scheme, value))
    if meaning is None and scheme in ("SRT", "SNM3", "99SDM"):
        value, scheme, meaning = _from_snomed_rt(value)
    if meaning is None:
        value, scheme, meaning = UNKNOWN
    term = Dataset()
    term.CodeValue, term.CodingSchemeDesignator, term.CodeMeaning = value, scheme, meaning
    for modifiers in ("AnatomicRegionModifierSequence", "SegmentedPropertyTypeModifierCodeSequence"):
        if modifiers in item:
            setattr(term, modifiers, cleaned_terms(item[modifiers].value))
    return term


def _from_snomed_rt(value: str) -> tuple[str, str, str | None]:
    """The SNOMED CT term of one in the retired SNOMED RT."""
    from pydicom.sr._snomed_dict import mapping

    modern = mapping["SRT"].get(value, "")
    return modern, "SCT", _meanings().get(("SCT", modern))


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Scheme and value → meaning, of all that the standard's context groups use."""
    from pydicom.sr.codedict import codes

    found: dict[tuple[str, str], str] = {}
    for scheme in codes.schemes():
        for code in getattr(codes, scheme).concepts.values():
            found.setdefault((scheme, code.value), code.meaning[:64])
    return found
