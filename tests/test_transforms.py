"""Preparation and the way back, on slices small enough to check by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg.errors import DataError
from oncoseg.transforms import (
    ZEROS,
    choose_channels,
    prepare_slices,
    resize_labels,
    resize_slices,
    restore_slices,
    scale_slices,
    to_slices,
)

PERCENTILES, WINDOW = (0.5, 99.5), (-1000.0, 400.0)

ROUNDING = 1e-5
"""float32 through two interpolations."""


# channels


def test_channels_are_taken_in_the_networks_order_and_may_repeat() -> None:
    assert choose_channels(["T2", "T1"], ["T1", "T2"], "error", {}) == ["T1", "T2"]
    assert choose_channels(["CT"], ["CT"] * 3, "error", {}) == ["CT"] * 3


def test_a_missing_channel_is_refused_or_substituted() -> None:
    substitutes = {"T2": "FLAIR"}
    with pytest.raises(
        DataError, match=r"T2 is missing.*got T1, FLAIR.*train with FLAIR allowed in its place"
    ):
        choose_channels(["T1", "FLAIR"], ["T1", "T2"], "error", substitutes)
    assert choose_channels(["T1", "FLAIR"], ["T1", "T2"], "substitute", substitutes) == ["T1", "FLAIR"]
    assert choose_channels(["T1"], ["T1", "T2"], "substitute", {"T2": ZEROS}) == ["T1", ZEROS]
    with pytest.raises(DataError, match="so is its substitute FLAIR"):
        choose_channels(["T1"], ["T1", "T2"], "substitute", substitutes)


@pytest.mark.parametrize("missing", ["error", "substitute"])
def test_only_a_stated_substitute_is_used(missing: str) -> None:
    with pytest.raises(DataError, match=r"T2 is missing.*--modalities\.NAME\.substitutes\.T2 zeros"):
        choose_channels(["T1"], ["T1", "T2"], missing, {"T1": ZEROS})


def test_a_case_without_any_channel_is_refused() -> None:
    with pytest.raises(DataError, match="All channels are missing; expected T1, T2, got CT"):
        choose_channels(["CT"], ["T1", "T2"], "substitute", {"T1": ZEROS, "T2": ZEROS})


def test_a_substitute_is_not_used_where_the_channel_is_there() -> None:
    assert choose_channels(["T1", "T2"], ["T1", "T2"], "substitute", {"T1": "T2"}) == ["T1", "T2"]


# resizing


def test_slices_are_stacked_along_k() -> None:
    voxels = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    slices = to_slices(voxels)
    assert slices.shape == (5, 2, 3, 4)
    assert slices.dtype == torch.float32
    np.testing.assert_array_equal(slices[4, 1].numpy(), voxels[1, :, :, 4])


def test_a_slice_is_padded_to_a_square_with_its_smallest_value() -> None:
    slices = torch.tensor([[[[5.0, 7.0]], [[-3.0, -2.0]]]])
    padded = resize_slices(slices, (2, 2))
    assert padded[0, 0].tolist() == [[5, 7], [5, 5]]
    assert padded[0, 1].tolist() == [[-3, -2], [-3, -3]]
    assert resize_slices(torch.ones(1, 1, 4, 1), (4, 4)).tolist() == torch.ones(1, 1, 4, 4).tolist()


def test_halving_is_an_antialiased_mean() -> None:
    slices = torch.zeros(1, 1, 16, 16)
    slices[..., 6:10, 6:10] = 1
    small = resize_slices(slices, (8, 8))
    # a triangle of weights 1/8 3/8 3/8 1/8 along each axis: 7/8 of a block's pixel, 1/8 of its neighbour
    row = [0, 0, 1 / 8, 7 / 8, 7 / 8, 1 / 8, 0, 0]
    torch.testing.assert_close(small[0, 0], torch.outer(torch.tensor(row), torch.tensor(row)))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int]]:
    """Slices of any shape that are constant, and a prepared size."""
    grid = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    value = draw(st.floats(0, 1, width=32))
    return torch.full((2, 1, *grid), value), size


@given(blocks())
@settings(max_examples=40, deadline=None)
def test_constant_slices_survive_there_and_back(drawn: tuple[torch.Tensor, tuple[int, int]]) -> None:
    slices, size = drawn
    prepared = resize_slices(slices, size)
    assert prepared.shape == (2, 1, *size)
    restored = restore_slices(prepared, tuple(slices.shape[-2:]))
    assert restored.shape == slices.shape
    torch.testing.assert_close(restored, slices, rtol=ROUNDING, atol=ROUNDING)


@given(
    st.tuples(st.integers(12, 40), st.integers(12, 40)),
    st.sampled_from([(16, 16), (32, 32), (24, 40)]),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_block_comes_back_to_where_it_was(
    grid: tuple[int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, grid[0] - 6))
    column = data.draw(st.integers(0, grid[1] - 6))
    slices = torch.zeros(1, 1, *grid)
    slices[..., row : row + 6, column : column + 6] = 1
    restored = restore_slices(resize_slices(slices, size), grid)[0, 0]
    weights = restored / restored.sum()
    centre = weights.sum(1) @ torch.arange(0.0, grid[0]), weights.sum(0) @ torch.arange(0.0, grid[1])
    # away from the border to within a pixel of the prepared slice; at it, blurring is one-sided
    tolerance = max(1.0, *(max(grid) / pixels for pixels in size))
    assert centre[0].item() == pytest.approx(row + 2.5, abs=tolerance)
    assert centre[1].item() == pytest.approx(column + 2.5, abs=tolerance)


@pytest.mark.parametrize("grid", [(4, 6), (6, 4), (5, 5), (3, 8), (16, 16), (12, 16)])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (12, 16), (16, 12)])
def test_masks_move_as_images_do(grid: tuple[int, int], size: tuple[int, int]) -> None:
    labels = np.zeros((*grid, 1), np.uint8)
    labels[: grid[0] // 2 + 1, : grid[1] // 2 + 1] = 1
    image = resize_slices(to_slices(labels[None]), size)[:, 0]
    mask = resize_labels(labels, 1, size)
    assert mask.shape == (1, *size)
    assert mask.dtype == torch.uint8
    clear = (image - 0.5).abs() > ROUNDING
    assert torch.equal(mask[clear] == 1, image[clear] > 0.5)


def test_half_covered_pixels_go_to_the_class() -> None:
    labels = np.zeros((2, 2, 1), np.uint8)
    labels[:, 0] = 1
    assert resize_labels(labels, 1, (1, 1)).item() == 1
    labels[:, 1] = 2
    assert resize_labels(labels, 2, (1, 1)).item() == 2


def test_several_classes_keep_their_places() -> None:
    labels = np.kron(np.array([[1, 0], [3, 2]]), np.ones((4, 4), int)).astype(np.uint8)[..., None]
    assert resize_labels(labels, 3, (2, 2))[0].tolist() == [[1, 0], [3, 2]]
    assert resize_labels(labels, 3, (16, 16)).unique().tolist() == [0, 1, 2, 3]


def test_empty_masks_stay_empty_and_full_ones_full() -> None:
    assert not resize_labels(np.zeros((5, 9, 2), np.uint8), 2, (7, 7)).any()
    assert (resize_labels(np.full((9, 9, 2), 2, np.uint8), 2, (7, 7)) == 2).all()


# scaling


def test_minmax_scales_every_slice_and_channel_alone() -> None:
    slices = torch.tensor(
        [[[[0.0, 5.0, 10.0]], [[-4.0, -4.0, -2.0]]], [[[7.0, 7.0, 7.0]], [[0.0, 0.0, 1.0]]]]
    )
    scaled = scale_slices(slices, "slice-minmax", PERCENTILES, WINDOW)
    assert scaled[0].tolist() == [[[0, 0.5, 1]], [[0, 0, 1]]]
    assert scaled[1].tolist() == [[[0, 0, 0]], [[0, 0, 1]]]


def test_percentiles_clip_both_ends() -> None:
    slices = torch.arange(101.0).reshape(1, 1, 1, 101)
    scaled = scale_slices(slices, "slice-percentile", (10, 90), WINDOW).flatten()
    assert scaled[[0, 10, 50, 90, 100]].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


def test_a_window_is_the_same_for_every_slice() -> None:
    slices = torch.tensor([-2000.0, -1000, -300, 400, 3000]).reshape(1, 1, 1, 5)
    scaled = scale_slices(slices, "window", PERCENTILES, WINDOW).flatten()
    assert scaled.tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_unknown_scaling_is_refused() -> None:
    with pytest.raises(DataError, match="expected slice-minmax, slice-percentile or window"):
        scale_slices(torch.zeros(1, 1, 2, 2), "z-score", PERCENTILES, WINDOW)


@given(
    st.sampled_from(["slice-minmax", "slice-percentile", "window"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    st.sampled_from([np.int16, np.uint8, np.float32]),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_prepared_slices_are_always_finite_and_within_0_and_1(
    scaling: str, grid: tuple[int, int, int], dtype: type, seed: int
) -> None:
    voxels = np.random.default_rng(seed).integers(0, 255, (2, *grid)).astype(dtype)
    slices = prepare_slices(voxels, (8, 8), scaling, PERCENTILES, WINDOW)
    assert slices.shape == (grid[2], 2, 8, 8)
    assert slices.dtype == torch.float32
    assert torch.isfinite(slices).all()
    assert slices.min() >= 0
    assert slices.max() <= 1
