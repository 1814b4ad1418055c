"""Checks on the voxels that were read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from oncoseg.errors import DataError

LARGEST_VOXEL = 1e38
"""The difference of two such voxels still is a 32-bit floating point number."""


class NonFiniteError(DataError):
    """Voxels that are NaN or infinite."""


def check_finite(array: np.ndarray, path: Path) -> None:
    """Check that no voxel is NaN or infinite, or would become so while 32-bit numbers are computed with it.

    Raises:
        NonFiniteError: says how many voxels are not finite.
        DataError: a voxel beyond ± `LARGEST_VOXEL`.
    """
    if array.dtype.kind != "f":
        return
    low, high = float(array.min()), float(array.max())  # NaN if any voxel is
    if low >= -LARGEST_VOXEL and high <= LARGEST_VOXEL:
        return
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise NonFiniteError(
            f"{path} holds {bad} voxel(s) that are NaN or infinite; expected finite numbers only. "
            "Export it again, or replace them by a background value."
        )
    raise DataError(
        f"{path} holds voxels from {low:.2g} to {high:.2g}; expected numbers within ±{LARGEST_VOXEL:.0e}. "
        "Export it again, or replace such voxels by a background value."
    )


def check_contrast(extremes: Mapping[str, tuple[float, float]]) -> None:
    """Check that no channel has one value everywhere.

    Args:
        extremes: channel → its smallest and its largest voxel.

    Raises:
        DataError: names the first constant channel.
    """
    for channel, (low, high) in extremes.items():
        if low == high:
            raise DataError(
                f"Channel {channel} is constant; expected an image with contrast. Check that the right file "
                "is there and is not empty."
            )
