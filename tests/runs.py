"""What the tests of training ask of run folders."""

import csv
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import torch

from oncoseg.files import sha256_of_file
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


def replace_weights(run: RunFolder, content: bytes) -> None:
    """Keep other weights, and name them as a training does."""
    run.model.write_bytes(content)
    metrics = run.metrics()
    run.write_metrics(metrics | {"best": metrics["best"] | {"sha256": sha256_of_file(run.model)}})


def checkpoint_of(run: RunFolder) -> dict[str, Any]:
    return checkpoints.read(run.checkpoint, torch.device("cpu"))


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Bit for bit the same weights, log, best epoch and whole checkpoint; only the minutes differ."""
    assert one.model.read_bytes() == other.model.read_bytes()
    assert log_of(one) == log_of(other)
    assert one.metrics()["best"] == other.metrics()["best"]
    assert_equal(checkpoint_of(one), checkpoint_of(other))


def assert_equal(one: Any, other: Any, place: str = "checkpoint") -> None:
    """The same at any depth but for `minutes`; tensors to the last number, NaN equal to itself."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), place
        assert torch.equal(one.isnan(), other.isnan()), place
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), place
    elif isinstance(one, Mapping):
        assert list(one) == list(other), place
        for key in one:
            if key != "minutes":
                assert_equal(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place}/{number}")
    else:
        assert one == other or (one != one and other != other), f"{place}: {one} and {other}"
