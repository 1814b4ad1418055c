"""The sentences below the plots: what is drawn, of how many, and what was missing or ruled."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oncoseg import statistics
from oncoseg.evaluate.curve_sums import CANDIDATE_THRESHOLD
from oncoseg.evaluate.long_table import Row
from oncoseg.report import words

BAND = (
    f"Shaded, or with whiskers: the pointwise {statistics.CONFIDENCE:.0%} interval from drawing the "
    f"patients anew ({statistics.RESAMPLES:,} times, with a fixed seed), of percentiles; numbers "
    "have BCa intervals, which may differ at the same point. It stands for each point alone, "
    "not for the whole curve."
)
"""What a band means."""

NOT_GIVEN = (
    "No number is read off these curves, as false positives that were never handed in would make it look "
    "better"
)
"""What a missing map costs."""


def of_spread(rows: Sequence[Row]) -> list[str]:
    """About boxes, histograms and volumes."""
    said = [
        "One dot per patient. From five on a box holds the middle half of them, its line is the median, and "
        "the whiskers end within 1.5 boxes."
    ]
    if any(row.rule and not math.isnan(row.value) for row in rows):
        said.append(
            "A cross is a value that a rule for empty or missing masks decided, if only in some cases."
        )
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.metric, []).append(row.value)
    undefined = [metric for metric, found in values.items() if all(map(math.isnan, found))]
    if undefined:
        said.append(f"Undefined for every patient, and not drawn: {', '.join(undefined)}.")
    return said


def of_voxels(described: Mapping[str, Any]) -> list[str]:
    """About ROC, precision–recall, reliability and the confusion matrix."""
    if described["maps"] is None:
        said = ["There are no probability maps and so no curves: a mask alone is a single point of one."]
    else:
        said = [*_of_ranking(described), *_of_missing(described["maps"])]
    return [
        *said,
        f"The matrix is of the masks of all {words.patients(described['patients'])}: each cell's share of "
        "its row with its interval, and the number of voxels. A missing prediction counts as an empty one.",
        *_lost(
            described["voxels"]["not_comparable"],
            "Specificity and precision of the masks are not given, as false positives that were never handed "
            "in would make them look better",
        ),
    ]


def of_lesions(described: Mapping[str, Any]) -> list[str]:
    """About the FROC curve."""
    maps, curve = described["maps"], described["froc"]
    if curve is None:
        without_size = maps["cases"] > 0 and maps["cases"] == maps["without_voxel_size"]
        why = "no voxel size" if without_size else "no lesion, or no probability map that can be used"
        return [f"There is no FROC curve: {why}."]
    said = [
        f"{curve['lesions']} true lesions, and {curve['candidates']} candidates that hit none, in "
        f"{words.cases(curve['cases'])}. A candidate is a connected part of the map from probability "
        f"{CANDIDATE_THRESHOLD} on. Its score is its highest probability, and it finds every lesion that it "
        "shares a voxel with. The dots are where LUNA16 reads a curve.",
        _band_or_not(curve["sensitivity"], "lesions", "The band is made as that above."),
    ]
    if maps["missing"]:
        counted = maps["missing_lesions_count"]
        rule = "their lesions count as never found" if counted else "they are left out"
        said.append(
            f"{_without_map(maps['missing'])}: by the policy {rule}. False positives are those per case with "
            "a map."
        )
        said += _lost(maps["lesions_not_comparable"], NOT_GIVEN)
    if maps["without_voxel_size"]:
        said.append(
            f"{words.cases(maps['without_voxel_size'])} without a voxel size left out: the smallest lesion "
            "that counts is in mm³."
        )
    return said


def of_detection(described: Mapping[str, Any]) -> list[str]:
    """About the confusion matrix of patients."""
    said = ["Whether any voxel is marked at all. Shares with Wilson's 95 % interval."]
    if any(described["detection"]["missing"]):
        said.append("A missing prediction is wrong, whatever the truth holds.")
    return said


def _of_ranking(described: Mapping[str, Any]) -> list[str]:
    cases = described["maps"]["cases"]
    if described["roc"] is None:
        why = "no tumour in the truth, or nothing else" if cases else "no probability map that can be used"
        return [f"There is no ROC and no precision–recall curve: {why}."]
    return [
        f"All voxels of {words.cases(cases)} with a probability map together. The large dot is the mask that "
        "was handed in. Most of the background is easy, so the ROC curve flatters; precision–recall does "
        "not. Dotted: what chance gives, or perfect reliability.",
        _band_or_not(described["roc"]["recall"], "tumour"),
    ]


def _of_missing(maps: Mapping[str, Any]) -> list[str]:
    if not maps["missing"]:
        return []
    rule = (
        "their tumour voxels count as found at no threshold; what they would mark wrongly is not known"
        if maps["missing_counts"]
        else "they are left out"
    )
    return [
        f"{_without_map(maps['missing'])}: by the policy {rule}. Reliability is that of the others.",
        *_lost(maps["not_comparable"], NOT_GIVEN),
    ]


def _lost(why: str, what: str) -> list[str]:
    return [f"{what} ({why})."] if why else []


def _band_or_not(curve: Mapping[str, Any], what: str, band: str = BAND) -> str:
    if curve["low"] is not None:
        return band
    few = curve["note"].removeprefix("no interval: ").replace(",", f" with {what},")
    return f"No intervals of the curves: {few}."


def _without_map(missing: int) -> str:
    return f"{words.cases(missing)} {'has' if missing == 1 else 'have'} no probability map that can be used"
