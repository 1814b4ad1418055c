import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg.metrics.histogram import probability_histogram, roc_auc, roc_auc_error
from oncoseg.metrics.ranking import (
    MOST_VOXELS,
    Ranking,
    average_precision_exact,
    paired_chunks,
    ranking,
    roc_auc_exact,
)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def mask(*values: int) -> np.ndarray:
    return np.array(values, bool)


def steps_above(start: float, steps: int) -> float:
    """The float32 that lies some floats above another."""
    return float((np.float32(start).view(np.int32) + np.int32(steps)).view(np.float32))


NEIGHBOURS = st.builds(steps_above, st.sampled_from([0.0, 1e-6, 0.5]), st.integers(0, 3))
"""Heavy ties, and distinct values too close for any cell to part them."""

VOXELS = st.lists(
    st.tuples(NEIGHBOURS | st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=40
).filter(lambda voxels: len({tumour for _, tumour in voxels}) == 2)
"""Probabilities with their truth, both classes being there."""


def arrays(voxels) -> tuple[np.ndarray, np.ndarray]:
    probability, truth = zip(*voxels, strict=True)
    return f32(*probability), mask(*truth)


@pytest.mark.parametrize(
    ("truth", "area", "precision"),
    [
        (mask(1, 1, 0, 0), 1.0, 1.0),
        (mask(0, 0, 1, 1), 0.0, 1 / 2 * 1 / 3 + 1 / 2 * 2 / 4),
        (mask(1, 0, 1, 0), 0.75, 1 / 2 * 1 + 1 / 2 * 2 / 3),  # of four pairs, only 0.3 < 0.6 is wrong
    ],
)
def test_areas_of_four_voxels_by_hand(truth, area, precision):
    assert ranking(f32(0.9, 0.6, 0.3, 0.1), truth) == pytest.approx((area, precision), abs=1e-15)


def test_ties_count_half_and_are_one_step():
    probability, truth = f32(0.9, 0.5, 0.5, 0.1), mask(1, 1, 0, 0)
    assert roc_auc_exact(probability, truth) == 3.5 / 4
    assert average_precision_exact(probability, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_a_constant_probability_is_chance():
    assert ranking(np.full(8, 0.3, np.float32), mask(1, 0, 0, 0, 1, 0, 0, 0)) == (0.5, 0.25)


@given(VOXELS)
def test_auc_is_the_count_of_all_pairs(voxels):
    probability, truth = arrays(voxels)
    tumour, background = probability[truth], probability[~truth]
    won = (tumour[:, None] > background).sum() * 2 + (tumour[:, None] == background).sum()
    pairs = 2 * len(tumour) * len(background)
    assert roc_auc_exact(probability, truth) == float(Fraction(int(won), pairs))


@given(VOXELS)
def test_average_precision_is_the_sum_over_thresholds(voxels):
    probability, truth = arrays(voxels)
    recalls, terms = [Fraction(0)], []
    for threshold in np.unique(probability)[::-1]:
        called = probability >= threshold
        hits = int((called & truth).sum())
        recalls.append(Fraction(hits, int(truth.sum())))
        terms.append((recalls[-1] - recalls[-2]) * Fraction(hits, int(called.sum())))
    assert average_precision_exact(probability, truth) == pytest.approx(float(sum(terms)), abs=1e-14)


@pytest.mark.parametrize("decimals", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_both_agree_with_sklearn(decimals, dtype):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(decimals)
    truth = rng.random(3000) < 0.1
    logit = rng.normal(truth * 2.0 - 2, 2)
    probability = np.round(1 / (1 + np.exp(-logit)), decimals).astype(dtype)
    expected = roc_auc_score(truth, probability), average_precision_score(truth, probability)
    assert ranking(probability, truth) == pytest.approx(expected, abs=1e-12)


@given(VOXELS, st.integers(1, 50))
def test_chunks_are_of_no_influence(voxels, chunk_voxels):
    probability, truth = arrays(voxels)
    assert ranking(probability, truth, chunk_voxels) == ranking(probability, truth)


@settings(max_examples=20)
@given(VOXELS)
def test_the_binned_area_lies_within_its_error(voxels):
    probability, truth = arrays(voxels)
    binned = probability_histogram(probability, truth)
    assert abs(roc_auc(binned) - roc_auc_exact(probability, truth)) <= roc_auc_error(binned) + 1e-12


def test_memory_maps_and_any_layout_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    probability, truth = rng.random((5, 6, 7), np.float32), rng.random((5, 6, 7)) < 0.3
    np.save(tmp_path / "probability.npy", probability)
    mapped = np.load(tmp_path / "probability.npy", mmap_mode="r")
    expected = ranking(probability.ravel(), truth.ravel())
    assert ranking(mapped, truth, 11) == expected
    assert ranking(probability.T, truth.T, 11) == expected
    assert ranking(np.asfortranarray(probability), truth, 11) == expected


def test_float64_is_compared_in_full():
    probability = np.array([0.5 + 1e-12, 0.5])  # one float32
    assert roc_auc_exact(probability, mask(1, 0)) == 1
    assert roc_auc_exact(probability, mask(0, 1)) == 0


def test_minus_zero_ties_with_zero():
    assert roc_auc_exact(f32(0.0, -0.0), mask(1, 0)) == 0.5
    assert roc_auc_exact(f32(0.0, -0.0), mask(0, 1)) == 0.5


@pytest.mark.parametrize("truth", [mask(0, 0), mask(1, 1), mask()], ids=["background", "tumour", "nothing"])
def test_one_class_alone_has_no_ranking(truth):
    areas = ranking(np.full(len(truth), 0.5, np.float32), truth)
    assert math.isnan(areas.auc)
    assert math.isnan(areas.average_precision)


def test_a_perfect_ranking_says_so_by_name():
    assert ranking(f32(1, 0), mask(1, 0)) == Ranking(auc=1.0, average_precision=1.0)


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.5, math.inf])
@pytest.mark.parametrize("truth", [mask(0, 0, 1), mask(1, 1, 0), mask(0, 0, 0)])
def test_what_is_no_probability_is_refused_wherever_it_lies(wrong, truth):
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\], got"):
        ranking(f32(wrong, 0.2, 0.4), truth)


def test_truth_must_be_bool_and_of_the_same_shape():
    with pytest.raises(ValueError, match="bool mask of one shape"):
        ranking(f32(0.1, 0.2), np.array([0, 1]))
    with pytest.raises(ValueError, match="one shape"):
        ranking(f32(0.1, 0.2), mask(1, 0, 0))


def test_so_many_voxels_that_pairs_would_overflow_are_refused():
    probability = np.broadcast_to(np.float32(0.5), MOST_VOXELS)  # one number in memory
    with pytest.raises(ValueError, match="fewer than 4294967296 voxels"):
        ranking(probability, np.broadcast_to(np.bool_(True), MOST_VOXELS))


def test_chunks_are_pairs_of_bounded_length():
    probability, truth = f32(0.1, 0.2, 0.3, 0.4, 0.5), mask(0, 1, 0, 1, 0)
    parts = [(p.tolist(), t.tolist()) for p, t in paired_chunks(probability, truth, 2)]
    assert [len(part) for part, _ in parts] == [2, 2, 1]
    assert f32(*(p for part, _ in parts for p in part)).tolist() == probability.tolist()
    assert [t for _, part in parts for t in part] == truth.tolist()
