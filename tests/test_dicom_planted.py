"""Nothing of what is planted into DICOM files survives their de-identification."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread, dcmwrite
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from conformant import ROOT, slice_header, write_slices
from oncoseg.io.dicom.deidentify import deidentify
from test_dicom_deidentify import BYTES, PLANTED, PLANTED_DATE, SECRET, TEXTS, converted, the_file, traces


def plant_everywhere(dataset: Dataset, depth: int = 1) -> None:
    """Put an identifier into every attribute that the standard knows, also within a sequence."""
    for tag in DicomDictionary:
        keyword, kinds = keyword_for_tag(tag), dictionary_VR(tag).split(" or ")
        if (
            not keyword
            or tag >> 16 in (0x0000, 0x0002, 0xFFFE)
            or keyword in dataset
            or keyword == "SpecificCharacterSet"
        ):
            continue
        element = planted(tag, kinds[0], depth)
        if element is not None and not (kinds[0] == "UI" and keyword in UIDS_OF_CLASSES):
            dataset.add(element)


UIDS_OF_CLASSES = ("SOPClassUID", "ReferencedSOPClassUID")


def planted(tag: int, kind: str, depth: int) -> DataElement | None:
    if kind == "SQ":
        if not depth:
            return None
        item = Dataset()
        item.PatientName, item.TextValue, item.Date = (
            "Planted^Inside",
            "planted inside",
            PLANTED_DATE.decode(),
        )
        if keyword_for_tag(tag) in ("ReferencedImageSequence", "PerFrameFunctionalGroupsSequence"):
            plant_everywhere(item, depth - 1)
        return DataElement(tag, kind, [item])
    values = {
        **dict.fromkeys(TEXTS, "Planted"),
        **dict.fromkeys(BYTES, b"planted!" * 2),
        "UI": f"{ROOT}99.{tag}",
        "DA": "19610203",
        "DT": "19610203101112",
        "AS": "063Y",
    }
    return DataElement(tag, kind, values[kind]) if kind in values else None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_is_planted_in_every_attribute_is_gone(tmp_path: Path, syntax: str) -> None:
    def plant(header: Dataset) -> None:
        plant_everywhere(header)
        header.file_meta.TransferSyntaxUID = syntax
        header.file_meta.SourceApplicationEntityTitle = "PLANTED"
        header.file_meta.ImplementationVersionName = "PLANTED"
        header.file_meta.PrivateInformationCreatorUID = f"{ROOT}77"
        header.file_meta.PrivateInformation = b"planted!"
        header.preamble = (b"planted" * 20)[:128]
        block = header.private_block(0x0029, "PLANTED PRIVATE", create=True)
        block.add_new(1, "LO", "Planted")
        block.add_new(2, "UN", b"planted!")
        header.add_new(0x5000_3000, "OW", b"planted!")
        header.add_new(0x6000_3000, "OW", b"planted!")
        header.add_new(0x6002_0022, "LO", "Planted")
        header.add_new(0xFFFC_FFFC, "OB", b"planted!")

    write_slices(tmp_path / "planted", (8, 6, 1), edit=plant)
    assert len(traces(the_file(tmp_path / "planted"))) == 3
    (written,) = converted(tmp_path / "planted", tmp_path / "out")
    assert traces(written) == []
    assert "planted" not in str(written.relative_to(tmp_path)).lower()
    assert written.read_bytes()[:128] == bytes(128)
    assert not [element for element in dcmread(written).iterall() if element.tag.is_private]


def test_a_text_is_gone_wherever_it_says_that_it_is_something_else(tmp_path: Path) -> None:
    def plant(header: Dataset) -> None:
        with disable_value_validation():
            header.add(DataElement(tag_for_keyword("Rows"), "LO", "Planted"))  # where a number belongs
            header.add(DataElement(tag_for_keyword("KVP"), "DS", "1"))
            header["KVP"]._value = "planted"
            header.ScanOptions = "planted"  # codes are capital letters
            header.StudyTime = "planted"
            header.SeriesDate = "planted"

    header = slice_header()
    plant(header)
    cleaned = deidentify(header, SECRET)
    for keyword in ("Rows", "KVP", "ScanOptions", "StudyTime"):
        assert keyword not in cleaned
    assert cleaned.SeriesDate == ""


def test_unused_bits_and_bytes_behind_the_pixels_are_cleared(tmp_path: Path) -> None:
    def plant(header: Dataset) -> None:
        # an overlay in the four bits above the twelve of the image
        pixels = np.frombuffer(header.PixelData, np.uint16) | np.uint16(0x5000)
        header.PixelData = pixels.tobytes() + b"planted behind"

    write_slices(tmp_path / "plain", (8, 6, 1))
    write_slices(tmp_path / "planted", (8, 6, 1), edit=plant)
    (written,) = converted(tmp_path / "planted", tmp_path / "out")
    assert dcmread(written).PixelData == dcmread(the_file(tmp_path / "plain")).PixelData


def test_signs_fill_unused_bits(tmp_path: Path) -> None:
    numbers = np.array([-2048, -1, 0, 1, 2047], np.int16)

    def plant(header: Dataset) -> None:
        header.Rows, header.Columns, header.PixelRepresentation = 1, 5, 1
        header.PixelData = (numbers & 0x0FFF | 0x6000).astype(np.int16).tobytes()

    write_slices(tmp_path / "planted", (5, 1, 1), edit=plant)
    (written,) = converted(tmp_path / "planted", tmp_path / "out")
    assert np.frombuffer(dcmread(written).PixelData, np.int16).tolist() == numbers.tolist()


def jpeg_ls(path: Path) -> tuple[bytes, Callable[[bytes], np.ndarray]]:
    """A file's pixels as one frame, and how to decode one."""
    jpeg_ls = pytest.importorskip("jpeg_ls")
    frame = jpeg_ls.encode_array(dcmread(path).pixel_array)
    return frame, lambda some: jpeg_ls.decode(np.frombuffer(some, np.uint8))


def jpeg_2000(path: Path) -> tuple[bytes, Callable[[bytes], np.ndarray]]:
    openjpeg = pytest.importorskip("openjpeg")
    return openjpeg.encode(dcmread(path).pixel_array, bits_stored=12), openjpeg.decode


@pytest.mark.parametrize(
    ("encoded", "syntax", "comment"),
    [(jpeg_ls, JPEGLSLossless, b"\xff\xfe"), (jpeg_2000, JPEG2000Lossless, b"\xff\x64")],
)
def test_comments_of_compressed_frames_are_gone(
    tmp_path: Path,
    encoded: Callable[..., tuple[bytes, Callable[..., np.ndarray]]],
    syntax: str,
    comment: bytes,
) -> None:
    write_slices(tmp_path / "plain", (64, 64, 1))
    frame, decoded = encoded(the_file(tmp_path / "plain"))
    text = b"\x00\x01planted"
    segment = comment + (len(text) + 2).to_bytes(2, "big") + text
    # behind the first segment, as JPEG 2000 begins with the image's size
    at = 4 + int.from_bytes(frame[4:6], "big")
    file = dcmread(the_file(tmp_path / "plain"))
    file.file_meta.TransferSyntaxUID = syntax
    file.PixelData = encapsulate([frame[:at] + segment + frame[at:] + b"planted behind"])
    file["PixelData"].is_undefined_length = True
    (tmp_path / "planted").mkdir()
    dcmwrite(tmp_path / "planted" / "a.dcm", file)
    assert PLANTED in traces(tmp_path / "planted" / "a.dcm")
    (written,) = converted(tmp_path / "planted", tmp_path / "out")
    assert traces(written) == []
    (cleaned,) = generate_frames(dcmread(written).PixelData, number_of_frames=1)
    np.testing.assert_array_equal(decoded(cleaned), decoded(frame))
