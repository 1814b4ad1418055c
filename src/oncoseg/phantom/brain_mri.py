"""Synthetic brain MRI with gliomas in the layout of BraTS 2021 (Baid et al., https://arxiv.org/abs/2107.02314).

Signal follows tissue, sequence and site, then a smooth bias field and Rician noise
(Gudbjartsson and Patz, 1995, https://doi.org/10.1002/mrm.1910340618).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from oncoseg.phantom.brain_anatomy import CEREBRUM_CENTRE, FIELD_OF_VIEW_MM, Brain, draw_field, grow_brain
from oncoseg.phantom.brain_tumour import Lesion, draw_labels, draw_tumours, sample_lesion
from oncoseg.phantom.folder import Progress, check_size, write_cases
from oncoseg.phantom.shapes import Axes, blend, inside, mesh, random_direction

NUMBERS = range(90000, 100000)
"""Case numbers that no patient of BraTS 2021 has."""

DEFAULT_SIZE = (96, 96, 48)
"""Voxels of a case unless asked otherwise; the real ones have 240×240×155."""

EDGE_MM = 3.0
"""Width over which a tumour's look fades into its surroundings."""


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue in one sequence, relative to the brightest healthy one."""

    fluid: float
    grey: float
    white: float
    oedema: float
    rim: float
    necrosis: float


CONTRASTS = {
    "t1": Contrast(fluid=0.22, grey=0.62, white=0.90, oedema=0.62, rim=0.62, necrosis=0.40),
    "t1ce": Contrast(fluid=0.22, grey=0.68, white=0.88, oedema=0.62, rim=1.25, necrosis=0.42),
    "t2": Contrast(fluid=1.00, grey=0.50, white=0.38, oedema=0.70, rim=0.58, necrosis=0.85),
    "flair": Contrast(fluid=0.12, grey=0.62, white=0.50, oedema=0.84, rim=0.76, necrosis=0.55),
}
"""Sequence → signals, in the order in which files are written."""


@dataclass(frozen=True)
class Site:
    """A scanner: signal of the brightest tissue, deviations of noise and bias, and its contrast's power."""

    scale: float
    noise: float
    bias: float
    power: float


SITES = (Site(450, 0.025, 0.06, 1.0), Site(900, 0.04, 0.12, 0.85), Site(2200, 0.03, 0.09, 1.15))
"""Three scanners, alike for every seed."""


def make_brain_mri(
    out: Path,
    cases: int,
    seed: int,
    progress: Progress | None = None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
) -> None:
    """Write synthetic glioma patients as `BraTS2021_9XXXX/BraTS2021_9XXXX_{t1,t1ce,t2,flair,seg}.nii.gz`.

    Images are int16 and 0 outside the brain; labels are uint8: 1 necrosis, 2 oedema, 4 enhancing tumour.

    Args:
        out: a new or empty folder.
        cases: how many patients, 1 to 10000.
        seed: 0 or more; equal seeds give equal voxels.
        progress: called with the number done and the number asked for.
        size: voxels along i, j, k; the field of view of 240×240×155 mm stays.

    Raises:
        RecipeError: a number is out of range.
        RunError: `out` is not empty or cannot be written.
    """
    check_size(size)
    write = partial(_write_case, size=size)
    write_cases(out, "brain-mri", cases, seed, NUMBERS, "BraTS2021_{}", write, progress)


def brats_affine(size: tuple[int, int, int]) -> np.ndarray:
    """BraTS's affine (RAS+, mm) on `size` voxels: i runs to the Left, j Posterior, k Superior."""
    spacing = np.divide(FIELD_OF_VIEW_MM, size)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[1, 3] = spacing[1] * (size[1] - 1)
    return affine


def synthesise(
    rng: np.random.Generator, size: tuple[int, int, int] = DEFAULT_SIZE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw one patient.

    Returns:
        Sequence → int16 signal, and uint8 labels; all `i j k` of `size`.
    """
    axes = _axes(size)
    voxel_mm = float(np.mean(np.divide(FIELD_OF_VIEW_MM, size)))
    tumours = draw_tumours(rng)
    brain = grow_brain(rng, axes, voxel_mm, [(tumour.centre, tumour.radius) for tumour in tumours])
    lesion = sample_lesion(tumours, brain, axes)
    site = SITES[rng.integers(len(SITES))]
    healthy = _draw_distractors(rng, brain, axes)
    texture = draw_field(rng, 5).on(axes)
    images = {}
    for sequence, contrast in CONTRASTS.items():
        signal = _signal(rng, contrast, brain, lesion, texture)
        signal = healthy[sequence] + signal if sequence in healthy else signal
        images[sequence] = _acquire(rng, signal, brain.mask, site, axes)
    return images, draw_labels(lesion, brain.mask)


def _axes(size: tuple[int, int, int]) -> Axes:
    """Positions of the voxels in the head: j runs backwards, so y falls along it."""
    x, y, z = (
        (np.arange(n) + 0.5) * (extent / n) - extent / 2
        for n, extent in zip(size, FIELD_OF_VIEW_MM, strict=True)
    )
    return x, -y, z


def _signal(
    rng: np.random.Generator, contrast: Contrast, brain: Brain, lesion: Lesion, texture: np.ndarray
) -> np.ndarray:
    """Noise-free signal of healthy tissue covered by oedema, rim and necrosis."""
    vary = rng.normal(1, 0.05, 6).astype(np.float32)
    signal = np.float32(contrast.white) * vary[0] + brain.grey * np.float32(contrast.grey - contrast.white)
    signal = blend(signal, contrast.fluid * vary[1], brain.fluid)
    signal = signal * (1 + np.float32(0.03) * texture)
    oedema = np.float32(contrast.oedema) * vary[2] * (1 + np.float32(0.08) * texture)
    rim = np.float32(contrast.rim * rng.uniform(0.85, 1.15)) * vary[3] * (1 + np.float32(0.15) * texture)
    necrosis = np.float32(contrast.necrosis) * vary[4] * (1 + np.float32(0.10) * texture)
    density = np.float32(rng.uniform(0.55, 0.95))
    signal = blend(signal, oedema, density * inside(lesion.whole_mm, 2 * EDGE_MM))
    signal = blend(signal, rim, inside(lesion.core_mm, EDGE_MM))
    return blend(signal, necrosis, inside(lesion.necrosis_mm, EDGE_MM))


def _draw_distractors(rng: np.random.Generator, brain: Brain, axes: Axes) -> dict[str, np.ndarray]:
    """Signal to add for what is bright and no tumour: aged white matter, and vessels after contrast agent."""
    x, y, z = mesh(axes)
    white = 1 - brain.fluid - brain.grey
    caps = inside(brain.ventricle_mm - np.float32(rng.uniform(0, 4)), 5.0)
    spots = np.zeros(brain.mask.shape, dtype=np.float32)
    for _ in range(rng.integers(0, 7)):
        centre = CEREBRUM_CENTRE + random_direction(rng) * rng.uniform(25, 48)
        squared = sum((p - np.float32(c)) ** 2 for p, c in zip((x, y, z), centre, strict=True))
        spots = np.maximum(spots, np.exp(-squared / np.float32(2 * rng.uniform(1.5, 4.0) ** 2)))
    aged = white * np.maximum(caps * np.float32(rng.uniform(0, 0.4)), spots * np.float32(0.4))
    sinus = inside(brain.across_mm - 3, 3.0) * inside(np.abs(brain.depth_mm - 1) - 3, 3.0) * (z > 0)
    cortical = (draw_field(rng, 5).on(axes) > 1.5) * inside(brain.depth_mm - 4, 3.0)
    choroid = inside(brain.ventricle_mm + 2, 3.0) * (draw_field(rng, 6).on(axes) > 0.8)
    vessels = np.maximum(np.maximum(sinus, cortical), choroid) * np.float32(rng.uniform(0.3, 0.8))
    return {"t1ce": vessels, "t2": np.float32(0.8) * aged, "flair": aged}


def _acquire(
    rng: np.random.Generator, signal: np.ndarray, mask: np.ndarray, site: Site, axes: Axes
) -> np.ndarray:
    """Signal as a scanner stores it: contrast, bias field, Rician noise, scale; 0 outside the brain."""
    bias = np.exp(np.float32(site.bias * rng.uniform(0.6, 1.4)) * draw_field(rng, 90).on(axes))
    clean = np.maximum(signal, 0) ** np.float32(site.power * rng.uniform(0.92, 1.08)) * bias
    noise = np.float32(site.noise * rng.uniform(0.7, 1.3))
    real = clean + noise * rng.standard_normal(mask.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(mask.shape, dtype=np.float32)
    stored = np.hypot(real, imaginary) * np.float32(site.scale * rng.uniform(0.8, 1.25))
    return np.where(mask, np.clip(np.rint(stored), 1, np.iinfo(np.int16).max), 0).astype(np.int16)


def _write_case(folder: Path, name: str, rng: np.random.Generator, size: tuple[int, int, int]) -> None:
    images, labels = synthesise(rng, size)
    affine = brats_affine(size)
    for suffix, voxels in {**images, "seg": labels}.items():
        _write_nifti(folder / f"{name}_{suffix}.nii.gz", voxels, affine)


def _write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
