"""DICOM series as the images of cases: read, streamed, counted, and written onto."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import CORONAL, OBLIQUE, SAGITTAL, multi_frame, numbered, positions, slices, uid, write
from oncoseg import io
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, GeometryError
from oncoseg.inputs import Job
from oncoseg.io import ImageRef
from oncoseg.io.dicom import voxels
from oncoseg.slabs import open_source
from oncoseg.volume import from_canonical, to_canonical

GRID = (4, 5, 6)
EXPECTED = numbered(GRID).astype(int) - 1024


def ref(folder: Path, **tags: object) -> ImageRef:
    files = write(slices(numbered(GRID), **tags), folder)  # type: ignore[arg-type]
    return ImageRef(tuple(files))


def test_files_are_read_as_a_series_in_any_order(tmp_path: Path) -> None:
    files = ref(tmp_path).files
    volume = io.read(ImageRef((files[3], files[0], files[5], files[1], files[4], files[2])))
    np.testing.assert_array_equal(volume.array[0], EXPECTED)
    assert volume.spacing_mm == pytest.approx((0.5, 0.8, 2.0))
    assert [each.sop_instance_uid for each in volume.header.slices] == [
        uid("series", "instance", k) for k in range(6)
    ]


def test_names_without_a_suffix_are_dicom_by_their_beginning(tmp_path: Path) -> None:
    files = write(slices(numbered(GRID)), tmp_path, [f"IM{k}" for k in range(6)])
    np.testing.assert_array_equal(io.read(ImageRef(tuple(files))).array[0], EXPECTED)
    (tmp_path / "text.xyz").write_text("no image")
    with pytest.raises(DataError, match=r"text\.xyz has a suffix that cannot be read; .* or DICOM"):
        io.read(ImageRef((tmp_path / "text.xyz",)))


def test_files_that_are_not_one_series_are_refused(tmp_path: Path) -> None:
    one, other = ref(tmp_path / "a"), ref(tmp_path / "b", name="other")
    with pytest.raises(DataError, match=r"are 2 series; expected one\. Name the files of one of them"):
        io.read(ImageRef(one.files + other.files))
    (tmp_path / "notes").write_text("no image")
    with pytest.raises(DataError, match=r"1 of 7 files from .* are no DICOM images"):
        io.read(ImageRef((*one.files, tmp_path / "notes")))
    with pytest.raises(DataError, match=r"are no volume: refused: 1 of 6 slices are missing"):
        io.read(ImageRef((*one.files[:2], *one.files[3:])))
    with pytest.raises(DataError, match=r"gone\.dcm cannot be read: No such file"):
        io.read(ImageRef((tmp_path / "gone.dcm",)))


def test_no_salt_is_needed_to_read_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert io.read(ref(tmp_path / "a")).header.patient == ""
    assert not (tmp_path / "config").exists()


def test_channels_of_several_series_share_a_grid(tmp_path: Path) -> None:
    refs = {name: ref(tmp_path / name, modality="MR", name=name) for name in ("T1", "T2")}
    assert io.read_channels(refs).array.shape == (2, *GRID)
    refs["CT"] = ref(tmp_path / "CT", name="CT", at=positions(6, 3.0))
    with pytest.raises(GeometryError, match="T1 and CT must lie on one grid"):
        io.read_channels(refs)


@pytest.mark.parametrize(("modality", "size"), [("CT", 2), ("MR", 2), ("PT", 2)])
def test_the_size_in_memory_is_that_of_what_is_read(tmp_path: Path, modality: str, size: int) -> None:
    images = ref(tmp_path, modality=modality, BitsStored=12, HighBit=11)
    assert io.voxel_bytes(images) == io.read(images).array.nbytes == 4 * 5 * 6 * size


def test_the_size_of_a_multi_frame_image_and_of_fractions(tmp_path: Path) -> None:
    (file,) = write([multi_frame(numbered(GRID))], tmp_path / "a")
    assert io.voxel_bytes(ImageRef((file,))) == 240
    assert io.voxel_bytes(ref(tmp_path / "b", RescaleSlope=0.5)) == 480
    with pytest.raises(DataError, match="cannot be a slice: Rows is missing"):
        io.voxel_bytes(ref(tmp_path / "c", Rows=None))


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0, 1, 0), SAGITTAL, CORONAL, OBLIQUE, (-1, 0, 0, 0, 1, 0)])
def test_slabs_are_axial_and_join_to_the_whole(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    images = ref(tmp_path, cosines=cosines)
    whole, orientation = to_canonical(io.read(images))
    case = Case("a", "A", {"CT": images})
    with open_source(case, ["CT", "CT"]) as source:
        assert source.slices == whole.grid[2]
        assert Job(case, "ct").slices() == source.slices
        parts = [source.slab(k, min(k + 2, source.slices)) for k in range(0, source.slices, 2)]
    joined = np.concatenate(parts, axis=1 + source.axis)
    np.testing.assert_array_equal(joined[:1], from_canonical(whole.array, orientation))


def test_streaming_reads_each_slice_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = voxels.stored_numbers
    monkeypatch.setattr(voxels, "stored_numbers", lambda *a: (read.append(a[0].file.name), real(*a))[1])
    with open_source(Case("a", "A", {"CT": ref(tmp_path)}), ["CT"]) as source:
        assert read == []
        source.slab(0, 2)
        assert sorted(read) == ["000.dcm", "001.dcm"]
        source.slab(2, 6)
    assert len(read) == 6


def test_other_axes_read_each_slice_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = voxels.stored_numbers
    monkeypatch.setattr(voxels, "stored_numbers", lambda *a: (read.append(a[0].file.name), real(*a))[1])
    with open_source(Case("a", "A", {"CT": ref(tmp_path, cosines=CORONAL)}), ["CT"]) as source:
        assert source.axis == 1
        for j in range(5):
            np.testing.assert_array_equal(source.slab(j, j + 1)[0], EXPECTED[:, j : j + 1])
    assert len(read) == 6


@pytest.mark.parametrize(("tilt", "codes"), [(0.0, (1, 1)), (0.5, (0, 1))])
def test_masks_on_a_series_lie_where_it_lies(tmp_path: Path, tilt: float, codes: tuple[int, int]) -> None:
    volume = io.read(ref(tmp_path / "ct", at=[[3, -tilt * k, 2 * k] for k in range(6)]))
    mask = (np.arange(120).reshape(GRID) % 3 == 0).astype(np.uint8)
    io.write_labels(tmp_path / "mask.nii.gz", mask, volume)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, volume.affine_ras, atol=1e-6)
    header = written.header
    # a qform cannot hold the shear of a tilted gantry, so it then claims nothing
    assert (int(header["qform_code"]), int(header["sform_code"])) == codes
    assert header.get_xyzt_units()[0] == "mm"
    assert io.read(ImageRef((tmp_path / "mask.nii.gz",))).array.sum() == mask.sum()
    assert b"secret" not in bytes(header.binaryblock).lower()


def test_a_tilted_gantry_survives_the_way_there_and_back(tmp_path: Path) -> None:
    volume = io.read(ref(tmp_path, at=[[0, -0.5 * k, 2 * k] for k in range(6)]))
    canonical, orientation = to_canonical(volume)
    np.testing.assert_array_equal(from_canonical(canonical.array, orientation), volume.array)
    # voxel (1, 2, 3) lies where it did; i and j point Left and Posterior, so they turn over
    there = canonical.affine_ras @ [4 - 1 - 1, 5 - 1 - 2, 3, 1]
    np.testing.assert_allclose(there, volume.affine_ras @ [1, 2, 3, 1], atol=1e-12)
