"""Reading and checking a NIfTI header. Extensions are never read, so what they say of their size is moot.

The NIfTI-1.1 standard: https://nifti.nimh.nih.gov/nifti-1. NIfTI's world is RAS+ already.
"""

import itertools
import logging
import math
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg.errors import DataError

MILLIMETRES_PER_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}
"""NIfTI's space units: metre, millimetre, micrometre. Unknown (0) is taken as millimetre."""

FORMS_APART_VOXELS = 0.5
"""Sform and qform differ where a corner moves by more than this share of the smallest voxel side."""

LARGEST_COORDINATE_MM = 1e6
"""No corner of an image of a patient lies further than this, a kilometre, from the origin."""

SMALLEST_SPACING_MM = 1e-6
"""No voxel of an image of a patient is smaller than this, a nanometre."""

_quiet = logging.getLogger("oncoseg.io.nifti.header")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a NIfTI file says of its voxels.

    Attributes:
        fields: nibabel's header, without extensions.
        grid: number of voxels along i, j, k; k is 1 in a 2D file.
        volumes: number of volumes along the fourth axis (or along the fifth, where the fourth has length 1).
        stored: type of the stored numbers.
        offset: bytes before the first voxel.
        scaling: slope and intercept, or None where the stored numbers are meant.
        affine_ras: 4×4, voxel index to RAS+ millimetres: the sform's where its code is set, else the
            qform's, else voxel sizes alone.
        spacing_known: False when the header holds no voxel size: `pixdim` is 0, and no sform with a unit
            makes up for it.
        remarks: what is odd and was settled, in words.
    """

    fields: Any
    grid: tuple[int, int, int]
    volumes: int
    stored: np.dtype
    offset: int
    scaling: tuple[float, float] | None
    affine_ras: np.ndarray
    spacing_known: bool
    remarks: tuple[str, ...]

    @property
    def volume_bytes(self) -> int:
        """Bytes that one volume takes in the file, unpacked."""
        return math.prod(self.grid) * self.stored.itemsize


def read_header(file: BufferedIOBase, path: Path) -> NiftiHeader:
    """Read the header at the beginning of an open file.

    Args:
        file: unpacked content.
        path: for messages.

    Raises:
        DataError: no NIfTI, half of a .hdr/.img pair, impossible values, or voxels of another kind than one
            real number each.
    """
    with np.errstate(all="ignore"):  # what overflows or is no number is refused below, as this file's
        fields, sized = _fields(file, path)
        grid, volumes = _grid(fields, path)
        affine = affine_mm(fields)
        _check_place(affine, grid, path)
        slope, intercept = fields.get_slope_inter()
        return NiftiHeader(
            fields=fields,
            grid=grid,
            volumes=volumes,
            stored=_numeric_dtype(fields, path),
            offset=int(fields.get_data_offset()),
            scaling=None
            if slope is None or (slope, intercept) == (1, 0)
            else (float(slope), float(intercept)),
            affine_ras=affine,
            spacing_known=sized,
            remarks=_remarks(fields, grid),
        )


def affine_mm(header: Any) -> np.ndarray:
    """A nibabel header's best affine, in millimetres whatever unit the header states."""
    return _in_millimetres(header.get_best_affine(), header)


def millimetres_per_unit(header: Any) -> float:
    """Length of the header's space unit; the space unit is in the low three bits of `xyzt_units`."""
    return MILLIMETRES_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def forms_differ(header: Any, grid: tuple[int, int, int], share: float = FORMS_APART_VOXELS) -> float:
    """How far apart, in millimetres, sform and qform place some corner of the grid; 0 where they agree.

    They agree, too, where only one of them is set, or where they differ by no more than a share of the
    smallest voxel side. Infinite where the qform is no rotation.
    """
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except ValueError:
        return float("inf")
    if sform is None or qform is None:
        return 0.0
    difference = _in_millimetres(sform, header) - _in_millimetres(qform, header)
    apart = float(np.linalg.norm(_corners(grid) @ difference[:3].T, axis=1).max())
    smallest = float(np.linalg.norm(_in_millimetres(sform, header)[:3, :3], axis=0).min())
    return apart if apart > share * smallest else 0.0


def _fields(file: BufferedIOBase, path: Path) -> tuple[Any, bool]:
    """The header, checked and mended where that is safe; and whether it holds a voxel size."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    block = file.read(Nifti2Header.sizeof_hdr)
    kinds: dict[int, Any] = {Nifti1Header.sizeof_hdr: Nifti1Header, Nifti2Header.sizeof_hdr: Nifti2Header}
    orders = {"<": int.from_bytes(block[:4], "little"), ">": int.from_bytes(block[:4], "big")}
    order, size = next(((order, size) for order, size in orders.items() if size in kinds), ("<", 0))
    if not size:
        raise DataError(f"{path} is not a NIfTI file: it does not begin with a NIfTI header.")
    if len(block) < size:
        raise DataError(f"{path} is truncated or damaged: it ends within its header. Copy it again.")
    try:
        header = kinds[size](block[:size], order, check=False)
        if header["dim"][0] == 2:  # one slice, whose thickness pixdim states as of any other
            header["dim"][0], header["dim"][3] = 3, 1
        voxel_size = (header["pixdim"][1:4] != 0).all()
        unit_known = int(header["xyzt_units"]) & 7 in MILLIMETRES_PER_UNIT
        sized = bool(voxel_size or (int(header["sform_code"]) > 0 and unit_known))
        header.check_fix(logger=_quiet)
        # asked for here so that an impossible value is reported as this file's
        header.get_best_affine(), header.get_slope_inter(), header.get_data_dtype()
        header.get_data_shape(), int(header.get_data_offset())
    except (HeaderDataError, WrapStructError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{path} has a damaged NIfTI header: {error}. Export or copy it again.") from error
    if not header.is_single:
        raise DataError(f"{path} is half of a .hdr/.img pair; expected a single .nii file. Convert it first.")
    return header, sized


def _grid(header: Any, path: Path) -> tuple[tuple[int, int, int], int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1 or sum(n != 1 for n in shape[3:]) > 1:
        raise DataError(
            f"{path} has {len(shape)} dimensions of size {'×'.join(map(str, shape)) or '0'}; expected a 2D "
            "or 3D image, or 4D with a volume per channel."
        )
    return (shape[0], shape[1], shape[2]), math.prod(shape[3:])


def _numeric_dtype(header: Any, path: Path) -> np.dtype:
    dtype: np.dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = "colour" if dtype.names else str(dtype)
        grey = " (of colours: grey values; of a mask: the labels' numbers)" if dtype.names else ""
        raise DataError(
            f"{path} holds {what} voxels; expected one real number of at most 64 bits per voxel. Export it "
            f"again as such{grey}."
        )
    return dtype


def _check_place(affine: np.ndarray, grid: tuple[int, int, int], path: Path) -> None:
    """Check that the grid lies where a patient can be; a singular affine is found later."""
    reach = np.abs(_corners(grid) @ affine[:3].T).max()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # written so that NaN is refused, too
    if not reach <= LARGEST_COORDINATE_MM or ((spacing > 0) & (spacing < SMALLEST_SPACING_MM)).any():
        raise DataError(
            f"{path} states an impossible place or voxel size: {np.array2string(affine[:3], precision=3)}. "
            "Mend its sform or qform, or export it again."
        )


def _remarks(header: Any, grid: tuple[int, int, int]) -> tuple[str, ...]:
    remarks = []
    apart = forms_differ(header, grid)
    if math.isinf(apart):
        remarks.append("its qform is no rotation; the sform is used")
    elif apart:
        remarks.append(
            f"its sform and qform place the image up to {apart:.3g} mm apart; the sform is used. Make them "
            "equal if it is the wrong one"
        )
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        remarks.append(
            "it does not say how the patient lies (its sform and qform codes are 0), so left and right are a "
            "guess"
        )
    return tuple(remarks)


def _in_millimetres(affine: Any, header: Any) -> np.ndarray:
    scale = millimetres_per_unit(header)
    return np.asarray(np.diag([scale, scale, scale, 1.0]) @ np.asarray(affine, np.float64))


def _corners(grid: tuple[int, int, int]) -> np.ndarray:
    """Indices of the corner voxels as rows i, j, k, 1."""
    return np.array([(*corner, 1.0) for corner in itertools.product(*((0.0, n - 1.0) for n in grid))])
