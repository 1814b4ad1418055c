"""Slabs of axial slices computed by a 2D network, and put back onto the source's own grid."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from oncoseg.prepare import SLAB, Settings
from oncoseg.slabs import Place, Seen, SlabSource
from oncoseg.transforms import prepare_slices, restore_slices
from oncoseg.volume import Volume, from_canonical, to_canonical

Network = Callable[[Tensor], Tensor]
"""Probabilities `n classes h w` of prepared slices `n c h w`."""


def predict_slabs(
    source: SlabSource, settings: Settings, network: Network, classes: int, batch_size: int, seen: Seen
) -> Iterator[tuple[Place, np.ndarray]]:
    """Each slab's place in `c i j k`, and its probabilities there, on the source's axes.

    Raises:
        DataError: a channel is constant or the files are damaged.
        RunError: the network's output is not finite.
    """
    for start in range(0, source.slices, SLAB):
        stop = min(start + SLAB, source.slices)
        voxels = source.slab(start, stop)
        place = source.place(start, stop)
        seen(place, voxels)
        canonical, orientation = to_canonical(Volume(voxels, source.like.affine_ras))
        slices = prepare_slices(
            canonical.array, settings.size, settings.scaling, settings.percentiles, settings.window
        )
        found = predict_slices(slices, network, classes, batch_size)
        restored = restore_slices(found, canonical.grid[:2])
        yield place, from_canonical(np.moveaxis(restored.numpy(), 0, -1), orientation)
    source.check_contrast()


def predict_slices(slices: Tensor, network: Network, classes: int, batch_size: int) -> Tensor:
    """Probabilities `n classes h w` (float32, on the CPU) of prepared slices `n c h w`.

    A slice without any contrast, such as one beyond the head, holds no information: it is not
    computed and its probability is 0.
    """
    probability = torch.zeros(len(slices), classes, *slices.shape[-2:])
    filled = slices.flatten(1).any(dim=1).nonzero().flatten()
    for chosen in filled.split(batch_size):
        probability[chosen] = network(slices[chosen]).cpu()
    return probability


def foretell_seconds(
    source: SlabSource, settings: Settings, network: Network, channels: int, classes: int, batch_size: int
) -> float:
    """How long a source will take, from reading and computing its first slab."""
    began = time.monotonic()
    count = min(SLAB, source.slices)
    source.slab(0, count)
    predict_slices(torch.rand(count, channels, *settings.size), network, classes, batch_size)
    return (time.monotonic() - began) * source.slices / count
