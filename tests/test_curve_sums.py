"""What curves over many cases keep of each."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from oncoseg.evaluate import curve_sums
from oncoseg.evaluate.curve_sums import CANDIDATE_THRESHOLD, CURVE_BINS, CurveSums
from oncoseg.metrics import confusion
from oncoseg.metrics.histogram import bin_edges, probability_bin

GRID = (4, 1, 1)


def of_line(probability: list[float] | None, truth: list[int], **more: object) -> CurveSums:
    """A case of voxels in a row, 1 mm each; the mask is probability 0.5 and above."""
    marked = np.array(truth, bool)[:, None, None]
    scores = None if probability is None else np.array(probability, np.float32)[:, None, None]
    predicted = np.zeros_like(marked) if scores is None else scores >= 0.5
    settings = {"spacing_mm": (1.0, 1.0, 1.0), "connectivity": 26, "min_lesion_mm3": 0.0} | more
    return curve_sums.of_case(scores, marked, confusion(marked, predicted), **settings)


def bins_of(*probability: float) -> list[int]:
    return probability_bin(np.array(probability), CURVE_BINS).tolist()


def numbers(sums: CurveSums) -> np.ndarray:
    parts = [part for field in sums for part in (field if isinstance(field, tuple) else [field])]
    return np.concatenate([np.ravel(part) for part in parts])


def assert_same(one: CurveSums, other: CurveSums) -> None:
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-12)


def test_four_voxels_by_hand() -> None:
    sums = of_line([0.9, 0.02, 0.6, 0.04], [1, 1, 0, 0])
    # the first voxel is a candidate on the only lesion, which is two voxels long; the third hits nothing
    assert (sums.cases, sums.froc_cases, sums.lesions, sums.missing_cases) == (1, 1, 1, 0)
    assert sums.counts == (1, 1, 1, 1)
    background, tumour = sums.voxels
    assert np.flatnonzero(background).tolist() == bins_of(0.04, 0.6)
    assert np.flatnonzero(tumour).tolist() == bins_of(0.02, 0.9)
    assert np.flatnonzero(sums.found).tolist() == bins_of(0.9)
    assert np.flatnonzero(sums.false).tolist() == bins_of(0.6)
    assert sums.calibration.squared_error == pytest.approx(0.1**2 + 0.98**2 + 0.6**2 + 0.04**2, rel=1e-6)


def test_a_bin_begins_at_a_half_and_a_probability_lies_at_or_above_its_edge() -> None:
    edges = bin_edges(CURVE_BINS)
    assert edges[CURVE_BINS // 2] == 0.5
    probability = np.array([0.0, 1e-6, 0.3, 0.5, 0.99, 1.0])
    bins = probability_bin(probability, CURVE_BINS)
    assert (edges[bins] <= probability + 1e-7).all()
    assert (np.append(edges, math.inf)[bins + 1] > probability).all()


def test_two_cases_together_are_as_one_of_all_their_voxels() -> None:
    one, other = [0.9, 0.02, 0.6, 0.04], [0.3, 0.8, 0.01, 0.2]
    truths = [1, 1, 0, 0], [0, 0, 0, 1]
    together = curve_sums.pool([of_line(one, truths[0]), of_line(other, truths[1])])
    # far apart in one image, so that no lesion touches another
    gap = [0.0] * 3
    whole = of_line([*one, *gap, *other], [*truths[0], 0, 0, 0, *truths[1]])
    without_gap = together._replace(
        cases=1,
        froc_cases=1,
        voxels=together.voxels + of_line(gap, [0, 0, 0]).voxels,
        calibration=curve_sums.pool([together, of_line(gap, [0, 0, 0])]).calibration,
        counts=together.counts._replace(tn=together.counts.tn + 3),
    )
    assert_same(whole, without_gap)


def test_a_missing_map_leaves_what_was_not_found() -> None:
    sums = of_line(None, [1, 1, 0, 1])
    assert (sums.cases, sums.missing_cases, sums.missing_voxels, sums.missing_lesions) == (0, 1, 3, 2)
    assert not sums.voxels.any()


def test_candidates_begin_at_the_threshold_and_small_ones_are_left_out() -> None:
    just, below = CANDIDATE_THRESHOLD + 0.001, CANDIDATE_THRESHOLD - 0.001
    assert of_line([just, 0, below, 0], [0, 0, 0, 0]).false.sum() == 1
    sums = of_line([0.9, 0, 0.9, 0.9], [1, 0, 0, 0], min_lesion_mm3=2.0)
    assert (sums.lesions, int(sums.false.sum())) == (0, 1)


def test_without_a_voxel_size_there_are_no_lesions_of_a_least_volume() -> None:
    assert of_line([0.9, 0, 0, 0], [1, 0, 0, 0], spacing_mm=None).froc_cases == 1
    sums = of_line([0.9, 0, 0, 0], [1, 0, 0, 0], spacing_mm=None, min_lesion_mm3=1.0)
    assert (sums.cases, sums.froc_cases, sums.lesions) == (1, 0, 0)
    assert of_line(None, [1, 0, 0, 0], spacing_mm=None, min_lesion_mm3=1.0).missing_lesions == 0


def test_json_keeps_everything() -> None:
    sums = curve_sums.pool([of_line([0.9, 0.02, 0.6, 0.04], [1, 1, 0, 0]), of_line(None, [1, 0, 0, 0])])
    again = curve_sums.from_json(json.loads(json.dumps(curve_sums.as_json(sums))))
    assert_same(again, sums)


def test_a_large_map_of_noise_leaves_a_few_kilobytes() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((64, 64, 32), np.float32)
    truth = np.zeros(probability.shape, bool)
    truth[20:30, 20:30, 10:20] = True
    sums = curve_sums.of_case(probability, truth, confusion(truth, truth), (1, 1, 1), 6, 0.0)
    assert len(json.dumps(curve_sums.as_json(sums))) < 20_000


@pytest.mark.real_data
def test_readers_of_real_nodules_pool_to_what_scikit_learn_finds(shared_data: Path) -> None:
    """The share of the other readers as the probability of the first one's mask."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from oncoseg import io, metrics
    from oncoseg.datasets import open_dataset

    cases = [case for case in open_dataset(shared_data / "lidc_slices").cases if len(case.masks) == 4][:12]
    probabilities, truths = [], []
    for case in cases:
        first, *others = [io.read(ref).array[0] > 0 for ref in case.masks]
        probabilities.append(np.mean(others, axis=0).astype(np.float32))
        truths.append(first)
    sums = curve_sums.pool(
        curve_sums.of_case(p, t, confusion(t, p >= 0.5), None, 26, 0.0)
        for p, t in zip(probabilities, truths, strict=True)
    )
    probability, truth = (np.concatenate([each.ravel() for each in all_]) for all_ in (probabilities, truths))
    assert sums.cases == 12
    assert metrics.roc_auc(sums.voxels) == pytest.approx(roc_auc_score(truth, probability), abs=1e-9)
    assert metrics.average_precision(sums.voxels) == pytest.approx(
        average_precision_score(truth, probability), abs=1e-9
    )
