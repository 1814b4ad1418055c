"""Epochs added to a finished run: once, however often the command is refused, killed and repeated."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.cross_validate import resume_folds, train_folds
from oncoseg.errors import DataError, RunError
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import loop
from oncoseg.training.status import Status
from oncoseg.training.sums import Validated
from runs import assert_same, log_of
from tiny import tiny_data, tiny_recipe

STILL_EXTENDED = r"is not finished; .*\(its extension by 3 epochs is not done yet\)\. .* without --extend: "


class Killed(BaseException):
    pass


def kill(status: Status) -> None:
    """Within the first epoch of an extension."""
    if status.stage.startswith("extension") and status.step == 2:
        raise Killed


def test_a_refused_extension_leaves_the_run_as_it_was(tmp_path: Path, store: Path) -> None:
    data, run = tiny_data(tmp_path / "data", 3, 3), RunFolder(tmp_path / "run")
    train(tiny_recipe(training__max_epochs=1), data, run.path, store=store, workers=0)
    before = {path.name: path.read_bytes() for path in run.path.glob("*.json")}
    data["mri"].rename(tmp_path / "away")
    with pytest.raises(DataError, match="does not exist"):
        resume(run.path, store=store, workers=0, extend=3)
    assert {path.name: path.read_bytes() for path in run.path.glob("*.json")} == before
    assert run.is_finished()


def test_a_killed_extension_is_unfinished_and_not_begun_twice(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    planned, killed = RunFolder(tmp_path / "planned"), RunFolder(tmp_path / "killed")
    one = {"training__max_epochs": 1, "training__pretrain_epochs": 0}
    train(tiny_recipe(**one, training__extensions=[3]), data, planned.path, store=store, workers=0)
    train(tiny_recipe(**one), data, killed.path, store=store, workers=0)
    with pytest.raises(Killed):
        resume(killed.path, store=store, workers=0, extend=3, monitor=kill)
    assert not killed.is_finished()
    for _ in range(2):
        with pytest.raises(RunError, match=STILL_EXTENDED):
            resume(killed.path, store=store, workers=0, extend=3)
    assert killed.recipe().training.extensions == (3,)
    assert resume(killed.path, store=store, workers=0).finished
    assert killed.recipe() == planned.recipe()
    assert_same(killed, planned)


def test_a_kill_between_the_two_files_leaves_a_run_that_can_be_extended(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: RunFolder, recipe: object) -> None:
        raise Killed

    run = RunFolder(tmp_path / "run")
    train(tiny_recipe(training__max_epochs=1), data, run.path, store=store, workers=0)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_recipe", killed)
        with pytest.raises(Killed):
            resume(run.path, store=store, workers=0, extend=1)
    assert resume(run.path, store=store, workers=0).finished
    assert run.is_finished()
    assert resume(run.path, store=store, workers=0, extend=1).finished
    assert run.recipe().training.extensions == (1,)


def test_a_run_that_only_says_it_is_finished_is_not_extended(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    train(tiny_recipe(training__max_epochs=1), data, run.path, store=store, workers=0)
    run.write_recipe(run.recipe().with_changes({"training.extensions": [3]}))  # as a kill left it before
    with pytest.raises(RunError, match=STILL_EXTENDED):
        resume(run.path, store=store, workers=0, extend=3)
    assert run.recipe().training.extensions == (3,)


def test_a_fold_that_is_being_extended_is_gone_on_with(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "cv", tiny_recipe(training__max_epochs=1)
    assert train_folds(recipe, data, out, 3, fold=1, store=store, workers=0).finished
    with pytest.raises(Killed):
        resume(out / "fold-1", store=store, workers=0, extend=3, monitor=kill)
    assert resume_folds(out, fold=1, store=store, workers=0).finished
    assert [row["stage"] for row in log_of(RunFolder(out / "fold-1"))][-6:] == ["extension-1"] * 6


def test_the_kept_epoch_is_named_by_its_stage(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(loop, "validate", lambda *given: Validated(1.0, 0.5))
    recipe = tiny_recipe(training__max_epochs=1, training__pretrain_epochs=0)
    train(recipe, data, run.path, store=store, workers=0)
    monkeypatch.setattr(loop, "validate", lambda *given: Validated(1.0, 0.75))
    given = ["train", "--resume", "--extend", "1", "--out", str(run.path), "--store", str(store)]
    assert main(given) == 0
    assert "Kept: the weights of extension-1 epoch 1, validation Dice mri 0.750" in capsys.readouterr().out
