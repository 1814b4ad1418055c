"""Cases → prepared store, in parallel within a memory bound, interruptible and resumable."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from oncoseg import io, plausibility
from oncoseg.cluster import Spread
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, OncosegError, RecipeError, RunError, failed_cases
from oncoseg.files import atomic_folder, existing_folder, remove_leftovers, sha256_of_json
from oncoseg.io import ImageRef
from oncoseg.io.checks import check_contrast
from oncoseg.labels import check_classes, consensus, merge_labels
from oncoseg.processes import processes_within, run_each
from oncoseg.recipe import Modality, Preparation
from oncoseg.regions import Box, cropped, slices_of
from oncoseg.resampling import Grid, Spacing, needed_slices, resample_labels_slab, resample_slab, target_shape
from oncoseg.scaling import Intensities, Range, scale_voxels
from oncoseg.shares import rule_of
from oncoseg.store import FileHashes, Prepared, PreparedCase, SliceWriter, is_whole
from oncoseg.transforms import (
    ZEROS,
    choose_channels,
    prepare_slices,
    resize_labels,
    resize_slices,
    to_slices,
)
from oncoseg.volume import Volume, check_same_grid, to_canonical
from oncoseg.volume_store import PreparedVolume, VolumeWriter

PREPARATION_VERSION = 2
"""Raised whenever the same input would be prepared differently, so that old store entries are not used."""

VOLUME_VERSION = 1
"""Likewise of volumes."""

UNPLANNED_PATCH = (96, 96, 96)
"""Read at a time of volumes that are only prepared."""

SLAB = 32
"""Axial slices computed at a time; only a slab is ever held as floating point."""

MEMORY_PER_WORKER_GIB = 0.8
"""Python, torch and one slab in a worker process, besides the source voxels."""

SOURCE_COPIES = 2.5
"""Source voxels held at the peak, in copies: read, joined and reoriented."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """Everything besides the files that decides a prepared case, and how it is read.

    With `spacing_mm` it is a volume, else slices of `size`. How it is read: `patch`, `margin`, `neighbours`.
    Of a case with its id in `boxes` only that part of its canonical grid is prepared.
    """

    wanted: tuple[str, ...]
    missing: str
    substitutes: Mapping[str, str]
    consensus: float
    scaling: str
    percentiles: tuple[float, float]
    window: tuple[float, float]
    classes: Mapping[str, tuple[str, ...]]
    size: tuple[int, int]
    accept_implausible: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    scaling_over: str = "nonzero"
    patch: tuple[int, int, int] | None = None
    neighbours: int = 0
    margin: tuple[int, int, int] = (0, 0, 0)
    boxes: Mapping[str, Box] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        modality: Modality,
        classes: Mapping[str, tuple[str, ...]],
        preparation: Preparation,
        accept_implausible: bool = False,
    ) -> "Settings":
        """Collect them from a recipe's parts; the last is no part of it and takes what would be refused.

        Raises:
            RecipeError: volumes of which the size of voxels was not planned yet.
        """
        if preparation.spatial_dims == 3 and preparation.spacing_mm is None:
            raise RecipeError(
                "Preparing volumes needs preparation.spacing_mm, the size of their voxels, such as "
                "--preparation.spacing-mm [1,1,1]; got none."
            )
        return cls(
            modality.channels,
            modality.missing,
            modality.substitutes,
            modality.consensus,
            modality.scaling,
            modality.percentiles,
            modality.window,
            classes,
            preparation.slice_size,
            accept_implausible,
            preparation.spacing_mm,
            modality.scaling_over,
            preparation.patch,
            preparation.neighbours,
        )

    def volume_shape(self, image: Volume) -> Grid:
        """Voxels along i, j, k that a canonical image has once it is resampled.

        Raises:
            DataError: its voxel size is unknown, or there would be too many.
        """
        if not image.spacing_known:
            raise DataError(
                "The images hold no voxel size, as is usual for PNG and TIFF; expected one, to resample the "
                "volume by. Convert them to NIfTI with their voxel size, or train on slices."
            )
        return target_shape(image.grid, image.spacing_mm, cast(Spacing, self.spacing_mm))

    def check_plausible(self, found: plausibility.Look) -> None:
        """Check that an image may be what it is said to be.

        Raises:
            DataError: it may not; the first reason.
        """
        doubts = plausibility.doubts(found, self.scaling == "window")
        refused = [doubt.text for doubt in doubts if doubt.refused]
        if refused and not self.accept_implausible:
            raise DataError(f"{refused[0]} If it is right all the same, add --accept-implausible.")

    def channels_of(self, case: Case) -> list[str]:
        """The channels to read for each network channel, with substitutes.

        Raises:
            DataError: a channel is missing and may not be substituted.
        """
        try:
            return choose_channels(list(case.images), self.wanted, self.missing, self.substitutes)
        except DataError as error:
            raise DataError(f"Case {case.id}: {error}") from error

    def substituted(self, case: Case) -> dict[str, str]:
        """Missing channel → the one read in its place.

        Raises:
            DataError: a channel is missing and may not be substituted.
        """
        chosen = zip(self.wanted, self.channels_of(case), strict=True)
        return {wanted: used for wanted, used in chosen if wanted != used}

    def key(self, case: Case, hashes: FileHashes) -> str:
        """The case's name in the store: a hash of all that decides its content."""
        stored = _distinct(self.channels_of(case))
        images = {name: _ref_key(case.images[name], hashes) for name in stored if name != ZEROS}
        used = self._used()
        truth = {
            "masks": [_ref_key(ref, hashes) for ref in case.masks],
            "labels": sorted(case.labels.items()),
            "classes": list(self.classes.items()),
            "consensus": self.consensus if len(case.masks) > 1 else None,
            **rule_of(len(self.classes)),
        }
        everything = [PREPARATION_VERSION, stored, images, used, truth]
        if case.id in self.boxes:
            everything.append(self.boxes[case.id])
        return sha256_of_json(everything)[:32]

    def _used(self) -> dict[str, Any]:
        """What of the settings decides the voxels."""
        used: dict[str, Any] = {
            "scaling": self.scaling,
            "percentiles": self.percentiles if self.scaling.endswith("-percentile") else None,
            "window": self.window if self.scaling == "window" else None,
        }
        over = {"over": self.scaling_over} if self.by_volume else {}
        if self.spacing_mm is None:
            return used | over | {"size": self.size}
        return used | over | {"volumes": VOLUME_VERSION, "spacing_mm": self.spacing_mm}

    @property
    def by_volume(self) -> bool:
        """Whether the whole volume has to be looked at before a slice of it can be scaled."""
        return self.scaling.startswith("volume-")

    def ranges(self, seen: Intensities) -> list[Range]:
        """What becomes 0 and 1 in each channel of a volume."""
        return seen.ranges(self.scaling, self.percentiles, self.window, self.scaling_over)

    def slices(self, voxels: np.ndarray, ranges: Sequence[Range]) -> Tensor:
        """Canonical voxels `c i j k` as the network's slices `k c h w` in [0, 1].

        Args:
            voxels: whole axial slices.
            ranges: of each channel, where scaling goes by the volume; else not looked at.
        """
        if self.by_volume:
            return resize_slices(to_slices(scale_voxels(voxels, ranges)), self.size)
        return prepare_slices(voxels, self.size, self.scaling, self.percentiles, self.window)

    def opened(self, case: Case, folder: Path) -> Prepared:
        """A case that lies in the store.

        Raises:
            DataError: a channel is missing and may not be substituted.
        """
        order = _order(self.channels_of(case))
        if self.spacing_mm is None:
            return PreparedCase(case.id, case.patient, folder, order, case.site, case.target, self.neighbours)
        patch = self.patch or UNPLANNED_PATCH
        more = case.site, case.target, self.margin
        return PreparedVolume(case.id, case.patient, folder, order, patch, *more)


def prepare(
    cases: Sequence[Case],
    settings: Settings,
    store: Path,
    *,
    workers: int | None = None,
    memory_gib: float | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
    without_masks: bool = False,
) -> list[Prepared]:
    """Prepare every case that the store does not hold yet, or no longer as a whole.

    Ctrl-C or a failure keeps the cases that are done; running it again goes on from there.

    Args:
        cases: with masks, see `without_masks`.
        settings: see `Settings.of`.
        store: folder of the prepared store; made if it is not there.
        workers: processes; None for one per processor, 0 for none besides this one.
        memory_gib: bound on the memory of all workers together; None for half of what is free, at
            most `processes.LARGEST_SHARE_GIB`.
        progress: called with (cases done, cases in all).
        spread: where the cases are prepared, such as on a cluster; None for this machine.
        without_masks: take cases without a mask, too; what is prepared of them holds an empty one.

    Returns:
        The prepared cases, in the order of `cases`.

    Raises:
        DataError: some cases cannot be prepared; names the first and how many. The others are kept.
        RunError: the store cannot be written.
    """
    check_classes([case.labels for case in cases if case.masks], settings.classes)
    hashes = FileHashes(existing_folder(store))
    folders, failures = _plan(cases, settings, store, hashes, without_masks)
    hashes.save()
    todo = _missing(cases, folders)
    try:
        failures += _build_all(todo, settings, workers, memory_gib, len(cases), progress, spread)
    finally:
        for parent in {folder.parent for folder in todo}:
            remove_leftovers(parent)  # of workers that were killed
    if failures:
        raise failed_cases(failures, len(cases), "prepared; the others are kept in the store")
    return [
        settings.opened(case, folder)
        for case, folder in zip(cases, folders, strict=True)
        if folder is not None
    ]


def _plan(
    cases: Sequence[Case], settings: Settings, store: Path, hashes: FileHashes, without_masks: bool
) -> tuple[list[Path | None], list[str]]:
    folders: list[Path | None] = []
    failures = []
    for case in cases:
        try:
            if not case.masks and not without_masks:
                raise DataError(
                    f"Case {case.id} has no mask; expected one to learn from. Add it, or leave the case out."
                )
            key = settings.key(case, hashes)
            folders.append(store / key[:2] / key)
        except DataError as error:
            failures.append(str(error))
            folders.append(None)
    return folders, failures


def _missing(cases: Sequence[Case], folders: Sequence[Path | None]) -> dict[Path, Case]:
    """The folders to build; damaged ones are deleted, as they would stay in place of the new ones."""
    todo = {}
    for case, folder in zip(cases, folders, strict=True):
        if folder is None:
            continue
        if folder.exists() and not is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            todo[folder] = case
    return todo


def _build_all(
    todo: Mapping[Path, Case],
    settings: Settings,
    workers: int | None,
    memory_gib: float | None,
    total: int,
    progress: Progress | None,
    spread: Spread | None,
) -> list[str]:
    """Build the missing folders; the messages of those that failed."""
    done = total - len(todo)
    notify = progress or (lambda done, total: None)
    notify(done, total)
    if not todo:
        return []
    build = partial(_build_or_explain, settings)
    if spread is not None:
        results = spread(build, list(todo.items()), _worker_gib(todo.values()))
    else:
        count = _workers_within(workers, memory_gib, todo.values())
        results = run_each(build, todo.items(), count, "preparing", _limit_threads)
    failures = []
    for failure in results:
        if failure is not None:
            failures.append(failure)
        done += 1
        notify(done, total)
    return failures


def _limit_threads() -> None:
    import torch

    torch.set_num_threads(1)


def _build_or_explain(settings: Settings, item: tuple[Path, Case]) -> str | None:
    folder, case = item
    try:
        build_case(case, settings, folder)
    except RunError:
        raise
    except OncosegError as error:
        return f"Case {case.id}: {error}"
    return None


def build_case(case: Case, settings: Settings, folder: Path) -> None:
    """Read one case and write its folder, atomically.

    Raises:
        DataError: unreadable, unfit or implausible images or masks.
        RunError: the store cannot be written.
    """
    stored = _distinct(settings.channels_of(case))
    read = [name for name in stored if name != ZEROS]
    image = io.read_channels({name: case.images[name] for name in read})
    channels = zip(read, image.array, strict=True)
    check_contrast({name: (voxels.min(), voxels.max()) for name, voxels in channels})
    look = plausibility.look(image, dict(zip(read, image.array, strict=True)))
    settings.check_plausible(look)
    mask = read_truth(case, settings, image)
    image, _ = to_canonical(image)
    if (box := settings.boxes.get(case.id)) is not None:
        image, mask = cropped(image, box), mask[slices_of(box)]
    write = _write_slices if settings.spacing_mm is None else _write_volume
    with atomic_folder(folder) as temporary:
        writer = write(temporary, settings, image, mask, read, stored)
        writer.finish(channels=stored, source_grid=image.grid, look=look.as_json())


def _write_slices(
    folder: Path, settings: Settings, image: Volume, mask: np.ndarray, read: list[str], stored: list[str]
) -> SliceWriter:
    """Write canonical voxels and class indices as slices, all but the description."""
    ranges = _ranges(settings, image, read, stored) if settings.by_volume else []
    writer = SliceWriter(folder, image.grid[2], len(stored), settings.size)
    for start in range(0, image.grid[2], SLAB):
        slab = slice(start, start + SLAB)
        voxels = _with_zeros(image.array[..., slab], read, stored)
        slices = settings.slices(voxels, ranges)
        writer.append(slices, resize_labels(mask[..., slab], len(settings.classes), settings.size))
    return writer


def _write_volume(
    folder: Path, settings: Settings, image: Volume, mask: np.ndarray, read: list[str], stored: list[str]
) -> VolumeWriter:
    """Write canonical voxels and class indices as a volume, all but the description."""
    shape = settings.volume_shape(image)
    ranges = _ranges(settings, image, read, stored)
    writer = VolumeWriter(folder, len(stored), shape)
    for start in range(0, shape[2], SLAB):
        stop = min(start + SLAB, shape[2])
        needed = needed_slices(image.grid[2], shape[2], start, stop)
        scaled = scale_voxels(_with_zeros(image.array[..., needed], read, stored), ranges)
        labels = resample_labels_slab(
            mask[..., needed], len(settings.classes), image.grid[2], shape, start, stop
        )
        writer.append(resample_slab(scaled, image.grid[2], shape, start, stop), labels)
    return writer


def _ranges(settings: Settings, image: Volume, read: list[str], stored: list[str]) -> list[Range]:
    """What becomes 0 and 1 in each stored channel of a canonical volume."""
    seen = Intensities(image.grid)
    for start in range(0, image.grid[2], SLAB):
        seen.add(_with_zeros(image.array[..., start : start + SLAB], read, stored))
    return settings.ranges(seen)


def read_truth(case: Case, settings: Settings, image: Volume) -> np.ndarray:
    """The case's class indices, canonical `i j k`: the readers' consensus, its labels merged.

    Of a case without a mask all are 0.

    Raises:
        GeometryError: a mask on another grid than the images.
        DataError: label values outside the declared set.
    """
    if not case.masks:
        return np.zeros(to_canonical(image)[0].grid, np.uint8)
    masks = {f"mask {number}": io.read(ref) for number, ref in enumerate(case.masks)}
    check_same_grid({"image": image, **masks})
    merged = [merge_labels(mask.array[0], case.labels, settings.classes) for mask in masks.values()]
    agreed = consensus(merged, settings.consensus)
    canonical, _ = to_canonical(image.with_array(agreed[None]))
    truth: np.ndarray = canonical.array[0]
    return truth


def source_bytes(case: Case) -> int:
    """Size of a case's images in memory, from the files' headers; 0 if they cannot be read."""
    distinct: set[ImageRef] = set(case.images.values())
    try:
        return sum(io.voxel_bytes(ref) for ref in distinct)
    except DataError:
        return 0  # building the case will say what is wrong with it


def _workers_within(workers: int | None, memory_gib: float | None, cases: Collection[Case]) -> int:
    """Processes that fit the memory bound, at least one; 0 if none were asked for."""
    return processes_within(workers, memory_gib, _worker_gib(cases), len(cases))


def _worker_gib(cases: Collection[Case]) -> float:
    """Memory that a process needs for the largest of some cases."""
    largest = max(source_bytes(case) for case in cases) / 2**30
    return MEMORY_PER_WORKER_GIB + SOURCE_COPIES * largest


def _with_zeros(voxels: np.ndarray, read: Sequence[str], stored: Sequence[str]) -> np.ndarray:
    if ZEROS not in stored:
        return voxels
    empty = np.zeros_like(voxels[:1])
    return np.concatenate([empty if n == ZEROS else voxels[read.index(n)][None] for n in stored])


def _distinct(channels: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(channels))


def _order(channels: Sequence[str]) -> tuple[int, ...]:
    stored = _distinct(channels)
    return tuple(stored.index(channel) for channel in channels)


def _ref_key(ref: ImageRef, hashes: FileHashes) -> list[Any]:
    if ref.grid_of:
        return [ref.structures, hashes.of(ref.files), hashes.of(ref.grid_of)]
    return [ref.component, *hashes.of(ref.files)]
