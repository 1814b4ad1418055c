"""What a recipe chooses: network, losses, optimiser, and what makes up batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from oncoseg import losses, models
from oncoseg.errors import RecipeError
from oncoseg.patches import epoch_patches
from oncoseg.recipe import Recipe
from oncoseg.sampler import Cases, ExampleIds, epoch_batches
from oncoseg.store import Prepared
from oncoseg.training import optimisers, schedules

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


def network_of(recipe: Recipe) -> nn.Module:
    """The recipe's network, with weights drawn anew."""
    makings = recipe.in_channels, len(recipe.classes), recipe.network_arguments
    return models.build(recipe.network.name, *makings)


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
        tumour = tumour_index(recipe)
        return epoch_batches(
            cast(Any, cases), training.batch_size, training.tumour_share, seed, group, tumour
        )
    shares = training.foreground_share, training.patches_per_case
    return epoch_patches(cast(Any, cases), training.batch_size, *shares, seed, group)


def tumour_index(recipe: Recipe) -> int | None:
    """Index of the class that `training.tumour_share` is about; None for any class, or without a share."""
    training = recipe.training
    if training.tumour_share is None or training.tumour_class is None:
        return None
    return list(recipe.classes).index(training.tumour_class) + 1


def check_shared(batches: Sequence[ExampleIds], processes: int, recipe: Recipe) -> None:
    """Check that each of several processes gets an example of every batch.

    Raises:
        RecipeError: the batches are smaller than that.
    """
    if any(sum(map(len, batch.values())) < processes for batch in batches):
        raise RecipeError(
            f"training.batch_size {recipe.training.batch_size} is shared by {processes} processes; expected "
            f"at least one of the {recipe.examples} for each. Start fewer processes, or train a new run with "
            "larger batches."
        )


def schedule_of(recipe: Recipe, optimiser: torch.optim.Optimizer, steps: int) -> schedules.Schedule:
    """The recipe's schedule over a stage of so many steps; a momentum that the recipe states is kept."""
    chosen = recipe.training.schedule
    stated = not {"momentum", "beta1"}.isdisjoint(recipe.training.optimiser.arguments)
    return schedules.build(chosen.name, optimiser, steps, chosen.arguments, keeps_momentum=stated)


def check_schedules(recipe: Recipe, lengths: Iterable[int]) -> None:
    """Check that the schedule fits into stages of so many steps each.

    Raises:
        RecipeError: a stage is too short for it.
    """
    for steps in lengths:
        schedule_of(recipe, optimiser_of(recipe, [torch.nn.Parameter(torch.zeros(1))]), steps)
