"""Synthetic lung CT with nodules and four readers, in the layout of the slices of LIDC-IDRI.

A chest is made in Hounsfield units, then cropped around each nodule as the public 128×128 PNG
slices are. LIDC-IDRI: Armato et al., 2011, https://doi.org/10.1118/1.3528204.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from oncoseg.phantom import nodule as nodules
from oncoseg.phantom.folder import Progress, write_cases
from oncoseg.phantom.nodule import Nodule
from oncoseg.phantom.shapes import Axes
from oncoseg.phantom.thorax import AIR, Chest, draw_chest, hounsfield, locate

NUMBERS = range(9000, 10000)
"""Patient numbers that no patient of LIDC-IDRI has."""

CROP = 128
"""Pixels along both sides of a slice."""

MOST_NODULES = 3
"""A patient has one to so many nodules."""

PIXEL_MM = (0.58, 0.82)
"""Smallest and largest pixel."""

SLICE_MM = (1.0, 1.25, 1.25, 2.0, 2.5, 2.5, 3.0)
"""Distances of slices to choose from."""

OFF_CENTRE_PIXELS = 4.0
"""Standard deviation of a nodule's distance from the middle of its crop, along both axes."""

FARTHEST_PIXELS = 14.0
"""Largest distance of a nodule from the middle of its crop, along both axes."""

SEARCH_MM = 6.0
"""Grid on which places for nodules are sought."""

SEARCH_LOW, SEARCH_HIGH = (-132, -96, -84), (132, 96, 150)
"""Box in which places for nodules are sought, in millimetres."""


@dataclass(frozen=True)
class Scanner:
    """How one patient was scanned.

    Attributes:
        pixel_mm: distance of pixels.
        slice_mm: distance of slices.
        blur_pixels: standard deviation of the point spread in a slice.
        noise_hu: standard deviation of noise.
        grain_pixels: standard deviation of the noise's own blur.
    """

    pixel_mm: float
    slice_mm: float
    blur_pixels: float
    noise_hu: float
    grain_pixels: float


@dataclass(frozen=True, eq=False)
class NoduleCrop:
    """One nodule's slices.

    Attributes:
        kind: of the nodule, a key of `oncoseg.phantom.nodule.KINDS`.
        hu: Hounsfield units, float32 `i j k`; i to the patient's left, j backwards.
        masks: each reader's mask, bool `r i j k`.
    """

    kind: str
    hu: np.ndarray
    masks: np.ndarray


def make_lung_ct(out: Path, cases: int, seed: int, progress: Progress | None = None) -> None:
    """Write synthetic patients as `LIDC-IDRI-9XXX/nodule-N/{images,mask-0,…,mask-3}/slice-K.png`.

    Images and masks are 8-bit, 128×128; each image is scaled from its own darkest to its own brightest
    pixel, masks are 0 or 255. A reader has a mask for every slice, black where nothing was marked.

    Args:
        out: a new or empty folder.
        cases: how many patients, 1 to 1000; each has one to three nodules.
        seed: 0 or more; equal seeds give equal pixels.
        progress: called with the number done and the number asked for.

    Raises:
        RecipeError: a number is out of range.
        RunError: `out` is not empty or cannot be written.
    """
    write_cases(out, "lung-ct", cases, seed, NUMBERS, "LIDC-IDRI-{}", _write_case, progress)


def synthesise(rng: np.random.Generator) -> list[NoduleCrop]:
    """Draw one patient and all crops around the nodules."""
    chest = draw_chest(rng)
    scanner = _draw_scanner(rng)
    x, y, z = (np.arange(a, b, SEARCH_MM) for a, b in zip(SEARCH_LOW, SEARCH_HIGH, strict=True))
    coarse = (x, y, z)
    lungs = locate(chest, coarse)
    drawn: list[Nodule] = []
    for _ in range(rng.integers(1, MOST_NODULES + 1)):
        drawn.append(nodules.draw_nodule(rng, lungs, coarse, drawn, 0.75 * CROP * scanner.pixel_mm))
    return [_crop(rng, chest, scanner, nodule) for nodule in drawn]


def _draw_scanner(rng: np.random.Generator) -> Scanner:
    return Scanner(
        pixel_mm=rng.uniform(*PIXEL_MM),
        slice_mm=float(rng.choice(SLICE_MM)),
        blur_pixels=rng.uniform(0.4, 0.9),
        noise_hu=float(np.exp(rng.uniform(np.log(8), np.log(45)))),
        grain_pixels=rng.uniform(0.4, 0.9),
    )


def _crop(rng: np.random.Generator, chest: Chest, scanner: Scanner, nodule: Nodule) -> NoduleCrop:
    """Slices from the first to the last that a reader marked."""
    axes = _draw_axes(rng, scanner, nodule)
    distance = nodules.distance_mm(nodule, axes)
    masks = nodules.outline(rng, nodule, distance, locate(chest, axes).lung, axes)
    marked = np.flatnonzero(masks.any(axis=(0, 1, 2)))
    kept = slice(marked[0], marked[-1] + 1)
    axes = (axes[0], axes[1], axes[2][kept])
    share = nodules.share(nodule, distance[..., kept], axes)
    hu = hounsfield(chest, axes, scanner.pixel_mm, share, nodule.hu)
    return NoduleCrop(nodule.kind, add_noise(rng, scanner, hu), masks[..., kept])


def _draw_axes(rng: np.random.Generator, scanner: Scanner, nodule: Nodule) -> Axes:
    """Positions of the crop's voxels, with slices somewhat beyond the nodule on both sides."""
    shift = np.clip(rng.normal(0, OFF_CENTRE_PIXELS, 2), -FARTHEST_PIXELS, FARTHEST_PIXELS)
    across = np.arange(CROP) - (CROP - 1) / 2
    x, y = (c + scanner.pixel_mm * (across + s) for c, s in zip(nodule.centre[:2], shift, strict=True))
    count = int(np.ceil((1.5 * nodule.radius + 2) / scanner.slice_mm))
    z = nodule.centre[2] + scanner.slice_mm * (np.arange(-count, count + 1) + rng.uniform(-0.25, 0.25))
    return x, y, z


def add_noise(rng: np.random.Generator, scanner: Scanner, hu: np.ndarray) -> np.ndarray:
    """Blur and noise of the scanner."""
    blurred = ndimage.gaussian_filter(hu, (scanner.blur_pixels, scanner.blur_pixels, 0))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (scanner.grain_pixels, scanner.grain_pixels, 0))
    scanned: np.ndarray = np.maximum(blurred + noise * np.float32(scanner.noise_hu / noise.std()), AIR - 24)
    return scanned


def _write_case(folder: Path, name: str, rng: np.random.Generator) -> None:
    for number, crop in enumerate(synthesise(rng)):
        stacks = {"images": _to_bytes(crop.hu)}
        stacks |= {f"mask-{reader}": np.uint8(255) * mask for reader, mask in enumerate(crop.masks)}
        for kind, stack in stacks.items():
            target = folder / f"nodule-{number}" / kind
            target.mkdir(parents=True)
            for k in range(stack.shape[2]):
                Image.fromarray(np.ascontiguousarray(stack[..., k].T)).save(target / f"slice-{k}.png")


def _to_bytes(hu: np.ndarray) -> np.ndarray:
    """Each slice from its own darkest to its own brightest pixel as 0 to 255, as in the public slices."""
    low, high = hu.min(axis=(0, 1)), hu.max(axis=(0, 1))
    scaled: np.ndarray = np.rint((hu - low) / (high - low) * 255).astype(np.uint8)
    return scaled
