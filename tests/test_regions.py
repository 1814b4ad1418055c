"""Boxes of voxels, on grids small enough to be counted by hand."""

import numpy as np
import pytest

from oncoseg.regions import Found, cropped, margin_voxels, on_own_axes, slices_of, whole
from oncoseg.volume import Volume, to_canonical
from test_volume import CORNER_TOLERANCE_MM, numbered, oblique_affine


def marked(grid: tuple[int, int, int], *blocks: tuple[slice, slice, slice]) -> np.ndarray:
    marks = np.zeros(grid, bool)
    for block in blocks:
        marks[block] = True
    return marks


def test_the_box_is_of_the_largest_part_in_whole_cells() -> None:
    large = slice(5, 7), slice(9, 14), slice(2, 4)  # 2 · 5 · 2 = 20 voxels
    small = slice(17, 18), slice(0, 1), slice(6, 9)  # 3 voxels
    found = Found((18, 17, 9))
    marks = marked((18, 17, 9), large, small)
    for start in range(0, 9, 2):
        found.add(start, marks[..., start : start + 2])
    assert found.box((0, 0, 0)) == ((4, 8), (8, 16), (2, 4))


def test_the_margin_ends_at_the_border() -> None:
    found = Found((18, 17, 9))
    found.add(0, marked((18, 17, 9), (slice(16, 18), slice(4, 5), slice(1, 2))))
    assert found.box((2, 5, 1)) == ((14, 18), (0, 13), (0, 3))


def test_parts_are_weighed_by_voxels_not_by_cells() -> None:
    dense = slice(0, 4), slice(0, 4), slice(0, 1)  # 16 voxels in one cell
    thin = slice(8, 20), slice(8, 9), slice(0, 1)  # 12 voxels in three
    found = Found((20, 12, 1))
    found.add(0, marked((20, 12, 1), dense, thin))
    assert found.box((0, 0, 0)) == ((0, 4), (0, 4), (0, 1))


def test_nothing_found_has_no_box() -> None:
    found = Found((8, 8, 2))
    found.add(0, np.zeros((8, 8, 2), bool))
    assert found.box((1, 1, 1)) is None


def test_margins_reach_at_least_so_far() -> None:
    assert margin_voxels(10, (0.8, 1, 3)) == [13, 10, 4]
    assert whole((3, 4, 5)) == ((0, 3), (0, 4), (0, 5))


@pytest.mark.parametrize("orientation", range(48))
def test_a_box_holds_the_same_voxels_on_its_own_axes(orientation: int) -> None:
    affine = oblique_affine(orientation, (5, -7, 9), (1, 2, 3), (10, 20, 30))
    volume = Volume(numbered(1, (5, 6, 7)), affine)
    canonical, _ = to_canonical(volume)
    box = ((1, 3), (0, 4), (2, 5))
    part = cropped(volume, on_own_axes(box, volume))
    turned, _ = to_canonical(part)
    np.testing.assert_array_equal(turned.array[0], canonical.array[0][slices_of(box)])
    number = part.array[0].flat[0]
    before = np.argwhere(volume.array[0] == number)[0]
    np.testing.assert_allclose(
        part.affine_ras @ [0, 0, 0, 1], volume.affine_ras @ [*before, 1], atol=CORNER_TOLERANCE_MM
    )
