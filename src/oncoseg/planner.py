"""Voxel size, patch, depth, width and batch of a 3D network, from a data set's headers and the memory.

In the spirit of Isensee et al. 2021 (nnU-Net), methods, "Rule-based parameters"; the rules are stated where
they are applied, and the code is our own. Each choice says why in one line; a choice that the user made is
kept, and the others follow from it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from oncoseg.fingerprint import Fingerprint, Grid, Spacing
from oncoseg.limits import GIB
from oncoseg.resampling import target_shape

ANISOTROPIC = 3.0
"""Ratio of the coarsest to the finest voxel side from which on images are anisotropic (nnU-Net's)."""

COARSE_PERCENTILE = 10.0
"""Of the voxel sizes along the coarsest axis of anisotropic images (nnU-Net's)."""

SMALLEST_MAP = 4
"""Voxels that no axis falls below by pooling (nnU-Net's)."""

POOLED_RATIO = 2.0
"""An axis whose voxels are at least so many times as large as the finest is not pooled yet (nnU-Net's)."""

MOST_STEPS = 5
"""Pooling steps at most; nnU-Net reaches five with its largest patches."""

MOST_FEATURES = 320
"""Channels of a stage at most (nnU-Net's, in 3D)."""

WIDTHS = (32, 16, 8)
"""Channels of the first stage, the wanted ones first; narrower ones where memory is short."""

ENOUGH_VOXELS = 64**3
"""A patch of so many voxels sees enough around a lesion: rather a narrower network than a smaller one."""

LEAST_VOXELS = 32**3
"""A planned patch of fewer voxels sees too little around a lesion, unless the images are small themselves."""

LEAST_SHARE = 1 / 8
"""Of a small median image's voxels: half of it along each axis."""

SMALLEST_BATCH = 2
"""Patches in a batch (nnU-Net's)."""

DATA_SHARE = 0.05
"""Of all voxels of the data set, what a batch holds at most, unless it is the smallest (nnU-Net's)."""

AXES = ("right", "anterior", "superior")

Strides = tuple[Grid, ...]
"""Pooling factors along right, anterior, superior of each step."""

UNKNOWN_STRIDES: Strides = ((2, 2, 2),) * MOST_STEPS
"""Of networks whose depth cannot be chosen: what all that we know divide by."""


class Shape(NamedTuple):
    """What a network sees and how it is built."""

    patch: Grid
    strides: Strides
    features: tuple[int, ...]


MemoryOf = Callable[[Shape, int], float]
"""Bytes of a training step, for a shape and a batch size."""

Given = Mapping[str, Any]
"""Setting → value, of those that the user chose."""


class Choice(NamedTuple):
    """One planned setting.

    Attributes:
        name: `spacing_mm`, `patch`, `strides`, `features` or `batch_size`.
        value: what was chosen.
        why: in one line.
    """

    name: str
    value: Any
    why: str


def plan(
    fingerprint: Fingerprint, memory_of: MemoryOf, memory_bytes: float, given: Given, modalities: int = 1
) -> tuple[Choice, ...]:
    """Choose the settings of a 3D network.

    Args:
        fingerprint: of the data.
        memory_of: what a training step takes.
        memory_bytes: what there is.
        given: the user's own choices by name, which are kept.
        modalities: that share a batch equally.

    Returns:
        A choice of each name, in the order of `Choice.name`.
    """
    spacing = _spacing(fingerprint, given)
    median = median_grid(fingerprint, spacing.value)
    smallest = modalities * math.ceil(SMALLEST_BATCH / modalities)
    batch = given.get("batch_size", smallest)
    for width in WIDTHS:
        shapes = list(_shapes(median, spacing.value, width, given))
        first = bisect_left(
            shapes, True, key=lambda shape: memory_of(shape, batch) <= memory_bytes, hi=len(shapes) - 1
        )
        shape = shapes[first]
        enough = math.prod(shape.patch) >= min(ENOUGH_VOXELS, math.prod(median)) or "patch" in given
        if "features" in given or (enough and memory_of(shape, batch) <= memory_bytes):
            break
    if first == 0 and "batch_size" not in given:
        most = DATA_SHARE * _voxels(fingerprint, spacing.value) / math.prod(shape.patch)
        while batch + modalities <= most and memory_of(shape, batch + modalities) <= memory_bytes:
            batch += modalities
    taken = _in_words(memory_of(shape, batch), memory_bytes)
    return (
        spacing,
        Choice("patch", shape.patch, _why_patch(shape, median, taken, given)),
        Choice("strides", shape.strides, _why_strides(shape, given)),
        Choice("features", shape.features, _why_features(shape, given)),
        Choice("batch_size", batch, _why_batch(batch, smallest, first == 0, given)),
    )


def is_too_small(patch: Sequence[int], median: Sequence[int]) -> bool:
    """Whether a network would learn next to nothing from patches of this size."""
    return math.prod(patch) < min(LEAST_VOXELS, LEAST_SHARE * math.prod(median))


def median_grid(fingerprint: Fingerprint, spacing_mm: Spacing) -> Grid:
    """The median number of voxels along each axis, after resampling to a voxel size."""
    i, j, k = np.rint(np.median(_grids(fingerprint, spacing_mm), axis=0)).astype(int).tolist()
    return i, j, k


def pooling(patch: Grid, spacing_mm: Spacing, most_steps: int = MOST_STEPS) -> Strides:
    """Which axes each step pools by 2: at least one step.

    An axis is pooled while `SMALLEST_MAP` voxels are left of it, and its voxels are less than `POOLED_RATIO`
    times as large as the finest among the axes that can be pooled.
    """
    sizes, spacing = np.array(patch, float), np.array(spacing_mm)
    steps: list[Grid] = []
    while len(steps) < most_steps:
        large = sizes >= 2 * SMALLEST_MAP
        if not large.any():
            break
        pooled = large & (spacing < POOLED_RATIO * spacing[large].min())
        factors = np.where(pooled, 2, 1)
        sizes, spacing = sizes / factors, spacing * factors
        i, j, k = factors.tolist()
        steps.append((i, j, k))
    return tuple(steps) or ((1, 1, 1),)


def divisors(strides: Strides) -> Grid:
    """What a patch's sides must be multiples of."""
    i, j, k = np.prod(strides, axis=0).tolist()
    return i, j, k


def _spacing(fingerprint: Fingerprint, given: Given) -> Choice:
    count = len(fingerprint.grids)
    low, high = (fingerprint.spacing_percentile_mm(percentile) for percentile in (0, 100))
    spread = " × ".join(_range(*ends) for ends in zip(low, high, strict=True))
    seen = f"of {count} image{'' if count == 1 else 's'} of {spread} mm"
    if "spacing_mm" in given:
        return Choice("spacing_mm", tuple(given["spacing_mm"]), f"your choice, for the voxels {seen}")
    wanted = list(fingerprint.spacing_percentile_mm(50))
    why = f"median {seen}"
    axis = int(np.argmax(wanted))
    ratio = wanted[axis] / min(wanted)
    if ratio > ANISOTROPIC:
        others = max(size for other, size in enumerate(wanted) if other != axis)
        wanted[axis] = max(fingerprint.spacing_percentile_mm(COARSE_PERCENTILE)[axis], others)
        why += (
            f"; along {AXES[axis]} the {COARSE_PERCENTILE:g}th percentile, as its median is {ratio:.1f} "
            "times the finest"
        )
    i, j, k = (float(f"{size:.4g}") for size in wanted)
    return Choice("spacing_mm", (i, j, k), why)


def _shapes(median: Grid, spacing_mm: Spacing, width: int, given: Given) -> Iterator[Shape]:
    """Patches from the whole median image down, with its aspect ratio as far as pooling allows."""
    sizes = np.array(given.get("patch", median))
    covering = True
    while True:
        strides = _strides(_grid(sizes), spacing_mm, given)
        parts = np.array(divisors(strides))
        if "patch" not in given:
            # the first covers the image; those that follow must become smaller
            sizes = np.maximum(1, np.ceil(sizes / parts) if covering else sizes // parts).astype(int) * parts
        yield Shape(_grid(sizes), strides, _features(width, len(strides), given))
        covering = False
        can = sizes >= 2 * np.maximum(parts, SMALLEST_MAP)
        if "patch" in given or not can.any():
            return
        axis = int(np.argmax(np.where(can, sizes / np.array(median), 0)))
        sizes[axis] -= parts[axis]


def _strides(patch: Grid, spacing_mm: Spacing, given: Given) -> Strides:
    if "strides" in given:
        return _given_strides(given["strides"])
    if "features" not in given:
        return pooling(patch, spacing_mm)
    wanted = len(given["features"]) - 1
    found = pooling(patch, spacing_mm, wanted)
    return found + ((1, 1, 1),) * (wanted - len(found))


def _given_strides(strides: Sequence[int | Sequence[int]]) -> Strides:
    """A step may be one factor for all axes."""
    return tuple(_grid((step,) * 3 if isinstance(step, int) else step) for step in strides)


def _features(width: int, steps: int, given: Given) -> tuple[int, ...]:
    if "features" in given:
        return tuple(given["features"])
    return tuple(min(width * 2**step, MOST_FEATURES) for step in range(steps + 1))


def _why_patch(shape: Shape, median: Grid, taken: str, given: Given) -> str:
    if "patch" in given:
        return f"your choice; a step takes {taken}"
    shares = " × ".join(f"{min(1, side / size):.0%}" for side, size in zip(shape.patch, median, strict=True))
    size, parts = (" × ".join(map(str, each)) for each in (median, divisors(shape.strides)))
    return f"{shares} of the median image, {size} voxels; divides by {parts}; a step takes {taken}"


def _why_strides(shape: Shape, given: Given) -> str:
    if "strides" in given:
        return "your choice"
    smallest = " × ".join(
        f"{side / part:g}" for side, part in zip(shape.patch, divisors(shape.strides), strict=True)
    )
    return (
        f"{len(shape.strides)} steps: an axis is halved while {SMALLEST_MAP} voxels are left and its voxels "
        f"are not {POOLED_RATIO:g} times the finest; {smallest} at the bottom"
    )


def _why_features(shape: Shape, given: Given) -> str:
    if "features" in given:
        return "your choice"
    width = shape.features[0]
    doubling = f"doubled at each step, at most {MOST_FEATURES}"
    if width == WIDTHS[0]:
        return f"{width} at first, {doubling}"
    wider = WIDTHS[WIDTHS.index(width) - 1]
    return f"{width} at first, as {wider} leave no memory for a large enough patch; {doubling}"


def _why_batch(batch: int, smallest: int, covers: bool, given: Given) -> str:
    if "batch_size" in given:
        return "your choice"
    if batch > smallest:
        return (
            f"what memory is left for, as a patch covers the median image; at most {DATA_SHARE:.0%} of all "
            "voxels"
        )
    if covers:
        return f"the smallest: more do not fit, or would be over {DATA_SHARE:.0%} of all voxels"
    return "the smallest, as a larger patch is worth more than more of them"


def _in_words(taken: float, there: float) -> str:
    word = "of" if taken <= there else "and so does not fit into"
    return f"{taken / GIB:.1f} {word} {there / GIB:.1f} GiB"


def _range(low: float, high: float) -> str:
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}–{high:.3g}"


def _grids(fingerprint: Fingerprint, spacing_mm: Spacing) -> list[Grid]:
    pairs = zip(fingerprint.grids, fingerprint.spacings_mm, strict=True)
    return [target_shape(grid, of_image, spacing_mm) for grid, of_image in pairs]


def _voxels(fingerprint: Fingerprint, spacing_mm: Spacing) -> int:
    return sum(math.prod(grid) for grid in _grids(fingerprint, spacing_mm))


def _grid(sizes: Sequence[int] | np.ndarray) -> Grid:
    i, j, k = (int(size) for size in sizes)
    return i, j, k
