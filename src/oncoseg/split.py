"""Splits by patient: who is trained on, who chooses the checkpoint, who is tested."""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Case
from oncoseg.datasets.folders import safe_id
from oncoseg.errors import DataError, nearest
from oncoseg.files import read_json

FOLD = re.compile(r"(?P<file>.+)#(?P<fold>\d+)")
"""A fold of a file of nnU-Net's."""

PARTS = ("train", "validation", "test")
"""The sides of a split, in order."""

UNLABELLED = "unlabelled"
"""Listed beside the sides: who is trained on without a mask. Only training patients may be on both lists."""


def split_patients(
    cases: Sequence[Case],
    train: float,
    validation: float,
    seed: int,
    known: Mapping[str, str] | None = None,
) -> dict[str, list[Case]]:
    """Divide cases by patient.

    Every side gets at least one patient; the shares are of patients and rounded. The same cases and
    seed give the same split whatever order the cases come in.

    Args:
        cases: of one data set, with truth.
        train: share of patients to train on, in (0, 1).
        validation: share of patients for choosing the checkpoint, in (0, 1).
        seed: of the shuffle.
        known: patient → the part where they are already, such as with another modality's images; they
            stay there, and the others fill up the shares.

    Raises:
        DataError: fewer than three patients, or `known` leaves nobody for a side.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < len(PARTS):
        raise DataError(
            f"Expected at least {len(PARTS)} patients with a mask, one for each of {', '.join(PARTS)}, got "
            f"{len(patients)}. Add patients, or choose the sides yourself with --split FILE."
        )
    random.Random(seed).shuffle(patients)
    n_train = min(max(1, round(train * len(patients))), len(patients) - 2)
    n_validation = min(max(1, round(validation * len(patients))), len(patients) - n_train - 1)
    wanted = dict(zip(PARTS, (n_train, n_validation, len(patients)), strict=True))
    sides = _filled(patients, wanted, known or {})
    ordered = sorted(cases, key=lambda case: case.id)
    return {part: [case for case in ordered if case.patient in sides[part]] for part in PARTS}


def _filled(patients: list[str], wanted: Mapping[str, int], known: Mapping[str, str]) -> dict[str, set[str]]:
    """Fill the sides up to the wanted numbers, in order; one patient is kept for each later empty side."""
    sides = {part: {patient for patient in patients if known.get(patient) == part} for part in PARTS}
    free = [patient for patient in patients if patient not in known]
    for number, part in enumerate(PARTS, 1):
        kept_back = sum(not sides[later] for later in PARTS[number:])
        count = max(0, min(wanted[part] - len(sides[part]), len(free) - kept_back))
        sides[part] |= set(free[:count])
        free = free[count:]
    for part, side in sides.items():
        if not side:
            raise DataError(
                f"No patient is left for {part}, because the patients' other modalities put them on "
                "another side already; expected at least one. Add patients, or choose the sides yourself "
                "with --split FILE."
            )
    return sides


def hide_labels(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Divide training cases by patient into those whose masks are used and those who are left without.

    Args:
        cases: of one modality, with a mask.
        share: of the patients whose masks are used, in (0, 1]; rounded, and at least one.
        seed: of the draw. A smaller share uses the masks of some of a larger one's patients.
    """
    patients = sorted({case.patient for case in cases})
    random.Random(f"labelled {seed}").shuffle(patients)
    used = set(patients[: max(1, round(share * len(patients)))])
    return (
        [case for case in cases if case.patient in used],
        [case for case in cases if case.patient not in used],
    )


def to_json(split: Mapping[str, Iterable[Case]]) -> dict[str, dict[str, list[str]]]:
    """Part → patient → case ids, as a run folder's `split.json` holds it."""
    listed: dict[str, dict[str, list[str]]] = {}
    for part, cases in split.items():
        listed[part] = {}
        for case in cases:
            listed[part].setdefault(case.patient, []).append(case.id)
    return listed


def read_split(path: Path, modalities: Sequence[str]) -> dict[str, Any]:
    """Read a split file: a run folder's `split.json`, or nnU-Net's `splits_final.json`.

    Args:
        path: the file; of nnU-Net's, `FILE#2` is the third fold, and the first is taken without a number. A
            fold has nobody to test.
        modalities: the recipe's; nnU-Net's folds are of one data set and so of one modality.

    Returns:
        Modality → part → patient → case ids, for `from_json`; nnU-Net's folds do not name patients.

    Raises:
        DataError: not readable, not of that form, no such fold, or folds for several modalities.
    """
    match = None if path.exists() else FOLD.fullmatch(path.name)
    file, fold = (path.with_name(match["file"]), int(match["fold"])) if match else (path, 0)
    try:
        found = read_json(file)
        return _fold(file, found, fold, modalities) if isinstance(found, list) else dict(found["modalities"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has another form"
        reason = str(error) if isinstance(error, ValueError) else reason
        raise DataError(
            f"Cannot read the split {file} ({reason}); expected a file like a run folder's split.json: "
            '{"modalities": {"mri": {"train": {"PATIENT": ["CASE"]}, "validation": …, "test": …}}}, or '
            "nnU-Net's splits_final.json."
        ) from error


def _fold(file: Path, folds: Sequence[Any], fold: int, modalities: Sequence[str]) -> dict[str, Any]:
    if len(modalities) != 1:
        raise DataError(
            f"{file} holds nnU-Net's folds, which are of one data set; but the modalities are "
            f"{' and '.join(modalities)}. Choose one with --only."
        )
    if fold >= len(folds):
        raise DataError(f"{file} has {len(folds)} folds, counted from 0; there is no fold {fold}.")
    sides = {"train": folds[fold]["train"], "validation": folds[fold]["val"]}
    named = {part: {"": [safe_id(case) for case in cases]} for part, cases in sides.items()}
    return {modalities[0]: {**named, "test": {}}}


def from_json(
    listed: Mapping[str, Any], cases: Sequence[Case], passed_over: Collection[str | None] = ()
) -> dict[str, list[Case]]:
    """Find the cases of a written split again.

    Args:
        listed: part → patient → case ids, of which `UNLABELLED` may be one.
        cases: those there are.
        passed_over: ids that may be listed and are not wanted.

    Raises:
        DataError: not the form that `to_json` gives, a part of another name, a case that is not there any
            more, or a patient on two sides.
    """
    for part in listed if isinstance(listed, Mapping) else ():
        if part not in (*PARTS, UNLABELLED):
            raise DataError(f"The split has an unknown part {part!r}; {nearest(str(part), PARTS)}")
    by_id = {case.id: case for case in cases}
    split: dict[str, list[Case]] = {}
    for part in (*PARTS, UNLABELLED) if UNLABELLED in listed else PARTS:
        wanted = [case for case in _listed_cases(listed, part) if case not in passed_over]
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
    """Check that no patient is on two sides, nor learnt from without a mask and validated or tested.

    Raises:
        DataError: says how many patients are, and on which sides.
    """
    sides = {part: {case.patient for case in cases} for part, cases in split.items()}
    parts = list(sides)
    for index, first in enumerate(parts):
        for second in parts[index + 1 :]:
            shared = sides[first] & sides[second]
            if {first, second} == {"train", UNLABELLED}:
                continue
            if shared:
                raise DataError(
                    f"{len(shared)} patients are in both {first} and {second}; expected every patient on one "
                    "side only, with all modalities. Move all cases of a patient to one side of the split."
                )
