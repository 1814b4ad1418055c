"""LIDC marks on the grid of their CT series.

Readers drew an outer border, which was not to cover a pixel of the nodule (Armato et al., 2011,
https://doi.org/10.1118/1.3528204, section II.C). So the rule: a pixel belongs to a mark when its centre lies
strictly inside an included outline through the centres of the marked pixels (even–odd), and neither inside
nor on an excluded one. pylidc has the same rule.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.errors import GeometryError
from oncoseg.io.dicom.rtstruct import PLANE_TOLERANCE_SLICES
from oncoseg.io.dicom.series import Series
from oncoseg.io.lidc_xml import LidcRead, NoduleMark, Outline, read_lidc_xml
from oncoseg.io.polygons import fill
from oncoseg.io.structures import Drawing, Structure, StructureSet, empty, slice_distance_mm


class MarkedVoxels(NamedTuple):
    """A nodule's mark on the grid.

    Attributes:
        voxels: n×3 indices (i, j, k), each once.
        absent: outlines in slices that the series does not have.
    """

    voxels: np.ndarray
    absent: tuple[Outline, ...]


class Slices:
    """Finds the slice that an outline lies in: by its image, and by its z where the image is unknown."""

    def __init__(self, series: Series) -> None:
        """Index the slices of a series."""
        counts = Counter(each.sop_instance_uid for each in series.slices)
        self._by_image = {
            each.sop_instance_uid: k
            for k, each in enumerate(series.slices)
            if counts[each.sop_instance_uid] == 1  # frames of one file share it
        }
        self._z_mm = np.array([each.position_lps_mm[2] for each in series.slices])
        self._near_mm = PLANE_TOLERANCE_SLICES * slice_distance_mm(series)

    def find(self, outline: Outline) -> int | None:
        """Index of the slice, or None where the series does not have it."""
        if outline.image in self._by_image:
            return self._by_image[outline.image]
        away = np.abs(self._z_mm - outline.z_mm)
        if not np.isfinite(outline.z_mm) or away.min() > self._near_mm:
            return None
        return int(away.argmin())


def open_lidc(path: Path) -> StructureSet:
    """Open an LIDC XML; its structures are the readers, `reader 1` and so on, each with all of their nodules.

    Only outlined nodules are drawn: those below 3 mm are single points without an extent.

    Raises:
        DataError: see `read_lidc_xml`.
    """
    read = read_lidc_xml(path)
    counts = [sum(mark.reader == reader for mark in outlined(read)) for reader in range(1, read.readers + 1)]
    structures = tuple(
        Structure(f"reader {reader}", reader, count, "nodules") for reader, count in enumerate(counts, 1)
    )

    def draw(structure: Structure, series: Series) -> Drawing:
        return draw_reader(read, structure.number, series)

    return StructureSet("LIDC", structures, (read.series_uid,), draw)


def outlined(read: LidcRead) -> list[NoduleMark]:
    """The nodules that were outlined."""
    return [mark for mark in read.nodules if mark.is_outlined]


def draw_reader(read: LidcRead, reader: int, series: Series) -> Drawing:
    """Everything that one reader outlined as a nodule.

    Raises:
        GeometryError: the file is of another series.
    """
    check_series(read, series)
    slices = Slices(series)
    inside = empty(series)
    absent = 0
    for mark in outlined(read):
        if mark.reader == reader:
            marked = mark_voxels(mark, series, slices)
            inside[tuple(marked.voxels.T)] = True
            absent += len(marked.absent)
    words = f"{absent} outline(s) lie in slices that are not in the series: they are left out"
    return Drawing(inside, (words,) if absent else ())


def check_series(read: LidcRead, series: Series) -> None:
    """Check that a reading is of a series.

    Raises:
        GeometryError: it is not.
    """
    if read.series_uid != series.uid:
        raise GeometryError(
            f"The LIDC reading is of another series; expected SeriesInstanceUID {read.series_uid}, got "
            f"{series.uid}."
        )


def mark_voxels(mark: NoduleMark, series: Series, slices: Slices | None = None) -> MarkedVoxels:
    """The voxels of one mark, by the rule above.

    Args:
        mark: of the series.
        series: gives the grid.
        slices: of the series, where several marks are looked up.
    """
    slices = slices or Slices(series)
    by_slice: dict[int, list[Outline]] = defaultdict(list)
    absent = []
    for outline in mark.outlines:
        k = slices.find(outline)
        if k is None:
            absent.append(outline)
        else:
            by_slice[k].append(outline)
    found = [np.zeros((0, 3), np.int64)]
    for k, outlines in by_slice.items():
        pixels = _pixels(outlines, series.grid[:2])
        found.append(np.column_stack([pixels, np.full(len(pixels), k)]))
    return MarkedVoxels(np.concatenate(found), tuple(absent))


def _pixels(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """The pixels (i, j) that the outlines of one mark enclose in one slice."""
    points = np.concatenate([outline.points for outline in outlines])
    low, high = np.clip([points.min(axis=0), points.max(axis=0) + 1], 0, shape)
    inside = np.zeros(np.maximum(high - low, 0), bool)
    for outline in sorted(outlines, key=lambda each: not each.included):
        patch = fill([outline.points - low], inside.shape)
        border = _on_border(outline.points) - low
        border = border[((border >= 0) & (border < inside.shape)).all(axis=1)]
        own = np.zeros_like(inside)
        own[patch.at] = patch.inside
        own[tuple(border.T)] = not outline.included
        inside = inside | own if outline.included else inside & ~own
    pixels: np.ndarray = np.argwhere(inside) + low
    return pixels


def _on_border(points: np.ndarray) -> np.ndarray:
    """All pixel centres on a closed outline: its points, and those between points that are no neighbours."""
    steps = np.roll(points, -1, axis=0) - points
    counts = np.maximum(np.gcd(*np.abs(steps).T), 1)
    edges = np.repeat(np.arange(len(points)), counts)
    along = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
    border: np.ndarray = points[edges] + along[:, None] * (steps // counts[:, None])[edges]
    return border
