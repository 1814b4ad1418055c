"""Writing one case: each channel read, checked against the first one's grid, and written as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncoseg import io
from oncoseg.convert.formats import FORMATS
from oncoseg.convert.plan import Item, Plan
from oncoseg.errors import DataError, OncosegError, RunError
from oncoseg.io.nifti_writer import write_volumes
from oncoseg.labels import consensus, relabel
from oncoseg.volume import Volume, check_same_grid


@dataclass(frozen=True)
class Writer:
    """Writes items of a plan; made of plain data, so that it can be sent to other processes.

    Attributes:
        out: the folder.
        to: a name in FORMATS.
        plan: what is written.
    """

    out: Path
    to: str
    plan: Plan

    def paths(self, item: Item) -> list[Path]:
        """Every file of an item."""
        form = FORMATS[self.to]
        images = [self.out / path for path, _ in form.images(item, self.plan.channels)]
        return images + [self.out / form.mask(item, reader) for reader in range(self._masks(item))]

    def __call__(self, item: Item) -> tuple[str, str | None]:
        """Write an item; gives its name, and what was wrong with it if it could not be written."""
        try:
            self._write(item)
        except RunError:
            raise
        except OncosegError as error:
            for path in self.paths(item):
                path.unlink(missing_ok=True)
            return item.name, f"Case {item.name}: {error}"
        return item.name, None

    def _write(self, item: Item) -> None:
        form = FORMATS[self.to]
        files = form.images(item, self.plan.channels)
        like = io.read_grid(item.source.images[files[0][1][0]])
        for reader, labels in enumerate(self._label_maps(item, like)):
            mask = self.out / form.mask(item, reader)
            write_volumes(mask, [labels], 1, like, np.dtype(np.uint8))
        for path, channels in files:
            dtype = _common_type(
                [io.read_grid(item.source.images[channel]).array.dtype for channel in channels]
            )
            volumes = self._channels(item, channels, like, dtype)
            write_volumes(self.out / path, volumes, len(channels), like, dtype)

    def _channels(
        self, item: Item, channels: Sequence[str], like: Volume, dtype: np.dtype
    ) -> Iterator[np.ndarray]:
        """One channel after the other, so that no two are in memory."""
        for channel in channels:
            volume = io.read(item.source.images[channel])
            check_same_grid({"the first channel": like, channel: volume})
            array = volume.array[0].astype(dtype, order="F", copy=False)
            if dtype != volume.array.dtype and (array.astype(volume.array.dtype) != volume.array[0]).any():
                raise DataError(f"{channel} cannot share a file with the other channels without rounding.")
            yield array

    def _label_maps(self, item: Item, like: Volume) -> list[np.ndarray]:
        labels = item.source.labels.items() if item.source.masks else ()
        values = {value: self.plan.labels[name] for value, name in labels if name in self.plan.labels}
        maps = []
        for number, ref in enumerate(item.source.masks):
            mask = io.read(ref)
            check_same_grid({"the first channel": like, f"mask {number}": mask})
            maps.append(relabel(mask.array[0], values))
        if len(maps) > 1 and self.plan.readers == 1:
            return [consensus(maps, self.plan.consensus)]
        return maps

    def _masks(self, item: Item) -> int:
        return min(len(item.source.masks), self.plan.readers)


def _common_type(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The smallest type that holds every channel's numbers."""
    return np.result_type(*dtypes)
