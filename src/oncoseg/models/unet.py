"""The U-Net that our convolutional networks share: they choose its blocks, gates and bottleneck."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oncoseg.logits import Supervised
from oncoseg.models.blocks import (
    CONVOLUTION,
    MAX_POOL,
    TRANSPOSED,
    crop_to,
    joined_factors,
    pad_to_multiple,
    pooling_factors,
)

Block = Callable[[int, int, int], nn.Module]
"""(spatial_dims, inputs, outputs) → what computes a stage."""

Gate = Callable[[int, int], nn.Module]
"""(spatial_dims, channels) → what weighs a skip: it is called with the skip and the decoder's features."""

Context = Callable[[int, int], nn.Module]
"""(spatial_dims, channels) → what follows the bottleneck's block."""


class UNet(nn.Module):
    """Encoder, bottleneck and decoder with skips, for images of any size.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        block: of every stage.
        gate: of every skip; see `ungated`.
        context: of the bottleneck; see `no_context`.
        spatial_dims: 2 or 3.
        features: channels of each encoder stage and, last, of the bottleneck.
        strides: see `pooling_factors`.
        dropout: probability of dropping an element after the bottleneck, 0 ≤ p < 1.
        deep_supervision: give coarser decoder stages heads of their own, which only training sees.

    Raises:
        ValueError: other spatial dimensions, fewer than two features, or strides that do not fit them.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        block: Block,
        gate: Gate,
        context: Context,
        spatial_dims: int,
        features: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None,
        dropout: float,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        if spatial_dims not in CONVOLUTION:
            raise ValueError(f"expected spatial_dims 2 or 3, got {spatial_dims}")
        if len(features) < 2 or min(features) < 1:
            raise ValueError(f"expected two or more features of at least 1, got {list(features)}")
        *stages, bottleneck = features
        factors = pooling_factors(spatial_dims, len(stages), strides)
        self.multiples = joined_factors(factors)
        self.pools = nn.ModuleList(MAX_POOL[spatial_dims](factor) for factor in factors)
        self.encoder = nn.ModuleList(
            block(spatial_dims, inputs, outputs)
            for inputs, outputs in zip((in_channels, *stages), stages, strict=False)
        )
        self.bottleneck = block(spatial_dims, stages[-1], bottleneck)
        self.context = context(spatial_dims, bottleneck)
        self.dropout = nn.Dropout(dropout)
        upwards = list(zip(reversed(features[1:]), reversed(stages), reversed(factors), strict=True))
        self.up = nn.ModuleList(
            TRANSPOSED[spatial_dims](deep, fine, factor, stride=factor) for deep, fine, factor in upwards
        )
        self.gates = nn.ModuleList(gate(spatial_dims, fine) for _, fine, _ in upwards)
        self.decoder = nn.ModuleList(block(spatial_dims, 2 * fine, fine) for _, fine, _ in upwards)
        self.head = CONVOLUTION[spatial_dims](stages[0], classes, 1)
        coarser = reversed(stages[1:]) if deep_supervision else ()
        self.coarser_heads = nn.ModuleList(CONVOLUTION[spatial_dims](width, classes, 1) for width in coarser)

    def forward(self, images: Tensor) -> Tensor | Supervised:
        """Logits `n classes …` for images `n in_channels …` of any spatial size.

        While it is trained with deep supervision: `Supervised`.
        """
        features = pad_to_multiple(images, self.multiples)
        skips = []
        for stage, pool in zip(self.encoder, self.pools, strict=True):
            features = stage(features)
            skips.append(features)
            features = pool(features)
        padded = skips[0].shape[2:]
        features = self.dropout(self.context(self.bottleneck(features)))
        stages = []
        for up, gate, stage in zip(self.up, self.gates, self.decoder, strict=True):
            features = up(features)
            features = stage(torch.cat([gate(skips.pop(), features), features], dim=1))
            stages.append(features)
        logits = crop_to(self.head(features), images.shape[2:])
        if not self.coarser_heads or not self.training:
            return logits
        coarser = [
            crop_to(functional.interpolate(head(features).float(), padded), images.shape[2:])
            for head, features in zip(self.coarser_heads, stages[:-1], strict=True)
        ]
        return Supervised(logits, tuple(reversed(coarser)))


class Ungated(nn.Module):
    """Joins a skip as it is."""

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The skip."""
        return skip


def ungated(spatial_dims: int, channels: int) -> nn.Module:
    """A gate that weighs nothing."""
    return Ungated()


def no_context(spatial_dims: int, channels: int) -> nn.Module:
    """Nothing after the bottleneck's block."""
    return nn.Identity()
