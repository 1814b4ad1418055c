"""Prediction in two stages with networks that mark what is bright: where it lands, and what is computed."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoseg import predict2d, predict3d, prediction_record
from oncoseg.datasets import open_dataset
from oncoseg.predict import Predictor
from oncoseg.recipe import Recipe
from test_predict import AIR, METAL, Bright, centroid_mm, oriented, write_marked
from test_predict_volumes import Bright3d, spacing_along_ras, volumes
from test_volume import oblique_affine
from tiny import brats_case, tiny_recipe

MARGIN_MM = 2.0
OBLIQUE = (14.0, -9.0, 21.0)
"""Turns about the three axes, in degrees."""


class Blind(nn.Module):
    """Finds nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, :1], -100.0)


def slices(**changes: Any) -> Recipe:
    fixed = {"preparation__slice_size": [96, 96], "modalities__ct__scaling": "window"}
    window = {"modalities__ct__window": [AIR, METAL]}
    return tiny_recipe(**fixed | window | changes)


def in_two_stages(recipe: Recipe, first: nn.Module, second: nn.Module) -> Predictor:
    whole = recipe.with_changes({"cascade.organ": "body", "cascade.margin_mm": MARGIN_MM})
    organ = recipe.with_changes({"classes": {"body": ["*"]}})
    return Predictor(whole, second, "weights", first=Predictor(organ, first, "first"))


def predicted(predictor: Predictor, source: Path, out: Path) -> np.ndarray:
    (written,) = predictor.predict([source], out, modality="ct")
    assert np.abs(nib.load(written).affine - nib.load(source).affine).max() < 1e-6
    return np.asarray(nib.load(written).dataobj)


@pytest.mark.parametrize("number", range(48))
def test_volumes_give_the_very_marker_on_oblique_grids(tmp_path: Path, number: int) -> None:
    affine = oblique_affine(number, OBLIQUE, (0.8, 1.1, 2.5), (-12.5, 31.25, 7.75))
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    recipe = volumes(preparation__spacing_mm=_spacing(source))
    plain = predicted(Predictor(recipe, Bright3d(), "weights"), source, tmp_path / "plain")
    second = Bright3d()
    mask = predicted(in_two_stages(recipe, Bright3d(), second), source, tmp_path / "out")
    assert np.array_equal(mask == 1, block)
    assert np.array_equal(mask, plain)
    assert len(second.windows) < 12, "of 2 · 3 · 2 or more windows of the whole image"


def _spacing(source: Path) -> list[float]:
    return spacing_along_ras(np.asarray(nib.load(source).affine))


@pytest.mark.parametrize("number", range(48))
def test_slices_give_the_very_marker_on_oblique_grids(tmp_path: Path, number: int) -> None:
    affine = oblique_affine(number, OBLIQUE, (0.8, 1.1, 2.5), (-12.5, 31.25, 7.75))
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    plain = predicted(Predictor(slices(), Bright(), "weights"), source, tmp_path / "plain")
    second = Bright()
    mask = predicted(in_two_stages(slices(), Bright(), second), source, tmp_path / "out")
    assert np.array_equal(mask == 1, block)
    assert np.array_equal(mask, plain)
    assert np.abs(centroid_mm(mask == 1, affine) - centroid_mm(block, affine)).max() < 1e-6
    assert second.slices_seen > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_where_stage_1_finds_nothing_the_mask_is_empty_and_it_is_said(tmp_path: Path, dims: int) -> None:
    write_marked(tmp_path / "ct.nii", oriented(3))
    recipe = slices() if dims == 2 else volumes()
    predictor = in_two_stages(recipe, Blind(), Bright() if dims == 2 else Bright3d())
    mask = predicted(predictor, tmp_path / "ct.nii", tmp_path / "out")
    assert not mask.any()
    ((text,),) = prediction_record.remarks(tmp_path / "out").values()
    assert text.startswith("Stage 1 found no body in this image, so nothing else was looked for")
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert list(record["remarks"]) == ["ct"]


class Halved(Bright):
    """Gives each of two classes 0.4 of what is bright, so that neither reaches one half alone."""

    def forward(self, images: Tensor) -> Tensor:
        bright = super().forward(images)[:, :1] > 0
        return torch.where(bright, math.log(0.4 / 0.2), -20.0).expand(-1, 2, -1, -1)


def test_several_classes_of_stage_1_are_the_organ_together(tmp_path: Path) -> None:
    """By the rule of masks: 0.4 and 0.4 of two classes are 0.8 of the organ, and 0.2 of background."""
    write_marked(tmp_path / "ct.nii", oriented(3))
    two = slices(classes={"one": ["*"], "other": ["*"]})
    recipe = slices().with_changes({"cascade.organ": "body", "cascade.margin_mm": MARGIN_MM})
    predictor = Predictor(recipe, Bright(), "weights", first=Predictor(two, Halved(), "first"))
    mask = predicted(predictor, tmp_path / "ct.nii", tmp_path / "out")
    assert mask.any()
    assert np.array_equal(
        mask, predicted(in_two_stages(slices(), Bright(), Bright()), tmp_path / "ct.nii", tmp_path / "plain")
    )


def test_nothing_is_said_where_it_finds_something(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", oriented(3))
    predicted(in_two_stages(slices(), Bright(), Bright()), tmp_path / "ct.nii", tmp_path / "out")
    assert prediction_record.remarks(tmp_path / "out") == {}


@pytest.mark.parametrize("dims", [2, 3])
def test_it_does_not_depend_on_the_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: int) -> None:
    write_marked(tmp_path / "ct.nii.gz", oriented(21))
    recipe, network = (slices(), Bright) if dims == 2 else (volumes(), Bright3d)
    whole = predicted(in_two_stages(recipe, network(), network()), tmp_path / "ct.nii.gz", tmp_path / "one")
    monkeypatch.setattr(predict2d, "SLAB", 3)
    monkeypatch.setattr(predict3d, "SLAB", 3)
    parts = predicted(in_two_stages(recipe, network(), network()), tmp_path / "ct.nii.gz", tmp_path / "two")
    assert whole.any()
    assert np.array_equal(whole, parts)


def test_what_is_beyond_the_box_is_not_looked_at(tmp_path: Path) -> None:
    """Two blocks, of which stage 1 takes the larger one; the other lies outside of its margin."""
    voxels = np.full((32, 32, 12), AIR, np.int16)
    voxels[4:12, 4:12, 2:8] = METAL
    voxels[26:28, 26:28, 9:11] = METAL
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "ct.nii")
    mask = predicted(in_two_stages(slices(), Bright(), Bright()), tmp_path / "ct.nii", tmp_path / "out")
    assert (mask[4:12, 4:12, 2:8] == 1).all()
    assert mask.sum() == 8 * 8 * 6


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("margin_mm", [0.0, MARGIN_MM, 1e4])
@pytest.mark.parametrize(
    "block",
    [
        (slice(0, 6), slice(0, 5), slice(0, 3)),
        (slice(25, 30), slice(24, 29), slice(8, 11)),
        (slice(0, 30), slice(0, 29), slice(0, 11)),
    ],
    ids=["first corner", "last corner", "everything"],
)
def test_an_organ_at_the_border_and_boxes_beyond_it(
    tmp_path: Path, dims: int, margin_mm: float, block: tuple[slice, slice, slice]
) -> None:
    """The grid is no multiple of the cells; a hole is darker, so that there is contrast."""
    voxels = np.full((30, 29, 11), AIR, np.int16)
    voxels[block] = METAL
    voxels[10:18, 10:18, 4:7] = AIR
    affine = oblique_affine(5, OBLIQUE, (1.0, 1.0, 1.0), (3.0, 4.0, 5.0))
    nib.Nifti1Image(voxels, affine).to_filename(tmp_path / "ct.nii")
    recipe, network = (slices(), Bright) if dims == 2 else (volumes(), Bright3d)
    predictor = in_two_stages(recipe, network(), network())
    predictor.recipe = predictor.recipe.with_changes({"cascade.margin_mm": margin_mm})
    mask = predicted(predictor, tmp_path / "ct.nii", tmp_path / "out")
    plain = predicted(Predictor(recipe, network(), "weights"), tmp_path / "ct.nii", tmp_path / "plain")
    assert np.array_equal(mask, plain)
    assert np.array_equal(mask == 1, voxels == METAL)


def test_evaluation_takes_the_same(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4, affine=oriented(37))
    case = open_dataset(tmp_path / "mri").cases[0]
    recipe = tiny_recipe(
        preparation__slice_size=[96, 96], modalities__mri__scaling="window", modalities__mri__window=[0, 1000]
    )
    predictor = in_two_stages(recipe, Bright(), Bright())
    found = predictor.predict_case(case, "mri")
    assert np.array_equal(found.probability >= 0.5, found.truth)
    assert (found.image.min(), found.image.max()) == (0, 1)
    blind = in_two_stages(recipe, Blind(), Bright()).predict_case(case, "mri")
    assert not blind.probability.any()
    assert blind.truth.any()


def test_progress_counts_both_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    monkeypatch.setattr(predict2d, "SLAB", 8)
    seen: list[tuple[int, int]] = []
    in_two_stages(slices(), Bright(), Bright()).predict(
        [tmp_path / "a.nii"], tmp_path / "out", modality="ct", progress=lambda *at: seen.append(at)
    )
    # 16 slices, then those of the block (3 … 8) and a margin of 2 on either side: 1 … 10
    assert seen == [(8, 32), (16, 32), (24, 32), (26, 32)]


def test_both_stages_travel_to_another_machine(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", oriented(5))
    predictor = in_two_stages(slices(), Bright(), Bright())
    there = pickle.loads(pickle.dumps(predictor))
    one = predicted(predictor, tmp_path / "ct.nii", tmp_path / "one")
    assert np.array_equal(one, predicted(there, tmp_path / "ct.nii", tmp_path / "two"))
    assert one.any()


def test_a_line_says_beforehand_what_both_passes_will_take(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", np.eye(4))
    said: list[str] = []
    in_two_stages(slices(), Bright(), Bright()).predict(
        [tmp_path / "ct.nii"], tmp_path / "out", modality="ct", foretell=said.append
    )
    (line,) = said
    assert "GiB of memory" in line
