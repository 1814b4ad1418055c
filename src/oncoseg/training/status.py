"""What a training tells its caller: where it is, and how it ended."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ALL_DONE = "all epochs are done"
"""The reason where nothing ended a training before."""


class Status(NamedTuple):
    """Where training is, for showing progress; `validated` once an epoch's own scores are there.

    `scores` is modality → validation Dice, `class_scores` likewise each class's, where there are several.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float
    scores: Mapping[str, float]
    validated: bool = False
    class_scores: Mapping[str, Mapping[str, float]] = MappingProxyType({})


class Outcome(NamedTuple):
    """How a call of `train` ended.

    Attributes:
        run: the run folder, or that of a cross-validation.
        finished: whether all that was asked for is trained.
        reason: why it ended.
        too_late: the signal that asked for a stop when nothing was left to be stopped; empty for none.
    """

    run: Path
    finished: bool
    reason: str
    too_late: str = ""


def received(name: str) -> str:
    """The reason where a signal asked for the stop."""
    return f"{name} was received"


def spent(minutes: float) -> str:
    """The reason where the time budget is over."""
    return f"the time budget of {minutes:g} minutes is spent"


def stalled(patience: int | None, stage: str, epoch: int, epochs: int) -> str:
    """The reason where patience ended a stage before its last epoch."""
    many = f"{patience} epoch{'' if patience == 1 else 's'}"
    return f"early stopping after {stage} epoch {epoch} of {epochs}: {many} without a better validation Dice"
