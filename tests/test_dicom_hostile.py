"""Odd and hostile DICOM: a clear sentence, in bounded time and memory."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import fuzz_dicom
from dicom_files import element, multi_frame, numbered, put_element, slices, write
from oncoseg.errors import DataError
from oncoseg.io.dicom import headers
from oncoseg.io.dicom.findings import Survey
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import read_series

SALT = b"x" * 32
GRID = (4, 5, 6)


def with_element(folder: Path, tag: int, new: bytes) -> Survey:
    """What is found where the third of six slices has these bytes as an element."""
    files = write(slices(numbered(GRID)), folder)
    put_element(files[2], tag, new)
    return survey(folder, salt=SALT)


@pytest.mark.parametrize(
    ("tag", "vr", "value", "words"),
    [
        (0x0020_0037, "DS", b"1\\0\\0\\0\\nan\\0 ", "ImageOrientationPatient is damaged: expected 6 numbers"),
        (0x0020_0037, "DS", b"1\\0\\0\\0\\1 ", "ImageOrientationPatient is damaged: expected 6 numbers"),
        (0x0020_0032, "DS", b"here\\and\\there ", "ImagePositionPatient is damaged: expected 3 numbers"),
        (0x0020_0032, "DS", b"1\\2\\inf ", "ImagePositionPatient is damaged: expected 3 numbers"),
        (0x0020_0032, "DS", b"", "ImagePositionPatient is missing"),
        (0x0020_0032, "UI", b"1.2.3\\3\\4 ", "ImagePositionPatient is damaged: expected 3 numbers"),
        (0x0028_0030, "DS", b"0,5\\0,5 ", "PixelSpacing is damaged: expected 2 numbers"),
        (0x0028_1053, "DS", b"one ", "RescaleSlope is damaged: expected a number"),
        (0x0028_1053, "DS", b"1\\2 ", "RescaleSlope is damaged: expected a number"),
        (0x0028_1052, "DS", b"1e999 ", "RescaleIntercept is damaged: expected a number"),
        (0x0028_0010, "US", b"\x05\x00\x05\x00", "Rows is damaged: expected a number"),
        (0x0028_0010, "DS", b"5.5 ", "Rows is 5.5, no whole number"),
        (0x0028_0010, "US", b"\x05", "Rows is damaged: expected a number"),
        (0x0028_0100, "US", b"", "BitsAllocated is missing"),
    ],
)
def test_tags_that_hold_nonsense_are_named(
    tmp_path: Path, tag: int, vr: str, value: bytes, words: str
) -> None:
    found = with_element(tmp_path, tag, element(tag, vr, value))
    assert found.series == []
    assert words in found.left_out[0].reason
    assert found.left_out[0].reason.startswith("1 of 6 file(s)")


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x0020_0011, "IS", b"three "),  # SeriesNumber
        (0x0018_0050, "DS", b""),  # SliceThickness
        (0x0008_103E, "LO", b"\xff\xfe\x00\x01"),  # SeriesDescription in no known letters
        (0x0010_0010, "PN", b"=" * 1000),  # PatientName
        (0x0008_0005, "CS", b"NO SUCH CHARACTERS"),
        (0x0020_0032, "LO", b"-10\\20\\34 "),  # the right position with another VR
    ],
)
def test_what_is_not_needed_may_be_nonsense(tmp_path: Path, tag: int, vr: str, value: bytes) -> None:
    found = with_element(tmp_path, tag, element(tag, vr, value))
    assert [series.grid for series in found.series] == [GRID]
    read_series(found.series[0])


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (30, "its pixels are truncated: 30 of 40 bytes are there"),
        (0, "its pixels are truncated: 0 of 40 bytes"),
    ],
)
def test_truncated_pixels_are_noticed_before_reading(tmp_path: Path, left: int, words: str) -> None:
    files = write(slices(numbered(GRID)), tmp_path)
    data = files[2].read_bytes()
    files[2].write_bytes(data[: len(data) - 40 + left])
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert words in left_out.reason


def test_files_cut_anywhere_never_crash(tmp_path: Path) -> None:
    files = write(slices(numbered(GRID)), tmp_path)
    data = files[2].read_bytes()
    for cut in range(0, len(data), 7):
        files[2].write_bytes(data[:cut])
        found = survey(tmp_path, salt=SALT)
        # either the file is seen to be damaged or no DICOM, or its series is refused; never read as it is
        assert all(series.grid != GRID for series in found.series)


def test_files_with_random_damage_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for dataset in (slices(numbered(GRID))[0], multi_frame(numbered(GRID))):
        (file,) = write([dataset], tmp_path)
        whole = file.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(128, len(data) - 100, rng.integers(1, 12)):
                data[at] = rng.integers(0, 256)
            file.write_bytes(data)
            for series in find_series(file, salt=SALT):
                volume = read_series(series)
                assert np.isfinite(volume.array).all()


def test_files_that_change_between_looking_and_reading(tmp_path: Path) -> None:
    files = write(slices(numbered(GRID)), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    files[3].write_bytes(files[3].read_bytes()[:-10])
    with pytest.raises(DataError, match=r"003\.dcm is truncated: its pixels are not all there"):
        read_series(series)
    files[3].unlink()
    with pytest.raises(DataError, match=r"003\.dcm cannot be read: .*No such file"):
        read_series(series)


def test_sizes_far_beyond_the_file_take_no_memory(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    datasets[2].Rows = datasets[2].Columns = 65535
    write(datasets, tmp_path)
    found = survey(tmp_path, salt=SALT)
    assert "it declares 1 frames of 65535×65535 pixels, more than its" in found.left_out[0].reason


def test_lengths_far_beyond_the_file(tmp_path: Path) -> None:
    for vr in (b"UN", b"OB"):
        lying = struct.pack("<HH2sHL", 0x0009, 0x1001, vr, 0, 0xFFFF_FFF0)
        found = with_element(tmp_path, 0x0009_1001, lying)
        assert all(series.grid != GRID for series in found.series)


def test_sequences_a_thousand_deep(tmp_path: Path) -> None:
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFF_FFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFF_FFFF)
    found = with_element(tmp_path, 0x0008_1140, (sequence + item) * 1000)
    (damaged,) = (each for each in found.left_out if each.kind == "damaged")
    assert "its sequences are nested too deeply" in damaged.reason
    assert [file.name for file in damaged.files] == ["002.dcm"]


def test_frames_described_a_thousand_deep(tmp_path: Path) -> None:
    def nested() -> bytes:
        value = b""
        for _ in range(1000):
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
            value = element(0x0020_9113, "SQ", item)
        return value

    (file,) = write([multi_frame(numbered(GRID), PerFrameFunctionalGroupsSequence=None)], tmp_path)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(nested())) + nested()
    put_element(file, 0x5200_9230, element(0x5200_9230, "SQ", item))
    found = survey(tmp_path, salt=SALT)
    assert found.series == []
    assert len(found.left_out) == 1


def test_millions_of_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "MOST_ITEMS", 20_000)
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 20_001
    found = with_element(tmp_path, 0x0008_1140, element(0x0008_1140, "SQ", items))
    assert "has more than 20000 items in its header" in found.left_out[0].reason


def test_millions_of_deflated_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "MOST_ITEMS", 20_000)
    dataset = slices(numbered(GRID))[0]
    dataset.file_meta.TransferSyntaxUID = headers.DEFLATED
    (file,) = write([dataset], tmp_path)
    deflated(file, element(0x0008_1140, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 20_001))
    assert "has more than 20000 items in its header" in survey(file, salt=SALT).left_out[0].reason


def test_headers_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "LARGEST_HEADER_BYTES", 100_000)
    found = with_element(tmp_path, 0x0009_1001, element(0x0009_1001, "OB", bytes(300_000)))
    assert "its header does not end within" in found.left_out[0].reason


def deflated(file: Path, body: bytes) -> None:
    """Replace a data set by deflated bytes."""
    data = file.read_bytes()
    begin = headers.data_set_begins(data)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    file.write_bytes(data[:begin] + packer.compress(body) + packer.flush())


def test_a_deflated_bomb_is_unpacked_to_its_header_alone(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = headers.DEFLATED
    files = write(datasets, tmp_path)
    asked: list[int] = []
    real = headers.inflate

    def inflate(packed: bytes, most: int) -> bytes:
        asked.append(most)
        data = real(packed, most)
        assert len(data) <= most
        return data

    body = real(files[2].read_bytes()[headers.data_set_begins(files[2].read_bytes()) :], 1 << 20)
    deflated(files[2], body + bytes(100 << 20))
    headers.inflate = inflate
    try:
        (series,) = find_series(tmp_path, salt=SALT)
    finally:
        headers.inflate = real
    assert max(asked) == headers.LARGEST_HEADER_BYTES
    np.testing.assert_array_equal(read_series(series).array[0], numbered(GRID).astype(int) - 1024)


def test_damaged_deflated_data(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = headers.DEFLATED
    files = write(datasets, tmp_path)
    data = bytearray(files[2].read_bytes())
    data[-100:-50] = b"\xff" * 50
    files[2].write_bytes(data)
    found = survey(tmp_path, salt=SALT)
    try:
        for series in found.series:
            read_series(series)
        assert found.left_out
    except DataError as error:
        assert "002.dcm" in str(error)  # noqa: PT017


def test_nothing_of_a_patient_is_in_any_reason(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    del datasets[0].Rows
    datasets[1].RescaleSlope = 0
    write(datasets, tmp_path / "a")
    write(slices(numbered(GRID), name="b", at=[[0, 0, z] for z in (0, 1, 2, 5, 7, 11)]), tmp_path / "b")
    found = survey(tmp_path, salt=SALT)
    assert len(found.left_out) == 2
    for left_out in found.left_out:
        assert "secret" not in left_out.reason.lower()
        assert "description" not in left_out.reason


def test_damaged_images_and_annotations_are_read_or_refused(tmp_path: Path) -> None:
    series, sound = fuzz_dicom.series(tmp_path / "sound"), fuzz_dicom.valid_files(tmp_path / "sound")
    results = [fuzz_dicom.check(fuzz_dicom.make_file(tmp_path, sound, seed), series) for seed in range(400)]
    assert results.count("read") > 50
    assert results.count("refused") > 100
