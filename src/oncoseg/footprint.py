"""How much memory a training step takes, counted and not tried.

The network is built and computed on PyTorch's `meta` device, where tensors have sizes and no content. What
autograd would keep for the backward pass is counted tensor by tensor; to it come the gradients that are alive
beside it, the weights with what the optimiser keeps, and the program itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

PROGRAM_BYTES = int(0.55 * 2**30)
"""Python, torch with its libraries and caches, and a batch that is read ahead (measured: 0.5 to 0.6 GiB)."""

ALIVE = 2.0
"""Tensors as large as the largest kept one that are alive at the worst moment of the backward pass."""

WEIGHT_COPIES = 4
"""Weights, their gradients and the two moments of Adam."""

BF16_SHARE = 0.67
"""What is kept in `bf16-mixed`, against all in 32 bits (counted: 0.664): norms keep 32 bits."""


class Footprint(NamedTuple):
    """Of one training example.

    Attributes:
        kept_bytes: of all tensors that the backward pass needs, in 32 bits.
        largest_bytes: of the largest of them.
        weight_bytes: of the weights.
    """

    kept_bytes: int
    largest_bytes: int
    weight_bytes: int

    def step_bytes(self, batch_size: int, precision: str = "32-true") -> float:
        """Memory of the process at the peak of a training step."""
        share = BF16_SHARE if precision == "bf16-mixed" else 1.0
        each = self.kept_bytes + ALIVE * self.largest_bytes
        return PROGRAM_BYTES + WEIGHT_COPIES * self.weight_bytes + batch_size * each * share


def footprint(build: Callable[[], nn.Module], in_channels: int, patch: Sequence[int]) -> Footprint:
    """Count what one example of a size keeps; takes no memory and some tenths of a second.

    Args:
        build: makes the network.
        in_channels: of an example.
        patch: voxels along each axis.
    """
    with torch.device("meta"):
        network = build().train()
        weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            key = tensor.untyped_storage()._cdata
            if key not in weights:
                kept[key] = tensor  # held, so that its key stays its own
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # two examples, as some norms refuse one
            network(torch.empty(2, in_channels, *patch))
    sizes = [tensor.untyped_storage().nbytes() // 2 for tensor in kept.values()]
    weight_bytes = sum(parameter.nbytes for parameter in network.parameters())
    return Footprint(sum(sizes), max(sizes), weight_bytes)
