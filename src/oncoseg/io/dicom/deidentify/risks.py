"""What a header cannot undo: text that is drawn into pixels, and faces in thin slices of a head."""

import re
from typing import TYPE_CHECKING

from oncoseg.io.dicom.kinds import VOLUMES

if TYPE_CHECKING:
    from pydicom import Dataset

THIN_SLICES_MM = 3.0
"""From slices of at most this thickness a face can be drawn (those of most CT and 3D MR)."""

SCREENS = frozenset(["SCREEN SAVE", "SCREEN", "SCREENSHOT", "SCREEN SHOT"])
"""Values of ImageType that say that a screen was photographed."""

HEAD = re.compile(
    r"head|brain|neck|face|skull|cranial|cranium|cerebr|orbit|sinus|pituitary|mprage|schädel|kopf|hirn"
)
"""Words of a header that mean the head, in small letters."""

DESCRIBED = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")


def text_in_pixels(dataset: "Dataset") -> str:
    """Why text may be drawn into an image's pixels; empty where there is no sign of it."""
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        return "text is drawn into the pixels (BurnedInAnnotation)"
    image_type = dataset.get("ImageType") or []
    if SCREENS & {
        str(value).upper() for value in ([image_type] if isinstance(image_type, str) else image_type)
    }:
        return "it is a picture of a screen (ImageType)"
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return "it is a colour image, which mostly has text in its pixels"
    return ""


def shows_face(dataset: "Dataset") -> bool:
    """Whether an image may be of thin slices through a head; MR also where no part of the body is named."""
    if str(dataset.get("SOPClassUID", "")) not in VOLUMES:
        return False
    words = " ".join(str(dataset.get(keyword) or "") for keyword in DESCRIBED).lower()
    unknown = dataset.get("Modality") == "MR" and not dataset.get("BodyPartExamined")
    head = unknown or HEAD.search(words) is not None
    return head and _thickness_mm(dataset) <= THIN_SLICES_MM


def _thickness_mm(dataset: "Dataset") -> float:
    """Slice thickness, of a multi-frame image its first; thin where it is unknown."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
    measures = shared[0].get("PixelMeasuresSequence") or [{}]
    for found in (dataset.get("SliceThickness"), measures[0].get("SliceThickness")):
        try:
            return float(found)
        except (TypeError, ValueError):
            continue
    return 0.0
