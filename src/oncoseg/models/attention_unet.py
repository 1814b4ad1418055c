"""U-Net with an additive attention gate at each skip connection (system S1's network)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oncoseg.logits import Supervised
from oncoseg.models.blocks import (
    CONVOLUTION,
    MAX_POOL,
    TRANSPOSED,
    AttentionGate,
    crop_to,
    double_convolution,
    pad_to_multiple,
)


class AttentionUNet(nn.Module):
    """Attention U-Net.

    With the defaults and four input channels it has exactly 1,885,863 trainable parameters, the
    published "approximately 1.89 million". Source: Rai and Dahal 2025, section 4.2; gates after
    Oktay et al. 2018.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of each encoder stage and, last, of the bottleneck.
        dropout: probability of dropping an element after the bottleneck, 0 ≤ p < 1.
        attention: False joins the skips unweighted (a plain U-Net).
        deep_supervision: give coarser decoder stages heads of their own, which only training sees.

    Raises:
        ValueError: other spatial dimensions, or fewer than two features.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        spatial_dims: int = 2,
        features: Sequence[int] = (64, 128, 256),
        dropout: float = 0.3,
        attention: bool = True,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in CONVOLUTION:
            raise ValueError(f"expected spatial_dims 2 or 3, got {spatial_dims}")
        if len(features) < 2 or min(features) < 1:
            raise ValueError(f"expected two or more features of at least 1, got {list(features)}")
        *stages, bottleneck = features
        self.multiple = 2 ** len(stages)
        self.pool = MAX_POOL[spatial_dims](2)
        self.encoder = nn.ModuleList(
            double_convolution(spatial_dims, inputs, outputs)
            for inputs, outputs in zip((in_channels, *stages), stages, strict=False)
        )
        self.bottleneck = double_convolution(spatial_dims, stages[-1], bottleneck)
        self.dropout = nn.Dropout(dropout)
        upwards = list(zip(reversed(features[1:]), reversed(stages), strict=True))
        self.up = nn.ModuleList(TRANSPOSED[spatial_dims](deep, fine, 2, stride=2) for deep, fine in upwards)
        self.gates = nn.ModuleList(
            AttentionGate(spatial_dims, fine) if attention else _Ungated() for _, fine in upwards
        )
        self.decoder = nn.ModuleList(double_convolution(spatial_dims, 2 * fine, fine) for _, fine in upwards)
        self.head = CONVOLUTION[spatial_dims](stages[0], classes, 1)
        coarser = reversed(stages[1:]) if deep_supervision else ()
        self.coarser_heads = nn.ModuleList(CONVOLUTION[spatial_dims](width, classes, 1) for width in coarser)

    def forward(self, images: Tensor) -> Tensor | Supervised:
        """Logits `n classes …` for images `n in_channels …` of any spatial size.

        While it is trained with deep supervision: `Supervised`.
        """
        features = pad_to_multiple(images, self.multiple)
        skips = []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
            features = self.pool(features)
        padded = skips[0].shape[2:]
        features = self.dropout(self.bottleneck(features))
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


class _Ungated(nn.Module):
    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        return skip
