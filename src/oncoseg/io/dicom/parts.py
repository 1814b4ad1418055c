"""The planes of one series → the groups among them that can each be one volume."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.io.dicom.planes import APART, Plane

COSINE_EQUAL = 1e-3
"""Two directions whose components differ by no more are one: 0.4 mm at the far side of a body."""

SPACING_EQUAL = 1e-3
"""Pixel spacings that differ by no more than this share are one."""

SAME_POSITION_MM = 0.01
"""Planes nearer to each other than this are at one place; no scanner cuts that thin."""


class Part(NamedTuple):
    """Planes that may be one volume.

    Attributes:
        label: what sets it apart from the other parts of the series, in words; empty where it is alone.
        planes: in no order.
    """

    label: str
    planes: list[Plane]


def split(planes: Sequence[Plane]) -> list[Part]:
    """Split a series by what cannot be one volume.

    First by frame of reference, stack, grid and orientation. Where several planes then lie at one place,
    also by the first of `APART` that differs among them, and so on until no place is taken twice or nothing
    is left that tells them apart.
    """
    parts = [Part("", list(planes))]
    for words, key in (
        ("frame of reference", lambda plane: plane.header.text("FrameOfReferenceUID")),
        ("stack", lambda plane: plane.text("StackID")),
        ("size", lambda plane: (plane.pixels.format.columns, plane.pixels.format.rows)),
    ):
        parts = [new for part in parts for new in _split_by(part, key, _named(words))]
    parts = [
        new for part in parts for new in _split_near(part, "orientation", lambda p: p.cosines, COSINE_EQUAL)
    ]
    parts = [new for part in parts for new in _split_near(part, "pixel size", _log_spacing, SPACING_EQUAL)]
    return [new for part in parts for new in _split_places(part, list(APART))]


def places(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Planes grouped by where they lie, in order along the normal of the first."""
    planes = list(planes)
    positions = np.array([plane.position_lps_mm for plane in planes])
    along = positions @ normal(planes[0])
    groups: list[list[Plane]] = []
    last = None
    for index in np.argsort(along, kind="stable"):
        near = last is not None and np.abs(positions[index] - positions[last]).max() <= SAME_POSITION_MM
        if near:
            groups[-1].append(planes[index])
        else:
            groups.append([planes[index]])
        last = index
    return groups


def normal(plane: Plane) -> np.ndarray:
    """Unit vector along row direction × column direction, in LPS."""
    direction = np.cross(plane.cosines[:3], plane.cosines[3:])
    length = float(np.linalg.norm(direction))
    return np.asarray(direction / length if length else direction)


def _split_places(part: Part, words: list[str]) -> list[Part]:
    """Split by the first of `words` that differs among planes at one place, while there are such."""
    crowded = [group for group in places(part.planes) if len(group) > 1]
    most = max((len(group) for group in crowded), default=1)
    for position, name in enumerate(words):
        differs = any(len({plane.apart.get(name, "") for plane in group}) > 1 for group in crowded)
        # more values than images at one place belong to the slice, such as its time, not to the volume
        if differs and len({plane.apart.get(name, "") for plane in part.planes}) <= most:
            new = _split_by(part, lambda plane, name=name: plane.apart.get(name, ""), _named(name))  # type: ignore[misc]
            return [last for each in new for last in _split_places(each, words[position + 1 :])]
    return [part]


def _split_by(
    part: Part, key: Callable[[Plane], Hashable], label: Callable[[Hashable, int], str]
) -> list[Part]:
    groups: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in part.planes:
        groups[key(plane)].append(plane)
    if len(groups) == 1:
        return [part]
    return [
        Part(_joined(part.label, label(value, number)), group)
        for number, (value, group) in enumerate(groups.items(), 1)
    ]


def _split_near(
    part: Part, words: str, numbers: Callable[[Plane], Sequence[float]], tolerance: float
) -> list[Part]:
    """Split by vectors that count as one where no component differs by more than `tolerance`."""
    vectors = np.array([numbers(plane) for plane in part.planes])
    kinds = np.empty_like(vectors)
    known = 0
    of_plane: dict[int, int] = {}
    for plane, vector in zip(part.planes, vectors, strict=True):
        near = np.flatnonzero(np.abs(kinds[:known] - vector).max(axis=1) <= tolerance)
        if not len(near):
            kinds[known] = vector
            near, known = np.array([known]), known + 1
        of_plane[id(plane)] = int(near[0])
    return _split_by(part, lambda plane: of_plane[id(plane)], lambda _, number: f"{words} {number}")


def _log_spacing(plane: Plane) -> Sequence[float]:
    spacing = np.maximum(np.abs(plane.pixel_spacing_mm), 1e-9)
    return tuple(np.log(spacing).tolist())


def _named(words: str) -> Callable[[Hashable, int], str]:
    def label(value: Hashable, number: int) -> str:
        if words == "echo time":
            return f"echo time {value} ms"
        if words in ("b-value", "temporal position", "acquisition", "trigger time", "stack"):
            return f"{words} {str(value) or 'none'}"
        if words == "size" and isinstance(value, tuple):
            return f"{words} {value[0]}×{value[1]}"
        return f"{words} {number}"

    return label


def _joined(first: str, second: str) -> str:
    return f"{first}, {second}" if first else second
