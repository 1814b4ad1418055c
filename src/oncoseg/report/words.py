"""Numbers and findings in words, for people who do not read code."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oncoseg.evaluate.panels import Panel
from oncoseg.metrics.catalogue import METRICS

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
    "only": "the only patient",
    "best": "best patient",
    "median": "median patient",
    "worst": "worst patient",
    "missed": "missed {0}",
    "false-alarm": "false alarm",
    "false-slice": "false alarm on a slice without {0}",
}
"""Why an example is shown, by the name of the class."""

ROLE_MEANINGS = {
    "missed": "None of this {0} was found; it is the largest of those that were missed.",
    "false-alarm": "There is no {0} in this case; more was predicted than in any other without.",
    "false-slice": "There is no {0} on this slice.",
}
"""What is said of plain errors, by the name of the class."""

POOR_BELOW = 0.5
"""A mean Dice under which the summary says that the masks are poor."""

POOR = "That is poor: masks like these cannot be relied on."
"""What it then says."""

SPLIT_MEANINGS = {
    "test": "kept apart from training and from every choice made during it",
    "out-of-fold": "each scored by the one fold of a cross-validation that was not trained on them, all "
    "folds in one table; the ensemble of all folds, which predicts new patients, is none of these networks",
    "validation": "used to choose the kept weights, so that the figures are somewhat too good",
    "train": "trained on, so that the figures say nothing about new patients",
}
"""Who the evaluated patients are."""


UNITS_OF_SHARES = {"volume_error": "share of the true volume"}
"""Of metrics without a unit that may be above 1; the others lie between 0 and 1."""


def axis_title(metric: str) -> str:
    """A metric with its unit, or with what stands for one."""
    return f"{metric} ({METRICS[metric].unit or UNITS_OF_SHARES.get(metric, '0 to 1')})"


def group_name(group: str) -> str:
    """A modality as people write it: mri → MRI, all → All together."""
    if group == "all":
        return "All together"
    return group.upper() if len(group) <= 3 else group.capitalize()


def score(value: float | None, digits: int = 2) -> str:
    """A score with fixed digits, or a dash where it is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def estimate(found: Mapping[str, Any], digits: int = 3) -> str:
    """`0.712 (0.612–0.834)`, without the brackets where there is no interval."""
    span = (
        f" ({score(found['low'], digits)}–{score(found['high'], digits)})" if found["low"] is not None else ""
    )
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


def class_title(group: str, label: str) -> str:
    """A modality, and the class where there are several: `CT, liver`."""
    return ", ".join(filter(None, (group_name(group), label)))


def in_words(
    group: str, row: Mapping[str, Any], of_patients: Sequence[Mapping[str, Any]], label: str = ""
) -> str:
    """What was found in one modality, as one or two sentences.

    Args:
        group: the modality.
        row: the table's per-patient row.
        of_patients: that modality's rows of per_patient.csv.
        label: the class, where there are several.
    """
    name, dice, what = class_title(group, label), row["scores"]["dice"], label or "tumour"
    if not dice["n"]:
        return f"{name}: none of the {patients(row['units'])} has {what}, so nothing could be scored."
    span = f"95 % interval {interval(dice)}" if interval(dice) else dice["note"]
    found = row["scores"]["recall"]
    return (
        f"{name}: in {patients(dice['n'])} the predicted outline overlaps the reference outline with a mean "
        f"Dice of {score(dice['mean'])} ({span}; median {score(dice['median'])}), where 0 is no overlap and "
        "1 is perfect. "
        + _marked(row["scores"]["precision"], found, of_patients, label)
        + _missed(of_patients, what)
        + _false_alarms(row["truth_empty"], what)
        + (f" {POOR}" if dice["mean"] < POOR_BELOW else "")
    )


def _share(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['mean']:.0f} %"


def _marked(
    right: Mapping[str, Any], found: Mapping[str, Any], of_patients: Sequence[Mapping[str, Any]], label: str
) -> str:
    what, as_class = label or "tumour", f"as {label} " if label else ""
    if label and not any(patient["tp"] + patient["fp"] for patient in of_patients):
        return f"Nothing is marked as {label}. "
    of_truth = f", and {_share(found)} of the {what} is marked. " if found["n"] else ". "
    return f"On average {_share(right)} of what is marked {as_class}is {what}{of_truth}"


def _missed(of_patients: Sequence[Mapping[str, Any]], what: str) -> str:
    with_some = [patient for patient in of_patients if patient["tp"] + patient["fn"] > 0]
    missed = sum(patient["tp"] == 0 for patient in with_some)
    if not missed:
        return f"In every patient with {what} at least one voxel of it was marked."
    return f"In {missed} of {patients(len(with_some))} with {what}, none of it was found."


def _false_alarms(n: int, what: str) -> str:
    return f" In {patients(n)} without {what} some was marked." if n else ""


def panel_title(panel: Panel) -> str:
    """Why an example is shown."""
    return _capital(roles(panel))


def roles(panel: Panel) -> str:
    """As in `worst patient, missed tumour`."""
    return ", ".join(ROLE_TITLES[role].format(panel.label) for role in panel.roles)


def panel_row(panel: Panel) -> str:
    """An example in a figure of several, in two lines."""
    what = class_title(panel.group, panel.view.focus) if panel.group else panel.label
    return f"{what}, {roles(panel)}\nDice {score(panel.patient_dice)}"


def panel_caption(panel: Panel) -> str:
    """Which slice an example shows, how well it was predicted, and how bright the image is."""
    view = panel.view
    group = f"{group_name(panel.group)}, " if panel.group else ""
    case = f", case {view.case_id}" if view.case_id != panel.patient else ""
    where = f"{group}patient {panel.patient}{case}, slice {view.slice_index} of {view.slices}"
    found = " ".join(ROLE_MEANINGS[role].format(panel.label) for role in panel.roles if role in ROLE_MEANINGS)
    of_class = f"Of {view.focus}: " if view.focus else ""
    dice = f"{of_class}Dice of the patient {score(panel.patient_dice)}, of this slice {score(view.dice)}."
    true, predicted = (volume(each) for each in view.volumes_ml)
    volumes = f"Volume {true} ml, predicted {predicted} ml." if view.pixel_mm else ""
    ground = f"{_capital(view.ground)}." if view.ground else "No image is shown."
    return " ".join(filter(None, (f"{_capital(where)}.", found, dice, volumes, ground)))


def measured(value: float, digits: int) -> str:
    """A quantity with fixed digits, or more where these would leave fewer than two that tell anything."""
    if not value or not math.isfinite(value):
        return score(value, digits)
    return score(value, max(digits, 1 - math.floor(math.log10(abs(value)))))


def counted(n: int, noun: str) -> str:
    """As in `1 case`, `2 cases`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def patients(n: int) -> str:
    """`1 patient`, `2 patients`."""
    return counted(n, "patient")


def cases(n: int) -> str:
    """`1 case`, `2 cases`."""
    return counted(n, "case")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
