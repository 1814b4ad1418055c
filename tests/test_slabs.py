"""Reading some axial slices of a case, whatever lies on disk."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg import slabs
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, GeometryError
from oncoseg.io import ImageRef
from oncoseg.io.nifti import NiftiSlabs
from oncoseg.slabs import open_source
from oncoseg.volume import Volume, to_canonical
from test_volume import ORIENTATIONS, numbered
from tiny import lidc_nodule

GRID = (3, 4, 5)


def case(folder: Path, affine: np.ndarray | None = None, suffix: str = ".nii.gz") -> Case:
    voxels = numbered(2, GRID)
    refs = {}
    for name, channel in zip(("T1", "T2"), voxels, strict=True):
        path = folder / f"{name}{suffix}"
        nib.Nifti1Image(channel.astype(np.int16), np.eye(4) if affine is None else affine).to_filename(path)
        refs[name] = ImageRef((path,))
    return Case("a", "A", refs)


@pytest.mark.parametrize("number", range(48))
def test_slabs_are_axial_in_every_orientation(tmp_path: Path, number: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = ORIENTATIONS[number]
    whole, _ = to_canonical(Volume(numbered(2, GRID), affine))
    with open_source(case(tmp_path, affine, ".nii"), ["T1", "T2"]) as source:
        assert source.like.grid == GRID
        assert source.slices == whole.grid[2]
        for k in range(source.slices):
            part, _ = to_canonical(Volume(source.slab(k, k + 1), affine))
            flipped = affine[2, source.axis] < 0
            expected = whole.array[..., source.slices - 1 - k if flipped else k]
            np.testing.assert_array_equal(part.array[..., 0], expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slabs_join_to_the_whole(tmp_path: Path, suffix: str) -> None:
    with open_source(case(tmp_path, suffix=suffix), ["T1", "T2"]) as source:
        joined = np.concatenate([source.slab(0, 2), source.slab(2, 3), source.slab(3, 5)], axis=3)
    np.testing.assert_array_equal(joined, numbered(2, GRID))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_channels_that_are_volumes_of_one_file(tmp_path: Path, suffix: str) -> None:
    voxels = numbered(3, GRID).astype(np.int16)
    path = tmp_path / f"all{suffix}"
    nib.Nifti1Image(np.moveaxis(voxels, 0, -1), np.eye(4)).to_filename(path)
    of_volumes = Case("a", "A", {name: ImageRef((path,), n) for n, name in enumerate(("T1", "T2", "CT"))})
    with open_source(of_volumes, ["CT", "T1"]) as source:
        joined = np.concatenate([source.slab(0, 2), source.slab(2, 5)], axis=3)
    np.testing.assert_array_equal(joined, voxels[[2, 0]])


def asked_of_readers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int]]:
    """File, axis, start and stop of everything that is read from NIfTI files from now on."""
    asked: list[tuple[str, int, int, int]] = []
    real = NiftiSlabs.slab

    def slab(self: NiftiSlabs, axis: int, start: int, stop: int) -> np.ndarray:
        asked.append((self.path.name, axis, start, stop))
        return real(self, axis, start, stop)

    monkeypatch.setattr(NiftiSlabs, "slab", slab)
    return asked


def test_no_more_is_read_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of_readers(monkeypatch)
    with open_source(case(tmp_path), ["T1", "T2"]) as source:
        assert asked == []
        source.slab(1, 3)
        source.slab(3, 4)
    assert asked == [
        *[("T1.nii.gz", 2, 1, 3), ("T2.nii.gz", 2, 1, 3)],
        *[("T1.nii.gz", 2, 3, 4), ("T2.nii.gz", 2, 3, 4)],
    ]


def test_repeated_channels_are_read_once_and_zeros_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = slabs.open_slabs
    monkeypatch.setattr(slabs, "open_slabs", lambda path, *of: (opened.append(path), real(path, *of))[1])
    with open_source(case(tmp_path), ["T2", "zeros", "T2", "T2"]) as source:
        part = source.slab(1, 3)
    assert [path.name for path in opened] == ["T2.nii.gz"]
    voxels = numbered(2, GRID)[1][..., 1:3]
    np.testing.assert_array_equal(part, np.stack([voxels, np.zeros_like(voxels), voxels, voxels]))


def test_contrast_is_that_of_all_slabs_together(tmp_path: Path) -> None:
    steps = np.broadcast_to(np.arange(5, dtype=np.int16), GRID)
    images = {}
    for name, voxels in {"T1": steps, "T2": np.full(GRID, 7, np.int16)}.items():
        nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / f"{name}.nii.gz")
        images[name] = ImageRef((tmp_path / f"{name}.nii.gz",))
    with open_source(Case("a", "A", images), ["T1", "zeros"]) as source:
        for k in range(5):  # each slice is constant, the channel is not
            source.slab(k, k + 1)
        source.check_contrast()
    with open_source(Case("a", "A", images), ["T1", "T2"]) as source:
        source.slab(0, 5)
        with pytest.raises(DataError, match="Channel T2 is constant; expected an image with contrast"):
            source.check_contrast()


def test_stacks_of_images_are_read_the_same_way(tmp_path: Path) -> None:
    lidc_nodule(tmp_path, 1, slices=4)
    (nodule,) = open_dataset(tmp_path).cases
    with open_source(nodule, ["CT"] * 2) as source:
        assert (source.slices, source.axis) == (4, 2)
        assert source.slab(1, 3).shape == (2, 16, 16, 2)


def test_files_are_closed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []
    real = NiftiSlabs.close
    monkeypatch.setattr(NiftiSlabs, "close", lambda self: (closed.append(self.path), real(self))[0])
    with open_source(case(tmp_path), ["T1", "T2"]):
        assert closed == []
    assert len(closed) == 2
    broken = case(tmp_path)
    broken.images["T2"].files[0].write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        open_source(broken, ["T1", "T2"])
    assert len(closed) == 3


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 1
    (tmp_path / "b").mkdir()
    images = {"T1": case(tmp_path).images["T1"], "T2": case(tmp_path / "b", shifted).images["T2"]}
    with pytest.raises(GeometryError, match="T1 and T2 must lie on one grid"):
        open_source(Case("a", "A", images), ["T1", "T2"])
