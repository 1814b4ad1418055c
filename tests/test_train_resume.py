"""Stopping a training anywhere and going on as if it had never stopped. No test waits for a clock."""

import contextlib
import functools
import operator
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from oncoseg.errors import DataError, RecipeError, RunError
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import checkpoints, loop, meter
from oncoseg.training import data as training_data
from oncoseg.training.status import Outcome, Status
from runs import assert_equal, assert_same, checkpoint_of, log_of, stopping_at
from tiny import brats_case, tiny_data, tiny_recipe


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
    monkeypatch.setattr(loop, "CHECKPOINT_MINUTES", -1.0)
    places: list[list[int]] = []
    real = loop.Training._save_checkpoint
    monkeypatch.setattr(
        loop.Training,
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
    for kept in out.glob("checkpoint*.pt"):
        kept.unlink()
    said: list[str] = []
    resume(out, store=store, workers=0, warn=said.append)
    assert_same(RunFolder(out), whole)
    assert not said, "no epoch was finished"


def test_checkpoints_that_are_gone_are_told(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run, said = RunFolder(tmp_path / "run"), list[str]()
    train(tiny_recipe(), data, run.path, store=store, workers=0, monitor=stopping_at(4))
    run.checkpoint.unlink()
    assert not resume(run.path, store=store, workers=0, warn=said.append, monitor=stopping_at(1)).finished
    assert said == [
        f"The checkpoint {run.checkpoint} is gone; expected it. Going on from the checkpoint before it."
    ]
    for kept in run.path.glob("checkpoint*.pt"):
        kept.unlink()
    assert resume(run.path, store=store, workers=0, warn=said.append).finished
    assert "no checkpoint any more: training begins again at the first epoch" in said[1]
    assert_same(run, whole)
    for kept in run.path.glob("checkpoint*.pt"):
        kept.unlink()
    before = run.log.read_text()
    with pytest.raises(RunError, match="is finished, but its checkpoints are gone"):
        resume(run.path, store=store, workers=0)
    assert run.log.read_text() == before


def test_a_damaged_record_is_told_and_set_aside(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run, said = RunFolder(tmp_path / "run"), list[str]()
    train(tiny_recipe(), data, run.path, store=store, workers=0, monitor=stopping_at(1))
    left = (run.path / "record.json").read_bytes()[:100]
    (run.path / "record.json").write_bytes(left)
    assert resume(run.path, store=store, workers=0, warn=said.append).finished
    assert "record.json is damaged" in said[0]
    assert "the calls before this one are not in the record." in said[0]
    assert (run.path / "record-damaged.json").read_bytes() == left
    assert len(run.record()["calls"]) == 1


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
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(meter, "time", clock)
    monkeypatch.setattr(training_data, "load", clock.slow(training_data.load))
    recipe = tiny_recipe(training__max_minutes=30)
    assert not train(recipe, data, tmp_path / "run", store=store, workers=0).finished
    assert checkpoint_of(RunFolder(tmp_path / "run"))["place"] == [0, 0, 1]


def test_validation_counts_for_the_budget_and_every_call_gets_on(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(meter, "time", clock)
    monkeypatch.setattr(loop, "validate", clock.slow(loop.validate))
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
    real, calls = loop.validate, 0

    def validate(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    monkeypatch.setattr(loop, "validate", validate)
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


def nudged(value: Any) -> Any:
    """Another value of the same kind; of a tensor only the number in the middle, which `str` leaves out."""
    if isinstance(value, torch.Tensor):
        other = value.contiguous().clone()
        other.view(-1)[other.numel() // 2] += 1
        return other
    if isinstance(value, str | tuple):
        return value + value[:1]
    return not value if isinstance(value, bool) else 1.0 if value is None else value + 1


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if inner is None:
        yield path
    else:
        for key, part in inner:
            yield from leaves(part, (*path, key))


def test_any_difference_of_two_checkpoints_is_seen(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    recipe = tiny_recipe(training__average_decay=0.5, training__pretrain_epochs=0)
    train(recipe, data, out, store=store, workers=0, monitor=stopping_at(6))
    state, other = checkpoint_of(RunFolder(out)), checkpoint_of(RunFolder(out))
    assert_equal(state, other)
    every = list(leaves(state))
    ends = {path[0]: path for path in reversed(every)} | {(path[0], "last"): path for path in every}
    assert {name for name, part in state.items() if part != []} <= set(ends)
    for path in ends.values():
        place, last = functools.reduce(operator.getitem, path[:-1], other), path[-1]
        kept, place[last] = place[last], nudged(place[last])
        expected = re.escape("/".join(map(str, path)))
        with contextlib.nullcontext() if last == "minutes" else pytest.raises(AssertionError, match=expected):
            assert_equal(state, other)
        place[last] = kept


def test_a_checkpoint_holds_no_code(whole: RunFolder) -> None:
    assert set(checkpoint_of(whole)) >= {"place", "network", "optimiser", "schedule", "partial", "log"}


def copy_of(run: RunFolder, target: Path) -> RunFolder:
    target.mkdir()
    for path in run.path.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return RunFolder(target)


def other_network(state: dict[str, Any]) -> None:
    state["network"].popitem()


def lacking(state: dict[str, Any]) -> None:
    del state["place"]


@pytest.mark.parametrize("spoil", [other_network, lacking])
def test_a_checkpoint_of_another_run_is_a_run_error(
    whole: RunFolder, store: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    run = copy_of(whole, tmp_path / "run")
    state = checkpoint_of(run)
    spoil(state)
    checkpoints.save(run.checkpoint, state)
    with pytest.raises(RunError, match=r"checkpoint .* does not fit its recipe .*Delete it"):
        resume(run.path, store=store, workers=0)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "run", []
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(8))
    run = RunFolder(out)
    content = bytearray(run.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    run.checkpoint.write_bytes(content)
    assert resume(out, store=store, workers=0, warn=said.append).finished
    assert len(said) == 1
    assert "checkpoint.pt is damaged: its hash does not fit its content" in said[0]
    assert "Going on from the checkpoint before it" in said[0]
    assert_same(run, whole)


def test_a_run_whose_checkpoints_are_all_damaged_says_so(
    whole: RunFolder, store: Path, tmp_path: Path
) -> None:
    run = copy_of(whole, tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint-before.pt"):
        (run.path / name).write_bytes(b"")
    with pytest.raises(
        RunError,
        match=r"checkpoint-before.pt is damaged.* No other is left: delete checkpoint.pt and ",
    ):
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
    with pytest.raises(DataError, match=r"does not exist.* say where they lie now: --data mri=PATH"):
        resume(out, store=store, workers=0)
    others, before = tiny_data(tmp_path / "others", 4, 3), RunFolder(out).data()
    lacking = tmp_path / "lacking"
    shutil.copytree(tmp_path / "elsewhere", lacking)
    next(path for path in lacking.rglob("*_t1.nii.gz")).write_bytes(
        next(others["mri"].rglob("*00003_t1.nii.gz")).read_bytes()
    )
    with pytest.raises(
        RunError, match=r"have changed since .*, or are others; a resumed run must see the same"
    ):
        resume(out, data={"mri": lacking}, store=store, workers=0)
    with pytest.raises(DataError, match="no data of a modality 'mr'; did you mean 'mri'"):
        resume(out, data={"mr": lacking}, store=store, workers=0)
    assert RunFolder(out).data() == before
    assert resume(out, data={"mri": tmp_path / "elsewhere"}, store=store, workers=0).finished
    before["mri"]["path"] = str((tmp_path / "elsewhere").resolve())
    assert RunFolder(out).data() == before


def test_an_extended_run_is_one_that_was_planned_so(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    planned, extended = RunFolder(tmp_path / "planned"), RunFolder(tmp_path / "extended")
    train(tiny_recipe(training__extensions=[1, 2]), data, planned.path, store=store, workers=0)
    train(tiny_recipe(), data, extended.path, store=store, workers=0)
    with pytest.raises(RecipeError, match="extensions"):
        resume(extended.path, store=store, workers=0, extend=0)
    assert resume(extended.path, store=store, workers=0, extend=1).finished
    outcome = resume(extended.path, store=store, workers=0, extend=2, monitor=stopping_at(3))
    assert not outcome.finished
    with pytest.raises(RunError, match="is not finished; expected a finished run to extend"):
        resume(extended.path, store=store, workers=0, extend=2)
    assert resume(extended.path, store=store, workers=0).finished
    assert extended.recipe() == planned.recipe()
    assert [row["stage"] for row in log_of(extended)][-4:] == ["extension-2"] * 4
    assert_same(extended, planned)


def test_slices_with_neighbours_are_trained_on_and_gone_on_with(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(preparation__neighbours=1)
    one, other = tmp_path / "one", tmp_path / "other"
    before = {path.name for path in store.glob("*/*")}
    train(recipe, data, one, store=store, workers=0)
    train(recipe, data, other, store=store, workers=0, monitor=stopping_at(5))
    resume(other, store=store, workers=0)
    assert_same(RunFolder(one), RunFolder(other))
    shapes = [value.shape for value in checkpoint_of(RunFolder(one))["network"].values()]
    assert (4, 12, 3, 3) in shapes, "three slices of four channels"
    assert {path.name for path in store.glob("*/*")} == before, "nothing was prepared anew"
