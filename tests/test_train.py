"""Training on tiny data: what a run folder holds, and that stopping and resuming changes nothing."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from oncoseg.errors import DataError, RecipeError, RunError
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import Outcome, Status, resume, stages_of, train
from tiny import tiny_data, tiny_recipe


def run_of(root: Path, name: str = "run", recipe: Recipe | None = None, **options: Any) -> Outcome:
    data = root / "data"
    folders = {"mri": data / "mri", "ct": data / "ct"} if data.exists() else tiny_data(data)
    return train(recipe or tiny_recipe(), folders, root / name, store=root / "store", workers=0, **options)


def log_of(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def without_minutes(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "minutes"} for row in rows]


class StopAt:
    """A monitor that asks for a stop, as Ctrl-C does, after so many steps in all."""

    def __init__(self, steps: int, number: signal.Signals = signal.SIGINT) -> None:
        self.left, self.number = steps, number

    def __call__(self, status: Status) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def test_a_run_folder_is_complete(tmp_path: Path) -> None:
    seen: list[Status] = []
    outcome = run_of(tmp_path, monitor=seen.append)
    assert outcome.finished
    run = RunFolder(outcome.run)
    names = {path.name for path in run.path.iterdir()} - {"tensorboard"}
    assert names == {
        *("recipe.json", "split.json", "data.json", "metrics.json"),
        *("log.csv", "model.safetensors", "checkpoint.pt"),
    }
    assert run.recipe() == tiny_recipe()
    assert run.metrics()["finished"] is True
    patients = [set(side) for part in (run.split()["mri"],) for side in part.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 4
    rows = log_of(run.path)
    assert [(row["stage"], row["epoch"], row["modality"]) for row in rows] == [
        ("pretrain", "1", "ct"),
        *(("joint", epoch, modality) for epoch in "12" for modality in ("mri", "ct")),
    ]
    assert seen[-1].step == seen[-1].steps
    assert set(seen[-1].scores) == {"mri", "ct"}
    # the last status but none after it: nothing is left
    assert seen[-1].seconds_left == pytest.approx(0)


def test_the_kept_weights_are_those_of_the_best_joint_epoch(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, recipe=tiny_recipe(training__max_epochs=4))
    joint = [row for row in log_of(outcome.run) if row["stage"] == "joint" and row["modality"] == "ct"]
    best = max(joint, key=lambda row: float(row["macro_dice"]))
    kept = RunFolder(outcome.run).metrics()["best"]
    assert kept["epoch"] == int(best["epoch"])
    assert kept["macro_dice"] == float(best["macro_dice"])
    assert kept["macro_dice"] == pytest.approx(sum(kept["validation_dice"].values()) / 2)


def test_pretraining_weights_enter_joint_training(tmp_path: Path) -> None:
    stages = stages_of(tiny_recipe())
    assert [(stage.name, stage.modalities, stage.keeps_best) for stage in stages] == [
        ("pretrain", ("ct",), False),
        ("joint", ("mri", "ct"), True),
    ]
    assert [stage.name for stage in stages_of(tiny_recipe(training__pretrain_epochs=0))] == ["joint"]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, steps: int) -> None:
    whole = run_of(tmp_path, "whole")
    stopped = run_of(tmp_path, "stopped", monitor=StopAt(steps))
    assert not stopped.finished
    assert "SIGINT" in stopped.reason
    resumed = resume(stopped.run, store=tmp_path / "store", workers=0)
    assert resumed.finished
    for name in ("model.safetensors",):
        one, other = (safetensors.torch.load_file(o.run / name) for o in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)
    last = [torch.load(o.run / "checkpoint.pt", weights_only=True)["network"] for o in (whole, resumed)]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    assert without_minutes(log_of(whole.run)) == without_minutes(log_of(resumed.run))


def test_sigterm_stops_cleanly_too(tmp_path: Path) -> None:
    assert "SIGTERM" in run_of(tmp_path, monitor=StopAt(2, signal.SIGTERM)).reason
    # the handlers are back to what they were
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_budget_stops_after_a_checkpoint_and_resuming_takes_another(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, recipe=tiny_recipe(training__max_minutes=1e-9))
    assert not outcome.finished
    assert "budget" in outcome.reason
    assert RunFolder(outcome.run).checkpoint.is_file()
    with pytest.raises(RunError, match="no joint epoch"):
        RunFolder(outcome.run).need_model()
    assert resume(outcome.run, store=tmp_path / "store", max_minutes=60, workers=0).finished
    assert RunFolder(outcome.run).recipe().training.max_minutes == 1e-9


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    outcome = run_of(tmp_path)
    before = (outcome.run / "model.safetensors").read_bytes()
    assert resume(outcome.run, store=tmp_path / "store", workers=0).finished
    assert (outcome.run / "model.safetensors").read_bytes() == before


def test_it_learns_a_bright_block(tmp_path: Path) -> None:
    recipe = tiny_recipe(training__max_epochs=12, training__pretrain_epochs=0, training__learning_rate=0.02)
    rows = log_of(run_of(tmp_path, recipe=recipe).run)
    mri = [row for row in rows if row["modality"] == "mri"]
    assert float(mri[-1]["train_loss"]) < 0.7 * float(mri[0]["train_loss"])
    assert float(mri[-1]["train_dice"]) > 0.5 > 0.4 > float(mri[0]["train_dice"])


def test_an_existing_run_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        run_of(tmp_path)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"modalities__ct__loss__name": "dise"}, RecipeError, "Unknown loss"),
        ({"modalities__ct__loss__arguments": {"delta": 1.0}}, RecipeError, "delta"),
        ({"network__name": "attention-unit"}, RecipeError, "attention-unet"),
        ({"network__arguments": {"widths": [1]}}, RecipeError, "widths"),
    ],
)
def test_an_unfit_recipe_leaves_no_folder(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run_of(tmp_path, recipe=tiny_recipe(**changes))
    assert not (tmp_path / "run").exists()


def test_data_for_another_modality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data mri=PATH --data ct=PATH"):
        train(tiny_recipe(), {"mri": tmp_path}, tmp_path / "run", store=tmp_path / "store", workers=0)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, monitor=StopAt(2))
    (outcome.run / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="cannot be used"):
        resume(outcome.run, store=tmp_path / "store", workers=0)


def test_changed_data_are_noticed_on_resuming(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, monitor=StopAt(2))
    trained = next(iter(RunFolder(outcome.run).split()["ct"]["train"]))
    image = tmp_path / "data" / "ct" / trained / "nodule-0" / "images" / "slice-0.png"
    other = tmp_path / "data" / "ct" / trained / "nodule-0" / "images" / "slice-1.png"
    image.write_bytes(other.read_bytes())
    with pytest.raises(RunError, match="have changed"):
        resume(outcome.run, store=tmp_path / "store", workers=0)


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, monitor=StopAt(1))
    path = outcome.run / "recipe.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(RunError, match="version 99"):
        resume(outcome.run)


def test_a_given_split_is_used(tmp_path: Path) -> None:
    first = run_of(tmp_path, "first")
    recipe = tiny_recipe(training__seed=5)
    second = run_of(tmp_path, "second", recipe=recipe, split_file=first.run / "split.json")
    assert RunFolder(second.run).split() == RunFolder(first.run).split()
