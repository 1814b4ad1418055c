"""Outlines of masks: corners worked out by hand, and filling by an independent rule gives the mask back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from scipy import ndimage

from oncoseg.io.dicom.outlines import outlines
from oncoseg.io.polygons import fill

FOUR_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)


def mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def united(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies in any of the polygons, each by itself: crossings on the right are odd."""
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for at in np.ndindex(shape):
            crossings = [
                one[1] + (at[0] - one[0]) / (two[0] - one[0]) * (two[1] - one[1]) > at[1]
                for one, two in zip(polygon, np.roll(polygon, -1, axis=0), strict=True)
                if (one[0] > at[0]) != (two[0] > at[0])
            ]
            inside[at] |= sum(crossings) % 2 == 1
    return inside


def area(polygon: np.ndarray) -> float:
    """By Gauss's formula (shoelace)."""
    following = np.roll(polygon, -1, axis=0)
    return abs(float((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum())) / 2


def test_a_pixel_has_four_corners_half_a_pixel_away() -> None:
    (found,) = outlines(mask("...", "..#"))
    assert found.tolist() == [[0.5, 1.5], [0.5, 2.5], [1.5, 2.5], [1.5, 1.5]]


def test_straight_edges_have_no_corners_between() -> None:
    (found,) = outlines(np.ones((40, 70), bool))
    assert found.tolist() == [[-0.5, -0.5], [-0.5, 69.5], [39.5, 69.5], [39.5, -0.5]]


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((3, 4), bool)) == []


@pytest.mark.parametrize("rows", [("#.", ".#"), (".#", "#.")])
def test_pixels_that_touch_at_a_corner_are_apart(rows: tuple[str, str]) -> None:
    assert [area(each) for each in outlines(mask(*rows))] == [1, 1]


def test_a_hole_is_reached_by_a_keyhole() -> None:
    (found,) = outlines(mask("####", "#.##", "####"))
    assert area(found) == 11
    # there and back on one line, a quarter of a pixel below the hole's upper edge
    (there, back) = np.flatnonzero((found == [0.75, -0.5]).all(axis=1))
    assert found[there + 1].tolist() == found[back - 1].tolist() == [0.75, 0.5]


def test_an_island_in_a_hole_has_an_outline_of_its_own() -> None:
    rows = ("#####", "#...#", "#.#.#", "#...#", "#####")
    found = outlines(mask(*rows))
    assert sorted(area(each) for each in found) == [1, 16]
    assert (united(found, (5, 5)) == mask(*rows)).all()


MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(MASKS)
def test_uniting_the_outlines_gives_the_mask_back(pixels: np.ndarray) -> None:
    assert (united(outlines(pixels), pixels.shape) == pixels).all()


@given(MASKS)
def test_filling_by_even_and_odd_gives_the_mask_back(pixels: np.ndarray) -> None:
    patch = fill(outlines(pixels), pixels.shape)
    filled = np.zeros_like(pixels)
    filled[patch.at] = patch.inside
    assert (filled == pixels).all()


@given(MASKS)
def test_each_region_has_one_outline_of_its_own_area(pixels: np.ndarray) -> None:
    regions, count = ndimage.label(pixels, FOUR_NEIGHBOURS)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    assert sorted(area(each) for each in outlines(pixels)) == sorted(sizes)


@given(MASKS)
def test_filling_by_winding_numbers_gives_the_mask_back(pixels: np.ndarray) -> None:
    centres = np.argwhere(np.ones(pixels.shape, bool))
    inside = np.zeros(pixels.size, bool)
    for polygon in outlines(pixels):
        inside |= Polygon(np.vstack([polygon, polygon[:1]]), closed=True).contains_points(centres)
    assert (inside.reshape(pixels.shape) == pixels).all()


def test_a_large_mask_with_thousands_of_holes() -> None:
    pixels = np.random.default_rng(3).random((512, 512)) < 0.6
    found = outlines(pixels)
    assert len(found) == ndimage.label(pixels, FOUR_NEIGHBOURS)[1]
    assert sum(area(each) for each in found) == pixels.sum()
