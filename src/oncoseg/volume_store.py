"""Volumes in the prepared store: one content-addressed folder per case, read window by window.

A case's folder is named as that of slices is (see `store`). It holds

* `volume.b2nd`: float16, `c i j k` on canonical axes, each channel in chunks of 96³ voxels, blocks of 32³;
* `mask.b2nd`: uint8, class indices `i j k`, likewise;
* `places.npy`: int32, rows of class, i, j, k: voxels of each class, drawn at random if there are many;
* `case.json`: shape, channels, voxels of any class in each axial slice, the source's size and the files'.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from torch import Tensor

from oncoseg.errors import DataError
from oncoseg.files import write_json
from oncoseg.plausibility import Look
from oncoseg.store import COMPRESSION, DESCRIPTION_FILE, READING, Part, reading, writing

VOLUME_FILE, MASK_FILE, PLACES_FILE = "volume.b2nd", "mask.b2nd", "places.npy"

CHUNK, BLOCK = 96, 32
"""Sides of what is compressed together and of what is read at least, in voxels."""

MOST_PLACES = 2000
"""Voxels of each class that are remembered."""

Corner = tuple[int, int, int]
"""The voxel i, j, k with which a window begins; below 0 where the window sticks out."""


@dataclass(frozen=True)
class PreparedVolume:
    """One case in the store.

    Attributes:
        id: the case's id in its data set.
        patient: whom it belongs to.
        folder: where its files lie.
        order: for each network channel, which stored channel it is (repeated ones are stored once).
        patch: voxels along i, j, k of the windows that training sees.
        site: where the examination was made, if known.
        target: the case's class, such as `benign`, if known.
        margin: voxels along i, j, k by which examples reach beyond the window on either side, so that what
            augmentation turns into the window is image.
    """

    id: str
    patient: str
    folder: Path
    order: tuple[int, ...]
    patch: tuple[int, int, int]
    site: str | None = None
    target: str | None = None
    margin: tuple[int, int, int] = (0, 0, 0)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `case.json` says."""
        return dict(json.loads((self.folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))

    @property
    def look(self) -> Look:
        """What the source images look like."""
        return Look.from_json(self.description["look"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.description["shape"]
        return i, j, k

    @cached_property
    def tumour_pixels(self) -> np.ndarray:
        """Voxels of any class in each axial slice."""
        return np.array(self.description["tumour_pixels"], dtype=np.int64)

    @cached_property
    def places(self) -> dict[int, np.ndarray]:
        """Class → voxels of it, rows of i, j, k; all, or `MOST_PLACES` at random."""
        with reading(self.folder):
            rows = np.load(self.folder / PLACES_FILE)
        return {int(index): rows[rows[:, 0] == index, 1:] for index in np.unique(rows[:, 0])}

    def __len__(self) -> int:
        """Windows that lie side by side and cover the volume."""
        return math.prod(len(corners) for corners in self._corners())

    def example(self, corner: Corner) -> tuple[Tensor, Tensor]:
        """A window and its margin: image `1 c i j k` float32 in [0, 1] and mask `1 i j k` uint8.

        Both are 0 beyond the volume.

        Raises:
            RunError: the files are gone or damaged.
        """
        size = [side + 2 * more for side, more in zip(self.patch, self.margin, strict=True)]
        return self._read([first - more for first, more in zip(corner, self.margin, strict=True)], size)

    def _read(self, corner: Sequence[int], sides: Sequence[int]) -> tuple[Tensor, Tensor]:
        image = np.zeros((len(self.order), *sides), np.float32)
        mask = np.zeros(sides, np.uint8)
        inside = [
            slice(max(0, first), min(first + side, size))
            for first, side, size in zip(corner, sides, self.shape, strict=True)
        ]
        place = tuple(
            slice(part.start - first, part.stop - first) for part, first in zip(inside, corner, strict=True)
        )
        with reading(self.folder):
            stored = self._array(VOLUME_FILE)[:, *inside]
            mask[place] = self._array(MASK_FILE)[*inside]
        image[:, *place] = stored[list(self.order)]
        return torch.from_numpy(image)[None], torch.from_numpy(mask)[None]

    def _array(self, name: str) -> blosc2.NDArray:
        return blosc2.open(str(self.folder / name), mode="r", mmap_mode="r", dparams=READING)

    def parts(self, at_once: int) -> Iterator[Iterable[Part]]:
        """The whole volume, each voxel once, in windows with a loss of their own; see `Prepared.parts`."""
        for corner in product(*self._corners()):
            images, masks = self._read(corner, self.patch)
            keep = tuple(
                slice(max(begin, first) - first, min(begin + side, size) - first)
                for begin, first, side, size in zip(
                    self._begins(corner), corner, self.patch, self.shape, strict=True
                )
            )
            yield [Part(images, masks[:, *keep], (..., *keep))]

    def with_voxels(self, classes: Collection[int]) -> set[int]:
        """Which of these class indices have a voxel."""
        return set(self.places) & set(classes)

    def _corners(self) -> list[list[int]]:
        """Where windows begin along each axis; the last is moved back into the volume."""
        return [_corners_along(size, side) for size, side in zip(self.shape, self.patch, strict=True)]

    def _begins(self, corner: Sequence[int]) -> list[int]:
        """The first voxel along each axis that no window before this one has seen."""
        return [max(0, -(-first // side) * side) for first, side in zip(corner, self.patch, strict=True)]


def _corners_along(size: int, side: int) -> list[int]:
    if size <= side:
        return [-((side - size) // 2)]
    return [min(first, size - side) for first in range(0, size, side)]


class VolumeWriter:
    """Writes one case's slabs in order along k into a folder (see the module's text)."""

    def __init__(self, folder: Path, channels: int, shape: tuple[int, int, int]) -> None:
        """Make the arrays; `folder` exists and is empty."""
        self._folder, self._shape, self._done = folder, shape, 0
        self._counts: list[int] = []
        self._places: dict[int, np.ndarray] = {}
        self._keys: dict[int, np.ndarray] = {}
        self._rng = np.random.default_rng(0)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        chunks, blocks = ([min(side, size) for size in shape] for side in (CHUNK, BLOCK))
        with writing(folder):
            self._image = _empty(
                folder / VOLUME_FILE, (channels, *shape), (1, *chunks), (1, *blocks), np.float16
            )
            self._mask = _empty(folder / MASK_FILE, shape, tuple(chunks), tuple(blocks), np.uint8)

    def append(self, voxels: np.ndarray, labels: np.ndarray) -> None:
        """Add axial slices: voxels `c i j k` in [0, 1] and class indices `i j k`.

        Raises:
            RunError: the disk is full.
        """
        self._remember(labels)
        self._waiting.append((voxels.astype(np.float16), labels.astype(np.uint8)))
        # whole chunks, as a chunk in parts is compressed as often
        if len(self._counts) - self._done >= CHUNK or len(self._counts) == self._shape[2]:
            self._write()

    def _write(self) -> None:
        images, masks = (np.concatenate(parts, axis=-1) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        last = len(self._counts) == self._shape[2]
        whole = images.shape[-1] if last else images.shape[-1] // CHUNK * CHUNK
        if whole < images.shape[-1]:
            self._waiting = [(images[..., whole:], masks[..., whole:])]
        with writing(self._folder):
            for array, parts in ((self._image, images), (self._mask, masks)):
                array[..., self._done : self._done + whole] = np.ascontiguousarray(parts[..., :whole])
        self._done += whole

    def _remember(self, labels: np.ndarray) -> None:
        """Count the classes' voxels, and keep those of each with the smallest of random numbers."""
        start = len(self._counts)
        self._counts += np.count_nonzero(labels, axis=(0, 1)).tolist()
        for index in np.unique(labels[labels > 0]).tolist():
            found = np.argwhere(labels == index) + np.array([0, 0, start])
            keys = self._rng.random(len(found))
            if index in self._keys:
                found = np.concatenate([self._places[index], found])
                keys = np.concatenate([self._keys[index], keys])
            kept = np.sort(np.argsort(keys, kind="stable")[:MOST_PLACES])
            self._places[index], self._keys[index] = found[kept], keys[kept]

    def finish(self, **description: Any) -> None:
        """Write the places and the description, which makes the folder complete."""
        if self._done != self._shape[2]:
            raise DataError(f"Expected {self._shape[2]} slices, got {len(self._counts)}.")
        rows = [np.insert(self._places[index], 0, index, axis=1) for index in sorted(self._places)]
        np.save(self._folder / PLACES_FILE, np.concatenate([np.zeros((0, 4), int), *rows]).astype(np.int32))
        sizes = {name: (self._folder / name).stat().st_size for name in (VOLUME_FILE, MASK_FILE, PLACES_FILE)}
        whole = {"shape": self._shape, "tumour_pixels": self._counts, "files": sizes, **description}
        write_json(self._folder / DESCRIPTION_FILE, whole)


def _empty(
    path: Path, shape: Sequence[int], chunks: Sequence[int], blocks: Sequence[int], kind: type
) -> blosc2.NDArray:
    return blosc2.empty(
        tuple(shape),
        dtype=kind,
        chunks=tuple(chunks),
        blocks=tuple(blocks),
        urlpath=str(path),
        cparams=COMPRESSION,
    )
