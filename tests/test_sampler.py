"""Batches: equal shares, every slice of the largest modality, as many with tumour as asked for."""

import dataclasses
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from oncoseg.errors import RunError
from oncoseg.sampler import SliceId, epoch_batches, parts_of, read_ahead
from oncoseg.store import PreparedCase


def prepared(pixels: list[int], name: str = "case") -> PreparedCase:
    """A case with so many tumour pixels in each slice, without files."""
    case = PreparedCase(name, name, Path("unused"), (0,))
    case.__dict__["description"] = {"tumour_pixels": pixels}
    return case


LARGE = [prepared([0, 5, 5, 0, 0, 0, 0]), prepared([3, 0, 0, 0, 0])]  # 12 slices, 3 with tumour
SMALL = [prepared([0, 1, 0, 9, 0])]  # 5 slices, 2 with tumour


def seen(batches: list[dict[str, list[SliceId]]], name: str) -> Counter:
    return Counter(one for batch in batches for one in batch[name])


def test_every_batch_is_half_and_half_and_the_largest_is_seen_once() -> None:
    batches = epoch_batches({"mri": LARGE, "ct": SMALL}, 8, None, (0, 1))
    assert len(batches) == 3
    assert all(len(part) == 4 for batch in batches for part in batch.values())
    assert all(list(batch) == ["mri", "ct"] for batch in batches)
    every = {SliceId(0, k) for k in range(7)} | {SliceId(1, k) for k in range(5)}
    assert seen(batches, "mri") == Counter(every)
    # 12 draws of 5 slices: each twice, two of them three times
    assert sorted(seen(batches, "ct").values()) == [2, 2, 2, 3, 3]


def test_the_last_batch_is_filled_up() -> None:
    batches = epoch_batches({"ct": SMALL}, 3, None, (0,))
    assert [len(batch["ct"]) for batch in batches] == [3, 3]
    assert sorted(seen(batches, "ct").values()) == [1, 1, 1, 1, 2]


def test_a_batch_smaller_than_the_modalities_has_one_of_each() -> None:
    batches = epoch_batches({"a": SMALL, "b": SMALL, "c": SMALL}, 2, None, (0,))
    assert [len(part) for batch in batches for part in batch.values()] == [1] * 15


def test_one_slice_is_enough() -> None:
    batches = epoch_batches({"ct": [prepared([1])]}, 4, 0.5, (0,))
    assert batches == [{"ct": [SliceId(0, 0)] * 4}]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_share_of_slices_with_tumour_is_kept_in_every_batch(share: float) -> None:
    cases = {"mri": LARGE, "ct": SMALL}
    for batch in epoch_batches(cases, 8, share, (0,)):
        for name, part in batch.items():
            marked = sum(cases[name][one.case].tumour_pixels[one.position] > 0 for one in part)
            assert marked == 4 * share


@pytest.mark.parametrize("batch_size", [2, 4, 6, 10])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_a_share_that_does_not_divide_a_batch_is_kept_over_the_epoch(batch_size: int, share: float) -> None:
    cases = {"mri": [prepared([0, 1] * 50)], "ct": SMALL}
    batches = epoch_batches(cases, batch_size, share, (0,))
    drawn = [one for batch in batches for one in batch["mri"]]
    marked = sum(cases["mri"][0].tumour_pixels[one.position] > 0 for one in drawn)
    assert abs(marked - share * len(drawn)) <= 1
    assert len({len(batch["mri"]) for batch in batches}) == 1


def test_slices_with_tumour_are_all_used_before_any_comes_again() -> None:
    batches = epoch_batches({"mri": LARGE}, 4, 0.5, (0,))  # 3 batches of 2 + 2
    marked = [
        one for one in seen(batches, "mri").elements() if LARGE[one.case].tumour_pixels[one.position] > 0
    ]
    assert sorted(Counter(marked).values()) == [2, 2, 2]


@pytest.mark.parametrize("pixels", [[0, 0, 0], [2, 3, 4]])
def test_the_share_is_dropped_where_all_or_no_slice_has_tumour(pixels: list[int]) -> None:
    batches = epoch_batches({"ct": [prepared(pixels)]}, 3, 0.5, (0,))
    assert seen(batches, "ct") == Counter(SliceId(0, k) for k in range(3))


def test_the_seed_decides_the_order() -> None:
    cases = {"mri": LARGE, "ct": SMALL}
    assert epoch_batches(cases, 8, 0.5, (0, 1, 2)) == epoch_batches(cases, 8, 0.5, (0, 1, 2))
    assert epoch_batches(cases, 8, None, (0, 1, 2)) != epoch_batches(cases, 8, None, (0, 1, 3))


def test_order_is_no_privilege() -> None:
    firsts = [epoch_batches({"ct": SMALL}, 1, None, (0, n))[0]["ct"][0].position for n in range(200)]
    assert np.bincount(firsts, minlength=5).min() > 20


class Numbered:
    """Stands for a prepared case: each slice holds its case's number and its own."""

    def __init__(self, number: int, longest_wait: float = 0.0) -> None:
        self.number, self.longest_wait = number, longest_wait

    def example(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        if position == FAILS:
            raise RunError("damaged")
        time.sleep(self.longest_wait / (1 + position))  # later ones are ready sooner
        image = torch.full((1, 1, 2, 2), float(self.number))
        return image, torch.full((1, 2, 2), position, dtype=torch.uint8)


FAILS = 99


def test_a_batch_holds_all_modalities_rows_and_knows_whose_they_are() -> None:
    cases = {"mri": [Numbered(0), Numbered(1)], "ct": [Numbered(2)]}
    refs = {"mri": [SliceId(1, 5), SliceId(0, 7)], "ct": [SliceId(0, 3)]}
    ((images, masks),) = read_ahead(cases, [refs])
    assert parts_of(refs) == {"mri": slice(0, 2), "ct": slice(2, 3)}
    assert images[:, 0, 0, 0].tolist() == [1, 0, 2]
    assert masks[:, 0, 0].tolist() == [5, 7, 3]


@pytest.mark.parametrize("readers", [1, 3, 10])
def test_batches_come_in_order_however_many_read(readers: int) -> None:
    cases = {"ct": [Numbered(0, longest_wait=0.02)]}
    batches = [{"ct": [SliceId(0, k)]} for k in range(7)]
    read = read_ahead(cases, batches, readers=readers)
    assert [masks[0, 0, 0].item() for _, masks in read] == list(range(7))


def test_reading_fails_at_the_batch_that_cannot_be_read() -> None:
    batches = [{"ct": [SliceId(0, k)]} for k in (0, 1, FAILS, 3)]
    read = read_ahead({"ct": [Numbered(0)]}, batches, readers=2)
    assert [next(read)[1][0, 0, 0].item() for _ in range(2)] == [0, 1]
    with pytest.raises(RunError, match="damaged"):
        next(read)


def test_groups_are_drawn_equally_often_whatever_their_size() -> None:
    # 8 slices of site A, 3 of B, 1 of a site that is not known
    sizes = {"A": [0, 1, 0, 0, 2, 0, 0, 0], "B": [0, 0, 1], None: [4]}
    cases = [dataclasses.replace(prepared([]), site=site) for site in sizes]
    for case, pixels in zip(cases, sizes.values(), strict=True):
        case.__dict__["description"] = {"tumour_pixels": pixels}
    batches = epoch_batches({"ct": cases}, 3, None, (0,), lambda case: case.site)
    assert all(sorted(ref.case for ref in batch["ct"]) == [0, 1, 2] for batch in batches)
    assert len(batches) == 4
    drawn = seen(batches, "ct")
    assert max(drawn[SliceId(0, k)] for k in range(8)) == 1
    assert sorted(drawn[SliceId(1, k)] for k in range(3)) == [1, 1, 2]
    assert drawn[SliceId(2, 0)] == 4
    with_tumour = epoch_batches({"ct": cases}, 3, 1.0, (0,), lambda case: case.site)
    assert set(seen(with_tumour, "ct")) == {SliceId(0, 1), SliceId(0, 4), SliceId(1, 2), SliceId(2, 0)}
    assert all(sorted(ref.case for ref in batch["ct"]) == [0, 1, 2] for batch in with_tumour)
