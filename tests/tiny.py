"""Tiny data sets in real layouts, and the system S1 shrunk to them. A tumour is the brightest thing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe

MRI_GRID = (14, 10, 4)
"""Not square, so that padding matters."""

CT_SIDE, CT_SLICES = 16, 3

CHANGES: dict[str, Any] = {
    "preparation.slice_size": [16, 16],
    "network.arguments.features": [4, 8],
    "training.pretrain_epochs": 1,
    "training.max_epochs": 2,
    "training.batch_size": 4,
    "training.device": "cpu",
    "training.precision": "32-true",
}


def tiny_recipe(**changes: Any) -> Recipe:
    """The system S1 for the data below; dots in fields are written as two underscores."""
    extra = {name.replace("__", "."): value for name, value in changes.items()}
    return get_recipe("unified-mri-ct").with_changes(CHANGES | extra)


def brats_case(
    root: Path,
    number: int,
    suffix: str = ".nii.gz",
    affine: np.ndarray | None = None,
    grid: tuple[int, int, int] = MRI_GRID,
) -> Path:
    """One case with a bright block, other noise in every sequence and every case."""
    name = f"BraTS2021_{number:05d}"
    folder = root / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    mask = np.zeros(grid, np.uint8)
    i, j = rng.integers(1, grid[0] - 5), rng.integers(1, grid[1] - 5)
    mask[i : i + 4, j : j + 4, 1:-1] = 4
    for end in ("t1", "t1ce", "t2", "flair"):
        voxels = (rng.integers(0, 200, grid) + 800 * (mask > 0)).astype(np.int16)
        nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine).to_filename(
            folder / f"{name}_{end}{suffix}"
        )
    nib.Nifti1Image(mask, np.eye(4) if affine is None else affine).to_filename(folder / f"{name}_seg{suffix}")
    return folder


def lidc_nodule(root: Path, patient: int, nodule: int = 0, slices: int = CT_SLICES) -> Path:
    """One nodule with four readers, of whom the last saw nothing."""
    folder = root / f"LIDC-IDRI-{patient:04d}" / f"nodule-{nodule}"
    rng = np.random.default_rng(1000 + 10 * patient + nodule)
    for k in range(slices):
        mask = np.zeros((CT_SIDE, CT_SIDE), np.uint8)
        row, column = rng.integers(1, CT_SIDE - 6, 2)
        mask[row : row + 5, column : column + 5] = 255 * (k > 0)
        image = (rng.integers(0, 60, mask.shape) + 180 * (mask > 0)).astype(np.uint8)
        readers = {f"mask-{reader}": mask if reader < 3 else np.zeros_like(mask) for reader in range(4)}
        for kind, pixels in {"images": image, **readers}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"slice-{k}.png")
    return folder


def tiny_data(root: Path, mri: int = 4, ct: int = 4) -> Mapping[str, Path]:
    """Modality → folder, with so many patients each."""
    for number in range(mri):
        brats_case(root / "mri", number)
    for number in range(ct):
        lidc_nodule(root / "ct", number)
    return {"mri": root / "mri", "ct": root / "ct"}
