"""FROC: lesions found against false positives per case, over all thresholds of a probability.

Bunch et al., Journal of Applied Photographic Engineering 1978; scored as in LUNA16 (Setio et al.,
Medical Image Analysis 2017).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.metrics.lesions import Lesions, find_lesions, lesion_overlaps

LUNA16_FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per case at which LUNA16 reads a curve."""


class CaseCandidates(NamedTuple):
    """Scores of one case's candidate lesions: all that a FROC curve needs of it.

    Several candidates on one true lesion are one find, with the greatest score, and no false positive.

    Attributes:
        lesion_score: of true lesion 1, 2, … the greatest of its candidates; NaN where it has none.
        false_positive_score: of every candidate that hits no true lesion.
    """

    lesion_score: np.ndarray
    false_positive_score: np.ndarray


def lesion_candidates(
    probability: np.ndarray,
    truth: Lesions,
    threshold: float,
    spacing_mm: Sequence[float],
    connectivity: int | None = None,
    min_volume_mm3: float = 0.0,
) -> CaseCandidates:
    """Candidates of a probability map: its components above a low threshold, scored by their maximum.

    A candidate hits every true lesion with which it shares a voxel. Components are those at the one
    threshold given: what has grown together there stays together at every point of the curve.

    Args:
        probability: any shape of two or three axes.
        truth: lesions of the same image.
        threshold: a voxel is of a candidate from this probability.
        spacing_mm: voxel size along every axis.
        connectivity: of candidates, as in `find_lesions`.
        min_volume_mm3: smaller candidates are dropped.

    Raises:
        ValueError: shapes that differ, or arguments that `find_lesions` refuses.
    """
    candidates = find_lesions(probability >= threshold, spacing_mm, connectivity, min_volume_mm3)
    overlaps = lesion_overlaps(truth, candidates)
    found = zip(candidates.boxes, candidates.masks, strict=True)
    score = np.array([probability[box][candidate].max() for box, candidate in found], np.float64)
    best = np.full(len(truth.voxels), np.nan)
    np.fmax.at(best, overlaps.truth - 1, score[overlaps.prediction - 1])
    return CaseCandidates(best, np.delete(score, overlaps.prediction - 1))


class Froc(NamedTuple):
    """Operating points from the strictest threshold to the loosest, equally long arrays.

    Attributes:
        threshold: a candidate is positive from this score; infinity at first.
        false_positives_per_case: positive candidates that hit nothing, over the number of cases.
        sensitivity: share of all true lesions that are found; NaN without true lesions.
    """

    threshold: np.ndarray
    false_positives_per_case: np.ndarray
    sensitivity: np.ndarray


def froc(cases: Sequence[CaseCandidates]) -> Froc:
    """FROC curve of lesions pooled over cases, one point per score that occurs.

    A case without lesions or candidates counts as a case all the same.

    Raises:
        ValueError: no cases.
    """
    if not cases:
        raise ValueError("Expected at least one case, got none.")
    lesions = np.concatenate([case.lesion_score for case in cases])
    found = np.sort(lesions[~np.isnan(lesions)])
    false = np.sort(np.concatenate([case.false_positive_score for case in cases]))
    threshold = np.concatenate([[np.inf], np.unique(np.concatenate([found, false]))[::-1]])
    return Froc(
        threshold,
        (len(false) - np.searchsorted(false, threshold)) / len(cases),
        (len(found) - np.searchsorted(found, threshold)) / (len(lesions) or math.nan),
    )


def froc_sensitivity(
    curve: Froc, false_positives_per_case: Sequence[float] = LUNA16_FALSE_POSITIVES
) -> np.ndarray:
    """Sensitivity at numbers of false positives per case, as LUNA16 reads it.

    Linear between neighbouring operating points, which are a step apart unless scores are equal. Where
    several have the same false positives the best counts, and beyond the last point its sensitivity.
    NaN without true lesions.
    """
    sensitivity: np.ndarray = np.interp(
        false_positives_per_case, curve.false_positives_per_case, curve.sensitivity
    )
    return sensitivity


def froc_score(curve: Froc, false_positives_per_case: Sequence[float] = LUNA16_FALSE_POSITIVES) -> float:
    """Mean of `froc_sensitivity`, LUNA16's score (competition performance metric); NaN without lesions."""
    return float(froc_sensitivity(curve, false_positives_per_case).mean())
