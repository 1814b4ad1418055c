"""What every network promises: `(in_channels, classes, **arguments)` → logits of the images' own size."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from oncoseg.losses import focal_tversky
from oncoseg.models import MODELS, build, describe

SMALL: dict[str, list[dict[str, Any]]] = {
    "attention-unet": [
        {"features": [4, 6, 8], "dropout": 0.3},
        {"features": [4, 8], "dropout": 0.3, "context": "aspp", "context_blocks": 2, "rates": [1, 2]},
        {"features": [4, 8], "dropout": 0.3, "context": "spp", "context_blocks": 2, "bins": [1, 2]},
    ],
    "dynunet": [{"features": [4, 6, 8]}],
    "monai-unet": [{"features": [4, 6, 8]}],
    "residual-attention-unet": [
        {"features": [4, 6, 8], "most_tokens": 16},
        {"features": [4, 6, 8], "attention": "additive"},
    ],
    "segresnet": [{"first_features": 8, "blocks_down": [1, 1], "blocks_up": [1]}],
    "swin-unetr": [{"features": 12, "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 2], "window_size": 2}],
    "unetr": [{"img_size": 32, "first_features": 4, "hidden_size": 8, "mlp_dim": 8, "heads": 2}],
}
"""Arguments that make each network small, and its forms; one whose own are small needs no line here."""

NEEDS = {
    "dynunet": "monai",
    "monai-unet": "monai",
    "segresnet": "monai",
    "swin-unetr": "einops",
    "unetr": "einops",
}
"""What must be installed beside oncoseg; einops goes with MONAI."""

BY_THE_PIXEL = {"attention-unet", "dynunet", "monai-unet", "segresnet"}
"""Networks of convolutions alone, where context has no branch for the whole image."""

IN_CHANNELS, CLASSES = 3, 2


def takes_dimensions(name: str) -> bool:
    return "spatial_dims" in inspect.signature(MODELS[name]).parameters


def forms() -> Iterator[Any]:
    for name in MODELS:
        for number, arguments in enumerate(SMALL.get(name, [{}])):
            for dims in (2, 3) if takes_dimensions(name) else (2,):
                given = arguments | ({"spatial_dims": 3} if dims == 3 else {})
                yield pytest.param(name, given, id=f"{name}-{number}-{dims}D")


pytestmark = pytest.mark.parametrize(("name", "arguments"), list(forms()))


@pytest.fixture(autouse=True)
def _installed(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{name} needs it: pip install 'oncoseg[comparators]'")


def small(name: str, arguments: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return build(name, IN_CHANNELS, CLASSES, arguments)


def dims_of(arguments: dict[str, Any]) -> int:
    return int(arguments.get("spatial_dims", 2))


def images(arguments: dict[str, Any], batch: int = 2, size: tuple[int, ...] = (16, 16, 8)) -> Tensor:
    return torch.rand(
        batch, IN_CHANNELS, *size[: dims_of(arguments)], generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("size", [(16, 16, 8), (15, 17, 9), (13, 8, 5), (1, 3, 2)])
def test_logits_have_the_images_size_also_where_it_is_odd(
    name: str, arguments: dict[str, Any], size: tuple[int, ...]
) -> None:
    with torch.no_grad():
        logits = small(name, arguments).eval()(images(arguments, size=size))
    assert logits.shape == (2, CLASSES, *size[: dims_of(arguments)])
    assert torch.isfinite(logits).all()


def test_gradient_reaches_every_parameter(name: str, arguments: dict[str, Any]) -> None:
    normalised = before_batch_norm(small(name, arguments).train(), images(arguments))
    network = small(name, arguments).train()
    network(images(arguments)).square().mean().backward()
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


def test_slices_do_not_see_each_other_when_predicting(name: str, arguments: dict[str, Any]) -> None:
    network = small(name, arguments).eval()
    batch = images(arguments, batch=3)
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_predicting_twice_gives_the_same_and_leaves_the_images_alone(
    name: str, arguments: dict[str, Any]
) -> None:
    network = small(name, arguments).eval()
    batch = images(arguments)
    with torch.no_grad():
        assert torch.equal(network(batch), network(batch))
    assert torch.equal(batch, images(arguments))


def test_weights_come_back_from_safetensors(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    network = small(name, arguments).train()
    network(images(arguments))  # moves the running statistics
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = build(name, IN_CHANNELS, CLASSES, arguments)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(other.eval()(images(arguments)), network.eval()(images(arguments)))


@pytest.mark.parametrize("training", [False, True])
def test_bf16_is_finite_and_near(name: str, arguments: dict[str, Any], training: bool) -> None:
    network = small(name, arguments).train(training)
    with torch.no_grad():
        torch.manual_seed(0)
        exact = network(images(arguments))
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(images(arguments))
    assert torch.isfinite(rounded).all()
    assert (rounded.float() - exact).abs().max() < 0.1 * max(1.0, exact.abs().max().item())


def test_steps_on_one_batch_lower_the_loss(name: str, arguments: dict[str, Any]) -> None:
    network = small(name, arguments).train()
    batch = images(arguments)
    target = (batch[:, 0] > 0.5).long()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)

    def loss() -> Tensor:
        torch.manual_seed(0)  # the same dropout before and after
        return focal_tversky(network(batch), target)

    before = loss()
    before.backward()
    optimiser.step()
    assert loss() < before


def test_channels_last_changes_nothing_but_the_speed(name: str, arguments: dict[str, Any]) -> None:
    network = small(name, arguments).eval()
    layout = torch.channels_last if dims_of(arguments) == 2 else torch.channels_last_3d
    with torch.no_grad():
        plain = network(images(arguments))
        torch.testing.assert_close(
            network.to(memory_format=layout)(images(arguments).to(memory_format=layout)),
            plain,
            rtol=1e-4,
            atol=1e-5,
        )


def test_costs_are_counted_without_computing(name: str, arguments: dict[str, Any]) -> None:
    dims = dims_of(arguments)
    cost = describe(name, arguments, IN_CHANNELS, CLASSES, (16, 16, 16)[:dims])
    assert cost.parameters == sum(p.numel() for p in small(name, arguments).parameters())
    double = describe(name, arguments, IN_CHANNELS, CLASSES, (16, 16, 32)[-dims:])
    if name in BY_THE_PIXEL and "context" not in arguments:
        assert double.multiply_adds == 2 * cost.multiply_adds
    # padding to a size that the network takes may make both alike; what is said once of an image is not twice
    assert 0 < cost.multiply_adds <= double.multiply_adds <= 2 * cost.multiply_adds
