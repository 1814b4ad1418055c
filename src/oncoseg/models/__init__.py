"""Networks. Each takes `(in_channels, classes, **arguments)` and returns logits."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from oncoseg.errors import RecipeError, check_arguments, nearest
from oncoseg.models.attention_unet import attention_unet
from oncoseg.models.comparators import dynunet, monai_unet, segresnet, swin_unetr, unetr
from oncoseg.models.residual_attention_unet import residual_attention_unet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "attention-unet": attention_unet,
    "dynunet": dynunet,
    "monai-unet": monai_unet,
    "residual-attention-unet": residual_attention_unet,
    "segresnet": segresnet,
    "swin-unetr": swin_unetr,
    "unetr": unetr,
}
"""Name in a recipe → network. A new architecture is one file beside this one and a line here."""


class Cost(NamedTuple):
    """What a network costs."""

    parameters: int
    """Trainable parameters."""
    multiply_adds: int
    """Multiply–adds of the convolutions and matrix products for one image."""


def build(name: str, in_channels: int, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Make a network by its name in MODELS.

    Raises:
        RecipeError: an unknown name, or arguments that the network does not take.
    """
    if name not in MODELS:
        raise RecipeError(f"Unknown network {name!r}; {nearest(name, MODELS)}")
    check_arguments(f"Network {name!r}", MODELS[name], arguments)
    try:
        return MODELS[name](in_channels, classes, **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"Network {name!r} does not take the arguments {dict(arguments)}: {error}."
        ) from error


def describe(
    name: str, arguments: Mapping[str, Any], in_channels: int, classes: int, size: tuple[int, ...]
) -> Cost:
    """Count parameters, and the multiply–adds for one image of `size` voxels, without computing it."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build(name, in_channels, classes, arguments).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, in_channels, *size))
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Cost(parameters, counter.get_total_flops() // 2)
