"""The boxes that a cascade's second stage is trained on: what is said of them, and how they are prepared."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from oncoseg.cascade_folder import CascadeFolder
from oncoseg.datasets import open_dataset
from oncoseg.phantom.liver_ct import make_liver_ct
from oncoseg.predict import Predictor
from oncoseg.prepare import Settings, prepare
from oncoseg.regions import Box
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from oncoseg.train_cascade import stages
from runs import assert_same
from test_train_cascade import GRID, begin, liver_recipe

BOX: Box = ((4, 28), (8, 24), (2, 9))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("liver") / "data"
    make_liver_ct(root, 7, 1, size=GRID)
    return {"ct": root}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def by_hand(box: Box | None) -> Callable[..., Any]:
    """In place of `Predictor.find`."""
    find = Predictor.find

    def found(self: Predictor, *arguments: Any) -> Any:
        return box, find(self, *arguments)[1]

    return found


@pytest.mark.slow
def test_truth_outside_of_the_boxes_is_counted(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "find", by_hand(BOX))
    said: list[str] = []
    assert begin(data, store, tmp_path / "run", tell=said.append).finished
    folder = CascadeFolder(tmp_path / "run")
    voxels = outside = 0
    for name, one in folder.found()["ct"].items():
        image = nib.as_closest_canonical(nib.load(data["ct"] / "labelsTr" / f"{name}.nii.gz"))
        truth = np.asarray(image.dataobj) > 0
        assert one.truth_voxels == truth.sum()
        assert one.truth_outside == truth.sum() - truth[4:28, 8:24, 2:9].sum()
        voxels, outside = voxels + one.truth_voxels, outside + one.truth_outside
    assert outside > 0
    share = f"{outside / voxels:.2%}"
    assert f"boxes of 5 cases; {outside} of {voxels} true voxels ({share}) lie outside of them" in said
    named = [text for text in said if text.startswith(("stage", "the boxes"))]
    assert named == [
        "stage 1: liver in the whole image, 2 networks",
        "the boxes: 5 cases, each by a network that has not seen the patient",
        "stage 2: all classes, in the boxes",
    ]


@pytest.mark.slow
def test_where_stage_1_finds_nothing_stage_2_sees_whole_images(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any box the second stage is the very run without a cascade."""
    monkeypatch.setattr(Predictor, "find", by_hand(None))
    said: list[str] = []
    assert begin(data, store, tmp_path / "run", tell=said.append).finished
    folder = CascadeFolder(tmp_path / "run")
    assert any(
        "no liver was found in 5 cases, of which stage 2 sees the whole image" in text for text in said
    )
    assert said[-1].startswith("Stage 1 found no liver in 5 of 5 training and validation cases")
    split_file = tmp_path / "run" / "split.json"
    alone = RunFolder(tmp_path / "alone")
    train(stages(liver_recipe())[1], data, alone.path, split_file=split_file, store=store, workers=0)
    assert_same(folder.second, alone)


@pytest.mark.parametrize("dims", [2, 3])
def test_preparing_a_box_is_preparing_an_image_cut_to_it(
    data: Mapping[str, Path], tmp_path: Path, dims: int
) -> None:
    shutil.copytree(data["ct"], tmp_path / "cut")
    for path in (tmp_path / "cut").glob("*Tr/*.nii.gz"):
        image = nib.as_closest_canonical(nib.load(path))
        part = image.slicer[4:28, 8:24, 2:9]
        nib.Nifti1Image(np.asarray(part.dataobj), part.affine, part.header).to_filename(path)
    volumes = {"preparation__spatial_dims": 3, "preparation__spacing_mm": [9, 14, 15]}
    recipe = liver_recipe(**(volumes if dims == 3 else {}))
    settings = Settings.of(recipe.modalities["ct"], recipe.classes, recipe.preparation)
    whole_cases, cut = (open_dataset(root).cases[:2] for root in (data["ct"], tmp_path / "cut"))
    boxed = Settings(**vars(settings) | {"boxes": {case.id: BOX for case in whole_cases}})
    ours = prepare(whole_cases, boxed, tmp_path / "store", workers=0)
    theirs = prepare(cut, settings, tmp_path / "store", workers=0)
    wholes = prepare(whole_cases, settings, tmp_path / "store", workers=0)
    for one, other, uncut in zip(ours, theirs, wholes, strict=True):
        assert len({one.folder, other.folder, uncut.folder}) == 3
        for mine, expected in zip(one.parts(4), other.parts(4), strict=True):
            for part, reference in zip(mine, expected, strict=True):
                assert torch.equal(part.images, reference.images)
                assert torch.equal(part.masks, reference.masks)
