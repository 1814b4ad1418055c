import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoseg.metrics.calibration import (
    CALIBRATION_BINS,
    CalibrationSums,
    brier,
    calibration_sums,
    expected_calibration_error,
    maximum_calibration_error,
    pool_calibration,
    reliability,
)

PROBABILITY = np.array([0.1, 0.3, 0.3, 0.9, 0.7])
TRUTH = np.array([False, False, True, True, True])
"""In two bins: 0.1, 0.3, 0.3 with one tumour voxel, and 0.9, 0.7 with two."""

VOXELS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30)
"""Probabilities with their truth."""


def arrays(voxels) -> tuple[np.ndarray, np.ndarray]:
    probability, truth = zip(*voxels, strict=True)
    return np.array(probability), np.array(truth, bool)


def assert_same(sums: CalibrationSums, other: CalibrationSums) -> None:
    for mine, theirs in zip(sums, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_sums_of_five_voxels_by_hand():
    sums = calibration_sums(PROBABILITY, TRUTH, bins=2)
    assert sums.voxels.tolist() == [3, 2]
    assert sums.positives.tolist() == [1, 2]
    assert sums.probability.tolist() == pytest.approx([0.7, 1.6])
    assert sums.squared_error == pytest.approx(0.01 + 0.09 + 0.49 + 0.01 + 0.09)


def test_scores_of_five_voxels_by_hand():
    sums = calibration_sums(PROBABILITY, TRUTH, bins=2)
    assert brier(sums) == pytest.approx(0.69 / 5)
    assert expected_calibration_error(sums) == pytest.approx((abs(0.7 - 1) + abs(1.6 - 2)) / 5)
    assert maximum_calibration_error(sums) == pytest.approx(1 - 0.8)


def test_reliability_of_five_voxels_by_hand():
    curve = reliability(calibration_sums(PROBABILITY, TRUTH, bins=2))
    assert curve.mean_probability.tolist() == pytest.approx([0.7 / 3, 0.8])
    assert curve.observed_share.tolist() == pytest.approx([1 / 3, 1])
    assert curve.voxels.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("probability", "bin_of_four"),
    [(0.0, 0), (-0.0, 0), (0.25, 0), (0.250001, 1), (0.5, 1), (0.75, 2), (0.76, 3), (1.0, 3)],
)
def test_an_edge_belongs_to_the_bin_below_it(probability, bin_of_four):
    sums = calibration_sums(np.array([probability]), np.array([True]), bins=4)
    assert np.flatnonzero(sums.voxels).tolist() == np.flatnonzero(sums.positives).tolist() == [bin_of_four]


def test_a_perfectly_calibrated_answer_has_no_gap_but_a_brier_score():
    sums = calibration_sums(np.full(4, 0.25), np.array([True, False, False, False]))
    assert expected_calibration_error(sums) == maximum_calibration_error(sums) == 0
    assert brier(sums) == 0.25 * 0.75


def test_confidently_wrong_is_the_worst_of_all():
    sums = calibration_sums(np.array([0.0, 1.0]), np.array([True, False]))
    assert brier(sums) == expected_calibration_error(sums) == maximum_calibration_error(sums) == 1


def test_background_dilutes_all_but_the_maximum():
    tumour = calibration_sums(np.array([0.2]), np.array([True]))
    volume = pool_calibration([tumour, calibration_sums(np.zeros(99), np.zeros(99, bool))])
    assert brier(volume) == pytest.approx(brier(tumour) / 100)
    assert expected_calibration_error(volume) == pytest.approx(0.008)
    assert maximum_calibration_error(volume) == maximum_calibration_error(tumour) == 0.8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [1, 6])
def test_brier_and_curve_agree_with_sklearn(dtype, decimals):
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(0)
    truth = rng.random(2000) < 0.3
    probability = np.round(rng.beta(1, 3, 2000), decimals).astype(dtype)  # one decimal: all on edges
    sums = calibration_sums(probability, truth, bins=10)
    share, mean = calibration_curve(truth, probability, n_bins=10)  # without empty bins
    curve = reliability(sums)
    occupied = curve.voxels > 0
    np.testing.assert_allclose(curve.observed_share[occupied], share, rtol=1e-12)
    np.testing.assert_allclose(curve.mean_probability[occupied], mean, rtol=1e-6)  # its sum is float32
    assert brier(sums) == pytest.approx(brier_score_loss(truth, probability.astype(float)), abs=1e-12)


@given(VOXELS, st.integers(1, 20))
def test_the_errors_are_weighted_from_the_curve(voxels, bins):
    sums = calibration_sums(*arrays(voxels), bins=bins)
    curve = reliability(sums)
    gap = np.abs(curve.mean_probability - curve.observed_share)
    expected = np.nansum(gap * curve.voxels) / len(voxels)
    assert expected_calibration_error(sums) == pytest.approx(expected, abs=1e-12)
    assert expected_calibration_error(sums) <= maximum_calibration_error(sums) + 1e-12 <= 1 + 2e-12
    assert expected_calibration_error(sums) ** 2 <= brier(sums) + 1e-12  # Jensen's inequality


@given(VOXELS, st.integers(0, 30))
def test_sums_of_parts_add_up(voxels, cut):
    probability, truth = arrays(voxels)
    parts = [calibration_sums(probability[part], truth[part]) for part in (slice(cut), slice(cut, None))]
    assert_same(pool_calibration(parts), calibration_sums(probability, truth))


def test_chunks_are_of_no_influence(monkeypatch):
    whole = calibration_sums(PROBABILITY, TRUTH)
    monkeypatch.setattr("oncoseg.metrics.calibration.CHUNK_VOXELS", 2)
    assert_same(calibration_sums(PROBABILITY, TRUTH), whole)


def test_volumes_of_any_layout_give_the_same():
    rng = np.random.default_rng(0)
    probability, truth = rng.random((3, 4, 5), np.float32), rng.random((3, 4, 5)) < 0.5
    expected = calibration_sums(probability.ravel(), truth.ravel())
    assert_same(calibration_sums(np.asfortranarray(probability), truth), expected)


def test_without_voxels_nothing_is_defined():
    sums = calibration_sums(np.zeros(0), np.zeros(0, bool))
    assert sums.voxels.tolist() == [0] * CALIBRATION_BINS
    assert all(
        math.isnan(score(sums)) for score in (brier, expected_calibration_error, maximum_calibration_error)
    )
    assert np.isnan(reliability(sums).mean_probability).all()
    assert np.isnan(reliability(sums).observed_share).all()


def test_without_tumour_everything_is_defined():
    sums = calibration_sums(np.array([0.1, 0.2]), np.array([False, False]), bins=1)
    assert brier(sums) == pytest.approx((0.01 + 0.04) / 2)
    assert expected_calibration_error(sums) == pytest.approx(0.15)


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\], got"):
        calibration_sums(np.array([0.5, wrong]), np.array([True, False]))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        calibration_sums(PROBABILITY, TRUTH, bins=0)
    with pytest.raises(ValueError, match="bool mask of one shape"):
        calibration_sums(PROBABILITY, TRUTH[:2])
    with pytest.raises(ValueError, match=r"one number of bins, got numbers of bins \[2, 3\]"):
        pool_calibration([calibration_sums(PROBABILITY, TRUTH, bins) for bins in (2, 3)])
    with pytest.raises(ValueError, match=r"got numbers of bins \[\]"):
        pool_calibration([])
