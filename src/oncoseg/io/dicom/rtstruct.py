"""RTSTRUCT: contours in the patient → masks on a series' grid (PS3.3, A.19, C.8.8.5 and C.8.8.6).

The rule: a voxel belongs to a structure when its centre is inside, even–odd over all contours of the
structure in one slice (`oncoseg.io.polygons.fill`). A contour within a contour is thus a hole, a keyhole
contour needs no care, and CLOSEDPLANAR_XOR means what it says. A contour belongs to the slice in whose plane
it lies, whatever image it refers to. Nothing is drawn between slices that have contours.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.dicom.headers import quiet
from oncoseg.io.dicom.series import Series
from oncoseg.io.polygons import fill
from oncoseg.io.structures import (
    Drawing,
    Structure,
    StructureSet,
    check_frame_of_reference,
    distinct,
    empty,
    lps_to_voxels,
    slice_distance_mm,
)

PLANE_TOLERANCE_SLICES = 0.2
"""No point of a contour may lie further from the plane of its slice, as a share of the slices' distance."""

LARGEST_POSITION_MM = 1e5
"""Positions further from the origin are damaged."""

XOR, CLOSED = "CLOSEDPLANAR_XOR", ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Types of contours that enclose something; points and open lines do not."""

FEWEST_POINTS = 3
"""Fewer enclose nothing."""

MOST_POINTS = 20_000_000
"""No structure has more: the skin in six hundred slices has a million."""

LARGEST_CONTOUR_BYTES = 16 << 20
"""No contour's coordinates may take more: about a million points."""

MOST_COMPARED = 20_000
"""So many contours that share a slice with others are drawn alone to find overlaps, each in a millisecond."""

TAGS = (
    *("FrameOfReferenceUID", "ReferencedFrameOfReferenceSequence"),
    *("StructureSetROISequence", "ROIContourSequence"),
)
"""All that is read of the file."""


class Contour(NamedTuple):
    """One contour.

    Attributes:
        kind: ContourGeometricType.
        points_lps_mm: n×3.
        images: SOPInstanceUIDs that it refers to.
    """

    kind: str
    points_lps_mm: np.ndarray
    images: frozenset[str] = frozenset()


class _Placed(NamedTuple):
    """A contour on the grid: i and j of its points, the nearest slice, how many slices it is off from it."""

    contour: Contour
    outline: np.ndarray
    k: int
    off: float


def open_rtstruct(path: Path) -> StructureSet:
    """Open an RTSTRUCT.

    Raises:
        DataError: it cannot be read or is damaged.
    """
    try:
        with quiet():
            rois, items, series_uids = _parse(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError(f"{path} is a damaged RTSTRUCT. Export or copy it again.") from error

    def draw(structure: Structure, series: Series) -> Drawing:
        with quiet():  # pydicom looks at values only now, and its warnings repeat them
            contours = _contours(items.get(structure.number, ()), path)
        images = {each.sop_instance_uid for each in series.slices}
        related = series.uid in series_uids or any(contour.images & images for contour in contours)
        check_frame_of_reference(rois[structure.number].frame_of_reference_uid, series, related)
        return draw_contours(contours, series)

    return StructureSet(
        "RTSTRUCT",
        distinct(
            [
                Structure(roi.name, roi.number, len(items.get(roi.number, ())), "contours")
                for roi in rois.values()
            ]
        ),
        series_uids,
        draw,
    )


def draw_contours(contours: Sequence[Contour], series: Series) -> Drawing:
    """Draw the contours of one structure on a series' grid, by the rule above.

    Raises:
        GeometryError: contours within the series' extent lie between its slices or cross them, or not one of
            them lies in it.
    """
    closed, remarks = _closed(contours)
    placed = _place(closed, series)
    here = [each for each in placed if 0 <= each.k < series.grid[2]]
    _check_planes(here, series)
    if placed and not here:
        raise GeometryError(
            f"None of its {len(placed)} contours lies in the series ({_outside(placed, series)}); expected "
            "the series that it was drawn on."
        )
    inside = empty(series)
    by_slice: dict[int, list[np.ndarray]] = defaultdict(list)
    for each in here:
        by_slice[each.k].append(each.outline)
    for k, outlines in by_slice.items():
        patch = fill(outlines, series.grid[:2])
        inside[*patch.at, k] = patch.inside
    if len(here) < len(placed):
        remarks.append(f"{_outside(placed, series)}: they are left out")
    return Drawing(
        inside, (*remarks, *_references(here, series), *_extent(here, series), *_overlaps(here, series))
    )


class _Roi(NamedTuple):
    number: int
    name: str
    frame_of_reference_uid: str


def _parse(path: Path) -> tuple[dict[int, _Roi], dict[int, list[Any]], tuple[str, ...]]:
    """The structures and their contours' items, by number; and the series that the file refers to."""
    from pydicom import dcmread

    dataset = dcmread(path, force=True, specific_tags=list(TAGS))
    rois = {}
    for item in dataset.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        frame = item.get("ReferencedFrameOfReferenceUID") or dataset.get("FrameOfReferenceUID") or ""
        if number in rois:
            raise ValueError(f"two structures have the number {number}")
        rois[number] = _Roi(number, str(item.get("ROIName") or f"ROI {number}"), str(frame))
    items: dict[int, list[Any]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or ():
        items[int(item.ReferencedROINumber)] += item.get("ContourSequence") or ()
    return rois, items, tuple(dict.fromkeys(_referenced_series(dataset)))


def _referenced_series(dataset: Any) -> Iterator[str]:
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield str(series.get("SeriesInstanceUID", ""))


def _contours(items: Sequence[Any], path: Path) -> list[Contour]:
    """Take the items of one structure apart.

    Raises:
        DataError: see `_contour`; or there are more than `MOST_POINTS`.
    """
    contours: list[Contour] = []
    points = 0
    for item in items:
        contours.append(_contour(item, path))
        points += len(contours[-1].points_lps_mm)
        if points > MOST_POINTS:
            raise DataError(f"{path} has a structure of more than {MOST_POINTS} points; expected contours.")
    return contours


def _contour(item: Any, path: Path) -> Contour:
    """Take one item of ContourSequence apart.

    Raises:
        DataError: its coordinates are no triples of finite numbers.
    """
    try:
        # as bytes: making pydicom's own numbers of them takes twenty times as long
        stored = item.get_item("ContourData")
        text = b"" if stored is None or stored.value is None else stored.value
        if not isinstance(text, bytes):
            text = b"\\".join(str(each).encode() for each in text)
        if len(text) > LARGEST_CONTOUR_BYTES:
            raise ValueError("too many points")
        numbers = np.array(text.split(b"\\") if text.strip(b" \0") else [], float)
        images = frozenset(
            str(image.get("ReferencedSOPInstanceUID", "")) for image in item.get("ContourImageSequence") or ()
        )
        kind = str(item.get("ContourGeometricType") or "")
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError(f"{path} has a contour that cannot be read. Export or copy it again.") from error
    if len(numbers) % 3 or not (np.abs(numbers) <= LARGEST_POSITION_MM).all():
        raise DataError(
            f"{path} has a damaged contour: expected triples of finite coordinates within "
            f"±{LARGEST_POSITION_MM:.0f} mm, got {len(numbers)} numbers. Export or copy the file again."
        )
    return Contour(kind, numbers.reshape(-1, 3), images - {""})


def _closed(contours: Sequence[Contour]) -> tuple[list[Contour], list[str]]:
    """The contours that enclose something, and what is wrong with the others."""
    open_kinds = Counter(each.kind or "no type" for each in contours if each.kind not in CLOSED)
    remarks = [
        f"{count} contour(s) of type {kind} enclose nothing: ignored" for kind, count in open_kinds.items()
    ]
    closed = [each for each in contours if each.kind in CLOSED]
    enough = [each for each in closed if len(each.points_lps_mm) >= FEWEST_POINTS]
    if len(enough) < len(closed):
        remarks.append(
            f"{len(closed) - len(enough)} contour(s) of fewer than {FEWEST_POINTS} points: ignored"
        )
    # the same contour twice would cancel itself; where that is meant, its type says so
    kept = {
        (number if each.kind == XOR else -1, each.points_lps_mm.tobytes()): each
        for number, each in enumerate(enough)
    }
    if len(kept) < len(enough):
        remarks.append(f"{len(enough) - len(kept)} contour(s) are there twice: taken once")
    if not kept:
        remarks.append("it has no contour that encloses anything: nothing is inside")
    return list(kept.values()), remarks


def _place(contours: Sequence[Contour], series: Series) -> list[_Placed]:
    if not contours:
        return []
    matrix = lps_to_voxels(series)
    points = np.concatenate([each.points_lps_mm for each in contours]) @ matrix[:3, :3].T + matrix[:3, 3]
    starts = np.cumsum([0, *(len(each.points_lps_mm) for each in contours)])
    lowest, highest = (each.reduceat(points[:, 2], starts[:-1]) for each in (np.minimum, np.maximum))
    nearest = np.rint((lowest + highest) / 2)
    off = np.maximum(highest - nearest, nearest - lowest)
    return [
        _Placed(contour, points[start:stop, :2], int(k), float(away))
        for contour, start, stop, k, away in zip(contours, starts[:-1], starts[1:], nearest, off, strict=True)
    ]


def _check_planes(placed: Sequence[_Placed], series: Series) -> None:
    off = [each.off for each in placed if each.off > PLANE_TOLERANCE_SLICES]
    if off:
        distance = slice_distance_mm(series)
        raise GeometryError(
            f"{len(off)} of {len(placed)} contours have points up to {max(off) * distance:.3g} mm from the "
            f"plane of the nearest slice; expected at most {PLANE_TOLERANCE_SLICES * distance:.3g} mm "
            f"({PLANE_TOLERANCE_SLICES:.0%} of the distance of slices). Read it on the series that it was "
            "drawn on."
        )


def _outside(placed: Sequence[_Placed], series: Series) -> str:
    last = series.grid[2] - 1
    away = [max(-each.k, each.k - last) for each in placed if not 0 <= each.k <= last]
    return (
        f"{len(away)} contour(s) lie before the first or after the last slice, up to "
        f"{max(away) * slice_distance_mm(series):.4g} mm away"
    )


def _references(placed: Sequence[_Placed], series: Series) -> Iterator[str]:
    """Remarks on the images that contours refer to; they decide nothing."""
    known = {each.sop_instance_uid for each in series.slices}
    kinds: Counter[str] = Counter()
    for each in placed:
        images = each.contour.images
        if not images:
            kinds["refer to no image"] += 1
        elif not images & known:
            kinds["refer to images that are not in the series"] += 1
        elif series.slices[each.k].sop_instance_uid not in images:
            kinds["refer to another slice than the one they lie in"] += 1
    for what, count in kinds.items():
        yield f"{count} contour(s) {what}: placed by their position"


def _overlaps(placed: Sequence[_Placed], series: Series) -> Iterator[str]:
    """A remark on contours that overlap without saying that an exclusive or is meant."""
    by_slice: dict[int, list[np.ndarray]] = defaultdict(list)
    for each in placed:
        if each.contour.kind != XOR:
            by_slice[each.k].append(each.outline)
    several = [outlines for outlines in by_slice.values() if len(outlines) > 1]
    if (count := sum(map(len, several))) > MOST_COMPARED:
        yield f"its {count} contours are too many to look for overlaps"
        return
    overlapping = 0
    for outlines in several:
        alone = sum(int(fill([each], series.grid[:2]).inside.sum()) for each in outlines)
        overlapping += alone > int(fill(outlines, series.grid[:2]).inside.sum())
    if overlapping:
        yield (
            f"in {overlapping} slice(s) contours overlap or lie within others: what an even number of them "
            "covers is outside, as a hole"
        )


def _extent(placed: Sequence[_Placed], series: Series) -> Iterator[str]:
    """Remarks on slices without a contour between others, and on contours beyond the images' edges."""
    if not placed:
        return
    slices = {each.k for each in placed}
    between = max(slices) - min(slices) + 1
    if len(slices) < between:
        yield (
            f"{between - len(slices)} of the {between} slices from its first to its last have no contour: "
            "they stay empty, as nothing is drawn between slices"
        )
    limits = np.array(series.grid[:2]) - 0.5
    beyond = sum(bool((each.outline < -0.5).any() or (each.outline > limits).any()) for each in placed)
    if beyond:
        yield f"{beyond} contour(s) reach beyond the edge of the images: cut there"
