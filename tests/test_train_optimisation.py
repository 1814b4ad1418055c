"""Training with other optimisers, schedules, averages and accumulated gradients; each resumes exactly."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.models import blocks
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import choices, loop
from oncoseg.training.status import Outcome
from oncoseg.training.sums import Validated
from runs import assert_same, checkpoint_of, log_of, stopping_at
from tiny import tiny_recipe

SETTINGS: Mapping[str, dict[str, Any]] = {
    "sgd, polynomial": {"training__optimiser__name": "sgd", "training__schedule__name": "polynomial"},
    "adam, cosine": {
        "training__optimiser__name": "adam",
        "training__schedule__name": "cosine",
        "training__schedule__arguments": {"cycles": 2},
        "training__pretrain_epochs": 2,
    },
    "plateau, patience": {"training__schedule__name": "plateau", "training__patience": 1},
    "average": {"training__average_decay": 0.5},
    "deep supervision": {
        "network__arguments__deep_supervision": True,
        "network__arguments__features": [4, 4, 8],
    },
    "accumulate": {"training__accumulate": 2, "training__batch_size": 2},
    "dice and entropy": {
        "modalities__mri__loss__name": "dice-cross-entropy",
        "modalities__ct__loss__name": "boundary",
        "modalities__mri__loss__arguments": {"class_weights": [2.0]},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_any_setting_goes_on_as_if_never_stopped(
    data: Mapping[str, Path], store: Path, tmp_path: Path, name: str
) -> None:
    recipe = tiny_recipe(**SETTINGS[name])
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(recipe, data, whole, store=store, workers=0)
    outcome = train(recipe, data, out, store=store, workers=0, monitor=stopping_at(3))
    while not outcome.finished:
        outcome = resume(out, store=store, workers=0, monitor=stopping_at(2))
    assert_same(RunFolder(out), RunFolder(whole))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_stage_too_short_for_its_schedule_is_refused_before_training(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__schedule={"name": "cosine", "arguments": {"cycles": 3}})
    with pytest.raises(RecipeError, match="for each cycle in every stage, got 3 cycles for 2 steps"):
        train(recipe, data, tmp_path / "run", store=store, workers=0)
    assert not (tmp_path / "run").exists()


def test_the_kept_weights_are_the_averages(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    recipe = tiny_recipe(training__average_decay=0.5, training__max_epochs=1)
    train(recipe, data, run.path, store=store, workers=0)
    kept, state = safetensors.torch.load(run.model.read_bytes()), checkpoint_of(run)
    for name, value in state["average"]["values"].items():
        assert torch.equal(kept[name], value), name
    assert any(not torch.equal(kept[name], value) for name, value in state["network"].items())


def test_accumulated_batches_make_the_step_of_a_larger_one(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loss that is a mean over pixels and no randomness, two halves are the whole."""
    changes = {
        "modalities__ct__loss__name": "cross-entropy",
        "modalities__mri__loss__name": "cross-entropy",
        "network__arguments__dropout": 0.0,
        "training__pretrain_epochs": 0,
        "training__max_epochs": 1,
        "training__clip_norm": None,
        "training__optimiser__name": "sgd",
        "training__optimiser__arguments": {"momentum": 0.0},
        "training__schedule__name": "constant",
        "training__learning_rate": 1.0,
        "augmentation": {
            f"{name}_chance": 0.0 for name in ("flip", "rotation", "elastic", "brightness", "dropout")
        },
    }
    monkeypatch.setattr(blocks, "BATCH_NORM", {2: partial(nn.GroupNorm, 1)})  # each slice on its own
    real, seen = choices.epoch_batches, {}

    def weights_after_one_step(each: int, accumulate: int) -> dict[str, torch.Tensor]:
        def same_slices(*given: Any) -> Any:
            whole = real(given[0], 4, *given[2:])[:1]
            if each == 4:
                return whole
            return [{name: [refs[half]] for name, refs in whole[0].items()} for half in range(2)]

        monkeypatch.setattr(choices, "epoch_batches", same_slices)
        out = tmp_path / f"{each}-{accumulate}"
        recipe = tiny_recipe(**changes, training__batch_size=each, training__accumulate=accumulate)
        train(recipe, data, out, store=store, workers=0)
        seen[out.name] = len(log_of(RunFolder(out)))
        return dict(checkpoint_of(RunFolder(out))["network"])

    one, two = weights_after_one_step(4, 1), weights_after_one_step(2, 2)
    assert set(seen.values()) == {2}
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


def test_patience_ends_joint_training(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.9, *(value for value in (0.2, 0.4, 0.4, 0.3, 0.9, 0.9) for _ in range(2))])
    monkeypatch.setattr(loop, "validate", lambda *_: Validated(1.0, next(scores)))
    out = tmp_path / "run"
    recipe = tiny_recipe(training__patience=2, training__max_epochs=9, training__pretrain_epochs=2)
    outcome = train(recipe, data, out, store=store, workers=0)
    ended = "early stopping after joint epoch 4 of 9: 2 epochs without a better validation Dice"
    assert outcome == Outcome(out, True, ended)
    run = RunFolder(out)
    assert run.record()["calls"][0]["ended"] == ended
    assert [row["epoch"] for row in log_of(run) if row["stage"] == "joint"] == list("11223344")
    assert run.metrics()["best"]["epoch"] == 2
    assert resume(out, store=store, workers=0).reason == "all epochs were done before"


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let each epoch's validation of both modalities find the next of these Dice."""
    each = iter([score for score in scores for _ in range(2)])
    monkeypatch.setattr(loop, "validate", lambda *_: Validated(1.0, next(each)))


def test_patience_goes_on_counting_where_it_was_stopped(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    recipe = tiny_recipe(training__patience=3, training__max_epochs=9, training__pretrain_epochs=0)
    scored(monkeypatch, [0.5, 0.4, 0.4])
    assert not train(recipe, data, run.path, store=store, workers=0, monitor=stopping_at(13)).finished
    state = checkpoint_of(run)
    assert (state["place"], state["epochs_without_better"]) == ([0, 3, 1], 2)
    scored(monkeypatch, [0.3])  # the third in a row; a fourth is not there
    assert resume(run.path, store=store, workers=0).finished
    assert [row["epoch"] for row in log_of(run) if row["modality"] == "ct"] == list("1234")


def test_the_plateau_schedule_hears_of_the_validation_dice(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    recipe = tiny_recipe(
        training__schedule={"name": "plateau", "arguments": {"factor": 0.5, "patience": 0}},
        training__learning_rate=0.25,
        training__max_epochs=5,
        training__pretrain_epochs=0,
    )
    scored(monkeypatch, [0.2, 0.3, 0.3, 0.4, 0.1])
    assert train(recipe, data, run.path, store=store, workers=0).finished
    rates = [float(row["learning_rate"]) for row in log_of(run) if row["modality"] == "ct"]
    assert rates == [0.25] * 3 + [0.125] * 2, "the third was no better, and each counts from the next on"
