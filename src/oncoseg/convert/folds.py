"""Who trains and who validates, as nnU-Net's `splits_final.json` says it: a list of folds of cases' names.

A split that oncoseg has trained on becomes one fold, and its test patients leave the training data, so that
nnU-Net's plans know nothing of them. Without a split there are folds by patient, because those that nnU-Net
draws itself go by case.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from oncoseg.convert.plan import Item
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.split import PARTS, check_disjoint, from_json

FOLDS = 5
"""As many as nnU-Net draws."""

SEED = 0
"""Of the order in which patients are dealt out."""


def parts_of(split: Mapping[str, Any], cases: Sequence[Case]) -> dict[str, str]:
    """Case → its side of a split.

    Args:
        split: modality → part → patient → case ids, such as of a run. A modality counts when the data set
            holds all of its cases; CT and MRI may be from one data set.
        cases: all of the data set.

    Raises:
        DataError: the split is of other cases, is not of that form, or has a patient on two sides.
    """
    own = {case.id for case in cases}
    listed = {modality: _ids(parts) for modality, parts in split.items()}
    ours = [modality for modality, ids in listed.items() if ids and ids <= own]
    if not ours and split:
        ours = [max(listed, key=lambda modality: len(listed[modality] & own))]  # to say what it lacks
    sides: dict[str, dict[str, Case]] = {part: {} for part in PARTS}
    for modality in ours:
        found = from_json(split[modality], cases)
        for part in PARTS:  # who is learnt from without a mask is nobody's side
            sides[part] |= {case.id: case for case in found[part]}
    check_disjoint({part: found.values() for part, found in sides.items()})
    if not (sides["train"] and sides["validation"]):
        raise DataError(
            "The split has no case of this data set to train on, or none to validate on; nnU-Net needs both. "
            "Give the split.json of a run that was trained on it."
        )
    if untrue := [
        name for part in ("train", "validation") for name, case in sides[part].items() if not case.masks
    ]:
        raise DataError(
            f"The split trains or validates on {untrue[0]}, which has no mask; expected one. Restore it."
        )
    return {name: part for part, found in sides.items() for name in found}


def folds_of(items: Sequence[Item]) -> list[dict[str, list[str]]]:
    """The folds of what was written: the split's one, or folds by patient; none where neither can be made.

    Args:
        items: with the side that a split gives each, or all without.
    """
    if any(item.part for item in items):
        return [{"train": _names(items, "train"), "val": _names(items, "validation")}]
    trained = sorted((item for item in items if item.source.masks), key=lambda item: item.name)
    patients = sorted({item.patient for item in trained})
    if len(patients) < FOLDS:
        return []
    random.Random(SEED).shuffle(patients)
    number = {patient: place % FOLDS for place, patient in enumerate(patients)}
    return [
        {
            "train": [item.name for item in trained if number[item.patient] != fold],
            "val": [item.name for item in trained if number[item.patient] == fold],
        }
        for fold in range(FOLDS)
    ]


def _names(items: Sequence[Item], part: str) -> list[str]:
    return sorted(item.name for item in items if item.part == part)


def _ids(parts: Any) -> set[str]:
    """Every case that a modality lists; none where it has another form, which `from_json` tells."""
    try:
        return {str(case) for patients in parts.values() for listed in patients.values() for case in listed}
    except (AttributeError, TypeError):
        return set()
