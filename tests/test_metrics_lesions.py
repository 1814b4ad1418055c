import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from oncoseg.metrics.brats import BRATS_2023, BratsLesion, BratsRules, brats_scores
from oncoseg.metrics.froc import CaseCandidates, froc, froc_score, froc_sensitivity, lesion_candidates
from oncoseg.metrics.lesion_matches import (
    LesionCounts,
    false_positives_per_case,
    lesion_f1,
    lesion_precision,
    lesion_sensitivity,
    match_lesions,
    panoptic_quality,
    pool_lesions,
)
from oncoseg.metrics.lesions import find_lesions, lesion_overlaps

SQUARE_MM = (1.0, 1.0)
CUBE_MM = (1.0, 1.0, 1.0)


def picture(*rows: str) -> np.ndarray:
    """A 2D mask, `#` inside."""
    return np.array([[letter == "#" for letter in row] for row in rows])


def line(*spans: tuple[int, int], length: int = 40) -> np.ndarray:
    """A 3D mask one voxel thick, with voxels from the first to before the second of each span."""
    mask = np.zeros((length, 1, 1), bool)
    for first, last in spans:
        mask[first:last] = True
    return mask


def overlaps_of(truth, prediction):
    spacing_mm = (1.0,) * truth.ndim
    return lesion_overlaps(find_lesions(truth, spacing_mm), find_lesions(prediction, spacing_mm))


def hausdorff(truth, prediction, spacing_mm) -> float:
    """Stands in for HD95: the largest distance, over all voxels rather than surfaces."""
    points = [np.argwhere(mask) * spacing_mm for mask in (truth, prediction)]
    return max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])


# Finding lesions


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1), (None, 1)])
def test_contact_by_face_edge_and_corner(connectivity, count):
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, :2] = True  # touches the next by its face
    mask[0, 1, 2] = True  # by an edge
    mask[1, 2, 1] = True  # by a corner
    assert len(find_lesions(mask, CUBE_MM, connectivity).boxes) == count


@pytest.mark.parametrize(("connectivity", "count"), [(4, 2), (8, 1), (None, 1)])
def test_diagonal_contact_in_a_plane(connectivity, count):
    assert len(find_lesions(picture("#.", ".#"), SQUARE_MM, connectivity).boxes) == count


def test_a_lesion_is_cut_out_with_its_place_and_size():
    lesions = find_lesions(picture("......", "....##", "#....#"), (0.5, 2.0))
    assert lesions.boxes == [(slice(1, 3), slice(4, 6)), (slice(2, 3), slice(0, 1))]
    assert [mask.tolist() for mask in lesions.masks] == [[[True, True], [False, True]], [[True]]]
    assert lesions.voxels.tolist() == [3, 1]
    assert lesions.voxel_mm3 == 1.0


def test_lesions_below_the_minimum_are_dropped_and_counted():
    mask = line((0, 1), (5, 7), (10, 13))
    lesions = find_lesions(mask, (2.0, 1.0, 1.0), min_volume_mm3=4.0)  # of 2, 4 and 6 mm³
    assert lesions.voxels.tolist() == [2, 3]
    assert lesions.dropped == 1


def test_an_empty_mask_has_no_lesions():
    lesions = find_lesions(np.zeros((4, 4), bool), SQUARE_MM)
    assert (lesions.boxes, lesions.masks, lesions.voxels.tolist(), lesions.dropped) == ([], [], [], 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(2, 4, 1), (2, 8, 2), (3, 6, 1), (3, 18, 2), (3, 26, 3)]))
def test_lesions_are_the_components_of_the_whole_image(seed, case):
    axes, connectivity, reach = case
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 30, axes)) < rng.choice([0.003, 0.05, 0.4])
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(axes, reach))
    lesions = find_lesions(mask, (1.0,) * axes, connectivity)
    found = {
        frozenset(map(tuple, np.argwhere(part) + [side.start for side in box]))
        for box, part in zip(lesions.boxes, lesions.masks, strict=True)
    }
    assert found == {frozenset(map(tuple, np.argwhere(labels == number))) for number in range(1, count + 1)}
    assert lesions.voxels.sum() == mask.sum()


def test_the_order_in_memory_does_not_matter():
    mask = np.random.RandomState(0).random_sample((30, 21, 17)) > 0.9
    one, other = (find_lesions(mask.copy(order), CUBE_MM, 6) for order in "CF")
    assert len(one.boxes) > 100
    assert one.boxes == other.boxes
    assert all((a == b).all() for a, b in zip(one.masks, other.masks, strict=True))


@pytest.mark.parametrize(
    ("mask", "spacing_mm", "connectivity", "message"),
    [
        (np.ones((2, 2)), SQUARE_MM, None, "bool mask of two or three axes, got float64"),
        (np.ones(2, bool), (1.0,), None, "two or three axes"),
        (np.ones((2, 2), bool), SQUARE_MM, 26, r"connectivity of \[4, 8\] in 2D, got 26"),
        (np.ones((2, 2), bool), CUBE_MM, None, "2 voxel sizes above 0 mm"),
        (np.ones((2, 2), bool), (1.0, 0.0), None, "2 voxel sizes above 0 mm"),
    ],
)
def test_what_cannot_be_searched_is_refused(mask, spacing_mm, connectivity, message):
    with pytest.raises(ValueError, match=message):
        find_lesions(mask, spacing_mm, connectivity)


# Overlaps and matching

TWO = line((0, 4), (10, 16))
"""Lesions of four and six voxels."""


def test_overlaps_are_counted_by_hand():
    overlaps = overlaps_of(TWO, line((2, 5), (14, 22), (30, 31)))
    assert overlaps.truth.tolist() == [1, 2]
    assert overlaps.prediction.tolist() == [1, 2]
    assert overlaps.voxels.tolist() == [2, 2]
    assert overlaps.iou.tolist() == [2 / 5, 2 / 12]
    assert overlaps.dice.tolist() == [4 / 7, 4 / 14]
    assert overlaps.prediction_voxels.tolist() == [3, 8, 1]


def test_boxes_may_overlap_where_lesions_do_not():
    ring = picture("#####", "#...#", "#...#", "#...#", "#####")
    dot = picture(".....", ".....", "..#..", ".....", ".....")
    overlaps = overlaps_of(ring, dot)
    assert overlaps.voxels.tolist() == []
    assert match_lesions(overlaps).counts == LesionCounts(found=0, missed=1, matched=0, false_positives=1)


def test_images_must_be_of_one_shape():
    lesions = find_lesions(TWO, CUBE_MM)
    with pytest.raises(ValueError, match="one image's shape"):
        lesion_overlaps(lesions, find_lesions(TWO[1:], CUBE_MM))


def test_one_of_two_lesions_is_found_and_one_prediction_is_false():
    matches = match_lesions(overlaps_of(TWO, line((3, 6), (30, 33))))
    assert matches.found.tolist() == [True, False]
    assert matches.matched.tolist() == [True, False]
    assert matches.pairs.dice.tolist() == [2 / 7]
    assert matches.counts == LesionCounts(found=1, missed=1, matched=1, false_positives=1)
    assert lesion_sensitivity(matches.counts) == lesion_precision(matches.counts) == 0.5
    assert lesion_f1(matches.counts) == 0.5


@pytest.mark.parametrize(
    ("rule", "threshold", "counts"),
    [
        ("any-overlap", 0.5, LesionCounts(found=2, missed=0, matched=1, false_positives=0)),
        ("overlap-share", 1.0, LesionCounts(found=1, missed=1, matched=1, false_positives=0)),
        ("overlap-share", 0.75, LesionCounts(found=2, missed=0, matched=1, false_positives=0)),
        ("iou", 0.2, LesionCounts(found=1, missed=1, matched=1, false_positives=0)),
        ("iou", 0.5, LesionCounts(found=0, missed=2, matched=0, false_positives=1)),
    ],
)
def test_one_prediction_over_two_lesions_under_each_rule(rule, threshold, counts):
    overlaps = overlaps_of(TWO, line((1, 16)))  # covers 3 of 4 and 6 of 6; IoU 3/16 and 6/15
    assert match_lesions(overlaps, rule, threshold).counts == counts


def test_predictions_cover_a_lesion_together():
    overlaps = overlaps_of(line((0, 10)), line((0, 3), (7, 10), (20, 21)))
    counts = match_lesions(overlaps, "overlap-share", 0.6).counts
    assert counts == LesionCounts(found=1, missed=0, matched=2, false_positives=1)
    assert match_lesions(overlaps, "overlap-share", 0.61).counts.found == 0


def test_the_greatest_iou_comes_first_and_each_lesion_only_once():
    overlaps = overlaps_of(line((0, 10)), line((0, 3), (4, 10)))  # IoU 0.3 and 0.6
    matches = match_lesions(overlaps, "iou", 0.1)
    assert matches.pairs.prediction.tolist() == [2]
    assert matches.pairs.iou.tolist() == [0.6]
    assert matches.counts == LesionCounts(found=1, missed=0, matched=1, false_positives=1)


def test_an_iou_of_the_threshold_is_not_enough():
    assert match_lesions(overlaps_of(line((0, 4)), line((0, 2))), "iou", 0.5).counts.found == 0


def test_rules_and_thresholds_that_do_not_exist_are_refused():
    overlaps = overlaps_of(TWO, TWO)
    with pytest.raises(ValueError, match=r"matching rule of .*, got 'distance'"):
        match_lesions(overlaps, "distance")
    with pytest.raises(ValueError, match=r"threshold in \[0, 1\], got 50"):
        match_lesions(overlaps, "iou", 50)


def test_empty_masks_leave_scores_undefined_that_have_no_lesions_to_count():
    nothing = line()
    neither = match_lesions(overlaps_of(nothing, nothing)).counts
    assert neither == LesionCounts(0, 0, 0, 0)
    assert all(math.isnan(score(neither)) for score in (lesion_sensitivity, lesion_precision, lesion_f1))
    only_truth = match_lesions(overlaps_of(TWO, nothing)).counts
    assert only_truth == LesionCounts(found=0, missed=2, matched=0, false_positives=0)
    assert lesion_sensitivity(only_truth) == lesion_f1(only_truth) == 0
    assert math.isnan(lesion_precision(only_truth))
    only_prediction = match_lesions(overlaps_of(nothing, TWO), "overlap-share").counts
    assert only_prediction == LesionCounts(found=0, missed=0, matched=0, false_positives=2)
    assert lesion_precision(only_prediction) == lesion_f1(only_prediction) == 0
    assert math.isnan(lesion_sensitivity(only_prediction))


def test_cases_are_pooled_and_averaged_by_hand():
    cases = [LesionCounts(2, 0, 1, 0), LesionCounts(0, 1, 0, 3)]
    pooled = pool_lesions(cases)
    assert pooled == LesionCounts(2, 1, 1, 3)
    assert lesion_sensitivity(pooled) == 2 / 3
    assert lesion_precision(pooled) == 1 / 4
    assert lesion_f1(pooled) == pytest.approx(4 / 11)  # 2 · (2/3 · 1/4) / (2/3 + 1/4)
    assert false_positives_per_case(cases) == 1.5
    assert math.isnan(false_positives_per_case([]))


def test_panoptic_quality_by_hand():
    quality = panoptic_quality(overlaps_of(TWO, line((0, 3), (11, 16), (20, 21))))
    ious = 3 / 4 + 5 / 6
    assert quality.sq == pytest.approx(ious / 2)
    assert quality.rq == 2 / (2 + 1 / 2)
    assert quality.pq == pytest.approx(ious / 2.5) == pytest.approx(quality.sq * quality.rq)


def test_panoptic_quality_without_a_match():
    missed = panoptic_quality(overlaps_of(TWO, line()))
    assert (missed.pq, missed.rq) == (0, 0)
    assert math.isnan(missed.sq)
    assert all(math.isnan(value) for value in panoptic_quality(overlaps_of(line(), line())))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["any-overlap", "overlap-share", "iou"]))
def test_the_numbers_of_lesions_change_nothing(seed, rule):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.random((2, 12, 12)) < 0.3
    found = [find_lesions(mask, SQUARE_MM, 4) for mask in (truth, prediction)]
    shuffled = []
    for lesions in found:
        order = rng.permutation(len(lesions.boxes))
        boxes, masks = ([parts[index] for index in order] for parts in (lesions.boxes, lesions.masks))
        shuffled.append(lesions._replace(boxes=boxes, masks=masks, voxels=lesions.voxels[order]))
    plain, mixed = lesion_overlaps(*found), lesion_overlaps(*shuffled)
    assert match_lesions(plain, rule).counts == match_lesions(mixed, rule).counts
    np.testing.assert_allclose(panoptic_quality(plain), panoptic_quality(mixed))
    assert plain.voxels.sum() == (truth & prediction).sum()


# FROC

TWO_CASES = [
    CaseCandidates(lesion_score=np.array([0.9, 0.4]), false_positive_score=np.array([0.6])),
    CaseCandidates(lesion_score=np.array([np.nan]), false_positive_score=np.array([0.7, 0.4, 0.2])),
]


def test_froc_of_two_cases_by_hand():
    curve = froc(TWO_CASES)
    assert curve.threshold.tolist() == [np.inf, 0.9, 0.7, 0.6, 0.4, 0.2]
    assert curve.false_positives_per_case.tolist() == [0, 0, 0.5, 1, 1.5, 2]
    assert curve.sensitivity.tolist() == [0, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3]
    # between 1 and 1.5 a lesion and a false positive have the same score; after 2 the curve has ended
    assert froc_sensitivity(curve, [0, 0.75, 1.25, 8]) == pytest.approx([1 / 3, 1 / 3, 1 / 2, 2 / 3])
    assert froc_score(curve) == pytest.approx((4 * (1 / 3) + 3 * (2 / 3)) / 7)


def test_froc_agrees_with_the_route_of_luna16_through_sklearn():
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    cases = [CaseCandidates(np.round(rng.random(4), 2), np.round(0.8 * rng.random(9), 2)) for _ in range(5)]
    lesion = np.concatenate([case.lesion_score for case in cases])
    false = np.concatenate([case.false_positive_score for case in cases])
    is_lesion = np.repeat([1, 0], [len(lesion), len(false)])
    false_rate, sensitivity, _ = roc_curve(is_lesion, np.concatenate([lesion, false]))
    per_case = np.round(false_rate * len(false)) / len(cases)
    reference = np.interp([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], per_case, sensitivity)
    np.testing.assert_allclose(froc_sensitivity(froc(cases)), reference)


def test_froc_without_true_lesions_has_no_sensitivity():
    curve = froc([CaseCandidates(np.array([]), np.array([0.5]))])
    assert curve.false_positives_per_case.tolist() == [0, 1]
    assert np.isnan(curve.sensitivity).all()
    assert math.isnan(froc_score(curve))
    with pytest.raises(ValueError, match="at least one case"):
        froc([])


def test_candidates_are_scored_by_their_maximum():
    probability = np.zeros((40, 1, 1))
    probability[2:6, 0, 0] = 0.2, 0.6, 0.3, 0.1  # on the first lesion, and below the threshold at 5
    probability[8:11, 0, 0] = 0.1, 0.4, 0.5  # two on the second lesion …
    probability[14, 0, 0] = 0.8
    probability[20, 0, 0] = 0.7  # … and one on none
    truth = find_lesions(line((0, 4), (10, 16), (30, 31)), CUBE_MM)
    candidates = lesion_candidates(probability, truth, 0.2, CUBE_MM)
    np.testing.assert_array_equal(candidates.lesion_score, [0.6, 0.8, np.nan])
    assert candidates.false_positive_score.tolist() == [0.7]
    large = lesion_candidates(probability, truth, 0.2, CUBE_MM, min_volume_mm3=2)
    np.testing.assert_array_equal(large.lesion_score, [0.6, 0.5, np.nan])
    assert large.false_positive_score.tolist() == []


def test_a_map_without_candidates_misses_every_lesion():
    candidates = lesion_candidates(np.zeros((40, 1, 1)), find_lesions(TWO, CUBE_MM), 0.1, CUBE_MM)
    assert np.isnan(candidates.lesion_score).tolist() == [True, True]
    assert froc([candidates]).sensitivity.tolist() == [0]


# BraTS 2023

RULES = BratsRules(dilations=1, ignored_mm3=2.0)
"""Lesions with two voxels between them touch once dilated; of two voxels they are ignored."""


def test_brats_by_hand():
    # merged over a gap of two (6 voxels), ignored (2 voxels), apart by three (4 voxels), missed (3 voxels)
    truth = line((0, 4), (6, 8), (11, 13), (16, 20), (30, 33))
    prediction = line((2, 7), (13, 14), (20, 22), (25, 26))
    scores = brats_scores(truth, prediction, CUBE_MM, RULES, hausdorff)
    assert scores.lesions == [
        BratsLesion(volume_mm3=6, predictions=1, dice=2 * 3 / (6 + 5), hd95_mm=2),  # to 0 and to 4–5
        BratsLesion(volume_mm3=4, predictions=1, dice=0, hd95_mm=4),  # met by its dilation only
        BratsLesion(volume_mm3=3, predictions=0, dice=0, hd95_mm=374),
    ]
    assert (scores.ignored, scores.false_positives) == (1, 1)  # 13 is near the ignored one; 25 is near none
    assert scores.dice == pytest.approx(6 / 11 / 4)
    assert scores.hd95_mm == (2 + 4 + 374 + 374) / 4


def test_brats_counts_one_prediction_in_full_for_every_lesion_it_meets():
    scores = brats_scores(TWO, line((0, 16)), CUBE_MM, RULES, hausdorff)
    assert [lesion.dice for lesion in scores.lesions] == [2 * 4 / 20, 2 * 6 / 22]
    assert scores.false_positives == 0


def test_brats_joins_the_predictions_of_one_lesion():
    scores = brats_scores(line((0, 10)), line((0, 2), (8, 12)), CUBE_MM, RULES, hausdorff)
    assert scores.lesions == [BratsLesion(volume_mm3=10, predictions=2, dice=8 / 16, hd95_mm=3)]


@pytest.mark.parametrize(
    ("truth", "prediction", "dice", "hd95_mm"),
    [
        (line(), line(), 1, 0),
        (line((0, 2)), line(), 1, 0),  # ignored
        (line((0, 2)), line((0, 9)), 1, 0),  # what matches it is no false positive
        (TWO, line(), 0, 374),
        (line(), TWO, 0, 374),
    ],
)
def test_brats_of_empty_masks_and_ignored_lesions(truth, prediction, dice, hd95_mm):
    scores = brats_scores(truth, prediction, CUBE_MM, RULES, hausdorff)
    assert (scores.dice, scores.hd95_mm) == (dice, hd95_mm)


def test_brats_measures_volume_and_distance_in_millimetres():
    scores = brats_scores(line((0, 2)), line((0, 3)), (4.0, 1.0, 1.0), RULES, hausdorff)
    assert scores.lesions == [BratsLesion(volume_mm3=8, predictions=1, dice=4 / 5, hd95_mm=4)]


def brats_of_whole_images(truth, prediction, rules) -> tuple[float, float]:
    """The same mean, on whole images, lesion after lesion."""
    corners = np.ones((3, 3, 3))
    edges = ndimage.generate_binary_structure(3, 2)
    dilated, lesions = ndimage.label(ndimage.binary_dilation(truth, edges, rules.dilations), corners)
    predicted, components = ndimage.label(prediction, corners)
    scored, unmatched = [], set(range(1, components + 1))
    for number in range(1, lesions + 1):
        lesion = truth & (dilated == number)
        near = set(predicted[dilated == number]) - {0}
        unmatched -= near
        match = np.isin(predicted, list(near))
        if lesion.sum() > rules.ignored_mm3:
            dice = 2 * (lesion & match).sum() / (lesion.sum() + match.sum())
            scored.append((dice, hausdorff(lesion, match, CUBE_MM) if near else 374))
    scored += [(0, 374)] * len(unmatched)
    return tuple(np.mean(scored, axis=0)) if scored else (1.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BRATS_2023)))
def test_brats_in_boxes_is_brats_on_whole_images(seed, challenge):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 24, 20, 16)), (0, 2, 2, 2))
    truth, prediction = smooth > np.quantile(smooth, rng.uniform(0.9, 1))
    scores = brats_scores(truth, prediction, CUBE_MM, BRATS_2023[challenge], hausdorff)
    reference = brats_of_whole_images(truth, prediction, BRATS_2023[challenge])
    assert (scores.dice, scores.hd95_mm) == pytest.approx(reference)


def test_brats_wants_three_axes_and_a_dilation():
    with pytest.raises(ValueError, match="three axes"):
        brats_scores(np.ones((2, 2), bool), np.ones((2, 2), bool), SQUARE_MM, RULES, hausdorff)
    with pytest.raises(ValueError, match="one dilation or more"):
        brats_scores(TWO, TWO, CUBE_MM, BratsRules(0, 2.0), hausdorff)
