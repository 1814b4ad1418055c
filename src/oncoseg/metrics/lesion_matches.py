"""True and predicted lesions matched by a stated rule, and scores of the counts."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from oncoseg.metrics.lesions import Overlaps

MatchingRule = Literal["any-overlap", "overlap-share", "iou"]
"""When a predicted and a true lesion match; see `match_lesions`."""

PANOPTIC_IOU = 0.5
"""Matched lesions of panoptic quality have more; above it nothing can match twice."""


class LesionCounts(NamedTuple):
    """Numbers of lesions. One prediction may match several true lesions, so `found` is not `matched`.

    Attributes:
        found: true lesions with a match (true positives).
        missed: true lesions without (false negatives).
        matched: predicted lesions with a match.
        false_positives: predicted lesions without.
    """

    found: int
    missed: int
    matched: int
    false_positives: int


class LesionMatches(NamedTuple):
    """Which lesions match.

    Attributes:
        found: bool, whether true lesion 1, 2, … has a match.
        matched: bool, whether predicted lesion 1, 2, … has a match.
        pairs: the overlaps, of matched pairs only.
    """

    found: np.ndarray
    matched: np.ndarray
    pairs: Overlaps

    @property
    def counts(self) -> LesionCounts:
        """How many lesions match."""
        found, matched = int(self.found.sum()), int(self.matched.sum())
        return LesionCounts(found, len(self.found) - found, matched, len(self.matched) - matched)


def match_lesions(
    overlaps: Overlaps, rule: MatchingRule = "any-overlap", threshold: float = 0.5
) -> LesionMatches:
    """Match true and predicted lesions. Nothing matches where either mask is empty.

    - `any-overlap`: they share a voxel. Many to many, so that one prediction can find several lesions;
      a prediction of the whole image finds all.
    - `overlap-share`: they share a voxel, and at least the threshold's share of the true lesion is
      covered by all predicted lesions together. Many to many as well.
    - `iou`: their intersection over union is above the threshold. One to one: the pair with the
      greatest comes first, the lower labels first where it is equal. From 0.5 on no choice arises.

    Args:
        overlaps: from `lesion_overlaps`.
        rule: a MatchingRule.
        threshold: a share of voxels, in [0, 1]; `any-overlap` has none.

    Raises:
        ValueError: an unknown rule or a threshold out of range.
    """
    if rule not in get_args(MatchingRule):
        raise ValueError(f"Expected a matching rule of {get_args(MatchingRule)}, got {rule!r}.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold in [0, 1], got {threshold}.")
    chosen = np.arange(len(overlaps.voxels))
    if rule == "overlap-share":
        chosen = chosen[_covered_share(overlaps)[overlaps.truth - 1] >= threshold]
    elif rule == "iou":
        chosen = _one_to_one(overlaps, threshold)
    truth, prediction = overlaps.truth[chosen], overlaps.prediction[chosen]
    pairs = overlaps._replace(truth=truth, prediction=prediction, voxels=overlaps.voxels[chosen])
    found = np.isin(np.arange(1, len(overlaps.truth_voxels) + 1), truth)
    matched = np.isin(np.arange(1, len(overlaps.prediction_voxels) + 1), prediction)
    return LesionMatches(found, matched, pairs)


def pool_lesions(counts: Iterable[LesionCounts]) -> LesionCounts:
    """Sum counts as if all lesions were of one case."""
    return LesionCounts(*(sum(column) for column in zip((0, 0, 0, 0), *counts, strict=True)))


def lesion_sensitivity(counts: LesionCounts) -> float:
    """Share of true lesions that are found, in [0, 1]; NaN without true lesions."""
    return _ratio(counts.found, counts.found + counts.missed)


def lesion_precision(counts: LesionCounts) -> float:
    """Share of predicted lesions that match, in [0, 1]; NaN without predicted lesions."""
    return _ratio(counts.matched, counts.matched + counts.false_positives)


def lesion_f1(counts: LesionCounts) -> float:
    """Harmonic mean of lesion sensitivity and precision; 0 if only one mask has lesions, NaN if none has.

    Both keep their own counts of matches, as in Commowick et al., Scientific Reports 2018 (MSSEG).
    """
    if not sum(counts):
        return math.nan
    if not counts.found:
        return 0.0
    return 2 / (1 / lesion_sensitivity(counts) + 1 / lesion_precision(counts))


def false_positives_per_case(counts: Sequence[LesionCounts]) -> float:
    """Mean number of predicted lesions that match nothing; NaN without cases."""
    return _ratio(pool_lesions(counts).false_positives, len(counts))


class PanopticQuality(NamedTuple):
    """Kirillov et al., CVPR 2019, equations 1 and 2.

    Attributes:
        pq: panoptic quality = Σ IoU / (TP + FP/2 + FN/2) = SQ · RQ; NaN if neither mask has lesions.
        sq: segmentation quality, mean IoU of the matched; NaN if none match.
        rq: recognition quality = TP / (TP + FP/2 + FN/2), the lesions' F1; NaN if neither mask has any.
    """

    pq: float
    sq: float
    rq: float


def panoptic_quality(overlaps: Overlaps) -> PanopticQuality:
    """How well lesions are found and outlined, matched one to one at IoU > 0.5."""
    matches = match_lesions(overlaps, "iou", PANOPTIC_IOU)
    half_lesions = (len(matches.found) + len(matches.matched)) / 2
    iou = matches.pairs.iou
    return PanopticQuality(
        pq=_ratio(float(iou.sum()), half_lesions),
        sq=_ratio(float(iou.sum()), len(iou)),
        rq=_ratio(len(iou), half_lesions),
    )


def _covered_share(overlaps: Overlaps) -> np.ndarray:
    covered = np.zeros(len(overlaps.truth_voxels), np.int64)
    np.add.at(covered, overlaps.truth - 1, overlaps.voxels)
    share: np.ndarray = covered / overlaps.truth_voxels
    return share


def _one_to_one(overlaps: Overlaps, threshold: float) -> np.ndarray:
    iou = overlaps.iou
    taken: set[tuple[str, int]] = set()
    pairs = []
    for pair in np.argsort(-iou, kind="stable"):
        ends = {("truth", int(overlaps.truth[pair])), ("prediction", int(overlaps.prediction[pair]))}
        if iou[pair] > threshold and not ends & taken:
            taken |= ends
            pairs.append(pair)
    return np.array(pairs, np.int64)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
