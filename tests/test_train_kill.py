"""A training that is killed again and again ends with the very bits of one that never was."""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oncoseg.run_folder import RunFolder
from runs import assert_same
from tiny import tiny_recipe

KILLS = 50

CHANGES: dict[str, Any] = {"training__average_decay": 0.9, "training__optimiser__name": "adam"}


def work(out: Path, data: Mapping[str, Path], store: Path, ready: Any) -> None:
    """Begin or go on, with a checkpoint after every step so that many kills come while one is written."""
    import torch

    from oncoseg.train import resume, train
    from oncoseg.training import loop

    torch.set_num_threads(1)
    loop.CHECKPOINT_MINUTES = -1.0
    ready.set()
    if (out / "data.json").is_file():  # the last of what `train` writes before it begins
        resume(out, store=store, workers=0)
        return
    train(tiny_recipe(**CHANGES), data, out, store=store, workers=0)


class Trainer:
    """Runs `work` in processes of its own, forked from one that has imported everything."""

    def __init__(self, data: Mapping[str, Path], store: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["oncoseg.train", "tiny", "runs"])
        self._given = data, store

    def call(self, out: Path, seconds: float | None) -> tuple[bool, float]:
        """Whether it ended by itself before so many seconds, and how long it took."""
        ready = self._context.Event()
        process = self._context.Process(target=work, args=(out, *self._given, ready))
        process.start()
        assert ready.wait(120)
        began = time.monotonic()
        process.join(seconds)
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), "neither finished nor killed"
        return process.exitcode == 0, time.monotonic() - began


@pytest.mark.slow
def test_fifty_kills_at_random_instants_change_no_bit(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for what is imported beforehand
    trainer = Trainer(data, store)
    finished, duration = trainer.call(tmp_path / "whole", None)
    assert finished
    whole, rng, kills, runs = RunFolder(tmp_path / "whole"), random.Random(0), 0, 0
    while kills < KILLS:
        out, runs = tmp_path / f"run-{runs}", runs + 1
        while not trainer.call(out, rng.uniform(0, duration))[0]:
            kills += 1
            names = {path.name for path in out.iterdir()} if out.is_dir() else set()
            assert names <= {
                *("recipe.json", "split.json", "data.json", "metrics.json", "log.csv"),
                *("record.json", "nan.json", "training.lock", "tensorboard"),
                *("checkpoint.pt", "checkpoint-before.pt", "checkpoint.pt.new"),
                *("model.safetensors", "model-before.safetensors", "model.safetensors.new"),
            } | {name for name in names if name.startswith(".partial-")}
        assert_same(RunFolder(out), whole)
        assert RunFolder(out).metrics()["finished"] is True
        assert not RunFolder(out).lock.exists()
        assert not [path for path in out.iterdir() if path.name.startswith(".partial-")]
    assert runs >= 2
