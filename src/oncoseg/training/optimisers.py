"""Optimisers by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import nn

from oncoseg.errors import RecipeError, check_arguments, nearest
from oncoseg.training import shards


def adam(
    parameters: Iterable[nn.Parameter],
    rate: float,
    weight_decay: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> torch.optim.Optimizer:
    """Adam; its weight decay is an L2 penalty, scaled with the gradient (Kingma and Ba 2015)."""
    _check_share("beta1", beta1)
    _check_share("beta2", beta2)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=weight_decay, betas=(beta1, beta2))


def adamw(
    parameters: Iterable[nn.Parameter],
    rate: float,
    weight_decay: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> torch.optim.Optimizer:
    """AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    _check_share("beta1", beta1)
    _check_share("beta2", beta2)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, betas=(beta1, beta2))


def sgd(
    parameters: Iterable[nn.Parameter], rate: float, weight_decay: float, *, momentum: float = 0.99
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum; 0 is without (nnU-Net takes 0.99)."""
    _check_share("momentum", momentum)
    return torch.optim.SGD(
        parameters, lr=rate, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0
    )


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": adam, "adamw": adamw, "sgd": sgd}
"""Name in a recipe → optimiser of parameters, learning rate and weight decay."""


def build(
    name: str,
    parameters: Iterable[nn.Parameter],
    rate: float,
    weight_decay: float,
    arguments: Mapping[str, float],
) -> torch.optim.Optimizer:
    """Make an optimiser by its name in OPTIMISERS.

    Raises:
        RecipeError: an unknown name, or arguments that it does not take.
    """
    if name not in OPTIMISERS:
        raise RecipeError(f"Unknown optimiser {name!r}; {nearest(name, OPTIMISERS)}")
    check_arguments(f"Optimiser {name!r}", OPTIMISERS[name], arguments)
    try:
        return OPTIMISERS[name](parameters, rate, weight_decay, **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"Optimiser {name!r} does not take {dict(arguments)}: {error}.") from error


def _check_share(name: str, kept: float) -> None:
    """Of what a moving average keeps; from 1 on it grows without bound."""
    if not 0 <= kept < 1:
        raise ValueError(f"expected a {name} of at least 0 and below 1, got {kept:g}")


def clip(fabric: Fabric, network: nn.Module, optimiser: _FabricOptimizer, norm: float | None) -> torch.Tensor:
    """Bound the norm of the gradient, unless `norm` is None; gives what it was before."""
    if norm is None:
        grads = [one.grad for one in network.parameters() if one.grad is not None]
        return shards.whole(torch.nn.utils.get_total_norm(grads))
    # its own check would wait for the GPU at every step; `Watch` does not
    found = fabric.clip_gradients(network, optimiser, max_norm=norm, error_if_nonfinite=False)
    return shards.whole(cast(torch.Tensor, found))
