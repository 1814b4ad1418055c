"""Reading the segmentations of 3D Slicer (`.seg.nrrd`): segments with names, in layers where they overlap.

The format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError, GeometryError, nearest
from oncoseg.io.checks import check_regular
from oncoseg.io.itk import read_itk
from oncoseg.io.itk_header import LARGEST_HEADER_BYTES
from oncoseg.volume import AFFINE_TOLERANCE_MM, Volume

FIELD = re.compile(rb"^Segment(\d+)_(Name|Layer|LabelValue):=(.*)$", re.MULTILINE)
"""A line about one segment in the header."""


class Segment(NamedTuple):
    """One structure that somebody marked.

    Attributes:
        name: as its author called it.
        layer: which component of the voxels holds it; segments of one layer do not overlap.
        value: of its voxels in that layer.
    """

    name: str
    layer: int
    value: int


def list_segments(path: Path) -> tuple[Segment, ...]:
    """The segments of a file, in its order, from the header alone.

    Raises:
        DataError: the file cannot be read, or says nothing of segments.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            header = re.split(rb"\r?\n\r?\n", file.read(LARGEST_HEADER_BYTES), maxsplit=1)[0]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    fields: dict[int, dict[str, str]] = {}
    for number, field, value in FIELD.findall(header):
        fields.setdefault(int(number), {})[field.decode()] = value.decode("utf-8", "replace").strip()
    if not header.startswith(b"NRRD") or not fields:
        raise DataError(f"{path} lists no segments; expected a segmentation saved by 3D Slicer.")
    try:
        # before Slicer 4.11 every segment had a layer of its own, with the value 1
        return tuple(
            Segment(of.get("Name", f"segment {n}"), int(of.get("Layer", n)), int(of.get("LabelValue", 1)))
            for n, of in sorted(fields.items())
        )
    except ValueError as error:
        raise DataError(
            f"{path} has a damaged list of segments: {error}. Save it again in Slicer."
        ) from error


def read_segmentation(path: Path, structures: Sequence[tuple[str, int]], grid: Volume | None) -> Volume:
    """Read chosen segments as one label map, `1 i j k` uint8 or uint16.

    Args:
        path: a `.seg.nrrd` file.
        structures: (name of a segment, label value that it gets); where two overlap the later one is kept.
            All, numbered from 1, where it is empty.
        grid: the image's, onto which the segmentation, which Slicer cuts to its segments, is put back;
            None keeps the file's own.

    Raises:
        DataError: the file cannot be used or lacks a segment.
        GeometryError: its voxels are not those of the image's grid.
    """
    segments = {segment.name: segment for segment in list_segments(path)}
    wanted = structures or tuple((name, number) for number, name in enumerate(segments, 1))
    stored = read_itk(path)
    labels = np.zeros(stored.grid, np.uint8 if all(value < 256 for _, value in wanted) else np.uint16, "F")
    for name, value in wanted:
        if name not in segments:
            raise DataError(f"{path} has no segment {name!r}; {nearest(name, segments)}")
        if segments[name].layer >= len(stored.array):
            raise DataError(f"{path} lacks the layer of its segment {name!r}. Save it again in Slicer.")
        labels[stored.array[segments[name].layer] == segments[name].value] = value
    found = stored.with_array(labels[None])
    return found if grid is None else place_on(found, grid, path)


def place_on(part: Volume, grid: Volume, path: Path) -> Volume:
    """Put a part of a grid back into the whole, 0 around it; nothing is interpolated.

    Args:
        part: `c i j k`.
        grid: the whole.
        path: of the part, for messages.

    Raises:
        GeometryError: the part's voxels are not voxels of the grid, or it holds something outside.
    """
    mapping = np.linalg.inv(grid.affine_ras) @ part.affine_ras
    start = np.rint(mapping[:3, 3]).astype(int).tolist()
    shift = np.eye(4)
    shift[:3, 3] = start
    difference = (grid.affine_ras @ shift - part.affine_ras)[:3]
    if np.abs(difference * [*part.grid, 1]).max() > AFFINE_TOLERANCE_MM:
        raise GeometryError(
            f"{path} does not lie on the grid of its image (within {AFFINE_TOLERANCE_MM} mm). Save it in "
            "Slicer with the image as its reference geometry, or resample it first."
        )
    whole = np.zeros((len(part.array), *grid.grid), part.array.dtype, "F")
    spans = list(zip(start, part.grid, grid.grid, strict=True))
    edges = [(min(max(0, at), whole_n), max(0, min(at + n, whole_n))) for at, n, whole_n in spans]
    inside = [slice(low, max(low, high)) for low, high in edges]
    cut = [slice(place.start - at, place.stop - at) for place, at in zip(inside, start, strict=True)]
    kept = part.array[:, *cut]
    if np.count_nonzero(kept) != np.count_nonzero(part.array):
        raise GeometryError(f"{path} marks voxels outside of its image. Check that they belong together.")
    whole[:, *inside] = kept
    return grid.with_array(whole)
