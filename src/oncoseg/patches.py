"""Which windows of volumes make up each batch of an epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.sampler import in_turns
from oncoseg.volume_store import Corner, PreparedVolume

JITTER = 0.25
"""A window on the foreground lies off its voxel by up to this share of its side, along each axis."""

Volumes = Mapping[str, Sequence[PreparedVolume]]
"""Modality → cases."""


class PatchId(NamedTuple):
    """One window of one case in a list of cases."""

    case: int
    position: Corner


def epoch_patches(
    cases: Volumes,
    batch_size: int,
    foreground_share: float,
    patches_per_case: int,
    seed: Sequence[int],
    group: Callable[[PreparedVolume], str | None] | None = None,
) -> list[dict[str, list[PatchId]]]:
    """All batches of one epoch; every batch holds equally many windows of each modality.

    Of the modality with the most cases, each is seen `patches_per_case` times (the last batch is filled up);
    those of the others as often as needed. Windows on the foreground come from cases that have it: first the
    classes have their turns, then a case with that class, then one of its voxels. The others lie anywhere:
    about any voxel with the same chance, then moved into the volume.

    Args:
        cases: modality → cases.
        batch_size: windows in a batch, at least one per modality.
        foreground_share: least share of a modality's windows, from the epoch's beginning to each of its
            batches, that hold a chosen voxel of a class.
        patches_per_case: see above.
        seed: whole numbers that decide all of it.
        group: of a case; see `sampler.epoch_batches`.
    """
    rng = np.random.default_rng(list(seed))
    each = max(1, batch_size // len(cases))
    count = max(math.ceil(len(of_one) * patches_per_case / each) for of_one in cases.values())
    drawn = {
        name: _draw(of_one, count * each, foreground_share, rng, group) for name, of_one in cases.items()
    }
    return [
        {name: patches[number * each : (number + 1) * each] for name, patches in drawn.items()}
        for number in range(count)
    ]


def _draw(
    cases: Sequence[PreparedVolume],
    count: int,
    share: float,
    rng: np.random.Generator,
    group: Callable[[PreparedVolume], str | None] | None,
) -> list[PatchId]:
    names = None if group is None else [group(case) for case in cases]
    having: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        for index in case.places:
            having.setdefault(index, []).append(number)
    wanted = math.ceil(share * count) if having else 0
    each = math.ceil(wanted / max(1, len(having)))
    turns = []
    for index, numbers in sorted(having.items()):
        turns.append((index, in_turns(numbers, each, rng, names and [names[number] for number in numbers])))
    on_foreground = [(index, of_one[turn]) for turn in range(each) for index, of_one in turns]
    anywhere = in_turns(range(len(cases)), count - wanted, rng, names)
    patches, done = [], 0
    for number in range(count):
        # rounded up over the epoch so far: a third is one window in every batch of two, now and then none
        if wanted and math.ceil(share * (number + 1)) > done:
            index, chosen = on_foreground[done]
            done += 1
            corner = _on_voxel(cases[chosen], index, rng)
        else:
            chosen = anywhere[number - done]
            corner = window_anywhere(cases[chosen], rng)
        patches.append(PatchId(chosen, corner))
    return patches


def _on_voxel(case: PreparedVolume, index: int, rng: np.random.Generator) -> Corner:
    voxels = case.places[index]
    middle = voxels[rng.integers(len(voxels))] + rng.uniform(-JITTER, JITTER, 3) * case.patch
    return _about(middle, case)


def window_anywhere(case: PreparedVolume, rng: np.random.Generator) -> Corner:
    """A window about any voxel with the same chance, moved into the volume."""
    return _about(rng.uniform(0, case.shape), case)


def _about(middle: np.ndarray, case: PreparedVolume) -> Corner:
    """The window about a place, moved into the volume; a volume that is smaller lies in its middle."""
    i, j, k = (
        -((side - size) // 2) if size <= side else min(max(round(at - side / 2), 0), size - side)
        for at, side, size in zip(middle.tolist(), case.patch, case.shape, strict=True)
    )
    return i, j, k
