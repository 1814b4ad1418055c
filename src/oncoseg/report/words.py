"""Numbers and findings in words, for people who do not read code."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

AVERAGING_NAMES = {
    "patient": "per patient",
    "slice": "per slice",
    "slice-empty-is-one": "per slice, empty = 1",
    "pooled": "pooled voxels",
}
"""Short names for the table; the definitions stand below it."""

SCORE_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "auc": "ROC-AUC",
}
"""Column headings in the order of the table."""

ROLE_TITLES = {
    "best": "Best patient",
    "median": "Median patient",
    "worst": "Worst patient",
    "false-alarm": "False alarm",
}
"""Why an example is shown."""

POOR_BELOW = 0.5
"""A mean Dice under which the summary says that the masks are poor."""

POOR = "That is poor: masks like these cannot be relied on."
"""What it then says."""

SPLIT_MEANINGS = {
    "test": "kept apart from training and from every choice made during it",
    "validation": "used to choose the kept weights, so that the figures are somewhat too good",
    "train": "trained on, so that the figures say nothing about new patients",
}
"""Who the evaluated patients are."""


def group_name(group: str) -> str:
    """A modality as people write it: mri → MRI, all → All together."""
    if group == "all":
        return "All together"
    return group.upper() if len(group) <= 3 else group.capitalize()


def score(value: float | None, digits: int = 2) -> str:
    """A score with fixed digits, or a dash where it is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def estimate(found: Mapping[str, Any], digits: int = 3) -> str:
    """`0.712 (0.61–0.83)`, without the brackets where there is no interval."""
    span = f" ({score(found['low'])}–{score(found['high'])})" if found["low"] is not None else ""
    return score(found["value"], digits) + span


def interval(summary: Mapping[str, Any]) -> str:
    """`0.61–0.83`, or nothing where there is no interval."""
    return "" if summary["low"] is None else f"{score(summary['low'])}–{score(summary['high'])}"


def fraction(value: float) -> str:
    """A half, quarter or eighth as 1/2, 1/4, 1/8; other numbers as they are."""
    return f"1/{1 / value:g}" if 0 < value < 1 else f"{value:g}"


def volume(value: Any) -> str:
    """Millilitres with two figures after the point below ten, or a dash where unknown."""
    if not isinstance(value, float) or math.isnan(value):
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def number(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{int(value):,}".replace(",", "\u202f")


def percent(part: float, whole: float) -> str:
    """Share in per cent, with more digits near 0 and 100; a dash of nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if share in (0, 100):
        return f"{share:.0f} %"
    return f"{share:.3f} %" if min(share, 100 - share) < 1 else f"{share:.1f} %"


def in_words(group: str, row: Mapping[str, Any], patients: Sequence[Mapping[str, Any]]) -> str:
    """What was found in one modality, as one or two sentences.

    Args:
        group: the modality.
        row: the table's per-patient row.
        patients: that modality's rows of per_patient.csv.
    """
    name, dice = group_name(group), row["scores"]["dice"]
    if not dice["n"]:
        return f"{name}: none of the {_patients(row['units'])} has tumour, so nothing could be scored."
    span = f"95 % interval {interval(dice)}" if interval(dice) else dice["note"]
    found = row["scores"]["recall"]
    return (
        f"{name}: in {_patients(dice['n'])} the predicted outline overlaps the reference outline with a mean "
        f"Dice of {score(dice['mean'])} ({span}; median {score(dice['median'])}), where 0 is no overlap and "
        f"1 is perfect. On average {_share(row['scores']['precision'])} of what is marked is tumour"
        + (f", and {_share(found)} of the tumour is marked. " if found["n"] else ". ")
        + _missed(patients)
        + _false_alarms(row["truth_empty"])
        + (f" {POOR}" if dice["mean"] < POOR_BELOW else "")
    )


def _share(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['mean']:.0f} %"


def _missed(patients: Sequence[Mapping[str, Any]]) -> str:
    with_tumour = [patient for patient in patients if patient["tp"] + patient["fn"] > 0]
    missed = sum(patient["tp"] == 0 for patient in with_tumour)
    if not missed:
        return "In every patient with tumour at least one voxel of it was marked."
    return f"In {missed} of {_patients(len(with_tumour))} with tumour, none of it was found."


def _false_alarms(n: int) -> str:
    return f" In {_patients(n)} without tumour some was marked." if n else ""


def panel_caption(panel: Mapping[str, Any]) -> str:
    """Which slice an example shows and how well it was predicted."""
    who = f"{group_name(panel['modality'])}, patient {panel['patient']}"
    where = f"slice {panel['slice_index']} of case {panel['case_id']}"
    if panel["role"] == "false-alarm":
        return f"{who}, {where}: no tumour here, but some was predicted."
    patient, here = score(panel["patient_dice"]), score(panel["slice_dice"])
    return f"{who}, {where}. Dice of the patient {patient}, of this slice {here}."


def _patients(n: int) -> str:
    return f"{n} patient" if n == 1 else f"{n} patients"
