"""Cross-validation on tiny data: every fold an ordinary run, stopped, shared, damaged."""

import json
import multiprocessing
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from oncoseg import cross_validate, folds
from oncoseg.cross_validate import resume_folds, train_folds
from oncoseg.errors import DataError, RunError
from oncoseg.folds_folder import FoldsFolder, split_of_model
from oncoseg.locks import Locked, locked
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from oncoseg.training import data as training_data
from oncoseg.training import loop
from oncoseg.training.sources import Data, Sources
from oncoseg.training.status import Outcome
from runs import assert_same, checkpoint_of, stopping_at
from tiny import brats_case, tiny_data, tiny_recipe

CHANGES: dict[str, Any] = {"training__pretrain_epochs": 0, "training__max_epochs": 1}


@pytest.fixture(scope="module")
def whole(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> FoldsFolder:
    """Three folds from beginning to end."""
    out = tmp_path_factory.mktemp("folds") / "cv"
    outcome = train_folds(tiny_recipe(**CHANGES), data, out, 3, store=store, workers=0)
    assert outcome == Outcome(out, True, "folds 1, 2, 3 of 3 done")
    return FoldsFolder(out)


def begin(data: Data, store: Path, out: Path, **more: Any) -> Outcome:
    return train_folds(tiny_recipe(**CHANGES), data, out, 3, store=store, workers=0, **more)


def go_on(out: Path, store: Path, **more: Any) -> Outcome:
    return resume_folds(out, store=store, workers=0, **more)


# what it leaves


def test_every_fold_is_the_run_that_its_split_gives(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    for number, run in enumerate(whole.runs(), 1):
        assert run.path == whole.path / f"fold-{number}"
        assert run.split() == whole.splits()[number - 1]
        assert not run.lock.exists()
    alone = RunFolder(tmp_path / "alone")
    split_file = whole.run(2).path / "split.json"
    train(tiny_recipe(**CHANGES), data, alone.path, split_file=split_file, store=store, workers=0)
    assert_same(alone, whole.run(2))
    assert alone.data() == whole.run(2).data()
    assert {path.name for path in alone.path.iterdir()} == {path.name for path in whole.run(2).path.iterdir()}


def test_folds_have_other_weights_each(whole: FoldsFolder) -> None:
    assert len({run.model.read_bytes() for run in whole.runs()}) == 3


def test_every_case_is_tested_in_one_fold(whole: FoldsFolder) -> None:
    tested = [
        case
        for split in whole.splits()
        for parts in split.values()
        for cases in parts["test"].values()
        for case in cases
    ]
    assert len(tested) == len(set(tested)) == 8
    everybody = split_of_model(whole.path)
    assert sorted(
        case for parts in everybody.values() for cases in parts["train"].values() for case in cases
    ) == (sorted(tested))


def test_leaving_out_one_patient_makes_a_fold_of_each(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    only_mri = {"mri": data["mri"]}
    recipe = tiny_recipe(**CHANGES).with_only(["mri"])
    outcome = train_folds(recipe, only_mri, tmp_path / "cv", None, store=store, workers=0)
    assert outcome == Outcome(tmp_path / "cv", True, "folds 1, 2, 3, 4 of 4 done")
    for split in FoldsFolder(tmp_path / "cv").splits():
        assert [len(split["mri"][part]) for part in ("train", "validation", "test")] == [2, 1, 1]


# stopping and going on


@pytest.mark.parametrize("step", [1, 5])
def test_a_stopped_cross_validation_goes_on_as_if_it_never_was(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "cv"
    outcome = begin(data, store, out, monitor=stopping_at(step))
    assert outcome == Outcome(out, False, "SIGTERM was received")
    assert [run.is_finished() for run in FoldsFolder(out).runs()] == [step > 1, False, False]
    said: list[str] = []
    assert go_on(out, store, tell=said.append) == Outcome(out, True, "folds 1, 2, 3 of 3 done")
    first = 2 if step > 1 else 1
    assert said == [f"fold {number} of 3: {out}/fold-{number}" for number in range(first, 4)]
    for ours, theirs in zip(FoldsFolder(out).runs(), whole.runs(), strict=True):
        assert_same(ours, theirs)


def test_a_killed_fold_goes_on_from_its_checkpoint(
    whole: FoldsFolder,
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    calls = 0

    def kill(status: Any) -> None:
        nonlocal calls
        calls += not status.validated
        if calls == 6:  # the third step of the second fold
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_MINUTES", -1.0)
    with pytest.raises(Killed):
        begin(data, store, tmp_path / "cv", monitor=kill)
    assert checkpoint_of(FoldsFolder(tmp_path / "cv").run(2))["place"] == [0, 0, 2]
    assert go_on(tmp_path / "cv", store).finished
    for ours, theirs in zip(FoldsFolder(tmp_path / "cv").runs(), whole.runs(), strict=True):
        assert_same(ours, theirs)


def test_the_budget_is_of_the_whole_and_a_new_one_goes_on(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    recipe = tiny_recipe(**CHANGES, training__max_minutes=1e-9)
    outcome = train_folds(recipe, data, out, 3, store=store, workers=0)
    assert outcome == Outcome(out, False, "the time budget of 1e-09 minutes is spent")
    assert not FoldsFolder(out).run(2).checkpoint.exists(), "the next fold was not begun"
    assert go_on(out, store, max_minutes=None).finished
    assert_same(FoldsFolder(out).run(1), whole.run(1))
    assert RunFolder(out).recipe() == FoldsFolder(out).run(3).recipe() == recipe


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_between_two_folds_is_one_of_the_whole(
    whole: FoldsFolder,
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: signal.Signals,
) -> None:
    out, calls, real = tmp_path / "cv", [], training_data.load

    def load(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(asked)
        return real(*given, **named)

    monkeypatch.setattr(training_data, "load", load)
    assert begin(data, store, out) == Outcome(out, False, f"{asked.name} was received")
    assert [run.is_finished() for run in FoldsFolder(out).runs()] == [True, False, False]
    assert not FoldsFolder(out).run(2).lock.exists()


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_that_comes_after_a_folds_last_step_is_not_lost(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: signal.Signals,
) -> None:
    """While the finished fold is written down, nothing of it is left to be stopped."""
    out, real = tmp_path / "cv", loop.Training._save_metrics

    def save(self: loop.Training, finished: bool) -> None:
        if finished:
            signal.raise_signal(asked)
        real(self, finished)

    monkeypatch.setattr(loop.Training, "_save_metrics", save)
    assert begin(data, store, out) == Outcome(out, False, f"{asked.name} was received")
    assert [run.is_finished() for run in FoldsFolder(out).runs()] == [True, False, False]
    assert not FoldsFolder(out).run(2).checkpoint.exists()
    assert go_on(out, store, fold=2) == Outcome(out, True, "fold 2 of 3 done"), (
        "nothing is left to be stopped"
    )


def test_a_budget_that_a_fold_has_used_up_begins_no_other(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, clock, said, real = tmp_path / "cv", [0.0], list[str](), loop.Training._save_metrics

    def save(self: loop.Training, finished: bool) -> None:
        clock[0] += 3600 * finished
        real(self, finished)

    monkeypatch.setattr(loop.Training, "_save_metrics", save)
    monkeypatch.setattr(cross_validate.time, "monotonic", lambda: clock[0])
    recipe = tiny_recipe(**CHANGES, training__max_minutes=30)
    outcome = train_folds(recipe, data, out, 3, store=store, workers=0, tell=said.append)
    assert outcome == Outcome(out, False, "the time budget of 30 minutes is spent")
    assert said == [f"fold 1 of 3: {out}/fold-1"]
    assert [run.is_finished() for run in FoldsFolder(out).runs()] == [True, False, False]
    assert train_folds(recipe, data, out, 3, store=store, workers=0, fold=1).finished


def test_one_fold_alone(whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    assert begin(data, store, out, fold=2) == Outcome(out, True, "fold 2 of 3 done")
    assert [run.is_finished() for run in FoldsFolder(out).runs()] == [False, True, False]
    assert_same(FoldsFolder(out).run(2), whole.run(2))
    with pytest.raises(
        RunError, match=r"2 of the 3 folds in .*: fold-1, fold-3; .*train --resume --out .*/cv`"
    ):
        FoldsFolder(out).finished_runs()
    with pytest.raises(RunError, match="no fold 4; expected one from 1 to 3"):
        go_on(out, store, fold=4)


# what is said of it


def test_what_is_stated_of_the_data_is_kept_with_every_fold(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    begin(Sources(data, licences={"mri": "CC BY 4.0"}), store, out, fold=1)
    for run in (RunFolder(out), *FoldsFolder(out).runs()):
        assert run.data()["mri"]["licence"] == "CC BY 4.0"
        assert run.data()["ct"]["licence"] == "not stated"
    go_on(out, store, fold=2, origins={"ct": "a ward"})
    mri, ct = (FoldsFolder(out).run(2).record()["data"][name] for name in ("mri", "ct"))
    assert (mri["licence"], mri["origin"]) == ("CC BY 4.0", "not stated")
    assert (ct["licence"], ct["origin"]) == ("not stated", "a ward")
    with pytest.raises(DataError, match="The licence is stated for 'pet', which is no modality"):
        go_on(out, store, licences={"pet": "CC0"})
    with pytest.raises(DataError, match="The origin is stated for 'pet', which is no modality"):
        begin(Sources(data, origins={"pet": "a ward"}), store, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_every_fold_is_told_in_advance_and_stays_the_same(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    begin(data, store, tmp_path / "cv", tell=said.append, foretell=lambda line: said.append("takes " + line))
    assert [text.split()[:2] for text in said] == [
        part for number in "123" for part in (["fold", number], ["Measuring", "a"], ["takes", "about"])
    ]
    for ours, theirs in zip(FoldsFolder(tmp_path / "cv").runs(), whole.runs(), strict=True):
        assert_same(ours, theirs)


# several processes


def test_a_fold_that_another_process_trains_is_left_to_it(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "cv", []
    assert begin(data, store, out, fold=1).finished
    with locked(FoldsFolder(out).run(2).lock, "It"):
        outcome = go_on(out, store, tell=said.append)
        assert outcome == Outcome(out, False, "other processes are training fold 2")
        assert [run.is_finished() for run in FoldsFolder(out).runs()] == [True, False, True]
        assert "fold-2 is being trained by process" in "\n".join(said)
        with pytest.raises(Locked, match="fold-2 is being trained by process"):
            go_on(out, store, fold=2)
    assert not FoldsFolder(out).run(2).checkpoint.exists(), "nobody touched it"
    assert go_on(out, store) == Outcome(out, True, "folds 1, 2, 3 of 3 done")
    assert_same(FoldsFolder(out).run(2), whole.run(2))


def test_the_same_command_again_joins_and_another_one_is_refused(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    begin(data, store, out, fold=1)
    assert begin(data, store, out, fold=3) == Outcome(out, True, "fold 3 of 3 done")
    recipe = tiny_recipe(**CHANGES)
    with pytest.raises(RunError, match="holds a cross-validation with other folds"):
        train_folds(recipe, data, out, 2, store=store, workers=0)
    other = recipe.with_changes({"training.weight_decay": 0.5})
    with pytest.raises(RunError, match="holds a cross-validation with another recipe;"):
        train_folds(other, data, out, 3, store=store, workers=0)
    longer = recipe.with_changes({"training.max_minutes": 60})
    assert train_folds(longer, data, out, 3, store=store, workers=0).finished


# what is refused


def test_what_cannot_be_divided_leaves_nothing(store: Path, tmp_path: Path) -> None:
    data, out = tiny_data(tmp_path / "data", 1, 1), tmp_path / "cv"
    with pytest.raises(DataError, match=r"at least 3 patients .* got 2"):
        begin(data, store, out)
    with pytest.raises(DataError, match=r"at least 3 patients .* got 1"):
        recipe = tiny_recipe(**CHANGES).with_only(["mri"])
        train_folds(recipe, {"mri": data["mri"]}, out, None, store=store, workers=0)
    data = tiny_data(tmp_path / "more", 2, 2)
    with pytest.raises(DataError, match="as there are patients with a mask, 4; got 5"):
        train_folds(tiny_recipe(**CHANGES), data, out, 5, store=store, workers=0)
    assert not out.exists()


def add_core(folder: Path) -> None:
    """Give a case a slice of necrotic core beside its tumour, which is all enhancing."""
    (path,) = folder.glob("*_seg.nii.gz")
    mask = np.asarray(nib.load(path).dataobj).copy()
    mask[:8, :8, 1] = 1
    nib.Nifti1Image(mask, np.eye(4)).to_filename(path)


def test_a_class_that_a_fold_would_not_learn_is_refused_before_the_first_one(
    store: Path, tmp_path: Path
) -> None:
    """The core of one patient is not learned where this one is tested, or validates."""
    data, out = {"mri": tiny_data(tmp_path / "data", 3, 0)["mri"]}, tmp_path / "cv"
    classes = {"other": ["*"], "core": ["necrotic core"]}
    recipe = tiny_recipe(**CHANGES).with_only(["mri"]).with_changes({"classes": classes})
    marked, *others = sorted(data["mri"].iterdir())
    add_core(marked)
    prepared, _ = training_data.load_all(recipe, data, store, workers=0)
    splits = folds.draw(prepared, None, recipe.split.validation, recipe.training.seed)
    lacking = [str(n) for n, split in enumerate(splits, 1) if marked.name not in split["mri"]["train"]]
    assert lacking
    with pytest.raises(
        DataError, match=rf"of core in folds? {', '.join(lacking)} of 3; .*\. Add patients who have it"
    ):
        train_folds(recipe, data, out, None, store=store, workers=0)
    assert not out.exists()
    for one in others:
        add_core(one)
    assert train_folds(recipe, data, out, None, fold=1, store=store, workers=0).finished


def test_a_folder_with_something_else_is_left_alone(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="exists already and is not empty"):
        begin(data, store, tmp_path)
    with pytest.raises(RunError, match=r"folds.json cannot be read .*expected the folds"):
        go_on(tmp_path, store)


def test_data_that_change_between_two_folds_are_noticed(store: Path, tmp_path: Path) -> None:
    data, out = tiny_data(tmp_path / "data", 4, 4), tmp_path / "cv"
    begin(data, store, out, fold=1)
    (patient, *_) = FoldsFolder(out).splits()[1]["mri"]["train"]
    brats_case(tmp_path / "new", 77)
    shutil.copy(
        tmp_path / "new" / "BraTS2021_00077" / "BraTS2021_00077_t1.nii.gz",
        data["mri"] / patient / f"{patient}_t1.nii.gz",
    )
    with pytest.raises(RunError, match=r"The mri data at .* have changed since .*fold-2 was started"):
        go_on(out, store, fold=2)
    with pytest.raises(RunError, match="holds a cross-validation with other data"):
        begin(data, store, out, fold=2)


def test_damaged_folds_are_a_run_error(whole: FoldsFolder, store: Path, tmp_path: Path) -> None:
    for content in ("", "[]", '{"folds": 3}', '{"folds": [{}]}'):
        (tmp_path / "folds.json").write_text(content)
        with pytest.raises(RunError, match=r"folds\.json cannot be read"):
            go_on(tmp_path, store)


def test_the_partition_is_written_last_and_whole(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validate.FoldsFolder, "write_splits", fail)
    with pytest.raises(KeyboardInterrupt):
        begin(data, store, tmp_path / "cv")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    begin(data, store, tmp_path / "cv", fold=1)
    assert set(json.loads((tmp_path / "cv" / "folds.json").read_text())) == {"seed", "folds"}


def work(out: Path, data: Mapping[str, Path], store: Path, threads: int, meeting: Any, trained: Any) -> None:
    """Train whatever is free; the first step waits until the other process is at its first one, too."""
    torch.set_num_threads(threads)  # other numbers of threads round otherwise
    said: list[str] = []

    def look(status: Any) -> None:
        if not met:
            met.append(True)
            meeting.wait(300)
        if status.validated:
            trained.put(said[-1].split(":")[0])

    met: list[bool] = []
    begin(data, store, out, monitor=look, tell=said.append)


@pytest.mark.slow
def test_two_processes_share_the_folds_and_change_no_bit(
    whole: FoldsFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    """Both begin the same cross-validation at once, and each is within a fold when the other is, too."""
    context = multiprocessing.get_context("spawn")
    meeting, trained = context.Barrier(2), context.Queue()
    given = (tmp_path / "cv", data, store, torch.get_num_threads(), meeting, trained)
    workers = [context.Process(target=work, args=given) for _ in range(2)]
    for worker in workers:
        worker.start()
    done = sorted(trained.get(timeout=300) for _ in range(3))
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    assert done == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert trained.empty(), "no fold was trained twice"
    for ours, theirs in zip(FoldsFolder(tmp_path / "cv").runs(), whole.runs(), strict=True):
        assert_same(ours, theirs)


def test_a_process_that_comes_second_takes_what_was_made_or_refuses_it(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is quicker, between this one's look at the folder and its own writing."""
    out, real, quick = tmp_path / "cv", cross_validate._write, tmp_path / "quick"
    begin(data, store, quick, fold=1)

    def write(*given: Any) -> None:
        shutil.copytree(quick, out, dirs_exist_ok=True)
        real(*given)

    monkeypatch.setattr(cross_validate, "_write", write)
    assert begin(data, store, out, fold=2).finished
    assert FoldsFolder(out).run(1).is_finished(), "the other's folder was kept"
    shutil.rmtree(out)
    with pytest.raises(RunError, match="holds a cross-validation with other folds"):
        train_folds(tiny_recipe(**CHANGES), data, out, 2, store=store, workers=0)


def test_data_that_moved_are_taken_by_all_folds(store: Path, tmp_path: Path) -> None:
    data = dict(tiny_data(tmp_path / "data"))
    begin(data, store, tmp_path / "cv", monitor=stopping_at(1))
    moved = data["ct"].rename(tmp_path / "moved")
    with pytest.raises(DataError, match="--data ct=PATH"):
        go_on(tmp_path / "cv", store)
    with pytest.raises(RunError, match="or are others; a resumed cross-validation must see the same data"):
        go_on(tmp_path / "cv", store, data={"ct": tiny_data(tmp_path / "others", 1, 3)["ct"]})
    assert go_on(tmp_path / "cv", store, data={"ct": moved}).finished
    folder = FoldsFolder(tmp_path / "cv")
    for run in (RunFolder(folder.path), *folder.runs()):
        assert run.data()["ct"]["path"] == str(moved.resolve())
        assert run.data()["mri"]["path"] == str(data["mri"].resolve())
