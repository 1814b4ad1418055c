"""Weights that several processes share out among them, each holding a part of every one (FSDP).

The arithmetic is that of copied weights: a stage's weights are gathered before it computes and let go after,
and each process keeps the gradient and the optimiser's state of its own part only. What is written is always
whole, so that no file depends on how many processes wrote it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

DATA_PARALLEL = "data_parallel"
"""Fabric's name for the axis of processes that have the same network and other data."""


def share_out(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Keep a part of all weights in this process; each stage of the network is gathered by itself.

    Source: Zhao et al. 2023 (PyTorch FSDP), as PyTorch's `fully_shard`.
    """
    cast(Any, network).to(memory_format=torch.contiguous_format)  # it takes no other
    network.register_forward_hook(_copied)
    for stage in [*_stages(network), network]:
        fully_shard(stage, mesh=mesh[DATA_PARALLEL])
    return network


def _copied(network: nn.Module, images: Any, output: Any) -> Any:
    """The output in memory of its own: `fully_shard` hooks on to it, which views may lose."""
    return tree_map_only(Tensor, Tensor.clone, output)


def _stages(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that are called as a whole; a list of parts is not."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from _stages(child)
        elif any(True for _ in child.parameters()):
            yield child


def complete(network: nn.Module, build: Callable[[], nn.Module]) -> nn.Module:
    """A network with all weights, for validation: processes compute with it without waiting for each other.

    Args:
        network: shared out; all processes must ask.
        build: makes one like it.
    """
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn and forgotten
        made = build()
    made.load_state_dict({name: whole(value) for name, value in network.state_dict().items()}, assign=True)
    return made.eval()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; all of it where it is not shared out."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Any, keep: bool) -> Any:
    """A nested state with its tensors put together; all processes must ask.

    Args:
        state: of dicts.
        keep: whether this process is to have it: the others need the memory of one tensor at a time.
    """
    if isinstance(state, dict):
        return {name: whole_state(value, keep) for name, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    value = whole(state)
    return value.cpu() if keep else None


def whole_weights(network: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Copies of a network's whole weights and buffers, on the CPU; all processes must ask.

    Args:
        network: shared out or not.
        keep: whether this process is to have them.
    """
    found = ((name, whole(value)) for name, value in network.state_dict().items())
    return {name: value.contiguous().to("cpu", copy=True) for name, value in found if keep}


def parted(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, as `like` is shared out; the tensor itself where it is not."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    there = value.to(like.device, memory_format=torch.contiguous_format)
    # every process has the whole, so that nothing has to be sent
    part = distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)
    return cast(Tensor, part)


def parted_state(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for the named weights of a network; names that `like` has not stay as they are."""
    return {name: parted(value, like.get(name, value)) for name, value in values.items()}


def parted_optimiser(state: Mapping[str, Any], optimiser: Optimizer) -> dict[str, Any]:
    """The same for an optimiser's state: its tensors of a weight's shape are shared out as the weight is."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    parts = {
        number: {
            name: parted(value, weights[number]) if isinstance(value, Tensor) else value
            for name, value in of_one.items()
        }
        for number, of_one in state["state"].items()
    }
    return {**state, "state": parts}
