"""What all our U-Nets share: pooling by axis, mirrored images, and gates that can be exchanged."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.models import build
from oncoseg.models.blocks import TRANSPOSED, joined_factors, pad_to_multiple, pooling_factors

ROUNDING = 1e-4
"""Relative, of sums in 32 bits in another order."""

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("attention-unet", {"attention": False}),
    "attention-unet": ("attention-unet", {}),
    "aspp": ("attention-unet", {"context": "aspp", "rates": [1, 2]}),
    "spp": ("attention-unet", {"context": "spp", "bins": [1, 2, 3]}),
    "dot-product": ("residual-attention-unet", {"most_tokens": 16}),
    "additive": ("residual-attention-unet", {"attention": "additive"}),
    "ungated": ("residual-attention-unet", {"attention": None}),
}

every = pytest.mark.parametrize("form", FORMS)
dimensions = pytest.mark.parametrize("dims", [2, 3])


def made(form: str, dims: int, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    name, arguments = FORMS[form]
    common = {"features": [4, 6, 8], "spatial_dims": dims, "dropout": 0.0}
    return build(name, 1, 2, common | arguments | more).eval()


def mirror_kernels(network: nn.Module, dims: int) -> None:
    """Make each kernel the same in the mirror, of every axis."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    flips = [[axis for axis, on in enumerate(which, 2) if on] for which in product((0, 1), repeat=dims)]
    for part in network.modules():
        if isinstance(part, kinds):
            part.weight.data = torch.stack([part.weight.data.flip(axes) for axes in flips]).mean(0)


@every
@dimensions
def test_with_mirrored_kernels_the_mirror_image_gives_the_mirror_logits(form: str, dims: int) -> None:
    network = made(form, dims)
    image = torch.randn(1, 1, *(16, 24, 8)[:dims])  # multiples of 4, so that nothing is padded at one end
    with torch.no_grad():
        assert not torch.allclose(network(image.flip(2)), network(image).flip(2), rtol=ROUNDING, atol=1e-5)
        mirror_kernels(network, dims)
        for axis in range(2, 2 + dims):
            torch.testing.assert_close(
                network(image.flip(axis)), network(image).flip(axis), rtol=ROUNDING, atol=1e-5
            )


@every
@pytest.mark.parametrize(
    ("strides", "size", "padded"),
    [
        ([[2, 2, 1], [2, 2, 2]], (9, 12, 5), (12, 12, 6)),
        ([[2, 2, 1], [2, 2, 1]], (8, 8, 3), (8, 8, 3)),
        ([1, 3], (5, 6, 7), (6, 6, 9)),
    ],
)
def test_each_axis_is_pooled_by_its_own_factors(
    form: str, strides: Sequence[Any], size: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    network = made(form, 3, strides=strides)
    seen: list[torch.Size] = []
    network.encoder[0].register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[2:]))
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).shape == (1, 2, *size)
    assert seen == [padded]


def test_factors_are_laid_out_by_step_and_axis() -> None:
    assert pooling_factors(3, 2, None) == [(2, 2, 2), (2, 2, 2)]
    assert pooling_factors(3, 2, [[2, 2, 1], 2]) == [(2, 2, 1), (2, 2, 2)]
    assert joined_factors([(2, 2, 1), (2, 3, 2)]) == (4, 6, 2)


@pytest.mark.parametrize("name", ["attention-unet", "residual-attention-unet"])
@pytest.mark.parametrize("strides", [[2], [[2, 2, 2], 2], [2, 0], [[2], [2]], [2, 2, 2]])
def test_strides_that_do_not_fit_are_the_recipes_mistake(name: str, strides: list) -> None:
    with pytest.raises(RecipeError, match=r"expected strides for 2 steps, each a number or 2 numbers"):
        build(name, 1, 1, {"features": [4, 6, 8], "strides": strides})


def test_padding_by_axis_and_to_a_smallest_size() -> None:
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert pad_to_multiple(images, (1, 2)).shape == (1, 1, 2, 4)
    assert pad_to_multiple(images, (2, 3)) is images
    assert pad_to_multiple(images, 2, smallest=(6, 2)).shape == (1, 1, 6, 4)


def test_run_folders_of_the_first_version_still_fit() -> None:
    names = set(build("attention-unet", 4, 1, {"features": [4, 6, 8]}).state_dict())
    assert {name.split(".")[0] for name in names} == {
        "encoder", "bottleneck", "up", "gates", "decoder", "head"
    }  # fmt: skip
    assert {"encoder.0.0.weight", "bottleneck.4.running_var", "up.1.bias", "head.weight"} <= names
    assert {"gates.0.from_skip.0.weight", "gates.0.to_weight.1.bias", "decoder.1.3.weight"} <= names
    assert TRANSPOSED[2] is nn.ConvTranspose2d


@pytest.mark.parametrize(
    "form", [form for form, (name, _) in FORMS.items() if name == "residual-attention-unet"]
)
def test_deep_supervision_of_residual_networks(form: str) -> None:
    network = made(form, 2, deep_supervision=True).train()
    assert [logits.shape for logits in network(torch.randn(2, 1, 13, 8)).coarser] == [(2, 2, 13, 8)]
