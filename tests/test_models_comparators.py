"""MONAI's networks behind our call: sizes, refusals, and what is said where they are not installed."""

import sys

import pytest
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.models import build
from oncoseg.models.comparators import Fitted

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
