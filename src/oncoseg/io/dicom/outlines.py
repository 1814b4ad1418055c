"""Outlines of a mask along the edges of its pixels, from which the very same mask can be filled again.

Every outline runs on the lattice between the pixels, so that no pixel's centre lies on or near it: filling
by "centre inside, even–odd" gives back each pixel, also after coordinates were rounded, and the area is the
mask's own. Outlines through the centres (as OpenCV traces them) lose half a pixel all around, and those
half-way between centres (marching squares) lose half of a single pixel.

A hole is joined to the outline on its left by a channel of no width, the "keyhole" of DICOM PS3.3 C.8.8.6.3.
Inner outlines of their own are filled by every reader that unites the contours of a slice (plastimatch does,
unless told otherwise); a keyhole reads the same whether contours are united or combined by exclusive or.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

CHANNEL_HEIGHT = 0.25
"""Where a keyhole's channel runs, in pixels below a pixel's upper edge: on no edge and on no centre."""

Point = tuple[float, float]
"""Row and column on the lattice."""


class _Corners(NamedTuple):
    """Where a mask's boundary turns, on the lattice: row and column r mean the line before pixel r.

    Attributes:
        points: `n 2`, row and column.
        beside: for each corner, the one at the other end of its horizontal edge.
        above: for each corner, the one at the other end of its vertical edge.
        tops: the upper corners of the vertical edges, sorted by column, then row.
        order: a number for each of these that rises with them; see `_key`.
    """

    points: np.ndarray
    beside: np.ndarray
    above: np.ndarray
    tops: np.ndarray
    order: np.ndarray


class _Keyhole(NamedTuple):
    """A channel between a vertical edge and a hole on its right.

    Attributes:
        height: row at which it runs.
        wall: column of the edge.
        gate: column of the hole's left edge, where it enters.
        hole: the hole's corners, from the end of that edge to its beginning.
    """

    height: float
    wall: float
    gate: float
    hole: list[int]


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons around the regions of a mask.

    Pixels that touch at a corner only are apart. Each region has one polygon; a region in another's hole
    has its own.

    Args:
        mask: bool, 2D, any meaning of its axes.

    Returns:
        For each region its corners, float `n 2` in pixel indices along the mask's axes (whole numbers are
        pixels' centres); the last is joined to the first, which is not repeated.
    """
    corners = _corners(mask)
    points: list[Point] = [(row, column) for row, column in corners.points.tolist()]
    outer: list[list[int]] = []
    holes: list[list[int]] = []
    for loop in _loops(corners):
        if mask[*corners.points[loop[0]]]:
            outer.append(loop)
        else:
            holes.append(loop[::-1])  # against the outer ones, for readers that fill by winding numbers
    # every loop goes along a vertical edge from its odd corners on
    begins = {corner for loop in (*outer, *holes) for corner in loop[1::2]}
    keyholes: dict[int, list[_Keyhole]] = defaultdict(list)
    for hole in holes:
        edge, keyhole = _keyhole(corners, mask, hole)
        keyholes[edge if edge in begins else int(corners.above[edge])].append(keyhole)
    return [np.array(_walk(loop, points, keyholes)) - 0.5 for loop in outer]


def _corners(mask: np.ndarray) -> _Corners:
    """Find the corners, and pair them along the lattice's rows and columns."""
    padded = np.pad(mask, 1).astype(bool)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single = a ^ b ^ c ^ d
    falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
    # where two pixels touch, two corners share a place: each is the end of the edges of its own pixel
    places = [np.argwhere(single), *(np.argwhere(both) for both in (falling, falling, rising, rising))]
    points = np.concatenate(places)
    sizes = [len(place) for place in places]
    to_the_right = np.repeat([0, -1, 1, 1, -1], sizes)
    downwards = np.repeat([0, -1, 1, -1, 1], sizes)
    rows, columns = points.T
    along_rows = np.lexsort((to_the_right, columns, rows))
    along_columns = np.lexsort((downwards, rows, columns))
    tops = along_columns[0::2]
    order = _key(rows[tops], columns[tops], mask)
    return _Corners(points, _partners(along_rows), _partners(along_columns), tops, order)


def _key(row: Any, column: Any, mask: np.ndarray) -> Any:
    """One number by which places on the lattice are sorted by column, then row."""
    return column * (mask.shape[0] + 1) + row


def _partners(order: np.ndarray) -> np.ndarray:
    """Along each line of the lattice corners come in pairs: an edge's beginning and its end."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _loops(corners: _Corners) -> Iterator[list[int]]:
    """Follow the edges, horizontal and vertical in turn, each loop from its first corner in reading order."""
    beside, above = corners.beside.tolist(), corners.above.tolist()
    seen = bytearray(len(beside))
    rows, columns = corners.points.T
    for first in np.lexsort((columns, rows)).tolist():
        loop, at = [], first
        while not seen[at]:
            across = beside[at]
            seen[at] = seen[across] = 1
            loop += [at, across]
            at = above[across]
        if loop:
            yield loop


def _keyhole(corners: _Corners, mask: np.ndarray, hole: list[int]) -> tuple[int, _Keyhole]:
    """The channel from a hole's leftmost edge to the nearest edge on its left, and the upper end of that."""
    rows, columns = corners.points[hole].T
    gate = columns.min()
    at = int(np.flatnonzero((columns == gate) & (np.arange(len(hole)) % 2 == 1))[0])
    row = min(rows[at], rows[(at + 1) % len(hole)])
    outside = np.flatnonzero(~mask[row, :gate])
    wall = outside[-1] + 1 if len(outside) else 0
    edge = int(corners.tops[np.searchsorted(corners.order, _key(row, wall, mask), "right") - 1])
    return edge, _Keyhole(row + CHANNEL_HEIGHT, float(wall), float(gate), hole[at + 1 :] + hole[: at + 1])


def _walk(loop: list[int], points: list[Point], keyholes: Mapping[int, list[_Keyhole]]) -> list[Point]:
    """All points of an outline in order, into every hole that is joined to it and out again."""
    path: list[Point] = []
    ways = [_steps(loop, points, keyholes)]
    while ways:
        step = next(ways[-1], None)
        if step is None:
            ways.pop()
        elif isinstance(step, _Keyhole):
            ways.append(_through(step, points, keyholes))
        else:
            path.append(step)
    return path


def _steps(
    loop: list[int], points: list[Point], keyholes: Mapping[int, list[_Keyhole]]
) -> Iterator[Point | _Keyhole]:
    for corner, following in zip(loop, [*loop[1:], loop[0]], strict=True):
        yield points[corner]
        if corner in keyholes:
            upwards = points[following] < points[corner]
            yield from sorted(keyholes[corner], reverse=upwards)


def _through(
    keyhole: _Keyhole, points: list[Point], keyholes: Mapping[int, list[_Keyhole]]
) -> Iterator[Point | _Keyhole]:
    outside, inside = (keyhole.height, keyhole.wall), (keyhole.height, keyhole.gate)
    yield from (outside, inside)
    yield from _steps(keyhole.hole, points, keyholes)
    yield from (inside, outside)
