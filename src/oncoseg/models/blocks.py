"""Building blocks shared by the networks, in 2D and 3D."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
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


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeat the border at the end of each spatial axis until its size divides by `multiple`."""
    padding: list[int] = []
    for size in reversed(images.shape[2:]):
        padding += [0, -size % multiple]
    return functional.pad(images, padding, mode="replicate") if any(padding) else images


def crop_to(images: Tensor, size: torch.Size) -> Tensor:
    """Undo `pad_to_multiple`."""
    for axis, length in enumerate(size, start=2):
        images = images.narrow(axis, 0, length)
    return images
