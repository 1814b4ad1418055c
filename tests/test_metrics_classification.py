import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoseg.metrics.classification import (
    ClassScores,
    Report,
    confusion_matrix,
    one_vs_rest,
    one_vs_rest_auc,
    report,
)
from oncoseg.metrics.overlap import Confusion
from oncoseg.metrics.ranking import roc_auc_exact

THREE = np.array([[4, 1, 0], [1, 2, 1], [0, 0, 1]])
"""Ten cases: five of class 0, four of class 1, one of class 2; rows are the truth."""

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
"""Truth and prediction of some cases, of four classes that need not all occur."""


def cases(pairs) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.array(pairs).T
    return truth, predicted


def scores_of(truth, predicted, classes: int) -> Report:
    return report(confusion_matrix(np.array(truth, int), np.array(predicted, int), classes))


def test_rows_are_truth_and_columns_predictions():
    matrix = confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_small_integers_and_bools_do_not_overflow():
    many = np.full(3, 20, np.uint8)  # 20 · 21 + 20 is no uint8
    assert confusion_matrix(many, many, 21)[20, 20] == 3
    assert confusion_matrix(np.array([True, False]), np.array([True, True]), 2).tolist() == [[0, 1], [0, 1]]


def test_one_class_against_the_rest_by_hand():
    assert one_vs_rest(THREE, 1) == Confusion(tp=2, fp=1, fn=2, tn=5)


def test_scores_of_the_middle_class_by_hand():
    middle = report(THREE).classes[1]
    assert middle == pytest.approx(ClassScores(2 / 4, 5 / 6, 2 / 3, 4 / 7, 4))
    assert middle.recall == middle.sensitivity == 0.5


def test_means_of_three_classes_by_hand():
    summary = report(THREE)
    assert summary.accuracy == 7 / 10
    assert summary.macro.sensitivity == summary.balanced_accuracy == pytest.approx((4 / 5 + 2 / 4 + 1) / 3)
    assert summary.macro.precision == pytest.approx((4 / 5 + 2 / 3 + 1 / 2) / 3)
    assert summary.weighted.precision == pytest.approx((5 * 4 / 5 + 4 * 2 / 3 + 1 / 2) / 10)
    assert summary.weighted.specificity == pytest.approx((5 * 4 / 5 + 4 * 5 / 6 + 8 / 9) / 10)
    assert (summary.without_examples, summary.never_predicted) == (0, 0)


def test_a_class_that_is_never_predicted_is_not_rewarded():
    summary = scores_of([0, 0, 1], [0, 0, 0], 2)
    assert math.isnan(summary.classes[1].precision)
    assert summary.classes[1].f1 == 0
    assert summary.macro.precision == pytest.approx((2 / 3 + 0) / 2)
    assert summary.weighted.precision == pytest.approx((2 * 2 / 3 + 0) / 3)
    assert (summary.without_examples, summary.never_predicted) == (0, 1)


def test_a_class_without_examples_has_no_say():
    summary = scores_of([0, 1], [0, 1], 4)
    assert np.isnan(summary.classes[2][:1] + summary.classes[2][2:4]).all()
    assert summary.classes[2].specificity == 1  # rightly never called
    assert summary.macro == summary.weighted == (1, 1, 1, 1)
    assert (summary.without_examples, summary.never_predicted) == (2, 0)


def test_calling_a_class_without_examples_costs_the_others():
    summary = scores_of([0, 0], [0, 2], 3)
    assert summary.classes[2] == pytest.approx((math.nan, 0.5, 0, 0, 0), nan_ok=True)
    assert summary.macro.sensitivity == 0.5
    assert summary.without_examples == 2


def test_cases_of_one_class_only_have_no_specificity():
    summary = scores_of([1, 1], [1, 1], 2)
    assert math.isnan(summary.macro.specificity)
    assert math.isnan(summary.weighted.specificity)
    assert summary.classes[0].specificity == 1
    assert summary.accuracy == 1


def test_without_cases_nothing_is_defined():
    summary = scores_of([], [], 2)
    assert np.isnan([*summary.macro, *summary.weighted, summary.accuracy, summary.balanced_accuracy]).all()
    assert summary.without_examples == 2


@given(LABELS)
def test_matrix_and_scores_agree_with_sklearn(pairs):
    from sklearn import metrics as peer

    truth, predicted = cases(pairs)
    matrix = confusion_matrix(truth, predicted, 4)
    np.testing.assert_array_equal(matrix, peer.confusion_matrix(truth, predicted, labels=range(4)))
    summary = report(matrix)
    theirs = peer.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=np.nan)
    ours = [(s.precision, s.sensitivity, s.f1, s.support) for s in summary.classes]
    np.testing.assert_allclose(np.transpose(ours), theirs, rtol=1e-12)
    assert summary.accuracy == pytest.approx(peer.accuracy_score(truth, predicted))


@given(LABELS)
def test_means_agree_with_sklearn_over_the_classes_that_have_examples(pairs):
    from sklearn import metrics as peer

    truth, predicted = cases(pairs)
    summary = report(confusion_matrix(truth, predicted, 4))
    for average in ("macro", "weighted"):
        theirs = peer.precision_recall_fscore_support(
            truth, predicted, labels=np.unique(truth), average=average, zero_division=0
        )
        ours = getattr(summary, average)
        assert (ours.precision, ours.sensitivity, ours.f1) == pytest.approx(theirs[:3], abs=1e-12)


@given(LABELS)
def test_averages_that_must_be_equal_are(pairs):
    summary = report(confusion_matrix(*cases(pairs), 4))
    assert summary.weighted.sensitivity == pytest.approx(summary.accuracy)
    assert sum(scores.support for scores in summary.classes) == len(pairs)


def test_matrices_of_parts_add_up():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 2, 20))
    parts = [confusion_matrix(t, p, 3) for t, p in zip(truth, predicted, strict=True)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(truth, predicted, 3))


def test_one_vs_rest_auc_by_hand():
    probability = np.array([[0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1]])
    areas = one_vs_rest_auc(probability, np.array([0, 1, 2]))
    assert areas.classes == (1.0, 0.5, 0.25)  # class 2: 0.1 ties with 0.1 and loses to 0.4
    assert areas.macro == pytest.approx(1.75 / 3)
    assert areas.undefined == 0


def test_one_vs_rest_auc_agrees_with_sklearn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200)
    probability = rng.dirichlet(np.ones(4), 200)
    expected = roc_auc_score(truth, probability, multi_class="ovr", average=None)
    areas = one_vs_rest_auc(probability, truth)
    assert areas.classes == pytest.approx(tuple(expected), abs=1e-12)
    assert areas.macro == pytest.approx(expected.mean(), abs=1e-12)


def test_two_classes_have_one_area():
    probability, truth = np.array([0.25, 0.5, 0.5, 1.0]), np.array([False, True, False, True])
    areas = one_vs_rest_auc(np.stack([1 - probability, probability], axis=1), truth)
    assert areas.classes == (roc_auc_exact(probability, truth),) * 2 == (0.875, 0.875)


def test_a_class_without_examples_is_left_out_of_the_mean_area():
    areas = one_vs_rest_auc(np.eye(3)[[0, 1, 0]], np.array([0, 1, 0]))
    assert areas.classes == pytest.approx((1, 1, math.nan), nan_ok=True)
    assert (areas.macro, areas.undefined) == (1, 1)


def test_cases_of_one_class_only_have_no_area():
    areas = one_vs_rest_auc(np.eye(2), np.array([1, 1]))
    assert math.isnan(areas.macro)
    assert areas.undefined == 2


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.array([0, 2]), "from 0 to 1, got 0 to 2"),
        (np.array([-1, 0]), "from 0 to 1, got -1 to 0"),
        (np.array([0.0, 1.0]), "as integers, got float64"),
        (np.array([0]), r"one shape, got \(1,\) and \(2,\)"),
    ],
)
def test_wrong_class_indices_are_named(truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(truth, np.array([0, 1]), 2)


@pytest.mark.parametrize("matrix", [np.zeros((2, 3), int), np.eye(2), np.array([[1, -1], [0, 1]])])
def test_a_report_needs_a_square_matrix_of_counts(matrix):
    with pytest.raises(ValueError, match="square matrix of counts"):
        report(matrix)


def test_areas_need_a_row_for_every_case():
    with pytest.raises(ValueError, match="`n × classes`"):
        one_vs_rest_auc(np.eye(2), np.array([0]))
    with pytest.raises(ValueError, match="from 0 to 1"):
        one_vs_rest_auc(np.eye(2), np.array([0, 2]))
