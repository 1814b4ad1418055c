"""LIDC readers' marks → nodules: which marks are of one nodule, what readers agree on, how they rate it.

The rule is pylidc's (Hancock and Magnan, 2016, https://doi.org/10.1117/1.JMI.3.4.044504), in millimetres:
marks belong together when the smallest distance of their outlines' points is at most the distance of slices,
also by way of other marks. While a nodule then has more marks than there are readers, the tolerance shrinks
by a tenth at a time, for all marks of the scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median
from typing import Any

import numpy as np

from oncoseg.datasets.base import Case
from oncoseg.io.annotations import series_of_files
from oncoseg.io.dicom.series import Series
from oncoseg.io.lidc_masks import Slices, check_series, mark_voxels, outlined
from oncoseg.io.lidc_xml import RATINGS, LidcRead, NoduleMark, read_lidc_xml
from oncoseg.io.structures import slice_distance_mm

SHRINKING = 0.9
"""Factor by which the tolerance shrinks."""

SMALLEST_TOLERANCE_MM = 0.1
"""Where the tolerance would fall below this, marks are left together that may be of several nodules."""


@dataclass(frozen=True, eq=False)
class Nodule:
    """What several readers marked as one nodule.

    Attributes:
        marks: in the order of the readers; a reader may have several.
        voxels: of each mark, n×3 indices (i, j, k) on the series' grid.
        diameters_mm: of each mark, the largest distance between two points of one outline; pylidc's
            `diameter`. The points lie around the nodule, so it is about a pixel too long.
        readers_in_all: how many readers the scan had.
        voxel_mm3: volume of a voxel.
    """

    marks: tuple[NoduleMark, ...]
    voxels: tuple[np.ndarray, ...]
    diameters_mm: tuple[float, ...]
    readers_in_all: int
    voxel_mm3: float

    @property
    def readers(self) -> tuple[int, ...]:
        """Who marked it, from 1."""
        return tuple(sorted({mark.reader for mark in self.marks}))

    def consensus(self, share: float, of: int | None = None) -> np.ndarray:
        """The voxels (n×3, i, j, k) that at least a share of its marks hold.

        Args:
            share: in (0, 1]; 0.5 is pylidc's default.
            of: of how many that share is: by default of the nodule's marks, as in pylidc, so that a nodule
                which one reader marked is that reader's. With `readers_in_all`, readers who did not mark it
                count as against it, as in `oncoseg.labels.consensus` over the readers' masks.
        """
        voxels, counts = np.unique(np.concatenate(self.voxels), axis=0, return_counts=True)
        return voxels[counts >= share * (len(self.marks) if of is None else of)]

    def ratings(self, name: str) -> tuple[int, ...]:
        """All values of a rating (see `RATINGS`), in the order of the marks; some may lack it."""
        return tuple(mark.ratings[name] for mark in self.marks if name in mark.ratings)


def find_nodules(read: LidcRead, series: Series) -> list[Nodule]:
    """Join the marks of nodules of 3 mm and more into nodules, sorted by their place along k, j, i.

    Marks are also joined by outlines in slices that the series does not have, as long as it is known where
    these lie. A nodule that lies in such slices only is left out.

    Args:
        read: what the readers marked.
        series: the CT series that they read.

    Raises:
        GeometryError: they read another one.
    """
    check_series(read, series)
    slices, marks = Slices(series), outlined(read)
    points_mm = [_points_mm(mark, series, slices) for mark in marks]
    nodules = [
        _nodule([marks[index] for index in cluster], series, slices, read.readers)
        for cluster in _clusters(points_mm, slice_distance_mm(series), read.readers)
    ]
    marked = [nodule for nodule in nodules if any(len(voxels) for voxels in nodule.voxels)]
    return sorted(marked, key=lambda nodule: tuple(np.concatenate(nodule.voxels).mean(axis=0)[::-1]))


def nodules_of(case: Case) -> list[Nodule]:
    """The nodules of a case of the layout `lidc_dicom`; none where it has no reading.

    Raises:
        DataError: its files cannot be read.
    """
    if not case.masks:
        return []
    reading = case.masks[0]
    return find_nodules(read_lidc_xml(reading.files[0]), series_of_files(reading.grid_of))


def nodule_rows(nodules: Sequence[Nodule]) -> list[dict[str, Any]]:
    """A table with one row for each nodule of a scan.

    Returns:
        `nodule` (from 1), `readers` (how many marked it), `marks`, `readers_in_all`, `volume_mm3` (what at
        least half of the marks hold), `volumes_mm3` (of each mark), `diameter_mm` (mean over the marks;
        see `Nodule.diameters_mm`), `centre_ijk`, and for each rating its `NAME_median` (None where nobody
        gave it) and its `NAME_values`.
    """
    return [_row(number, nodule) for number, nodule in enumerate(nodules, 1)]


def _row(number: int, nodule: Nodule) -> dict[str, Any]:
    ratings: dict[str, Any] = {}
    for name in RATINGS:
        values = nodule.ratings(name)
        ratings |= {f"{name}_median": median(values) if values else None, f"{name}_values": values}
    return {
        "nodule": number,
        "readers": len(nodule.readers),
        "marks": len(nodule.marks),
        "readers_in_all": nodule.readers_in_all,
        "volume_mm3": len(nodule.consensus(0.5)) * nodule.voxel_mm3,
        "volumes_mm3": tuple(len(voxels) * nodule.voxel_mm3 for voxels in nodule.voxels),
        "diameter_mm": fmean(nodule.diameters_mm),
        "centre_ijk": tuple(np.concatenate(nodule.voxels).mean(axis=0).tolist()),
    } | ratings


def _nodule(marks: Sequence[NoduleMark], series: Series, slices: Slices, readers: int) -> Nodule:
    spacing_mm = np.array(series.spacing_mm[:2])
    return Nodule(
        tuple(marks),
        tuple(mark_voxels(mark, series, slices).voxels for mark in marks),
        tuple(max(_longest(outline.points * spacing_mm) for outline in mark.outlines) for mark in marks),
        readers,
        float(abs(np.linalg.det(series.affine_ras[:3, :3]))),
    )


def _longest(points_mm: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    return float(pdist(points_mm).max()) if len(points_mm) > 1 else 0.0


def _points_mm(mark: NoduleMark, series: Series, slices: Slices) -> np.ndarray:
    """The points of all outlines whose place is known, in millimetres along i, j and from slice to slice."""
    i_mm, j_mm, _ = series.spacing_mm
    found = [np.zeros((0, 3))]
    for outline in mark.outlines:
        k = slices.find(outline)
        z_mm = outline.z_mm if k is None else series.slices[k].position_lps_mm[2]
        if np.isfinite(z_mm):
            found.append(np.column_stack([outline.points * (i_mm, j_mm), np.full(len(outline.points), z_mm)]))
    return np.concatenate(found)


def _clusters(points_mm: Sequence[np.ndarray], tolerance_mm: float, most: int) -> list[list[int]]:
    """Groups of indices of marks that belong together by the rule above."""
    from scipy.sparse.csgraph import connected_components

    if not points_mm:
        return []
    distances = _distances(points_mm, tolerance_mm)
    while True:
        _, groups = connected_components(distances <= tolerance_mm, directed=False)
        if np.bincount(groups).max() <= most or tolerance_mm * SHRINKING < SMALLEST_TOLERANCE_MM:
            return [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]
        tolerance_mm *= SHRINKING


def _distances(points_mm: Sequence[np.ndarray], reach_mm: float) -> np.ndarray:
    """Smallest distance between the points of every two marks; infinite beyond `reach_mm`."""
    from scipy.spatial import KDTree

    distances = np.full((len(points_mm), len(points_mm)), np.inf)
    np.fill_diagonal(distances, 0)
    trees = {index: KDTree(points) for index, points in enumerate(points_mm) if len(points)}
    for one, other in combinations(trees, 2):
        nearest, _ = trees[one].query(points_mm[other], distance_upper_bound=reach_mm + 1e-6)
        distances[one, other] = distances[other, one] = nearest.min()
    return distances
