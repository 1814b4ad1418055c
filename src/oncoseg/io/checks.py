"""Checks on the voxels that were read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from oncoseg.errors import DataError
from oncoseg.processes import free_memory_gib

LARGEST_VOXEL = 1e38
"""The difference of two such voxels still is a 32-bit floating point number."""


LARGEST_DEFLATE_RATIO = 1032
"""No gzip file unpacks to more than this many times its size (zlib's technical details)."""

SMALL_BYTES = 1 << 28
"""So much memory is taken without asking how much is free."""


class NonFiniteError(DataError):
    """Voxels that are NaN or infinite."""


def check_regular(path: Path) -> None:
    """Check that what is there, if anything, is a regular file: reading from a pipe would wait for ever.

    Raises:
        DataError: it is a folder, a pipe, a device or the like.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file, but a folder, pipe or device; expected a file there.")


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


def check_memory(path: Path, needed: int) -> None:
    """Check that this much memory is free, before it is taken for a file's voxels.

    Raises:
        DataError: it is not, as the header states an immense image.
    """
    if needed > SMALL_BYTES and needed > free_memory_gib() * 2**30:
        raise DataError(
            f"{path} needs {needed / 2**30:.1f} GiB of memory, more than is free. Close other programs, use "
            "a machine with more memory, or check that its header is right."
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
