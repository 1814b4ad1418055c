"""Training on tiny data: what a run folder holds, and refusals. Nothing is timed."""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from oncoseg.errors import DataError, RecipeError, RunError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.locks import Locked, locked
from oncoseg.predict import Predictor
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import loop
from oncoseg.training.stages import stages_of
from oncoseg.training.status import Status
from oncoseg.training.sums import Validated
from runs import assert_same, checkpoint_of, log_of, stopping_at
from test_files import largest_file
from tiny import tiny_recipe

# what a run leaves


def test_a_run_folder_is_complete(whole: RunFolder, data: Mapping[str, Path]) -> None:
    there = {path.name for path in whole.path.iterdir()} - {"tensorboard", "model-before.safetensors"}
    assert there == {
        *("recipe.json", "split.json", "data.json", "metrics.json", "record.json"),
        *("model.safetensors", "checkpoint.pt", "checkpoint-before.pt", "log.csv"),
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
    real = loop.Training._validate

    def validate(self: Any, stage: Any) -> Any:
        found = real(self, stage)
        score = next(scores)
        weights.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return {name: one._replace(dice=score) for name, one in found.items()}

    monkeypatch.setattr(loop.Training, "_validate", validate)
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
        loop.Training,
        "_validate",
        lambda self, stage: {name: Validated(0.5, score) for name, score in next(scores).items()},
    )
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=3)
    run = RunFolder(train(recipe, data, tmp_path / "run", store=store, workers=0).run)
    assert run.metrics()["best"] == {
        "stage": "joint",
        "epoch": 2,
        "macro_dice": 0.4,
        "validation_dice": {"mri": None, "ct": 0.4},
        "sha256": sha256(run.model.read_bytes()).hexdigest(),
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
    steps = [one for one in seen if not one.validated]
    assert [(one.stage, one.epoch, one.step, one.steps) for one in steps] == [
        ("pretrain", 1, 1, 2),
        ("pretrain", 1, 2, 2),
        *(("joint", epoch, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)),
    ]
    assert seen[0].scores == {}
    assert set(steps[2].scores) == {"ct"}
    assert set(seen[-1].scores) == {"mri", "ct"}
    assert all(math.isfinite(one.loss) for one in seen)
    assert seen[-1].seconds_left == seen[-2].seconds_left == 0
    assert all(one.seconds_left > 0 for one in seen[:-2])


def test_progress_tells_every_epochs_own_validation(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    seen: list[Status] = []
    train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, monitor=seen.append)
    told = [(one.stage, one.epoch, one.step, one.scores) for one in seen if one.validated]
    logged = log_of(RunFolder(tmp_path / "run"))
    assert [(stage, epoch) for stage, epoch, _, _ in told] == [("pretrain", 1), ("joint", 1), ("joint", 2)]
    assert [step for _, _, step, _ in told] == [2, 4, 4]
    for stage, epoch, _, scores in told:
        rows = [row for row in logged if (row["stage"], int(row["epoch"])) == (stage, epoch)]
        assert {row["modality"]: pytest.approx(float(row["validation_dice"])) for row in rows} == scores


def test_the_loss_is_looked_at_only_for_a_monitor(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(loop.EpochSums, "latest_loss")
    assert train(tiny_recipe(training__max_epochs=1), data, tmp_path / "run", store=store, workers=0).finished


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
        {"training__schedule__arguments__warmup_share": 0.2, "training__pretrain_epochs": 2},
        {"training__schedule__arguments__warmup_share": 0.5, "training__batch_size": 64},
        {"modalities__mri__loss__weight": 2.0},
        {"classes": {"rest": ["*"], "core": ["necrotic core", "nodule"]}},
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


def test_each_of_several_classes_is_validated_alone_also_after_a_stop(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    classes = {
        "other": ["*"],
        "core": ["necrotic core", "nodule"],
    }  # of CT all, of MRI nothing is of the core
    recipe = tiny_recipe(classes=classes, training__pretrain_epochs=0)
    told: list[Status] = []
    train(recipe, data, tmp_path / "whole", store=store, workers=0, monitor=told.append)
    run, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    for row in log_of(run):
        mine, other = ("other", "core") if row["modality"] == "mri" else ("core", "other")
        assert row["validation_dice"] == row[f"validation_dice/{mine}"] != "nan"
        assert row[f"validation_dice/{other}"] == "nan", "no patient has any"
    best = run.metrics()["best"]
    assert best["class_dice"]["ct"] == {"other": None, "core": best["validation_dice"]["ct"]}
    assert next(one for one in told if one.validated).class_scores["mri"].keys() == classes.keys()
    train(recipe, data, stopped.path, store=store, workers=0, monitor=stopping_at(5))
    assert resume(stopped.path, store=store, workers=0).finished
    assert_same(stopped, run)


def test_a_given_split_is_used(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__seed=5, training__max_epochs=1)
    file = whole.path / "split.json"
    other = train(recipe, data, tmp_path / "run", store=store, split_file=file, workers=0)
    assert RunFolder(other.run).split() == whole.split()


# refusals that leave nothing


def test_an_existing_folder_is_never_written_into(
    data: Mapping[str, Path], tmp_path: Path, store: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already and is not empty"):
        train(tiny_recipe(), data, tmp_path, store=store, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_in_which_a_run_is_or_was_trained_is_named_so(
    whole: RunFolder, data: Mapping[str, Path], store: Path
) -> None:
    with pytest.raises(RunError, match=r"it holds a run; .* \(`oncoseg train --resume --out .*`\)"):
        train(tiny_recipe(), data, whole.path, store=store, workers=0)
    with (
        locked(whole.lock, "The run"),
        pytest.raises(Locked, match=r"is being trained by process \d+; .*Once it has ended, .*--resume"),
    ):
        train(tiny_recipe(), data, whole.path, store=store, workers=0)
    assert not whole.lock.exists()


BAD: dict[str, tuple[Recipe, type[Exception]]] = {
    "loss": (tiny_recipe(modalities__ct__loss__name="dise"), RecipeError),
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
    "training__optimiser__name": "sdg",
    "training__schedule__arguments__power": 2.0,
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
