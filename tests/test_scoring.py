import math

import numpy as np
import pytest

from oncoseg.evaluate.scoring import (
    FORFEITED,
    IN_SOME_CASES,
    NEEDS_SPACING,
    NO_SPACING,
    OF_PROBABILITY,
    UNDEFINED,
    CaseScores,
    Maps,
    Scoring,
    of_patients,
    score_case,
)
from oncoseg.metrics.catalogue import METRICS

SPACING = (1.0, 1.0, 2.0)
GRID = (12, 12, 6)


def block(*corner: int, size: int = 2, grid: tuple[int, ...] = GRID) -> np.ndarray:
    mask = np.zeros(grid, np.uint8)
    mask[tuple(slice(start, start + size) for start in corner)] = 1
    return mask


def score(
    truth: np.ndarray,
    prediction: np.ndarray | None,
    scoring: Scoring | None = None,
    spacing: tuple[float, ...] | None = SPACING,
    **more: object,
) -> CaseScores:
    (row,) = score_case(
        "case", "patient", truth, prediction, spacing, {"tumour": (1,)}, scoring or Scoring(), **more
    )
    return row


def mapped(probability: np.ndarray | None) -> Maps:
    return {"tumour": None if probability is None else lambda: probability}


def test_a_block_moved_by_one_voxel_is_scored_by_hand() -> None:
    row = score(block(4, 4, 2), block(5, 4, 2))
    assert row.counts == (4, 4, 4, math.prod(GRID) - 12)
    expected = {
        "dice": 0.5,
        "iou": 1 / 3,
        "volume_difference_ml": 0.0,
        "volume_error": 0.0,
        "hausdorff_mm": 1.0,
        "hd95_max_mm": 1.0,
        "assd_mm": 0.5,
        "surface_dice": 1.0,
        "lesion_sensitivity": 1.0,
        "false_positive_lesions": 0.0,
        "panoptic_quality": 0.0,  # one lesion each, but an IoU of a third matches nothing
    }
    assert {name: row.values[name] for name in expected} == pytest.approx(expected)
    assert row.rules == {}
    assert row.voxel_ml == 0.002


def test_every_metric_of_the_catalogue_is_computed() -> None:
    truth = block(4, 4, 2)
    row = score(truth, truth, maps=mapped(truth.astype(np.float32)))
    assert list(row.values) == list(METRICS)
    perfect = {"higher": 1.0, "lower": 0.0, "zero": 0.0}
    # the true lesion of 16 mm³ is too small for the challenge, which then gives the best value as well
    assert row.values == pytest.approx({name: perfect[metric.better] for name, metric in METRICS.items()})


def test_classes_are_scored_apart_and_may_join_labels() -> None:
    truth, prediction = block(1, 1, 1) + 4 * block(6, 6, 2), block(1, 1, 1) + 2 * block(6, 6, 2)
    classes = {"core": (1,), "rest": (2, 4), "whole": (1, 2, 4)}
    rows = score_case("c", "p", truth, prediction, SPACING, classes, Scoring())
    assert [row.label for row in rows] == ["core", "rest", "whole"]
    assert [row.values["dice"] for row in rows] == [1, 1, 1]
    (only,) = score_case("c", "p", truth, prediction, SPACING, {"four": (4,)}, Scoring())
    assert only.values["dice"] == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "situation"),
    [
        (0, 0, "both_empty"),
        (0, 1, "truth_empty"),
        (1, 0, "prediction_empty"),
        (1, None, "prediction_missing"),
    ],
)
def test_empty_and_missing_masks_follow_the_policy_and_say_so(
    truth: int, prediction: int | None, situation: str
) -> None:
    masks = [block(4, 4, 2), np.zeros(GRID, np.uint8)]
    row = score(masks[1 - truth], None if prediction is None else masks[1 - prediction])
    diagonal = math.dist((12, 12, 12), (0, 0, 0))
    assert row.values["dice"] == (pytest.approx(math.nan, nan_ok=True) if situation == "both_empty" else 0)
    if situation != "both_empty":
        assert row.values["hd95_area_mm"] == pytest.approx(diagonal)
    assert row.rules["dice"] == row.rules["hd95_area_mm"] == situation
    assert "volume_difference_ml" not in row.rules


def test_the_users_outcome_is_used() -> None:
    empty = np.zeros(GRID, np.uint8)
    scoring = Scoring(policy="brats-2023", outcomes={("dice", "both_empty"): 0.25})
    row = score(empty, empty, scoring)
    assert (row.values["dice"], row.values["iou"], row.values["hausdorff_mm"]) == (0.25, 1, 0)


def test_a_missing_prediction_never_scores_better_than_an_empty_one() -> None:
    truth = block(4, 4, 2)
    nothing = np.zeros(GRID, np.float32)
    empty = score(truth, np.zeros(GRID, np.uint8), maps=mapped(nothing))
    missing = score(truth, None, maps=mapped(None))
    for name, metric in METRICS.items():
        if math.isnan(missing.values[name]):
            assert missing.rules[name] == FORFEITED
        elif metric.better == "higher":
            assert missing.values[name] <= empty.values[name]
        elif metric.better == "lower":
            assert missing.values[name] >= empty.values[name]


def test_without_a_voxel_size_nothing_in_millimetres_is_claimed() -> None:
    row = score(block(4, 4, 2), block(5, 4, 2), spacing=None)
    assert row.values["dice"] == 0.5
    for name in NEEDS_SPACING:
        assert math.isnan(row.values[name])
        assert row.rules[name] == NO_SPACING


def test_probabilities_are_only_scored_where_asked_for() -> None:
    truth = block(4, 4, 2)
    assert not set(OF_PROBABILITY) & set(score(truth, truth).values)


def test_withholding_a_probability_map_does_not_pay() -> None:
    truth = block(4, 4, 2)
    without = score(truth, truth, maps=mapped(None))
    assert [without.values[name] for name in OF_PROBABILITY] == [0, 0, 1, 1]
    assert {without.rules[name] for name in OF_PROBABILITY} == {"prediction_missing"}
    assert without.values["dice"] == 1


def test_a_volume_of_one_slice_is_a_plane() -> None:
    truth, prediction = (block(2, 2, 0, size=size, grid=(12, 12, 1)) for size in (8, 4))
    row = score(truth, prediction)
    # the outlines of squares of 8 and 4 pixels: the corner of the large one is 4√2 away, not 0 as in a slab
    assert row.values["hausdorff_mm"] == pytest.approx(4 * math.sqrt(2))
    assert row.values["assd_mm"] > 1
    assert row.values["lesion_f1"] == 1


def test_lesions_that_are_all_too_small_are_undefined_and_say_so() -> None:
    truth = block(4, 4, 2)
    row = score(truth, truth, Scoring(min_lesion_mm3=1000))
    assert math.isnan(row.values["lesion_sensitivity"])
    assert row.rules["lesion_sensitivity"] == UNDEFINED
    without_size = score(truth, truth, Scoring(min_lesion_mm3=1000), spacing=None)
    assert without_size.rules["lesion_sensitivity"] == NO_SPACING


def test_a_single_slice_of_a_volume_stays_a_slab() -> None:
    flat = block(4, 4, 2) * (np.arange(GRID[2]) == 2)
    assert score(flat.astype(np.uint8), block(4, 4, 2)).values["hausdorff_mm"] == SPACING[2]


def test_the_order_in_memory_does_not_matter() -> None:
    truth, prediction = block(4, 4, 2, size=3) + 2 * block(1, 1, 1), block(5, 4, 2, size=3)
    classes = {"one": (1,), "all": (1, 2)}
    as_read, copied = (
        score_case("c", "p", truth.copy(order), prediction.copy(order), SPACING, classes, Scoring())
        for order in "FC"
    )
    assert as_read == copied


def test_background_beyond_the_box_around_the_masks_is_counted() -> None:
    row = score(block(4, 4, 2), block(4, 4, 2))
    assert row.counts == (8, 0, 0, math.prod(GRID) - 8)
    empty = np.zeros(GRID, np.uint8)
    assert score(empty, empty).counts == (0, 0, 0, math.prod(GRID))


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(12, 12, 6\) and \(1, 12, 6\)"):
        score(block(4, 4, 2), block(0, 4, 2, size=1, grid=(1, 12, 6)))


# patients


def test_voxels_of_a_patients_cases_are_counted_together() -> None:
    large, small = block(2, 2, 0, size=4), block(4, 4, 2)
    one = score(large, large)
    other = score(small, np.roll(small, 1, 0))
    (row,) = of_patients([one, other._replace(case="second")], Scoring())
    # 64 and 4 voxels are right, 4 are missed and 4 made up
    assert row.values["dice"] == pytest.approx(2 * 68 / (2 * 68 + 8))
    assert row.values["assd_mm"] == pytest.approx((0 + 0.5) / 2)
    assert row.values["volume_difference_ml"] == 0
    assert (row.case, row.patient, row.rules) == ("", "patient", {})


def test_a_single_case_is_its_patient() -> None:
    row = score(block(4, 4, 2), None)
    assert of_patients([row], Scoring()) == [row._replace(case="")]


def test_an_empty_case_does_not_make_its_patient_empty() -> None:
    empty = score(np.zeros(GRID, np.uint8), np.zeros(GRID, np.uint8))
    full = score(block(4, 4, 2), block(4, 4, 2))
    (row,) = of_patients([empty, full], Scoring())
    assert row.values["dice"] == 1
    assert "dice" not in row.rules
    assert row.values["assd_mm"] == 0
    assert row.rules["assd_mm"] == IN_SOME_CASES


def test_volumes_of_cases_are_added_up() -> None:
    missed = score(block(4, 4, 2), np.zeros(GRID, np.uint8))
    made_up = score(np.zeros(GRID, np.uint8), block(4, 4, 2))
    (row,) = of_patients([missed, made_up], Scoring())
    assert row.values["volume_difference_ml"] == 0
    assert row.values["volume_error"] == 0
    assert row.values["dice"] == 0


def test_patients_and_classes_stay_apart() -> None:
    rows = [
        score(block(4, 4, 2), block(4, 4, 2))._replace(patient=patient, label=label)
        for patient in ("a", "b")
        for label in ("core", "whole")
    ]
    assert [(row.patient, row.label) for row in of_patients(rows, Scoring())] == [
        ("a", "core"),
        ("a", "whole"),
        ("b", "core"),
        ("b", "whole"),
    ]


def test_distances_follow_slices_that_are_shifted_against_each_other() -> None:
    axes = np.array([[1.0, 0, 0], [0, 1, 4], [0, 0, 3]])  # the next slice lies 3 mm up and 4 mm back
    one, next_one = block(4, 4, 2, size=1), block(4, 4, 3, size=1)
    straight = score(one, next_one, spacing=(1, 1, 3))
    shifted = score(one, next_one, spacing=(1, 1, 3), axes_mm=axes)
    assert (straight.values["hausdorff_mm"], shifted.values["hausdorff_mm"]) == (3, 5)
    assert shifted.values["assd_mm"] == shifted.values["hd95_area_mm"] == 5
    assert shifted.voxel_ml == straight.voxel_ml
    missing = score(one, None, spacing=(1, 1, 3), axes_mm=axes)
    i, j, k = GRID  # as bad as the longest diagonal, that along which the slices lean
    assert missing.values["hausdorff_mm"] == pytest.approx(math.hypot(i, j + 4 * k, 3 * k))


def test_a_single_slice_of_a_tilted_scan_is_scored_within_itself() -> None:
    axes = np.array([[1.0, 0, 0], [0, 2, 4], [0, 0, 3]])
    row = score(
        block(4, 4, 0, size=1, grid=(9, 9, 1)),
        block(4, 6, 0, size=1, grid=(9, 9, 1)),
        spacing=(1, 2, 3),
        axes_mm=axes,
    )
    assert row.values["hausdorff_mm"] == 4
