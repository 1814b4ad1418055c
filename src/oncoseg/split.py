"""Splits by patient: who is trained on, who chooses the checkpoint, who is tested."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oncoseg.datasets.base import Case
from oncoseg.errors import DataError

PARTS = ("train", "validation", "test")
"""The sides of a split, in order."""


def split_patients(
    cases: Sequence[Case], train: float, validation: float, seed: int
) -> dict[str, list[Case]]:
    """Divide cases by patient.

    Every side gets at least one patient; the shares are of patients and rounded. The same cases and
    seed give the same split whatever order the cases come in.

    Args:
        cases: of one data set.
        train: share of patients to train on, in (0, 1).
        validation: share of patients for choosing the checkpoint, in (0, 1).
        seed: of the shuffle.

    Raises:
        DataError: fewer than three patients.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < len(PARTS):
        raise DataError(
            f"Expected at least {len(PARTS)} patients, one for each of {', '.join(PARTS)}, got "
            f"{len(patients)}. Add patients, or choose the sides yourself with --split FILE."
        )
    random.Random(seed).shuffle(patients)
    n_train = min(max(1, round(train * len(patients))), len(patients) - 2)
    n_validation = min(max(1, round(validation * len(patients))), len(patients) - n_train - 1)
    sides = (
        set(patients[:n_train]),
        set(patients[n_train : n_train + n_validation]),
        set(patients[n_train + n_validation :]),
    )
    ordered = sorted(cases, key=lambda case: case.id)
    return {
        part: [case for case in ordered if case.patient in side]
        for part, side in zip(PARTS, sides, strict=True)
    }


def to_json(split: Mapping[str, Iterable[Case]]) -> dict[str, dict[str, list[str]]]:
    """Part → patient → case ids, as a run folder's `split.json` holds it."""
    listed: dict[str, dict[str, list[str]]] = {}
    for part, cases in split.items():
        listed[part] = {}
        for case in cases:
            listed[part].setdefault(case.patient, []).append(case.id)
    return listed


def from_json(listed: Mapping[str, Any], cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Find the cases of a written split again.

    Raises:
        DataError: not the form that `to_json` gives, a case that is not there any more, or a patient on
            two sides.
    """
    by_id = {case.id: case for case in cases}
    split: dict[str, list[Case]] = {}
    for part in PARTS:
        wanted = _listed_cases(listed, part)
        gone = [case for case in wanted if case not in by_id]
        if gone:
            raise DataError(
                f"The split lists {len(gone)} cases under {part} that the data set does not hold, the first "
                f"is {gone[0]!r}. Give the data set that the split was made for, or make a new split."
            )
        split[part] = [by_id[case] for case in wanted]
    check_disjoint(split)
    return split


def _listed_cases(listed: Mapping[str, Any], part: str) -> list[str]:
    try:
        return sorted({str(case) for cases in listed.get(part, {}).values() for case in list(cases)})
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"The split lists {part} in another form than expected, "
            '{"PATIENT": ["CASE", …], …}. Mend the file.'
        ) from error


def check_disjoint(split: Mapping[str, Iterable[Case]]) -> None:
    """Check that no patient is on two sides.

    Raises:
        DataError: says how many patients are, and on which sides.
    """
    sides = {part: {case.patient for case in cases} for part, cases in split.items()}
    parts = list(sides)
    for index, first in enumerate(parts):
        for second in parts[index + 1 :]:
            shared = sides[first] & sides[second]
            if shared:
                raise DataError(
                    f"{len(shared)} patients are in both {first} and {second}; expected every patient on one "
                    "side only. Move all cases of a patient to one side of the split."
                )
