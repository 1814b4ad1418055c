"""Curves and rates over all patients, for any weights of them."""

import numpy as np
import pytest

from oncoseg.evaluate import curve_sums, pooled
from oncoseg.evaluate.curve_sums import CurveSums
from oncoseg.metrics import Confusion, calibration, froc
from oncoseg.metrics.froc import CaseCandidates
from oncoseg.metrics.histogram import bin_edges
from test_curve_sums import of_line

ALL = np.ones((1, 1))
FOUR = of_line([0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0])


def of_patients(*sums: CurveSums) -> pooled.Patients:
    return pooled.stack(sums)


def random_patients(number: int, seed: int = 0) -> list[CurveSums]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        truth = (rng.random(300) < 0.2).astype(int)
        probability = 1 / (1 + np.exp(-rng.normal(3 * truth - 2, 1.5)))
        found.append(of_line(list(probability), list(truth)))
    return found


def test_roc_of_four_voxels_by_hand() -> None:
    # thresholds 0.9, 0.6, 0.3, 0.1: recall ½ ½ 1 1 at a false positive rate of 0 ½ ½ 1
    patients = of_patients(FOUR)
    found = pooled.recall_at(patients, [0, 0.25, 0.5, 0.75, 1], ALL)
    assert found.tolist() == [[0.5, 0.5, 1, 1, 1]]
    assert pooled.areas(patients, ALL)[0] == pytest.approx([0.75, 0.5 * 1 + 0.5 * 2 / 3])


def test_precision_recall_of_four_voxels_by_hand() -> None:
    # recall ½ is reached at 0.9, all right; recall 1 at 0.3, where two of three are
    found = pooled.precision_at(of_patients(FOUR), [0.2, 0.5, 0.51, 1], ALL)
    assert found[0] == pytest.approx([1, 1, 2 / 3, 2 / 3])


def test_missing_tumour_is_found_at_no_threshold() -> None:
    # two tumour voxels more, of which nothing is known
    patients = of_patients(FOUR, of_line(None, [1, 1, 0, 0]))
    weights = np.ones((1, 2))
    assert pooled.recall_at(patients, [0, 1], weights).tolist() == [[0.25, 0.5]]
    assert pooled.areas(patients, weights)[0] == pytest.approx([0.75 / 2, (0.5 + 1 / 3) / 2])
    assert pooled.precision_at(patients, [0.5, 0.51, 1], weights)[0] == pytest.approx([2 / 3, 0, 0])
    # a weight of 0 takes them away
    assert pooled.areas(patients, np.array([[1.0, 0.0]]))[0] == pytest.approx(
        pooled.areas(of_patients(FOUR), ALL)[0]
    )


def test_without_tumour_or_background_nothing_is_defined() -> None:
    healthy, marked = of_line([0.2, 0.6], [0, 0]), of_line([0.2, 0.6], [1, 1])
    for sums in (healthy, marked):
        patients = of_patients(sums)
        assert np.isnan(pooled.areas(patients, ALL)).all()
        assert np.isnan(pooled.recall_at(patients, [0.5], ALL)).all()
        assert np.isnan(pooled.precision_at(patients, [0.5], ALL)).all()
    assert np.isnan(pooled.sensitivity_at(of_patients(healthy), [1.0], ALL)).all()
    missing = of_patients(of_line(None, [1, 0]))
    assert np.isnan(pooled.sensitivity_at(missing, [1.0], ALL)).all()


def test_weights_count_patients_as_often_as_they_are_drawn() -> None:
    sums = random_patients(3)
    twice = of_patients(*sums, sums[0], sums[0])
    for function in (pooled.areas, pooled.froc_score, pooled.observed_share, pooled.calibration_scores):
        weighted = function(of_patients(*sums), np.array([[3.0, 1.0, 1.0]]))
        np.testing.assert_allclose(weighted, function(twice, np.ones((1, 5))), rtol=1e-12)


def test_areas_agree_with_the_metrics_of_the_pooled_histogram() -> None:
    from oncoseg import metrics

    sums = random_patients(4)
    together = curve_sums.pool(sums).voxels
    found = pooled.areas(of_patients(*sums), np.ones((1, 4)))[0]
    assert found == pytest.approx([metrics.roc_auc(together), metrics.average_precision(together)])


def test_froc_agrees_with_the_metric_where_scores_fall_into_bins_of_their_own() -> None:
    edges = bin_edges(curve_sums.CURVE_BINS)
    cases = [
        CaseCandidates(np.array([edges[300], np.nan]), np.array([edges[320], edges[280]])),
        CaseCandidates(np.array([edges[310]]), np.array([])),
        CaseCandidates(np.array([]), np.array([edges[305]])),
    ]
    sums = [
        curve_sums.NOTHING._replace(
            cases=1,
            froc_cases=1,
            lesions=len(case.lesion_score),
            found=curve_sums._by_bin(case.lesion_score[~np.isnan(case.lesion_score)]),
            false=curve_sums._by_bin(case.false_positive_score),
        )
        for case in cases
    ]
    found = pooled.sensitivity_at(of_patients(*sums), froc.LUNA16_FALSE_POSITIVES, np.ones((1, 3)))
    expected = froc.froc_sensitivity(froc.froc(cases))
    assert found[0] == pytest.approx(expected)
    score = pooled.froc_score(of_patients(*sums), np.ones((1, 3)))
    assert score[0, 0] == pytest.approx(froc.froc_score(froc.froc(cases)))


def test_reliability_is_that_of_all_voxels_together() -> None:
    sums = random_patients(3)
    together = curve_sums.pool(sums).calibration
    patients, weights = of_patients(*sums), np.ones((1, 3))
    np.testing.assert_allclose(
        pooled.observed_share(patients, weights)[0], calibration.reliability(together).observed_share
    )
    assert pooled.calibration_scores(patients, weights)[0] == pytest.approx(
        [calibration.brier(together), calibration.expected_calibration_error(together)]
    )


def test_rates_of_voxels_by_hand() -> None:
    counts = [Confusion(3, 1, 1, 5), Confusion(0, 1, 4, 5)]
    assert pooled.voxel_rates(counts, np.ones((1, 2)))[0] == pytest.approx([3 / 8, 10 / 12, 3 / 5])
    assert pooled.voxel_rates(counts, np.array([[2.0, 0.0]]))[0] == pytest.approx([3 / 4, 5 / 6, 3 / 4])
