"""LIDC XML: what is in a file, and files that must be refused."""

from pathlib import Path

import numpy as np
import pytest

from oncoseg.errors import DataError
from oncoseg.io import lidc_xml
from oncoseg.io.lidc_xml import OtherXmlError, read_lidc_xml
from tiny_lidc import RATED, Marked, Roi, Session, border, write_lidc_xml

SQUARE = border((3, 5), (6, 8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rated = {**RATED, "malignancy": 5, "calcification": 6}
    odd = {"malignancy": 6, "subtlety": 0, "margin": "", "texture": "4", "calcification": "x", "colour": 3}
    return write_lidc_xml(
        tmp_path / "053.xml",
        "1.2.3.1",
        [
            Session([Marked([Roi("1.1", -5.5, SQUARE), Roi("1.2", -6.5, [(4, 4)], False)], rated, "IL57")]),
            Session([], [Roi("1.3", 2.0, [(11, 12)])]),
            Session([Marked([Roi("1.1", -5.5, [(7, 9)])], {}), Marked([Roi("1.1", -5.5, SQUARE)], odd)]),
        ],
    )


def test_readers_marks_outlines_and_ratings(path: Path) -> None:
    read = read_lidc_xml(path)
    assert (read.series_uid, read.study_uid, read.readers) == ("1.2.3.1", "1.2.3.2", 3)
    large, small, odd = read.nodules
    assert (large.reader, large.id, large.is_outlined) == (1, "IL57", True)
    assert large.ratings == {**RATED, "malignancy": 5}
    first, second = large.outlines
    assert (first.image, first.z_mm, first.included) == ("1.1", -5.5, True)
    np.testing.assert_array_equal(first.points, SQUARE)
    assert (second.image, second.included, second.points.tolist()) == ("1.2", False, [[4, 4]])
    assert (small.reader, small.is_outlined, dict(small.ratings)) == (3, False, {})
    assert dict(odd.ratings) == {"texture": 4}  # the others are no ratings
    (point,) = read.non_nodules
    assert (point.reader, point.outline.image, point.outline.points.tolist()) == (2, "1.3", [[11, 12]])


BOMB = (
    '<!DOCTYPE LidcReadMessage [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
EXTERNAL = '<!DOCTYPE LidcReadMessage [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
REMOTE = '<!DOCTYPE LidcReadMessage SYSTEM "http://example.org/lidc.dtd">'


@pytest.mark.parametrize("before", [BOMB, EXTERNAL, REMOTE])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_document_type_definitions_are_refused(tmp_path: Path, before: str, encoding: str) -> None:
    sessions = [Session([Marked([Roi("&a;" if "ENTITY" in before else "1.1", 0, SQUARE)])])]
    path = write_lidc_xml(tmp_path / "a.xml", "1.2", sessions, before=before, encoding=encoding)
    with pytest.raises(DataError, match="holds a document type definition; it is refused"):
        read_lidc_xml(path)


def test_undeclared_entities_are_no_xml(tmp_path: Path) -> None:
    path = write_lidc_xml(tmp_path / "a.xml", "&j;", [])
    with pytest.raises(DataError, match="is no well-formed XML: undefined entity"):
        read_lidc_xml(path)


def test_no_file_is_read_beyond_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lidc_xml, "LARGEST_XML_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="expected an LIDC reading"):
        read_lidc_xml(path)


def test_deep_nesting_is_no_stack_overflow(tmp_path: Path) -> None:
    (tmp_path / "deep.xml").write_text("<a>" * 200_000 + "</a>" * 200_000)
    with pytest.raises(OtherXmlError):
        read_lidc_xml(tmp_path / "deep.xml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<xCoord>2</xCoord>", "<xCoord>two</xCoord>", "damaged mark: could not convert"),
        ("<xCoord>2</xCoord>", "<xCoord>nan</xCoord>", "damaged mark: coordinates outside any image"),
        ("<xCoord>2</xCoord>", "<xCoord>-99999999999999999999</xCoord>", "coordinates outside any image"),
        ("<xCoord>2</xCoord>", "", "damaged mark"),
        ("-5.5</image", "low</image", "damaged mark: could not convert"),
        ("<SeriesInstanceUid>1.2.3.1</SeriesInstanceUid>", "", "SeriesInstanceUid is missing"),
        ("</readingSession>", "", "no well-formed XML"),
        ("LidcReadMessage", "IdriReadMessage", "no LIDC reading of CT"),
    ],
)
def test_damaged_files_are_refused(path: Path, old: str, new: str, words: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        read_lidc_xml(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"DICM" * 9, b"<a", b"<a>\x00</a>"])
def test_what_is_no_xml_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(DataError, match="no well-formed XML"):
        read_lidc_xml(tmp_path / "a.xml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.xml cannot be read"):
        read_lidc_xml(tmp_path / "gone.xml")


@pytest.mark.real_data
def test_a_real_reading(shared_data: Path) -> None:
    read = read_lidc_xml(shared_data / "lidc_dicom_xml/LIDC-IDRI-0314/CT/053.xml")
    assert (read.readers, len(read.nodules), len(read.non_nodules)) == (4, 4, 39)
    assert [len(mark.outlines) for mark in read.nodules] == [18, 17, 16, 18]
    assert [mark.ratings["malignancy"] for mark in read.nodules] == [1, 5, 4, 3]
    assert all(mark.is_outlined and len(mark.ratings) == 9 for mark in read.nodules)
