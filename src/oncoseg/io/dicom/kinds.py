"""Which DICOM objects are volumes, which describe volumes, and which are neither (PS3.4, annex B.5)."""

from oncoseg.io.dicom.headers import DIRECTORY

STORAGE = "1.2.840.10008.5.1.4.1.1."
"""Begins the SOP class of every stored object."""

SINGLE_FRAME = {f"{STORAGE}2": "CT", f"{STORAGE}4": "MR", f"{STORAGE}128": "PT"}
"""Images of one slice per file, with their modality."""

MULTI_FRAME = {
    f"{STORAGE}2.1": "CT",
    f"{STORAGE}2.2": "CT",
    f"{STORAGE}4.1": "MR",
    f"{STORAGE}4.4": "MR",
    f"{STORAGE}130": "PT",
    f"{STORAGE}128.1": "PT",
}
"""Enhanced and legacy-converted images of many slices per file."""

VOLUMES = SINGLE_FRAME | MULTI_FRAME
"""Images that can be slices of a volume."""

UNITS_KNOWN = ("CT", "PT")
"""Modalities whose rescaled values have a unit, whatever they are shown like."""

ANNOTATIONS = {
    f"{STORAGE}481.3": "RTSTRUCT",
    f"{STORAGE}66.4": "SEG",
    f"{STORAGE}66.7": "SEG",
    f"{STORAGE}88.11": "SR",
    f"{STORAGE}88.22": "SR",
    f"{STORAGE}88.33": "SR",
    f"{STORAGE}88.34": "SR",
    f"{STORAGE}88.35": "SR",
}
"""What marks something in images."""

OTHERS = {
    f"{STORAGE}481.1": "RT image",
    f"{STORAGE}481.2": "RT dose",
    f"{STORAGE}481.5": "RT plan",
    f"{STORAGE}66.1": "spatial registration",
    f"{STORAGE}66.3": "deformable spatial registration",
    f"{STORAGE}67": "real-world value mapping",
    f"{STORAGE}104.1": "encapsulated PDF",
    f"{STORAGE}66": "raw data",
    f"{STORAGE}7": "secondary capture",
    f"{STORAGE}88.59": "key object selection",
    f"{STORAGE}88.67": "dose report",
    f"{STORAGE}88.76": "dose report",
    DIRECTORY: "DICOMDIR",
}
"""What is neither, by name."""

FAMILIES = {
    f"{STORAGE}7.": "secondary capture",
    f"{STORAGE}11.": "presentation state",
    f"{STORAGE}88.": "SR",
    f"{STORAGE}9.": "waveform",
    f"{STORAGE}1.": "projection X-ray",
    f"{STORAGE}12.": "angiography",
    f"{STORAGE}6.": "ultrasound",
    f"{STORAGE}3.": "ultrasound",
    f"{STORAGE}20": "nuclear medicine",
    f"{STORAGE}77.": "visible light or ophthalmic",
    f"{STORAGE}481.": "radiotherapy",
}
"""The same, by the beginning of the SOP class."""


def kind_of(sop_class_uid: str) -> str:
    """A short name for a SOP class; the UID itself where it has none here."""
    known = VOLUMES | ANNOTATIONS | OTHERS
    if sop_class_uid in known:
        return known[sop_class_uid]
    for beginning, name in FAMILIES.items():
        if sop_class_uid.startswith(beginning):
            return name
    return f"SOP class {sop_class_uid[:64]}"
