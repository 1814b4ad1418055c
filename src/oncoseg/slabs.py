"""Reading a case's channels a few axial slices at a time, whatever its format and orientation."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import numpy as np
from nibabel.orientations import io_orientation

from oncoseg import io
from oncoseg.datasets.base import Case
from oncoseg.io import NIFTI_SUFFIXES, ImageRef
from oncoseg.io.nifti import open_slabs
from oncoseg.transforms import ZEROS
from oncoseg.volume import Volume, check_same_grid

SUPERIOR = 2
"""Canonical axis along which axial slices are stacked."""


class _Channel(Protocol):
    like: Volume

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray: ...


class SlabSource:
    """An open case.

    Attributes:
        like: the grid, without voxels.
        axis: the source's axis (0, 1 or 2) that runs nearest to head–feet.
        slices: number of slices along it.
    """

    def __init__(self, channels: Sequence[_Channel | None], resources: ExitStack) -> None:
        """Use `open_source`."""
        self._channels, self._resources = channels, resources
        self.like = next(channel for channel in channels if channel is not None).like
        orientation = io_orientation(self.like.affine_ras)
        self.axis = int(np.flatnonzero(orientation[:, 0] == SUPERIOR)[0])
        self.slices = self.like.grid[self.axis]

    def slab(self, start: int, stop: int) -> np.ndarray:
        """Slices start … stop − 1 along `axis`, every channel, axes `c i j k` of the source."""
        read: dict[int, np.ndarray] = {}
        for channel in self._channels:
            if channel is not None and id(channel) not in read:
                read[id(channel)] = channel.slab(self.axis, start, stop)
        empty = np.zeros_like(next(iter(read.values())))
        return np.stack([empty if channel is None else read[id(channel)] for channel in self._channels])

    def __enter__(self) -> "SlabSource":
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._resources.close()


def open_source(case: Case, channels: Sequence[str]) -> SlabSource:
    """Open the files behind a case's channels.

    Args:
        case: its images.
        channels: in the network's order; repeated ones are read once, `zeros` is not read.

    Raises:
        DataError: a file that cannot be used.
        GeometryError: channels on different grids.
    """
    resources = ExitStack()
    opened: dict[str, _Channel] = {}
    try:
        for name in dict.fromkeys(channels):
            if name != ZEROS:
                opened[name] = _open(case.images[name], resources)
        check_same_grid({name: channel.like for name, channel in opened.items()})
    except BaseException:
        resources.close()
        raise
    return SlabSource([opened.get(name) for name in channels], resources)


def _open(ref: ImageRef, resources: ExitStack) -> _Channel:
    if ref.files[0].name.lower().endswith(NIFTI_SUFFIXES):
        return resources.enter_context(open_slabs(ref.files[0]))
    return _Stack(ref)


class _Stack:
    """A stack of 2D images: small beside a volume in one file, so it is read whole."""

    def __init__(self, ref: ImageRef) -> None:
        self._volume = io.read(ref)
        self.like = self._volume

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray:
        part = [slice(None)] * 3
        part[axis] = slice(start, stop)
        channel: np.ndarray = self._volume.array[0]
        return channel[tuple(part)]
