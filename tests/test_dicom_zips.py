"""DICOM in a zip: unpacked for a while and within bounds."""

import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dicom_files import numbered, slices, write
from oncoseg.errors import DataError
from oncoseg.io.dicom import zips
from oncoseg.io.dicom.survey import find_series
from oncoseg.io.dicom.voxels import read_series
from oncoseg.io.dicom.zips import unpacked

SALT = b"x" * 32
GRID = (4, 5, 6)


def zipped(folder: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return folder / "a.zip"


def study(folder: Path) -> Path:
    files = write(slices(numbered(GRID)), folder / "files")
    return zipped(folder, {f"study/deep/{file.stem}": file.read_bytes() for file in files})


def test_a_zip_is_unpacked_for_a_while(tmp_path: Path) -> None:
    with unpacked(study(tmp_path)) as folder:
        (series,) = find_series(folder, salt=SALT)
        assert read_series(series).grid == GRID
    assert not folder.exists()


def test_a_zip_can_be_searched_as_if_it_were_a_folder(tmp_path: Path) -> None:
    (series,) = find_series(study(tmp_path), salt=SALT)
    assert read_series(series).grid == GRID


def test_the_folder_goes_when_something_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), unpacked(study(tmp_path)) as folder:
        raise RuntimeError("mine")
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/outside", "a/../../outside", "..\\outside", "C:/outside"]
)
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path, {"x": b"x"})
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, b"out")
    with pytest.raises(DataError, match="would be written outside its folder"), unpacked(path):
        pass


def test_links_are_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="holds links"), unpacked(tmp_path / "a.zip"):
        pass


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "FREE_BYTES", 1 << 20)
    path = zipped(tmp_path, {f"{n}": bytes(1 << 20) for n in range(3)})  # shrinks a thousandfold
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"), unpacked(path):
        pass


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "FREE_BYTES", 1 << 20)
    data = bytearray(zipped(tmp_path, {"a": bytes(4 << 20)}).read_bytes())
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, at + 24, 10)  # claims to unpack to ten bytes
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="damaged, encrypted or no usual zip"), unpacked(tmp_path / "a.zip"):
        pass


def test_too_many_files_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    # a table of contents of 20 MB: half a million names; written by hand, as zipfile would take minutes
    entry = (
        struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
        + b"x"
    )
    index = entry * 450_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(index), 4, 0)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + index + end)
    with pytest.raises(DataError, match="lists far more than 100000 files"), unpacked(tmp_path / "a.zip"):
        pass


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MOST_ENTRIES", 5)
    with pytest.raises(DataError, match="holds 6 files; expected at most 5"), unpacked(study(tmp_path)):
        pass


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"x": b"1"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("x", b"2")
    with pytest.raises(DataError, match=r"cannot be unpacked into .* File exists"), unpacked(path):
        pass


def test_files_too_deep_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a/" * 65 + "x": b"1"})
    with pytest.raises(DataError, match="more than 64 folders deep"), unpacked(path):
        pass


@pytest.mark.parametrize("cut", [10, 60, 300])
def test_truncated_zips(tmp_path: Path, cut: int) -> None:
    path = study(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="damaged, encrypted or no usual zip"), unpacked(path):
        pass


def test_damaged_content_is_noticed(tmp_path: Path) -> None:
    path = study(tmp_path)
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged, encrypted or no usual zip"), unpacked(path):
        pass


def test_encrypted_zips(tmp_path: Path) -> None:
    data = bytearray(study(tmp_path).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.find(mark)
        while position >= 0:
            data[position + at] |= 1
            position = data.find(mark, position + 4)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="damaged, encrypted or no usual zip"), unpacked(tmp_path / "a.zip"):
        pass


def test_large_zips_state_their_sizes_elsewhere(tmp_path: Path) -> None:
    # 70,000 files need the 64-bit records at the end
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(70_000):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    zips._check_index(tmp_path / "a.zip")
    data = bytearray(buffer.getvalue())
    record = data.rfind(b"PK\x06\x06")
    struct.pack_into("<Q", data, record + 40, 1 << 40)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="lists far more than"), unpacked(tmp_path / "a.zip"):
        pass


def test_what_a_killed_process_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    command = (
        "import os; from pathlib import Path; from oncoseg.io.dicom.zips import unpacked; "
        f"whole = unpacked(Path({str(study(tmp_path))!r})); whole.__enter__(); os._exit(9)"
    )
    places = {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", command], env=os.environ | places, check=False)
    assert killed.returncode == 9
    (left,) = (tmp_path / "temporary").iterdir()
    assert len([path for path in left.rglob("*") if path.is_file()]) == 6
    assert left.stat().st_mode & 0o077 == 0
    with unpacked(study(tmp_path / "again")) as folder:
        assert list((tmp_path / "temporary").iterdir()) == [folder]
