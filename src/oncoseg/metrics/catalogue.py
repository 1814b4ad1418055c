"""Every metric by name: what it means, its unit, which way is better, and what an empty mask is worth.

An empty or missing mask is where published averages part ways. Here each metric has an outcome for
each situation, chosen so that no system gains in overlap or distance by finding less, nor in anything by
withholding a file; `POLICIES` are the choices of others, and every outcome can be changed. Whoever applies
one says so beside the value.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from oncoseg.metrics.overlap import SCORES, Confusion

Situation = Literal["both_empty", "truth_empty", "prediction_empty", "prediction_missing"]
"""In which a metric may have no meaning of its own; missing is a file that is not there or unusable."""

SITUATIONS: tuple[Situation, ...] = ("both_empty", "truth_empty", "prediction_empty", "prediction_missing")

Outcome = float | Literal["undefined", "computed", "diagonal", "forfeit"]
"""A value; or NaN, left out of means and counted; or the formula's own value, a missing prediction taken
for an empty one; or the length of the image's diagonal in mm, the largest distance that there can be; or
the loss of the metric's mean over all patients, where no value is bad enough for what may be missing."""

Outcomes = tuple[Outcome, Outcome, Outcome, Outcome]
"""Of the situations, in the order of SITUATIONS."""

Policy = Mapping[tuple[str, Situation], Outcome]
"""(metric, situation) → outcome that differs from the metric's own."""


Kind = Literal["overlap", "volume", "distance", "surface", "lesion", "ranking", "calibration"]
"""Families of metrics; each is computed from something else."""


class Metric(NamedTuple):
    """What a metric means.

    Attributes:
        kind: the family; decides what it is computed from.
        definition: in words, with the formula.
        better: which way is better; `zero` for signed differences.
        unit: of its values; empty for shares.
        outcomes: what it is worth in each situation.
        yes_or_no: whether it is 0 or 1 in a case.
    """

    kind: Kind
    definition: str
    better: Literal["higher", "lower", "zero"]
    unit: str
    outcomes: Outcomes
    yes_or_no: bool = False


_SHARE: Outcomes = ("undefined", 0.0, 0.0, 0.0)
_OF_TRUTH: Outcomes = ("undefined", "undefined", 0.0, 0.0)
_COMPUTED: Outcomes = ("computed", "computed", "computed", 0.0)
_RANKING: Outcomes = ("undefined", "undefined", "computed", 0.0)
_CALIBRATION: Outcomes = ("computed", "computed", "computed", 1.0)


def _share(definition: str, outcomes: Outcomes = _SHARE, kind: Kind = "overlap") -> Metric:
    return Metric(kind, definition, "higher", "", outcomes)


def _distance(definition: str) -> Metric:
    return Metric("distance", definition, "lower", "mm", ("undefined", "diagonal", "diagonal", "diagonal"))


METRICS: dict[str, Metric] = {
    "dice": _share("2·TP / (2·TP + FP + FN), the overlap of truth and prediction."),
    "iou": _share("TP / (TP + FP + FN), intersection over union (Jaccard)."),
    "precision": _share("TP / (TP + FP), the share of the predicted volume that is tumour."),
    "recall": _share(
        "TP / (TP + FN), the share of the tumour that is found (sensitivity).",
        _OF_TRUTH,
    ),
    "specificity": _share(
        "TN / (TN + FP), the share of the background left alone. It flatters: background is plenty.",
        _COMPUTED,
    ),
    "accuracy": _share("(TP + TN) / all voxels. It flatters: background is plenty.", _COMPUTED),
    "f1": _share("Harmonic mean of precision and recall; on the same counts it equals Dice."),
    "volume_difference_ml": Metric(
        "volume",
        "Predicted minus true volume, in millilitres.",
        "zero",
        "ml",
        ("computed", "computed", "computed", "computed"),
    ),
    "volume_error": Metric(
        "volume",
        "|predicted − true volume| / true volume.",
        "lower",
        "",
        ("undefined", "undefined", "computed", "forfeit"),
    ),
    "hausdorff_mm": _distance("Largest distance from a boundary voxel of one mask to the other's boundary."),
    "hd95_pooled_mm": _distance(
        "95th percentile of both directions' boundary distances together: large surfaces weigh more."
    ),
    "hd95_max_mm": _distance(
        "The larger of the two directions' 95th percentiles of boundary distances (MONAI's)."
    ),
    "hd95_area_mm": _distance(
        "The larger of the two directions' 95th percentiles, surface elements weighted by their area "
        "(DeepMind's surface-distance; BraTS 2023)."
    ),
    "assd_mm": _distance(
        "Average symmetric surface distance: the mean of both directions' distances together."
    ),
    "surface_dice": _share(
        "Share of both surfaces' area within the tolerance of the other (normalised surface Dice).",
        kind="surface",
    ),
    "lesion_sensitivity": _share("Share of the true lesions that are found.", _OF_TRUTH, kind="lesion"),
    "lesion_precision": _share("Share of the predicted lesions that are true.", kind="lesion"),
    "lesion_f1": _share("Harmonic mean of lesion sensitivity and lesion precision.", kind="lesion"),
    "false_positive_lesions": Metric(
        "lesion",
        "Predicted lesions that match no true one, per case.",
        "lower",
        "lesions",
        ("computed", "computed", "computed", "forfeit"),
    ),
    "false_alarm": Metric(
        "lesion",
        "1 where some predicted lesion matches no true one, else 0; of a patient, the share of such cases.",
        "lower",
        "",
        ("computed", "computed", "computed", 1.0),
        yes_or_no=True,
    ),
    "panoptic_quality": _share(
        "Σ IoU of matched lesions / (TP + ½·FP + ½·FN) of lesions, matched one to one at IoU > 0.5.",
        kind="lesion",
    ),
    "brats_lesion_dice": _share(
        "BraTS 2023: mean Dice over true lesions and, with 0, over predicted ones that match none.",
        _COMPUTED,
        kind="lesion",
    ),
    "brats_lesion_hd95_mm": Metric(
        "lesion",
        "BraTS 2023: the same mean of HD95 (by area), with 374 mm for every lesion missed or made up.",
        "lower",
        "mm",
        ("computed", "computed", "computed", 374.0),
    ),
    "auc": _share(
        "Area under the voxels' ROC curve. It flatters: most of the background is easy.",
        _RANKING,
        kind="ranking",
    ),
    "average_precision": _share(
        "Area under the voxels' precision–recall steps; chance is the share of tumour voxels.",
        _RANKING,
        kind="ranking",
    ),
    "brier": Metric(
        "calibration",
        "Mean squared difference of probability and truth over voxels.",
        "lower",
        "",
        _CALIBRATION,
    ),
    "calibration_error": Metric(
        "calibration",
        "Expected calibration error over 15 equal bins of probability. Background makes it look good.",
        "lower",
        "",
        ("computed", "computed", "computed", 1.0),
    ),
}
"""Name → meaning, in the order of tables."""

POLICIES: dict[str, dict[Kind, Outcomes]] = {
    "strict": {},
    "brats-2023": {
        "overlap": (1.0, 0.0, 0.0, 0.0),
        "surface": (1.0, 0.0, 0.0, 0.0),
        "distance": (0.0, 374.0, 374.0, 374.0),
    },
    "drop": {
        "overlap": ("undefined", "undefined", 0.0, "undefined"),
        "surface": ("undefined", "undefined", "undefined", "undefined"),
        "distance": ("undefined", "undefined", "undefined", "undefined"),
    },
}
"""Choices for whole families: ours; the challenge's; and leaving out whatever is not defined, as a mean of
MONAI's Dice, IoU or HD95 does, under which a system's mean distance improves when it misses a structure."""

BOTH_EMPTY_IS_ONE: Policy = {(name, "both_empty"): 1.0 for name in SCORES}
"""Much published code's choice for slices: a rightly empty one is perfect."""


def situation_of(counts: Confusion, missing: bool = False) -> Situation | None:
    """Which rule for empty and missing masks applies, if any."""
    if missing:
        return "prediction_missing"
    if counts.truth_empty:
        return "both_empty" if counts.prediction_empty else "truth_empty"
    return "prediction_empty" if counts.prediction_empty else None


def outcome(metric: str, situation: Situation, preset: str, changes: Policy) -> Outcome:
    """What a metric is worth in a situation: the user's change, else the preset's choice, else its own.

    Args:
        metric: a name in METRICS.
        situation: the situation.
        preset: a name in POLICIES; it changes nothing where a metric's own formula is used.
        changes: the user's.
    """
    if (metric, situation) in changes:
        return changes[metric, situation]
    known = METRICS[metric]
    index = SITUATIONS.index(situation)
    own = known.outcomes[index]
    return own if own == "computed" else POLICIES[preset].get(known.kind, known.outcomes)[index]


def worth(decided: Outcome, computed: float, diagonal_mm: float = math.nan) -> float:
    """An outcome as a number; NaN where undefined or forfeited.

    Args:
        decided: as `outcome` gives it.
        computed: the formula's own value.
        diagonal_mm: of the image.
    """
    if not isinstance(decided, str):
        return decided
    return {"computed": computed, "diagonal": diagonal_mm}.get(decided, math.nan)


def score(name: str, counts: Confusion, changes: Policy | None = None) -> float:
    """A score of overlap under the strict policy; NaN where it is undefined.

    Args:
        name: a name in SCORES.
        counts: of one slice, patient or set.
        changes: of the policy, such as BOTH_EMPTY_IS_ONE.
    """
    situation = situation_of(counts)
    decided = "computed" if situation is None else outcome(name, situation, "strict", changes or {})
    return worth(decided, SCORES[name](counts))
