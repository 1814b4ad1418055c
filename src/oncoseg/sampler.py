"""Which slices make up each batch of an epoch: balanced by modality, and by tumour if wanted."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.store import PreparedCase


class SliceId(NamedTuple):
    """One slice of one case in a list of cases."""

    case: int
    position: int


def epoch_batches(
    cases: Mapping[str, Sequence[PreparedCase]],
    batch_size: int,
    tumour_share: float | None,
    seed: Sequence[int],
) -> list[dict[str, list[SliceId]]]:
    """All batches of one epoch; every batch holds equally many slices of each modality.

    The modality with the most slices is gone through once (its last batch filled up from a second
    shuffle); the others are shuffled anew as often as needed. S1, section 4.4: a 1:1 ratio.

    Args:
        cases: modality → cases.
        batch_size: slices in a batch, at least one per modality.
        tumour_share: share of slices with tumour in each modality's part, kept over the epoch where it
            does not divide a batch; None for as they come.
        seed: whole numbers that decide the order.
    """
    rng = np.random.default_rng(list(seed))
    each = max(1, batch_size // len(cases))
    count = max(math.ceil(sum(len(case) for case in of_one) / each) for of_one in cases.values())
    drawn = {name: _draw(of_one, count, each, tumour_share, rng) for name, of_one in cases.items()}
    return [{name: parts[number] for name, parts in drawn.items()} for number in range(count)]


def _draw(
    cases: Sequence[PreparedCase],
    count: int,
    each: int,
    tumour_share: float | None,
    rng: np.random.Generator,
) -> list[list[SliceId]]:
    every = [SliceId(number, position) for number, case in enumerate(cases) for position in range(len(case))]
    marked = np.concatenate([case.tumour_pixels > 0 for case in cases])
    ends = [batch * each for batch in range(count + 1)]
    groups = [(every, ends)]
    if tumour_share is not None and 0 < marked.sum() < len(every):
        # rounded over the epoch so far: a share of a quarter is one slice in every second batch of two
        ends_with = [math.floor(tumour_share * end + 0.5) for end in ends]
        ends_without = [end - with_tumour for end, with_tumour in zip(ends, ends_with, strict=True)]
        with_tumour = [ref for ref, mark in zip(every, marked, strict=True) if mark]
        without = [ref for ref, mark in zip(every, marked, strict=True) if not mark]
        groups = [(with_tumour, ends_with), (without, ends_without)]
    streams = [(_shuffled(refs, ends[-1], rng), ends) for refs, ends in groups]
    return [
        [ref for stream, ends in streams for ref in stream[ends[batch] : ends[batch + 1]]]
        for batch in range(count)
    ]


def _shuffled(refs: Sequence[SliceId], length: int, rng: np.random.Generator) -> list[SliceId]:
    """`length` of the refs in random order, every one used before any comes again."""
    order: list[int] = []
    while len(order) < length:
        order += rng.permutation(len(refs)).tolist()
    return [refs[number] for number in order[:length]]
