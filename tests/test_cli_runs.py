"""The commands about runs, in this process: what they pass on and what they print."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import oncoseg.train
from oncoseg.cli import main
from oncoseg.cli.scores import print_scores
from oncoseg.demo import Demo
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.run_folder import RunFolder
from oncoseg.stopping import Terminated
from oncoseg.training.status import Outcome
from tiny import brats_case, tiny_data, tiny_recipe

NAME = "unified-mri-ct"
DATA = ["--data", "mri=some/mri", "--data", "ct=some/ct"]

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def started(monkeypatch: Patch) -> list[dict[str, Any]]:
    """Stands for `oncoseg.train.train` and keeps what it was called with."""
    calls: list[dict[str, Any]] = []

    def train(recipe: Recipe, data: Any, out: Path, **more: Any) -> Outcome:
        calls.append({"recipe": recipe, "data": data, "out": out, **more})
        return Outcome(out, True, "all epochs are done")

    monkeypatch.setattr(oncoseg.train, "train", train)
    return calls


@pytest.fixture
def resumed(monkeypatch: Patch, tmp_path: Path) -> list[dict[str, Any]]:
    """A run folder `tmp_path/run`, and a stand-in for `oncoseg.train.resume`."""
    calls: list[dict[str, Any]] = []

    def resume(out: Path, **more: Any) -> Outcome:
        calls.append({"out": out, **more})
        return Outcome(out, True, "all epochs are done")

    run = RunFolder(tmp_path / "run")
    run.write_recipe(get_recipe(NAME))
    run.write_data({"mri": {"path": str(tmp_path / "mri")}, "ct": {"path": str(tmp_path / "ct")}})
    monkeypatch.setattr(oncoseg.train, "resume", resume)
    return calls


SAYING = ("progress", "foretell", "opened", "warn")
"""What tells the user how it goes."""


def keeping(calls: list[Any], result: Any) -> Callable[..., Any]:
    """Stands for a function: keeps what it was called with and gives a result."""

    def call(*given: Any, **named: Any) -> Any:
        calls.append((given, {name: value for name, value in named.items() if name not in SAYING}))
        return result

    return call


def evaluation(folder: Path) -> Path:
    """An evaluation's folder with one row of a table and one of the paper's."""
    dice = {"mean": 0.5, "median": 0.5, "low": 0.25, "high": 0.75, "n": 7, "undefined": 0, "note": ""}
    row = {"group": "mri", "averaging": "patient", "units": 9}
    row |= {"both_empty": 2, "truth_empty": 3, "prediction_empty": 1}
    summary = {
        "synthetic": True,
        "prediction": {"flips": True},
        "split": "test",
        "threshold": 0.5,
        "confidence": 0.95,
        "empty_rule": "Left out.",
        "definitions": {"dice": "Overlap.", "recall": "Found.", "auc": "Area."},
        "averagings": {"patient": "Per patient."},
        "table": [row | {"scores": {"dice": dice, "recall": dice | {"n": 4}, "auc": dice | {"mean": None}}}],
        "published": [{"row": "ct", "scores": {"dice": 0.8}}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


# train


def test_train_passes_on_what_its_flags_say(started: list[dict[str, Any]], tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    fields = {
        "training.max-epochs": "3",
        "modalities.ct.scaling": "window",
        "modalities.ct.window": "[-900, 300]",
        "modalities.mri.loss.arguments.alpha": "0.7",
        "modalities.mri.substitutes.T1ce": "zeros",
        "prediction.flips": "true",
        "split.train": "0.6",
        "training.max-minutes": "2.5",
    }
    flags = [text for name, value in fields.items() for text in (f"--{name}", value)]
    assert main(["train", NAME, *DATA, "--out", "runs/x", "--split", str(split), *flags]) == 0
    (call,) = started
    assert call["data"].folders == {"mri": Path("some/mri"), "ct": Path("some/ct")}
    assert (call["out"], call["split_file"], call["store"]) == (Path("runs/x"), split, None)
    assert call["recipe"] == get_recipe(NAME).with_changes(
        {name.replace("-", "_"): value for name, value in fields.items()}
    )
    assert call["recipe"].training.max_epochs == 3
    assert call["recipe"].split.train == 0.6
    assert call["recipe"].prediction.flips is True


def test_channels_go_to_the_modalities_that_take_them(started: list[dict[str, Any]], capsys: Capture) -> None:
    chosen = ["--channel", "CT=thorax", "--channel", "t1w=mprage"]
    assert main(["train", NAME, *DATA, "--out", "runs/x", *chosen]) == 0
    assert started[0]["data"].channels == {"ct": {"CT": "thorax"}, "mri": {"T1": "mprage"}}
    for flags, reason in (
        (["--channel", "PET=x"], "No modality of unified-mri-ct takes the channel PET"),
        (["--channel", "T1"], "Expected --channel NAME=SERIES"),
        (["--channel", "T1=a", "--channel", "T1=b"], "--channel T1= is given twice"),
        (["--channel", "T1=a", "--resume"], "leave --channel out"),
    ):
        assert main(["train", NAME, *DATA, "--out", "runs/x", *flags]) == 2
        assert reason in capsys.readouterr().err
    assert len(started) == 1


def test_train_takes_a_recipe_from_a_file(started: list[dict[str, Any]], tmp_path: Path) -> None:
    recipe = get_recipe(NAME).with_changes({"training.max_epochs": 7})
    (tmp_path / "mine.json").write_text(recipe.to_json())
    assert main(["train", str(tmp_path / "mine.json"), *DATA, "--out", "x", "--training.seed=5"]) == 0
    assert started[0]["recipe"] == recipe.with_changes({"training.seed": 5})


def test_a_new_network_and_loss_get_no_arguments_of_the_old(started: list[dict[str, Any]]) -> None:
    flags = [
        "--network.name",
        "plain",
        "--modalities.mri.loss.name",
        "bce",
        "--modalities.ct.loss.arguments",
        "{}",
    ]
    assert main(["train", NAME, *DATA, "--out", "x", *flags, "--network.arguments.depth", "2"]) == 0
    recipe = started[0]["recipe"]
    assert recipe.network.arguments == {"depth": 2}
    assert [modality.loss.arguments for modality in recipe.modalities.values()] == [{}, {}]


def test_train_on_a_part_of_the_modalities(started: list[dict[str, Any]], capsys: Capture) -> None:
    command = ["train", NAME, "--data", "mri=some/mri", "--out", "x", "--training.seed", "5"]
    assert main([*command, "--only", "mri"]) == 0
    assert started[0]["recipe"] == get_recipe(NAME).with_changes({"training.seed": 5}).with_only(["mri"])
    assert main([*command, "--only", "mri", "--only", "ct"]) == 0
    assert list(started[1]["recipe"].modalities) == ["mri", "ct"]
    assert main([*command, "--only", "mr"]) == 2
    assert "did you mean 'mri'" in capsys.readouterr().err


def test_a_part_may_take_other_channels_than_what_is_left_out(started: list[dict[str, Any]]) -> None:
    command = ["train", NAME, "--data", "mri=some/mri", "--out", "x", "--only", "mri"]
    one = ["--modalities.mri.channels", '["T1"]', "--modalities.ct.scaling", "window"]
    assert main([*command, *one]) == 0
    assert started[0]["recipe"].in_channels == 1
    assert list(started[0]["recipe"].modalities) == ["mri"]


def test_resume_accepts_the_part_that_the_run_was_started_with(
    resumed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_recipe(get_recipe(NAME).with_only(["mri"]))
    assert main(["train", NAME, "--only", "mri", "--out", str(run.path), "--resume"]) == 0
    assert main(["train", "--only", "mri", "--out", str(run.path), "--resume"]) == 0
    assert main(["train", NAME, "--out", str(run.path), "--resume"]) == 2
    assert len(resumed) == 2


def test_resume_needs_the_run_folder_only(resumed: list[dict[str, Any]], tmp_path: Path) -> None:
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--training.max-minutes", "5"]) == 0
    assert resumed[0]["out"] == tmp_path / "run"
    assert resumed[0]["max_minutes"] == 5


@pytest.mark.parametrize(("more", "budget"), [([], 7), (["--training.max-minutes", "none"], None)])
def test_resume_keeps_the_budget_or_takes_it_away(
    resumed: list[dict[str, Any]], tmp_path: Path, more: list[str], budget: float | None
) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_recipe(run.recipe().with_changes({"training.max_minutes": 7}))
    assert main(["train", "--resume", "--out", str(run.path), *more]) == 0
    assert resumed[0]["max_minutes"] == budget


def test_resume_accepts_the_command_that_started_the_run(
    resumed: list[dict[str, Any]], tmp_path: Path
) -> None:
    data = ["--data", f"mri={tmp_path / 'mri'}", "--data", f"ct={tmp_path / 'ct'}"]
    assert main(["train", NAME, *data, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert len(resumed) == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            ["--training.learning-rate", "0.1"],
            "`training.learning_rate` (0.0001 there, 0.1 now). ",
        ),
        (
            ["--modalities.ct.scaling", "window", "--training.patience", "7"],
            '`modalities.ct.scaling` ("slice-minmax" there, "window" now), '
            "`training.patience` (null there, 7 now). ",
        ),
        (["--split", "split.json"], "keeps its own split"),
    ],
)
def test_resume_refuses_what_would_change_the_run(
    more: list[str], expected: str, resumed: list[Any], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), *more]) == 2
    assert expected in capsys.readouterr().err
    assert not resumed


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("SIGINT was received", 130),
        ("SIGTERM was received", 143),
        ("SIGUSR1 was received", 138),
        ("the time budget is spent", 75),
    ],
)
def test_a_stopped_training_says_how_to_go_on(
    reason: str, code: int, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(oncoseg.train, "train", lambda recipe, data, out, **_: Outcome(out, False, reason))
    assert main(["train", NAME, *DATA, "--out", "runs/x"]) == code
    said = capsys.readouterr().out
    assert "oncoseg train --resume --out runs/x" in said
    assert ("--training.max-minutes N gives it another" in said) == (code == 75)


@pytest.mark.parametrize("flag", ["--out {}", "--out={}"])
def test_a_resumed_training_that_is_stopped_while_preparing_says_how_to_go_on(
    flag: str, resumed: list[Any], capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    def terminated(out: Path, **more: Any) -> Outcome:
        raise Terminated

    monkeypatch.setattr(oncoseg.train, "resume", terminated)
    assert main(["train", "--resume", *flag.format(tmp_path / "run").split()]) == 143
    command = f"Go on with: oncoseg train --resume --out {tmp_path / 'run'}."
    assert f"Stopped by SIGTERM; what was finished is kept. {command}\n" in capsys.readouterr().err
    monkeypatch.setattr(oncoseg.train, "train", lambda recipe, data, out, **more: terminated(out))
    assert main(["train", NAME, *DATA, *flag.format(tmp_path / "new").split()]) == 143
    assert "Stopped by SIGTERM; what was finished is kept.\n" in capsys.readouterr().err


# predict, evaluate, report, demo


@pytest.mark.parametrize(
    ("flags", "changes", "modality", "probabilities"),
    [
        ([], {}, None, False),
        (["--modality", "ct", "--probabilities"], {}, "ct", True),
        (["--threshold", "0.3"], {"prediction.threshold": 0.3}, None, False),
        (["--flips"], {"prediction.flips": True}, None, False),
        (["--accept-implausible"], {}, None, False),
        (["--format", "seg", "--format", "nifti"], {}, None, False),
        (["--channel", "T1=t1 mprage", "--channel", "FLAIR=*flair*"], {}, None, False),
    ],
)
def test_predict_passes_on_what_its_flags_say(
    flags: list[str],
    changes: dict[str, Any],
    modality: str | None,
    probabilities: bool,
    monkeypatch: Patch,
    capsys: Capture,
) -> None:
    loaded: list[Any] = []
    predicted: list[Any] = []

    class Stand:
        load = staticmethod(lambda *given: loaded.append(given) or Stand)
        predict = staticmethod(keeping(predicted, [Path("masks/a.nii.gz"), Path("masks/b.nii.gz")]))

    monkeypatch.setattr("oncoseg.predict.Predictor", Stand)
    monkeypatch.setattr("oncoseg.prediction_record.substitutions", lambda out: {"a": {"T2": "FLAIR"}})
    monkeypatch.setattr(
        "oncoseg.prediction_record.remarks", lambda out: {"b": ["CT: expected some air or fat."]}
    )
    assert main(["predict", "run", "one", "two", "--out", "masks", *flags]) == 0
    assert loaded == [(Path("run"), changes)]
    named: dict[str, Any] = {"modality": modality, "probabilities": probabilities, "spread": None}
    named["formats"] = ["seg", "nifti"] if "--format" in flags else ("nifti",)
    named["channels"] = {"T1": "t1 mprage", "FLAIR": "*flair*"} if "--channel" in flags else {}
    named["accept_implausible"] = "--accept-implausible" in flags
    assert predicted == [(((Path("one"), Path("two")), Path("masks")), named)]
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["masks/a.nii.gz", "masks/b.nii.gz"]
    assert "a: predicted with FLAIR in place of T2" in printed.err
    assert "b: CT: expected some air or fat." in printed.err


@pytest.mark.parametrize(
    ("flags", "split", "data", "changes", "out", "replace"),
    [
        ([], None, {}, {}, None, False),
        (
            ["--split", "validation", "--data", "ct=moved"],
            "validation",
            {"ct": Path("moved")},
            {},
            None,
            False,
        ),
        (
            ["--threshold", "0.3", "--flips", "--out", "other", "--replace"],
            None,
            {},
            {"prediction.threshold": 0.3, "prediction.flips": True},
            Path("other"),
            True,
        ),
    ],
)
def test_evaluate_passes_on_what_its_flags_say(
    flags: list[str],
    split: str | None,
    data: dict[str, Path],
    changes: dict[str, Any],
    out: Path | None,
    replace: bool,
    monkeypatch: Patch,
    capsys: Capture,
    tmp_path: Path,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("oncoseg.evaluate.run.evaluate_run", keeping(calls, evaluation(tmp_path)))
    assert main(["evaluate", "run", *flags]) == 0
    more = {"out": out, "replace": replace}
    assert calls == [((Path("run"), split), {"data": data, "changes": changes, **more})]
    printed = capsys.readouterr().out
    assert "0.500 [0.250, 0.750]" in printed
    assert f"Evaluation: {tmp_path}" in printed


def test_report_names_the_page_and_its_figures(monkeypatch: Patch, capsys: Capture, tmp_path: Path) -> None:
    for name in ("index.html", "roc.svg", "examples.png", "notes.txt"):
        (tmp_path / name).touch()
    calls: list[Any] = []
    monkeypatch.setattr("oncoseg.report.write_report", keeping(calls, tmp_path / "index.html"))
    assert main(["report", "run", "--evaluation", "other"]) == 0
    assert main(["report", "run"]) == 0
    assert calls == [((Path("run"), Path("other")), {}), ((Path("run"), None), {})]
    printed = capsys.readouterr().out.splitlines()
    assert printed[3:] == [
        f"Report: {tmp_path / 'index.html'}",
        f"Figure: {tmp_path / 'examples.png'}",
        f"Figure: {tmp_path / 'roc.svg'}",
    ]


def test_demo_prints_the_table_and_the_reports_path(
    monkeypatch: Patch, capsys: Capture, tmp_path: Path
) -> None:
    outs: list[Path] = []

    def run_demo(out: Path, say: Callable[[str], None], monitor: Any) -> Demo:
        outs.append(out)
        say("1/5 making phantoms")
        return Demo(out / "run", evaluation(tmp_path), [], out / "run" / "report" / "index.html")

    monkeypatch.setattr("oncoseg.demo.run_demo", run_demo)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr()
    assert outs == [tmp_path / "demo"]
    assert "1/5 making phantoms" in printed.err
    assert "0.500 [0.250, 0.750]" in printed.out
    assert f"Report: {tmp_path / 'demo' / 'run' / 'report' / 'index.html'}" in printed.out


def test_from_raw_folders_to_masks_and_a_report(tmp_path: Path, capsys: Capture) -> None:
    data = tiny_data(tmp_path)
    run, recipe, new = tmp_path / "run", tmp_path / "tiny.json", tmp_path / "new"
    recipe.write_text(tiny_recipe(training__max_epochs=1).to_json())
    brats_case(new, 77)

    def printed(*command: object) -> str:
        assert main(list(map(str, command))) == 0
        return capsys.readouterr().out

    folders = [text for name, folder in data.items() for text in ("--data", f"{name}={folder}")]
    more = ["--store", tmp_path / "store", "--workers", 0]
    assert f"Next: oncoseg evaluate {run}" in printed("train", recipe, *folders, "--out", run, *more)
    scores = printed("evaluate", run, "--split", "validation", "--threshold", 0.3, "--flips")
    assert "Scores on the validation set (threshold 0.3, mirror averaging on)" in scores
    assert f"Evaluation: {run / 'evaluation' / 'validation'}" in scores
    for line in printed("report", run).splitlines():
        assert Path(line.partition(": ")[2]).is_file()
    (mask,) = printed("predict", run, new, "--out", tmp_path / "masks", "--probabilities").split()
    assert np.unique(np.asarray(nib.load(mask).dataobj)).max() <= 1
    assert mask == str(tmp_path / "masks" / "BraTS2021_00077.nii.gz")
    assert Path(mask.replace(".nii.gz", "_probability.nii.gz")).is_file()


def test_scores_are_printed_with_their_definitions(tmp_path: Path, capsys: Capture) -> None:
    print_scores(evaluation(tmp_path))
    printed = capsys.readouterr().out
    assert "0.500 [0.250, 0.750]" in printed
    assert "—" in printed
    assert re.search(r"\n +mri +patient +\n", printed)
    for unit, count in {"n": 7, "empty": 2, "zero": 4}.items():  # scored, empty, zero by the rule
        assert re.search(rf"\n +{unit} +{count} +\n", printed)
    assert re.search(r"\n +recall +0\.500 \[0\.250, 0\.750\] +\n +recall: n +4 +\n", printed)
    assert "auc: n" not in printed
    assert re.search(r"\n +ct +paper, other data +\n", printed)
    assert re.search(r"\n +dice +0\.80 +\n", printed)
    assert "paper, other data: as printed" in printed
    assert "synthetic phantoms" in printed
    assert "mirror averaging on" in printed
    for text in ("dice: Overlap.", "patient: Per patient.", "Empty masks: Left out.", "threshold 0.5", "95%"):
        assert text in printed


def test_tables_of_scores_fit_into_eighty_columns(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    dice = {"mean": 0.6, "median": 0.5, "low": 0.25, "high": 0.75, "n": 99, "undefined": 0, "note": ""}
    plain = dice | {"low": None, "high": None}
    names = ("dice", "iou", "precision", "recall", "f1", "auc")
    units = {"units": 99, "both_empty": 12, "truth_empty": 3, "prediction_empty": 10}
    rows = [
        {
            "group": "mri",
            "averaging": averaging,
            **units,
            "scores": dict.fromkeys(names, score) | {"auc": odd},
        }
        for averaging, score, odd in (
            ("patient", dice, dice | {"n": 98}),
            ("slice", plain, plain | {"n": 98}),
            ("slice-empty-is-one", plain, plain | {"n": 98}),
            ("pooled", plain, plain),
        )
    ]
    summary = json.loads((evaluation(tmp_path) / "summary.json").read_text())
    summary |= {"table": rows, "published": [{"row": "mri", "scores": dict.fromkeys(names, 0.8)}]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr("oncoseg.cli.terminal.WIDTH_OF_TABLES", 80)
    print_scores(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if " pooled " in line)
    table = lines[start - 2 : start + 13]
    assert max(map(len, table)) <= 80
    (auc,) = [line.split() for line in table if line.split()[:1] == ["auc"]]
    assert auc == ["auc", "0.600", "[0.250,", "0.750]", "0.600", "0.600", "0.600", "0.80"]
    (of,) = [line.split() for line in table if line.split()[:2] == ["auc:", "n"]]
    assert of[2:] == ["98", "98", "98", "99", "—"]
