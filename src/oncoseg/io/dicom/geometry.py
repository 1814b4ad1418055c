"""Planes that may be one volume → sorted, on one grid with one affine; or the reason why not.

Where a slice lies is said by its position alone (PS3.3, C.7.6.2). SliceThickness and SpacingBetweenSlices
are often wrong, and are not looked at unless there is only one slice.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.errors import GeometryError
from oncoseg.io.dicom.parts import COSINE_EQUAL, SAME_POSITION_MM, normal
from oncoseg.io.dicom.planes import Plane

UNEVEN_SHARE, ROUNDING_MM = 0.05, 0.05
"""No slice may lie further from where even spacing puts it than this share of the spacing and what is lost
where positions are written in tenths of a millimetre."""

REMARKED_SHARE = 0.005
"""From this share on, uneven positions are remarked on; below, they are rounded numbers."""

TILT_DEGREES = 0.1
"""From this angle between normal and line of positions on, the gantry was tilted and the grid is sheared."""

STEEPEST_TILT_DEGREES = 45.0
"""No gantry tilts as far; positions along such a line are damaged."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's x and y run to Left and Posterior, ours to Right and Anterior."""


class Gap(NamedTuple):
    """Missing slices between two that are there.

    Attributes:
        after: index of the slice before the gap, in order along the normal.
        missing: how many are missing.
        width_mm: distance of the slices on its two sides.
    """

    after: int
    missing: int
    width_mm: float


class GapError(GeometryError):
    """Slices are missing; the others are evenly spaced."""

    def __init__(self, message: str, gaps: Sequence[Gap]) -> None:
        """Keep the gaps for splitting at them."""
        super().__init__(message)
        self.gaps = tuple(gaps)


class Placed(NamedTuple):
    """Planes in order, and where their grid lies.

    Attributes:
        planes: one per index k.
        affine_ras: 4×4, voxel index to RAS+ millimetres.
        remarks: what was odd and could be dealt with.
    """

    planes: list[Plane]
    affine_ras: np.ndarray
    remarks: list[str]


def place(planes: Sequence[Plane]) -> Placed:
    """Sort planes by position along their normal and find their affine.

    Args:
        planes: of one size, orientation and pixel spacing, at most one at a place.

    Raises:
        GapError: slices are missing.
        GeometryError: the directions are not perpendicular unit vectors, the spacing varies, or the slices
            are shifted sideways.
    """
    row, column = _directions(planes[0])
    along = np.array([plane.position_lps_mm for plane in planes]) @ normal(planes[0])
    ordered = [planes[index] for index in np.argsort(along, kind="stable")]
    row_spacing, column_spacing = ordered[0].pixel_spacing_mm
    if min(row_spacing, column_spacing) <= 0:
        raise GeometryError(
            f"PixelSpacing is {row_spacing:g}\\{column_spacing:g}; expected two lengths above 0"
        )
    if len(ordered) == 1:
        step, remarks = _single_step(ordered[0])
    else:
        step, remarks = _even_step(np.array([plane.position_lps_mm for plane in ordered]), normal(ordered[0]))
    affine_lps = np.eye(4)
    affine_lps[:3, 0] = row * column_spacing
    affine_lps[:3, 1] = column * row_spacing
    affine_lps[:3, 2] = step
    affine_lps[:3, 3] = ordered[0].position_lps_mm
    return Placed(ordered, LPS_TO_RAS @ affine_lps, remarks)


def _directions(plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and down a column."""
    row, column = np.array(plane.cosines[:3]), np.array(plane.cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > COSINE_EQUAL:
        shown = "\\".join(f"{each:g}" for each in plane.cosines)
        raise GeometryError(
            f"ImageOrientationPatient is {shown}; expected two perpendicular directions of length 1 (within "
            f"{COSINE_EQUAL})"
        )
    return row / lengths[0], column / lengths[1]


def _single_step(plane: Plane) -> tuple[np.ndarray, list[str]]:
    if plane.thickness_mm is None or plane.thickness_mm <= 0:
        raise GeometryError("it is a single slice that does not say how thick it is")
    return normal(plane) * plane.thickness_mm, ["a single slice: its thickness is taken as the spacing"]


def _even_step(positions_mm: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The step from slice to slice, if every slice lies where even spacing puts it."""
    heights = positions_mm @ along
    _check_even(heights)
    count = len(positions_mm)
    step = (positions_mm[-1] - positions_mm[0]) / (count - 1)
    spacing = float(np.linalg.norm(step))
    even = positions_mm[0] + np.arange(count)[:, None] * step
    off = float(np.linalg.norm(positions_mm - even, axis=1).max())
    if off > _tolerance_mm(spacing):
        raise GeometryError(_uneven(heights, off))
    remarks = []
    if off > REMARKED_SHARE * spacing:
        remarks.append(f"slices lie up to {off:.2g} mm from even spacing; taken as evenly spaced")
    tilt = math.degrees(math.acos(min(1.0, abs(float(step @ along)) / spacing)))
    if tilt > STEEPEST_TILT_DEGREES:
        raise GeometryError(
            f"its slices are stacked at {tilt:.0f}° to their normal; expected nearly along it"
        )
    if tilt > TILT_DEGREES:
        remarks.append(
            f"the gantry was tilted by {tilt:.1f}°: the grid is sheared, each voxel stays where it was"
        )
    return step, remarks


def _check_even(heights_mm: np.ndarray) -> None:
    """Check the distances along the normal.

    Raises:
        GapError: all are whole multiples of the smallest, and some are more than one.
        GeometryError: they vary otherwise.
    """
    distances = np.diff(heights_mm)
    smallest = float(distances.min())
    if smallest <= SAME_POSITION_MM:
        raise GeometryError("its slices lie side by side, not one above the other; expected a stack")
    multiples = np.rint(distances / smallest)
    spacing = float(distances[multiples == 1].mean())
    multiples = np.rint(distances / spacing)
    if (multiples == 1).all():
        return
    if np.abs(distances - multiples * spacing).max() > 2 * _tolerance_mm(spacing):  # both ends may be off
        raise GeometryError(_uneven(heights_mm, 0))
    gaps = [
        Gap(int(index), int(multiples[index]) - 1, float(distances[index]))
        for index in np.flatnonzero(multiples > 1)
    ]
    missing = sum(gap.missing for gap in gaps)
    shown = ", ".join(
        f"between slice {gap.after + 1} at {heights_mm[gap.after]:.4g} mm and the next at "
        f"{heights_mm[gap.after + 1]:.4g} mm"
        for gap in gaps[:3]
    )
    more = f" and {len(gaps) - 3} more places" if len(gaps) > 3 else ""
    raise GapError(
        f"{missing} of {len(heights_mm) + missing} slices are missing ({shown}{more}; "
        f"the spacing is {spacing:.4g} mm)",
        gaps,
    )


def _tolerance_mm(spacing_mm: float) -> float:
    return UNEVEN_SHARE * spacing_mm + ROUNDING_MM


def _uneven(heights_mm: np.ndarray, off_mm: float) -> str:
    """What is wrong with slices of which one is this far off, which lie so high along their normal."""
    distances = np.diff(heights_mm)
    even = np.linspace(heights_mm[0], heights_mm[-1], len(heights_mm))
    tolerance = _tolerance_mm(float(distances.mean()))
    if max(np.abs(heights_mm - even).max(), np.ptp(distances) / 2) > tolerance:
        return (
            f"the distance of its slices varies from {distances.min():.4g} to {distances.max():.4g} mm; "
            f"expected even spacing (no slice further than {tolerance:.2g} mm from its place)"
        )
    return f"its slices are shifted sideways by up to {off_mm:.3g} mm; expected a straight stack"
