"""Volumes computed window by window by a 3D network, and put back slab by slab onto the source's own grid.

The source is read once, forwards as its files want it, into a scratch file on canonical axes. Everything
after that is done as far as it is asked for: scaled and resampled slices enter a layer of windows, finished
slices leave it and are resampled back. So memory holds a layer of windows, however long the scan is.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oncoseg.errors import DataError
from oncoseg.prepare import SLAB, Settings
from oncoseg.recipe import Recipe
from oncoseg.resampling import Grid, needed_slices, resample_slab
from oncoseg.scaling import Intensities, Range, scale_voxels
from oncoseg.scratch import scratch_array
from oncoseg.slabs import Place, Seen, SlabSource
from oncoseg.volume import Volume, from_canonical, to_canonical
from oncoseg.windows import Network, count_windows, predict_windows

LAYER_COPIES, SLAB_COPIES = 3, 3
"""How often a layer's probabilities are held at a time (summed, finished, waiting), and a restored slab's."""


class Windows(NamedTuple):
    """How a volume is covered.

    Attributes:
        patch: voxels along i, j, k of a window.
        overlap: share of a window that the next one covers at least.
        batch_size: windows computed at a time.
    """

    patch: Grid
    overlap: float
    batch_size: int

    @classmethod
    def of(cls, recipe: Recipe) -> "Windows | None":
        """As a recipe says; None for slices."""
        if recipe.preparation.spatial_dims == 2:
            return None
        i, j, k = recipe.example_size
        return cls((i, j, k), recipe.prediction.overlap, recipe.prediction.window_batch_size)


class _Copy(NamedTuple):
    """A source's voxels on canonical axes.

    Attributes:
        voxels: `c i j k`, each channel once; in a file.
        order: for each network channel, which of these it is.
        ranges: by which each of these is scaled.
        orientation: from the source's axes to canonical ones.
    """

    voxels: np.ndarray
    order: list[int]
    ranges: list[Range]
    orientation: np.ndarray


def predict_slabs(
    source: SlabSource,
    settings: Settings,
    network: Network,
    classes: int,
    windows: Windows,
    folder: Path,
    seen: Seen,
) -> Iterator[tuple[Place, np.ndarray]]:
    """Each slab's place in `c i j k`, and its probabilities there, on the source's axes.

    Args:
        source: an open case.
        settings: how it is prepared.
        network: of windows `n c i j k`.
        classes: that it gives.
        windows: how the prepared volume is covered.
        folder: for scratch files.
        seen: told each slab's place and its voxels `c i j k`, before anything is computed.

    Raises:
        DataError: a channel is constant or the files are damaged.
        RunError: the network's output is not finite, or the disk has no room.
    """
    shape = settings.volume_shape(to_canonical(source.like)[0])
    copy = _copied(source, settings, folder, seen)
    grid: Grid = copy.voxels.shape[1:]
    found = predict_windows(
        lambda start, stop: _prepared(copy, shape, start, stop),
        shape,
        windows.patch,
        network,
        classes=classes,
        overlap=windows.overlap,
        batch_size=windows.batch_size,
    )
    for start, restored in _restored(found, shape, grid):
        # weighed sums of ones are one but for rounding
        probability = np.minimum(restored, 1)
        stop = start + probability.shape[-1]
        place = source.place(*_other_slices(source, start, stop))
        yield place, from_canonical(probability, copy.orientation)


def foretell_seconds(
    source: SlabSource, settings: Settings, network: Network, channels: int, windows: Windows
) -> float:
    """How long a source will take, from reading its first slab and computing one batch of windows."""
    began = time.monotonic()
    count = min(SLAB, source.slices)
    source.slab(0, count)
    reading = (time.monotonic() - began) * source.slices / count
    began = time.monotonic()
    network(torch.rand(windows.batch_size, channels, *windows.patch))
    batch = time.monotonic() - began
    shape = settings.volume_shape(to_canonical(source.like)[0])
    return reading + batch / windows.batch_size * count_windows(shape, windows.patch, windows.overlap)


def scratch_bytes(source: SlabSource) -> int:
    """What the source's copy takes on disk."""
    return math.prod(source.like.grid) * len(set(source.names)) * source.slab(0, 1).itemsize


def layer_bytes(source: SlabSource, settings: Settings, classes: int, windows: Windows) -> float:
    """What a layer of windows, and a slab that is resampled back, take in memory beside the network."""
    i, j, _ = settings.volume_shape(to_canonical(source.like)[0])
    layer = max(i, windows.patch[0]) * max(j, windows.patch[1]) * windows.patch[2]
    slab = math.prod(source.like.grid) / source.slices * SLAB
    values = (classes * LAYER_COPIES + len(source.names)) * layer + classes * SLAB_COPIES * slab
    return values * torch.float32.itemsize


def _copied(source: SlabSource, settings: Settings, folder: Path, seen: Seen) -> _Copy:
    distinct = list(dict.fromkeys(source.names))
    first = [source.names.index(name) for name in distinct]
    canonical, orientation = to_canonical(source.like)
    intensities = Intensities(canonical.grid)
    copy: np.ndarray | None = None
    for start in range(0, source.slices, SLAB):
        stop = min(start + SLAB, source.slices)
        voxels = source.slab(start, stop)
        seen(source.place(start, stop), voxels)
        slab = to_canonical(Volume(voxels[first], source.like.affine_ras))[0].array
        if copy is None:
            copy = scratch_array(folder, (len(distinct), *canonical.grid), slab.dtype)
        intensities.add(slab)
        copy[..., slice(*_other_slices(source, start, stop))] = slab
    source.check_contrast()
    if copy is None:
        raise DataError("The images hold no slice; expected at least one.")
    order = [distinct.index(name) for name in source.names]
    return _Copy(copy, order, settings.ranges(intensities), orientation)


def _prepared(copy: _Copy, shape: Grid, start: int, stop: int) -> Tensor:
    """Slices start … stop − 1 as the network sees them, `c i j k`; rounded as in the prepared store."""
    slices = copy.voxels.shape[-1]
    needed = needed_slices(slices, shape[2], start, stop)
    scaled = scale_voxels(copy.voxels[..., needed], copy.ranges)
    slab = resample_slab(scaled, slices, shape, start, stop).astype(np.float16)
    return torch.from_numpy(slab[copy.order]).float()


def _restored(
    found: Iterator[tuple[int, Tensor]], shape: Grid, grid: Grid
) -> Iterator[tuple[int, np.ndarray]]:
    """Slabs of the source's canonical grid, from those of the prepared one, as soon as these suffice."""
    held, first = np.zeros((0, 0, 0, 0), np.float32), 0
    begin = 0
    for start, probability in found:
        held = np.concatenate([held, probability.numpy()], axis=-1) if held.size else probability.numpy()
        stop = start + probability.shape[-1]
        while begin < grid[2]:
            end = min(begin + SLAB, grid[2])
            needed = needed_slices(shape[2], grid[2], begin, end)
            if needed.stop > stop:
                break
            part = held[..., needed.start - first : needed.stop - first]
            yield begin, resample_slab(part, shape[2], grid, begin, end)
            begin = end
        if begin < grid[2]:
            needless = needed_slices(shape[2], grid[2], begin, min(begin + SLAB, grid[2])).start - first
            held, first = held[..., needless:].copy(), first + needless


def _other_slices(source: SlabSource, start: int, stop: int) -> tuple[int, int]:
    """What source slices are called on canonical axes, and the other way round."""
    return (source.slices - stop, source.slices - start) if source.backwards else (start, stop)
