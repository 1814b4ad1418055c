"""Cross-validation on the command line: what is passed on, what is said, and what is refused."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import oncoseg.cross_validate
from oncoseg.cli import main
from oncoseg.folds_folder import FoldsFolder
from oncoseg.recipes import get_recipe
from oncoseg.run_folder import RunFolder
from oncoseg.training import data as training_data
from oncoseg.training.status import Outcome
from tiny import tiny_recipe

NAME = "unified-mri-ct"
START = ["train", NAME, "--data", "mri=some/mri", "--data", "ct=some/ct"]

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for training and resuming; keeps what they were called with."""
    found: Calls = []

    def keep(*given: Any, **named: Any) -> Outcome:
        found.append((given, named))
        out = next(one for one in given if isinstance(one, Path))
        return Outcome(out, True, "fold 2 of 3 done")

    monkeypatch.setattr(oncoseg.cross_validate, "train_folds", keep)
    monkeypatch.setattr(oncoseg.cross_validate, "resume_folds", keep)
    return found


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Three folds, of which the second is finished."""
    out = tmp_path / "cv"
    run = RunFolder(out)
    run.write_recipe(get_recipe(NAME))
    run.write_data({name: {"path": str(tmp_path / name)} for name in ("mri", "ct")})
    FoldsFolder(out).write_splits(0, [{}, {}, {}])
    FoldsFolder(out).run(2).write_metrics({"finished": True})
    return out


@pytest.mark.parametrize(
    ("flags", "folds", "fold"),
    [
        (["--folds", "5"], 5, None),
        (["--folds", "patients", "--fold", "3"], None, 3),
    ],
)
def test_train_passes_on_the_folds(
    calls: Calls, begun: Path, flags: list[str], folds: int | None, fold: int | None
) -> None:
    assert main([*START, "--out", str(begun), "--training.seed", "4", *flags]) == 0
    ((recipe, data, out, count), named) = calls[0]
    assert recipe == get_recipe(NAME).with_changes({"training.seed": 4})
    assert data.folders == {"mri": Path("some/mri"), "ct": Path("some/ct")}
    assert (out, count, named["fold"]) == (begun, folds, fold)


def test_what_is_stated_of_the_data_is_passed_on(calls: Calls, begun: Path) -> None:
    stated = ["--licence", "mri=CC BY 4.0", "--origin", "ct=doi:10.7937/x"]
    assert main([*START, "--out", str(begun), "--folds", "5", *stated]) == 0
    assert main(["train", "--resume", "--out", str(begun), *stated]) == 0
    ((_, sources, *_), _), (_, named) = calls
    assert (sources.licences, sources.origins) == ({"mri": "CC BY 4.0"}, {"ct": "doi:10.7937/x"})
    assert (named["licences"], named["origins"]) == (sources.licences, sources.origins)


def test_resuming_a_cross_validation_goes_on_with_its_folds(
    calls: Calls, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--resume", "--out", str(begun)]
    assert main([*command, "--fold", "2", "--training.max-minutes", "5"]) == 0
    ((out,), named) = calls[0]
    assert (out, named["fold"], named["max_minutes"]) == (begun, 2, 5)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"Trained: {begun} (fold 2 of 3 done)",
        f"Left: fold-1, fold-3; oncoseg train --resume --out {begun}",
    ]
    for number in (1, 3):
        FoldsFolder(begun).run(number).write_metrics({"finished": True})
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: oncoseg evaluate {begun}"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("SIGTERM was received", 143),
        ("SIGUSR1 was received", 138),
        ("the time budget of 5 minutes is spent", 75),
    ],
)
def test_a_stop_is_said_with_the_command_to_go_on(
    begun: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str,
    code: int,
) -> None:
    stopped = Outcome(begun, False, reason)
    monkeypatch.setattr(oncoseg.cross_validate, "resume_folds", lambda *given, **named: stopped)
    assert main(["train", "--resume", "--out", str(begun)]) == code
    assert f"Go on with: oncoseg train --resume --out {begun}" in capsys.readouterr().out


def test_a_signal_between_two_folds_is_said_with_the_command_to_go_on(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It comes where the second fold's data are read."""
    out, calls, real = tmp_path / "cv", [], training_data.load

    def load(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGUSR1)
        return real(*given, **named)

    monkeypatch.setattr(training_data, "load", load)
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    given = [f"--data={name}={folder}" for name, folder in data.items()]
    command = ["train", str(tmp_path / "recipe.json"), *given, "--folds", "3", "--out", str(out)]
    assert main([*command, "--store", str(store), "--workers", "0"]) == 138
    assert capsys.readouterr().out.splitlines() == [
        f"Stopped: SIGUSR1 was received; everything so far is kept in {out}",
        f"Go on with: oncoseg train --resume --out {out}",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*START, "--out", "x", "--fold", "2"], "expected --folds with it"),
        ([*START, "--out", "x", "--folds", "3", "--split", "s.json"], "leave --split out"),
        ([*START, "--out", "x", "--folds", "some"], "Invalid value for --folds"),
        (["train", "--resume", "--out", "CV", "--folds", "3"], "keeps its own folds; leave --folds out"),
        (["train", "--resume", "--out", "CV", "--extend", "3"], "expected one of its folds, such as --out"),
        (["train", "--resume", "--out", "CV", "--split", "s.json"], "leave --split out"),
        (["train", "--resume", "--out", "CV", "--training.seed", "9"], "started with other settings"),
        (["train", "--resume", "--out", "CV/fold-1", "--fold", "1"], "holds none; leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused(
    calls: Calls, begun: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main([flag.replace("CV", str(begun)) for flag in flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not calls


def test_the_scores_are_said_to_be_out_of_fold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_cli_runs import evaluation

    written = evaluation(tmp_path)
    text = (written / "summary.json").read_text().replace('{"flips": true}', '{"flips": true, "folds": 3}')
    (written / "summary.json").write_text(text)
    given: list[Mapping[str, Any]] = []
    monkeypatch.setattr(
        "oncoseg.evaluate.run.evaluate_run", lambda *positional, **named: (given.append(named), written)[1]
    )
    assert main(["evaluate", str(begun)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Scores out of fold, each patient by the one of 3 folds that has not seen them")
