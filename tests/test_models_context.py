"""Pyramid pooling against plain loops, and the published family's sizes."""

import math

import pytest
import torch
from torch import Tensor, nn

from oncoseg import models
from oncoseg.errors import RecipeError
from oncoseg.models import build
from oncoseg.models.context import Aspp, PooledBranch, Spp

SLOPE = 0.01
"""Of LeakyReLU, as the blocks' page says."""

FAMILY = {
    "unet": {"attention": False},
    "attention-unet": {},
    "spp": {"context": "spp"},
    "aspp": {"context": "aspp"},
}
"""The four networks of system S4, by what they differ in."""

S4 = {"features": [64, 128, 256, 512, 1024], "dropout": 0.0}


def leaky(value: float) -> float:
    return value if value > 0 else SLOPE * value


def unsettled(module: nn.Module) -> nn.Module:
    """Give batch norm statistics and weights that change something; ready to predict."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight)
            nn.init.uniform_(part.bias)
    return module.eval()


def normalised(norm: nn.Module, channel: int, value: float) -> float:
    centred = (value - norm.running_mean[channel].item()) / math.sqrt(
        norm.running_var[channel].item() + norm.eps
    )
    return norm.weight[channel].item() * centred + norm.bias[channel].item()


def dilated(weight: Tensor, image: Tensor, row: int, column: int, rate: int) -> float:
    """One output channel of a convolution at one pixel; zeros lie around the image."""
    channels, size, _ = weight.shape
    total = 0.0
    for channel in range(channels):
        for down in range(size):
            for right in range(size):
                y, x = row + rate * (down - size // 2), column + rate * (right - size // 2)
                if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                    total += weight[channel, down, right].item() * image[channel, y, x].item()
    return total


def projected(project: nn.Sequential, inputs: list[float], channel: int) -> float:
    weight, norm = project[0].weight[channel].flatten().tolist(), project[1]
    return leaky(normalised(norm, channel, sum(w * x for w, x in zip(weight, inputs, strict=True))))


def of_means(branch: PooledBranch, means: list[float], channel: int) -> float:
    weight = branch.convolution.weight[channel].flatten().tolist()
    total = branch.convolution.bias[channel].item()
    return leaky(total + sum(w * x for w, x in zip(weight, means, strict=True)))


def test_aspp_is_its_dilated_convolutions() -> None:
    torch.manual_seed(0)
    block = unsettled(Aspp(2, channels=8, rates=(1, 3)))
    image = torch.randn(8, 5, 4)
    with torch.no_grad():
        found = block(image[None])[0]
    assert [branch[0].weight.shape[0] for branch in block.branches] == [2, 2, 2]
    means = [channel.mean().item() for channel in image]
    for row in range(5):
        for column in range(4):
            seen = [
                leaky(normalised(branch[1], n, dilated(branch[0].weight[n], image, row, column, rate)))
                for branch, rate in zip(block.branches, (1, 1, 3), strict=True)
                for n in range(2)
            ]
            seen += [of_means(block.pooled, means, n) for n in range(2)]
            expected = [projected(block.project, seen, n) for n in range(8)]
            assert found[:, row, column].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_spp_is_the_means_of_its_bins() -> None:
    torch.manual_seed(0)
    block = unsettled(Spp(2, channels=4, bins=(1, 2)))
    image = torch.randn(4, 2, 2)  # one mean for all pixels, and one for each
    with torch.no_grad():
        found = block(image[None])[0]
    means = [channel.mean().item() for channel in image]
    for row in range(2):
        for column in range(2):
            pixel = image[:, row, column].tolist()
            whole, each = block.branches
            seen = [*pixel, of_means(whole, means, 0), of_means(each, pixel, 0)]
            expected = [projected(block.project, seen, n) for n in range(4)]
            assert found[:, row, column].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_bin_is_the_mean_of_its_part_of_the_image() -> None:
    branch = PooledBranch(2, 1, 1, bins=2)
    nn.init.ones_(branch.convolution.weight)
    nn.init.zeros_(branch.convolution.bias)
    image = torch.tensor([[1.0, 3, 0, 0], [5, 7, 0, 0], [2, 2, 8, 8], [2, 2, 8, 8]])[None, None]
    # the quarters' means are 4, 0, 2 and 8; corners lie beyond the bins' centres and repeat them
    seen = branch(image)[0, 0]
    assert [seen[0, 0], seen[0, 3], seen[3, 0], seen[3, 3]] == [4, 0, 2, 8]
    assert seen[0].tolist() == [4, 3, 1, 0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("block", [Aspp, Spp])
def test_one_image_alone_can_be_trained_on(block: type[Aspp | Spp], dims: int) -> None:
    features = torch.randn(1, 8, *(2,) * dims)
    found = block(dims, 8).train()(features)
    assert found.shape == features.shape
    assert torch.isfinite(found).all()


def test_a_rate_as_large_as_the_map_sees_its_own_pixel_only() -> None:
    branch = Aspp(2, 4, rates=(15,)).branches[1][0]
    image = torch.randn(1, 4, 15, 15)
    centre = nn.functional.conv2d(image, branch.weight[..., 1:2, 1:2])
    torch.testing.assert_close(branch(image), centre)


def test_the_familys_sizes() -> None:
    counts = {
        name: models.describe("attention-unet", S4 | form, 1, 1, (240, 240)) for name, form in FAMILY.items()
    }
    parameters = {name: cost.parameters for name, cost in counts.items()}
    assert parameters == {
        "unet": 31_036_481,
        "attention-unet": 31_388_013,
        "spp": 40_834_413,
        "aspp": 66_005_613,
    }
    width, branch = 1024, 256
    norm = 2
    aspp = width * branch + 4 * 9 * width * branch + 5 * norm * branch  # 1×1, four rates
    aspp += width * branch + branch  # the whole image, with a bias
    aspp += 6 * branch * width + norm * width  # joined and projected
    assert parameters["aspp"] - parameters["attention-unet"] == 3 * aspp
    spp = 4 * (width * branch + branch) + (width + 4 * branch) * width + norm * width
    assert parameters["spp"] - parameters["attention-unet"] == 3 * spp
    # a gate with c channels: two projections to c/2 and one to 1, each with bias and batch norm
    gates = sum(2 * (c * c // 2 + 3 * c // 2) + (c // 2 + 3) for c in (64, 128, 256, 512))
    assert parameters["attention-unet"] - parameters["unet"] == gates
    assert [round(cost.multiply_adds / 1e9, 1) for cost in counts.values()] == [42.3, 43.2, 44.7, 50.8]


@pytest.mark.parametrize(
    "arguments",
    [
        {"context": "asp"},
        {"context": "aspp", "rates": []},
        {"context": "aspp", "rates": [0]},
        {"context": "spp", "bins": []},
        {"context": "spp", "bins": [1, 0]},
        {"context": "aspp", "context_blocks": 0},
    ],
)
def test_context_that_cannot_be_is_the_recipes_mistake(arguments: dict) -> None:
    with pytest.raises(RecipeError, match=r"does not take the arguments .*expected"):
        build("attention-unet", 1, 1, {"features": [4, 8]} | arguments)
