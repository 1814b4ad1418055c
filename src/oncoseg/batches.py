"""How many slices are computed at a time: as many as the recipe says, or fewer where memory is short.

A network that is not trained computes each slice by itself, so that results are the same whatever the batch.
"""

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from oncoseg.errors import RunError
from oncoseg.limits import GIB, check_memory, resident_bytes
from oncoseg.processes import free_memory_gib

CAUTION = 1.25
"""The memory of what is yet untried is taken to grow so many times as steeply as what was tried."""

TRIALS = ((1, 0.25), (1, 0.5), (1, 1.0), (2, 1.0))
"""Slices, and share of their sides, that are tried one after another, as long as the next one fits. The first
also pays for what is only needed once."""

SLAB_COPIES = 4
"""Arrays as large as the slices that are read at once, which reading and preparing them holds."""

Remark = Callable[[str], None]


class Batches:
    """The present size of a batch.

    Attributes:
        size: slices.
        warn: told, in a sentence, when it is lowered.
    """

    def __init__(self, size: int, device: torch.device, warn: Remark = lambda text: None) -> None:
        self.size, self.warn, self._device = size, warn, device

    def each(self, compute: Callable[[Tensor], None], rows: Tensor) -> None:
        """Compute all rows, batch by batch; one that a GPU's memory does not hold is halved, once for all.

        Raises:
            RunError: it does not hold one slice.
        """
        done = 0
        while done < len(rows):
            part = rows[done : done + self.size]
            if _computed(compute, part):
                done += len(part)
            else:
                self._halve(len(part))

    def fit(self, compute: Callable[[Tensor], object], channels: int, size: tuple[int, int]) -> None:
        """Lower the size to what this machine's memory will hold, as small trials say.

        Does nothing where the system does not tell a process's memory, and for a GPU: see `each`.

        Args:
            compute: slices `n c h w`.
            channels: of a slice.
            size: its height and width.

        Raises:
            RunError: not even one slice will fit.
        """
        if resident_bytes() is None or self._device.type != "cpu":
            return
        tried: list[tuple[float, float]] = []
        for count, side in TRIALS:
            load = count * side**2
            if count > self.size:
                return
            foretold = _foretold(tried, load)
            if count > 1 and foretold > _room():
                self._lower(1)
                return
            check_memory(foretold, _room(), f"Predicting slices of {size[0]}×{size[1]} one by one")
            with suppress(*[RuntimeError] * (side < 1)):  # a network may want whole ones
                compute(torch.rand(count, channels, *(max(1, round(side * one)) for one in size)))
                tried.append((load, resident_bytes() or 0))
        fits = int(_largest(tried, _room()))
        if fits < self.size:
            self._lower(max(2, fits))

    def check_slab(self, slices: int, voxels: int) -> None:
        """Check that there is memory to read so many slices at once, of so many voxels with all channels.

        Raises:
            RunError: there is not.
        """
        needed = SLAB_COPIES * slices * voxels * torch.float32.itemsize
        check_memory((resident_bytes() or 0) + needed, _room(), f"{slices} slices of the longest image")

    def _lower(self, size: int) -> None:
        self.warn(
            f"Batches of {self.size} slices will not fit into the {_room() / GIB:.1f} GiB of memory: "
            f"{size} are computed at a time. The results are the same."
        )
        self.size = size

    def _halve(self, tried: int) -> None:
        torch.cuda.empty_cache()
        if tried == 1:
            raise RunError(
                "The GPU's memory does not hold the network and one slice; expected room for both. End what "
                "else runs on the GPU, or hide it (CUDA_VISIBLE_DEVICES=) to compute on the processor."
            )
        self.size = tried // 2
        self.warn(
            f"The GPU's memory does not hold {tried} slices: from now on {self.size} are computed at a time. "
            "The results are the same."
        )


def _computed(compute: Callable[[Tensor], None], rows: Tensor) -> bool:
    """Whether there was memory for it; what a failed try held is free after the return."""
    try:
        compute(rows)
    except torch.OutOfMemoryError:
        return False
    return True


def _room() -> float:
    """The most bytes that this process may hold."""
    return free_memory_gib() * GIB + (resident_bytes() or 0)


def _slope(tried: list[tuple[float, float]]) -> float:
    """Bytes that one slice more takes, with caution; 0 where nothing is known."""
    if len(tried) < 2:
        return 0.0
    (less, before), (more, after) = tried[-2:]
    return max(0.0, CAUTION * (after - before) / (more - less))


def _foretold(tried: list[tuple[float, float]], load: float) -> float:
    if not tried:
        return float(resident_bytes() or 0)
    last, memory = tried[-1]
    return memory + _slope(tried) * (load - last)


def _largest(tried: list[tuple[float, float]], room: float) -> float:
    """How many slices fit."""
    last, memory = tried[-1]
    return last + max(0.0, room - memory) / max(_slope(tried), 1.0)
