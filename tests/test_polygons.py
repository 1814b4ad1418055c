"""Filling outlines: pixels counted by hand, areas known from formulas, and matplotlib's crossing test."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoseg.errors import GeometryError
from oncoseg.io import polygons
from oncoseg.io.polygons import SNAP_PIXELS, fill


def drawn(outlines: Sequence[object], shape: tuple[int, int] = (8, 6)) -> list[str]:
    """Rows of the plane (j downwards), `#` for inside."""
    plane = np.zeros(shape, bool)
    patch = fill([np.array(each, float) for each in outlines], shape)
    plane[patch.at] = patch.inside
    return ["".join("#" if inside else "." for inside in row) for row in plane.T]


def box(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


def test_a_square_around_pixel_centres() -> None:
    assert drawn([box(0.5, 3.5)]) == ["........", ".###....", ".###....", ".###....", "........", "........"]


def test_edges_through_pixel_centres_belong_to_the_side_where_the_inside_begins() -> None:
    assert drawn([box(1, 4)]) == ["........", ".###....", ".###....", ".###....", "........", "........"]


def test_a_triangle() -> None:
    # centres below the line i + j = 5; those on it are where the inside ends
    assert drawn([[(0, 0), (5, 0), (0, 5)]]) == [
        "#####...",
        "####....",
        "###.....",
        "##......",
        "#.......",
        "........",
    ]


def test_an_outline_within_another_is_a_hole_and_one_within_that_an_island() -> None:
    assert drawn([box(-0.5, 5.5), box(0.5, 4.5), box(1.5, 3.5)]) == [
        "######..",
        "#....#..",
        "#.##.#..",
        "#.##.#..",
        "#....#..",
        "######..",
    ]


def test_a_keyhole_makes_the_same_hole() -> None:
    keyhole = [(-0.5, -0.5), (5.5, -0.5), (5.5, 5.5), (-0.5, 5.5), (-0.5, -0.5)]  # outside, back to the start
    keyhole += [
        (1.5, 1.5),
        (1.5, 3.5),
        (3.5, 3.5),
        (3.5, 1.5),
        (1.5, 1.5),
        (-0.5, -0.5),
    ]  # a bridge, the hole
    assert drawn([keyhole]) == drawn([box(-0.5, 5.5), box(1.5, 3.5)])


def test_the_same_outline_twice_cancels() -> None:
    assert drawn([box(1, 4), box(1, 4)]) == ["........"] * 6


def test_what_lies_outside_the_plane_is_cut() -> None:
    assert drawn([box(-7, 30)]) == ["########"] * 6
    assert drawn([[(-9, 2), (3, 2), (3, 99), (-9, 99)]]) == ["........"] * 2 + ["###....."] * 4
    assert drawn([[(20, 1), (30, 1), (30, 4), (20, 4)]]) == ["........"] * 6
    assert drawn([[(1, 20), (4, 20), (4, 30), (1, 30)]]) == ["........"] * 6


def test_nothing_encloses_nothing() -> None:
    assert drawn([]) == drawn([[(1, 1)]]) == drawn([[(1, 1), (5, 4)]]) == ["........"] * 6


def test_decimal_numbers_that_mean_a_pixel_centre_hit_it() -> None:
    nearly = np.array(box(1, 4)) + SNAP_PIXELS * np.array([[0.4, -0.4]])
    assert drawn([nearly]) == drawn([box(1, 4)])


@pytest.mark.parametrize("radius", [0.8, 2.5, 10, 41.7, 200])
def test_the_area_of_a_circle(radius: float) -> None:
    angles = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    circle = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1) + (210.3, 205.9)
    pixels = int(fill([circle], (420, 410)).inside.sum())
    # Gauss's circle problem: the error is below the pixels that the border crosses
    assert abs(pixels - math.pi * radius**2) < 2 * math.sqrt(2) * math.pi * radius**0.67 + 2


points = st.lists(st.tuples(st.integers(-40, 340), st.integers(-40, 340)), min_size=3, max_size=12)


@given(points)
def test_direction_and_start_of_an_outline_do_not_matter(outline: list[tuple[int, int]]) -> None:
    exact = [(i / 16, j / 16) for i, j in outline]  # often on pixel centres
    assert (
        drawn([exact], (20, 20)) == drawn([exact[::-1]], (20, 20)) == drawn([exact[2:] + exact[:2]], (20, 20))
    )


@given(points, st.integers(0, 10))
def test_parts_on_the_two_sides_of_a_cut_share_no_pixel_and_leave_none_out(
    outline: list[tuple[int, int]], at: int
) -> None:
    corners = [(i / 16, j / 16) for i, j in outline]
    first = min(at, len(corners) - 2)
    one, other = (
        corners[first:],
        [*corners[: first + 1], corners[-1]],
    )  # joined by the edge from `first` to the end
    whole = np.array([list(row) for row in drawn([corners], (20, 20))]) == "#"
    parts = [np.array([list(row) for row in drawn([part], (20, 20))]) == "#" for part in (one, other)]
    np.testing.assert_array_equal(parts[0] ^ parts[1], whole)


@given(points)
def test_it_is_matplotlibs_crossing_test_away_from_the_edges(outline: list[tuple[int, int]]) -> None:
    from matplotlib.path import Path

    corners = np.array(outline) / 16 + 1 / 37  # on no pixel centre
    centres = np.stack(np.meshgrid(range(20), range(20), indexing="ij"), axis=-1).reshape(-1, 2)
    closed = np.vstack([corners, corners[:1]])
    expected = Path(np.round(closed / SNAP_PIXELS) * SNAP_PIXELS).contains_points(centres).reshape(20, 20)
    found = np.zeros((20, 20), bool)
    patch = fill([corners], (20, 20))
    found[patch.at] = patch.inside
    np.testing.assert_array_equal(found, expected)


def test_many_crossings_are_counted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    outline = rng.uniform(0, 60, (300, 2))
    at_once = fill([outline], (60, 60))
    monkeypatch.setattr(polygons, "MOST_CROSSINGS", 50)
    in_blocks = fill([outline], (60, 60))
    assert in_blocks.at == at_once.at
    np.testing.assert_array_equal(in_blocks.inside, at_once.inside)


def test_outlines_to_and_fro_across_the_plane_are_refused() -> None:
    j = np.tile([0.5, 511.5], 20_000)  # 40000 edges across 512 rows each
    with pytest.raises(GeometryError, match="40000 edges cross the rows of one slice 20440000 times"):
        fill([np.column_stack([np.linspace(0, 511, len(j)), j])], (512, 512))


def test_many_long_edges_are_no_reason_to_refuse() -> None:
    teeth = np.column_stack([np.repeat(np.arange(500), 2) + 0.5, np.tile([0.5, 2000.5, 2000.5, 0.5], 250)])
    assert fill([teeth], (512, 2048)).inside.sum() == 250 * 2000  # every other column
