"""Scaling whole volumes to [0, 1], by figures of their intensities. Training and prediction share every line.

Every way of scaling is a range of intensities for each channel, laid onto [0, 1] and cut off beyond it, so
that a volume can be scaled a slab at a time once its ranges are known. It is scaled before it is resampled,
while its zeros are still zeros.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError
from oncoseg.recipe import VOLUME_SCALINGS

SAMPLED_VOXELS = 4_000_000
"""At most about so many voxels of a channel are looked at, spread evenly over its slices."""

DEVIATIONS = 5.0
"""With `volume-zscore`, 0 and 1 lie so many standard deviations below and above the mean."""


class Range(NamedTuple):
    """What becomes 0 and what becomes 1 in a channel.

    Attributes:
        low: becomes 0, in the source's unit.
        high: becomes 1.
        zeros_stay: whether a voxel that is 0, such as beyond a stripped skull, becomes 0 whatever the range.
    """

    low: float
    high: float
    zeros_stay: bool = False


class Intensities:
    """A sample of a volume's voxels, of every channel, taken slab by slab."""

    def __init__(self, grid: Sequence[int]) -> None:
        """Choose which voxels of the canonical grid i j k are looked at."""
        self._step = max(1, math.ceil(math.sqrt(math.prod(grid) / SAMPLED_VOXELS)))
        self._seen: list[np.ndarray] = []

    def add(self, voxels: np.ndarray) -> None:
        """Look at some whole axial slices, canonical `c i j k`; in any order, each once."""
        first = self._step // 2 if min(voxels.shape[1:3]) > self._step else 0
        thin = voxels[:, first :: self._step, first :: self._step].astype(np.float32)
        self._seen.append(thin.reshape(len(voxels), -1))

    def ranges(
        self, scaling: str, percentiles: tuple[float, float], window: tuple[float, float], over: str
    ) -> list[Range]:
        """Each channel's range.

        Args:
            scaling: `volume-percentile`, `volume-zscore`, or `window`.
            percentiles: lower and upper one for `volume-percentile`, in 0 … 100.
            window: lower and upper intensity for `window`, of every channel.
            over: `nonzero`, by the voxels that are not 0, which stay 0; or `all`. Not for `window`.

        Raises:
            DataError: another way of scaling.
        """
        if scaling not in VOLUME_SCALINGS:
            raise DataError(f"Unknown scaling {scaling!r}; expected {' or '.join(VOLUME_SCALINGS)}.")
        ranges = []
        for values in np.concatenate(self._seen, axis=1):
            used = np.sort(values[values != 0] if over == "nonzero" else values)  # whatever the slabs' order
            low, high = _bounds(used, scaling, percentiles, window)
            ranges.append(Range(low, high, over == "nonzero" and scaling != "window"))
        return ranges


def _bounds(
    values: np.ndarray, scaling: str, percentiles: tuple[float, float], window: tuple[float, float]
) -> tuple[float, float]:
    if scaling == "window":
        return window
    if not len(values):
        return 0.0, 0.0
    if scaling == "volume-percentile":
        low, high = np.percentile(values, percentiles).tolist()
        return low, high
    mean, deviation = values.mean(dtype=np.float64).item(), values.std(dtype=np.float64).item()
    return mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation


def scale_voxels(voxels: np.ndarray, ranges: Sequence[Range]) -> np.ndarray:
    """Voxels `c i j k` in [0, 1], float32, each channel by its range; where that has no width, all is 0."""
    scaled = np.zeros(voxels.shape, np.float32)
    for channel, result, (low, high, zeros_stay) in zip(voxels, scaled, ranges, strict=True):
        if high > low:
            np.subtract(channel, np.float32(low), out=result, dtype=np.float32)
            result /= np.float32(high - low)
            np.clip(result, 0, 1, out=result)
        if zeros_stay:
            result[channel == 0] = 0
    return scaled
