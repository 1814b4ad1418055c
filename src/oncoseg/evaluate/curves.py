"""The curves of an evaluation with their intervals, and curves.json, which keeps them and what they rest on.

docs/metrics.md defines each curve and describes the file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg import metrics, statistics
from oncoseg.evaluate import curve_sums, pooled
from oncoseg.evaluate.curve_sums import CANDIDATE_THRESHOLD, CURVE_BINS, CurveSums
from oncoseg.evaluate.pooled import Patients
from oncoseg.evaluate.scoring import CaseScores, Scoring
from oncoseg.evaluate.withheld import forfeited, not_comparable
from oncoseg.files import without_nan, write_text
from oncoseg.metrics.calibration import CALIBRATION_BINS, reliability
from oncoseg.metrics.catalogue import outcome
from oncoseg.metrics.froc import LUNA16_FALSE_POSITIVES
from oncoseg.metrics.histogram import LOGIT_LIMIT
from oncoseg.statistics import Band, Estimate, Statistic

CURVES_FILE = "curves.json"
"""In an evaluation folder."""

FORMAT_VERSION = 2
"""Version of that file."""


def describe(
    patients: Sequence[CaseScores], scoring: Scoring, group: str = "", seed: int = 0
) -> dict[str, Any]:
    """Everything drawn of one class, as JSON can hold it.

    A missing map counts as `prediction_missing` says: where the outcome of `auc` is a number its tumour
    voxels are found at no threshold, and where it is `undefined` the case is left out; likewise its
    lesions, by the outcome of `lesion_sensitivity`. What false positives a missing map or mask may hold is
    not known: unless it is left out, the numbers that they would lower are not given.

    Args:
        patients: one row per patient, as from `of_patients`, of one class.
        scoring: as they were scored.
        group: what to call them together.
        seed: of the bootstrap.
    """
    sums = [row.curves for row in patients if row.curves is not None]
    described: dict[str, Any] = without_nan(
        {
            "group": group,
            "class": patients[0].label,
            "patients": len(patients),
            "voxels": _voxels(patients, seed),
            "detection": _detection(patients),
            **(_of_maps(sums, scoring, seed) if sums else {"maps": None}),
        }
    )
    return described


def write(folder: Path, cases: Sequence[CaseScores], parts: Sequence[Mapping[str, Any]]) -> None:
    """Write FOLDER/curves.json: what `describe` gave, and the sums of every case that it rests on."""
    sums = [
        {"group": row.group, "case": row.case, "patient": row.patient, "class": row.label}
        | curve_sums.as_json(row.curves)
        for row in cases
        if row.curves is not None
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "bins": CURVE_BINS,
        "logit_limit": LOGIT_LIMIT,
        "calibration_bins": CALIBRATION_BINS,
        "candidate_threshold": CANDIDATE_THRESHOLD,
        "parts": list(parts),
        "cases": sums,
    }
    write_text(folder / CURVES_FILE, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Read curves.json.

    Raises:
        OSError: it is not there.
        ValueError: not JSON, or of another version.
    """
    content: dict[str, Any] = json.loads((folder / CURVES_FILE).read_text(encoding="utf-8"))
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{CURVES_FILE} was made by another version of oncoseg")
    return content


def _of_maps(sums: Sequence[CurveSums], scoring: Scoring, seed: int) -> dict[str, Any]:
    together = curve_sums.pool(sums)
    counted = {name: _counts_missing(name, scoring) for name in ("auc", "lesion_sensitivity")}
    stacked = pooled.stack(_as_ruled(one, counted) for one in sums)
    missing = not_comparable(
        together.missing_cases, together.cases + together.missing_cases, "probability maps"
    )
    of_voxels, of_lesions = (missing if counts else "" for counts in counted.values())
    return {
        "maps": {
            "cases": together.cases,
            "missing": together.missing_cases,
            "missing_counts": counted["auc"],
            "missing_lesions_count": counted["lesion_sensitivity"],
            "not_comparable": of_voxels,
            "lesions_not_comparable": of_lesions,
            "without_voxel_size": together.cases - together.froc_cases,
        },
        **_ranking(stacked, together, of_voxels, counted["auc"], seed),
        "reliability": _reliability(stacked, together, of_voxels, seed) if together.cases else None,
        "froc": _froc(stacked, of_lesions, seed),
    }


def _counts_missing(metric: str, scoring: Scoring) -> bool:
    return outcome(metric, "prediction_missing", scoring.policy, scoring.outcomes) != "undefined"


def _as_ruled(sums: CurveSums, counted: Mapping[str, bool]) -> CurveSums:
    """With what is missing taken away where the policy leaves it out."""
    return sums._replace(
        missing_voxels=sums.missing_voxels * counted["auc"],
        missing_lesions=sums.missing_lesions * counted["lesion_sensitivity"],
    )


def _ranking(
    patients: Patients, together: CurveSums, lost: str, missing_counts: bool, seed: int
) -> dict[str, Any]:
    """ROC and precision–recall, where there is tumour and background."""
    tumour = patients.tumour.sum(axis=1) + patients.missing_voxels
    if not tumour.sum() or not patients.background.sum():
        return {"roc": None, "precision_recall": None}
    n, deciding = len(tumour), int((tumour > 0).sum())
    counts = together.counts
    missed = counts.fn + together.missing_voxels * missing_counts
    auc, average = statistics.estimate(partial(pooled.areas, patients), n, deciding, seed)
    roc = partial(pooled.recall_at, patients, pooled.FALSE_POSITIVE_RATES)
    precision = partial(pooled.precision_at, patients, pooled.RECALLS)
    recall_of_mask = _ratio(counts.tp, counts.tp + missed)
    return {
        "roc": {
            "false_positive_rate": pooled.FALSE_POSITIVE_RATES.tolist(),
            "recall": _band(roc, n, deciding, seed),
            "auc": forfeited(auc._asdict(), lost),
            "mask": [_ratio(counts.fp, counts.fp + counts.tn), recall_of_mask],
        },
        "precision_recall": {
            "recall": pooled.RECALLS.tolist(),
            "precision": _band(precision, n, deciding, seed),
            "average_precision": forfeited(average._asdict(), lost),
            "chance": float(tumour.sum() / (tumour.sum() + patients.background.sum())),
            "mask": [recall_of_mask, _ratio(counts.tp, counts.tp + counts.fp)],
        },
    }


def _reliability(patients: Patients, together: CurveSums, lost: str, seed: int) -> dict[str, Any]:
    curve, n = reliability(together.calibration), len(patients.voxels)
    with_map = int(patients.voxels.any(axis=1).sum())
    scores = statistics.estimate(partial(pooled.calibration_scores, patients), n, with_map, seed)
    return {
        "mean_probability": curve.mean_probability.tolist(),
        "observed_share": _band(partial(pooled.observed_share, patients), n, with_map, seed),
        "voxels": curve.voxels.tolist(),
        "brier": forfeited(scores[0]._asdict(), lost),
        "calibration_error": forfeited(scores[1]._asdict(), lost),
    }


def _froc(patients: Patients, lost: str, seed: int) -> dict[str, Any] | None:
    lesions = patients.lesions + patients.missing_lesions
    if not lesions.sum() or not patients.cases.sum():
        return None
    n, deciding = len(lesions), int((lesions > 0).sum())
    curve = partial(pooled.sensitivity_at, patients, pooled.FROC_RATES)
    points = statistics.estimate(
        partial(pooled.sensitivity_at, patients, LUNA16_FALSE_POSITIVES), n, deciding, seed
    )
    (score,) = statistics.estimate(partial(pooled.froc_score, patients), n, deciding, seed)
    return {
        "false_positives_per_case": pooled.FROC_RATES.tolist(),
        "sensitivity": _band(curve, n, deciding, seed),
        "points": [
            {"false_positives_per_case": rate} | forfeited(point._asdict(), lost)
            for rate, point in zip(LUNA16_FALSE_POSITIVES, points, strict=True)
        ],
        "score": forfeited(score._asdict(), lost),
        "lesions": int(lesions.sum()),
        "candidates": int(patients.false.sum()),
        "cases": int(patients.cases.sum()),
    }


def _voxels(patients: Sequence[CaseScores], seed: int) -> dict[str, Any]:
    """The confusion matrix over voxels, with rates that each rest on the patients who can move them.

    Recall can only fall where a mask is missing and counts as empty; the other two are then not given.
    """
    missing = sum(row.missing for row in patients)
    lost = not_comparable(missing, len(patients), "patients' masks")
    counts = [row.counts for row in patients]
    rates = {
        "recall": (0, [row for row in counts if not row.truth_empty]),
        "specificity": (1, [row for row in counts if row.tn + row.fp]),
        "precision": (2, [row for row in counts if not row.prediction_empty]),
    }
    found = {name: _rate(column, deciding, seed)._asdict() for name, (column, deciding) in rates.items()}
    return (
        metrics.pool(counts)._asdict()
        | {name: forfeited(one, "" if name == "recall" else lost) for name, one in found.items()}
        | {"not_comparable": lost}
    )


def _rate(column: int, counts: Sequence[metrics.Confusion], seed: int) -> Estimate:
    if not counts:
        return Estimate(math.nan, None, None, 0, "no interval: not defined")

    def statistic(weights: np.ndarray) -> np.ndarray:
        return pooled.voxel_rates(counts, weights)[:, [column]]

    return statistics.estimate(statistic, len(counts), seed=seed)[0]


def _detection(patients: Sequence[CaseScores]) -> dict[str, Any] | None:
    """The confusion matrix over patients: whether any tumour is marked; None where all have tumour.

    A missing prediction is counted apart, and is wrong in either rate.
    """
    with_tumour = [row for row in patients if not row.counts.truth_empty]
    without = [row for row in patients if row.counts.truth_empty]
    if not without:
        return None
    marked, missed = _marked(with_tumour)
    alarms, left_alone = _marked(without)
    return {
        "tp": marked,
        "fp": alarms,
        "fn": missed,
        "tn": left_alone,
        "missing": [len(with_tumour) - marked - missed, len(without) - alarms - left_alone],
        "sensitivity": statistics.proportion(marked, len(with_tumour))._asdict(),
        "specificity": statistics.proportion(left_alone, len(without))._asdict(),
    }


def _marked(patients: Sequence[CaseScores]) -> tuple[int, int]:
    """Patients with a prediction in which something is marked, and nothing."""
    empty = [row.counts.prediction_empty for row in patients if not row.missing]
    return empty.count(False), empty.count(True)


def _band(statistic: Statistic, n: int, deciding: int, seed: int) -> dict[str, Any]:
    return _lists(statistics.band(statistic, n, deciding, seed))


def _lists(band: Band) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in band._asdict().items()
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
