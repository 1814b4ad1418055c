"""Slices are padded to squares and resized for the network, and back: nothing moves, whatever the sizes.

A network whose probability is the brightness itself tells the places of resized images without a threshold.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicom_files import OBLIQUE
from marker import ROTATIONS, Grid
from oncoseg.predict import Predictor
from test_predict import AIR, METAL
from tiny import tiny_recipe

MOVED_VOXELS = 0.05
"""How far bilinear resizing may move a centroid: half of what is promised of a mask."""


class Brightness(nn.Module):
    """Probability = last channel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.logit(images[:, -1:].double(), eps=1e-6).float()


@pytest.mark.parametrize("side", [12, 17, 75])
@pytest.mark.parametrize(
    "cosines",
    [ROTATIONS[0], ROTATIONS[13], ROTATIONS[22], OBLIQUE],
    ids=["axial", "coronal", "sagittal", "oblique"],
)
def test_resizing_moves_nothing(tmp_path: Path, cosines: tuple[float, ...], side: int) -> None:
    grid = Grid(cosines)
    recipe = tiny_recipe(
        preparation__slice_size=[side, side],
        modalities__ct__scaling="window",
        modalities__ct__window=[AIR, METAL],
    )
    Predictor(recipe, Brightness()).predict(
        [grid.write(tmp_path / "ct")],
        tmp_path / "out",
        modality="ct",
        probabilities=True,
        accept_implausible=True,
    )
    (path,) = (tmp_path / "out").glob("*_probability.nii.gz")
    image = nib.load(path)
    probability = np.where(image.get_fdata() > 1e-4, image.get_fdata(), 0)
    places = nib.affines.apply_affine(image.affine, np.argwhere(probability)) * [-1, -1, 1]
    centroid = np.average(places, axis=0, weights=probability[probability > 0])
    away = np.linalg.solve(grid.steps_lps, centroid - grid.marked_mm.mean(axis=0))
    assert np.abs(away).max() < MOVED_VOXELS
    assert probability.sum() == pytest.approx(grid.marked.sum(), rel=0.03)
