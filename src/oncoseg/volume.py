"""`Volume`: voxels, where they lie in the patient, and what writing back needs.

Conventions, here and everywhere: axes are `c i j k` (channel, then three spatial axes), affines map
voxel indices to millimetres in RAS+ (x to the patient's Right, y Anterior, z Superior), and
`spacing_mm` is the voxel size along `i j k`. Other conventions are converted in `oncoseg.io`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from oncoseg.errors import GeometryError

MM3_PER_ML = 1000.0
"""Cubic millimetres in a millilitre."""

SHEAR_TOLERANCE = 1e-4
"""Cosine between two axes from which on they are not perpendicular; 0.05 mm over half a metre."""

AFFINE_TOLERANCE_MM = 1e-3
"""Two grids are the same when no corner of one lies further than this from the other's."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One or more channels on one grid.

    Attributes:
        array: voxels, axes `c i j k`, in the source's own type.
        affine_ras: 4×4, voxel index (i, j, k, 1) to RAS+ millimetres.
        spacing_known: False when the source holds no voxel size (PNG, TIFF); then the affine is
            only an orientation with 1 mm voxels, and distances in mm must not be reported.
        header: what the source's format needs for writing a mask back (a nibabel header); or None.
    """

    array: np.ndarray
    affine_ras: np.ndarray
    spacing_known: bool = True
    header: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise GeometryError(
                f"Expected an array with axes c i j k, got {self.array.ndim} of shape {self.array.shape}."
            )
        if self.affine_ras.shape != (4, 4) or not np.isfinite(self.affine_ras).all():
            raise GeometryError(f"Expected a finite 4×4 affine, got {self.affine_ras.tolist()}.")
        with np.errstate(all="ignore"):  # of an affine that is nearly singular
            determinant = np.linalg.det(self.affine_ras[:3, :3])
        if not abs(determinant) > 0:
            raise GeometryError(f"The affine is singular: {self.affine_ras.tolist()}.")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        return self.array.shape[1:]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in millimetres; the product is a voxel's volume.

        Where slices are shifted against each other (tilted gantry), the size along k is the distance of their
        planes, not the longer way from a voxel to the next.
        """
        i, j, k = np.abs(np.diag(np.linalg.qr(self.affine_ras[:3, :3], mode="r"))).tolist()
        return i, j, k

    @property
    def sheared_axes_mm(self) -> np.ndarray | None:
        """Where a step along i, j and k leads, in RAS+ mm (the columns of a 3×3); None if perpendicular.

        For distances where slices are shifted against each other, of which `spacing_mm` says nothing.
        """
        return self.affine_ras[:3, :3] if is_sheared(self) else None

    def with_array(self, array: np.ndarray) -> "Volume":
        """The same grid with other voxels (axes `c i j k`, same i j k)."""
        if array.shape[1:] != self.grid:
            raise GeometryError(f"Expected voxels on the grid {self.grid}, got {array.shape[1:]}.")
        return replace(self, array=array)


def is_sheared(volume: Volume) -> bool:
    """Whether the axes are not perpendicular, as after a tilted gantry; see `SHEAR_TOLERANCE`."""
    axes = volume.affine_ras[:3, :3] / np.linalg.norm(volume.affine_ras[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE)


def check_same_grid(volumes: Mapping[str, Volume]) -> None:
    """Check that all volumes share shape and affine within `AFFINE_TOLERANCE_MM`.

    Raises:
        GeometryError: names the first two that differ and shows both grids.
    """
    (first_name, first), *others = volumes.items()
    for name, other in others:
        if not same_grid(first, other):
            raise GeometryError(
                f"{first_name} and {name} must lie on one grid (within {AFFINE_TOLERANCE_MM} mm), but "
                f"{first_name} is {_describe(first)} and {name} is {_describe(other)}. "
                "Resample one onto the other first; nothing is registered silently."
            )


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes share shape and affine within `AFFINE_TOLERANCE_MM`."""
    return a.grid == b.grid and _largest_corner_distance_mm(a, b) <= AFFINE_TOLERANCE_MM


def stack_channels(volumes: Mapping[str, Volume]) -> Volume:
    """Join volumes on one grid into one with their channels in the mapping's order."""
    check_same_grid(volumes)
    first = next(iter(volumes.values()))
    return first.with_array(np.concatenate([volume.array for volume in volumes.values()]))


def onto_axes_of(volume: Volume, like: Volume) -> Volume:
    """Permute and flip axes so that the grid becomes that of `like`, where both have the same voxel centres.

    No voxel is interpolated.

    Returns:
        The volume on the grid of `like` within `AFFINE_TOLERANCE_MM`; as it was where that cannot be.
    """
    turn = np.rint(np.linalg.inv(volume.affine_ras[:3, :3]) @ like.affine_ras[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return volume
    source = np.abs(turn).argmax(axis=0)  # the volume's axis that becomes i, j or k
    backwards = [axis for axis in range(3) if turn[source[axis], axis] < 0]
    array = np.flip(volume.array.transpose(0, *(source + 1)), tuple(axis + 1 for axis in backwards))
    index = np.eye(4)  # from the new voxel indices to the volume's
    index[:3, :3] = turn
    index[source[backwards], 3] = [array.shape[axis + 1] - 1 for axis in backwards]
    turned = replace(volume, array=array, affine_ras=volume.affine_ras @ index)
    return turned if same_grid(turned, like) else volume


def to_canonical(volume: Volume) -> tuple[Volume, np.ndarray]:
    """Permute and flip axes so that i, j, k point nearest to Right, Anterior, Superior.

    No voxel is interpolated. After it, axial slices are `array[..., k]`.

    Returns:
        The reoriented volume, and the nibabel orientation (3×2) that `from_canonical` undoes.
    """
    from nibabel import orientations

    orientation = orientations.io_orientation(volume.affine_ras)
    array = _reorient(volume.array, orientation)
    affine = volume.affine_ras @ orientations.inv_ornt_aff(orientation, volume.grid)
    return replace(volume, array=array, affine_ras=affine), orientation


def from_canonical(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Bring `c i j k` voxels from canonical axes back to the source's axes (see `to_canonical`)."""
    from nibabel import orientations

    canonical = np.array([[0, 1], [1, 1], [2, 1]])
    return _reorient(array, orientations.ornt_transform(canonical, orientation))


def _reorient(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    from nibabel import orientations

    moved = orientations.apply_orientation(np.moveaxis(array, 0, -1), orientation)
    return np.moveaxis(moved, -1, 0)


def _largest_corner_distance_mm(a: Volume, b: Volume) -> float:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.grid])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    difference = (a.affine_ras - b.affine_ras) @ corners
    return float(np.linalg.norm(difference[:3], axis=0).max())


def _describe(volume: Volume) -> str:
    rows = np.array2string(volume.affine_ras[:3], precision=4, separator=", ", suppress_small=True)
    return f"{'×'.join(map(str, volume.grid))} with affine {' '.join(rows.split())}"
