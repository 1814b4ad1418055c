"""What a class of a mask is called in DICOM: coded terms, a colour and a kind of structure.

A class's name is free text (`whole tumour`, `GTV-1`, `edema`). It is matched word by word, and what no
entry fits is a neoplasm, because that is what this software looks for; the name itself is written, too.
"""

import re
from typing import NamedTuple


class Term(NamedTuple):
    """A coded term: value, coding scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Concept(NamedTuple):
    """What a class means.

    Attributes:
        category: of the property (PS3.16 CID 7150).
        kind: the property itself (CID 7151 and what it includes; CID 7159 for lesions).
        colour_rgb: recommended for display, 0 to 255.
        interpreted: RT ROI Interpreted Type (PS3.3 C.8.8.8.1); empty where none of its terms fits.
    """

    category: Term
    kind: Term
    colour_rgb: tuple[int, int, int]
    interpreted: str


LESION = Term("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMY = Term("91723000", "SCT", "Anatomical Structure")
TISSUE = Term("85756007", "SCT", "Tissue")

NEOPLASM = Concept(LESION, Term("108369006", "SCT", "Neoplasm"), (230, 60, 50), "GTV")
"""What a class is when its name says nothing else."""

CONCEPTS: tuple[tuple[str, Concept], ...] = (
    # what a tumour is made of comes before the tumour itself: "necrotic tumour core" is necrosis
    ("necrosis|necrotic|ncr", Concept(LESION, Term("6574001", "SCT", "Necrosis"), (90, 90, 200), "")),
    ("o?edema", Concept(LESION, Term("79654002", "SCT", "Edema"), (120, 200, 90), "")),
    ("ha?emorrhage", Concept(LESION, Term("50960005", "SCT", "Hemorrhage"), (150, 20, 60), "")),
    ("cysts?|cystic", Concept(LESION, Term("367643001", "SCT", "Cyst"), (80, 190, 220), "")),
    (
        "non ?enhancing",
        Concept(LESION, Term("C81175", "NCIt", "Non-Enhancing Lesion"), (240, 150, 60), "GTV"),
    ),
    ("enhancing|et", Concept(LESION, Term("C113842", "NCIt", "Enhancing Lesion"), (255, 210, 60), "GTV")),
    (
        "metastas[ei]s|secondary",
        Concept(LESION, Term("14799000", "SCT", "Neoplasm, Secondary"), (200, 60, 160), "GTV"),
    ),
    ("primary", Concept(LESION, Term("372087000", "SCT", "Neoplasm, Primary"), (230, 60, 50), "GTV")),
    ("lymph ?nodes?", Concept(TISSUE, Term("59441001", "SCT", "Lymph Node"), (170, 210, 120), "")),
    ("tumou?rs?|neoplasms?|cancer|carcinoma|glioma|sarcoma|gtv|wt|tc", NEOPLASM),
    ("nodules?", Concept(LESION, Term("27925004", "SCT", "Nodule"), (240, 120, 70), "GTV")),
    ("mass", Concept(LESION, Term("4147007", "SCT", "Mass"), (220, 90, 90), "GTV")),
    ("lesions?", Concept(LESION, Term("52988006", "SCT", "Lesion"), (220, 90, 120), "GTV")),
    ("(blood ?)?vessels?", Concept(TISSUE, Term("59820001", "SCT", "Blood Vessel"), (210, 40, 90), "ORGAN")),
    ("bones?", Concept(TISSUE, Term("3138006", "SCT", "Bone"), (240, 220, 180), "ORGAN")),
    ("livers?", Concept(ANATOMY, Term("10200004", "SCT", "Liver"), (160, 90, 60), "ORGAN")),
    ("lungs?", Concept(ANATOMY, Term("39607008", "SCT", "Lung"), (110, 170, 230), "ORGAN")),
    ("brain", Concept(ANATOMY, Term("12738006", "SCT", "Brain"), (220, 190, 200), "ORGAN")),
    ("kidneys?", Concept(ANATOMY, Term("64033007", "SCT", "Kidney"), (190, 110, 80), "ORGAN")),
    ("spleen", Concept(ANATOMY, Term("78961009", "SCT", "Spleen"), (150, 70, 110), "ORGAN")),
    ("pancreas", Concept(ANATOMY, Term("15776009", "SCT", "Pancreas"), (220, 180, 110), "ORGAN")),
    ("prostate", Concept(ANATOMY, Term("41216001", "SCT", "Prostate"), (200, 150, 120), "ORGAN")),
    ("breasts?", Concept(ANATOMY, Term("76752008", "SCT", "Breast"), (230, 170, 170), "ORGAN")),
    ("heart", Concept(ANATOMY, Term("80891009", "SCT", "Heart"), (190, 50, 70), "ORGAN")),
    ("spinal ?cord", Concept(ANATOMY, Term("2748008", "SCT", "Spinal cord"), (250, 240, 120), "ORGAN")),
)
"""Words of a name (a regular expression) → what it means; the first that fits counts."""


def concept_of(name: str) -> Concept:
    """What a class's name means; `NEOPLASM` where no word of it is known."""
    words = re.sub(r"[^a-z]+", " ", name.lower()).strip()
    for pattern, concept in CONCEPTS:
        if re.search(rf"\b(?:{pattern})\b", words):
            return concept
    return NEOPLASM
