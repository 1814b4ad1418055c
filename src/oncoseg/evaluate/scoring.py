"""Every metric of one case: label maps of truth and prediction → one value per class and metric."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.errors import DataError
from oncoseg.evaluate import curve_sums
from oncoseg.evaluate.curve_sums import CurveSums
from oncoseg.labels import has_label
from oncoseg.metrics import brats, calibration, lesion_matches, lesions, ranking, surface
from oncoseg.metrics.boxes import bounding_box
from oncoseg.metrics.catalogue import (
    METRICS,
    POLICIES,
    SITUATIONS,
    Policy,
    Situation,
    outcome,
    situation_of,
    worth,
)
from oncoseg.metrics.overlap import Confusion
from oncoseg.volume import MM3_PER_ML

TUMOUR = "tumour"
"""The class where every label counts together."""

ALL_CLASSES = "all classes together"
"""What several classes of a run are called where they count as one."""

NO_SPACING = "no_spacing"
"""The rule that leaves a metric in mm or ml undefined where the images hold no voxel size."""

UNDEFINED = "undefined"
"""Marks a value that the formula itself leaves undefined, as where every lesion was too small to count."""

FORFEITED = "forfeited"
"""Marks a value whose absence costs the system the metric's mean over all patients."""

IN_SOME_CASES = "in_some_cases"
"""Marks a patient of whose cases only some were decided by a rule, or not all by the same."""

NEEDS_SPACING = {name for name, m in METRICS.items() if m.unit in ("mm", "ml")} | {
    "surface_dice",
    "brats_lesion_dice",
}
"""Metrics with a length or volume in them, if only as a tolerance or a smallest lesion."""

SURFACE_METRICS = tuple(name for name, m in METRICS.items() if m.kind in ("distance", "surface"))
"""Metrics of `_of_surfaces`; all are in NEEDS_SPACING."""

BRATS_METRICS = ("brats_lesion_dice", "brats_lesion_hd95_mm")
"""Metrics of `_of_brats`; all are in NEEDS_SPACING."""

CONNECTIVITIES = tuple(neighbours for axes, neighbours in lesions.REACH if axes == 3)
"""What `Scoring.connectivity` may be."""

OF_PROBABILITY = tuple(name for name, m in METRICS.items() if m.kind in ("ranking", "calibration"))
"""Metrics that need probabilities."""


@dataclass(frozen=True)
class Scoring:
    """What a user chooses about the metrics; kept with every result.

    Attributes:
        tolerance_mm: of the surface Dice.
        connectivity: neighbours of a voxel that join it to a lesion, 6, 18 or 26.
        min_lesion_mm3: smaller lesions are left out of lesion counts, in truth and prediction alike.
        challenge: a name in brats.BRATS_2023, for its dilation and its smallest lesion.
        policy: a name in catalogue.POLICIES, for empty and missing masks.
        outcomes: (metric, situation) → what differs from it.
    """

    tolerance_mm: float = 2.0
    connectivity: int = 26
    min_lesion_mm3: float = 0.0
    challenge: str = "GLI"
    policy: str = "strict"
    outcomes: Policy = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: one that means nothing.
        """
        for name, value in (("tolerance", self.tolerance_mm), ("smallest lesion", self.min_lesion_mm3)):
            if not 0 <= value < math.inf:
                raise DataError(f"Expected a {name} of 0 or more, got {value:g}.")
        known: dict[str, Collection[object]] = {
            "connectivity": CONNECTIVITIES,
            "challenge": brats.BRATS_2023,
            "policy": POLICIES,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                given, offered = getattr(self, name), ", ".join(map(str, values))
                raise DataError(f"Unknown {name} {given!r}; expected one of {offered}.")
        if unknown := [key for key in self.outcomes if key[0] not in METRICS or key[1] not in SITUATIONS]:
            raise DataError(f"Unknown outcome {unknown[0]}; expected a metric and one of {SITUATIONS}.")


def as_json(scoring: Scoring) -> dict[str, Any]:
    """The choices as JSON can hold them."""
    outcomes = {f"{metric}.{situation}": value for (metric, situation), value in scoring.outcomes.items()}
    return asdict(scoring) | {"outcomes": outcomes}


Maps = Mapping[str, Callable[[], np.ndarray | None] | None]
"""Class → what gives its probability map, float32 in [0, 1], or None where a map is missing; what it gives
may be None, too, where the map cannot be used. A map is asked for once and dropped again, so that one is in
memory at a time. Classes that are left out have no maps."""


class CaseScores(NamedTuple):
    """One case and class.

    Attributes:
        group: the modality, where a system has several; else empty.
        case: its id; empty for a patient's cases together.
        patient: cases of one patient share it.
        label: name of the class.
        counts: voxels; a missing prediction counts as empty.
        missing: whether there was no prediction; of a patient, of any case.
        voxel_ml: size of a voxel in millilitres; NaN where unknown.
        values: metric → value; NaN where undefined.
        rules: metric → the situation that decided its value, or NO_SPACING, UNDEFINED, FORFEITED
            or IN_SOME_CASES.
        truth: fingerprint of the class in the truth, see `truths`; empty where it was not taken.
        curves: what curves over many cases need; None for classes without maps.
    """

    group: str
    case: str
    patient: str
    label: str
    counts: Confusion
    missing: bool
    voxel_ml: float
    values: dict[str, float]
    rules: dict[str, str]
    truth: str = ""
    curves: CurveSums | None = None

    @property
    def volumes_ml(self) -> tuple[float, float]:
        """True and predicted volume; NaN where the voxel size is unknown."""
        true, predicted = self.counts.tp + self.counts.fn, self.counts.tp + self.counts.fp
        return true * self.voxel_ml, predicted * self.voxel_ml


NO_MAPS: Maps = MappingProxyType({})
"""Of predictions without any probability map."""


def score_case(
    case: str,
    patient: str,
    truth: np.ndarray,
    prediction: np.ndarray | None,
    spacing_mm: Sequence[float] | None,
    classes: Mapping[str, Sequence[int]],
    scoring: Scoring,
    maps: Maps = NO_MAPS,
    group: str = "",
    axes_mm: np.ndarray | None = None,
) -> list[CaseScores]:
    """Score one case, class by class.

    Args:
        case: its id.
        patient: whose it is.
        truth: label values, integers, axes `i j k`.
        prediction: likewise, of the same shape; None where there is none.
        spacing_mm: voxel size along i, j, k; None where unknown.
        classes: name → the label values that it joins.
        scoring: what the user chose.
        maps: of the classes that shall have the metrics that need probabilities.
        group: the modality, where there are several.
        axes_mm: of a grid that is sheared; see `Volume.sheared_axes_mm`.

    Raises:
        ValueError: shapes that differ.
    """
    if prediction is not None and prediction.shape != truth.shape:
        raise ValueError(f"Expected masks of one shape, got {truth.shape} and {prediction.shape}.")
    voxel_ml = math.prod(spacing_mm) / MM3_PER_ML if spacing_mm is not None else math.nan
    size = _size(truth.shape, spacing_mm, axes_mm)
    near = _cut_out(truth, np.zeros_like(truth) if prediction is None else prediction)
    flat = _flat_axis(truth.shape)
    found = []
    for label, joined in classes.items():
        marked, predicted = (has_label(labels, joined) for labels in near)
        counts = metrics.confusion(marked, predicted)
        counts = counts._replace(tn=counts.tn + truth.size - marked.size)
        shapes = _of_shapes(marked, predicted, spacing_mm, axes_mm, flat, scoring)
        situation = situation_of(counts, prediction is None)
        ruled = with_rules(of_counts(counts, voxel_ml) | shapes, situation, *size, scoring)
        row = CaseScores(group, case, patient, label, counts, prediction is None, voxel_ml, *ruled)
        if label in maps:
            row = _with_map(row, maps[label], has_label(truth, joined), spacing_mm, size, scoring)
        found.append(row)
    return found


def _with_map(
    row: CaseScores,
    read: Callable[[], np.ndarray | None] | None,
    truth: np.ndarray,
    spacing_mm: Sequence[float] | None,
    size: tuple[float, bool],
    scoring: Scoring,
) -> CaseScores:
    """The row with the metrics that need probabilities."""
    probability = None if read is None else read()
    # a map that is withheld must not be worth more than a poor one
    situation = "prediction_missing" if probability is None else situation_of(row.counts, row.missing)
    curves = curve_sums.of_case(
        probability, truth, row.counts, spacing_mm, scoring.connectivity, scoring.min_lesion_mm3
    )
    found = _of_probability(probability, truth, curves)
    values, rules = with_rules(found, situation, *size, scoring)
    return row._replace(values=row.values | values, rules=row.rules | rules, curves=curves)


def _size(
    shape: Sequence[int], spacing_mm: Sequence[float] | None, axes_mm: np.ndarray | None
) -> tuple[float, bool]:
    """Length of the image's longest diagonal in mm, and whether the voxel size is known."""
    if spacing_mm is None:
        return math.nan, False
    if axes_mm is None:
        return float(np.linalg.norm(np.multiply(shape, spacing_mm))), True
    diagonals = np.array(list(product((-1, 1), repeat=len(shape)))) * shape
    return float(np.linalg.norm(diagonals @ axes_mm.T, axis=1).max()), True


def of_patients(scores: Sequence[CaseScores], scoring: Scoring) -> list[CaseScores]:
    """One row for every patient and class: the unit of all statistics.

    Overlap is that of all voxels of the patient's cases counted together, volumes are added up, and
    everything else is the mean over the cases in which it is defined. A patient any of whose cases has no
    prediction counts as missing in overlap and volume, since a poor mask can cost more there than an empty
    one, and forfeits what a case forfeits: nothing is better for a file that is withheld.

    Args:
        scores: of all cases.
        scoring: as the cases were scored.
    """
    groups: dict[tuple[str, str, str], list[CaseScores]] = {}
    for row in scores:
        groups.setdefault((row.group, row.label, row.patient), []).append(row)
    return [
        rows[0]._replace(case="") if len(rows) == 1 else _together(rows, scoring) for rows in groups.values()
    ]


def _together(rows: Sequence[CaseScores], scoring: Scoring) -> CaseScores:
    counts, missing = metrics.pool(row.counts for row in rows), any(row.missing for row in rows)
    values, rules = {}, {}
    for name in rows[0].values:
        defined = [row.values[name] for row in rows if not math.isnan(row.values[name])]
        values[name] = math.fsum(defined) / len(defined) if defined else math.nan
        used = {row.rules.get(name, "") for row in rows}
        if FORFEITED in used:
            values[name], rules[name] = math.nan, FORFEITED
        elif used != {""}:
            rules[name] = used.pop() if len(used) == 1 else IN_SOME_CASES
    true_ml, predicted_ml = (
        math.fsum(volumes) for volumes in zip(*(row.volumes_ml for row in rows), strict=True)
    )
    pooled = of_counts(counts, math.nan) | {"volume_difference_ml": predicted_ml - true_ml}
    if true_ml > 0:
        pooled["volume_error"] = abs(predicted_ml - true_ml) / true_ml
    known = not math.isnan(true_ml)
    pooled, ruled = with_rules(pooled, situation_of(counts, missing), math.nan, known, scoring)
    rules = {name: rule for name, rule in rules.items() if name not in pooled} | ruled
    return rows[0]._replace(
        case="",
        counts=counts,
        missing=missing,
        voxel_ml=math.nan,
        values=values | pooled,
        rules=rules,
        curves=curve_sums.pool(row.curves for row in rows if row.curves) if rows[0].curves else None,
    )


def of_counts(counts: Confusion, voxel_ml: float) -> dict[str, float]:
    """Metrics of overlap and volume, from the voxels of a case or of several together."""
    true_ml, predicted_ml = (counts.tp + counts.fn) * voxel_ml, (counts.tp + counts.fp) * voxel_ml
    overlap = metrics.SCORES | metrics.BACKGROUND_SCORES
    values = {name: function(counts) for name, function in overlap.items()}
    difference = predicted_ml - true_ml
    error = abs(counts.fp - counts.fn) / (counts.tp + counts.fn) if counts.tp + counts.fn else math.nan
    return values | {"volume_difference_ml": difference, "volume_error": error}


def with_rules(
    values: Mapping[str, float],
    situation: Situation | None,
    diagonal_mm: float,
    spacing_known: bool,
    scoring: Scoring,
) -> tuple[dict[str, float], dict[str, str]]:
    """Apply the rules for empty and missing masks; the values, and which rule decided which.

    Args:
        values: metric → value as computed.
        situation: of the masks.
        diagonal_mm: of the image.
        spacing_known: without a voxel size, what is in mm or ml is not defined.
        scoring: what the user chose.
    """
    ruled, rules = {name: values[name] for name in METRICS if name in values}, {}
    for name in ruled:
        small_left_out = scoring.min_lesion_mm3 > 0 and METRICS[name].kind == "lesion"
        if not spacing_known and (name in NEEDS_SPACING or small_left_out):
            ruled[name], rules[name] = math.nan, NO_SPACING
            continue
        if situation is None:
            continue
        decided = outcome(name, situation, scoring.policy, scoring.outcomes)
        if decided != "computed":
            ruled[name] = worth(decided, ruled[name], diagonal_mm)
            rules[name] = FORFEITED if decided == "forfeit" else situation
    return ruled, dict.fromkeys((name for name in ruled if math.isnan(ruled[name])), UNDEFINED) | rules


def _cut_out(truth: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    """Both label maps, cut to the box around all that either marks.

    The first axis of a NIfTI file varies fastest; copied, the last one does, with which SciPy and
    flattening are up to ten times as fast in large images.
    """
    box = bounding_box(truth, prediction)
    return [np.ascontiguousarray(labels[box]) for labels in (truth, prediction)]


def _flat_axis(shape: Sequence[int]) -> tuple[int, ...]:
    """The axis of a single slice, whose surface is its outline, not that of a slab of tissue."""
    return tuple(axis for axis, length in enumerate(shape) if length == 1)[-1:]


def _of_shapes(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | None,
    axes_mm: np.ndarray | None,
    flat: tuple[int, ...],
    scoring: Scoring,
) -> dict[str, float]:
    """Metrics of surfaces and lesions; those in mm are not computed where the voxel size is unknown."""
    spacing = spacing_mm if spacing_mm is not None else [1.0] * truth.ndim
    planes = truth.squeeze(flat), prediction.squeeze(flat)
    kept = [axis for axis in range(truth.ndim) if axis not in flat]
    of_planes = [spacing[axis] for axis in kept]
    within = None if axes_mm is None else axes_mm[:, kept]
    if spacing_mm is None:
        lengths = dict.fromkeys((*SURFACE_METRICS, *BRATS_METRICS), math.nan)
    else:
        lengths = _of_surfaces(*planes, of_planes, within, scoring)
        lengths |= _of_brats(truth, prediction, spacing, axes_mm, scoring)
    return lengths | _of_lesions(truth, prediction, spacing, scoring)


def _of_surfaces(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    axes_mm: np.ndarray | None,
    scoring: Scoring,
) -> dict[str, float]:
    if not truth.any() or not prediction.any():
        return dict.fromkeys(SURFACE_METRICS, math.nan)
    distances = surface.surface_distances(truth, prediction, spacing_mm, axes_mm)
    return {
        "hausdorff_mm": surface.hausdorff(distances),
        "hd95_pooled_mm": surface.hd95_pooled(distances),
        "hd95_max_mm": surface.hd95_max(distances),
        "hd95_area_mm": surface.hd95_area(distances),
        "assd_mm": surface.average_surface_distance(distances),
        "surface_dice": surface.surface_dice(distances, scoring.tolerance_mm),
    }


def _of_lesions(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], scoring: Scoring
) -> dict[str, float]:
    true, predicted = (
        lesions.find_lesions(mask, spacing_mm, scoring.connectivity, scoring.min_lesion_mm3)
        for mask in (truth, prediction)
    )
    overlaps = lesions.lesion_overlaps(true, predicted)
    counts = lesion_matches.match_lesions(overlaps).counts
    return {
        "lesion_sensitivity": lesion_matches.lesion_sensitivity(counts),
        "lesion_precision": lesion_matches.lesion_precision(counts),
        "lesion_f1": lesion_matches.lesion_f1(counts),
        "false_positive_lesions": float(counts.false_positives),
        "false_alarm": float(counts.false_positives > 0),
        "panoptic_quality": lesion_matches.panoptic_quality(overlaps).pq,
    }


def _of_brats(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    axes_mm: np.ndarray | None,
    scoring: Scoring,
) -> dict[str, float]:
    rules = brats.BRATS_2023[scoring.challenge]
    found = brats.brats_scores(truth, prediction, spacing_mm, rules, partial(_hd95_area, axes_mm))
    return dict(zip(BRATS_METRICS, (found.dice, found.hd95_mm), strict=True))


def _hd95_area(
    axes_mm: np.ndarray | None, truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]
) -> float:
    return surface.hd95_area(surface.surface_distances(truth, prediction, spacing_mm, axes_mm))


def _of_probability(probability: np.ndarray | None, truth: np.ndarray, sums: CurveSums) -> dict[str, float]:
    if probability is None:
        return dict.fromkeys(OF_PROBABILITY, math.nan)
    ranked = ranking.ranking(probability, truth)
    return {
        "auc": ranked.auc,
        "average_precision": ranked.average_precision,
        "brier": calibration.brier(sums.calibration),
        "calibration_error": calibration.expected_calibration_error(sums.calibration),
    }
