"""The prepared store: one content-addressed folder per case, one compressed chunk per slice.

A case's folder is named by the hash of everything that decides its content (files, settings, version
of the preparation), so that nothing is prepared twice and a change of either is noticed. It holds

* `slices.b2nd`: float16, `slice channel row column`; the last channel is the mask (class indices);
* `case.json`: number of slices, channels, tumour pixels and classes of each slice, size of the source and
  of the file of slices.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import blosc2
import numpy as np
import torch
from torch import Tensor

from oncoseg.errors import DataError, RunError
from oncoseg.files import sha256_of_file, sha256_of_json, write_json
from oncoseg.io.checks import check_regular
from oncoseg.plausibility import Look

SLICES_FILE, DESCRIPTION_FILE, HASHES_FILE = "slices.b2nd", "case.json", "hashes.json"

COMPRESSION = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
"""Bit shuffling suits float16; level 1 is within a few per cent of the higher levels' size."""

READING = {"nthreads": 1}
"""Starting threads for one slice takes longer than decompressing it; several slices have several readers."""

PLACE = re.compile("[0-9a-f]{64}")
"""A remembered path; the first versions kept paths themselves, which are dropped."""


class Part(NamedTuple):
    """What of a case is computed at a time where all of it is.

    Attributes:
        images: `n c …` in [0, 1].
        masks: class indices `n …`; only of what is kept.
        keep: index into the logits `n classes …`: what no other part has.
    """

    images: Tensor
    masks: Tensor
    keep: tuple[Any, ...]


class Prepared(Protocol):
    """A prepared case, as training sees it: examples of slices, or of windows of a volume."""

    @property
    def id(self) -> str:
        """The case's id in its data set."""

    @property
    def patient(self) -> str:
        """Whom it belongs to."""

    @property
    def folder(self) -> Path:
        """Where it lies in the store."""

    @property
    def site(self) -> str | None:
        """Where the examination was made, if known."""

    @property
    def target(self) -> str | None:
        """The case's class, such as `benign`, if known."""

    @property
    def look(self) -> Look:
        """What the source images look like."""

    @property
    def tumour_pixels(self) -> np.ndarray:
        """Pixels of any class in each axial slice."""

    def __len__(self) -> int:
        """How many examples cover it."""

    def example(self, position: Any) -> tuple[Tensor, Tensor]:
        """An image `1 c …` float32 in [0, 1] and a mask `1 …` uint8."""

    def parts(self, at_once: int) -> Iterator[Iterable[Part]]:
        """All of it, once: groups whose loss is that of all their parts together.

        Args:
            at_once: examples in a part, at most.
        """

    def with_voxels(self, classes: Collection[int]) -> set[int]:
        """Which of these class indices have a voxel."""


@dataclass(frozen=True)
class PreparedCase:
    """One case's slices in the store.

    Attributes:
        id: the case's id in its data set.
        patient: whom it belongs to.
        folder: where its slices lie.
        order: for each network channel, which stored channel it is (repeated ones are stored once).
        site: where the examination was made, if known.
        target: the case's class, such as `benign`, if known.
        neighbours: slices on either side that join each slice as channels; see `with_neighbours`.
    """

    id: str
    patient: str
    folder: Path
    order: tuple[int, ...]
    site: str | None = None
    target: str | None = None
    neighbours: int = 0

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `case.json` says."""
        return dict(json.loads((self.folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))

    @property
    def look(self) -> Look:
        """What the source images look like."""
        return Look.from_json(self.description["look"])

    @cached_property
    def tumour_pixels(self) -> np.ndarray:
        """Pixels of any class in each slice."""
        return np.array(self.description["tumour_pixels"], dtype=np.int64)

    @cached_property
    def classes_in(self) -> list[set[int]]:
        """The class indices in each slice; of a case that was prepared without noting them, they are read."""
        if (noted := self.description.get("classes")) is not None:
            return [set(of_slice) for of_slice in noted]
        every = range(len(self))
        return [set(self.read(at, at + 1)[1].unique().tolist()) - {0} for at in every]

    def slices_with(self, index: int | None) -> np.ndarray:
        """Which slices hold a class, by its index; None for any class."""
        if index is None:
            return self.tumour_pixels > 0
        return np.array([index in of_slice for of_slice in self.classes_in], dtype=bool)

    def __len__(self) -> int:
        return len(self.tumour_pixels)

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Slices start … stop − 1: images `n c h w` float32 in [0, 1] and masks `n h w` uint8.

        Raises:
            RunError: the file of slices is gone or damaged.
        """
        first, last = max(0, start - self.neighbours), min(len(self), stop + self.neighbours)
        with reading(self.folder):
            array = blosc2.open(str(self.folder / SLICES_FILE), mode="r", mmap_mode="r", dparams=READING)
            stored = array[first:last]
        own = slice(start - first, min(stop, len(self)) - first)
        images = torch.from_numpy(stored[:, list(self.order)]).float()
        masks = torch.from_numpy(stored[own, -1].astype(np.uint8))
        return with_neighbours(images, own, self.neighbours), masks

    def example(self, position: int) -> tuple[Tensor, Tensor]:
        """One slice; see `read`."""
        return self.read(position, position + 1)

    def parts(self, at_once: int) -> Iterator[Iterable[Part]]:
        """All slices as one group; see `Prepared.parts`."""
        starts = range(0, len(self), at_once)
        yield (Part(*self.read(start, start + at_once), (...,)) for start in starts)

    def with_voxels(self, classes: Collection[int]) -> set[int]:
        """Which of these class indices have a pixel; reads no more slices than it takes to find out."""
        found: set[int] = set()
        for position in self.tumour_pixels.nonzero()[0].tolist():
            if found.issuperset(classes):
                break
            found |= set(self.example(position)[1].unique().tolist()) & set(classes)
        return found


def with_neighbours(slices: Tensor, own: slice, neighbours: int) -> Tensor:
    """Slices with those around them as channels: `n c h w` → `m c·(2·neighbours+1) h w`.

    The channels are all those of the slice `neighbours` below, then of the next, …, then of the slice itself,
    …, up to `neighbours` above. Beyond the first and the last of `slices`, that one is repeated.

    Args:
        slices: in the order of their positions.
        own: the `m` of them that are wanted; the others only are neighbours.
        neighbours: on either side; with 0 the wanted slices are given as they are.
    """
    if not neighbours:
        return slices[own]
    middles = torch.arange(own.start, own.stop)[:, None]
    around = middles + torch.arange(-neighbours, neighbours + 1)
    return slices[around.clamp(0, len(slices) - 1)].flatten(1, 2)


def is_whole(folder: Path) -> bool:
    """Whether a prepared case lies in `folder`, with as many bytes as were written."""
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        # of slices the first versions did not note the size
        sizes = description.get("files") or {SLICES_FILE: description.get("bytes")}
        found = {name: (folder / name).stat().st_size for name in sizes}
        return all(size is None or size == found[name] for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


class SliceWriter:
    """Writes one case's slices in order into a folder (see the module's text)."""

    def __init__(self, folder: Path, slices: int, channels: int, size: tuple[int, int]) -> None:
        """Make the array; `folder` exists and is empty."""
        self._folder = folder
        self._pixels: list[int] = []
        self._classes: list[list[int]] = []
        with writing(folder):
            self._array = blosc2.empty(
                (slices, channels + 1, *size),
                dtype=np.float16,
                chunks=(1, channels + 1, *size),
                blocks=(1, 1, *size),
                urlpath=str(folder / SLICES_FILE),
                cparams=COMPRESSION,
            )

    def append(self, images: Tensor, masks: Tensor) -> None:
        """Add slices: images `n c h w` in [0, 1], masks `n h w`.

        Raises:
            RunError: the disk is full.
        """
        start = len(self._pixels)
        joined = torch.cat([images, masks[:, None].float()], dim=1).to(torch.float16)
        with writing(self._folder):
            self._array[start : start + len(joined)] = joined.numpy()
        self._pixels += (masks > 0).flatten(1).sum(1).tolist()
        self._classes += [[index for index in mask.unique().tolist() if index] for mask in masks]

    def finish(self, **description: Any) -> None:
        """Write the description, which makes the folder complete."""
        if len(self._pixels) != self._array.shape[0]:
            raise DataError(f"Expected {self._array.shape[0]} slices, got {len(self._pixels)}.")
        size = (self._folder / SLICES_FILE).stat().st_size
        noted = {"tumour_pixels": self._pixels, "classes": self._classes}
        whole = {**noted, "bytes": size, **description}
        write_json(self._folder / DESCRIPTION_FILE, whole)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Say what to do where a prepared case cannot be read.

    Raises:
        RunError: its files are gone or damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"The prepared case {folder} is damaged ({error}). Delete that folder, then run the "
            "same command again: the case is prepared anew."
        ) from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Blosc2 reports a full disk as a RuntimeError without a reason."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"Could not write a prepared case into {folder.parent} ({error}); the disk is probably full. "
            "Free some space or choose another folder for the store, then run the same command again."
        ) from error


class FileHashes:
    """Content hashes of source files, remembered by path, size and time of change.

    A path may name a patient, so only its hash is kept.
    """

    def __init__(self, store: Path) -> None:
        """Read what an earlier preparation remembered; a damaged memory is dropped."""
        self._path = store / HASHES_FILE
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[Any]] = {
            place: entry
            for place, entry in (known.items() if isinstance(known, dict) else ())
            if PLACE.fullmatch(place) and isinstance(entry, list) and len(entry) == 3
        }
        self._changed = False

    def of(self, files: Sequence[Path]) -> list[str]:
        """The hash of each file's content.

        Raises:
            DataError: a file that cannot be read.
        """
        return [self._of_one(path) for path in files]

    def _of_one(self, path: Path) -> str:
        place = sha256_of_json(str(path.absolute()))
        check_regular(path)
        try:
            state = path.stat()
            known = self._known.get(place)
            if known and known[:2] == [state.st_size, state.st_mtime_ns]:
                return str(known[2])
            digest = sha256_of_file(path)
        except OSError as error:
            raise DataError(
                f"Cannot read {path}: {error.strerror}. Check that the file is there and may be read."
            ) from error
        self._known[place] = [state.st_size, state.st_mtime_ns, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Keep the hashes for the next preparation."""
        if self._changed:
            write_json(self._path, self._known)
            self._changed = False
