"""Resampling of volumes: against PyTorch, by hand, and slab by slab."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from oncoseg.errors import DataError
from oncoseg.resampling import (
    needed_slices,
    resample_labels,
    resample_labels_slab,
    resample_slab,
    resample_volume,
    restore_slab,
    target_shape,
)

ROUNDING = 1e-5
"""Of some additions in float32, for values of about 1."""


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def test_the_number_of_voxels_follows_the_spacing() -> None:
    assert target_shape((512, 512, 100), (0.8, 0.8, 5.0), (1.6, 0.4, 1.0)) == (256, 1024, 500)
    assert target_shape((10, 10, 10), (1.009, 0.991, 1.02), (1, 1, 1)) == (10, 10, 10)
    assert target_shape((100, 100, 100), (1.009, 0.991, 1.02), (1, 1, 1)) == (100, 100, 102)
    assert target_shape((3, 3, 1), (1, 1, 1), (10, 10, 10)) == (1, 1, 1)


def test_a_mistaken_spacing_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"512×512×300 voxels of 0\.8×0\.8×1 mm would become 4096×4096×300 of 0\.1"
    ):
        target_shape((512, 512, 300), (0.8, 0.8, 1.0), (0.1, 0.1, 1.0))


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 21), (11, 6, 7), (11, 9, 16)])
def test_growing_is_trilinear_interpolation(shape: tuple[int, int, int]) -> None:
    voxels = noise(2, 5, 6, 7)
    expected = functional.interpolate(
        torch.from_numpy(voxels)[None], shape, mode="trilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(resample_volume(voxels, shape), expected.numpy(), atol=ROUNDING)


def test_shrinking_is_the_same_along_every_axis() -> None:
    """PyTorch's antialiasing filter, which is ours within slices, must be that along k, too."""
    voxels = noise(1, 20, 20, 20)
    along_i = resample_volume(voxels, (7, 20, 20))
    along_k = resample_volume(voxels.transpose(0, 3, 2, 1), (20, 20, 7))
    np.testing.assert_allclose(along_i, along_k.transpose(0, 3, 2, 1), atol=ROUNDING)


def test_halving_by_hand() -> None:
    """A triangle of two voxels' half width: 1, 3, 3, 1 eighths, and what sticks out is left out."""
    line = np.array([0, 0, 0, 8, 0, 0], np.int16).reshape(1, 1, 1, 6)
    halved = resample_volume(line, (1, 1, 3)).flatten()
    # centres at 0.5, 2.5, 4.5; voxel 3 is 0.5 from the second and 1.5 from the third
    np.testing.assert_allclose(halved, [0, 8 * 3 / 8, 8 * 1 / 7], atol=ROUNDING)


def test_a_constant_stays_itself_and_an_equal_grid_is_not_touched() -> None:
    np.testing.assert_allclose(resample_volume(np.full((1, 4, 5, 6), -1000), (7, 3, 11)), -1000, rtol=1e-6)
    voxels = noise(2, 4, 5, 6)
    assert np.array_equal(resample_volume(voxels, (4, 5, 6)), voxels)
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    assert np.array_equal(resample_labels(labels, 2, (4, 5, 6)), labels)


@pytest.mark.parametrize("shape", [(9, 5, 31), (4, 12, 6), (6, 7, 13)])
def test_slabs_have_the_very_numbers_of_the_whole(shape: tuple[int, int, int]) -> None:
    voxels = noise(2, 6, 7, 13)
    labels = np.random.default_rng(1).integers(0, 3, (6, 7, 13)).astype(np.uint8)
    slabs, label_slabs, restored = [], [], []
    whole, whole_labels = resample_volume(voxels, shape), resample_labels(labels, 2, shape)
    for start in range(0, shape[2], 4):
        stop = min(start + 4, shape[2])
        needed = needed_slices(13, shape[2], start, stop)
        slabs.append(resample_slab(voxels[..., needed], 13, shape, start, stop))
        label_slabs.append(resample_labels_slab(labels[..., needed], 2, 13, shape, start, stop))
    assert np.array_equal(np.concatenate(slabs, axis=-1), whole)
    assert np.array_equal(np.concatenate(label_slabs, axis=-1), whole_labels)
    for start in range(13):
        restored.append(restore_slab(whole, (6, 7, 13), start, start + 1))
    assert np.array_equal(np.concatenate(restored, axis=-1), restore_slab(whole, (6, 7, 13), 0, 13))


def test_there_and_back_keeps_a_smooth_field() -> None:
    i, j, k = np.meshgrid(*(np.linspace(0, 1, n) for n in (20, 24, 12)), indexing="ij")
    field = (np.sin(3 * i) * np.cos(2 * j) + k)[None].astype(np.float32)
    back = restore_slab(resample_volume(field, (30, 17, 25)), (20, 24, 12), 0, 12)
    # at a border half of the filter is missing, so that a slope is off by less than a voxel's step
    assert np.abs(back - field).max() < 0.1
    assert np.abs(back - field)[:, 2:-2, 2:-2, 2:-2].max() < 0.01


def test_a_label_keeps_its_volume() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:12, 4:12, 4:12] = 2
    labels[14:16, 14:16, 14:16] = 1
    grown, shrunk = resample_labels(labels, 2, (40, 40, 40)), resample_labels(labels, 2, (10, 10, 10))
    # interpolation takes the eight corners: three quarters to the third are less than a half
    assert [(grown == index).sum() for index in (1, 2)] == [8 * 8 - 8, 8 * 512 - 8]
    assert [(shrunk == index).sum() for index in (1, 2)] == [1, 512 / 8]
    assert np.array_equal(resample_labels(grown, 2, (20, 20, 20)), labels)


@pytest.mark.parametrize(
    ("labels", "expected"), [((1, 1, 2), 1), ((0, 2, 2), 2), ((0, 0, 1), 0), ((0, 1, 0), 0), ((0, 1), 1)]
)
def test_a_voxel_goes_to_what_covers_most_of_it(labels: tuple[int, ...], expected: int) -> None:
    column = np.array(labels, np.uint8).reshape(1, 1, -1)
    assert resample_labels(column, 2, (1, 1, 1)).item() == expected
