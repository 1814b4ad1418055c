"""What a recipe chooses: losses, optimiser, and what makes up batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from oncoseg import losses
from oncoseg.patches import epoch_patches
from oncoseg.recipe import Recipe
from oncoseg.sampler import Cases, ExampleIds, epoch_batches
from oncoseg.store import Prepared
from oncoseg.training import optimisers

GROUPS: Mapping[str, Callable[[Prepared], str | None]] = {
    "class": lambda case: case.target,
    "site": lambda case: case.site,
}
"""How `training.balance` groups cases; those of which nothing is known are a group, too."""


def losses_of(recipe: Recipe) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Modality → its loss of logits and masks."""
    return {
        name: losses.build(modality.loss.name, modality.loss.arguments, len(recipe.classes))
        for name, modality in recipe.modalities.items()
    }


def optimiser_of(recipe: Recipe, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser of some parameters."""
    training = recipe.training
    chosen = training.optimiser
    return optimisers.build(
        chosen.name, parameters, training.learning_rate, training.weight_decay, chosen.arguments
    )


def batches_of(recipe: Recipe, cases: Cases, seed: Sequence[int]) -> Sequence[ExampleIds]:
    """What makes up each batch of an epoch.

    Args:
        recipe: says how batches are balanced.
        cases: of the stage's modalities, prepared by this recipe.
        seed: whole numbers that decide the order.
    """
    training = recipe.training
    group = None if training.balance is None else GROUPS[training.balance]
    if recipe.preparation.spatial_dims == 2:
        return epoch_batches(cases, training.batch_size, training.tumour_share, seed, group)
    shares = training.foreground_share, training.patches_per_case
    return epoch_patches(cast(Any, cases), training.batch_size, *shares, seed, group)
