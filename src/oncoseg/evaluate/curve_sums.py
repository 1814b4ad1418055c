"""What curves over many cases need of each: sums that add up over cases, patients and processes.

A map of any size leaves a few kB: voxels by probability, reliability bins, and the scores of lesions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.metrics import calibration, froc, histogram, lesions
from oncoseg.metrics.calibration import CALIBRATION_BINS, CalibrationSums
from oncoseg.metrics.overlap import Confusion

CURVE_BINS = 500
"""Bins of probability, equally wide in its logit: neighbours are 0.064 apart there, 0.016 around 0.5."""

CANDIDATE_THRESHOLD = 0.1
"""Probability from which a voxel is of a candidate lesion, for the FROC curve."""


class CurveSums(NamedTuple):
    """What the curves of a case and class need, or of several together; `pool` adds them up.

    Attributes:
        cases: with a probability map; what follows is of these.
        voxels: int64 `2 × CURVE_BINS`, see `metrics.probability_histogram`.
        calibration: see there.
        counts: voxels of the mask that came with the map.
        froc_cases: of them, those in which lesions could be told apart.
        lesions: true lesions in these.
        found: int64 per bin, true lesions by the greatest score of a candidate that hits them.
        false: int64 per bin, candidates that hit no lesion by their score.
        missing_cases: without a map, where there should be one.
        missing_voxels: tumour voxels in them.
        missing_lesions: true lesions in them.
    """

    cases: int
    voxels: np.ndarray
    calibration: CalibrationSums
    counts: Confusion
    froc_cases: int
    lesions: int
    found: np.ndarray
    false: np.ndarray
    missing_cases: int
    missing_voxels: int
    missing_lesions: int


def of_case(
    probability: np.ndarray | None,
    truth: np.ndarray,
    counts: Confusion,
    spacing_mm: Sequence[float] | None,
    connectivity: int,
    min_lesion_mm3: float,
) -> CurveSums:
    """Sum up one case and class.

    Args:
        probability: in [0, 1], axes `i j k`; None where the map is missing.
        truth: bool, of the same shape.
        counts: voxels of the mask that came with the map.
        spacing_mm: voxel size along i, j, k; None where unknown.
        connectivity: neighbours of a voxel that join it to a lesion.
        min_lesion_mm3: smaller lesions and candidates are left out; above 0, cases without a voxel size
            have no part in the FROC curve.

    Raises:
        ValueError: shapes that differ, or a probability outside [0, 1].
    """
    told_apart = spacing_mm is not None or min_lesion_mm3 == 0
    sizes = spacing_mm if spacing_mm is not None else [1.0] * truth.ndim
    if probability is None:
        known = lesions.find_lesions(truth, sizes, connectivity, min_lesion_mm3) if told_apart else None
        number = len(known.voxels) if known else 0
        return NOTHING._replace(
            missing_cases=1, missing_voxels=int(np.count_nonzero(truth)), missing_lesions=number
        )
    sums = NOTHING._replace(
        cases=1,
        voxels=histogram.probability_histogram(probability, truth, CURVE_BINS),
        calibration=calibration.calibration_sums(probability, truth),
        counts=counts,
    )
    if not told_apart:
        return sums
    true = lesions.find_lesions(truth, sizes, connectivity, min_lesion_mm3)
    scores = froc.lesion_candidates(
        probability, true, CANDIDATE_THRESHOLD, sizes, connectivity, min_lesion_mm3
    )
    best = scores.lesion_score[~np.isnan(scores.lesion_score)]
    return sums._replace(
        froc_cases=1,
        lesions=len(true.voxels),
        found=_by_bin(best),
        false=_by_bin(scores.false_positive_score),
    )


def pool(sums: Iterable[CurveSums]) -> CurveSums:
    """Add up sums as if all were of one case."""
    every = [NOTHING, *sums]
    together: dict[str, Any] = {
        name: sum(column)
        for name, column in zip(CurveSums._fields, zip(*every, strict=True), strict=True)
        if name not in ("calibration", "counts")
    }
    return CurveSums(
        **together,
        calibration=calibration.pool_calibration(one.calibration for one in every),
        counts=metrics.pool(one.counts for one in every),
    )


def as_json(sums: CurveSums) -> dict[str, Any]:
    """As JSON can hold it, empty bins left out; docs/metrics.md describes it."""
    voxels = np.flatnonzero(sums.voxels.any(axis=0))
    return sums._asdict() | {
        "voxels": {
            "bin": voxels.tolist(),
            "background": sums.voxels[0, voxels].tolist(),
            "tumour": sums.voxels[1, voxels].tolist(),
        },
        "calibration": {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in sums.calibration._asdict().items()
        },
        "counts": sums.counts._asdict(),
        "found": _filled(sums.found),
        "false": _filled(sums.false),
    }


def from_json(values: Mapping[str, Any]) -> CurveSums:
    """Read what `as_json` gave.

    Raises:
        KeyError: a part is missing.
    """
    voxels = np.zeros((2, CURVE_BINS), np.int64)
    voxels[:, values["voxels"]["bin"]] = values["voxels"]["background"], values["voxels"]["tumour"]
    sums = values["calibration"]
    arrays = {
        "voxels": voxels,
        "calibration": CalibrationSums(
            np.array(sums["voxels"], np.int64),
            np.array(sums["probability"], np.float64),
            np.array(sums["positives"], np.int64),
            sums["squared_error"],
        ),
        "counts": Confusion(**values["counts"]),
        "found": _dense(values["found"]),
        "false": _dense(values["false"]),
    }
    return CurveSums(**{name: values[name] for name in CurveSums._fields} | arrays)


def _by_bin(scores: np.ndarray) -> np.ndarray:
    return np.bincount(histogram.probability_bin(scores, CURVE_BINS), minlength=CURVE_BINS)


def _filled(counts: np.ndarray) -> dict[str, list[int]]:
    bins = np.flatnonzero(counts)
    return {"bin": bins.tolist(), "number": counts[bins].tolist()}


def _dense(values: Mapping[str, Sequence[int]]) -> np.ndarray:
    counts = np.zeros(CURVE_BINS, np.int64)
    counts[list(values["bin"])] = values["number"]
    return counts


def _nothing() -> CurveSums:
    zeros = np.zeros((2, CURVE_BINS), np.int64)
    by_bin = np.zeros(CALIBRATION_BINS, np.int64)
    for array in (zeros, by_bin):
        array.setflags(write=False)
    sums = CalibrationSums(by_bin, by_bin.astype(float), by_bin, 0.0)
    return CurveSums(0, zeros, sums, metrics.NO_VOXELS, 0, 0, zeros[0], zeros[0], 0, 0, 0)


NOTHING = _nothing()
"""Sums of no case."""
