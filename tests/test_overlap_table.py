"""Both meanings of mean IoU, by hand on tiny masks."""

import math
from pathlib import Path

import numpy as np
import pytest

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction
from oncoseg.errors import DataError
from oncoseg.evaluate.compare import compare
from oncoseg.evaluate.overlap_table import OverlapRow, mean_iou, overlap_table
from oncoseg.evaluate.result import evaluate_predictions
from oncoseg.metrics import BOTH_EMPTY_IS_ONE, Confusion

TRUTH = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
FOUND = np.array([[1, 0, 0, 0], [1, 0, 0, 0]], bool)
"""One pixel right, one missed, one too many, five rightly left: tumour 1/3, background 5/7."""


def case(name: str, truth: list[np.ndarray], found: list[np.ndarray]) -> CasePrediction:
    true, predicted = np.stack(truth, axis=-1), np.stack(found, axis=-1)
    return CasePrediction(
        name, name, "mri", true.astype(np.float32), true, predicted.astype(np.float32), (1.0, 1.0, 1.0)
    )


def row_of(rows: list[OverlapRow], averaging: str) -> OverlapRow:
    return next(row for row in rows if row.averaging == averaging)


def test_mean_iou_by_hand() -> None:
    counts = metrics.confusion(TRUTH, FOUND)
    assert counts == Confusion(1, 1, 1, 5)
    assert metrics.score("iou", counts) == pytest.approx(1 / 3)
    assert metrics.background_iou(counts) == pytest.approx(5 / 7)
    assert mean_iou(counts) == pytest.approx((1 / 3 + 5 / 7) / 2)


@pytest.mark.parametrize(
    ("counts", "strict", "lenient"),
    [
        (Confusion(0, 0, 0, 8), math.nan, 1.0),
        (Confusion(0, 2, 0, 6), 0.375, 0.375),
        (Confusion(0, 0, 2, 6), 0.375, 0.375),
        (Confusion(8, 0, 0, 0), math.nan, math.nan),
    ],
)
def test_mean_iou_of_empty_masks(counts: Confusion, strict: float, lenient: float) -> None:
    assert mean_iou(counts) == pytest.approx(strict, nan_ok=True)
    assert mean_iou(counts, BOTH_EMPTY_IS_ONE) == pytest.approx(lenient, nan_ok=True)


def test_every_averaging_by_hand(tmp_path: Path) -> None:
    empty = np.zeros_like(TRUTH)
    cases = [case("a", [TRUTH, empty], [FOUND, empty]), case("b", [TRUTH, TRUTH], [TRUTH, TRUTH])]
    rows = overlap_table(evaluate_predictions(cases, 0.5).write(tmp_path))
    # a: 1 right, 1 too many, 1 missed, 13 left; b: 4 right, 12 left
    expected = {
        "patient": ((1 / 2 + 1) / 2, (1 / 3 + 1) / 2, ((1 / 3 + 13 / 15) / 2 + 1) / 2, (14 / 16 + 1) / 2),
        "pooled": (10 / 12, 5 / 7, (5 / 7 + 25 / 27) / 2, 30 / 32),
        "slice": (
            (1 / 2 + 1 + 1) / 3,
            (1 / 3 + 1 + 1) / 3,
            ((1 / 3 + 5 / 7) / 2 + 1 + 1) / 3,
            (6 / 8 + 3) / 4,
        ),
        "slice-empty-is-one": (
            (1 / 2 + 3) / 4,
            (1 / 3 + 3) / 4,
            ((1 / 3 + 5 / 7) / 2 + 3) / 4,
            (6 / 8 + 3) / 4,
        ),
    }
    assert {row.averaging for row in rows} == set(expected)
    for averaging, values in expected.items():
        scores = row_of(rows, averaging).scores
        names = ("dice", "miou_foreground", "miou_classes", "accuracy")
        assert [scores[name].mean for name in names] == pytest.approx(values), averaging
    assert row_of(rows, "pooled").scores["precision"].mean == pytest.approx(5 / 6)
    assert row_of(rows, "patient").scores["recall"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert row_of(rows, "slice").scores["miou_classes"].n == 3
    assert row_of(rows, "slice").scores["miou_classes"].undefined == 1


def test_intervals_are_of_patients_only(tmp_path: Path) -> None:
    masks = [np.roll(FOUND, shift, axis=1) for shift in (0, 0, 1, 1, 2, 3)]
    cases = [case(f"p{number}", [TRUTH], [mask]) for number, mask in enumerate(masks)]
    rows = overlap_table(evaluate_predictions(cases, 0.5).write(tmp_path))
    found = row_of(rows, "patient").scores["dice"]
    assert found.n == 6
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert row_of(rows, "pooled").scores["dice"].low is None
    assert row_of(rows, "slice").scores["dice"].low is None


def test_a_folder_without_its_tables_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Evaluate the run again"):
        overlap_table(tmp_path)


def test_of_several_trainings_a_patient_has_the_mean_score_and_slices_the_mean_of_means(
    tmp_path: Path,
) -> None:
    empty = np.zeros_like(TRUTH)
    first = [case("a", [TRUTH, empty], [FOUND, empty]), case("b", [TRUTH, TRUTH], [TRUTH, TRUTH])]
    second = [case("a", [TRUTH, empty], [TRUTH, FOUND]), case("b", [TRUTH, TRUTH], [TRUTH, FOUND])]
    trainings = [
        evaluate_predictions(cases, 0.5).write(tmp_path / str(number))
        for number, cases in enumerate((first, second))
    ]
    rows = overlap_table(*trainings)
    # a: 1/2 and 4/6 (two found too many); b: 1 and 6/8 (one missed, one too many)
    patients = row_of(rows, "patient")
    assert patients.scores["dice"].mean == pytest.approx(((1 / 2 + 2 / 3) / 2 + (1 + 3 / 4) / 2) / 2)
    assert patients.scores["dice"].n == 2
    between = patients.variation["dice"]
    # means over patients 3/4 and 17/24: of two values the standard deviation is their distance / √2
    assert (between.seeds, between.seed_sd) == (2, pytest.approx((3 / 4 - 17 / 24) / math.sqrt(2)))
    # the first leaves a's slice without tumour empty, the second finds some there: three and four slices
    slices = row_of(rows, "slice").scores["dice"]
    assert slices.mean == pytest.approx(((1 / 2 + 1 + 1) / 3 + (1 + 0 + 1 + 1 / 2) / 4) / 2)
    assert slices.n == 3
    assert row_of(rows, "slice").variation == {}


def test_several_trainings_are_summed_up_as_compare_does(tmp_path: Path) -> None:
    """Of eight patients there are intervals."""
    draw = np.random.default_rng(0)
    systems = {
        name: [
            evaluate_predictions(
                [
                    case(f"p{number}", [TRUTH], [TRUTH ^ (draw.random(TRUTH.shape) < noise)])
                    for number in range(8)
                ],
                0.5,
            ).write(tmp_path / f"{name}-{training}")
            for training in range(3)
        ]
        for name, noise in (("one", 0.1), ("other", 0.3))
    }
    (part,) = compare(systems, metrics=("dice",)).parts
    for name, trainings in systems.items():
        row = row_of(overlap_table(*trainings), "patient")
        assert row.scores["dice"] == part.summaries[name]
        assert row.scores["dice"].low is not None
        assert row.variation["dice"] == part.variation[name]
        assert row.variation["dice"].seed_sd > 0


def test_trainings_of_other_patients_are_refused(tmp_path: Path) -> None:
    one, other = (
        evaluate_predictions([case(name, [TRUTH], [FOUND])], 0.5).write(tmp_path / name) for name in "ab"
    )
    with pytest.raises(DataError, match="evaluated on different patients"):
        overlap_table(one, other)
