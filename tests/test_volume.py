"""Geometry: reorienting and coming back, and which grids count as one."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg.errors import GeometryError
from oncoseg.volume import (
    AFFINE_TOLERANCE_MM,
    Volume,
    check_same_grid,
    from_canonical,
    stack_channels,
    to_canonical,
)

ORIENTATIONS = [
    np.eye(3)[list(order)] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
"""The 48 ways to lay three array axes along the patient's axes."""

CORNER_TOLERANCE_MM = 1e-9
"""Rounding of a few products of float64."""


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Turns about x, y and z, in this order."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


def oblique_affine(orientation: int, degrees: tuple, spacing_mm: tuple, origin_mm: tuple) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ ORIENTATIONS[orientation] @ np.diag(spacing_mm)
    affine[:3, 3] = origin_mm
    return affine


affines = st.builds(
    oblique_affine,
    st.integers(0, 47),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
)
grids = st.tuples(*[st.integers(1, 5)] * 3)


def numbered(channels: int, grid: tuple[int, int, int]) -> np.ndarray:
    """Every voxel has a number of its own."""
    return np.arange(channels * np.prod(grid), dtype=np.int32).reshape(channels, *grid)


@pytest.mark.parametrize("orientation", range(48))
def test_every_axis_orientation_comes_back(orientation: int) -> None:
    affine = oblique_affine(orientation, (0, 0, 0), (1, 2, 3), (10, 20, 30))
    volume = Volume(numbered(2, (2, 3, 4)), affine)
    canonical, way_back = to_canonical(volume)
    assert (np.diag(canonical.affine_ras)[:3] > 0).all()
    assert np.count_nonzero(canonical.affine_ras[:3, :3]) == 3
    np.testing.assert_array_equal(from_canonical(canonical.array, way_back), volume.array)


@given(affine=affines, grid=grids)
@settings(max_examples=60, deadline=None)
def test_oblique_anisotropic_grids_come_back(affine: np.ndarray, grid: tuple[int, int, int]) -> None:
    volume = Volume(numbered(1, grid), affine)
    canonical, way_back = to_canonical(volume)
    np.testing.assert_array_equal(from_canonical(canonical.array, way_back), volume.array)


@given(affine=affines, grid=grids)
@settings(max_examples=60, deadline=None)
def test_no_voxel_moves_in_the_patient(affine: np.ndarray, grid: tuple[int, int, int]) -> None:
    volume = Volume(numbered(1, grid), affine)
    canonical, _ = to_canonical(volume)
    for number in (0, volume.array.size - 1):
        before = [np.argwhere(one.array[0] == number)[0] for one in (volume, canonical)]
        places = [one.affine_ras @ [*at, 1] for one, at in zip((volume, canonical), before, strict=True)]
        np.testing.assert_allclose(places[0], places[1], atol=CORNER_TOLERANCE_MM)


def test_spacing_follows_the_array_axes() -> None:
    # i runs along z with 3 mm, j along x with 1 mm, k against y with 2 mm
    affine = np.array([[0, 1, 0, 0], [0, 0, -2, 0], [3, 0, 0, 0], [0, 0, 0, 1]], float)
    volume = Volume(np.zeros((1, 2, 3, 4)), affine)
    assert volume.spacing_mm == (3, 1, 2)
    canonical, _ = to_canonical(volume)
    assert canonical.grid == (3, 4, 2)
    assert canonical.spacing_mm == (1, 2, 3)


def test_slices_shifted_by_a_tilt_are_as_far_apart_as_their_planes() -> None:
    affine = np.array([[-0.5, 0, 0, 7], [0, -0.8, 1.5, 8], [0, 0, 2, 9], [0, 0, 0, 1]])
    volume = Volume(np.zeros((1, 2, 3, 4)), affine)
    # by the way from a voxel to the next it would be 2.5 mm, and a voxel's volume a quarter too large
    assert volume.spacing_mm == pytest.approx((0.5, 0.8, 2.0))
    turned, _ = to_canonical(replace(volume, affine_ras=affine[[2, 0, 1, 3]]))
    assert np.prod(turned.spacing_mm) == pytest.approx(0.5 * 0.8 * 2.0)


def test_grids_are_compared_at_the_far_corner() -> None:
    grid = np.zeros((1, 101, 2, 2))
    stretched = np.eye(4)
    stretched[0, 0] += 0.9 * AFFINE_TOLERANCE_MM / 100  # 100 voxels from the first to the last
    check_same_grid({"T1": Volume(grid, np.eye(4)), "T2": Volume(grid, stretched)})
    stretched[0, 0] += 0.2 * AFFINE_TOLERANCE_MM / 100
    with pytest.raises(GeometryError, match="T1 and T2 must lie on one grid"):
        check_same_grid({"T1": Volume(grid, np.eye(4)), "T2": Volume(grid, stretched)})


def test_channels_of_other_shapes_do_not_stack() -> None:
    with pytest.raises(GeometryError, match="2×2×2"):
        stack_channels(
            {"T1": Volume(np.zeros((1, 2, 2, 2)), np.eye(4)), "T2": Volume(np.zeros((1, 2, 2, 3)), np.eye(4))}
        )


def test_channels_stack_in_order() -> None:
    volumes = {name: Volume(np.full((1, 2, 2, 2), n), np.eye(4)) for n, name in enumerate(("T2", "T1"))}
    np.testing.assert_array_equal(stack_channels(volumes).array[:, 0, 0, 0], [0, 1])


@pytest.mark.parametrize(
    ("array", "affine", "reason"),
    [
        (np.zeros((2, 2, 2)), np.eye(4), "c i j k"),
        (np.zeros((1, 2, 2, 2)), np.eye(3), "4×4"),
        (np.zeros((1, 2, 2, 2)), np.diag([1, 1, np.nan, 1]), "finite"),
        (np.zeros((1, 2, 2, 2)), np.diag([1.0, 1, 0, 1]), "singular"),
    ],
)
def test_impossible_volumes_are_refused(array: np.ndarray, affine: np.ndarray, reason: str) -> None:
    with pytest.raises(GeometryError, match=reason):
        Volume(array, affine)
