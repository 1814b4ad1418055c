import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg import metrics
from oncoseg.metrics import Confusion

TRUTH = np.array([True, True, False, False])


def mask(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


def test_four_voxels_are_counted_by_hand():
    assert metrics.confusion(TRUTH, mask(1, 0, 1, 0)) == Confusion(tp=1, fp=1, fn=1, tn=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dice", 2 * 2 / (2 * 2 + 1)), ("iou", 2 / 3), ("precision", 2 / 3), ("recall", 1.0), ("f1", 0.8)],
)
def test_scores_by_hand(name, expected):
    counts = metrics.confusion(TRUTH, mask(1, 1, 1, 0))
    assert metrics.score(name, counts) == pytest.approx(expected)
    assert metrics.SCORES[name](counts) == pytest.approx(expected)


@pytest.mark.parametrize("name", metrics.SCORES)
def test_both_empty_is_undefined_by_default_and_one_by_choice(name):
    nothing = Confusion(0, 0, 0, 4)
    assert math.isnan(metrics.score(name, nothing))
    assert metrics.score(name, nothing, metrics.BOTH_EMPTY_IS_ONE) == 1
    assert math.isnan(metrics.SCORES[name](nothing))


@pytest.mark.parametrize("name", metrics.SCORES)
@pytest.mark.parametrize(
    "counts", [Confusion(0, 2, 0, 2), Confusion(0, 0, 2, 2)], ids=["truth", "prediction"]
)
@pytest.mark.parametrize("rule", [{}, metrics.BOTH_EMPTY_IS_ONE], ids=["strict", "both-empty-is-one"])
def test_one_empty_mask_scores_zero_whatever_the_rule(name, counts, rule):
    value = metrics.score(name, counts, rule)
    if name == "recall" and counts.truth_empty:
        assert math.isnan(value)  # there is nothing to find
    else:
        assert value == 0


@given(*[st.integers(0, 1000)] * 4)
def test_f1_is_dice_and_the_harmonic_mean(tp, fp, fn, tn):
    counts = Confusion(tp + 1, fp, fn, tn)
    p, r = metrics.precision(counts), metrics.recall(counts)
    assert metrics.f1(counts) == metrics.dice(counts) == pytest.approx(2 * p * r / (p + r))


def test_pooling_adds_voxels():
    assert metrics.pool([Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)]) == Confusion(11, 22, 33, 44)
    assert metrics.pool([]) == Confusion(0, 0, 0, 0)


def test_masks_must_be_bool_and_of_one_shape():
    with pytest.raises(ValueError, match="bool masks of one shape"):
        metrics.confusion(TRUTH, np.array([1, 0, 1, 0]))
    with pytest.raises(ValueError, match="one shape"):
        metrics.confusion(TRUTH, TRUTH[:3])


def histogram(probability, truth) -> np.ndarray:
    return metrics.probability_histogram(np.array(probability, np.float32), np.array(truth, bool))


@pytest.mark.parametrize(
    ("probability", "truth", "area"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0], 0.75),  # of four pairs, only 0.3 < 0.6 is wrong
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], 0.5),  # ties count half
    ],
)
def test_auc_by_hand(probability, truth, area):
    assert metrics.roc_auc(histogram(probability, truth)) == pytest.approx(area)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 3.0]))
def test_auc_and_average_precision_agree_with_sklearn(seed, spread):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(seed)
    truth = rng.random(500) < 0.2
    truth[:2] = True, False
    probability = (1 / (1 + np.exp(-rng.normal(truth * 1.0 - 2, spread)))).astype(np.float32)
    counted = metrics.probability_histogram(probability, truth)
    error = metrics.roc_auc_error(counted)
    assert abs(metrics.roc_auc(counted) - roc_auc_score(truth, probability)) <= error + 1e-12
    assert error < 0.01
    assert metrics.average_precision(counted) == pytest.approx(
        average_precision_score(truth, probability), abs=0.01
    )


def test_histograms_of_parts_add_up():
    rng = np.random.default_rng(0)
    probability, truth = rng.random((2, 50)).astype(np.float32), rng.random((2, 50)) < 0.5
    parts = [metrics.probability_histogram(p, t) for p, t in zip(probability, truth, strict=True)]
    np.testing.assert_array_equal(sum(parts), metrics.probability_histogram(probability, truth))


def test_zero_and_one_fall_into_the_outermost_bins_and_half_begins_one():
    counted = histogram([0.0, 1.0, 0.5, np.nextafter(np.float32(0.5), np.float32(0))], [0, 0, 0, 0])[0]
    half = metrics.PROBABILITY_BINS // 2
    assert np.flatnonzero(counted).tolist() == [0, half - 1, half, metrics.PROBABILITY_BINS - 1]


def test_curve_runs_from_nothing_to_everything():
    curve = metrics.roc_curve(histogram([0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0]))
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.recall.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.precision.tolist() == pytest.approx([1, 1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.threshold[1:] == pytest.approx([0.9, 0.6, 0.3, 0.1], rel=0.01)


def test_without_tumour_there_is_no_curve():
    counted = histogram([0.1, 0.2], [0, 0])
    assert math.isnan(metrics.roc_auc(counted))
    assert math.isnan(metrics.roc_auc_error(counted))
    assert math.isnan(metrics.average_precision(counted))
    with pytest.raises(ValueError, match="both tumour and background"):
        metrics.roc_curve(counted)
