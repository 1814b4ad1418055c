"""A study in which each run has its minutes, and runs that fail."""

from pathlib import Path
from typing import Any

import pytest

from oncoseg import train_study as module
from oncoseg.cli import main
from oncoseg.errors import FailedRun
from oncoseg.report.study import write_study
from oncoseg.run_folder import RunFolder
from oncoseg.studies.study import Variant
from oncoseg.study_folder import StudyFolder, is_done, minutes_spent
from oncoseg.train import resume
from oncoseg.train_study import Teller, resume_study, train_study
from oncoseg.training.status import Outcome, spent
from runs import stopping_at
from tiny import tiny_data
from tiny_study import CHANGES, runs_of, study_file, table, tiny_study

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients."""
    return tiny_data(tmp_path_factory.mktemp("data"), mri=8, ct=0)["mri"]


def test_every_run_can_have_the_same_minutes(
    mri: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training of which an epoch and a step take 20 minutes, and two more steps 10."""
    asked: list[float] = []
    steps_of_call = {20.0: 4, 10.0: 2}

    def slow(path: Path, *, max_minutes: float, **more: Any) -> Outcome:
        asked.append(max_minutes)
        took = 20.0 if max_minutes == 30 else 10.0
        outcome = resume(path, max_minutes=None, **more | {"monitor": stopping_at(steps_of_call[took])})
        record = RunFolder(path).record()
        record["in_all"]["minutes"] = 30 - max_minutes + took
        RunFolder(path).write_record(record)
        assert outcome.reason == "SIGTERM was received"
        return outcome._replace(reason=spent(max_minutes))

    monkeypatch.setattr(module, "resume", slow)
    study = tiny_study(minutes_each=30, published=None, changes=CHANGES | {"training.max_epochs": 1000})
    out = tmp_path / "out"
    assert train_study(study, {"mri": mri}, out, groups=["FLAIR"], store=store, workers=0).finished
    assert asked == [30, 10, 30, 10]
    runs = [run for name, run in runs_of(out).items() if name.startswith("FLAIR")]
    for run in runs:
        assert not run.is_finished()
        assert is_done(run, 30)
        assert minutes_spent(run) == 30
        assert run.metrics()["best"]["epoch"] == 1
    page = write_study(out).read_text(encoding="utf-8")
    assert "Every run had the same budget: 30 minutes of training" in page
    assert "Paper, " not in page
    assert [row["epochs"] for row in table(out / "table2.csv")] == [
        "1",
        "1",
    ]  # stopped before the second was validated


def test_budgets_that_hold_no_epoch_are_told_of_every_run(mri: Path, store: Path, tmp_path: Path) -> None:
    study = tiny_study(minutes_each=0.0001)
    with pytest.raises(FailedRun, match=r"^2 of 2 runs failed; ") as caught:
        train_study(study, {"mri": mri}, tmp_path / "out", groups=["FLAIR"], store=store, workers=0)
    for name in ("FLAIR, U-Net", "FLAIR, ASPP"):
        said = f"{name} has no weights: its 0.0001 minutes did not hold one epoch"
        assert said in str(caught.value)
        assert said in StudyFolder(tmp_path / "out").failure(
            next(run for run in study.runs() if run.name == name)
        )


@pytest.mark.slow
def test_a_run_that_fails_keeps_no_other(mri: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    """The first diverges; the second is trained, evaluated and shown. Later the first is tried last."""
    hot = Variant(changes=tiny_study().variants["U-Net"].changes | {"training.learning_rate": 1e30})
    study = tiny_study(variants={"hot": hot, "ASPP": Variant()}, published=None)
    out, said = tmp_path / "out", "FLAIR, hot: The loss or the weights became NaN or infinite at step"
    more = ["--out", str(out), "--store", str(store), "--workers", "0", "--only-group", "FLAIR"]
    command = ["study", str(study_file(tmp_path, study)), "--data", f"mri={mri}", *more]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert "1 of 2 runs failed; all others are trained and evaluated" in " ".join(shown.err.split())
    assert said in " ".join(shown.err.split())
    assert "Left: FLAIR, hot (failed: The loss" in " ".join(shown.out.split())
    assert {row["variant"] for row in table(out / "table1.csv")} == {"ASPP"}
    assert "FLAIR, hot (failed: The loss or the weights" in (out / "index.html").read_text(encoding="utf-8")
    order = list[str]()
    runs_of(out)["FLAIR, ASPP"].path.joinpath("evaluation", "test", "timing.json").unlink()
    with pytest.raises(FailedRun, match=r"FLAIR, hot: The loss"):
        resume_study(out, groups=["FLAIR"], store=store, workers=0, teller=Teller(tell=order.append))
    assert [line.partition(" failed")[0] for line in order] == [
        "evaluating FLAIR, ASPP",
        "run 1 of 2: FLAIR, hot",
        "FLAIR, hot",
    ]
    first = StudyFolder(out).study().runs()[0]
    # as on a machine on which it does not diverge
    cooler = runs_of(out)["FLAIR, hot"].recipe().with_changes({"training.learning_rate": 1e-3})
    runs_of(out)["FLAIR, hot"].write_recipe(cooler)
    assert resume_study(out, groups=["FLAIR"], store=store, workers=0).finished
    assert StudyFolder(out).failure(first) == ""
    assert not list(out.rglob("failure.json"))
