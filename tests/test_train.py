"""Training on tiny data: what a run folder holds, stopping and going on, and refusals. Nothing is timed."""

import csv
import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from oncoseg import train as training
from oncoseg.errors import DataError, RecipeError, RunError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.predict import Predictor
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import Outcome, Status, resume, stages_of, train
from test_files import largest_file
from tiny import brats_case, tiny_data, tiny_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def whole(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run from beginning to end: one epoch on CT, two on both."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = train(tiny_recipe(), data, out, store=store, workers=0)
    assert outcome == Outcome(out, True, "all epochs are done")
    return RunFolder(out)


def stopping_at(step: int) -> Callable[[Status], None]:
    """A monitor that makes the given step (from 1, over all stages) the last one, as SIGTERM does."""
    seen: list[Status] = []

    def look(status: Status) -> None:
        seen.append(status)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return look


def log_of(run: RunFolder) -> list[dict[str, str]]:
    with run.log.open() as file:
        return [{k: v for k, v in row.items() if k != "minutes"} for row in csv.DictReader(file)]


def checkpoint_of(run: RunFolder) -> dict[str, Any]:
    return torch.load(run.checkpoint, weights_only=True)


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


# what a run leaves


def test_a_run_folder_is_complete(whole: RunFolder, data: Mapping[str, Path]) -> None:
    there = {path.name for path in whole.path.iterdir()} - {"tensorboard"}
    assert there == {
        *("recipe.json", "split.json", "data.json", "metrics.json"),
        *("model.safetensors", "checkpoint.pt", "log.csv"),
    }
    assert whole.recipe() == tiny_recipe()
    assert set(whole.split()) == {"mri", "ct"}
    assert json.loads((whole.path / "split.json").read_text())["seed"] == 0
    assert whole.data()["ct"]["path"] == str(data["ct"].resolve())
    metrics = whole.metrics()
    assert metrics["finished"] is True
    assert metrics["precision"] == "32-true"
    assert metrics["hardware"]["torch"] == torch.__version__


def test_no_patient_is_on_two_sides(whole: RunFolder) -> None:
    for sides in whole.split().values():
        everyone = [patient for side in sides.values() for patient in side]
        assert len(set(everyone)) == len(everyone) == 4


def test_the_log_has_a_row_for_each_epoch_and_modality(whole: RunFolder) -> None:
    rows = log_of(whole)
    place = [(row["stage"], row["epoch"], row["modality"]) for row in rows]
    assert place == [
        ("pretrain", "1", "ct"),
        ("joint", "1", "mri"),
        ("joint", "1", "ct"),
        ("joint", "2", "mri"),
        ("joint", "2", "ct"),
    ]
    for row in rows:
        assert 0 < float(row["train_loss"]) < 1
        assert 0 < float(row["validation_loss"]) < 1
        assert 0 <= float(row["validation_dice"]) <= 1
    for epoch in ("1", "2"):
        scores = [
            float(row["validation_dice"]) for row in rows if (row["stage"], row["epoch"]) == ("joint", epoch)
        ]
        macro = {float(row["macro_dice"]) for row in rows if (row["stage"], row["epoch"]) == ("joint", epoch)}
        assert macro == {np.mean(scores)}
    # a one-cycle per stage ends near 0
    assert float(rows[0]["learning_rate"]) < 0.2 * whole.recipe().training.learning_rate
    assert float(rows[-1]["learning_rate"]) < 0.2 * whole.recipe().training.learning_rate


def test_the_kept_weights_are_those_of_the_best_joint_epoch(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.3, 0.5, 0.5, 0.2])
    weights: list[dict[str, torch.Tensor]] = []
    real = training._Training._validate

    def validate(self: Any, stage: Any) -> Any:
        found = real(self, stage)
        score = next(scores)
        weights.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return {name: (loss, score) for name, (loss, _) in found.items()}

    monkeypatch.setattr(training._Training, "_validate", validate)
    train(tiny_recipe(training__max_epochs=4), data, tmp_path / "run", store=store, workers=0)
    run = RunFolder(tmp_path / "run")
    best = run.metrics()["best"]
    # pretraining's 0.9 does not count, and of two equal epochs the first is kept
    assert (best["epoch"], best["macro_dice"]) == (2, 0.5)
    assert best["validation_dice"] == {"mri": 0.5, "ct": 0.5}
    kept = safetensors.torch.load_file(run.model)
    assert all(torch.equal(value, weights[2][name]) for name, value in kept.items())
    assert not all(torch.equal(value, weights[4][name]) for name, value in kept.items())


def test_a_score_that_is_not_known_never_replaces_one_that_is(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = math.nan
    scores = iter([{"mri": nan, "ct": nan}, {"mri": nan, "ct": 0.4}, {"mri": nan, "ct": nan}])
    monkeypatch.setattr(
        training._Training,
        "_validate",
        lambda self, stage: {name: (0.5, score) for name, score in next(scores).items()},
    )
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=3)
    run = RunFolder(train(recipe, data, tmp_path / "run", store=store, workers=0).run)
    assert run.metrics()["best"] == {
        "epoch": 2,
        "macro_dice": 0.4,
        "validation_dice": {"mri": None, "ct": 0.4},
    }
    assert [row["macro_dice"] for row in log_of(run)] == ["nan"] * 2 + ["0.4"] * 2 + ["nan"] * 2


def test_the_kept_weights_need_no_training_code(whole: RunFolder) -> None:
    predictor = Predictor.load(whole.path)
    assert predictor.predict_slices(torch.rand(2, 4, 16, 16)).shape == (2, 1, 16, 16)


def test_the_same_seed_gives_the_same_run_and_another_does_not(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    again = train(tiny_recipe(), data, tmp_path / "again", store=store, workers=0)
    assert_same(RunFolder(again.run), whole)
    other = train(tiny_recipe(training__seed=1), data, tmp_path / "other", store=store, workers=0)
    assert RunFolder(other.run).model.read_bytes() != whole.model.read_bytes()


def test_training_learns(tmp_path: Path, data: Mapping[str, Path], store: Path) -> None:
    recipe = tiny_recipe(
        training__learning_rate=0.02,
        training__max_epochs=16,
        training__pretrain_epochs=0,
        augmentation__elastic_chance=0,
        augmentation__dropout_chance=0,
        network__arguments__dropout=0.0,
    )
    run = RunFolder(train(recipe, data, tmp_path / "run", store=store, workers=0).run)
    rows = log_of(run)
    for name in ("mri", "ct"):
        losses = [float(row["train_loss"]) for row in rows if row["modality"] == name]
        assert losses[-1] < 0.75 * losses[0]
        scores = [float(row["train_dice"]) for row in rows if row["modality"] == name]
        assert scores[0] < 0.45 < 0.6 < scores[-1]
    assert run.metrics()["best"]["macro_dice"] > 0.6


def test_progress_tells_both_modalities_and_the_time_left(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    seen: list[Status] = []
    train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, monitor=seen.append)
    # CT: 2 patients × 3 slices in batches of 4; both: 2 × 4 slices of MRI in batches of 2 + 2
    assert [(one.stage, one.epoch, one.step, one.steps) for one in seen] == [
        ("pretrain", 1, 1, 2),
        ("pretrain", 1, 2, 2),
        *(("joint", epoch, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)),
    ]
    assert seen[0].scores == {}
    assert set(seen[2].scores) == {"ct"}
    assert set(seen[-1].scores) == {"mri", "ct"}
    assert all(math.isfinite(one.loss) for one in seen)
    assert seen[-1].seconds_left == 0
    assert all(one.seconds_left > 0 for one in seen[:-1])


def test_the_loss_is_looked_at_only_for_a_monitor(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(training.EpochSums, "latest_loss")
    assert train(tiny_recipe(training__max_epochs=1), data, tmp_path / "run", store=store, workers=0).finished


@pytest.mark.parametrize("monitor", [None, lambda status: None])
def test_a_loss_that_is_not_finite_ends_training_with_a_sentence(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monitor: Any
) -> None:
    recipe = tiny_recipe(training__learning_rate=1e30)
    with pytest.raises(
        RunError, match=r"at step 2 of pretrain epoch 1; .* lower training.learning_rate than"
    ):
        train(recipe, data, tmp_path / "run", store=store, workers=0, monitor=monitor)
    assert not RunFolder(tmp_path / "run").checkpoint.exists(), "no spoilt checkpoint is kept"


def test_stages_follow_the_recipe() -> None:
    assert [stage.name for stage in stages_of(tiny_recipe())] == ["pretrain", "joint"]
    assert [stage.name for stage in stages_of(tiny_recipe(training__pretrain_epochs=0))] == ["joint"]
    without = tiny_recipe(training__pretrain_on=None)
    assert [stage.modalities for stage in stages_of(without)] == [("mri", "ct")]


@pytest.mark.parametrize(
    "changes",
    [
        {"training__precision": "bf16-mixed"},
        {"training__clip_norm": None},
        {"training__tumour_share": 0.5},
        {"augmentation__crop": [8, 8]},
        {"training__warmup_share": 0.2, "training__pretrain_epochs": 2},
        {"training__warmup_share": 0.5, "training__batch_size": 64},
        {"modalities__mri__loss__weight": 2.0},
        {"classes": {"core": ["enhancing tumour", "nodule"], "rest": ["*"]}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_variants_run_to_their_end(
    data: Mapping[str, Path], store: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = tiny_recipe(training__max_epochs=1, **changes)
    run = RunFolder(train(recipe, data, tmp_path / "run", store=store, workers=0).run)
    assert all(math.isfinite(float(row["train_loss"])) for row in log_of(run))
    assert run.model.is_file()


def test_a_given_split_is_used(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__seed=5, training__max_epochs=1)
    file = whole.path / "split.json"
    other = train(recipe, data, tmp_path / "run", store=store, split_file=file, workers=0)
    assert RunFolder(other.run).split() == whole.split()


# stopping and going on


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 10])
def test_a_stopped_run_goes_on_as_if_it_never_was(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "run"
    outcome = train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(step))
    assert outcome == Outcome(out, False, "SIGTERM was received")
    run = RunFolder(out)
    assert run.metrics()["finished"] is False
    assert run.checkpoint.is_file()
    torch.manual_seed(7)
    assert resume(out, store=store, workers=0) == Outcome(out, True, "all epochs are done")
    assert_same(run, whole)


def test_stopping_at_every_step_changes_nothing(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    outcome = train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(1))
    calls = 1
    while not outcome.finished:
        outcome = resume(out, store=store, workers=0, monitor=stopping_at(1))
        calls += 1
    assert calls == 10 + 1  # the last call only validates
    assert_same(RunFolder(out), whole)


def test_a_kill_loses_what_came_after_the_last_checkpoint_only(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(status: Status) -> None:
        if (status.stage, status.epoch, status.step) == ("joint", 2, 3):
            raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny_recipe(), data, out, store=store, workers=0, monitor=kill)
    assert checkpoint_of(RunFolder(out))["place"] == [1, 1, 0]
    assert len(log_of(RunFolder(out))) == 3
    resume(out, store=store, workers=0)
    assert_same(RunFolder(out), whole)


def test_checkpoints_are_written_within_long_epochs(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_MINUTES", -1.0)
    places: list[list[int]] = []
    real = training._Training._save_checkpoint
    monkeypatch.setattr(
        training._Training,
        "_save_checkpoint",
        lambda self: (real(self), places.append([self.stage, self.epoch, self.step]))[0],
    )
    train(tiny_recipe(training__max_epochs=1), data, tmp_path / "run", store=store, workers=0)
    assert places[:3] == [[0, 0, 1], [0, 0, 2], [0, 1, 0]]


def test_a_run_without_any_checkpoint_starts_over(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(1))
    (out / "checkpoint.pt").unlink()
    resume(out, store=store, workers=0)
    assert_same(RunFolder(out), whole)


def test_the_budget_stops_cleanly_and_can_be_given_anew(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    recipe = tiny_recipe(training__max_minutes=1e-9)
    outcome = train(recipe, data, out, store=store, workers=0)
    assert (outcome.finished, outcome.reason) == (False, "the time budget of 1e-09 minutes is spent")
    assert checkpoint_of(RunFolder(out))["place"] == [0, 0, 1]
    with pytest.raises(RunError, match="no joint epoch"):
        RunFolder(out).need_model()
    outcome = resume(out, store=store, workers=0)
    assert not outcome.finished
    assert checkpoint_of(RunFolder(out))["place"] == [0, 0, 2]
    assert resume(out, store=store, workers=0, max_minutes=60).finished
    assert_same(RunFolder(out), whole)
    assert RunFolder(out).recipe() == recipe, "the budget of one call is not the recipe's"


def test_resuming_can_take_the_budget_away(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(training__max_minutes=1e-9), data, out, store=store, workers=0)
    assert resume(out, store=store, workers=0, max_minutes=None).finished
    assert_same(RunFolder(out), whole)


class Clock:
    """Stands for `time`: goes on only when told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def slow(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, but an hour passes with it."""

        def take_an_hour(*given: Any, **more: Any) -> Any:
            self.now += 3600
            return work(*given, **more)

        return take_an_hour


def test_preparing_counts_for_the_budget(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(training.training_data, "load", clock.slow(training.training_data.load))
    recipe = tiny_recipe(training__max_minutes=30)
    assert not train(recipe, data, tmp_path / "run", store=store, workers=0).finished
    assert checkpoint_of(RunFolder(tmp_path / "run"))["place"] == [0, 0, 1]


def test_validation_counts_for_the_budget_and_every_call_gets_on(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(training, "validate", clock.slow(training.validate))
    out = tmp_path / "run"
    outcome = train(tiny_recipe(training__max_minutes=30), data, out, store=store, workers=0)
    places = [checkpoint_of(RunFolder(out))["place"]]
    while not outcome.finished:
        outcome = resume(out, store=store, workers=0)
        places.append(checkpoint_of(RunFolder(out))["place"])
    # stopped in the validation after 2 steps; then it is made, and a step
    assert places == [[0, 0, 2], [1, 0, 1], [1, 0, 4], [1, 1, 1], [1, 1, 4], [2, 0, 0]]
    assert_same(RunFolder(out), whole)


@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_a_stop_within_validation_changes_nothing(
    whole: RunFolder,
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    real, calls = training.validate, 0

    def validate(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    monkeypatch.setattr(training, "validate", validate)
    out = tmp_path / "run"
    assert train(tiny_recipe(), data, out, store=store, workers=0) == Outcome(
        out, False, "SIGTERM was received"
    )
    places = {1: [0, 0, 2], 2: [1, 0, 4], 3: [1, 0, 4], 5: [1, 1, 4]}
    assert checkpoint_of(RunFolder(out))["place"] == places[call]
    assert resume(out, store=store, workers=0).finished
    assert_same(RunFolder(out), whole)


def test_resuming_a_finished_run_changes_nothing(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(training__max_epochs=1), data, out, store=store, workers=0)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert resume(out, store=store, workers=0).finished
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_checkpoint_holds_no_code(whole: RunFolder) -> None:
    assert set(checkpoint_of(whole)) >= {"place", "network", "optimiser", "schedule", "partial", "log"}


def copy_of(run: RunFolder, target: Path) -> RunFolder:
    target.mkdir()
    for path in run.path.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return RunFolder(target)


def fewer_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def other_network(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["network"].popitem()
    torch.save(state, path)


def lacking(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["place"]
    torch.save(state, path)


@pytest.mark.parametrize(
    "spoil", [fewer_bytes, other_network, lacking, lambda path: path.write_bytes(b"")], ids=str
)
def test_a_damaged_checkpoint_is_a_run_error(
    whole: RunFolder, store: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    run = copy_of(whole, tmp_path / "run")
    spoil(run.checkpoint)
    with pytest.raises(RunError, match=r"checkpoint .* cannot be used.*Delete it"):
        resume(run.path, store=store, workers=0)


def test_another_format_version_is_a_run_error(whole: RunFolder, store: Path, tmp_path: Path) -> None:
    run = copy_of(whole, tmp_path / "run")
    recipe = (run.path / "recipe.json").read_text()
    (run.path / "recipe.json").write_text(recipe.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(RunError, match="format version 99; this oncoseg reads version 1"):
        resume(run.path, store=store, workers=0)


def test_data_that_changed_are_noticed(tmp_path: Path, store: Path) -> None:
    data = tiny_data(tmp_path / "data", 3, 3)
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(1))
    (patient,) = RunFolder(out).split()["mri"]["train"]
    brats_case(tmp_path / "new", 77)
    for end in ("t1", "seg"):
        (tmp_path / "new" / "BraTS2021_00077" / f"BraTS2021_00077_{end}.nii.gz").replace(
            data["mri"] / patient / f"{patient}_{end}.nii.gz"
        )
    with pytest.raises(RunError, match=r"The mri data at .* have changed"):
        resume(out, store=store, workers=0)


def test_data_that_moved_are_named(tmp_path: Path, store: Path) -> None:
    data = tiny_data(tmp_path / "data", 3, 3)
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(1))
    data["mri"].rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="does not exist"):
        resume(out, store=store, workers=0)


# refusals that leave nothing


def test_an_existing_folder_is_never_written_into(
    data: Mapping[str, Path], tmp_path: Path, store: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already and is not empty"):
        train(tiny_recipe(), data, tmp_path, store=store, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


BAD: dict[str, tuple[Recipe, type[Exception]]] = {
    "loss": (tiny_recipe(modalities__ct__loss__name="dice"), RecipeError),
    "loss's argument": (tiny_recipe(modalities__ct__loss__arguments__delta=1.0), RecipeError),
    "network": (tiny_recipe(network__name="unet"), RecipeError),
    "network's argument": (tiny_recipe(network__arguments__width=3), RecipeError),
    "label": (tiny_recipe(classes={"liver": ["liver"]}), DataError),
}


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_that_does_not_work_leaves_no_run_folder(
    data: Mapping[str, Path], tmp_path: Path, store: Path, name: str
) -> None:
    recipe, error = BAD[name]
    with pytest.raises(error):
        train(recipe, data, tmp_path / "run", store=store, workers=0)
    assert list(tmp_path.iterdir()) == []


UNFIT = {
    "modalities__ct__loss__name": "focal-tverski",
    "modalities__ct__loss__arguments__delta": 1.0,
    "network__name": "attention-uned",
    "network__arguments__width": 3,
    "network__arguments__features": [-4, 8],
    "training__device": "gpu",
}


@pytest.mark.parametrize("field", UNFIT)
def test_a_recipe_is_checked_before_the_data_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    nowhere = {"mri": tmp_path / "nowhere", "ct": tmp_path / "nowhere"}
    with pytest.raises(RecipeError):
        train(tiny_recipe(**{field: UNFIT[field]}), nowhere, tmp_path / "run", store=tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_bad_data_leave_no_run_folder(data: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        train(
            tiny_recipe(),
            {**data, "ct": tmp_path / "x"},
            tmp_path / "run",
            store=tmp_path / "store",
            workers=0,
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="needs data for mri and ct"):
        train(tiny_recipe(), {"mri": data["mri"]}, tmp_path / "run", store=tmp_path / "store", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_store_inside_the_run_folder_hides_no_error(data: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        train(BAD["loss"][0], data, tmp_path / "run", store=tmp_path / "run" / "store", workers=0)


def test_a_full_disk_is_a_run_error_and_the_last_checkpoint_stays_good(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def fill(status: Status) -> None:
        if (status.stage, status.epoch, status.step) == ("joint", 1, 2):
            limit.__enter__()

    limit = largest_file(4000)
    try:
        with pytest.raises(RunError, match=r"Could not write .*(checkpoint.pt|model.safetensors)"):
            train(tiny_recipe(), data, out, store=store, workers=0, monitor=fill)
    finally:
        limit.__exit__(None, None, None)
    assert not [path for path in out.rglob("*") if TEMPORARY_MARK in path.name]
    assert checkpoint_of(RunFolder(out))["place"] == [0, 1, 0]
    resume(out, store=store, workers=0)
    assert_same(RunFolder(out), whole)
