"""A study that trains each network three times: what it leaves and shows, alone and by two processes."""

import csv
import multiprocessing
import os
import queue
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from oncoseg import train_study as module
from oncoseg.cli import main
from oncoseg.evaluate.compare import compare
from oncoseg.locks import locked
from oncoseg.report.study import write_study
from oncoseg.run_folder import RunFolder
from oncoseg.study_folder import StudyFolder
from oncoseg.study_results import read_results
from oncoseg.train_study import Teller, resume_study, train_study
from runs import assert_same
from tiny import tiny_data
from tiny_study import CHANGES, study_file, tiny_study

Capture = pytest.CaptureFixture[str]
SEEDS = (0, 1, 2)
NAMES = [f"FLAIR, {network}, seed {seed}" for seed in SEEDS for network in ("U-Net", "ASPP")]
COSTS = ("epochs", "training_minutes", "inference_seconds")
PATIENCE_SECONDS = 300
"""Only for a test that hangs."""


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients."""
    return tiny_data(tmp_path_factory.mktemp("data"), mri=8, ct=0)["mri"]


def seeds_study() -> Any:
    """One group; so fast a training that the trainings end differently."""
    changes = CHANGES | {"training.learning_rate": 0.02, "training.max_epochs": 2}
    return tiny_study(groups={"FLAIR": tiny_study().groups["FLAIR"]}, changes=changes)


@pytest.fixture(scope="module")
def printed(
    mri: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], list[str]]:
    """The study by the command line, what that printed, and what it told meanwhile."""
    folder = tmp_path_factory.mktemp("study")
    out, said, told = folder / "out", list[str](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oncoseg.cli.terminal.say", said.append)
        patch.setattr("oncoseg.cli.terminal.note", told.append)
        file = study_file(folder, seeds_study())
        command = ["study", str(file), "--data", f"mri={mri}", "--out", str(out), "--seeds", "[0,1,2]"]
        assert main([*command, "--store", str(store), "--workers", "0"]) == 0
    return out, said, told


@pytest.fixture(scope="module")
def whole(printed: tuple[Path, list[str], list[str]]) -> Path:
    return printed[0]


def runs_of(out: Path) -> dict[str, RunFolder]:
    folder = StudyFolder(out)
    return {run.name: folder.run(run) for run in folder.study().runs()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dice_of(run: RunFolder) -> dict[str, float]:
    rows = table(run.path / "evaluation" / "test" / "per_patient.csv")
    return {row["patient"]: float(row["dice"]) for row in rows}


def test_every_seed_has_its_run_on_the_same_sides(
    whole: Path, printed: tuple[Path, list[str], list[str]]
) -> None:
    runs = runs_of(whole)
    assert list(runs) == NAMES
    assert runs["FLAIR, ASPP, seed 2"].path == whole / "runs" / "FLAIR" / "ASPP" / "seed-2"
    for name, run in runs.items():
        assert run.is_finished()
        assert run.recipe().training.seed == int(name[-1])
        assert run.split() == StudyFolder(whole).split()
        assert run.record()["seeds"] == {"split": 0, "training": int(name[-1])}
    assert len({run.model.read_bytes() for run in runs.values()}) == len(NAMES)
    begun = [said for said in printed[2] if said.startswith("run ")]
    assert begun == [f"run {number} of 6: {name}" for number, name in enumerate(NAMES, 1)]


def test_table_1_has_the_mean_of_the_trainings_and_each(whole: Path) -> None:
    rows = [row for row in table(whole / "table1.csv") if row["averaging"] == "patient"]
    assert [(row["variant"], row["seed"], row["trainings"]) for row in rows] == [
        (network, seed, trainings)
        for network in ("U-Net", "ASPP")
        for seed, trainings in (("mean", "3"), ("0", "1"), ("1", "1"), ("2", "1"))
    ]
    for first in (0, 4):
        mean, *each = rows[first : first + 4]
        of_seed = [dice_of(runs_of(whole)[f"FLAIR, {mean['variant']}, seed {seed}"]) for seed in SEEDS]
        of_patient = [fmean(of[patient] for of in of_seed) for patient in of_seed[0]]
        assert float(mean["dice"]) == pytest.approx(fmean(of_patient))
        means = [fmean(of.values()) for of in of_seed]
        assert [float(row["dice"]) for row in each] == pytest.approx(means)
        assert float(mean["dice_seed_sd"]) == pytest.approx(stdev(means))
        assert [row["dice_seed_sd"] for row in each] == ["", "", ""]
        assert {row["published_dice"] for row in (mean, *each)} == {
            "0.7975" if mean["variant"] == "ASPP" else ""
        }


def test_table_2_has_means_with_the_range_and_each(whole: Path) -> None:
    rows = table(whole / "table2.csv")
    for first in (0, 4):
        mean, *each = rows[first : first + 4]
        assert [row["seed"] for row in (mean, *each)] == ["mean", "0", "1", "2"]
        for cost in COSTS:
            values = [float(row[cost]) for row in each]
            assert float(mean[cost]) == pytest.approx(fmean(values))
            assert (float(mean[f"{cost}_min"]), float(mean[f"{cost}_max"])) == (min(values), max(values))
        assert len({(row["parameters"], row["test_cases"]) for row in (mean, *each)}) == 1


def test_the_tests_are_those_of_compare_with_systems_of_several_runs(whole: Path) -> None:
    systems = {
        network: [
            whole / "runs" / "FLAIR" / network / f"seed-{seed}" / "evaluation" / "test" for seed in SEEDS
        ]
        for network in ("U-Net", "ASPP")
    }
    (part,) = compare(systems, metrics=("dice",)).parts
    (row,) = table(whole / "tests.csv")
    assert (row["a"], row["b"], row["n"]) == ("U-Net", "ASPP", "3")
    assert float(row["difference"]) == part.comparisons[0].difference.mean
    assert row["in_words"] == part.comparisons[0].sentence
    assert read_results(whole).contests["FLAIR"].parts[0].variation == part.variation


def test_the_figure_shows_the_first_seed(whole: Path) -> None:
    (row,) = read_results(whole).figure
    assert row.seed == 0
    first = dice_of(runs_of(whole)["FLAIR, U-Net, seed 0"])
    assert row.panel.patient_dice in first.values()
    assert list(row.views) == ["U-Net", "ASPP"]
    assert [place.name for place in (whole / "figure").iterdir()] == ["FLAIR-ASPP-seed-0-mri"]


def test_the_page_and_the_terminal_say_what_the_figures_are(
    whole: Path, printed: tuple[Path, list[str], list[str]]
) -> None:
    page = " ".join((whole / "index.html").read_text(encoding="utf-8").split())
    for said in (
        "Each network is trained 3 times, with the seeds 0, 1, 2, on the same sides",
        "SD: the standard deviation between trainings",
        "means over the trainings, with the least and the most",
        "Of every network the training with the first seed, 0, is shown.",
        "FLAIR, seed 0: median patient of U-Net",
        "prepared grid. Of every network the training with the first seed, 0.",
        "and 3 trainings; between trainings it varies by SD",
        "runs/GROUP/NETWORK/seed-0",
    ):
        assert said in page, said
    assert "trained once" not in page
    (mean,) = [
        row
        for row in table(whole / "table1.csv")
        if (row["variant"], row["seed"], row["averaging"]) == ("ASPP", "mean", "patient")
    ]
    assert f"<small>SD {float(mean['accuracy_seed_sd']):.3f}</small>" in page
    text = "\n".join(printed[1])
    assert "over 3 patients and 3 trainings; between trainings it varies by SD" in text


def test_a_second_call_trains_and_predicts_nothing(
    whole: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = {name: (whole / name).read_bytes() for name in ("table1.csv", "table2.csv", "tests.csv")}
    monkeypatch.setattr(module, "resume", None)
    monkeypatch.setattr(module, "evaluate_run", None)
    monkeypatch.setattr("oncoseg.study_results.view_of", None)
    command = ["study", "--resume", "--out", str(whole), "--store", str(store), "--workers", "0"]
    assert main(command) == 0
    assert "6 of 6 runs are trained and evaluated" in capsys.readouterr().out
    assert {name: (whole / name).read_bytes() for name in before} == before
    with locked(whole / "page.lock", "It"):
        assert main(command) == 0
    assert "Another process writes the tables and the page" in capsys.readouterr().out


def test_what_is_missing_is_told_and_the_rest_is_shown(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    runs = runs_of(out)
    for name in ("FLAIR, U-Net, seed 2", "FLAIR, ASPP, seed 0"):
        shutil.rmtree(runs[name].path)
    page = " ".join(write_study(out).read_text(encoding="utf-8").split())
    assert "Not trained or not evaluated yet: FLAIR, ASPP, seed 0; FLAIR, U-Net, seed 2." in page
    assert '<th scope="row">U-Net, 2 of 3 trainings</th>' in page
    rows = [row for row in table(out / "table1.csv") if row["averaging"] == "patient"]
    assert [(row["variant"], row["seed"], row["trainings"]) for row in rows] == [
        ("U-Net", "mean", "2"),
        ("U-Net", "0", "1"),
        ("U-Net", "1", "1"),
        ("ASPP", "mean", "2"),
        ("ASPP", "1", "1"),
        ("ASPP", "2", "1"),
    ]
    (row,) = read_results(out).figure
    assert list(row.views) == ["U-Net"]


def share(out: Path, mri: Path, store: Path, barrier: Any, results: Any) -> None:
    """One of the processes: at the first step of its first training it waits for the other's."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    met, told = list[Any](), list[str]()

    def meet(_: object) -> None:
        if not met:
            met.append(barrier.wait(PATIENCE_SECONDS))

    teller = Teller(monitor=meet, tell=told.append)
    study = seeds_study().with_changes({}, seeds=SEEDS)
    outcome = train_study(study, {"mri": mri}, out, store=store, workers=0, teller=teller)
    results.put((outcome.finished, outcome.reason, told))


@pytest.mark.slow
def test_two_processes_share_the_trainings(whole: Path, mri: Path, store: Path, tmp_path: Path) -> None:
    """Both train at once, as each waits for the other; and no run is trained or evaluated twice."""
    out, context = tmp_path / "out", multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        both = [context.Process(target=share, args=(out, mri, store, barrier, results)) for _ in range(2)]
        try:
            for process in both:
                process.start()
            found = [results.get(timeout=PATIENCE_SECONDS) for _ in both]
        except queue.Empty:
            pytest.fail("a process failed or hangs; its error is above")
        finally:
            for process in both:
                process.join(1)
                process.kill()
    assert any(finished for finished, _, _ in found)  # the other may have left before the last run was done
    assert all(finished or reason.startswith("other processes") for finished, reason, _ in found)
    evaluated = [line for _, _, told in found for line in told if line.startswith("evaluating ")]
    assert sorted(evaluated) == sorted(f"evaluating {name}" for name in NAMES)
    runs: Mapping[str, RunFolder] = runs_of(out)
    for name, run in runs.items():
        assert len(run.record()["calls"]) == 1, name
        assert_same(run, runs_of(whole)[name])
    assert resume_study(out, store=store, workers=0).finished
    write_study(out)
    for name in ("table1.csv", "tests.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    ours, theirs = (
        [
            {name: cell for name, cell in row.items() if not name.startswith(COSTS[1:])}
            for row in table(place / "table2.csv")
        ]
        for place in (out, whole)
    )
    assert ours == theirs
