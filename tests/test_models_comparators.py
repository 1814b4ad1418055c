"""MONAI's networks behind our call: sizes, refusals, and what is said where they are not installed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.models import build
from oncoseg.models.comparators import Fitted
from oncoseg.train import check_recipe, train
from tiny import tiny_recipe

UNETR = {"img_size": [32, 48], "first_features": 4, "hidden_size": 8, "mlp_dim": 8, "heads": 2}


class Sizes(nn.Module):
    """Remembers which sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape[2:]))
        return images


def test_images_are_padded_to_what_the_network_takes_and_cropped() -> None:
    network = Fitted(Sizes(), multiple=(8, 8), smallest=(16, 8))
    for size in ((1, 1), (16, 8), (17, 24)):
        images = torch.randn(1, 1, *size)
        assert torch.equal(network(images), images)
    assert network.network.seen == [(16, 8), (16, 8), (24, 24)]


def test_unetr_takes_images_up_to_its_size_and_says_so_beyond() -> None:
    pytest.importorskip("einops", reason="UNETR needs it: pip install 'oncoseg[comparators]'")
    network = build("unetr", 1, 2, UNETR).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 20, 48)).shape == (1, 2, 20, 48)
        with pytest.raises(RuntimeError, match=r"up to \[32, 48\], got \[33, 48\]; set img_size"):
            network(torch.randn(1, 1, 33, 48))


TINY_UNETR: dict[str, Any] = {"network.name": "unetr", "network.arguments": UNETR | {"img_size": 16}}
VOLUMES: dict[str, Any] = {
    "preparation.spatial_dims": 3,
    "preparation.spacing_mm": [1, 1, 1],
    "modalities.ct.scaling": "volume-percentile",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"preparation.slice_size": [32, 32]},
            r"slices of 32×32 \(its position .*\)\. Choose a smaller preparation\.slice_size",
        ),
        (
            {"preparation.slice_size": [32, 32], "augmentation.crop": [16, 16]},
            r"slices of 32×32, which validation and prediction see .*a smaller preparation\.slice_size",
        ),
        (
            {"preparation.slice_size": [32, 32], "augmentation.crop": [24, 24]},
            r"crops of 24×24 \(its position .*\)\. Choose a smaller augmentation\.crop",
        ),
        (VOLUMES | {"preparation.patch": [16, 16, 32]}, r"windows of 16×16×32 .*smaller preparation\.patch"),
    ],
)
def test_sizes_beyond_the_networks_are_refused_before_anything_is_prepared(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("einops", reason="UNETR needs it: pip install 'oncoseg[comparators]'")
    recipe = tiny_recipe().with_only(["ct"]).with_changes(TINY_UNETR | changes)
    with pytest.raises(RecipeError, match=message):
        train(recipe, {"ct": tmp_path / "none"}, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_sizes_up_to_the_networks_are_taken() -> None:
    pytest.importorskip("einops", reason="UNETR needs it: pip install 'oncoseg[comparators]'")
    recipe = tiny_recipe().with_only(["ct"]).with_changes(TINY_UNETR)
    check_recipe(recipe.with_changes({"augmentation.crop": [8, 8]}))
    check_recipe(recipe.with_changes(VOLUMES | {"preparation.patch": [16, 16, 8]}))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unetr", {"img_size": [32, 32, 32]}),
        ("unetr", {"img_size": 32, "hidden_size": 10, "heads": 3}),
        ("swin-unetr", {"features": 10}),
        ("dynunet", {"features": [4, 8]}),
        ("dynunet", {"strides": [2]}),
        ("monai-unet", {"features": [4, 8, 8], "strides": [2]}),
        ("segresnet", {"blocks_up": [1]}),
        ("segresnet", {"first_features": 6}),
        ("segresnet", {"spatial_dims": 4}),
    ],
)
def test_arguments_that_do_not_fit_are_the_recipes_mistake(name: str, arguments: dict) -> None:
    for package in ("monai", "einops"):
        pytest.importorskip(package, reason="pip install 'oncoseg[comparators]'")
    with pytest.raises(RecipeError, match=f"Network '{name}' does not take the arguments"):
        build(name, 1, 1, arguments)


@pytest.mark.parametrize(("name", "package"), [("monai-unet", "monai"), ("swin-unetr", "einops")])
def test_without_monai_it_is_said_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    pytest.importorskip("monai", reason="pip install 'oncoseg[comparators]'")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RecipeError, match=rf"\({package}\); .*pip install 'oncoseg\[comparators\]'"):
        build(name, 1, 1, {})


@pytest.mark.parametrize("name", ["dynunet", "monai-unet"])
def test_thick_slices_can_be_left_unpooled(name: str) -> None:
    pytest.importorskip("monai", reason="pip install 'oncoseg[comparators]'")
    thick = {"spatial_dims": 3, "features": [4, 6, 8], "strides": [[2, 2, 1], [2, 2, 1]]}
    network = build(name, 1, 1, thick).eval()
    assert network.multiple == (4, 4, 1)
    with torch.no_grad():
        assert network(torch.randn(1, 1, 9, 8, 3)).shape == (1, 1, 9, 8, 3)
