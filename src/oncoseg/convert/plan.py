"""What is to be written: which cases and channels, under which names, and one value for each label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from oncoseg.datasets.base import Case
from oncoseg.errors import DataError

MOST_LABELS = 255
"""Label maps are written as uint8."""

BACKGROUND = "background"

Names = Literal["keep", "pseudonyms"]
"""What becomes of the names of cases, patients and sites."""


@dataclass(frozen=True)
class Item:
    """One case to write.

    Attributes:
        source: the case as it was found.
        name: in the converted data.
        patient: likewise.
        site: likewise.
        part: its side of a given split; empty without one.
    """

    source: Case
    name: str
    patient: str
    site: str | None
    part: str = ""


@dataclass(frozen=True)
class Plan:
    """What all cases share.

    Attributes:
        channels: in the order in which they are written; a case may lack some where the format allows it.
        labels: name → value, from 1 on.
        consensus: share of the readers that must mark a voxel, where one mask is written for several.
        readers: the most masks that a case gets.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    consensus: float
    readers: int


def choose(
    cases: Sequence[Case], channels: Sequence[str] | None, alike: bool
) -> tuple[list[Case], tuple[str, ...]]:
    """The cases to write and their channels.

    Args:
        cases: all of a data set.
        channels: only these, in this order, and only cases that have them all; None for all that there are.
        alike: whether every case must have the same channels.

    Raises:
        DataError: a channel that no case has, or cases that differ where they must not.
    """
    sets = Counter(tuple(case.images) for case in cases)
    known = tuple(dict.fromkeys(name for of_case in sets for name in of_case))
    if channels:
        if unknown := [name for name in channels if name not in known]:
            raise DataError(f"No case has the channel {', '.join(unknown)}; expected {', '.join(known)}.")
        chosen = [case for case in cases if set(channels) <= set(case.images)]
        if not chosen:
            raise DataError(f"No case has all of the channels {', '.join(channels)}. Ask for fewer.")
        return chosen, tuple(dict.fromkeys(channels))
    if alike and len({frozenset(of_case) for of_case in sets}) > 1:
        have = "; ".join(f"{count} cases have {', '.join(of_case)}" for of_case, count in sets.most_common())
        raise DataError(
            f"This format needs the same channels in every case, but {have}. Choose some with --channels; "
            "cases that lack one are left out."
        )
    return list(cases), known


def join_labels(cases: Sequence[Case]) -> dict[str, int]:
    """One value for every name of a label, from 1 on, in the order of the smallest values that have it.

    Of annotations, only the labels that their structures get count.

    Raises:
        DataError: more names than a byte can tell apart, or a name that means something else.
    """
    smallest: dict[str, int] = {}
    for case in cases:
        drawn = {value for ref in case.masks for _, value in ref.structures}
        for value, name in case.labels.items() if case.masks else ():
            if not drawn or value in drawn:
                smallest[name] = min(value, smallest.get(name, value))
    ordered = sorted(smallest, key=lambda name: (smallest[name], name))
    if len(ordered) > MOST_LABELS:
        raise DataError(f"The data set names {len(ordered)} labels; expected at most {MOST_LABELS}.")
    if reserved := {BACKGROUND, "ignore"} & set(ordered):
        raise DataError(f"A label is named {reserved.pop()}, which means something else there. Rename it.")
    return {name: value for value, name in enumerate(ordered, 1)}
