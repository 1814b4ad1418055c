"""Dot-product attention on a skip connection, at a cost that grows like the number of pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from oncoseg.models.blocks import CONVOLUTION
from oncoseg.models.context import POOL

MOST_TOKENS = 256
"""Keys and values of an image at most, such as 16×16; every pixel is a query."""


class DotProductGate(nn.Module):
    """Weighs a skip by scaled dot-product attention of the decoder's features to it.

    A = softmax(QKᵀ/√d) V, α = σ(ψᵀ A + b), x' = α · x. The queries Q are a 1×1 convolution of the gating
    signal at every position; keys K and values V are 1×1 convolutions of the skip. Where the skip has more
    than `most_tokens` positions, K and V are of its means over a grid of so many cells at most, so that time
    and memory grow like the number of pixels and not like its square.

    Source: the residual attention U-Net for CT of the liver (S5) gives F_att = α ⊙ F and the softmax; that
    queries come from the decoder, and the sigmoid to one weight for each position as in the additive
    gate, are ours. Softmax after Vaswani et al. 2017, eq. 1.

    Args:
        spatial_dims: 2 or 3.
        channels: of the skip x and of the gating signal g.
        inner: d, channels of queries, keys and values; half of `channels` by default.
        most_tokens: keys and values of an image at most, at least 1.

    Raises:
        ValueError: fewer than one token.
    """

    def __init__(
        self, spatial_dims: int, channels: int, inner: int | None = None, most_tokens: int = MOST_TOKENS
    ) -> None:
        super().__init__()
        if most_tokens < 1:
            raise ValueError(f"expected most_tokens of at least 1, got {most_tokens}")
        inner = inner or max(1, channels // 2)
        convolution = CONVOLUTION[spatial_dims]
        self.spatial_dims, self.most_tokens = spatial_dims, most_tokens
        self.query = convolution(channels, inner, 1)
        # the same bias for every key would leave the softmax as it is
        self.key = convolution(channels, inner, 1, bias=False)
        self.value = convolution(channels, inner, 1)
        self.to_weight = convolution(inner, 1, 1)

    def weight(self, skip: Tensor, gate: Tensor) -> Tensor:
        """α in (0, 1), one value per position, `n 1 …`."""
        grid = token_grid(tuple(skip.shape[2:]), self.most_tokens)
        seen = skip if grid == skip.shape[2:] else POOL[self.spatial_dims](skip, grid)
        query = self.query(gate)
        # computes a block of queries at a time and never holds all products
        found = functional.scaled_dot_product_attention(
            _tokens(query), _tokens(self.key(seen)), _tokens(self.value(seen))
        )
        return torch.sigmoid(self.to_weight(found[:, 0].transpose(1, 2).reshape(query.shape)))

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The skip, weighted; skip and gate have the same shape `n channels …`."""
        return skip * self.weight(skip, gate)


def token_grid(size: tuple[int, ...], most: int) -> tuple[int, ...]:
    """A grid of at most `most` cells: the longest axis is halved, the first of equals, until it is.

    Args:
        size: positions along each axis.
        most: cells, at least 1.
    """
    grid = list(size)
    while torch.Size(grid).numel() > most:
        longest = grid.index(max(grid))
        grid[longest] = -(-grid[longest] // 2)
    return tuple(grid)


def _tokens(features: Tensor) -> Tensor:
    """`n d …` as one head of tokens, `n 1 positions d`."""
    return features.flatten(2).transpose(1, 2)[:, None].contiguous()
