"""U-Net with additive attention gates and, if wanted, context in its bottleneck (systems S1 and S4)."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from oncoseg.models.blocks import AttentionGate, double_convolution
from oncoseg.models.context import DEFAULT_BINS, DEFAULT_RATES, Aspp, Spp
from oncoseg.models.unet import Context, UNet, no_context, ungated


def attention_unet(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    features: Sequence[int] = (64, 128, 256),
    strides: Sequence[int | Sequence[int]] | None = None,
    dropout: float = 0.3,
    attention: bool = True,
    context: Literal["aspp", "spp"] | None = None,
    context_blocks: int = 3,
    rates: Sequence[int] = DEFAULT_RATES,
    bins: Sequence[int] = DEFAULT_BINS,
    deep_supervision: bool = False,
) -> UNet:
    """U-Net with additive attention gates (Oktay et al. 2018) and, if wanted, context in its bottleneck.

    With the defaults and four input channels it has exactly 1,885,863 trainable parameters, the
    published "approximately 1.89 million". Source: Rai and Dahal 2025, section 4.2; gates after
    Oktay et al. 2018. With context it is a network of Roy Chowdhury and Mirzaei, section 2, whose four
    networks differ by `attention` and `context` alone: the blocks follow the bottleneck's two convolutions.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of each encoder stage and, last, of the bottleneck.
        strides: pooling factor of each step, for all axes or for each; None for 2 everywhere.
        dropout: probability of dropping an element after the bottleneck, 0 ≤ p < 1.
        attention: False joins the skips unweighted (a plain U-Net).
        context: atrous spatial pyramid pooling or spatial pyramid pooling; None for neither.
        context_blocks: how many such blocks in a row.
        rates: dilation of each parallel convolution of `aspp`.
        bins: cells along each axis of each pooled map of `spp`.
        deep_supervision: give coarser decoder stages heads of their own, which only training sees.

    Raises:
        ValueError: other spatial dimensions, fewer than two features, strides that do not fit them, another
            context, or fewer than one of its blocks.
    """
    return UNet(
        in_channels,
        classes,
        block=double_convolution,
        gate=AttentionGate if attention else ungated,
        context=_context(context, context_blocks, rates, bins),
        spatial_dims=spatial_dims,
        features=features,
        strides=strides,
        dropout=dropout,
        deep_supervision=deep_supervision,
    )


def _context(name: str | None, blocks: int, rates: Sequence[int], bins: Sequence[int]) -> Context:
    if name is None:
        return no_context
    kinds: dict[str, Context] = {"aspp": partial(Aspp, rates=rates), "spp": partial(Spp, bins=bins)}
    if name not in kinds or blocks < 1:
        raise ValueError(f"expected context aspp or spp with at least one block, got {name!r} with {blocks}")
    return lambda spatial_dims, channels: nn.Sequential(
        *(kinds[name](spatial_dims, channels) for _ in range(blocks))
    )
