"""A moving average of a network's weights, which is validated and kept in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from oncoseg.training import shards


class AverageWeights:
    """Exponential moving average of all floating-point weights and buffers.

    After n steps the decay is the smaller of `decay` and (1 + n) / (10 + n), so that the random
    weights of the beginning are soon forgotten (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._values = {name: value.clone() for name, value in _floating(network).items()}

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Take in the weights after a step of the optimiser."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        fresh = _floating(network)
        averages = [shards.local(value) for value in self._values.values()]
        torch._foreach_lerp_(averages, [shards.local(fresh[name]) for name in self._values], 1 - decay)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """The network computes with the averages within, and with its own weights again afterwards."""
        own = {name: value.clone() for name, value in _floating(network).items()}
        _put(network, self._values)
        try:
            yield
        finally:
            _put(network, own)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"steps": self._steps, "values": self._values}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what `state` gave."""
        values, steps = state["values"], state["steps"]
        assert isinstance(values, dict)
        assert isinstance(steps, int)
        if set(values) != set(self._values):
            raise ValueError("the averaged weights are of another network")
        self._values, self._steps = shards.parted_state(values, self._values), steps


def _floating(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def _put(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    there = network.state_dict()
    for name, value in values.items():
        there[name].copy_(value)
