"""Layers whose output for one slice depends on the whole batch, where processes have a share of it each.

Batch norm takes its mean and variance over all rows, and dropout draws for all rows and takes its own, so
that several processes compute what one would.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from oncoseg.logits import Supervised
from oncoseg.training.ranks import Ranks

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Dimensions of a batch → its memory layout besides the contiguous one."""

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Layers that draw random numbers for each row."""


class WholeBatch:
    """What the layers need to know about the present batch.

    Attributes:
        ranks: the processes.
        layout: of the network's images and weights in memory.
        total: rows that the whole batch has, over all processes; set before each step.
    """

    def __init__(self, ranks: Ranks, layout: torch.memory_format = torch.contiguous_format) -> None:
        self.ranks, self.layout = ranks, layout
        self.total = 0

    def seen_by(self, network: nn.Module) -> nn.Module:
        """The network, with such layers in place of its own where there are several processes.

        Weights keep their names. Between GPUs, batch norm is PyTorch's own SyncBatchNorm.
        """
        if self.ranks.count == 1:
            return network
        if self.ranks.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return self._exchanged(network)

    def settle(self, network: nn.Module, images: Tensor, backward: Callable[[Tensor], None]) -> None:
        """Let a step of one slice in each process go by before any counts.

        DDP lays out its buckets of gradients anew after the first one, and in another place of a bucket three
        or more numbers are added in another order. A resumed run would begin with the first layout again.
        """
        own = {name: value.clone() for name, value in network.state_dict().items()}
        self.total = self.ranks.count
        output = network.train()(images)
        heads = output.weighted() if isinstance(output, Supervised) else [(1.0, output)]
        backward(torch.stack([head.mean() for _, head in heads]).sum())
        network.zero_grad(set_to_none=True)
        network.load_state_dict(own)

    def _exchanged(self, module: nn.Module) -> nn.Module:
        if isinstance(module, DROPOUTS):
            return _Dropout(module, self)
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            return _BatchNormOverAll.like(module, self)
        for name, child in module.named_children():
            setattr(module, name, self._exchanged(child))
        return module


class _Dropout(nn.Module):
    def __init__(self, own: nn.Module, batch: WholeBatch) -> None:
        super().__init__()
        self.own, self.batch = own, batch

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        layout = self._layout(features)  # random numbers are drawn in the order of memory
        shape = (self.batch.total, *features.shape[1:])
        every = torch.ones(shape, dtype=features.dtype, device=features.device)
        kept = cast(Tensor, self.own(every.contiguous(memory_format=layout)))
        return features * kept[self.batch.ranks.rows()]

    def _layout(self, features: Tensor) -> torch.memory_format:
        """That of the whole batch; a single row may have lost it, as some layers make it contiguous."""
        layout = LAYOUTS.get(features.dim(), torch.contiguous_format)
        if layout == self.batch.layout and len(features) == 1 < self.batch.total:
            return layout
        return layout if features.is_contiguous(memory_format=layout) else torch.contiguous_format


class _Sum(torch.autograd.Function):
    """Of a tensor over all processes; what any of them makes of it has a part in the gradient."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class _BatchNormOverAll(_BatchNorm):
    """Batch norm over the rows of all processes, for processors, for which PyTorch has none."""

    batch: WholeBatch

    @classmethod
    def like(cls, own: _BatchNorm, batch: WholeBatch) -> "_BatchNormOverAll":
        """Take over another one's settings and weights.

        Raises:
            ValueError: one that keeps no running statistics, or a plain average of them.
        """
        if own.momentum is None or not own.track_running_stats:
            raise ValueError("expected batch norm with running statistics and a momentum")
        made = cls(own.num_features, own.eps, own.momentum, own.affine)
        made.load_state_dict(own.state_dict())
        made.batch = batch
        return made.train(own.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, variance, count = self._statistics(input.float())
        self._remember(mean.detach(), variance.detach(), count)
        shape = (1, -1, *[1] * (input.dim() - 2))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        output = (input.float() - mean.view(shape)) * scale.view(shape)
        output = output if self.bias is None else output + self.bias.view(shape)
        return output.to(input.dtype)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and number of values of each channel, over all processes."""
        axes = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = torch.var_mean(values, axes, correction=0)
        own = torch.stack([torch.full_like(mean, values.numel() / len(mean)), mean, variance])
        places: Any = functional.one_hot(torch.tensor(self.batch.ranks.number), self.batch.ranks.count)
        every = places.to(own)[:, None, None] * own
        # summing up places that are 0 elsewhere gathers them, with a gradient of one call, too
        counts, means, variances = cast(Any, _Sum).apply(every).unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        # Chan, Golub and LeVeque 1979: of the parts and between them, without any cancellation
        return mean, (counts * (variances + (means - mean) ** 2)).sum(0) / count, count

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        momentum = cast(float, self.momentum)
        for running, new in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
            cast(Tensor, running).lerp_(new, momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)
