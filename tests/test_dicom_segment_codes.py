"""The codes of what is marked."""

import pytest

from oncoseg.io.dicom.codes import CONCEPTS, concept_of


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("tumour", "Neoplasm"),
        ("GTV-1", "Neoplasm"),
        ("Tumor core", "Neoplasm"),
        ("enhancing_tumour", "Enhancing Lesion"),
        ("non-enhancing tumour", "Non-Enhancing Lesion"),
        ("necrotic core", "Necrosis"),
        ("peritumoral edema", "Edema"),
        ("Oedema", "Edema"),
        ("lung nodule", "Nodule"),
        ("left lung", "Lung"),
        ("liver lesion", "Lesion"),
        ("Liver", "Liver"),
        ("hepatic vessels", "Blood Vessel"),
        ("brain metastasis", "Neoplasm, Secondary"),
        ("lymph nodes", "Lymph Node"),
        ("something else", "Neoplasm"),
        ("metal", "Neoplasm"),  # no "et" within a word
    ],
)
def test_names_have_codes(name: str, meaning: str) -> None:
    assert concept_of(name).kind.meaning == meaning


def test_codes_are_those_of_the_standard() -> None:
    from pydicom.sr.codedict import codes

    for context in ("cid7150", "cid7151", "cid7159"):
        assert getattr(codes, context).dir()
    known = {
        (code.value, code.scheme_designator): code.meaning
        for context in ("cid7150", "cid7151")
        for code in (getattr(getattr(codes, context), name) for name in getattr(codes, context).dir())
    }
    for _, concept in CONCEPTS:
        for term in (concept.category, concept.kind):
            assert known[term.value, term.scheme] == term.meaning
