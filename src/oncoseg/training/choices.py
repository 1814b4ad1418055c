"""What a recipe chooses by name: losses, optimiser, and how cases are grouped."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from oncoseg import losses
from oncoseg.recipe import Recipe
from oncoseg.store import PreparedCase
from oncoseg.training import optimisers, schedules

GROUPS: Mapping[str, Callable[[PreparedCase], str | None]] = {
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
