"""Windows of volumes: as many on each class as asked for, the others anywhere, all within the volume."""

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from oncoseg.patches import PatchId, epoch_patches
from oncoseg.volume_store import PreparedVolume

PATCH = (8, 6, 4)


def prepared(places: dict[int, list[tuple[int, int, int]]], shape: tuple[int, int, int]) -> PreparedVolume:
    """A case with known voxels of each class, without files."""
    case = PreparedVolume("case", "patient", Path("unused"), (0,), PATCH)
    case.__dict__["description"] = {"shape": shape}
    case.__dict__["places"] = {index: np.array(rows) for index, rows in places.items()}
    return case


LIVER = prepared({1: [(i, 15, 9) for i in range(5, 25)], 2: [(10, 3, 1)]}, (30, 20, 10))
PLAIN = prepared({}, (30, 20, 10))
SMALL = prepared({1: [(2, 2, 2)]}, (5, 20, 4))
CASES = {"ct": [LIVER, PLAIN, SMALL]}


def holds(case: PreparedVolume, patch: PatchId, index: int) -> bool:
    first = np.array(patch.position)
    places = case.places.get(index, np.zeros((0, 3)))
    return bool(((places >= first) & (places < first + PATCH)).all(axis=1).any())


def flat(batches: list[dict[str, list[PatchId]]], name: str = "ct") -> list[PatchId]:
    return [patch for batch in batches for patch in batch[name]]


def test_an_epoch_sees_every_case_as_often_as_asked() -> None:
    batches = epoch_patches({"ct": [PLAIN] * 5, "mri": [LIVER] * 2}, 4, 0.0, 6, (0,))
    assert len(batches) == 15
    assert all(len(part) == 2 for batch in batches for part in batch.values())
    assert Counter(patch.case for patch in flat(batches)) == dict.fromkeys(range(5), 6)
    assert Counter(patch.case for patch in flat(batches, "mri")) == {0: 15, 1: 15}


@pytest.mark.parametrize("share", [0.0, 0.33, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_share_on_the_foreground_is_kept_from_the_beginning(share: float, size: int) -> None:
    cases = {"ct": [LIVER, prepared({2: [(29, 19, 9)]}, (30, 20, 10))]}
    batches = epoch_patches(cases, size, share, 40, (1,))
    seen = flat(batches)
    for batch in range(1, len(batches)):
        part = seen[: batch * size]
        on = sum(any(holds(cases["ct"][patch.case], patch, index) for index in (1, 2)) for patch in part)
        assert on >= math.ceil(share * len(part))


def test_classes_have_their_turns_whatever_their_size() -> None:
    seen = flat(epoch_patches(CASES, 4, 1.0, 40, (0,)))
    tumour = sum(holds(LIVER, patch, 2) for patch in seen if patch.case == 0)
    assert len(seen) == 120
    assert tumour >= 60
    # organ: half from each case that has it
    assert sum(patch.case == 2 for patch in seen) == 30
    assert not any(patch.case == 1 for patch in seen)


def test_without_any_foreground_windows_lie_anywhere() -> None:
    assert len(flat(epoch_patches({"ct": [PLAIN]}, 2, 0.5, 4, (0,)))) == 4


def test_windows_lie_within_the_volume_or_it_lies_in_their_middle() -> None:
    for patch in flat(epoch_patches(CASES, 2, 0.4, 200, (3,))):
        shape = CASES["ct"][patch.case].shape
        for first, side, size in zip(patch.position, PATCH, shape, strict=True):
            assert isinstance(first, int)
            if size >= side:
                assert 0 <= first <= size - side
            else:
                assert first == -((side - size) // 2)


def test_every_voxel_is_seen() -> None:
    covered = np.zeros(PLAIN.shape, int)
    for patch in flat(epoch_patches({"ct": [PLAIN]}, 2, 0.0, 5000, (0,))):
        covered[
            tuple(slice(first, first + side) for first, side in zip(patch.position, PATCH, strict=True))
        ] += 1
    assert covered.min() > 10


def test_the_seed_decides_all_of_it() -> None:
    def drawn(*seed: int) -> list[PatchId]:
        return flat(epoch_patches(CASES, 2, 0.4, 20, seed))

    assert drawn(0, 0, 1) == drawn(0, 0, 1)
    assert drawn(0, 0, 1) != drawn(0, 0, 2)


def test_groups_are_drawn_equally_often() -> None:
    here = dataclasses.replace(PLAIN, site="here")
    there = dataclasses.replace(PLAIN, site="there")
    for case in (here, there):
        case.__dict__.update(description=PLAIN.description, places=PLAIN.places)
    seen = flat(epoch_patches({"ct": [here, here, here, there]}, 2, 0.5, 4, (0,), lambda case: case.site))
    assert Counter(patch.case == 3 for patch in seen) == {True: 8, False: 8}
