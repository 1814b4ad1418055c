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
from typing import NamedTuple

import numpy as np

CHANNEL_HEIGHT = 0.25
"""Where a keyhole's channel runs, in pixels below a pixel's upper edge: neither on an edge nor on a centre."""

Point = tuple[float, float]
"""Row and column on the lattice."""

Detour = tuple[float, list[Point]]
"""A keyhole: the height at which it leaves a vertical edge, and its points until it is back there."""


class _Corners(NamedTuple):
    """Where a mask's boundary turns, on the lattice: row and column r mean the line before pixel r.

    Attributes:
        points: `n 2`, row and column.
        beside: for each corner, the one at the other end of its horizontal edge.
        above: for each corner, the one at the other end of its vertical edge.
        tops: the upper corners of the vertical edges, sorted by column, then row.
    """

    points: np.ndarray
    beside: np.ndarray
    above: np.ndarray
    tops: np.ndarray


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons around the regions of a mask.

    Pixels that touch at a corner only are apart. Each region has one polygon; a region in another's hole
    has its own.

    Args:
        mask: bool, 2D, any meaning of its axes.

    Returns:
        For each region its corners, float `n 2` in pixel indices along the mask's axes (a pixel's centre is at
        whole numbers, its edges at ± 0.5); the last is joined to the first, which is not repeated.
    """
    corners = _corners(mask)
    points: list[Point] = [(row, column) for row, column in corners.points.tolist()]
    outer: list[list[int]] = []
    holes: list[list[int]] = []
    for loop in _loops(corners):
        row, column = corners.points[loop[0]]
        (outer if mask[row, column] else holes).append(loop)
    # every loop goes down a vertical edge from its odd corners on
    begins = {corner for loop in (*outer, *holes) for corner in loop[1::2]}
    joined: dict[int, list[Detour]] = defaultdict(list)
    # from the right: what is joined to a hole lies further right than the hole begins, so it is complete
    for hole in sorted(holes, key=lambda loop: -min(points[corner][1] for corner in loop)):
        row, column = _leftmost(hole, points)
        wall = _wall_on_the_left(corners, mask, row, column)
        begin = wall if wall in begins else int(corners.above[wall])
        joined[begin].append(_keyhole(_walk(hole, points, joined), row, column, points[wall][1]))
    return [np.array(_walk(loop, points, joined)) - 0.5 for loop in outer]


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
    return _Corners(points, _partners(along_rows), _partners(along_columns), along_columns[0::2])


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


def _leftmost(loop: list[int], points: list[Point]) -> tuple[int, int]:
    """The pixel of a hole, by row and column, beside whose left edge its keyhole enters."""
    column, row = min((points[corner][1], points[corner][0]) for corner in loop)
    return int(row), int(column)


def _wall_on_the_left(corners: _Corners, mask: np.ndarray, row: int, column: int) -> int:
    """The upper corner of the nearest vertical edge on the left of a hole's pixel."""
    outside = np.flatnonzero(~mask[row, :column])
    start = int(outside[-1]) + 1 if len(outside) else 0
    rows, columns = corners.points[corners.tops].T
    height = mask.shape[0] + 1
    return int(corners.tops[np.searchsorted(columns * height + rows, start * height + row, "right") - 1])


def _walk(loop: list[int], points: list[Point], joined: Mapping[int, list[Detour]]) -> list[Point]:
    """A loop's points in order, with the keyholes that begin on its edges."""
    path: list[Point] = []
    for corner, following in zip(loop, [*loop[1:], loop[0]], strict=True):
        path.append(points[corner])
        upwards = points[following][0] < points[corner][0]
        for _, detour in sorted(joined.get(corner, ()), reverse=upwards):
            path += detour
    return path


def _keyhole(hole: list[Point], row: int, column: int, wall: float) -> Detour:
    """The way from a wall to the left edge of a hole's pixel, around the hole and back."""
    height = row + CHANNEL_HEIGHT
    at = next(
        number
        for number, (one, two) in enumerate(zip(hole, [*hole[1:], hole[0]], strict=True))
        if one[1] == two[1] == column and min(one[0], two[0]) < height < max(one[0], two[0])
    )
    outside, inside = (height, wall), (height, float(column))
    return height, [outside, inside, *hole[at + 1 :], *hole[: at + 1], inside, outside]
