"""A volume computed window by window: where windows lie, how they are weighed, and finished slices.

Source of the scheme: Isensee et al. 2021 (nnU-Net), methods, "Inference": windows of the training patch's
size that overlap by half, their probabilities weighed by a Gaussian so that a voxel is mostly decided by
windows in whose middle it lies. The code is our own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

SIGMA_SHARE = 1 / 8
"""Standard deviation of the Gaussian, as a share of the window's side (nnU-Net's choice)."""

AT_A_TIME = 32
"""Finished slices that are given at a time, at most."""

Read = Callable[[int, int], Tensor]
"""Slices start … stop − 1 along k of a prepared volume, axes `c i j k`."""

Network = Callable[[Tensor], Tensor]
"""Probabilities `n classes i j k` of windows `n c i j k`."""

Three = Sequence[int]
"""Numbers along i, j, k."""


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """Where windows begin along an axis: evenly spread, the first at 0 and the last at the end.

    Args:
        size: voxels of the axis; at least `patch`.
        patch: voxels of a window.
        overlap: share of a window that the next covers at least, 0 ≤ overlap < 1.

    Raises:
        ValueError: the axis is shorter than a window, or the overlap outside its range.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"expected 0 ≤ overlap < 1, got {overlap}")
    if not 0 < patch <= size:
        raise ValueError(f"expected an axis of at least {patch} voxels, got {size}; pad it first")
    step = max(1, math.floor(patch * (1 - overlap)))
    gaps = math.ceil((size - patch) / step)
    return [round(number * (size - patch) / gaps) for number in range(gaps + 1)] if gaps else [0]


def importance(patch: int) -> Tensor:
    """Weight of each voxel along one side of a window: a Gaussian about its middle, float32, at most 1.

    A window's weights are the product of its sides'.
    """
    places = torch.arange(patch, dtype=torch.float64) - (patch - 1) / 2
    return torch.exp(-0.5 * (places / (patch * SIGMA_SHARE)) ** 2).float()


def count_windows(shape: Three, patch: Three, overlap: float) -> int:
    """How many windows cover a volume."""
    return math.prod(
        len(starts(max(size, side), side, overlap)) for size, side in zip(shape, patch, strict=True)
    )


def padding(size: int, patch: int) -> tuple[int, int]:
    """Voxels to add before and behind an axis that is shorter than a window."""
    lacking = max(0, patch - size)
    return lacking // 2, lacking - lacking // 2


@torch.no_grad()
def predict_windows(
    read: Read,
    shape: Three,
    patch: Three,
    network: Network,
    *,
    classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
) -> Iterator[tuple[int, Tensor]]:
    """Probabilities of a volume, a few finished slices at a time.

    Only the slices of one layer of windows are held, so memory does not grow with the length of the scan.
    A volume smaller than a window is padded with zeros on both sides. A window that is 0 everywhere, such as
    one in the air around a head, holds no information: it is not computed and its probability is 0.

    Args:
        read: asked for every slice once, in rising order.
        shape: of the volume, voxels along i, j, k.
        patch: of a window, likewise.
        network: of a batch of windows.
        classes: that it gives.
        overlap: share of a window that the next one covers at least, 0 ≤ overlap < 1.
        batch_size: windows computed at a time.

    Yields:
        Index of the first slice, and probabilities `classes i j k` of some slices (float32, on the CPU);
        together every slice once, in rising order.
    """
    edges = [padding(size, side) for size, side in zip(shape, patch, strict=True)]
    padded = [max(size, side) for size, side in zip(shape, patch, strict=True)]
    along = [starts(size, side, overlap) for size, side in zip(padded, patch, strict=True)]
    sides = [importance(side) for side in patch]
    norms = [_sum(*one) for one in zip(padded, along, sides, strict=True)]
    # slice k of the padded volume lies at k modulo the window's height in both
    slab = _padded(read(0, min(patch[2], shape[2])), edges)
    total = torch.zeros(classes, *padded[:2], patch[2])
    for layer, following in pairwise([*along[2], padded[2]]):
        _add_layer(total, slab, layer, along, patch, sides, network, batch_size)
        for start in range(layer, following, AT_A_TIME):
            slices = torch.arange(start, min(start + AT_A_TIME, following))
            yield from _cropped(_taken(total, slices, norms), start, edges, shape)
        if following < padded[2]:
            more = _padded(read(layer + patch[2], following + patch[2]), edges[:2])
            slab.index_copy_(-1, torch.arange(layer, following) % patch[2], more)


def _add_layer(
    total: Tensor,
    slab: Tensor,
    layer: int,
    along: Sequence[Sequence[int]],
    patch: Three,
    sides: Sequence[Tensor],
    network: Network,
    batch_size: int,
) -> None:
    """Add the weighed probabilities of all windows that begin with slice `layer`, but for those of zeros."""
    weight, turn = _outer(sides[0], sides[1], sides[2]), layer % patch[2]
    places = [
        (slice(None), slice(i, i + patch[0]), slice(j, j + patch[1])) for i, j in product(along[0], along[1])
    ]
    filled = [place for place in places if slab[place].any()]
    for first in range(0, len(filled), batch_size):
        few = filled[first : first + batch_size]
        probabilities = network(torch.stack([slab[place].roll(-turn, -1) for place in few])).float().cpu()
        for place, probability in zip(few, probabilities, strict=True):
            total[place] += (weight * probability).roll(turn, -1)


def _taken(total: Tensor, slices: Tensor, norms: Sequence[Tensor]) -> Tensor:
    """Finished slices; their places are free for others."""
    places = slices % total.shape[-1]
    taken = total.index_select(-1, places)
    total.index_fill_(-1, places, 0)
    # one axis after the other takes no memory
    taken /= norms[0][:, None, None]
    taken /= norms[1][:, None]
    taken /= norms[2][slices]
    return taken


def _padded(slab: Tensor, edges: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros around the first axes of `i j k`."""
    sides = [*edges, *[(0, 0)] * (3 - len(edges))]
    widths = [width for edge in reversed(sides) for width in edge]
    return torch.nn.functional.pad(slab.float(), widths)


def _cropped(
    finished: Tensor, layer: int, edges: Sequence[tuple[int, int]], shape: Three
) -> Iterator[tuple[int, Tensor]]:
    """What is left of finished slices without the padding."""
    (i, _), (j, _), (k, _) = edges
    first, last = max(layer, k), min(layer + finished.shape[-1], k + shape[2])
    if first < last:
        inner = finished[:, i : i + shape[0], j : j + shape[1], first - layer : last - layer]
        yield first - k, inner.contiguous()


def _sum(size: int, begins: Sequence[int], side: Tensor) -> Tensor:
    """Weights of all windows that cover a voxel, along one axis."""
    total = torch.zeros(size)
    for start in begins:
        total[start : start + len(side)] += side
    return total


def _outer(i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    return i[:, None, None] * j[:, None] * k
