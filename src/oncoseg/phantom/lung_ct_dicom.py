"""Synthetic chest CT with nodules as LIDC-IDRI is downloaded: DICOM slices, and an XML file of four readers.

LIDC-IDRI: Armato et al., 2011, https://doi.org/10.1118/1.3528204.
"""

from pathlib import Path

import numpy as np

from oncoseg.files import write_text
from oncoseg.phantom import nodule as nodules
from oncoseg.phantom.dicom_files import Scan, write_series
from oncoseg.phantom.folder import Progress, write_cases
from oncoseg.phantom.lidc_xml import Mark, write_readings
from oncoseg.phantom.lung_ct import NUMBERS, SEARCH_HIGH, SEARCH_LOW, SEARCH_MM, Scanner, add_noise
from oncoseg.phantom.nodule import Nodule
from oncoseg.phantom.shapes import Axes
from oncoseg.phantom.thorax import Chest, draw_chest, hounsfield, locate

PIXELS, SLICE_MM = 256, 2.5
"""Pixels along both sides of a slice, half of a real one's; and the distance of slices."""

WIDTH_MM = (330.0, 380.0)
"""Smallest and largest field of view."""

PLACE_MM = 2.0**-10
"""Lengths are multiples of it, which DICOM's decimals and NIfTI's single precision both hold exactly."""

BEYOND_MM = 15.0
"""The scan goes on so far above and below the nodules."""

MOST_NODULES = 3
"""A patient has one to so many nodules of 3 mm or more."""

SLAB = 16
"""Slices that are made at a time, which bounds memory."""

CHANCE_OF_SMALL, CHANCE_OF_OTHER = 0.5, 0.5
"""Chances that a reader marks a nodule under 3 mm, and something that is no nodule."""


def make_lung_ct_dicom(out: Path, cases: int, seed: int, progress: Progress | None = None) -> None:
    """Write synthetic patients as `LIDC-IDRI-9XXX/CT/1-001.dcm` and so on, with `readings.xml` among them.

    Four readers outline the nodules of 3 mm or more, each in their own way, and rate them; a reader may
    miss one. Some also mark a point as a smaller nodule, or as no nodule.

    Args:
        out: a new or empty folder.
        cases: how many patients, 1 to 1000; each has one to three nodules.
        seed: 0 or more; equal seeds give equal files.
        progress: called with the number done and the number asked for.

    Raises:
        RecipeError: a number is out of range.
        RunError: `out` is not empty or cannot be written.
    """

    def write_case(folder: Path, name: str, rng: np.random.Generator) -> None:
        _write_case(folder, name, rng, seed)

    write_cases(out, "lung-ct-dicom", cases, seed, NUMBERS, "LIDC-IDRI-{}", write_case, progress)


def _write_case(folder: Path, name: str, rng: np.random.Generator, seed: int) -> None:
    chest = draw_chest(rng)
    found = _draw_nodules(rng, chest)
    axes = _draw_axes(rng, found)
    spacing = tuple(float(axis[1] - axis[0]) for axis in axes)
    scanner = Scanner(
        spacing[0], spacing[2], rng.uniform(0.4, 0.9), rng.uniform(8, 30), rng.uniform(0.4, 0.9)
    )
    readers, hu = _read(rng, chest, found, axes), _image(rng, chest, found, axes, scanner)
    key = "lung-ct-dicom", name, str(seed)
    scan = Scan("CT", "CHEST", name, key, attributes={"BodyPartExamined": "CHEST"})
    series = folder / "CT"
    series.mkdir()
    uids = write_series(series, scan, hu, spacing, [float(axis[0]) for axis in axes])
    text = write_readings(readers, uids, [float(z) for z in axes[2]], scan.uid("series", scan.number))
    write_text(series / "readings.xml", text)


def _draw_nodules(rng: np.random.Generator, chest: Chest) -> list[Nodule]:
    x, y, z = (np.arange(a, b, SEARCH_MM) for a, b in zip(SEARCH_LOW, SEARCH_HIGH, strict=True))
    lungs = locate(chest, (x, y, z))
    drawn: list[Nodule] = []
    for _ in range(rng.integers(1, MOST_NODULES + 1)):
        drawn.append(nodules.draw_nodule(rng, lungs, (x, y, z), drawn, 40.0))
    return drawn


def _draw_axes(rng: np.random.Generator, found: list[Nodule]) -> Axes:
    """The whole chest across, and along it what the nodules need."""
    pixel_mm = _whole(rng.uniform(*WIDTH_MM) / PIXELS, PLACE_MM)
    across = (np.arange(PIXELS) - (PIXELS - 1) / 2) * pixel_mm
    low = min(nodule.centre[2] - 2 * nodule.radius for nodule in found) - BEYOND_MM
    high = max(nodule.centre[2] + 2 * nodule.radius for nodule in found) + BEYOND_MM
    return across, across, np.arange(_whole(low, PLACE_MM), high, SLICE_MM)


def _whole(value: float, step: float) -> float:
    return round(value / step) * step


def _image(
    rng: np.random.Generator, chest: Chest, found: list[Nodule], axes: Axes, scanner: Scanner
) -> np.ndarray:
    """Hounsfield units, int16 `i j k`."""
    hu = np.empty([len(axis) for axis in axes], np.int16)
    for start in range(0, len(axes[2]), SLAB):
        slab = (axes[0], axes[1], axes[2][start : start + SLAB])
        share = np.zeros([len(axis) for axis in slab], np.float32)
        value = np.zeros_like(share)
        for nodule in found:
            filled = nodules.share(nodule, nodules.distance_mm(nodule, slab), slab)
            value = np.where(filled > share, np.float32(nodule.hu), value)
            share = np.maximum(share, filled)
        clean = hounsfield(chest, slab, scanner.pixel_mm, share, value)
        hu[..., start : start + SLAB] = np.rint(np.clip(add_noise(rng, scanner, clean), -1024, 3071))
    return hu


def _read(rng: np.random.Generator, chest: Chest, found: list[Nodule], axes: Axes) -> list[list[Mark]]:
    """Every reader's marks."""
    readers: list[list[Mark]] = [[] for _ in nodules.READERS]
    for number, nodule in enumerate(found):
        part = _around(nodule, axes)
        near = axes[0][part[0]], axes[1][part[1]], axes[2][part[2]]
        masks = nodules.outline(
            rng, nodule, nodules.distance_mm(nodule, near), locate(chest, near).lung, near
        )
        for reader, mask in enumerate(masks):
            whole = np.zeros([len(axis) for axis in axes], bool)
            whole[part] = mask
            slices = {int(k): whole[..., k] for k in np.flatnonzero(whole.any(axis=(0, 1)))}
            if slices:
                name = f"Nodule {reader + 1}{number + 1:02}"
                readers[reader].append(Mark(name, slices, _rate(rng, nodule)))
    for marks in readers:
        for chance, nodule_marked in ((CHANCE_OF_SMALL, True), (CHANCE_OF_OTHER, False)):
            if rng.uniform() < chance:
                marks.append(Mark(f"Point {len(marks) + 1}", _draw_point(rng, axes), {}, nodule_marked))
    return readers


def _rate(rng: np.random.Generator, nodule: Nodule) -> dict[str, int]:
    """One reader's impression: 1 to 5 each, calcification to 6."""

    def about(value: float) -> int:
        return int(np.clip(round(value + rng.normal(0, 0.7)), 1, 5))

    spiculated, solid = nodule.kind == "spiculated", nodule.kind != "sub-solid"
    return {
        "subtlety": about(2 + nodule.radius / 3),
        "internalStructure": 1,
        "calcification": 3 if nodule.hu > 150 else 6,
        "sphericity": about(5 - 8 * nodule.irregularity),
        "margin": about(2 if spiculated else 5 - nodule.edge_mm),
        "lobulation": about(1 + 10 * nodule.irregularity),
        "spiculation": about(4.5 if spiculated else 1.2),
        "texture": about(5 if solid else 2),
        "malignancy": about(1 + nodule.radius / 3 + 1.5 * spiculated - 2 * (nodule.hu > 150)),
    }


def _draw_point(rng: np.random.Generator, axes: Axes) -> dict[int, np.ndarray]:
    """A mark of one pixel, well within the lungs' box."""
    i, j, k = (int(rng.integers(len(axis) // 4, 3 * len(axis) // 4)) for axis in axes)
    mask = np.zeros((len(axes[0]), len(axes[1])), bool)
    mask[i, j] = True
    return {k: mask}


def _around(nodule: Nodule, axes: Axes) -> tuple[slice, slice, slice]:
    """The part of a grid that readers' outlines of a nodule can reach."""
    reach = 2 * nodule.radius + 4
    i, j, k = (
        slice(*np.searchsorted(axis, (c - reach, c + reach)))
        for axis, c in zip(axes, nodule.centre, strict=True)
    )
    return i, j, k
