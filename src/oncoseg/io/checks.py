"""Checks that every reader makes on its voxels."""

from pathlib import Path

import numpy as np

from oncoseg.errors import DataError


class NonFiniteError(DataError):
    """Voxels that are NaN or infinite."""


def check_finite(array: np.ndarray, path: Path) -> None:
    """Check that no voxel is NaN or infinite.

    Raises:
        NonFiniteError: says how many voxels are not finite.
    """
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        bad = int(finite.size - np.count_nonzero(finite))
        raise NonFiniteError(
            f"{path} holds {bad} voxel(s) that are NaN or infinite; expected finite numbers only. "
            "Export it again, or replace them by a background value."
        )
