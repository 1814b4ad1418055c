"""Annotations through `io.read`: names and patterns, labels, overlaps, and what is refused at once."""

import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from oncoseg import io
from oncoseg.errors import DataError, GeometryError
from oncoseg.io import ImageRef, annotations, read
from oncoseg.io.annotations import list_structures, read_labels, read_structures, series_of_files
from oncoseg.io.structures import Structure
from tiny_dicom import AXIAL, Drawn, Geometry, write_ct, write_rtstruct, write_seg

GRID = (6, 5, 3)


def square(low: float, high: float, k: int) -> Drawn:
    return Drawn(AXIAL.points([(low, low, k), (high, low, k), (high, high, k), (low, high, k)]))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    return write_ct(tmp_path / "ct", np.zeros(GRID))


@pytest.fixture
def rtstruct(tmp_path: Path) -> Path:
    structures = {
        "GTV-1": [square(0.5, 3.5, 1)],
        "GTV-2": [square(1.5, 4.5, 1)],
        "Lung [left]": [square(-0.5, 1.5, 0), square(-0.5, 1.5, 7)],
    }
    return write_rtstruct(tmp_path / "rs.dcm", structures)


def test_structures_are_read_as_labels_and_the_later_one_wins(
    files: tuple[Path, ...], rtstruct: Path
) -> None:
    volume = read(ImageRef((rtstruct,), grid_of=files, structures=(("GTV-1", 1), ("GTV-2", 2))))
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(
        volume.array[0, ..., 1].T,
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 1, 2, 2, 2, 0],
            [0, 1, 2, 2, 2, 0],
            [0, 0, 2, 2, 2, 0],
        ],
    )
    assert not volume.array[0, ..., [0, 2]].any()
    series = series_of_files(files)
    np.testing.assert_array_equal(volume.affine_ras, series.affine_ras)
    np.testing.assert_allclose(
        volume.affine_ras, [[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    )


def test_a_pattern_joins_structures_and_large_labels_have_room(
    files: tuple[Path, ...], rtstruct: Path
) -> None:
    volume = read(ImageRef((rtstruct,), grid_of=files, structures=(("gtv*", 300),)))
    assert volume.array.dtype == np.uint16
    assert (volume.array == 300).sum() == 9 + 9 - 4


def test_remarks_say_which_label_is_meant(files: tuple[Path, ...], rtstruct: Path) -> None:
    ref = ImageRef((rtstruct,), grid_of=files, structures=(("lung*", 1),))
    labels = read_labels(ref)
    assert labels.volume.array.sum() == 4
    assert any(
        remark.startswith("label 1: 1 contour(s) lie before the first or after the last slice")
        for remark in labels.remarks
    )
    assert io.remarks(ref) == labels.remarks


def test_a_structure_that_is_not_there_is_answered_with_those_that_are(
    files: tuple[Path, ...], rtstruct: Path
) -> None:
    with pytest.raises(
        DataError, match=r"No structure is called 'GTV-3'; there is 'GTV-1', 'GTV-2' and 1 with words that"
    ):
        read(ImageRef((rtstruct,), grid_of=files, structures=(("GTV-3", 1),)))
    with pytest.raises(DataError, match=r"Expected names of structures .* it has 'GTV-1', 'GTV-2'"):
        read(ImageRef((rtstruct,), grid_of=files))
    with pytest.raises(DataError, match="Expected labels from 1 to 65535, got 0"):
        read(ImageRef((rtstruct,), grid_of=files, structures=(("GTV-1", 0),)))


def test_segments_of_one_name_are_told_apart_by_their_number(tmp_path: Path, files: tuple[Path, ...]) -> None:
    one, other = np.zeros((2, 5, 6), int)
    one[0, 0] = other[1, 1] = 1
    position = AXIAL.points([(0, 0, 1)])[0]
    path = write_seg(tmp_path / "seg.dcm", [(1, one, position), (2, other, position)], ["lesion", "lesion"])
    assert list_structures(path) == [
        Structure("lesion #1", 1, 1, "frames"),
        Structure("lesion #2", 2, 1, "frames"),
    ]
    found = read_structures(path, series_of_files(files), ["lesion #2"])
    assert [(name, np.argwhere(each.inside).tolist()) for name, each in found.items()] == [
        ("lesion #2", [[1, 1, 1]])
    ]
    both = read(ImageRef((path,), grid_of=files, structures=(("lesion*", 1),)))
    assert both.array.sum() == 2


def test_the_order_of_the_series_files_does_not_matter(files: tuple[Path, ...], rtstruct: Path) -> None:
    structures = (("GTV-1", 1),)
    forwards, backwards = (
        read(ImageRef((rtstruct,), grid_of=order, structures=structures)) for order in (files, files[::-1])
    )
    np.testing.assert_array_equal(forwards.array, backwards.array)
    np.testing.assert_array_equal(forwards.affine_ras, backwards.affine_ras)


def test_changed_images_are_looked_at_again(tmp_path: Path, files: tuple[Path, ...]) -> None:
    before = series_of_files(files)
    assert series_of_files(files) is before
    write_ct(tmp_path / "ct", np.zeros((*GRID[:2], 3)), Geometry(origin_mm=(1000, -20, 30)))
    assert series_of_files(files).affine_ras[0, 3] == -1000


def test_a_series_that_is_none_is_refused(tmp_path: Path, files: tuple[Path, ...], rtstruct: Path) -> None:
    more = write_ct(tmp_path / "other", np.zeros(GRID), series="1.2.3.7")
    structures = (("GTV-1", 1),)
    with pytest.raises(DataError, match="are 2 series; expected one"):
        read(ImageRef((rtstruct,), grid_of=(*files, *more), structures=structures))
    with pytest.raises(DataError, match=r"are no volume: refused: .*slices? .*missing"):
        read(ImageRef((rtstruct,), grid_of=(files[0], *write_more(tmp_path)), structures=structures))
    with pytest.raises(DataError, match="cannot be read"):
        read(ImageRef((rtstruct,), grid_of=(*files, tmp_path / "gone.dcm"), structures=structures))
    with pytest.raises(DataError, match=r"got 2 file\(s\)"):
        read(ImageRef((rtstruct, rtstruct), grid_of=files, structures=structures))


def write_more(tmp_path: Path) -> tuple[Path, ...]:
    """Slices 0, 1, 2, 4 and 5 of a series."""
    files = write_ct(tmp_path / "gap", np.zeros((*GRID[:2], 6)))
    return (*files[1:3], *files[4:])


def test_what_is_no_annotation_is_named(tmp_path: Path, files: tuple[Path, ...]) -> None:
    with pytest.raises(DataError, match="is CT; expected an annotation"):
        read(ImageRef((files[0],), grid_of=files, structures=(("GTV", 1),)))
    (tmp_path / "notes.dcm").write_bytes(b"GTV on slices 3 to 5" * 20)
    with pytest.raises(DataError, match="is no DICOM file"):
        list_structures(tmp_path / "notes.dcm")
    with pytest.raises(DataError, match="cannot be read"):
        list_structures(tmp_path / "gone.dcm")


def test_size_is_checked_before_memory_is_taken(rtstruct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "LARGEST_BYTES", rtstruct.stat().st_size - 1)
    with pytest.raises(DataError, match="expected an annotation"):
        list_structures(rtstruct)


def test_the_number_of_items_is_checked_too(rtstruct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = rtstruct.read_bytes().count(b"\xfe\xff\x00\xe0")
    monkeypatch.setattr(annotations, "MOST_ITEMS", items)
    assert len(list_structures(rtstruct)) == 3
    monkeypatch.setattr(annotations, "MOST_ITEMS", items - 1)
    with pytest.raises(DataError, match=f"or {items - 1} items; expected an annotation"):
        list_structures(rtstruct)


def test_a_deflated_file_that_unpacks_to_too_much_is_refused(
    rtstruct: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotations, "LARGEST_BYTES", 4 << 20)
    deflate(rtstruct, b"")
    assert len(list_structures(rtstruct)) == 3
    deflate(rtstruct, b"\0" * (5 << 20))
    assert rtstruct.stat().st_size < 20_000
    with pytest.raises(DataError, match="expected an annotation"):
        list_structures(rtstruct)


def deflate(path: Path, padding: bytes) -> None:
    """Deflate a file's data set, with something after its end."""
    from pydicom import dcmread

    dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
    stored = path.read_bytes()
    begin = 144 + int.from_bytes(stored[140:144], "little")
    body = zlib.decompress(stored[begin:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    path.write_bytes(stored[:begin] + packer.compress(body + padding) + packer.flush())


def test_another_series_is_refused(tmp_path: Path, rtstruct: Path) -> None:
    other = write_ct(tmp_path / "other", np.zeros(GRID), series="1.2.3.7", frame="1.2.3.8")
    with pytest.raises(GeometryError, match="different frames of reference"):
        read(ImageRef((rtstruct,), grid_of=other, structures=(("GTV-1", 1),)))


def test_the_documents_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    page = (Path(__file__).parents[1] / "docs" / "annotations.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    write_ct(tmp_path / "CT", np.zeros(GRID))
    write_rtstruct(tmp_path / "contours.dcm", {"GTV-1": [square(0.5, 3.5, 1)], "Cord": []})
    exec(compile(example, "docs/annotations.md", "exec"), {"folder": tmp_path})
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["GTV-1 1 contours", "Cord 0 contours"]
    assert told[2].startswith("GTV-1 9 voxels 1 contour(s) refer to no image")


def test_importing_oncoseg_loads_no_dicom() -> None:
    import subprocess

    code = "import oncoseg, oncoseg.io, sys; assert not {'pydicom', 'highdicom'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("label", "each"), [(1, 1), (300, 2)])
def test_the_size_of_what_is_drawn_follows_from_the_first_slice_alone(
    files: tuple[Path, ...], rtstruct: Path, monkeypatch: pytest.MonkeyPatch, label: int, each: int
) -> None:
    ref = ImageRef((rtstruct,), grid_of=files, structures=(("GTV-1", label),))
    assert io.read_grid(ref).array.nbytes == 6 * 5 * 3 * each
    monkeypatch.setattr("oncoseg.io.dicom.volumes.survey_files", None)  # the headers of all slices
    assert io.voxel_bytes(ref) == 6 * 5 * 3 * each
