"""Synthetic abdominal CT in the layouts of the Medical Segmentation Decathlon's Task03 and Task08.

Antonelli et al., 2022, https://doi.org/10.1038/s41467-022-30695-9. The same anatomy serves both; Task03 marks
liver and tumour, Task08 vessels and tumour.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from oncoseg.files import atomic_file, write_text
from oncoseg.phantom import liver_lesion as lesions
from oncoseg.phantom.abdomen import (
    AIR,
    Abdomen,
    body_width_mm,
    draw_abdomen,
    hounsfield,
    liver_distance,
    marked_vessels,
    position,
)
from oncoseg.phantom.folder import Progress, check_size, each_case
from oncoseg.phantom.liver_lesion import Lesion
from oncoseg.phantom.shapes import Axes, inside
from oncoseg.phantom.vessels import vessel_distance

NUMBERS = range(9000, 10000)
"""Case numbers that no patient of the Decathlon has."""

DEFAULT_SIZE = (128, 128, 48)
"""Voxels of a case unless asked otherwise; the real ones have 512×512 and some 30 to 1,000 slices."""

WIDTH_OF_BODY, HEIGHT_MM = (1.04, 1.25), (240.0, 290.0)
"""Smallest and largest field of view: in a slice relative to the body's width, and along the body."""

MIDDLE_MM = (0.0, 15.0, 0.0)
"""Middle of the field of view."""

VESSEL_RADIUS_MM = 1.3
"""Thinner vessels are not marked, as readers could not follow them."""

SLAB = 16
"""Slices that are made at a time, which bounds memory."""

MARGIN = 2
"""Slices beyond a slab on both sides, for the blur of thick slices."""


@dataclass(frozen=True)
class Task:
    """One of the Decathlon's tasks.

    Attributes:
        kind: the phantom's name.
        name: in dataset.json.
        prefix: of the cases' names.
        organ: what label 1 marks; label 2 is tumour.
        phase: of contrast agent; None for any.
        least: tumours of every patient, at least.
    """

    kind: str
    name: str
    prefix: str
    organ: str
    phase: str | None = None
    least: int = 0


LIVER = Task("liver-ct", "Liver", "liver", "liver")
VESSEL = Task("vessel-ct", "HepaticVessel", "hepaticvessel", "Vessel", "portal venous", 1)


def make_abdomen_ct(
    task: Task,
    out: Path,
    cases: int,
    seed: int,
    progress: Progress | None = None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
) -> None:
    """Write synthetic patients as `imagesTr/PREFIX_9XXX.nii.gz` with `labelsTr` and `dataset.json`.

    Images are Hounsfield units as int16; labels are uint8: 1 the task's organ, 2 tumour. Larger sizes
    sample the same patients more finely.

    Args:
        task: LIVER or VESSEL.
        out: a new or empty folder.
        cases: how many patients, 1 to 1000.
        seed: 0 or more; equal seeds give equal voxels.
        progress: called with the number done and the number asked for.
        size: voxels along i, j, k; the field of view stays.

    Raises:
        RecipeError: a number is out of range.
        RunError: `out` is not empty or cannot be written.
    """
    check_size(size)
    written: list[str] = []
    for name, rng in each_case(out, task.kind, cases, seed, NUMBERS, task.prefix + "_{}", progress):
        hu, labels, affine = synthesise(rng, task, size)
        for folder, voxels in (("labelsTr", labels), ("imagesTr", hu)):
            _write_nifti(out / folder / f"{name}.nii.gz", voxels, affine)
        written.append(name)
        write_text(out / "dataset.json", json.dumps(_description(task, written), indent=2))


make_liver_ct = partial(make_abdomen_ct, LIVER)
make_vessel_ct = partial(make_abdomen_ct, VESSEL)


def synthesise(
    rng: np.random.Generator, task: Task, size: tuple[int, int, int] = DEFAULT_SIZE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one patient.

    Returns:
        Hounsfield units (int16) and labels (uint8), both `i j k`, and the affine (RAS+, mm).
    """
    abdomen = draw_abdomen(rng, task.phase)
    found = lesions.draw_lesions(rng, abdomen, task.least)
    width, height = rng.uniform(*WIDTH_OF_BODY) * body_width_mm(abdomen), rng.uniform(*HEIGHT_MM)
    noise_hu, blur_pixels = float(np.exp(rng.uniform(np.log(8), np.log(28)))), rng.uniform(0.4, 0.9)
    axes = _axes(size, (width, width, height))
    spacing = np.array([axis[1] - axis[0] for axis in axes])
    hu, labels = np.empty(size, np.int16), np.empty(size, np.uint8)
    for start in range(0, size[2], SLAB):
        first, last = max(start - MARGIN, 0), min(start + SLAB + MARGIN, size[2])
        slab = (axes[0], axes[1], axes[2][first:last])
        kept = slice(start - first, start - first + min(SLAB, size[2] - start))
        clean, marked = _slab(abdomen, found, slab, task, float(spacing[0]))
        hu[..., start : start + SLAB] = _scan(rng, clean[..., kept], noise_hu, blur_pixels)
        labels[..., start : start + SLAB] = marked[..., kept]
    # x runs to the Left and y backwards, both away from RAS+
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -axes[0][0], -axes[1][0], axes[2][0]
    return hu, labels, affine


def _slab(
    abdomen: Abdomen, found: list[Lesion], axes: Axes, task: Task, pixel_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free Hounsfield units and labels of some slices."""
    hu = hounsfield(abdomen, axes, pixel_mm)
    to_liver = liver_distance(*position(abdomen, axes))
    in_liver, liver = inside(to_liver, 1.5 * pixel_mm), to_liver < 0
    if task is LIVER:
        labels = liver.astype(np.uint8)
    else:
        labels = ((vessel_distance(marked_vessels(abdomen, VESSEL_RADIUS_MM), axes) < 0) & liver).astype(
            np.uint8
        )
    for lesion in found:
        part = _around(lesion, axes)
        if part is None:
            continue
        near = axes[0][part[0]], axes[1][part[1]], axes[2][part[2]]
        distance = lesions.distance_mm(lesion, near)
        hu[part] = lesions.cover(hu[part], lesion, distance, in_liver[part])
        if lesion.kind != "cyst":
            labels[part][(distance < 0) & liver[part]] = 2
    return hu, labels


def _around(lesion: Lesion, axes: Axes) -> tuple[slice, slice, slice] | None:
    """The part of a grid that a lesion can reach, or None."""
    reach = lesions.reach_mm(lesion)
    i, j, k = (
        slice(*np.searchsorted(axis, (c - reach, c + reach)))
        for axis, c in zip(axes, lesion.centre, strict=True)
    )
    return (i, j, k) if min(part.stop - part.start for part in (i, j, k)) > 0 else None


def _scan(rng: np.random.Generator, hu: np.ndarray, noise_hu: float, blur_pixels: float) -> np.ndarray:
    """Blur and noise of the scanner, as whole Hounsfield units from -1024 on."""
    blurred = ndimage.gaussian_filter(hu, (blur_pixels, blur_pixels, 0))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (blur_pixels, blur_pixels, 0))
    scanned = np.rint(blurred + noise * np.float32(noise_hu / noise.std()))
    whole: np.ndarray = np.clip(scanned, AIR - 24, 3071).astype(np.int16)
    return whole


def _axes(size: tuple[int, int, int], extent_mm: tuple[float, float, float]) -> Axes:
    x, y, z = (
        middle + ((np.arange(n) + 0.5) / n - 0.5) * extent
        for n, extent, middle in zip(size, extent_mm, MIDDLE_MM, strict=True)
    )
    return x, y, z


def _description(task: Task, names: list[str]) -> dict[str, Any]:
    """What the Decathlon's dataset.json says, with our cases."""
    return {
        "name": task.name,
        "description": f"Synthetic {task.kind} phantoms made by oncoseg; they show no patient",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": task.organ, "2": "tumour"},
        "numTraining": len(names),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
        ],
        "test": [],
    }


def _write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    with atomic_file(path) as temporary:
        nibabel.save(image, temporary)
