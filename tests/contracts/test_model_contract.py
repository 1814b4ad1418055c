"""What every network promises: `(in_channels, classes, **arguments)` → logits of the images' own size."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from oncoseg.losses import focal_tversky
from oncoseg.models import MODELS, build, describe

SMALL: dict[str, dict[str, Any]] = {"attention-unet": {"features": [4, 6, 8], "dropout": 0.3}}
"""Arguments that make each network small; a new network needs a line here only if its own are large."""

IN_CHANNELS, CLASSES = 3, 2

VARIANTS = [
    (name, dims)
    for name, network in MODELS.items()
    for dims in ((2, 3) if "spatial_dims" in inspect.signature(network).parameters else (2,))
]
pytestmark = pytest.mark.parametrize(("name", "dims"), VARIANTS)


def small(name: str, dims: int) -> nn.Module:
    torch.manual_seed(0)
    arguments = SMALL.get(name, {}) | ({"spatial_dims": dims} if dims == 3 else {})
    return build(name, IN_CHANNELS, CLASSES, arguments)


def images(dims: int, batch: int = 2, size: tuple[int, ...] = (16, 16, 8)) -> Tensor:
    return torch.rand(batch, IN_CHANNELS, *size[:dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(16, 16, 8), (15, 17, 9), (13, 8, 5), (1, 3, 2)])
def test_logits_have_the_images_size_also_where_it_is_odd(
    name: str, dims: int, size: tuple[int, ...]
) -> None:
    with torch.no_grad():
        logits = small(name, dims).eval()(images(dims, size=size))
    assert logits.shape == (2, CLASSES, *size[:dims])
    assert torch.isfinite(logits).all()


def test_gradient_reaches_every_parameter(name: str, dims: int) -> None:
    normalised = before_batch_norm(small(name, dims).train(), images(dims))
    network = small(name, dims).train()
    network(images(dims)).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        module, _, leaf = parameter_name.rpartition(".")
        if not (leaf == "bias" and module in normalised):  # batch norm takes such a bias away again
            assert parameter.grad.abs().max() > 0, parameter_name


def before_batch_norm(network: nn.Module, batch: Tensor) -> set[str]:
    """Names of the modules whose output goes into batch norm as it is."""
    made: list[tuple[str, Tensor, int]] = []
    found: set[str] = set()

    def leave(name: str, output: Tensor) -> None:
        made.append((name, output, output._version))

    def enter(tensor: Tensor) -> None:
        # the version tells whether it was changed in place on the way
        found.update(
            name for name, output, version in made if output is tensor and version == tensor._version
        )

    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs: enter(inputs[0]))
        elif not list(module.children()):
            module.register_forward_hook(lambda _, inputs, output, name=name: leave(name, output))
    network(batch)
    return found


def test_slices_do_not_see_each_other_when_predicting(name: str, dims: int) -> None:
    network = small(name, dims).eval()
    batch = images(dims, batch=3)
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_predicting_twice_gives_the_same_and_leaves_the_images_alone(name: str, dims: int) -> None:
    network = small(name, dims).eval()
    batch = images(dims)
    with torch.no_grad():
        assert torch.equal(network(batch), network(batch))
    assert torch.equal(batch, images(dims))


def test_weights_come_back_from_safetensors(name: str, dims: int, tmp_path: Path) -> None:
    network = small(name, dims).train()
    network(images(dims))  # moves the running statistics
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = build(
        name, IN_CHANNELS, CLASSES, SMALL.get(name, {}) | ({"spatial_dims": 3} if dims == 3 else {})
    )
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(other.eval()(images(dims)), network.eval()(images(dims)))


@pytest.mark.parametrize("training", [False, True])
def test_bf16_is_finite_and_near(name: str, dims: int, training: bool) -> None:
    network = small(name, dims).train(training)
    with torch.no_grad():
        torch.manual_seed(0)
        exact = network(images(dims))
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(images(dims))
    assert torch.isfinite(rounded).all()
    assert (rounded.float() - exact).abs().max() < 0.1 * max(1.0, exact.abs().max().item())


def test_steps_on_one_batch_lower_the_loss(name: str, dims: int) -> None:
    network = small(name, dims).train()
    batch = images(dims)
    target = (batch[:, 0] > 0.5).long()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)

    def loss() -> Tensor:
        torch.manual_seed(0)  # the same dropout before and after
        return focal_tversky(network(batch), target)

    before = loss()
    before.backward()
    optimiser.step()
    assert loss() < before


def test_channels_last_changes_nothing_but_the_speed(name: str, dims: int) -> None:
    network = small(name, dims).eval()
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    with torch.no_grad():
        plain = network(images(dims))
        torch.testing.assert_close(
            network.to(memory_format=layout)(images(dims).to(memory_format=layout)),
            plain,
            rtol=1e-4,
            atol=1e-5,
        )


def test_costs_are_counted_without_computing(name: str, dims: int) -> None:
    arguments = SMALL.get(name, {}) | ({"spatial_dims": dims} if dims == 3 else {})
    cost = describe(name, arguments, IN_CHANNELS, CLASSES, (16, 16, 16)[:dims])
    assert cost.parameters == sum(p.numel() for p in small(name, dims).parameters())
    double = describe(name, arguments, IN_CHANNELS, CLASSES, (16, 16, 32)[-dims:])
    assert double.multiply_adds == 2 * cost.multiply_adds > 0
