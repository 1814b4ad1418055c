"""A call that was killed before it trained leaves a folder that the same command takes over."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from oncoseg.errors import RunError
from oncoseg.rerun import rerun
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from runs import assert_same
from tiny import tiny_recipe


class Killed(BaseException):
    pass


def killed(*given: object) -> None:
    raise Killed


@pytest.mark.parametrize("file", ["write_recipe", "write_split", "write_data"])
def test_the_same_command_begins_again(
    whole: RunFolder,
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, file, killed)
        with pytest.raises(Killed):
            train(tiny_recipe(), data, run.path, store=store, workers=0)
    (run.path / "training.lock").touch()  # which `kill -9` leaves
    assert train(tiny_recipe(), data, run.path, store=store, workers=0).finished
    assert_same(run, whole)


def test_a_rerun_begins_again(
    whole: RunFolder, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_data", killed)
        with pytest.raises(Killed):
            rerun(whole.path, tmp_path / "run", store=store, workers=0)
    outcome, agreement = rerun(whole.path, tmp_path / "run", store=store, workers=0)
    assert outcome.finished
    assert agreement is not None
    assert agreement.verdict == "identical"


@pytest.mark.parametrize(
    "files",
    [
        {"recipe.json": '{"format_version": 1}'},
        {"recipe.json": "KEPT", "notes.txt": "mine"},
        {"split.json": "{}"},
        {"recipe.json": "KEPT\n"},
    ],
)
def test_a_file_that_is_not_its_own_is_left_alone(
    data: Mapping[str, Path], store: Path, tmp_path: Path, files: Mapping[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("KEPT", tiny_recipe().to_json() + "\n"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="is not empty"):
        train(tiny_recipe(), data, tmp_path, store=store, workers=0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_another_call_began_meanwhile_is_not_written_over(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oncoseg.training import loop

    out, first = tmp_path / "run", tiny_recipe(training__max_epochs=1)
    made = loop.Training.__init__

    def overtaken(self: loop.Training, *given: object) -> None:
        monkeypatch.undo()
        assert train(first, data, out, store=store, workers=0).finished
        made(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Training, "__init__", overtaken)
    with pytest.raises(RunError, match="is not empty"):
        train(tiny_recipe(), data, out, store=store, workers=0)
    assert RunFolder(out).recipe() == first
    assert RunFolder(out).is_finished()
