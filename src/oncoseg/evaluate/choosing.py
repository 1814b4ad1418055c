"""Whom a report shows: best, median and worst patient of every class, a missed tumour and a false alarm."""

import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from oncoseg.metrics import Confusion

MISSED, FALSE_ALARM, FALSE_SLICE = "missed", "false-alarm", "false-slice"
"""Plain errors: a tumour of which nothing was found, a prediction where a case has no tumour, and one where
a slice has none."""

ERRORS = (MISSED, FALSE_ALARM, FALSE_SLICE)
"""In the order in which they are shown, after the patients."""


class Candidate(NamedTuple):
    """A patient or a case that may be shown.

    Attributes:
        group: the modality, where there are several; else empty.
        label: name of the class.
        patient: whose it is.
        dice: of the patient; NaN where undefined.
        size: of the tumour (of the prediction, for a false alarm).
        shown: names the picture; two candidates with the same one become one picture.
    """

    group: str
    label: str
    patient: str
    dice: float
    size: float
    shown: Hashable


class Choice(NamedTuple):
    """What is shown, and why: one or more of `only`, `best`, `median`, `worst` and ERRORS."""

    roles: tuple[str, ...]
    candidate: Candidate


def error_of(counts: Confusion) -> str | None:
    """MISSED or FALSE_ALARM, where a case's voxels of a class are that; None where they are neither."""
    if counts.tp:
        return None
    if counts.fn:
        return MISSED
    return FALSE_ALARM if counts.fp else None


def choose(patients: Iterable[Candidate], errors: Iterable[tuple[str, Candidate]]) -> list[Choice]:
    """Choose patients by Dice and the largest errors of each kind, group by group and class by class.

    Args:
        patients: every patient with tumour or a prediction. One without a Dice is not ranked; where two
            have the same, the one with the larger tumour counts as the worse.
        errors: what kind of error, and the case.
    """
    parts: dict[tuple[str, str], list[Candidate]] = {}
    for patient in patients:
        parts.setdefault((patient.group, patient.label), []).append(patient)
    largest: dict[tuple[str, str, str], Candidate] = {}
    for kind, case in errors:
        known = largest.setdefault((case.group, case.label, kind), case)
        if case.size > known.size:
            largest[case.group, case.label, kind] = case
    choices = []
    for part, members in parts.items():
        ranked = sorted((one for one in members if not math.isnan(one.dice)), key=_best_first)
        found = [(role, ranked[place]) for role, place in _places(len(ranked)).items()]
        found += [(kind, largest[*part, kind]) for kind in ERRORS if (*part, kind) in largest]
        choices += _joined(found)
    return choices


def _best_first(candidate: Candidate) -> tuple[float, float]:
    return -candidate.dice, candidate.size


def _places(n: int) -> dict[str, int]:
    if n < 3:
        return dict(zip(("best", "worst") if n == 2 else ("only",), range(n), strict=False))
    return {"best": 0, "median": n // 2, "worst": n - 1}


def _joined(found: Iterable[tuple[str, Candidate]]) -> list[Choice]:
    choices: dict[Hashable, Choice] = {}
    for role, candidate in found:
        known = choices.get(candidate.shown, Choice((), candidate))
        choices[candidate.shown] = known._replace(roles=(*known.roles, role))
    return list(choices.values())
