"""Which slices make up each batch of an epoch, balanced in several ways; and reading them ahead."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from oncoseg.store import Prepared, PreparedCase

Cases = Mapping[str, Sequence[Prepared]]
"""Modality → cases."""

Slices = Mapping[str, Sequence[PreparedCase]]
"""The same, of slices."""

Batch = tuple[Tensor, Tensor]
"""Images `n c …` in [0, 1] and masks `n …`; those of all modalities, one after the other."""


Item = TypeVar("Item")


class ExampleId(Protocol):
    """One example of one case in a list of cases: a slice, or a window of a volume."""

    @property
    def case(self) -> int:
        """The case's place in the list."""

    @property
    def position(self) -> Any:
        """What `Prepared.example` takes."""


class SliceId(NamedTuple):
    """One slice of one case in a list of cases."""

    case: int
    position: int


ExampleIds = Mapping[str, Sequence[ExampleId]]
"""Modality → the examples of its part of a batch."""


def epoch_batches(
    cases: Slices,
    batch_size: int,
    tumour_share: float | None,
    seed: Sequence[int],
    group: Callable[[Prepared], str | None] | None = None,
    tumour: int | None = None,
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
        group: of a case; slices of each group of a modality are drawn equally often, those of smaller groups
            therefore more than once in an epoch and not all of the larger ones. None for as they come.
        tumour: index of the class that `tumour_share` is about; None for any class.
    """
    rng = np.random.default_rng(list(seed))
    each = max(1, batch_size // len(cases))
    count = max(math.ceil(sum(len(case) for case in of_one) / each) for of_one in cases.values())
    draw = partial(_draw, rng=rng, group=group, tumour=tumour)
    drawn = {name: draw(of_one, count, each, tumour_share) for name, of_one in cases.items()}
    return [{name: parts[number] for name, parts in drawn.items()} for number in range(count)]


def read_ahead(
    cases: Cases, batches: Sequence[ExampleIds], *, readers: int = 1, pinned: bool = False
) -> Iterator[Batch]:
    """Read the batches in order, each while the ones before it are being computed.

    Args:
        cases: modality → cases.
        batches: which examples each of them holds.
        readers: threads, and batches that are read ahead.
        pinned: into memory from which a GPU copies by itself.
    """
    pool = ThreadPoolExecutor(readers)
    try:
        ahead = deque(pool.submit(read_batch, cases, batch, pinned) for batch in batches[:readers])
        for later in (*batches[readers:], *[None] * readers):
            if not ahead:
                return
            batch = ahead.popleft().result()
            if later is not None:
                ahead.append(pool.submit(read_batch, cases, later, pinned))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def parts_of(batch: ExampleIds) -> dict[str, slice]:
    """Modality → which rows of the joined batch are its."""
    parts, start = {}, 0
    for name, refs in batch.items():
        parts[name] = slice(start, start + len(refs))
        start += len(refs)
    return parts


def share_of(batch: ExampleIds, rows: slice) -> dict[str, Sequence[ExampleId]]:
    """What lies in some rows of the joined batch; modalities without any are left out."""
    named = [(name, ref) for name, refs in batch.items() for ref in refs]
    share: dict[str, list[ExampleId]] = {}
    for name, ref in named[rows]:
        share.setdefault(name, []).append(ref)
    return dict(share)


def read_batch(cases: Cases, batch: ExampleIds, pinned: bool = False) -> Batch:
    """Read one batch; see `read_ahead`."""
    examples = [cases[name][ref.case].example(ref.position) for name, refs in batch.items() for ref in refs]
    images, masks = (torch.cat(parts) for parts in zip(*examples, strict=True))
    return (images.pin_memory(), masks.pin_memory()) if pinned else (images, masks)


def _draw(
    cases: Sequence[PreparedCase],
    count: int,
    each: int,
    tumour_share: float | None,
    rng: np.random.Generator,
    group: Callable[[Prepared], str | None] | None,
    tumour: int | None,
) -> list[list[SliceId]]:
    every = [SliceId(number, position) for number, case in enumerate(cases) for position in range(len(case))]
    marked = np.concatenate([case.slices_with(tumour) for case in cases])
    ends = [batch * each for batch in range(count + 1)]
    groups = [(every, ends)]
    if tumour_share is not None and 0 < marked.sum() < len(every):
        # rounded over the epoch so far: a share of a quarter is one slice in every second batch of two
        ends_with = [math.floor(tumour_share * end + 0.5) for end in ends]
        ends_without = [end - with_tumour for end, with_tumour in zip(ends, ends_with, strict=True)]
        with_tumour = [ref for ref, mark in zip(every, marked, strict=True) if mark]
        without = [ref for ref, mark in zip(every, marked, strict=True) if not mark]
        groups = [(with_tumour, ends_with), (without, ends_without)]
    names = None if group is None else [group(case) for case in cases]
    streams = []
    for refs, ends in groups:
        of_each = None if names is None else [names[ref.case] for ref in refs]
        streams.append((in_turns(refs, ends[-1], rng, of_each), ends))
    return [
        [ref for stream, ends in streams for ref in stream[ends[batch] : ends[batch + 1]]]
        for batch in range(count)
    ]


def in_turns(
    items: Sequence[Item], length: int, rng: np.random.Generator, groups: Sequence[str | None] | None
) -> list[Item]:
    """`length` of the items in random order, in turn from each of the groups that they belong to."""
    if groups is None:
        return _shuffled(items, length, rng)
    of_groups: dict[str | None, list[Item]] = {}
    for item, group in zip(items, groups, strict=True):
        of_groups.setdefault(group, []).append(item)
    share = math.ceil(length / len(of_groups))
    turns = zip(*(_shuffled(of_one, share, rng) for of_one in of_groups.values()), strict=True)
    return [item for turn in turns for item in (turn[i] for i in rng.permutation(len(turn)))][:length]


def _shuffled(items: Sequence[Item], length: int, rng: np.random.Generator) -> list[Item]:
    """`length` of the items in random order, every one used before any comes again."""
    order: list[int] = []
    while len(order) < length:
        order += rng.permutation(len(items)).tolist()
    return [items[number] for number in order[:length]]
