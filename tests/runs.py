"""What the tests of training ask of run folders."""

import csv
import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from oncoseg.run_folder import RunFolder
from oncoseg.training import checkpoints
from oncoseg.training.status import Status


def stopping_at(step: int) -> Callable[[Status], None]:
    """A monitor that makes the given step (from 1, over all stages) the last one, as SIGTERM does."""
    seen: list[Status] = []

    def look(status: Status) -> None:
        seen.append(status)
        if sum(not one.validated for one in seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return look


def log_of(run: RunFolder) -> list[dict[str, str]]:
    with run.log.open() as file:
        return [{k: v for k, v in row.items() if k != "minutes"} for row in csv.DictReader(file)]


def checkpoint_of(run: RunFolder) -> dict[str, Any]:
    return checkpoints.read(run.checkpoint, torch.device("cpu"))


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Bit for bit the same weights, log and best epoch."""
    assert one.model.read_bytes() == other.model.read_bytes()
    assert log_of(one) == log_of(other)
    assert one.metrics()["best"] == other.metrics()["best"]
    ours, theirs = checkpoint_of(one), checkpoint_of(other)
    assert ours["place"] == theirs["place"]
    for name, value in ours["network"].items():
        assert torch.equal(value, theirs["network"][name]), name
    assert str(ours["optimiser"]) == str(theirs["optimiser"])
    assert ours["schedule"] == theirs["schedule"]
