"""One DICOM object without what could identify its patient."""

from typing import TYPE_CHECKING, Any

from oncoseg import __version__
from oncoseg.errors import DataError
from oncoseg.io.dicom.deidentify.keep import (
    CODED,
    DESCRIPTIONS,
    EMPTIED,
    KEPT,
    NAMED,
    NEEDED,
    REMOVED,
    REPLACED,
)
from oncoseg.io.dicom.deidentify.pixels import clean_pixels
from oncoseg.io.dicom.deidentify.pseudonyms import Pseudonyms
from oncoseg.io.dicom.deidentify.terms import cleaned_terms
from oncoseg.io.dicom.deidentify.values import are_decimals, kept_value
from oncoseg.io.dicom.deidentify.words import all_known, known_words
from oncoseg.io.dicom.headers import quiet
from oncoseg.io.dicom.kinds import ANNOTATIONS, VOLUMES, kind_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.tag import BaseTag

TAKEN = frozenset([*VOLUMES, *(uid for uid, kind in ANNOTATIONS.items() if kind in ("SEG", "RTSTRUCT"))])
"""SOP classes that are converted: images of CT, MR and PET, segmentations and structure sets."""

LISTED = KEPT | EMPTIED | DESCRIPTIONS | NAMED | REPLACED
"""All that is looked at; the rest is left behind unread."""

AS_THEY_ARE = frozenset(["ContourData"])
"""Long lists of numbers, which are checked as bytes: as pydicom's numbers they would take a gigabyte."""

ALWAYS_EMPTY = ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID", "AccessionNumber")
"""What every object has, and where nothing is left to say."""

METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
"""What was done, in the terms of PS3.16 CID 7050."""


def deidentify(dataset: "Dataset", secret: bytes) -> "Dataset":
    """Make a copy of a DICOM object without what could identify its patient.

    Follows the Basic Application Level Confidentiality Profile of PS3.15 Annex E with modified dates and
    cleaned descriptors, by a list of what stays (`keep.py`). Objects of one patient still belong together.

    Args:
        dataset: an image of CT, MR or PET, a segmentation or a structure set, with its file meta
            information, as pydicom reads it.
        secret: what pseudonyms are made with; the same for all that shall belong together. Who has it can
            test whether a pseudonym is a given patient's.

    Raises:
        DataError: another kind of object, whose text or pixels cannot be cleaned; or one that is damaged.
    """
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class not in TAKEN:
        kind = kind_of(sop_class)
        raise DataError(
            f"{'an object of another kind' if sop_class in kind else kind} cannot be de-identified; expected "
            "images of CT, MR or PET, segmentations or structure sets"
        )
    pseudonyms = Pseudonyms.of(dataset, secret)
    try:
        with quiet():
            cleaned = _clean(dataset, pseudonyms)
            if "PixelData" in dataset:
                cleaned["PixelData"] = clean_pixels(dataset)
    except DataError:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError("damaged: its values cannot be understood") from error
    _mark(cleaned, pseudonyms)
    cleaned.file_meta = _file_meta(cleaned, dataset)
    return cleaned


def _clean(source: "Dataset", pseudonyms: Pseudonyms) -> "Dataset":
    """Take over what stays, at any depth."""
    from pydicom import Dataset

    cleaned = Dataset()
    if None not in source.original_encoding:
        implicit, little_endian = source.original_encoding
        cleaned.set_original_encoding(bool(implicit), bool(little_endian), "iso8859")
    tags = source.keys()  # iterating over the dataset itself would convert every value
    for tag in list(tags):
        _take_over(cleaned, source, tag, pseudonyms)
    return cleaned


def _take_over(cleaned: "Dataset", source: "Dataset", tag: "BaseTag", pseudonyms: Pseudonyms) -> None:
    """Take over one attribute, if it is one of those that stay and holds what it should."""
    from pydicom import DataElement
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    keyword = "" if tag.is_private else keyword_for_tag(tag)
    if keyword not in LISTED:
        return
    if keyword in AS_THEY_ARE and _are_raw_decimals(source, tag):
        cleaned[tag] = source.get_item(tag)
        return
    element = source[tag]
    if element.VR not in dictionary_VR(tag).split(" or "):
        return
    value = _value(keyword, element, source, pseudonyms)
    if value is not None:
        cleaned[tag] = DataElement(tag, element.VR, value)


def _value(keyword: str, element: "DataElement", source: "Dataset", pseudonyms: Pseudonyms) -> Any:
    """What an attribute says afterwards; None where it goes."""
    if keyword in EMPTIED:
        return [] if element.VR == "SQ" else ""
    if keyword in CODED:
        return cleaned_terms(element.value)
    if element.VR == "SQ":
        return [_clean(item, pseudonyms) for item in element.value]
    if keyword in REPLACED:
        return element.value if all_known(str(element.value)) else REMOVED
    if keyword in NAMED:
        return _name(str(element.value or ""), source)
    if keyword in DESCRIPTIONS:
        words = known_words(str(element.value or "").replace("\\", " "))
        return words or (REMOVED if keyword in NEEDED else "")
    return kept_value(element, pseudonyms)


def _name(original: str, source: "Dataset") -> str:
    """A structure's name without unknown words, and then with its number, so that names stay apart."""
    if all_known(original):
        return original
    number = source.get("SegmentNumber") or source.get("ROINumber") or ""
    return f"{known_words(original) or 'ROI'} {number}".strip()


def _are_raw_decimals(source: "Dataset", tag: "BaseTag") -> bool:
    """Whether an attribute still is the file's bytes, and these are numbers alone."""
    item = source.get_item(tag)
    return item is not None and item.is_raw and item.value is not None and are_decimals(item.value)


def _mark(cleaned: "Dataset", pseudonyms: Pseudonyms) -> None:
    """Say who the patient now is, and what was done (PS3.15 E.1.1)."""
    from pydicom import Dataset

    for keyword in ALWAYS_EMPTY:
        setattr(cleaned, keyword, "")
    cleaned.PatientID = cleaned.PatientName = pseudonyms.patient
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.LongitudinalTemporalInformationModified = "MODIFIED"
    cleaned.DeidentificationMethod = f"oncoseg {__version__}"
    cleaned.DeidentificationMethodCodeSequence = []
    for value, meaning in METHODS:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        cleaned.DeidentificationMethodCodeSequence.append(code)


def _file_meta(cleaned: "Dataset", source: "Dataset") -> "FileMetaDataset":
    """Nothing but what the object is, and how it is encoded."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = cleaned.SOPClassUID
    meta.MediaStorageSOPInstanceUID = cleaned.SOPInstanceUID
    meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    return meta
