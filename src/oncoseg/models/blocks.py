"""Building blocks shared by the networks, in 2D and 3D."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}

LEAKY_SLOPE = 0.01
"""Slope of LeakyReLU below zero (PyTorch's default; the papers give none)."""


def double_convolution(spatial_dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions without bias, each followed by batch norm and LeakyReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            CONVOLUTION[spatial_dims](channels, outputs, 3, padding=1, bias=False),
            BATCH_NORM[spatial_dims](outputs),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """y = x + F(x), where F is `double_convolution`.

    Where the channels change, the shortcut x is a 1×1 convolution of it. Source: He et al. 2016, eq. 1–2;
    nothing follows the sum, as in their later identity mappings.

    Args:
        spatial_dims: 2 or 3.
        inputs: channels of x.
        outputs: channels of y.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = double_convolution(spatial_dims, inputs, outputs)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else CONVOLUTION[spatial_dims](inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`n inputs …` to `n outputs …` of the same size."""
        summed: Tensor = self.shortcut(features) + self.body(features)
        return summed


class AttentionGate(nn.Module):
    """Additive attention gate on a skip connection.

    α = σ(ψᵀ ReLU(W_x x + W_g g + b)), x' = α · x, with a 1×1 convolution and batch norm for each of
    W_x, W_g and ψ. Source: Oktay et al. 2018, eq. 1–2; Rai and Dahal 2025, eq. 1–2 (which leaves
    the ReLU out of its formula).

    Args:
        spatial_dims: 2 or 3.
        channels: of the skip x and of the gating signal g.
        inner: channels in which both are added; half of `channels` by default.
    """

    def __init__(self, spatial_dims: int, channels: int, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or max(1, channels // 2)
        self.from_skip = self._projection(spatial_dims, channels, inner)
        self.from_gate = self._projection(spatial_dims, channels, inner)
        self.to_weight = self._projection(spatial_dims, inner, 1)

    @staticmethod
    def _projection(spatial_dims: int, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(CONVOLUTION[spatial_dims](inputs, outputs, 1), BATCH_NORM[spatial_dims](outputs))

    def weight(self, skip: Tensor, gate: Tensor) -> Tensor:
        """α in (0, 1), one value per position, `n 1 …`."""
        joined = functional.relu(self.from_skip(skip) + self.from_gate(gate))
        return torch.sigmoid(self.to_weight(joined))

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The skip, weighted; skip and gate have the same shape `n channels …`."""
        return skip * self.weight(skip, gate)


def pooling_factors(
    spatial_dims: int, steps: int, strides: Sequence[int | Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """By how much each pooling step shrinks each axis.

    Args:
        spatial_dims: 2 or 3.
        steps: how many there are.
        strides: one per step, a number for all axes or one for each axis; None for 2 everywhere. Thick
            slices want (2, 2, 1) until their voxels are about cubes.

    Raises:
        ValueError: another number of steps or axes, or factors below 1.
    """
    factors = [
        (step,) * spatial_dims if isinstance(step, int) else tuple(step) for step in strides or [2] * steps
    ]
    if len(factors) != steps or any(len(step) != spatial_dims or min(step) < 1 for step in factors):
        raise ValueError(
            f"expected strides for {steps} steps, each a number or {spatial_dims} numbers of at least 1, "
            f"got {strides}"
        )
    return factors


def joined_factors(factors: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """By how much all steps together shrink each axis."""
    return tuple(prod(axis) for axis in zip(*factors, strict=True))


def pad_to_multiple(
    images: Tensor, multiple: int | Sequence[int], smallest: int | Sequence[int] = 1
) -> Tensor:
    """Repeat the border at the end of each spatial axis until its size divides by `multiple`.

    Args:
        images: `n c …`.
        multiple: of all axes, or of each.
        smallest: size that an axis gets at least, of all or of each; a multiple itself.
    """
    axes = images.ndim - 2
    multiples = (multiple,) * axes if isinstance(multiple, int) else multiple
    least = (smallest,) * axes if isinstance(smallest, int) else smallest
    padding: list[int] = []
    for size, divisor, minimum in reversed(list(zip(images.shape[2:], multiples, least, strict=True))):
        padding += [0, max(minimum - size, -size % divisor)]
    return functional.pad(images, padding, mode="replicate") if any(padding) else images


def crop_to(images: Tensor, size: torch.Size) -> Tensor:
    """Undo `pad_to_multiple`."""
    for axis, length in enumerate(size, start=2):
        images = images.narrow(axis, 0, length)
    return images
