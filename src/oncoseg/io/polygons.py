"""Outlines to pixels, exactly: which pixel centres lie inside a set of closed polygons."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from oncoseg.errors import GeometryError

SNAP_PIXELS = 2.0**-8
"""Vertices are rounded to this, so that a file's decimal numbers that mean the middle of a pixel hit it."""

FREE_CROSSINGS, MOST_PER_EDGE = 1_000_000, 16
"""Outlines of one slice cross rows so many times at will, and beyond that so often for each of their edges:
where there are many, an edge is about a pixel long. It bounds the time by the size of the file."""

MOST_CROSSINGS = 1 << 22
"""Crossings of edges with pixel rows that are held in memory at a time."""


class Patch(NamedTuple):
    """The part of a plane that outlines can reach.

    Attributes:
        at: where it lies in the plane, along i and j.
        inside: bool, axes `i j`.
    """

    at: tuple[slice, slice]
    inside: np.ndarray


def fill(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> Patch:
    """Find the pixels whose centre is inside, by the even–odd rule over all outlines together.

    A centre is inside when a ray from it towards lower i crosses the outlines an odd number of times, so
    an outline within another makes a hole. The rule is half-open: a centre exactly on an edge is inside
    where the inside begins with rising i (or, on an edge along i, with rising j), and outside where it
    ends. Regions that share an edge thus share no pixel and leave none out between them. In which
    direction an outline runs does not matter.

    Args:
        outlines: each n×2, (i, j) in pixels, whole numbers being pixel centres; they close themselves.
        shape: pixels along i and j.

    Raises:
        GeometryError: the outlines run to and fro across the image, as none of anything in a patient does.
    """
    low, high = _edges(outlines)
    first, stop = (np.clip(np.ceil(end[:, 1]), 0, shape[1]).astype(np.int64) for end in (low, high))
    crossed = stop > first
    if not crossed.any():
        return Patch((slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool))
    low, high, first, stop = low[crossed], high[crossed], first[crossed], stop[crossed]
    columns = np.clip(np.ceil([low[:, 0], high[:, 0]]), 0, shape[0]).astype(np.int64)
    at = slice(int(columns.min()), int(columns.max())), slice(int(first.min()), int(stop.max()))
    begins = np.zeros((at[0].stop - at[0].start + 1, at[1].stop - at[1].start), bool)
    _check_crossings(int((stop - first).sum()), len(first))
    for edge, row in _crossings(first, stop):
        (i, j), (di, dj) = low[edge].T, (high - low)[edge].T
        column = np.clip(np.ceil(i + (row - j) * di / dj), at[0].start, at[0].stop).astype(np.int64)
        place = (column - at[0].start) * begins.shape[1] + row - at[1].start
        begins ^= (np.bincount(place, minlength=begins.size) & 1).astype(bool).reshape(begins.shape)
    return Patch(at, _parity(begins)[:-1])


def _check_crossings(crossings: int, edges: int) -> None:
    if crossings > FREE_CROSSINGS + MOST_PER_EDGE * edges:
        raise GeometryError(
            f"Outlines of {edges} edges cross the rows of one slice {crossings} times, which no outline of "
            "anything in a patient does. Export or copy the file again."
        )


def _edges(outlines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The ends of every edge with lower j and with higher j, whichever way the outline runs."""
    snapped = [np.round(np.asarray(each, float) / SNAP_PIXELS) * SNAP_PIXELS for each in outlines]
    start = np.concatenate([np.zeros((0, 2)), *snapped])
    end = np.concatenate([np.zeros((0, 2)), *(np.roll(each, -1, axis=0) for each in snapped)])
    upwards = (start[:, 1] <= end[:, 1])[:, None]
    return np.where(upwards, start, end), np.where(upwards, end, start)


def _crossings(first: np.ndarray, stop: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every edge with each row that it crosses, some edges at a time."""
    counts = stop - first
    block = (np.cumsum(counts) - 1) // MOST_CROSSINGS
    starts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
    for start, stop_at in pairwise(starts):
        edges = np.arange(start, stop_at)
        repeated = np.repeat(edges, counts[edges])
        begin = np.repeat(np.cumsum(counts[edges]) - counts[edges], counts[edges])
        yield repeated, first[repeated] + np.arange(len(repeated)) - begin


def _parity(begins: np.ndarray) -> np.ndarray:
    """Running exclusive or along the first axis, by doubling: several times as fast as numpy's own."""
    step = 1
    while step < len(begins):
        doubled = begins.copy()
        doubled[step:] ^= begins[:-step]
        begins, step = doubled, 2 * step
    return begins
