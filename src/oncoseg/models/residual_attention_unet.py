"""U-Net of residual blocks, with attention on its skips (system S5)."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from oncoseg.models.blocks import AttentionGate, ResidualBlock
from oncoseg.models.dot_product import MOST_TOKENS, DotProductGate
from oncoseg.models.unet import Gate, UNet, no_context, ungated


def residual_attention_unet(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    features: Sequence[int] = (8, 16, 32, 64, 128),
    strides: Sequence[int | Sequence[int]] | None = None,
    attention: Literal["dot-product", "additive"] | None = "dot-product",
    most_tokens: int = MOST_TOKENS,
    dropout: float = 0.0,
    deep_supervision: bool = False,
) -> UNet:
    """U-Net of residual blocks, with dot-product attention on its skips.

    Source: "Building an Attention Residual UNet for CT Liver Segmentation" (S5), section "My Architecture";
    8 features to begin with for the liver, 16 for its vessels.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of each encoder stage and, last, of the bottleneck.
        strides: pooling factor of each step, for all axes or for each; None for 2 everywhere.
        attention: what weighs each skip (Oktay et al. 2018 for `additive`); None joins skips as they are.
        most_tokens: keys and values of an image at most, for dot-product attention.
        dropout: probability of dropping an element after the bottleneck, 0 ≤ p < 1.
        deep_supervision: give coarser decoder stages heads of their own, which only training sees.

    Raises:
        ValueError: other spatial dimensions, fewer than two features, strides that do not fit them, another
            attention, or fewer than one token.
    """
    gates: dict[str | None, Gate] = {
        "dot-product": partial(DotProductGate, most_tokens=most_tokens),
        "additive": AttentionGate,
        None: ungated,
    }
    if attention not in gates:
        raise ValueError(
            "expected attention dot-product, additive or none (in JSON null, in Python None), got "
            f"{attention!r}"
        )
    return UNet(
        in_channels,
        classes,
        block=ResidualBlock,
        gate=gates[attention],
        context=no_context,
        spatial_dims=spatial_dims,
        features=features,
        strides=strides,
        dropout=dropout,
        deep_supervision=deep_supervision,
    )
