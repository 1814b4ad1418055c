import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist, directed_hausdorff

from oncoseg.metrics import surface
from oncoseg.metrics.nearest import near_places
from oncoseg.metrics.surface import SURFACE_METRICS, SurfaceDistances, surface_dice, surface_distances
from oncoseg.metrics.surface_elements import element_areas

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 1.0), (0.7, 1.3, 2.9), (0.5, 0.5, 6.0), (4.0, 0.6)]


def marked(shape: tuple[int, ...], *boxes: tuple[slice | int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    return mask


def every_metric(distances: SurfaceDistances) -> dict[str, float]:
    return {name: metric(distances) for name, metric in SURFACE_METRICS.items()}


def random_pair(seed: int, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks from nearly empty, where distances are long, to nearly full, where they are short."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 13, axes))
    truth, prediction = rng.random((2, *shape)) < 10 ** rng.uniform(-2.5, 0, (2,) + (1,) * axes)
    truth.flat[rng.integers(truth.size)] = prediction.flat[rng.integers(truth.size)] = True
    return truth, prediction


def balls(radii_mm: tuple[float, float], spacing: tuple[float, float, float]) -> list[np.ndarray]:
    axes = np.ix_(*[(np.arange(round(44 / mm)) - round(22 / mm)) * mm for mm in spacing])
    return [sum(axis**2 for axis in axes) <= radius**2 for radius in radii_mm]


seeds = st.integers(0, 10**6)
spacings = st.sampled_from(SPACINGS)


def test_two_voxels_two_millimetres_apart():
    truth, prediction = marked((3, 3, 4), (1, 1, 1)), marked((3, 3, 4), (1, 1, 2))
    distances = surface_distances(truth, prediction, (1, 1, 2))
    assert set(every_metric(distances).values()) == {2}
    # They share the four corners of one face; the other four are 2 mm away.
    assert sorted(distances.elements_truth_to_prediction_mm) == [0, 0, 0, 0, 2, 2, 2, 2]
    assert surface_dice(distances, 1.9) == pytest.approx(0.5)
    assert surface_dice(distances, 2) == 1


def test_cube_shifted_by_half_its_length():
    cube = marked((8, 6, 6), (slice(1, 5), slice(1, 5), slice(1, 5)))
    distances = surface_distances(cube, np.roll(cube, 2, axis=0), (1.5, 1.5, 1.5))
    # Of the 56 boundary voxels, 16 are 2 voxels away, the ring of 12 behind them 1, and so are the 4 amid
    # the far side, which now lie within the other cube.
    mean_mm = (16 * 2 + 12 * 1 + 4 * 1) / 56 * 1.5
    assert every_metric(distances) == pytest.approx(
        {
            "hausdorff": 3,
            "hd95_pooled": 3,
            "hd95_max": 3,
            "hd95_area": 3,
            "average_surface_distance": mean_mm,
            "mean_distance_truth_to_prediction": mean_mm,
            "mean_distance_prediction_to_truth": mean_mm,
        }
    )


def test_three_false_pixels_far_away_make_the_three_hd95_differ():
    truth = marked((20, 40), (2, slice(2, 34)))
    prediction = truth | marked((20, 40), (12, slice(2, 5)))
    values = every_metric(surface_distances(truth, prediction, (1, 1)))
    # Of all 67 distances only 3 are 10 mm: position 0.95·66 = 62.7 is among the zeros.
    assert values["hd95_pooled"] == 0
    # Of the prediction's 35 distances, position 0.95·34 = 32.3 is among the tens.
    assert values["hd95_max"] == 10
    # The prediction's outline is 62 + 2√2 and 4 + 2√2 long, of which 2 + √2 each are 9 and 10 mm away:
    # 68.2 of 71.7 lie within 9 mm, which is 95.2 %.
    assert values["hd95_area"] == 9


def test_a_row_that_is_ten_pixels_too_long_makes_the_three_hd95_differ():
    truth, prediction = marked((5, 20), (2, 2)), marked((5, 20), (2, slice(2, 13)))
    values = every_metric(surface_distances(truth, prediction, (1, 1)))
    # Distances 0 of the truth and 0 … 10 of the prediction.
    assert values["hd95_pooled"] == pytest.approx(9.45)  # position 0.95·11 = 10.45 of 0, 0, 1, … 10
    assert values["hd95_max"] == pytest.approx(9.5)  # position 0.95·10 = 9.5 of 0 … 10
    # Within 9 mm lie √2 + 20 of the outline's 2√2 + 20, which is 93.8 %; the end is 10 mm away.
    assert values["hd95_area"] == 10
    assert values["average_surface_distance"] == pytest.approx(55 / 12)
    assert values["mean_distance_prediction_to_truth"] == 5
    assert values["mean_distance_truth_to_prediction"] == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_single_voxel_is_no_distance_from_itself(spacing):
    voxel = marked((1,) * len(spacing), (0,) * len(spacing))
    distances = surface_distances(voxel, voxel, spacing)
    assert set(every_metric(distances).values()) == {0}
    assert surface_dice(distances, 0) == 1
    assert len(distances.voxels_truth_to_prediction_mm) == 1
    assert len(distances.truth_areas) == 2 ** len(spacing)


@pytest.mark.parametrize("spacing", SPACINGS[:4])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (5, 1, 2)])
def test_a_box_has_the_area_of_its_faces_with_bevelled_edges(size, spacing):
    box = marked(tuple(n + 2 for n in size), tuple(slice(1, n + 1) for n in size))
    areas = surface_distances(box, box, spacing).truth_areas
    a, b, c = [(n - 1) * mm for n, mm in zip(size, spacing, strict=True)]
    x, y, z = [mm / 2 for mm in spacing]
    faces = 2 * (a * b + b * c + a * c)
    edges = 4 * (a * math.hypot(y, z) + b * math.hypot(x, z) + c * math.hypot(x, y))
    corners = 8 * math.hypot(x * y, y * z, x * z) / 2
    assert areas.sum() == pytest.approx(faces + edges + corners)


def test_a_rectangle_has_the_length_of_its_sides_with_bevelled_corners():
    rectangle = marked((5, 6), (slice(1, 4), slice(1, 5)))
    lengths = surface_distances(rectangle, rectangle, (2, 3)).truth_areas
    assert lengths.sum() == pytest.approx(2 * (2 * 2 + 3 * 3) + 4 * math.hypot(1, 1.5))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 1.0)])
def test_a_ball_has_the_area_of_a_sphere_and_the_steps_between_voxels(spacing):
    large, small = balls((20, 16), spacing)
    distances = surface_distances(large, small, spacing)
    assert 1.08 < distances.truth_areas.sum() / (4 * math.pi * 20**2) < 1.10
    assert every_metric(distances) == pytest.approx(dict.fromkeys(SURFACE_METRICS, 4.0), abs=0.45)
    assert surface_dice(distances, 2) == 0
    assert surface_dice(distances, 5) == 1


def test_areas_of_single_configurations():
    areas = element_areas(((2, 0, 0), (0, 3, 0), (0, 0, 5)))
    assert areas[0] == areas[255] == 0
    assert areas[0b00001111] == pytest.approx(3 * 5)  # one layer along the first axis
    assert areas[0b00110011] == pytest.approx(2 * 5)
    assert areas[0b01010101] == pytest.approx(2 * 3)
    assert areas[0b00000011] == pytest.approx(math.hypot(1, 1.5) * 5)  # a bevelled edge
    assert areas[0b10000001] == pytest.approx(2 * areas[1])  # opposite corners are cut off alone
    # Two diagonal ones of four are cut off alone, too, and so are two that are missing.
    assert areas[0b00001001] == areas[0b11110110] == pytest.approx(2 * areas[1])
    lengths = element_areas(((2, 0), (0, 3)))
    assert lengths[0b0011] == pytest.approx(3)
    assert lengths[0b0101] == pytest.approx(2)
    assert lengths[0b1001] == lengths[0b0110] == pytest.approx(2 * lengths[1])


def test_beyond_the_image_is_outside():
    inside = marked((6, 6, 6), (slice(1, 5),) * 3), marked((6, 6, 6), (slice(1, 3),) * 3)
    at_border = [mask[1:5, 1:5, 1:5] for mask in inside]
    for expected, found in zip(
        surface_distances(*inside, (1, 2, 3)), surface_distances(*at_border, (1, 2, 3)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=40)
@given(seeds, spacings)
def test_distances_agree_with_scipy_s_erosion_and_distance_transform(seed, spacing):
    masks = random_pair(seed, len(spacing))
    found = surface_distances(*masks, spacing)
    borders = [np.pad(mask & ~binary_erosion(mask), 1) for mask in masks]
    corners = []
    for mask in masks:
        padded = np.pad(mask, 1).astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2,) * mask.ndim)
        inside = windows.reshape(*windows.shape[: mask.ndim], -1).sum(axis=-1)
        corners.append((inside > 0) & (inside < 2**mask.ndim))
    expected = []
    for first, second in (borders, corners):
        for one, other in ((first, second), (second, first)):
            expected.append(distance_transform_edt(~other, sampling=spacing)[one])
    for values, right in zip(found[:4], expected, strict=True):
        np.testing.assert_allclose(np.sort(values), np.sort(right), rtol=1e-12)


@settings(max_examples=30)
@given(seeds, spacings)
def test_hausdorff_agrees_with_scipy_s(seed, spacing):
    masks = random_pair(seed, len(spacing))
    one, other = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in masks]
    expected = max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0])
    assert surface.hausdorff(surface_distances(*masks, spacing)) == pytest.approx(expected)


@settings(max_examples=30)
@given(seeds, spacings)
def test_truth_and_prediction_can_be_exchanged(seed, spacing):
    truth, prediction = random_pair(seed, len(spacing))
    there = every_metric(surface_distances(truth, prediction, spacing))
    back = every_metric(surface_distances(prediction, truth, spacing))
    directed = [name for name in there if name.startswith("mean_distance")]
    assert [back.pop(name) for name in reversed(directed)] == [there.pop(name) for name in directed]
    assert back == pytest.approx(there)


@settings(max_examples=30)
@given(seeds, st.sampled_from(SPACINGS[:4]), st.permutations(range(3)), st.integers(0, 7))
def test_the_order_and_direction_of_axes_do_not_matter(seed, spacing, order, flips):
    masks = random_pair(seed, 3)
    turned = [
        mask.transpose(order)[tuple(slice(None, None, -1 if flips >> axis & 1 else 1) for axis in range(3))]
        for mask in masks
    ]
    expected = surface_distances(*masks, spacing)
    found = surface_distances(*turned, [spacing[axis] for axis in order])
    assert every_metric(found) == pytest.approx(every_metric(expected))
    assert surface_dice(found, 1.0) == pytest.approx(surface_dice(expected, 1.0))


def test_thin_slabs_find_the_same_surface(monkeypatch):
    masks = balls((8, 6), (1.0, 2.0, 1.5))
    whole = surface_distances(*masks, (1.0, 2.0, 1.5))
    monkeypatch.setattr(surface, "SLAB_VOXELS", 1)
    for expected, found in zip(whole, surface_distances(*masks, (1.0, 2.0, 1.5)), strict=True):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=3))
def test_no_place_is_left_out_among_the_near_ones(spacing):
    places = near_places(tuple(map(tuple, np.diag(spacing).tolist())))
    assert (np.diff(places.distances_mm) >= 0).all()
    listed = {tuple(offset) for offset in places.offsets.tolist()}
    assert len(listed) == len(places.offsets) > 1
    for offset in product(range(-4, 5), repeat=len(spacing)):
        if offset not in listed:
            assert math.hypot(*np.multiply(offset, spacing)) >= places.distances_mm[-1]


TILTED = np.array([[0.8, 0, 0], [0, 0.5, 1.2], [0, 0, 3]])
"""Slices 3 mm apart, each 1.2 mm further along j than the one before."""


def test_no_near_place_is_left_out_where_slices_are_shifted():
    places = near_places(tuple(map(tuple, TILTED.tolist())))
    listed = {tuple(offset) for offset in places.offsets.tolist()}
    for offset in product(range(-9, 10), repeat=3):
        if offset not in listed:
            assert np.linalg.norm(TILTED @ offset) >= places.distances_mm[-1] * (1 - 1e-12)
    np.testing.assert_allclose(places.distances_mm, np.linalg.norm(places.offsets @ TILTED.T, axis=1))


def test_areas_follow_shifted_slices():
    areas = element_areas(tuple(map(tuple, TILTED.tolist())))
    assert areas[0b01010101] == pytest.approx(0.8 * 0.5)  # within a slice
    assert areas[0b00110011] == pytest.approx(0.8 * math.hypot(1.2, 3))  # across slices, leaning
    assert areas[0b00001111] == pytest.approx(0.5 * 3)  # of a leaning square, seen from the side


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_distances_between_shifted_slices_are_those_of_the_voxels_centres(order):
    masks = [np.random.default_rng(seed).random((9, 7, 8)) < 0.02 for seed in (1, 2)]
    spacing, axes = np.array((0.8, 0.5, 3))[list(order)], TILTED[:, order]
    # single voxels, which are their own boundary
    centres = [np.argwhere(mask.transpose(order)) @ axes.T for mask in masks]
    found = surface_distances(*(mask.transpose(order) for mask in masks), spacing, axes)
    each = cdist(*centres)
    np.testing.assert_allclose(
        np.sort(found.voxels_truth_to_prediction_mm), np.sort(each.min(axis=1)), atol=1e-12
    )
    np.testing.assert_allclose(
        np.sort(found.voxels_prediction_to_truth_mm), np.sort(each.min(axis=0)), atol=1e-12
    )


def test_axes_that_are_perpendicular_change_nothing():
    masks = marked((9, 9, 9), (slice(1, 5),) * 3), marked((9, 9, 9), (slice(2, 8),) * 3)
    for there, here in zip(
        surface_distances(*masks, (1, 2, 3)),
        surface_distances(*masks, (1, 2, 3), np.diag((1, 2, 3))),
        strict=True,
    ):
        np.testing.assert_allclose(here, there)
    with pytest.raises(ValueError, match="3 independent axes"):
        surface_distances(*masks, (1, 2, 3), np.ones((3, 3)))


def test_rounding_does_not_decide_what_is_within():
    row = marked((3, 9), (1, 1)), marked((3, 9), (1, 4))
    assert surface_dice(surface_distances(*row, (1.1, 1.1)), 3.3) == 1  # though 3 · 1.1 > 3.3
    ascending, alike = np.arange(60.0), np.full(60, 0.7)
    distances = SurfaceDistances(ascending, ascending, ascending, ascending, alike, alike)
    assert surface.hd95_area(distances) == 56  # the 57th of 60 equal areas is the 95th percentile


def test_percentiles_of_zero_and_a_hundred_are_the_extremes():
    truth, prediction = marked((1, 9), (0, 0)), marked((1, 9), (0, slice(2, 5)))
    distances = surface_distances(truth, prediction, (1, 1))
    for percentile_of in (surface.hd_pooled, surface.hd_max, surface.hd_area):
        assert percentile_of(distances, 100) == surface.hausdorff(distances) == 4
    assert surface.hd_pooled(distances, 0) == surface.hd_max(distances, 0) == 2
    assert surface.hd_area(distances, 0) == 1  # between facing sides, not centres


def test_what_cannot_be_measured_is_refused():
    cube = marked((3, 3, 3), (1, 1, 1))
    with pytest.raises(ValueError, match="empty truth"):
        surface_distances(np.zeros_like(cube), cube, (1, 1, 1))
    with pytest.raises(ValueError, match="empty prediction"):
        surface_distances(cube, np.zeros_like(cube), (1, 1, 1))
    with pytest.raises(ValueError, match="bool masks of one shape"):
        surface_distances(cube, cube.astype(int), (1, 1, 1))
    with pytest.raises(ValueError, match="one shape"):
        surface_distances(cube, cube[:2], (1, 1, 1))
    with pytest.raises(ValueError, match="2 or 3 axes"):
        surface_distances(cube[0, 0], cube[0, 0], (1,))
    for spacing in [(1, 1), (1, 1, 0), (1, 1, math.nan), (1, 1, math.inf)]:
        with pytest.raises(ValueError, match="3 positive spacings"):
            surface_distances(cube, cube, spacing)
    distances = surface_distances(cube, cube, (1, 1, 1))
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            surface_dice(distances, tolerance)
    for percentile_of in (surface.hd_pooled, surface.hd_max, surface.hd_area):
        with pytest.raises(ValueError, match=r"(?i)percentile"):
            percentile_of(distances, 101)


@pytest.mark.filterwarnings("ignore:monai")  # it deprecates an argument that it passes itself
@pytest.mark.parametrize("spacing", SPACINGS)
def test_monai_agrees_where_definitions_coincide(spacing):
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    for seed in range(3):
        truth, prediction = random_pair(seed, len(spacing))
        distances = surface_distances(truth, prediction, spacing)
        pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (prediction, truth)]
        shared = {"include_background": True, "spacing": spacing}
        theirs = {
            "hausdorff": monai.compute_hausdorff_distance(*pair, **shared),
            "hd95_max": monai.compute_hausdorff_distance(*pair, percentile=95, **shared),
            "average_surface_distance": monai.compute_average_surface_distance(
                *pair, symmetric=True, **shared
            ),
            "mean_distance_prediction_to_truth": monai.compute_average_surface_distance(*pair, **shared),
        }
        for name, value in theirs.items():
            assert SURFACE_METRICS[name](distances) == pytest.approx(float(value), rel=1e-5), name
        theirs_dice = monai.compute_surface_dice(*pair, [1.05], use_subvoxels=True, **shared)
        assert surface_dice(distances, 1.05) == pytest.approx(float(theirs_dice), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Please import")  # of names that SciPy will drop
@pytest.mark.parametrize("spacing", SPACINGS)
def test_deepmind_s_surface_distance_agrees(spacing):
    deepmind = pytest.importorskip("surface_distance")
    for seed in range(20):
        truth, prediction = random_pair(seed, len(spacing))
        distances = surface_distances(truth, prediction, spacing)
        theirs = deepmind.compute_surface_distances(truth, prediction, spacing)
        assert distances.truth_areas.sum() == pytest.approx(theirs["surfel_areas_gt"].sum())
        assert distances.prediction_areas.sum() == pytest.approx(theirs["surfel_areas_pred"].sum())
        for percentile in (49.9, 94.9, 95.1, 100):  # their rounding decides 95 % of 20 equal ones
            assert surface.hd_area(distances, percentile) == pytest.approx(
                deepmind.compute_robust_hausdorff(theirs, percentile)
            )
        for tolerance in (0, 1.05, 3.05):
            assert surface_dice(distances, tolerance) == pytest.approx(
                deepmind.compute_surface_dice_at_tolerance(theirs, tolerance)
            )
