"""Slabs of axial slices computed by a 2D network, and put back onto the source's own grid."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from oncoseg.batches import Batches
from oncoseg.prepare import SLAB, Settings
from oncoseg.scaling import Intensities, Range
from oncoseg.slabs import Place, Seen, SlabSource
from oncoseg.store import with_neighbours
from oncoseg.transforms import restore_slices
from oncoseg.volume import Volume, from_canonical, to_canonical

Network = Callable[[Tensor], Tensor]
"""Probabilities `n classes h w` of prepared slices `n c h w`."""


def predict_slabs(
    source: SlabSource, settings: Settings, network: Network, classes: int, batches: Batches, seen: Seen
) -> Iterator[tuple[Place, np.ndarray]]:
    """Each slab's place in `c i j k`, and its probabilities there, on the source's axes.

    Raises:
        DataError: a channel is constant or the files are damaged.
        RunError: the network's output is not finite.
    """

    def predicted(images: Tensor) -> Tensor:
        return predict_slices(images, network, classes, batches)

    yield from _slabs(source, settings, predicted, seen)
    source.check_contrast()


def _slabs(
    source: SlabSource, settings: Settings, predicted: Network, seen: Seen
) -> Iterator[tuple[Place, np.ndarray]]:
    backwards, ranges = source.backwards, _ranges(source, settings) if settings.by_volume else []
    for start, stop, own, voxels in _with_margins(source, settings.neighbours):
        place = source.place(start, stop)
        seen(place, voxels[source.place(own.start, own.stop)])
        canonical, orientation = to_canonical(Volume(voxels, source.like.affine_ras))
        slices = settings.slices(canonical.array, ranges)
        mine = slice(len(slices) - own.stop, len(slices) - own.start) if backwards else own
        images = with_neighbours(slices, mine, settings.neighbours)
        # weighed sums of ones are one but for rounding
        restored = restore_slices(predicted(images), canonical.grid[:2]).clamp_max(1)
        yield place, from_canonical(np.moveaxis(restored.numpy(), 0, -1), orientation)


def _ranges(source: SlabSource, settings: Settings) -> list[Range]:
    """What becomes 0 and 1 in each channel, from reading the source once beforehand."""
    seen = Intensities(to_canonical(source.like)[0].grid)
    for start in range(0, source.slices, SLAB):
        voxels = source.slab(start, min(start + SLAB, source.slices))
        seen.add(to_canonical(Volume(voxels, source.like.affine_ras))[0].array)
    return settings.ranges(seen)


def _with_margins(source: SlabSource, margin: int) -> Iterator[tuple[int, int, slice, np.ndarray]]:
    """Slabs with the slices around them, as far as there are any; each slice is read once.

    Yields:
        The slab's first slice and the one after its last, where these lie in the voxels, and the voxels.
    """
    axis = source.axis + 1
    held, first, end = None, 0, 0
    for start in range(0, source.slices, SLAB):
        stop = min(start + SLAB, source.slices)
        low, high = max(0, start - margin), min(stop + margin, source.slices)
        parts = [source.slab(end, high)] if high > end else []
        if margin and held is not None:
            parts.insert(0, held[source.place(low - first, end - first)])
        held = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
        first, end = low, high
        yield start, stop, slice(start - low, stop - low), held


def predict_slices(slices: Tensor, network: Network, classes: int, batches: Batches) -> Tensor:
    """Probabilities `n classes h w` (float32, on the CPU) of prepared slices `n c h w`.

    A slice without any contrast, such as one beyond the head, holds no information: it is not
    computed and its probability is 0.
    """
    probability = torch.zeros(len(slices), classes, *slices.shape[-2:])
    filled = slices.flatten(1).any(dim=1).nonzero().flatten()

    def compute(chosen: Tensor) -> None:
        probability[chosen] = network(slices[chosen]).cpu()

    batches.each(compute, filled)
    return probability


def foretell_seconds(
    source: SlabSource, settings: Settings, network: Network, classes: int, batches: Batches
) -> float:
    """How long a source will take, from its first slab; of noise, as the first slices are often empty."""

    def predicted(images: Tensor) -> Tensor:
        return predict_slices(torch.rand_like(images), network, classes, batches)

    began = time.monotonic()
    next(_slabs(source, settings, predicted, lambda place, voxels: None))
    return (time.monotonic() - began) * source.slices / min(SLAB, source.slices)
