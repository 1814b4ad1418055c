"""Schedules of the learning rate by name, each over the whole of a stage.

A schedule is laid out over all of a stage's steps beforehand, so that slices of time give the same training
as one long call.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from oncoseg.errors import RecipeError, check_arguments, nearest

SHORTEST_WARMUP_STEPS = 2
"""Of OneCycleLR, which divides by zero where the peak would fall on the very first step."""

ANY_STEPS = 1_000_000_000
"""Stands for a stage's steps where its arguments are checked before its length is known."""

Builder = Callable[..., lr_scheduler.LRScheduler]


def constant(optimiser: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    """The same rate always."""
    return lr_scheduler.ConstantLR(optimiser, factor=1.0, total_iters=0)


def one_cycle(
    optimiser: torch.optim.Optimizer, steps: int, keeps_momentum: bool = False, *, warmup_share: float = 0.3
) -> lr_scheduler.LRScheduler:
    """Linearly from 1/25 of the peak up to it, then down to 1/250,000 of it (Smith and Topin 2018).

    The lowest rate would be that of the step after the last: the runs of the published systems were laid out
    so, and the difference is one step's part of the way down.

    Momentum (or Adam's beta1) goes from 0.95 down to 0.85 and up again, unless it is to be kept.

    Args:
        optimiser: with the peak as its rate.
        steps: of the stage.
        keeps_momentum: whether the optimiser's own is left alone.
        warmup_share: share of the steps in which the rate rises, between 0 and 1.
    """
    if not 0 < warmup_share < 1:
        raise ValueError(f"expected warmup_share between 0 and 1, got {warmup_share}")
    return lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=[float(group["lr"]) for group in optimiser.param_groups],
        total_steps=steps + 1,
        pct_start=max(warmup_share, SHORTEST_WARMUP_STEPS / (steps + 1)),
        anneal_strategy="linear",
        cycle_momentum=not keeps_momentum,
    )


def cosine(
    optimiser: torch.optim.Optimizer, steps: int, *, cycles: float = 1, lowest_share: float = 0.0
) -> lr_scheduler.LRScheduler:
    """Half a cosine wave down to a share of the rate; again from the top in each further cycle.

    The first step of each cycle has the highest rate, and its last one the lowest.

    Args:
        optimiser: with the highest rate.
        steps: of the stage.
        cycles: over the stage, of as many steps each as divide it evenly, at least 2; a whole number. 1
            never restarts.
        lowest_share: of the rate, at each cycle's end; from 0 to 1.

    Source: Loshchilov and Hutter 2017 (SGDR).
    """
    if cycles < 1 or cycles != int(cycles):
        raise ValueError(f"expected a whole number of cycles of at least 1, got {cycles}")
    if cycles > 1 and 2 * cycles > steps:
        raise ValueError(
            f"expected at least 2 steps for each cycle in every stage, got {int(cycles)} cycles for "
            f"{steps} steps; have fewer cycles or more epochs"
        )
    if not 0 <= lowest_share <= 1:
        raise ValueError(f"expected lowest_share from 0 to 1, got {lowest_share}")
    count = int(cycles)

    def share(step: int) -> float:
        step = min(step, steps - 1)
        cycle = step * count // steps
        first, after = (-(-steps * number // count) for number in (cycle, cycle + 1))
        wave = (1 + math.cos(math.pi * (step - first) / max(1, after - 1 - first))) / 2
        return lowest_share + (1 - lowest_share) * wave

    # PyTorch's own never reach the lowest rate and restart
    return lr_scheduler.LambdaLR(optimiser, share)


def polynomial(
    optimiser: torch.optim.Optimizer, steps: int, *, power: float = 0.9
) -> lr_scheduler.LRScheduler:
    """(1 − step / steps)^power of the rate, 0 only after the last step (nnU-Net's, there by epoch)."""
    if not 0 <= power < math.inf:
        raise ValueError(f"expected a power of 0 or more, got {power:g}")
    return lr_scheduler.PolynomialLR(optimiser, total_iters=max(1, steps), power=power)


def plateau(
    optimiser: torch.optim.Optimizer,
    steps: int,
    *,
    factor: float = 0.1,
    patience: float = 10,
    lowest_rate: float = 0.0,
) -> lr_scheduler.LRScheduler:
    """Times `factor` after more than `patience` epochs without a better validation Dice.

    Args:
        optimiser: with the first rate.
        steps: of the stage.
        factor: between 0 and 1.
        patience: epochs, a whole number.
        lowest_rate: the rate never falls below.
    """
    if not 0 < factor < 1:
        raise ValueError(f"expected a factor between 0 and 1, got {factor:g}")
    rate = min(float(group["lr"]) for group in optimiser.param_groups)
    if not 0 <= lowest_rate <= rate:
        raise ValueError(f"expected a lowest_rate from 0 to the learning rate {rate:g}, got {lowest_rate:g}")
    if patience < 0 or patience != int(patience):
        raise ValueError(f"expected a whole number of epochs as patience, got {patience}")
    return lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=factor, patience=int(patience), threshold=0.0, min_lr=lowest_rate
    )


SCHEDULES: dict[str, Builder] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "plateau": plateau,
    "polynomial": polynomial,
}
"""Name in a recipe → schedule of an optimiser and a number of steps."""


class Schedule:
    """A stage's schedule, whatever its kind."""

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def after_step(self) -> None:
        """Go on after a step of the optimiser."""
        if not isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step()

    def after_epoch(self, score: float) -> None:
        """Go on after an epoch with this validation Dice; NaN counts as no better."""
        if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(score)

    @property
    def rate(self) -> float:
        """The present learning rate."""
        return float(self._scheduler.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(self._scheduler.state_dict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        # what a run lacks that an older version began, with another class, keeps its value
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **state})


def build(
    name: str,
    optimiser: torch.optim.Optimizer,
    steps: int,
    arguments: Mapping[str, float],
    *,
    keeps_momentum: bool = False,
) -> Schedule:
    """Make a schedule by its name in SCHEDULES.

    Args:
        name: in SCHEDULES.
        optimiser: whose rate it sets.
        steps: of the stage.
        arguments: what it takes by name.
        keeps_momentum: whether it leaves momentum alone, where it would set that, too.

    Raises:
        RecipeError: an unknown name, or arguments that it does not take.
    """
    if name not in SCHEDULES:
        raise RecipeError(f"Unknown schedule {name!r}; {nearest(name, SCHEDULES)}")
    check_arguments(f"Schedule {name!r}", SCHEDULES[name], arguments)
    kept = {"keeps_momentum": keeps_momentum} if SCHEDULES[name] is one_cycle else {}
    try:
        return Schedule(SCHEDULES[name](optimiser, steps, **kept, **arguments))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"Schedule {name!r} does not take {dict(arguments)}: {error}.") from error
