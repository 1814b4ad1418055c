"""Reading a case's channels a few axial slices at a time, whatever its format and orientation."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import numpy as np
from nibabel.orientations import io_orientation

from oncoseg import io
from oncoseg.datasets.base import Case
from oncoseg.io import NIFTI_SUFFIXES, ImageRef, is_dicom
from oncoseg.io.checks import check_contrast
from oncoseg.io.dicom.volumes import series_of
from oncoseg.io.dicom.voxels import SeriesSlabs, open_series
from oncoseg.io.nifti import NiftiSlabs, open_slabs
from oncoseg.regions import Box, cropped, slices_of
from oncoseg.transforms import ZEROS
from oncoseg.volume import Volume, check_same_grid

Place = tuple[slice, ...]
"""Of a slab, in `c i j k` of the source."""

Seen = Callable[[Place, np.ndarray], None]
"""Told each slab's place and its voxels `c i j k`."""

SUPERIOR = 2
"""Canonical axis along which axial slices are stacked."""


class _Channel(Protocol):
    like: Volume

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray: ...


class SlabSource:
    """An open case.

    Attributes:
        like: the grid, without voxels.
        names: of the channels, in the network's order.
        axis: the source's axis (0, 1 or 2) that runs nearest to head–feet.
        backwards: whether it runs from head to feet.
        slices: number of slices along it.
        remarks: what is odd in the channels' headers and was settled, each with the channels' names.
    """

    def __init__(self, names: Sequence[str], channels: Mapping[str, _Channel], resources: ExitStack) -> None:
        """Use `open_source`."""
        self.names, self._channels, self._resources = list(names), channels, resources
        self._extremes = dict.fromkeys(channels, (math.inf, -math.inf))
        self.like = next(iter(channels.values())).like
        orientation = io_orientation(self.like.affine_ras)
        self.axis = int(np.flatnonzero(orientation[:, 0] == SUPERIOR)[0])
        self.backwards = bool(orientation[self.axis, 1] < 0)
        self.slices = self.like.grid[self.axis]
        self.remarks = _joined({name: _remarks(channel) for name, channel in channels.items()})

    def slab(self, start: int, stop: int) -> np.ndarray:
        """Slices start … stop − 1 along `axis`, every channel, axes `c i j k` of the source."""
        read = {name: channel.slab(self.axis, start, stop) for name, channel in self._channels.items()}
        for name, voxels in read.items():
            low, high = self._extremes[name]
            self._extremes[name] = min(low, voxels.min().item()), max(high, voxels.max().item())
        empty = np.zeros_like(next(iter(read.values())))
        return np.stack([read.get(name, empty) for name in self.names])

    def place(self, start: int, stop: int) -> Place:
        """Where slices start … stop − 1 along `axis` lie in an array `c i j k` of the whole source."""
        place = [slice(None)] * 4
        place[self.axis + 1] = slice(start, stop)
        return tuple(place)

    def sample(self, count: int) -> dict[str, np.ndarray]:
        """Every channel that is read, by its name, at up to `count` slices spread evenly, axes `n i j k`."""
        chosen = sorted({round(k) for k in np.linspace(0, self.slices - 1, min(count, self.slices))})
        return {
            name: np.stack([channel.slab(self.axis, k, k + 1) for k in chosen])
            for name, channel in self._channels.items()
        }

    def check_contrast(self) -> None:
        """Check that no channel has one value everywhere, once every slab was read.

        Raises:
            DataError: names the first constant channel.
        """
        check_contrast(self._extremes)

    def within(self, box: Box) -> "SlabSource":
        """A part of the case, as a case of its own; open for as long as this one is.

        Args:
            box: on the source's own axes.
        """
        parts = {name: _Part(channel, box) for name, channel in self._channels.items()}
        source = SlabSource(self.names, parts, ExitStack())
        source._extremes = self._extremes  # of the whole image, so that a part may be of one value
        return source

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
        channels: in the network's order; repeated ones are read once, `zeros` is not read. At least
            one is not `zeros`.

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
    return SlabSource(channels, opened, resources)


def _open(ref: ImageRef, resources: ExitStack) -> _Channel:
    if ref.files[0].name.lower().endswith(NIFTI_SUFFIXES):
        return resources.enter_context(open_slabs(ref.files[0], ref.component))
    if is_dicom(ref.files[0]):
        return resources.enter_context(open_series(series_of(ref.files)))
    return _Stack(ref)


def _remarks(channel: _Channel) -> Sequence[str]:
    """What `io.remarks` says of an open channel."""
    if isinstance(channel, SeriesSlabs):
        return channel.series.remarks
    return channel.header.remarks if isinstance(channel, NiftiSlabs) else ()


def _joined(remarks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Each remark once, after the names of all channels that have it."""
    names: dict[str, list[str]] = {}
    for name, texts in remarks.items():
        for text in texts:
            names.setdefault(text, []).append(name)
    return tuple(f"{', '.join(having)}: {text}." for text, having in names.items())


class _Part:
    """A channel within a box."""

    def __init__(self, channel: _Channel, box: Box) -> None:
        self._channel, self._box = channel, box
        self.like = cropped(channel.like, box)

    def slab(self, axis: int, start: int, stop: int) -> np.ndarray:
        first = self._box[axis][0]
        inside = list(slices_of(self._box))
        inside[axis] = slice(None)
        return self._channel.slab(axis, first + start, first + stop)[tuple(inside)]


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
