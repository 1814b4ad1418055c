"""Partitions of all patients into folds for cross-validation, stratified and by patient.

How patients are dealt to folds:

1. They are sorted by the modalities that they have images of, by whether they have any tumour, by class and
   by site (not to be known counts as one, too), and within such a group by the volume of their tumours.
2. Of each group, every run of as many patients as there are folds, who are next to each other in volume, is
   shuffled.
3. The patients are dealt to the folds in turn, as cards are.

Therefore any two folds differ by at most one patient: in all, and among the patients of each set of
modalities, of those with a tumour among them, of each class of those, and of each site of that; and of
patients with tumours alike in size every fold gets one. All that is shuffled follows from the recipe's seed.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from oncoseg.errors import DataError
from oncoseg.split import PARTS
from oncoseg.store import Prepared

Split = dict[str, dict[str, dict[str, list[str]]]]
"""Modality → part → patient → case ids, as a run folder's `split.json` holds it."""

Cases = Mapping[str, Sequence[Prepared]]
"""Modality → its cases."""


class Patient(NamedTuple):
    """What decides where a patient goes.

    Attributes:
        name: whose images they are, in all modalities.
        modalities: of which there are images, in the recipe's order.
        classes: the known classes of the cases, sorted.
        sites: likewise of their sites.
        volume: of tumour of any class, in pixels of the prepared slices of all cases.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    volume: int

    @property
    def group(self) -> tuple[tuple[str, ...], bool, tuple[str, ...], tuple[str, ...]]:
        """Patients who share it, or the beginning of it, are spread evenly."""
        return self.modalities, self.volume > 0, self.classes, self.sites


def patients_of(prepared: Cases) -> list[Patient]:
    """Everybody who has a case, sorted by name."""
    cases: dict[str, list[Prepared]] = {}
    modalities: dict[str, dict[str, None]] = {}
    for modality, of_modality in prepared.items():
        for case in of_modality:
            cases.setdefault(case.patient, []).append(case)
            modalities.setdefault(case.patient, {})[modality] = None
    return [
        Patient(
            name,
            tuple(modalities[name]),
            tuple(sorted({case.target for case in cases[name] if case.target})),
            tuple(sorted({case.site for case in cases[name] if case.site})),
            sum(int(case.tumour_pixels.sum()) for case in cases[name]),
        )
        for name in sorted(cases)
    ]


def deal(patients: Sequence[Patient], folds: int, seed: int) -> list[list[Patient]]:
    """Deal patients to folds, see above; whatever order they come in.

    Raises:
        DataError: fewer than two folds, or more than patients.
    """
    if not 2 <= folds <= len(patients):
        raise DataError(
            f"Expected from 2 folds to as many as there are patients with a mask, {len(patients)}; got "
            f"{folds}. Choose another number with --folds, or add patients."
        )
    rng = random.Random(seed)
    in_turn: list[Patient] = []
    for _, group in groupby(_ordered(patients), lambda one: one.group):
        alike = list(group)
        for start in range(0, len(alike), folds):
            run = alike[start : start + folds]
            in_turn += rng.sample(run, len(run))
    dealt = [in_turn[first::folds] for first in range(folds)]
    return rng.sample(dealt, folds)  # else the first ones would be the larger ones always


def _ordered(patients: Iterable[Patient]) -> list[Patient]:
    return sorted(patients, key=lambda one: (one.group, one.volume, one.name))


def choose_validation(rest: Sequence[Patient], share: float, seed: int) -> list[Patient]:
    """Choose who selects the kept weights, among those who are not tested.

    Among the patients of each set of modalities, sorted by class, site and volume, one is drawn from each of
    as many equal runs as there are to be chosen; one with a tumour where the run has any, because the others
    say nothing about a Dice. One patient at least is left to train on; where there are two, one is chosen.

    Args:
        rest: patients of whom some are chosen.
        share: of them, in (0, 1).
        seed: of the draw.
    """
    rng, chosen = random.Random(seed), list[Patient]()
    for _, group in groupby(_ordered(rest), lambda one: one.modalities):
        alike = list(group)
        count = min(max(1, round(share * len(alike))), len(alike) - 1)
        for number in range(count):
            run = alike[number * len(alike) // count : (number + 1) * len(alike) // count]
            chosen.append(rng.choice([one for one in run if one.volume] or run))
    return chosen


def draw(prepared: Cases, folds: int | None, validation: float, seed: int) -> list[Split]:
    """Draw a split for each fold: its patients are tested, of the others some validate and the rest train.

    Args:
        prepared: all cases with a mask.
        folds: how many; None to leave out one patient in each.
        validation: share of all patients that choose the kept weights, in (0, 1).
        seed: see `deal`.

    Raises:
        DataError: fewer than three patients, more folds than patients, or a side of a fold without tumour.
    """
    patients = patients_of(prepared)
    if len(patients) < len(PARTS):
        raise DataError(
            f"Expected at least {len(PARTS)} patients with a mask, one for each of {', '.join(PARTS)}, got "
            f"{len(patients)}. Add patients."
        )
    splits = []
    dealt = deal(patients, folds or len(patients), seed)
    for number, tested in enumerate(dealt, 1):
        names = {patient.name for patient in tested}
        rest = [patient for patient in patients if patient.name not in names]
        share = min(validation * len(patients) / len(rest), 1.0)
        chosen = {patient.name for patient in choose_validation(rest, share, seed + number)}
        sides = {name: "validation" if name in chosen else "train" for name in (one.name for one in rest)}
        sides |= dict.fromkeys(names, "test")
        _check_tumours(prepared, sides, number, tested_too=folds is not None)
        splits.append(_listed(prepared, sides))
    return splits


def _listed(prepared: Cases, sides: Mapping[str, str]) -> Split:
    listed: Split = {modality: {part: {} for part in PARTS} for modality in prepared}
    for modality, cases in prepared.items():
        for case in sorted(cases, key=lambda one: one.id):
            listed[modality][sides[case.patient]].setdefault(case.patient, []).append(case.id)
    return listed


def _check_tumours(prepared: Cases, sides: Mapping[str, str], number: int, tested_too: bool) -> None:
    """Every modality needs tumours to learn from and to choose by; a fold of several patients one to find."""
    marked = {
        name: {case.patient for case in of if case.tumour_pixels.any()} for name, of in prepared.items()
    }
    for modality, patients in marked.items():
        left = [patient for patient in patients if sides[patient] != "test"]
        for part in ("train", "validation"):
            if not any(sides[patient] == part for patient in left):
                raise DataError(
                    f"{modality}: fold {number} has nobody with a tumour under {part} ({len(left)} patients "
                    "with one are left beside those whom it tests); expected one at least. Add patients with "
                    "a tumour, take more folds, or choose another training.seed."
                )
    everywhere = set().union(*marked.values())
    if tested_too and not any(sides[patient] == "test" for patient in everywhere):
        raise DataError(
            f"No patient under test of fold {number} has a tumour ({len(everywhere)} of {len(sides)} "
            "patients have any after preparation); expected one at least in each fold. Take fewer folds."
        )
