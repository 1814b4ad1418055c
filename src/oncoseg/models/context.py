"""Blocks that see far around each pixel: atrous spatial pyramid pooling and spatial pyramid pooling."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oncoseg.models.blocks import BATCH_NORM, CONVOLUTION, INTERPOLATION, LEAKY_SLOPE

POOL: dict[int, Callable[..., Tensor]] = {
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}

DEFAULT_RATES = (1, 6, 12, 18)
"""Of the dilated convolutions; 6, 12 and 18 are those of DeepLab v3, and 1 is a plain convolution."""

DEFAULT_BINS = (1, 2, 3, 6)
"""Along each axis, of the pooled maps; those of PSPNet."""

BRANCH_SHARE = 4
"""A branch has a quarter of the block's channels: 256 of 1,024, which are DeepLab's and nearly PSPNet's."""


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: parallel dilated convolutions, joined and projected.

    The branches are a 1×1 convolution, a 3×3 convolution with each rate, and the mean of the whole image
    (a 1×1 convolution of it, spread over the map). Source: Chen et al. 2017 (DeepLab v3), section 3.3.
    A rate as large as the map is a 1×1 convolution: all but the centre lies in the padding.

    Args:
        spatial_dims: 2 or 3.
        channels: in and out; each branch has `channels` / 4.
        rates: dilation of each 3×3 convolution, at least 1.

    Raises:
        ValueError: no rates, or one below 1.
    """

    def __init__(self, spatial_dims: int, channels: int, rates: Sequence[int] = DEFAULT_RATES) -> None:
        super().__init__()
        if not rates or min(rates) < 1:
            raise ValueError(f"expected rates of at least 1, got {list(rates)}")
        inner = max(1, channels // BRANCH_SHARE)
        self.branches = nn.ModuleList(
            [
                _normalised(spatial_dims, channels, inner),
                *(_normalised(spatial_dims, channels, inner, 3, rate) for rate in rates),
            ]
        )
        self.pooled = PooledBranch(spatial_dims, channels, inner, bins=1)
        self.project = _normalised(spatial_dims, (len(self.branches) + 1) * inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        """`n channels …`, as it came."""
        seen = [branch(features) for branch in self.branches]
        projected: Tensor = self.project(torch.cat([*seen, self.pooled(features)], dim=1))
        return projected


class Spp(nn.Module):
    """Spatial pyramid pooling: the map beside its means over coarser and coarser grids, projected.

    Source: Zhao et al. 2017 (PSPNet), section 3.2, whose pyramid keeps its place in the map, unlike that of
    He et al. 2014, which a decoder could not use.

    Args:
        spatial_dims: 2 or 3.
        channels: in and out; each pooled map has `channels` / 4.
        bins: of each pooled map along each axis, at least 1.

    Raises:
        ValueError: no bins, or fewer than 1.
    """

    def __init__(self, spatial_dims: int, channels: int, bins: Sequence[int] = DEFAULT_BINS) -> None:
        super().__init__()
        if not bins or min(bins) < 1:
            raise ValueError(f"expected bins of at least 1, got {list(bins)}")
        inner = max(1, channels // BRANCH_SHARE)
        self.branches = nn.ModuleList(PooledBranch(spatial_dims, channels, inner, number) for number in bins)
        self.project = _normalised(spatial_dims, channels + len(bins) * inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        """`n channels …`, as it came."""
        pooled = [branch(features) for branch in self.branches]
        projected: Tensor = self.project(torch.cat([features, *pooled], dim=1))
        return projected


class PooledBranch(nn.Module):
    """The means over a grid of bins, a 1×1 convolution of them, and back to the map's size.

    There is no batch norm, because the mean of a whole image is one value per channel: in a batch of one
    it would have nothing to normalise by. The convolution has a bias in its place.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.spatial_dims, self.bins = spatial_dims, bins
        self.convolution = CONVOLUTION[spatial_dims](inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`n inputs …` to `n outputs …` of the same size."""
        pooled = POOL[self.spatial_dims](features, (self.bins,) * self.spatial_dims)
        seen = functional.leaky_relu(self.convolution(pooled), LEAKY_SLOPE)
        return functional.interpolate(seen, features.shape[2:], mode=INTERPOLATION[self.spatial_dims])


def _normalised(spatial_dims: int, inputs: int, outputs: int, size: int = 1, rate: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the map's size, batch norm and LeakyReLU."""
    padding = rate * (size // 2)
    return nn.Sequential(
        CONVOLUTION[spatial_dims](inputs, outputs, size, padding=padding, dilation=rate, bias=False),
        BATCH_NORM[spatial_dims](outputs),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    )
