"""What S5 lists as missing, set by flags: each takes effect, on slices and on windows of volumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from oncoseg import losses
from oncoseg.cli import main
from oncoseg.phantom.liver_ct import make_liver_ct
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.training import data as training_data
from oncoseg.training.choices import batches_of, losses_of

TINY = {
    "--network.arguments.features": "[4,8]",
    "--training.max-epochs": "1",
    "--training.batch-size": "4",
    "--training.device": "cpu",
    "--workers": "0",
}

DIMENSIONS: Mapping[int, Mapping[str, str]] = {
    2: {"--preparation.slice-size": "[16,16]"},
    3: {
        "--preparation.spatial-dims": "3",
        "--preparation.spacing-mm": "[14,14,15]",
        "--preparation.patch": "[8,8,8]",
    },
}

TUMOUR = 2
"""Its index; the liver has the first."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("liver") / "data"
    make_liver_ct(root, 5, 1, size=(40, 40, 20))
    return root


def trained(data: Path, folder: Path, dims: int, *flags: str) -> Recipe:
    """The recipe that a training from the command line kept, which was not refused."""
    fixed = [word for pair in (TINY | dict(DIMENSIONS[dims])).items() for word in pair]
    command = ["train", "residual-attention-liver", "--data", f"ct={data}", "--out", str(folder / "run")]
    assert main([*command, "--store", str(folder / "store"), *fixed, *flags]) == 0
    return RunFolder(folder / "run").recipe()


def example(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two classes and their truth, on slices or windows."""
    torch.manual_seed(1)
    sides = (6,) * dims
    return torch.randn(2, 2, *sides), torch.randint(0, 3, (2, *sides))


@pytest.mark.parametrize("dims", [2, 3])
def test_focal_loss(data: Path, tmp_path: Path, dims: int) -> None:
    recipe = trained(
        data,
        tmp_path,
        dims,
        "--modalities.ct.loss.name",
        "focal",
        "--modalities.ct.loss.arguments.gamma",
        "3",
    )
    logits, truth = example(dims)
    loss = losses_of(recipe)["ct"]
    assert loss(logits, truth) == losses.focal(logits, truth, gamma=3)
    assert loss(logits, truth) < losses.focal(logits, truth, gamma=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_dice_weighted_by_class(data: Path, tmp_path: Path, dims: int) -> None:
    flags = "--modalities.ct.loss.name", "dice", "--modalities.ct.loss.arguments.class-weights", "[1,3]"
    loss = losses_of(trained(data, tmp_path, dims, *flags))["ct"]
    logits, truth = example(dims)
    each = [losses.dice(logits, truth, class_weights=weights) for weights in ((1, 0), (0, 1))]
    assert loss(logits, truth).item() == pytest.approx(((each[0] + 3 * each[1]) / 4).item())
    assert loss(logits, truth).item() != pytest.approx(losses.dice(logits, truth).item())


def loaded(recipe: Recipe, data: Path, folder: Path) -> Mapping[str, Any]:
    split = RunFolder(folder / "run").split()
    return training_data.load(recipe, {"ct": data}, folder / "store", split=split, workers=0).train


def test_slices_with_tumour_are_drawn_more_often(data: Path, tmp_path: Path) -> None:
    recipe = trained(data, tmp_path, 2, "--training.tumour-share", "0.75")
    cases = loaded(recipe, data, tmp_path)

    def with_tumour(of: Recipe) -> list[int]:
        return [
            sum(int((cases["ct"][one.case].example(one.position)[1] == TUMOUR).any()) for one in batch["ct"])
            for batch in batches_of(of, cases, [0])
        ]

    assert set(with_tumour(recipe)) == {3}, "of the 4 slices of each batch"
    usual = with_tumour(recipe.with_changes({"training.tumour_share": None}))
    assert sum(usual) < 3 * len(usual)
    any_class = with_tumour(recipe.with_changes({"training.tumour_class": None}))
    assert sum(any_class) < 3 * len(any_class), "of slices with liver"


def test_windows_with_tumour_are_drawn_more_often(data: Path, tmp_path: Path) -> None:
    recipe = trained(data, tmp_path, 3, "--training.foreground-share", "1")
    cases = loaded(recipe, data, tmp_path)

    def share(of: Recipe) -> float:
        windows = [
            cases["ct"][one.case].example(one.position)[1]
            for seed in range(8)
            for batch in batches_of(of, cases, [seed])
            for one in batch["ct"]
        ]
        return sum(int((mask == TUMOUR).any()) for mask in windows) / len(windows)

    none = share(recipe.with_changes({"training.foreground_share": 0}))
    assert share(recipe) >= 0.5, "liver and tumour take turns"
    assert share(recipe) > none
