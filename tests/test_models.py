"""The published size of S1's network, its attention gate against a plain loop, and refusals."""

import math

import pytest
import torch

from oncoseg import models
from oncoseg.errors import RecipeError
from oncoseg.logits import Supervised
from oncoseg.models import build
from oncoseg.models.blocks import AttentionGate, crop_to, pad_to_multiple

S1 = {"features": [64, 128, 256], "dropout": 0.3}


def test_the_published_size() -> None:
    cost = models.describe("attention-unet", S1, in_channels=4, classes=1, size=(128, 128))
    assert cost.parameters == 1_885_863
    assert round(cost.multiply_adds / 1e9, 2) == 6.48
    assert sum(p.numel() for p in build("attention-unet", 4, 1, S1).parameters()) == 1_885_863


def test_multiply_adds_of_a_network_small_enough_to_count() -> None:
    # per pixel, with a plain U-Net of stages 1 → 1 (bottleneck) on one channel:
    # encoder 9 + 9, head 1; decoder 2·9 + 9; at a quarter of the pixels: bottleneck 9 + 9 and
    # a 2×2 transposed convolution, 4 of each input pixel
    arguments = {"features": [1, 1], "attention": False}
    cost = models.describe("attention-unet", arguments, in_channels=1, classes=1, size=(8, 8))
    assert cost.multiply_adds == 64 * (9 + 9 + 1 + 18 + 9) + 16 * (9 + 9 + 4)
    # convolutions, their four pairs of batch norm's scale and shift … and biases of up and head
    assert cost.parameters == (9 + 9 + 9 + 9 + 18 + 9) + 6 * 2 + (4 + 1) + (1 + 1)


def test_the_attention_gate_is_its_formula() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(2, channels=2, inner=1).eval()
    for norm in (gate.from_skip[1], gate.from_gate[1], gate.to_weight[1]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(norm.weight)
        torch.nn.init.uniform_(norm.bias)
    skip, signal = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 2, 3)

    def projected(part: torch.nn.Sequential, inputs: list[float]) -> float:
        convolution, norm = part
        total = convolution.bias[0].item()
        total += sum(w.item() * x for w, x in zip(convolution.weight[0].flatten(), inputs, strict=True))
        centred = (total - norm.running_mean.item()) / math.sqrt(norm.running_var.item() + norm.eps)
        return norm.weight.item() * centred + norm.bias.item()

    with torch.no_grad():
        weighted = gate(skip, signal)
    for row in range(2):
        for column in range(3):
            x, g = skip[0, :, row, column].tolist(), signal[0, :, row, column].tolist()
            joined = max(0.0, projected(gate.from_skip, x) + projected(gate.from_gate, g))
            alpha = 1 / (1 + math.exp(-projected(gate.to_weight, [joined])))
            expected = [alpha * value for value in x]
            assert weighted[0, :, row, column].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_padding_repeats_the_border_and_is_undone() -> None:
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to_multiple(images, 4)
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert torch.equal(crop_to(padded, images.shape[2:]), images)
    assert pad_to_multiple(padded, 4) is padded


@pytest.mark.parametrize(
    "arguments",
    [
        {"features": [4]},
        {"features": []},
        {"features": [0, 4]},
        {"features": 7},
        {"features": [4, 8], "spatial_dims": 4},
        {"features": [4, 8], "dropout": 2},
    ],
)
def test_arguments_that_do_not_fit_are_the_recipes_mistake(arguments: dict) -> None:
    with pytest.raises(RecipeError, match="does not take the arguments"):
        build("attention-unet", 1, 1, arguments)


def test_the_nearest_argument_is_suggested() -> None:
    with pytest.raises(RecipeError, match="takes no argument 'feature'; did you mean 'features'"):
        build("attention-unet", 1, 1, {"feature": [4, 8]})


def test_the_nearest_network_is_suggested() -> None:
    with pytest.raises(RecipeError, match="did you mean 'attention-unet'"):
        build("attention-net", 1, 1, {})
    with pytest.raises(RecipeError, match="expected one of attention-unet"):
        build("xyz", 1, 1, {})


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_deep_supervision_shows_coarser_stages_to_training_only(spatial_dims: int) -> None:
    arguments = {"features": [4, 6, 8, 10], "spatial_dims": spatial_dims, "dropout": 0.0}
    network = build("attention-unet", 1, 2, arguments | {"deep_supervision": True})
    images = torch.randn(1, 1, *(13, 10, 9)[:spatial_dims])
    output = network.train()(images)
    assert isinstance(output, Supervised)
    assert len(output.coarser) == 2
    weights, every = zip(*output.weighted(), strict=True)
    assert weights == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert {logits.shape for logits in every} == {(1, 2, *images.shape[2:])}
    # a pixel of the coarsest is a block of four by four
    assert torch.equal(every[2][0, :, 0, 0], every[2][0, :, 3, 3])
    assert not torch.equal(every[2][0, :, 3, 3], every[2][0, :, 4, 4])
    assert isinstance(network.eval()(images), torch.Tensor)
