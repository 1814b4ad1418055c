"""Processes that share out the weights (FSDP) train as one does. Here two or three, on processors."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from oncoseg.errors import OncosegError
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from oncoseg.training.status import Outcome
from runs import assert_same, checkpoint_of
from test_train_together import CHANGES, assert_close, begin, go_on
from tiny import tiny_recipe
from together import together

SHARDED: dict[str, Any] = CHANGES | {"training__weights": "sharded"}

STOPPED_AT = (3, 1)
"""SIGTERM comes to the second process after three steps."""


@pytest.fixture(scope="module")
def alone(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One process, with copied weights."""
    run = RunFolder(tmp_path_factory.mktemp("alone") / "run")
    assert train(tiny_recipe(**CHANGES), data, run.path, store=store, workers=0).finished
    return run


@pytest.fixture(scope="module")
def pair(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("pair") / "run")
    done = Outcome(run.path, True, "all epochs are done")
    assert together(2, begin, run.path, data, store, SHARDED, (0, 0)) == [done, done]
    return run


def shapes(state: Any, path: str = "") -> dict[str, Any]:
    """Where in a nested state which tensors are."""
    if isinstance(state, torch.Tensor):
        return {path: (type(state), state.dtype, tuple(state.shape))}
    if not isinstance(state, dict):
        return {}
    return {key: one for name in state for key, one in shapes(state[name], f"{path}/{name}").items()}


@pytest.mark.slow
def test_the_curves_of_two_processes_are_those_of_one(alone: RunFolder, pair: RunFolder) -> None:
    assert_close(alone, pair)
    assert {path.name for path in pair.path.iterdir()} == {path.name for path in alone.path.iterdir()}


@pytest.mark.slow
def test_what_is_written_is_whole(alone: RunFolder, pair: RunFolder) -> None:
    one, two = (shapes(checkpoint_of(run)) for run in (alone, pair))
    assert one == two
    assert {"network", "optimiser", "average"} <= {path.split("/")[1] for path in one}
    expected, found = (safetensors.torch.load_file(run.model) for run in (alone, pair))
    assert list(expected) == list(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=0)
        assert found[name].stride() == value.stride()


@pytest.mark.slow
def test_one_process_does_nothing_different(
    alone: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    train(tiny_recipe(**SHARDED), data, run.path, store=store, workers=0)
    assert_same(run, alone)


@pytest.mark.slow
def test_two_go_on_exactly(pair: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    stopped = Outcome(run.path, False, "SIGTERM was received")
    assert together(2, begin, run.path, data, store, SHARDED, STOPPED_AT) == [stopped, stopped]
    done = Outcome(run.path, True, "all epochs are done")
    assert together(2, go_on, run.path, store) == [done, done]
    assert_same(run, pair)


@pytest.mark.slow
def test_one_process_goes_on_within_tolerance(
    alone: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    together(2, begin, run.path, data, store, SHARDED, STOPPED_AT)
    assert go_on(run.path, store).finished
    assert_close(alone, run)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("sharded", "copied"), ("copied", "sharded")])
def test_weights_can_be_shared_out_or_copied_from_a_checkpoint_on(
    alone: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, first: str, then: str
) -> None:
    run = RunFolder(tmp_path / "run")
    together(2, begin, run.path, data, store, CHANGES | {"training__weights": first}, STOPPED_AT)
    run.write_recipe(run.recipe().with_changes({"training.weights": then}))
    assert together(2, go_on, run.path, store)[1].finished
    assert_close(alone, run)


ADAM: dict[str, Any] = SHARDED | {"training__optimiser__name": "adamw", "training__learning_rate": 0.01}


@pytest.mark.slow
def test_three_processes_go_on_exactly_with_the_state_of_adam(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    """With 4 and 8 features, parts of a weight are unequal, and some are empty."""
    whole, slices = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "slices")
    together(3, begin, whole.path, data, store, ADAM, (0, 0))
    together(3, begin, slices.path, data, store, ADAM, (3, 2))
    together(3, go_on, slices.path, store)
    assert_same(slices, whole)
    assert any(path.endswith("exp_avg_sq") for path in shapes(checkpoint_of(whole)))


def spoil(out: Path, data: Mapping[str, Path], store: Path) -> Any:
    """The last row of a weight, which the second process holds, becomes infinite in the first step."""
    from oncoseg.training import loop

    real = loop.Training._gradients

    def gradients(self: loop.Training, group: Any) -> Any:
        sums = real(self, group)
        weight = self.network.get_parameter("bottleneck.0.weight")
        if os.environ["RANK"] == "1":
            weight.detach().to_local()[-1] = torch.inf
        weight.grad.fill_(torch.nan)
        return sums

    loop.Training._gradients = gradients  # type: ignore[method-assign]
    try:
        return train(tiny_recipe(training__weights="sharded"), data, out, store=store, workers=0)
    except OncosegError as error:
        return type(error).__name__, str(error)


def test_a_weight_that_is_no_number_is_named_whoever_holds_it(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    first, second = together(2, spoil, run.path, data, store)
    assert (first[0], second[0]) == ("FailedRun", "ElsewhereError")
    report = json.loads((run.path / "nan.json").read_text())
    assert report["gradient_norm"] == "nan"
    assert report["weights_not_finite"]["count"] == 1
    assert report["weights_not_finite"]["first"][0].endswith("bottleneck.0.weight")


def held(weights: str) -> tuple[int, int]:
    """Bytes of weights, gradients and Adam's state in this process, and of all of them in the network."""
    from oncoseg.training import shards
    from oncoseg.training.choices import network_of
    from oncoseg.training.ranks import Ranks

    torch.manual_seed(0)
    recipe = tiny_recipe(network__arguments__features=[8, 16, 32])
    network = Ranks("cpu", "32-true", weights).fabric.setup_module(network_of(recipe))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, recipe.in_channels, 16, 16)).mean().backward()
    optimiser.step()
    parameters = list(network.parameters())
    tensors = [*parameters, *(one.grad for one in parameters)]
    tensors += [one for state in optimiser.state.values() for one in state.values() if one.dim() > 0]
    own = sum(shards.local(one).nbytes for one in tensors)
    return own, 4 * sum(one.numel() * one.element_size() for one in parameters)


@pytest.mark.parametrize(("weights", "share"), [("copied", 1.0), ("sharded", 0.5)])
def test_each_process_holds_its_share(weights: str, share: float) -> None:
    for own, every in together(2, held, weights):
        assert own == pytest.approx(share * every, rel=0.02)
