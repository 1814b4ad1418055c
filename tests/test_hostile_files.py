"""Files and folders that would be waited for, counted up or listed for ever: one short sentence instead."""

import os
import signal
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dicom_files import multi_frame, numbered, slices, write
from oncoseg import io
from oncoseg.datasets import open_dataset, tables
from oncoseg.datasets.dataset_json import read_index
from oncoseg.datasets.folders import gap_problem, list_folder, shortened
from oncoseg.datasets.table import read_labels
from oncoseg.datasets.tables import read_table
from oncoseg.errors import DataError, OncosegError, RecipeError
from oncoseg.files import LARGEST_JSON_BYTES, read_json
from oncoseg.io import ImageRef
from oncoseg.io.annotations import open_structures
from oncoseg.io.dicom import headers, pixel_format, zips
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import open_series
from oncoseg.io.dicom.zips import unpacked
from oncoseg.io.lidc_xml import read_lidc_xml
from oncoseg.io.nifti import open_slabs
from oncoseg.io.segments import list_segments
from oncoseg.run_folder import RunFolder
from oncoseg.split import read_split
from oncoseg.store import FileHashes
from tiny import lidc_nodule

SALT = b"x" * 32
GRID = (4, 5, 6)
ALARM_SECONDS = 60
"""When a test that waits for ever is ended; each takes a part of a second."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End what would hang."""

    def ring(_number: int, _frame: object) -> None:
        raise AssertionError("it hangs")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(ALARM_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def read_any_split(path: Path) -> object:
    return read_split(path, ["ct"])


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((f"a{suffix}", lambda path: io.read(ImageRef((path,)))) for suffix in io.VOLUME_SUFFIXES),
        *((f"a{suffix}", lambda path: io.read_grid(ImageRef((path,)))) for suffix in io.IMAGE_SUFFIXES),
        ("a.dcm", lambda path: io.read(ImageRef((path,)))),
        ("a", lambda path: io.read(ImageRef((path,)))),
        ("a.dcm", open_structures),
        ("a.xml", open_structures),
        ("a.xml", read_lidc_xml),
        ("a.seg.nrrd", list_segments),
        ("a.csv", read_table),
        ("dataset.json", lambda path: read_index(path.parent)),
        ("split.json", read_any_split),
        ("recipe.json", lambda path: RunFolder(path.parent).recipe()),
        ("a.nii.gz", lambda path: FileHashes(path.parent).of([path])),
    ],
)
def test_pipes_are_refused_whatever_they_are_called(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = pipe(tmp_path / name)
    with pytest.raises(OncosegError) as refused:
        read(path)
    assert str(tmp_path) in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.png", "a.csv"])
def test_folders_named_as_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="is no regular file"):
        read_table(tmp_path / name) if name == "a.csv" else io.read(ImageRef((tmp_path / name,)))


def test_pipes_among_the_files_of_a_data_set_are_passed_over(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "study")
    for name in ("aaa", "aaa.dcm", "aaa.xml", "aaa.csv", "dataset.json"):
        pipe(tmp_path / "study" / name)
    (tmp_path / "study" / "again").symlink_to(tmp_path / "study")  # a loop
    assert list_folder(tmp_path / "study")[0] == [f"{k:03}.dcm" for k in range(6)]
    (series,) = find_series(tmp_path, salt=SALT)
    assert len(series.files) == 6
    (case,) = open_dataset(tmp_path).cases
    assert len(next(iter(case.images.values())).files) == 6


def test_links_to_nowhere_still_count_as_files(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to("annexed")
    assert list_folder(tmp_path) == (["a.nii.gz"], [])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"[" * 1_000_000), "nested too deeply"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2 << 30), "larger than 64 MiB"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.write_bytes(b"9" * 10_000), "Exceeds the limit"),
    ],
)
def test_immense_json(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    make(tmp_path / "a.json")
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_any_split, read_labels])
def test_deep_json_is_a_sentence(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "a.json").write_bytes(b"[" * 1_000_000)
    with pytest.raises(DataError, match="nested too deeply"):
        read(tmp_path / "a.json")


def test_deep_recipes_are_a_sentence(tmp_path: Path) -> None:
    from oncoseg.cli.recipes import open_recipe

    (tmp_path / "a.json").write_bytes(b"[" * 1_000_000)
    with pytest.raises(RecipeError, match="nested too deeply"):
        open_recipe(str(tmp_path / "a.json"))


def test_indices_as_large_as_real_ones_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["' + b"a" * (LARGEST_JSON_BYTES - 4) + b'"]')
    assert len(read_json(tmp_path / "a.json")[0]) == LARGEST_JSON_BYTES - 4


def test_a_million_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("case,patient," + ",".join(f"c{n}" for n in range(1_000_000)) + "\n1,1\n")
    with pytest.raises(DataError, match="more than 10000 columns") as refused:
        read_table(path)
    assert len(str(refused.value)) < 1000


def test_short_rows_that_would_be_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_CELLS", 10_000)
    heading = "case,patient," + ",".join(f"c{n}" for n in range(998))
    (tmp_path / "a.csv").write_text(f"{heading}\n" + "a\n" * 9)
    assert len(read_table(tmp_path / "a.csv").rows) == 9
    (tmp_path / "a.csv").write_text(f"{heading}\n" + "a\n" * 10)
    with pytest.raises(DataError, match="or 10000 cells"):
        read_table(tmp_path / "a.csv")


def test_messages_list_some_columns_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(f"c{n}" for n in range(5000)) + "\n")
    with pytest.raises(
        DataError, match=r"lacks the column case; its first line names c0, c1, .*c19 and more"
    ) as refused:
        read_table(tmp_path / "a.csv", ["case"])
    assert len(str(refused.value)) < 1000


def test_slices_with_immense_numbers(tmp_path: Path) -> None:
    folder = lidc_nodule(tmp_path, 1)
    for kind in folder.iterdir():
        os.link(kind / "slice-2.png", kind / f"slice-{10**15}.png")
    (problem,) = open_dataset(tmp_path).problems
    assert f"3, 4, 5, 6, 7 and {10**15 - 3 - 5} more is missing" in problem.message


def test_gaps_are_counted_and_their_first_slices_named() -> None:
    assert gap_problem([1, 2, 3], "a") is None
    problem = gap_problem([1, 3, 6], "a")
    assert problem is not None
    assert "expected consecutive slices from 1 to 6, but 2, 4, 5 is missing" in problem.message
    assert shortened([1, 2, 3, 4, 5], 7) == "1, 2, 3, 4, 5 and 2 more"


def test_folders_within_a_zip_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MOST_ENTRIES", 100)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(10):
            archive.writestr(f"{number}/" + "a/" * 20 + "file", b"")
    with pytest.raises(DataError, match="holds more than 100 folders"), unpacked(tmp_path / "a.zip"):
        pass


def test_a_file_in_a_zip_without_a_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("#", b"x")
    data = (tmp_path / "a.zip").read_bytes().replace(b"#", b".")
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="holds a file without a name"), unpacked(tmp_path / "a.zip"):
        pass


def test_a_zip_within_a_zip_stays_packed(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        for file in (tmp_path / "files").iterdir():
            archive.write(file, file.name)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    found = survey(tmp_path / "outer.zip", salt=SALT)
    assert (found.series, found.not_dicom) == ([], 1)


def test_a_deflated_dicomdir_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    dataset = slices(numbered(GRID))[0]
    dataset.file_meta.TransferSyntaxUID = headers.DEFLATED
    (file,) = write([dataset], tmp_path / "files")
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = file.read_bytes()[: headers.data_set_begins(file.read_bytes())]
    bomb = packed.compress(bytes(64 << 20)) + packed.flush()
    (tmp_path / "DICOMDIR").write_bytes(begin + bomb)
    with pytest.raises(DataError, match="is damaged; name the folder instead") as refused:
        survey(tmp_path / "DICOMDIR", salt=SALT)
    assert "never deflated" in str(refused.value.__cause__)


def test_a_deflated_file_of_many_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = multi_frame(numbered(GRID))
    dataset.file_meta.TransferSyntaxUID = headers.DEFLATED
    write([dataset], tmp_path)
    assert len(find_series(tmp_path, salt=SALT)) == 1
    monkeypatch.setattr(pixel_format, "LARGEST_UNPACKING_BYTES", 6 * 6 * 40 - 1)  # 6 frames of 4×5×2 bytes
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert "deflated as a whole and holds many frames" in left_out.reason


def test_stacks_beyond_memory_are_refused_after_one_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((1000, 1000), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr("oncoseg.io.checks.SMALL_BYTES", 0)
    monkeypatch.setattr("oncoseg.io.checks.free_memory_gib", lambda: 1)
    asked = [tmp_path / "a.png"] + [tmp_path / "never read.png"] * 999
    with pytest.raises(DataError, match=r"needs 1\.9 GiB of memory"):
        io.read(ImageRef(tuple(asked)))


def test_a_decompression_bomb_of_one_image(tmp_path: Path) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is no readable PNG or TIFF image: Image size"):
        io.read(ImageRef((tmp_path / "a.png",)))


@pytest.mark.parametrize(
    ("name", "axis", "scaled", "needed"),
    [
        ("a.nii", 2, False, 2),
        ("a.nii", 0, False, 2),
        ("a.nii", 2, True, 6),  # the stored numbers and float32
        ("a.nii.gz", 2, False, 2),
        ("a.nii.gz", 0, False, 4),  # kept whole for the next slab
    ],
)
def test_whole_nifti_files_beyond_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, axis: int, scaled: bool, needed: int
) -> None:
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
    if scaled:
        image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / name)
    monkeypatch.setattr("oncoseg.io.checks.SMALL_BYTES", 0)
    room = needed * 8**3
    monkeypatch.setattr("oncoseg.io.checks.free_memory_gib", lambda: room / 2**30)
    with open_slabs(tmp_path / name) as slabs:
        slabs.slab(axis, 0, 8)
    monkeypatch.setattr("oncoseg.io.checks.free_memory_gib", lambda: (room - 1) / 2**30)
    with open_slabs(tmp_path / name) as slabs, pytest.raises(DataError, match="of memory, more than is free"):
        slabs.slab(axis, 0, 8)


def test_whole_series_beyond_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(slices(numbered(GRID)), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    monkeypatch.setattr("oncoseg.io.checks.SMALL_BYTES", 0)
    monkeypatch.setattr("oncoseg.io.checks.free_memory_gib", lambda: 4 * 5 * 2 * 5 / 2**30)  # five slices
    with open_series(series) as slabs:
        slabs.slab(2, 0, 5)
        with pytest.raises(DataError, match="of memory, more than is free"):
            slabs.slab(2, 0, 6)
