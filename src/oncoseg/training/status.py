"""What a training tells its caller: where it is, and how it ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Status(NamedTuple):
    """Where training is, for showing progress; `validated` once an epoch's own scores are there."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float
    scores: Mapping[str, float]
    validated: bool = False


class Outcome(NamedTuple):
    """How a call of `train` ended."""

    run: Path
    finished: bool
    reason: str
