"""Several processes train as one does. Here they are two or three, on processors, connected by gloo."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from oncoseg.errors import OncosegError
from oncoseg.locks import locked
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import SliceId, share_of
from oncoseg.train import train
from oncoseg.training.status import Outcome
from runs import assert_same, checkpoint_of, log_of
from tiny import tiny_recipe
from together import PATIENCE_SECONDS, together

CURVE_TOLERANCE = 2e-6
"""Of losses and Dice after 9 steps of SGD in 32 bits: sums are added in another order."""

WEIGHT_TOLERANCE = 2e-5
"""Of the weights after them. Adam would divide rounding errors by rounding errors where a slope is 0."""

CHANGES: dict[str, Any] = {
    "training__optimiser__name": "sgd",
    "training__learning_rate": 0.1,
    "training__max_epochs": 4,
    "training__average_decay": 0.9,
    "training__accumulate": 2,
    "training__tumour_share": 0.5,
    "network__arguments__deep_supervision": True,
    "augmentation__crop": [12, 12],
}
"""With which weights and Dice move in a few steps; dropout and batch norm are the recipe's."""


def begin(
    out: Path, data: Mapping[str, Path], store: Path, changes: Mapping[str, Any], stop: tuple[int, int]
) -> Outcome:
    """Train; SIGTERM comes to one process only, after so many steps (0 for never)."""
    from oncoseg.training import loop

    step, number = stop
    if step and int(os.environ["RANK"]) == number:
        real = loop.Training._train_step

        def train_step(self: loop.Training, group: Any) -> None:
            real(self, group)
            if self.steps_done + 1 == step:
                signal.raise_signal(signal.SIGTERM)

        loop.Training._train_step = train_step  # type: ignore[method-assign]
    return train(tiny_recipe(**changes), data, out, store=store, workers=0)


def go_on(out: Path, store: Path) -> Outcome:
    from oncoseg.train import resume

    return resume(out, store=store, workers=0)


def assert_close(one: RunFolder, other: RunFolder) -> None:
    figures = [name for name in log_of(one)[0] if name not in ("stage", "epoch", "modality")]
    for ours, theirs in zip(log_of(one), log_of(other), strict=True):
        assert [ours[name] for name in ("stage", "epoch", "modality")] == [
            theirs[name] for name in ("stage", "epoch", "modality")
        ]
        for name in figures:
            expected = pytest.approx(float(ours[name]), abs=CURVE_TOLERANCE, nan_ok=True)
            assert float(theirs[name]) == expected, (name, ours["epoch"])
    ours, theirs = checkpoint_of(one)["network"], checkpoint_of(other)["network"]
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=WEIGHT_TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def alone(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("alone") / "run")
    assert train(tiny_recipe(**CHANGES), data, run.path, store=store, workers=0).finished
    before, after = log_of(run)[1], log_of(run)[-2]
    assert float(after["train_loss"]) < float(before["train_loss"]) - 0.01, "nothing that could differ"
    return run


@pytest.fixture(scope="module")
def pair(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("pair") / "run")
    assert {one.finished for one in together(2, begin, run.path, data, store, CHANGES, (0, 0))} == {True}
    return run


@pytest.mark.slow
def test_the_curves_of_two_processes_are_those_of_one(alone: RunFolder, pair: RunFolder) -> None:
    assert_close(alone, pair)
    assert [run.metrics()["processes"] for run in (alone, pair)] == [1, 2]
    assert len(log_of(pair)) == 1 + 2 * 4
    assert len(list(pair.tensorboard.iterdir())) == len(list(alone.tensorboard.iterdir()))
    assert {path.name for path in pair.path.iterdir()} == {path.name for path in alone.path.iterdir()}


@pytest.mark.slow
def test_each_class_of_several_scores_alike_in_two_processes(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    classes = {"other": ["*"], "core": ["necrotic core", "nodule"]}
    changes = CHANGES | {"classes": classes, "training__max_epochs": 2}
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert train(tiny_recipe(**changes), data, one.path, store=store, workers=0).finished
    assert {each.finished for each in together(2, begin, two.path, data, store, changes, (0, 0))} == {True}
    assert "validation_dice/core" in log_of(one)[0]
    assert_close(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_stop_of_one_process_stops_all_and_two_go_on_exactly(
    pair: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, number: int
) -> None:
    run = RunFolder(tmp_path / "run")
    stopped = Outcome(run.path, False, "SIGTERM was received")
    assert together(2, begin, run.path, data, store, CHANGES, (3, number)) == [stopped, stopped]
    assert checkpoint_of(run)["place"] == [1, 0, 2], "after the third step: one of pretraining, two of joint"
    done = Outcome(run.path, True, "all epochs are done")
    assert together(2, go_on, run.path, store) == [done, done]
    assert_same(run, pair)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_within_tolerance(
    alone: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    together(2, begin, run.path, data, store, CHANGES, (3, 1))
    assert go_on(run.path, store).finished
    assert_close(alone, run)


@pytest.mark.slow
def test_three_processes_with_unequal_shares_agree_and_go_on_exactly(
    alone: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    whole, slices = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "slices")
    together(3, begin, whole.path, data, store, CHANGES, (0, 0))  # batches of 4: 2, 1 and 1
    assert_close(alone, whole)
    together(3, begin, slices.path, data, store, CHANGES, (3, 2))
    together(3, go_on, slices.path, store)
    assert_same(slices, whole)


@pytest.mark.slow
def test_the_first_error_is_told_to_all(
    pair: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    own, told = together(2, begin, pair.path, data, store, CHANGES, (0, 0))
    assert own.startswith("RunError: The run folder")
    assert "is not empty" in own
    assert told == own.replace("RunError", "ElsewhereError")
    found = together(
        2,
        begin,
        tmp_path / "one",
        data,
        store,
        {"training__batch_size": 1, "training__max_epochs": 1},
        (0, 0),
    )
    assert all("batch_size 1 is shared by 2 processes" in one for one in found), found


def leave(out: Path, data: Mapping[str, Path], store: Path) -> Any:
    """The second process ends in the midst, as for want of memory."""
    from oncoseg.training import loop

    real = loop.Training._train_step

    def train_step(self: loop.Training, group: Any) -> None:
        if self.ranks.number == 1 and self.steps_done == 1:
            os._exit(9)
        real(self, group)

    loop.Training._train_step = train_step  # type: ignore[method-assign]
    return train(tiny_recipe(), data, out, store=store, workers=0)


@pytest.mark.slow
def test_a_lost_process_is_said_in_a_sentence(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    left, gone = together(2, leave, tmp_path / "run", data, store)
    assert gone is None
    assert left.startswith("RunError: Process 0 of 2 lost another one of this training")


def notice(out: Path, data: Mapping[str, Path], store: Path) -> Any:
    """Only the second process sees that the second step is not finite; on a GPU it may be the sooner."""
    from oncoseg.training.divergence import Seen, Watch

    real, said = Watch.first_bad, []

    def first_bad(self: Watch, wait: bool = False) -> Seen | None:
        found = real(self, wait)
        return self.latest if self.latest is not None and self.latest.step.step == 2 else found

    if os.environ["RANK"] == "1":
        Watch.first_bad = first_bad  # type: ignore[method-assign]
    try:
        return train(tiny_recipe(), data, out, store=store, workers=0, foretell=said.append, warn=said.append)
    except OncosegError as error:
        return type(error).__name__, str(error), said


def test_what_one_process_sees_to_be_no_number_stops_all(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    first, second = together(2, notice, run.path, data, store)
    assert (first[0], second[0]) == ("FailedRun", "ElsewhereError")
    assert "NaN or infinite at step 2 of pretrain epoch 1" in first[1]
    assert second[1] == first[1]
    assert [len(first[2]), len(second[2])] == [1, 0], "that nothing is foretold is said once"
    assert json.loads((run.path / "nan.json").read_text())["step"] == 2
    (call,) = run.record()["calls"]
    assert call["ended"] == "the loss or the weights became NaN or infinite"
    assert not run.checkpoint.exists()
    assert not run.lock.exists()


def look_at_other_times(out: Path, data: Mapping[str, Path], store: Path) -> Any:
    """As on GPUs: figures come late, and only the first process looks at the loss of the bad step."""
    from oncoseg.training import divergence, guard, loop

    class Late:
        def query(self) -> bool:
            return False

        def synchronize(self) -> None:
            pass

    def latest(self: loop.Training) -> float:
        return self.partial.latest_loss() if os.environ["RANK"] == "0" else 0.5

    def backward(self: loop.Training, images: Any, masks: Any, piece: Any, batches: int, sums: Any) -> None:
        real(self, images, masks, piece, batches, sums)
        if (self.stage, self.step) == (1, 1):
            for losses in sums._losses.values():
                losses[-1] = losses[-1] * math.nan

    real = loop.Training._backward
    guard.Watch = lambda: divergence.Watch(lambda figures: (figures, Late()))  # type: ignore[misc, assignment]
    loop.Training._latest_loss = latest  # type: ignore[method-assign]
    loop.Training._backward = backward  # type: ignore[method-assign]
    return train(tiny_recipe(), data, out, store=store, workers=0, monitor=lambda status: None)


def test_a_bad_loss_that_only_one_process_looked_at_stops_all(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    """Both must ask each other at the same places: else they wait for ever, and `together` fails."""
    first, second = together(2, look_at_other_times, tmp_path / "run", data, store)
    assert first.startswith("FailedRun: The loss or the weights became NaN or infinite at step 2 of joint")
    assert second == first.replace("FailedRun", "ElsewhereError")


def resume_twice(out: Path, store: Path) -> Any:
    """Go on while a process of another training holds the lock."""
    try:
        return go_on(out, store)
    except OncosegError as error:
        return type(error).__name__, str(error)


def test_a_run_that_another_trains_is_refused_to_all(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    recipe = tiny_recipe(training__max_minutes=1e-9)
    assert not train(recipe, data, run.path, store=store, workers=0).finished
    with locked(run.lock, "The run"):
        first, second = together(2, resume_twice, run.path, store)
        assert run.lock.exists()
    assert (first[0], second[0]) == ("Locked", "ElsewhereError")
    assert second[1] == first[1]
    assert "is being trained by process" in first[1]


def resume_folds_of(out: Path) -> Any:
    from oncoseg.cross_validate import resume_folds

    return resume_folds(out)


def test_folds_are_not_shared_by_processes_that_share_batches(tmp_path: Path) -> None:
    for said in together(2, resume_folds_of, tmp_path):
        assert said.startswith("RunError: A cross-validation was started in 2 processes that share batches")


def test_shares_are_a_partition_with_like_parts_of_each_modality() -> None:
    batch = {name: [SliceId(case, case) for case in range(4)] for name in ("mri", "ct")}
    shares = [share_of(batch, slice(number, None, 2)) for number in range(2)]
    assert [[ref.case for ref in share["mri"]] for share in shares] == [[0, 2], [1, 3]]
    assert [[ref.case for ref in share["ct"]] for share in shares] == [[0, 2], [1, 3]]
    assert share_of({"mri": batch["mri"][:2], "ct": batch["ct"][:1]}, slice(1, None, 3)) == {
        "mri": [SliceId(1, 1)]
    }
    assert share_of(batch, slice(0, None, 1)) == batch


CHANNELS, ROWS = 3, 5


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.Dropout(0.4), nn.Conv2d(CHANNELS, 1, 1)
    ).train()


def inputs() -> torch.Tensor:
    return 3 + torch.randn(ROWS, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def pooled(logits: torch.Tensor) -> torch.Tensor:
    """A loss that is no mean over rows."""
    return functional.softplus(logits).sum().log() + logits.flatten().amax()


def of_share() -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
    from oncoseg.training.ranks import Ranks
    from oncoseg.training.whole_batch import WholeBatch

    ranks = Ranks("cpu", "32-true")
    batch = WholeBatch(ranks)
    network = batch.seen_by(layers())
    batch.total = ROWS
    torch.manual_seed(5)
    loss = pooled(ranks.whole(network(inputs()[ranks.rows()]), ROWS))
    loss.backward()
    slopes = [parameter.grad.clone() for parameter in network.parameters()]
    for slope in slopes:
        torch.distributed.all_reduce(slope)
    return loss.detach(), slopes, network.state_dict()


def test_batch_norm_dropout_and_a_pooled_loss_see_the_whole_batch() -> None:
    """Five rows on two processes against PyTorch's own layers on one."""
    network = layers()
    torch.manual_seed(5)
    expected = pooled(network(inputs()))
    expected.backward()
    for loss, slopes, state in together(2, of_share):
        torch.testing.assert_close(loss, expected.detach())
        for slope, parameter in zip(slopes, network.parameters(), strict=True):
            torch.testing.assert_close(slope, parameter.grad, atol=1e-5, rtol=1e-4)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(state[name], value)


def told() -> Any:
    from oncoseg.training.ranks import Ranks

    ranks = Ranks("cpu", "32-true")
    items = ["a", "b", "c", "d", "e"]
    own = [f"{item}{ranks.number}" for item in ranks.dealt(items)]
    return (
        ranks.gathered(own, len(items)),
        ranks.most(ranks.number, -ranks.number),
        ranks.from_first(lambda: os.environ["RANK"]),
        ranks.first_then_others(lambda: os.environ["RANK"]),
    )


def test_what_processes_tell_each_other() -> None:
    first, second = together(2, told)
    assert first == (["a0", "b1", "c0", "d1", "e0"], (1, 0), "0", "0")
    assert second == (["a0", "b1", "c0", "d1", "e0"], (1, 0), "0", "1")


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def command(out: Path, data: Mapping[str, Path], store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The command line, started by torchrun itself."""
    recipe = out.parent / "recipe.json"
    recipe.write_text(tiny_recipe(training__max_epochs=1).to_json())
    folders = [f"--data={name}={folder}" for name, folder in data.items()]
    given = [*more] if more else [str(recipe), *folders, "--training.max-minutes", "1e-9"]
    return subprocess.run(
        [*TORCHRUN, "-m", "oncoseg", "train", *given, "--out", str(out), "--store", str(store)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.slow
def test_torchrun_starts_the_command_line_which_speaks_once(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped = command(out, data, store)
    assert stopped.returncode == 1, "torchrun's own, whatever the code of a process"
    assert stopped.stdout.count("Stopped: the time budget") == 1, stopped.stderr
    assert RunFolder(out).metrics()["finished"] is False
    assert checkpoint_of(RunFolder(out))["place"] == [0, 0, 1]
    done = command(out, data, store, "--resume", "--training.max-minutes", "60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained: ") == 1
    assert done.stderr.count("joint epoch 1/1 done") == 1


def named_by_slurm() -> Any:
    number = os.environ["RANK"]
    for name in [
        name for name in os.environ if name.startswith(("RANK", "LOCAL_", "WORLD_", "GROUP_", "TORCH"))
    ]:
        del os.environ[name]
    os.environ |= {f"SLURM_{name}": number for name in ("PROCID", "LOCALID")}
    os.environ |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train"}
    os.environ |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "7"}
    from oncoseg.training.ranks import Ranks

    before = Ranks("cpu", "32-true").count  # a batch script, in which nothing was started by srun
    os.environ["SLURM_STEP_ID"] = "0"
    ranks = Ranks("cpu", "32-true")
    return before, ranks.count, ranks.number, ranks.most(ranks.number)


def test_processes_that_slurm_starts_find_each_other() -> None:
    assert together(2, named_by_slurm) == [(1, 2, 0, (1,)), (1, 2, 1, (1,))]
