"""Volumes in the prepared store: what is written is read again, window by window."""

from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch

from oncoseg import volume_store
from oncoseg.errors import DataError, RunError
from oncoseg.files import atomic_folder
from oncoseg.store import is_whole
from oncoseg.volume_store import MASK_FILE, VOLUME_FILE, PreparedVolume, VolumeWriter
from test_files import largest_file

HALF = 2**-11
"""Relative rounding of float16."""


def written(folder: Path, shape: tuple[int, int, int] = (9, 11, 13)) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir()
    voxels = np.random.default_rng(0).random((2, *shape), np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[2:4, 3, 5:8] = 1
    labels[7, 0, 12] = 2
    writer = VolumeWriter(folder, 2, shape)
    for start in range(0, shape[2], 4):
        writer.append(voxels[..., start : start + 4], labels[..., start : start + 4])
    writer.finish(channels=["T1", "T2"])
    return voxels, labels


def opened(folder: Path, patch: tuple[int, int, int] = (4, 4, 4)) -> PreparedVolume:
    return PreparedVolume("a", "A", folder, (1, 0, 0), patch)


@pytest.mark.parametrize("chunk", [96, 8])
def test_windows_come_back_padded_with_zeros(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_store, "CHUNK", chunk)
    monkeypatch.setattr(volume_store, "BLOCK", min(chunk, 32))
    voxels, labels = written(tmp_path / "case")
    padded = np.pad(voxels[[1, 0, 0]], ((0, 0), (5, 5), (5, 5), (5, 5)))
    truth = np.pad(labels, 5)
    case = opened(tmp_path / "case")
    for corner in [(0, 0, 0), (5, 7, 9), (-2, 3, 10), (6, -4, -1), (3, 9, 4)]:
        place = tuple(slice(first + 5, first + 9) for first in corner)
        image, mask = case.example(corner)
        assert image.dtype == torch.float32
        assert mask.dtype == torch.uint8
        np.testing.assert_allclose(image[0].numpy(), padded[:, *place], rtol=HALF, atol=1e-7)
        assert np.array_equal(mask[0].numpy(), truth[place])


def test_the_description_tells_voxels_and_places(tmp_path: Path) -> None:
    _, labels = written(tmp_path / "case")
    case = opened(tmp_path / "case")
    assert case.shape == (9, 11, 13)
    assert case.tumour_pixels.tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0, 1]
    assert case.places[2].tolist() == [[7, 0, 12]]
    assert sorted(map(tuple, case.places[1])) == [tuple(place) for place in np.argwhere(labels == 1)]
    assert case.with_voxels({1, 2, 3}) == {1, 2}
    assert case.with_voxels({3}) == set()
    assert is_whole(case.folder)


def test_places_of_a_large_class_are_spread_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_store, "MOST_PLACES", 500)
    (tmp_path / "case").mkdir()
    writer = VolumeWriter(tmp_path / "case", 1, (20, 20, 20))
    for _ in range(5):
        writer.append(np.zeros((1, 20, 20, 4)), np.ones((20, 20, 4)))
    writer.finish()
    places = opened(tmp_path / "case").places[1]
    assert len(np.unique(places, axis=0)) == 500
    # the mean of 500 out of 0 … 19 has a standard deviation of 0.26
    np.testing.assert_allclose(places.mean(axis=0), 9.5, atol=1.1)


@pytest.mark.parametrize("patch", [(4, 4, 4), (9, 11, 13), (3, 20, 5), (16, 16, 16)])
def test_the_parts_are_every_voxel_once(tmp_path: Path, patch: tuple[int, int, int]) -> None:
    voxels, labels = written(tmp_path / "case")
    case = opened(tmp_path / "case", patch)
    parts = [part for group in case.parts(1) for part in group]
    assert len(parts) == len(case)
    assert all(tuple(part.images.shape[2:]) == patch for part in parts)
    kept = [part.images[part.keep] for part in parts]
    assert [one.shape[2:] for one in kept] == [part.masks.shape[1:] for part in parts]
    assert sum(one[0, 0].numel() for one in kept) == labels.size
    # all values differ, so that a voxel that came twice would leave out another
    seen = torch.cat([one[0, 1].flatten() for one in kept]).sort().values.numpy()
    np.testing.assert_allclose(seen, np.sort(voxels[0].flatten()), rtol=HALF, atol=1e-7)
    assert sum(int((part.masks > 0).sum()) for part in parts) == (labels > 0).sum()


def test_only_the_blocks_of_a_window_are_read(tmp_path: Path) -> None:
    written(tmp_path / "case", (100, 100, 100))
    array = blosc2.open(str(tmp_path / "case" / VOLUME_FILE))
    assert array.chunks == (1, 96, 96, 96)
    assert array.blocks == (1, 32, 32, 32)
    assert blosc2.open(str(tmp_path / "case" / MASK_FILE)).chunks == (96, 96, 96)


def test_too_few_slices_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    writer = VolumeWriter(tmp_path / "case", 1, (2, 2, 3))
    writer.append(np.zeros((1, 2, 2, 2)), np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="Expected 3 slices, got 2"):
        writer.finish()


@pytest.mark.parametrize("name", [VOLUME_FILE, MASK_FILE, "places.npy"])
def test_a_damaged_case_is_not_whole(tmp_path: Path, name: str) -> None:
    written(tmp_path / "case")
    file = tmp_path / "case" / name
    file.write_bytes(file.read_bytes()[:-10])
    assert not is_whole(tmp_path / "case")
    with pytest.raises(RunError, match="is damaged"):
        case = opened(tmp_path / "case")
        case.example((0, 0, 0)), case.places


def test_a_missing_file_is_not_whole(tmp_path: Path) -> None:
    written(tmp_path / "case")
    (tmp_path / "case" / MASK_FILE).unlink()
    assert not is_whole(tmp_path / "case")


@pytest.mark.parametrize("limit", [100, 4000])
def test_a_full_disk_leaves_no_case(tmp_path: Path, limit: int) -> None:
    with (
        largest_file(limit),
        pytest.raises(RunError, match="Could not write a prepared case into"),
        atomic_folder(tmp_path / "case") as temporary,
    ):
        written(temporary / "inner")
    assert not (tmp_path / "case").exists()


def test_an_example_has_its_margin_and_a_part_has_none(tmp_path: Path) -> None:
    written(tmp_path / "case")
    plain = opened(tmp_path / "case", (4, 4, 4))
    wider = replace(plain, margin=(1, 0, 2))
    image, mask = wider.example((0, 3, 4))
    assert image.shape == (1, 3, 6, 4, 8)
    assert not image[:, :, 0].any(), "beyond the volume"
    assert torch.equal(image[:, :, 1:5, :, 2:6], plain.example((0, 3, 4))[0])
    assert torch.equal(mask[:, 1:5, :, 2:6], plain.example((0, 3, 4))[1])
    assert torch.equal(image[:, :, 1:5, :, :2], plain.example((0, 3, 2))[0][..., :2])
    for one, other in zip(wider.parts(1), plain.parts(1), strict=True):
        assert torch.equal(one[0].images, other[0].images)
