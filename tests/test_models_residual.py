"""Dot-product attention against a plain loop, its cost counted by hand, and S5's sizes."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from oncoseg import models
from oncoseg.errors import RecipeError
from oncoseg.models import build
from oncoseg.models.blocks import ResidualBlock
from oncoseg.models.dot_product import DotProductGate, token_grid


def linear(convolution: torch.nn.Module, inputs: list[float]) -> list[float]:
    """A 1×1 convolution at one position."""
    rows = convolution.weight.flatten(1).tolist()
    biases = [0.0] * len(rows) if convolution.bias is None else convolution.bias.tolist()
    return [
        bias + sum(w * x for w, x in zip(row, inputs, strict=True))
        for row, bias in zip(rows, biases, strict=True)
    ]


def attended(gate: DotProductGate, query_at: list[float], seen: list[list[float]]) -> float:
    """α at one position: of its own features and those of every key."""
    query = linear(gate.query, query_at)
    keys, values = [linear(gate.key, one) for one in seen], [linear(gate.value, one) for one in seen]
    products = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
    exponents = [math.exp(product / math.sqrt(len(query))) for product in products]
    mixed = [
        sum(e * value[n] for e, value in zip(exponents, values, strict=True)) / sum(exponents)
        for n in range(len(query))
    ]
    (odds,) = linear(gate.to_weight, mixed)
    return 1 / (1 + math.exp(-odds))


def check(gate: DotProductGate, skip: Tensor, signal: Tensor, seen: list[list[float]]) -> None:
    with torch.no_grad():
        weighted = gate(skip, signal)
    for place in torch.cartesian_prod(*(torch.arange(length) for length in skip.shape[2:])):
        where = (0, slice(None), *place.tolist())
        alpha = attended(gate, signal[where].tolist(), seen)
        expected = [alpha * value for value in skip[where].tolist()]
        assert weighted[where].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_dot_product_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    gate = DotProductGate(2, channels=4)
    skip, signal = 3 * torch.randn(1, 4, 2, 3), 3 * torch.randn(1, 4, 2, 3)
    check(gate, skip, signal, [skip[0, :, y, x].tolist() for y in range(2) for x in range(3)])


def test_keys_and_values_are_of_means_where_there_are_many_pixels() -> None:
    torch.manual_seed(0)
    gate = DotProductGate(2, channels=4, most_tokens=2)
    skip, signal = 3 * torch.randn(1, 4, 4, 2), 3 * torch.randn(1, 4, 4, 2)
    columns = [skip[0, :, :, x].mean(1).tolist() for x in range(2)]  # rows are halved twice
    check(gate, skip, signal, columns)


def test_dot_product_attention_in_3d() -> None:
    torch.manual_seed(0)
    gate = DotProductGate(3, channels=2, inner=2)
    skip, signal = torch.randn(1, 2, 2, 2, 2), torch.randn(1, 2, 2, 2, 2)
    check(gate, skip, signal, skip[0].flatten(1).T.tolist())


@pytest.mark.parametrize(
    ("size", "most", "grid"),
    [
        ((512, 512), 256, (16, 16)),
        ((16, 16), 256, (16, 16)),
        ((17, 17), 256, (9, 17)),
        ((30, 3), 10, (2, 3)),
        ((64, 64, 16), 256, (4, 8, 8)),
        ((1, 1), 1, (1, 1)),
        ((5, 7), 1, (1, 1)),
    ],
)
def test_tokens_lie_on_a_grid_of_bounded_size(size: tuple, most: int, grid: tuple) -> None:
    assert token_grid(size, most) == grid


@pytest.mark.parametrize("side", [32, 64, 512])
def test_cost_grows_like_the_number_of_pixels(side: int) -> None:
    channels, inner, tokens, pixels = 8, 4, 256, side * side
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        gate, features = DotProductGate(2, channels), torch.empty(1, channels, side, side)
        gate(features, features)
    per_pixel = channels * inner + 2 * tokens * inner + inner  # query; QKᵀ and times V; ψ
    once = 2 * tokens * channels * inner  # keys and values
    assert counter.get_total_flops() / 2 == pixels * per_pixel + once


def test_a_residual_block_adds_its_input() -> None:
    torch.manual_seed(0)
    same, wider = ResidualBlock(2, 3, 3).eval(), ResidualBlock(2, 3, 5).eval()
    image = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(same(image), image + same.body(image))
        torch.testing.assert_close(wider(image), wider.shortcut(image) + wider.body(image))
    assert sum(p.numel() for p in same.parameters()) == 2 * (9 * 3 * 3 + 2 * 3)
    assert sum(p.numel() for p in wider.parameters()) == 9 * 3 * 5 + 9 * 5 * 5 + 2 * 2 * 5 + 3 * 5 + 5


def block(inputs: int, outputs: int) -> int:
    """Parameters of a residual block."""
    shortcut = 0 if inputs == outputs else inputs * outputs + outputs
    return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs + shortcut


def gate(channels: int) -> int:
    """Parameters of a dot-product gate."""
    inner = channels // 2
    return (channels + 1) * inner + channels * inner + (channels + 1) * inner + inner + 1


@pytest.mark.parametrize(("first", "published"), [(8, 516_898), (16, 2_063_102)])
def test_s5s_sizes(first: int, published: int) -> None:
    features = [first * 2**level for level in range(5)]
    cost = models.describe("residual-attention-unet", {"features": features}, 1, 2, (512, 512))
    pairs = list(pairwise(features))
    expected = sum(block(i, o) for i, o in ((1, first), *pairs)) + 2 * first + 2
    expected += sum(4 * wide * fine + fine + block(2 * fine, fine) + gate(fine) for fine, wide in pairs)
    assert cost.parameters == expected == published


@pytest.mark.parametrize("arguments", [{"attention": "dot"}, {"most_tokens": 0}])
def test_attention_that_cannot_be_is_the_recipes_mistake(arguments: dict) -> None:
    with pytest.raises(RecipeError, match=r"does not take the arguments .*expected"):
        build("residual-attention-unet", 1, 1, {"features": [4, 8]} | arguments)
