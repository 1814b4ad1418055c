"""A study of two groups and two networks on tiny data: trained, stopped, gone on with, refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncoseg import train_study as module
from oncoseg.cli import main
from oncoseg.cli.study import channels_of
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate.panels import read_panels
from oncoseg.evaluate.run import view_of
from oncoseg.locks import locked
from oncoseg.report.study import write_study
from oncoseg.run_folder import RunFolder
from oncoseg.studies.study import Group, Variant
from oncoseg.study_folder import StudyFolder
from oncoseg.study_results import read_results
from oncoseg.train import train
from oncoseg.train_study import Teller, resume_study, train_study
from oncoseg.training.status import Outcome
from runs import assert_same, stopping_at
from tiny import brats_case, tiny_data, tiny_recipe
from tiny_study import runs_of, study_file, table, tiny_study

Capture = pytest.CaptureFixture[str]
NAMES = ["FLAIR, U-Net", "FLAIR, ASPP", "T1C, U-Net", "T1C, ASPP"]


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients."""
    return tiny_data(tmp_path_factory.mktemp("data"), mri=8, ct=0)["mri"]


@pytest.fixture(scope="module")
def printed(mri: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The study from beginning to end by the command line, and what that printed."""
    folder = tmp_path_factory.mktemp("study")
    out = folder / "out"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oncoseg.cli.terminal.say", said.append)
        command = ["study", str(study_file(folder)), "--data", f"mri={mri}", "--out", str(out)]
        assert main([*command, "--store", str(store), "--workers", "0", "--origin", "mri=nowhere"]) == 0
    return out, said


@pytest.fixture(scope="module")
def whole(printed: tuple[Path, list[str]]) -> Path:
    return printed[0]


# what it leaves


def test_every_run_is_trained_and_evaluated_on_the_same_patients(whole: Path) -> None:
    runs = runs_of(whole)
    assert list(runs) == NAMES
    assert runs["T1C, ASPP"].path == whole / "runs" / "T1C" / "ASPP"
    sides = StudyFolder(whole).split()
    assert [len(sides["mri"][part]) for part in ("train", "validation", "test")] == [3, 2, 3]
    for run in runs.values():
        assert run.is_finished()
        assert run.split() == sides
        assert run.data()["mri"]["origin"] == "nowhere"
        scored = table(run.path / "evaluation" / "test" / "per_patient.csv")
        assert {row["patient"] for row in scored} == set(sides["mri"]["test"])


def test_a_run_is_the_one_that_train_gives(whole: Path, mri: Path, store: Path, tmp_path: Path) -> None:
    run = runs_of(whole)["FLAIR, ASPP"]
    alone = RunFolder(tmp_path / "alone")
    train(run.recipe(), {"mri": mri}, alone.path, split_file=whole / "split.json", store=store, workers=0)
    assert_same(alone, run)


def test_table_1_has_both_mious_and_the_papers_figures_apart(whole: Path) -> None:
    rows = table(whole / "table1.csv")
    assert list(dict.fromkeys(f"{row['group']}, {row['variant']}" for row in rows)) == NAMES
    assert {row["averaging"] for row in rows} == {"patient", "pooled", "slice", "slice-empty-is-one"}
    for row in rows:
        run = runs_of(whole)[f"{row['group']}, {row['variant']}"]
        if row["averaging"] == "pooled":
            patients = table(run.path / "evaluation" / "test" / "per_patient.csv")
            tp, fp, fn, tn = (sum(int(one[name]) for one in patients) for name in ("tp", "fp", "fn", "tn"))
            assert float(row["dice"]) == pytest.approx(2 * tp / (2 * tp + fp + fn))
            assert float(row["miou_foreground"]) == pytest.approx(tp / (tp + fp + fn))
            classes = (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2
            assert float(row["miou_classes"]) == pytest.approx(classes)
            assert float(row["accuracy"]) == pytest.approx((tp + tn) / (tp + fp + fn + tn))
        ours = (row["group"], row["variant"]) == ("FLAIR", "ASPP")
        paper = ("0.7975", "0.4583", "other data") if ours else ("", "", "")
        assert tuple(row[name] for name in row if name.startswith("published")) == paper


def test_table_2_has_what_was_measured(whole: Path) -> None:
    rows = {f"{row['group']}, {row['variant']}": row for row in table(whole / "table2.csv")}
    assert list(rows) == NAMES
    for name, run in runs_of(whole).items():
        assert float(rows[name]["training_minutes"]) == run.record()["in_all"]["minutes"]
        timing = json.loads((run.path / "evaluation" / "test" / "timing.json").read_text())
        assert float(rows[name]["inference_seconds"]) == timing["seconds"] > 0
        assert rows[name]["test_cases"] == "3"
        assert rows[name]["epochs"] == "1"
    assert int(rows["FLAIR, ASPP"]["parameters"]) > int(rows["FLAIR, U-Net"]["parameters"])


def test_tests_are_paired_within_each_group(whole: Path, printed: tuple[Path, list[str]]) -> None:
    rows = table(whole / "tests.csv")
    assert [(row["group"], row["a"], row["b"], row["n"], row["family"]) for row in rows] == [
        ("FLAIR", "U-Net", "ASPP", "3", "1"),
        ("T1C", "U-Net", "ASPP", "3", "1"),
    ]
    # three patients: two signs of eight are as extreme, whatever they score
    assert all("the smallest possible p is 0.25" in row["in_words"] for row in rows)
    text = "nothing can be said, as no test of 3 patients could have shown a difference."
    assert {f"FLAIR: {text}", f"T1C: {text}"} <= set(printed[1])
    assert (whole / "comparisons" / "T1C" / "index.html").is_file()


def test_the_figure_shows_the_median_patient_of_the_first_network(whole: Path) -> None:
    found = read_results(whole)
    assert [row.group for row in found.figure] == ["FLAIR", "T1C"]
    for row in found.figure:
        first = found.first_trainings(row.group)[0]
        assert first.run.variant == "U-Net"
        patients = table(first.evaluation / "per_patient.csv")
        # of three the middle one; of the same Dice the larger tumour is the worse
        ranked = sorted(patients, key=lambda one: (-float(one["dice"]), float(one["truth_ml"])))
        assert row.panel.patient_dice == float(ranked[1]["dice"])
        assert list(row.views) == ["U-Net", "ASPP"]
        one, other = row.views.values()
        assert (one.case_id, one.slice_index) == (other.case_id, other.slice_index)
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.truth, other.truth)
        assert one.truth.any()


def test_what_another_network_predicts_in_the_figure_is_what_was_scored(whole: Path) -> None:
    """Where the same case is among its own panels, that picture is the figure's."""
    checked = 0
    found = read_results(whole)
    for row in found.figure:
        result = found.first_trainings(row.group)[1]
        for panel in read_panels(result.evaluation, result.summary["panels"]):
            view = row.views[result.run.variant]
            if (panel.view.case_id, panel.view.slice_index) == (view.case_id, view.slice_index):
                assert np.array_equal(panel.view.prediction, view.prediction)
                checked += 1
    assert checked  # best, median and worst are all three patients


def test_the_terminal_shows_the_means_of_each_group(whole: Path, store: Path, capsys: Capture) -> None:
    assert main(["study", "--resume", "--out", str(whole), "--store", str(store), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    for group in ("FLAIR", "T1C"):
        assert f"{group}, means over patients" in said
    for title in ("Dice (DSC)", "mIoU, tumour", "mIoU, tumour and background", "Pixel accuracy"):
        assert title in said
    row = next(row for row in table(whole / "table1.csv") if row["averaging"] == "patient")
    assert f"{float(row['miou_classes']):.3f}" in said


def test_the_page_says_what_has_to_be_said(whole: Path) -> None:
    page = (whole / "index.html").read_text(encoding="utf-8")
    for said in (
        "Paper, other data",
        "median patient of U-Net",
        "Every run had the same budget: 1 epoch.",
        'href="comparisons/FLAIR/index.html"',
        "could have shown a difference",
    ):
        assert said in page, said
    assert "Synthetic phantoms" not in page
    assert (whole / "figure3.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "learning-FLAIR-mri-dice.svg").is_file()


# going on


def test_a_second_call_trains_and_predicts_nothing(
    whole: Path, mri: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    monkeypatch.setattr(module, "resume", None)
    monkeypatch.setattr(module, "evaluate_run", None)
    monkeypatch.setattr("oncoseg.study_results.view_of", None)
    file = str(study_file(tmp_path))
    command = [
        "study",
        file,
        "--data",
        f"mri={mri}",
        "--out",
        str(out),
        "--store",
        str(store),
        "--workers",
        "0",
    ]
    assert main(command) == 0
    assert main(["study", "--resume", "--out", str(out), "--store", str(store), "--workers", "0"]) == 0
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert {path for path, when in after.items() if before.get(path) != when} == set()
    for name in ("table1.csv", "table2.csv", "tests.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_stopped_study_goes_on_as_if_it_never_was(
    whole: Path, mri: Path, store: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[str]()
    steps = 3  # of an epoch with twelve slices in batches of four
    teller = Teller(monitor=stopping_at(steps + 1), tell=told.append)
    outcome = train_study(tiny_study(), {"mri": mri}, out, store=store, workers=0, teller=teller)
    assert outcome == Outcome(out, False, "SIGTERM was received")
    assert [run.is_finished() for run in runs_of(out).values()] == [True, False, False, False]
    assert told == ["run 1 of 4: FLAIR, U-Net", "evaluating FLAIR, U-Net", "run 2 of 4: FLAIR, ASPP"]
    outcome = resume_study(out, store=store, workers=0)
    assert outcome == Outcome(out, True, "4 of 4 runs are trained and evaluated")
    write_study(out)
    for ours, theirs in zip(runs_of(out).values(), runs_of(whole).values(), strict=True):
        assert_same(ours, theirs)
    assert (out / "table1.csv").read_bytes() == (whole / "table1.csv").read_bytes()


def test_a_spent_budget_ends_with_75_and_parts_can_be_trained_alone(
    whole: Path, mri: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    more = ["--store", str(store), "--workers", "0", "--only-group", "T1C", "--only-variant", "ASPP"]
    command = ["study", str(study_file(tmp_path)), "--data", f"mri={mri}", "--out", str(out), *more]
    assert main([*command, "--max-minutes", "0.000001"]) == 75
    said = capsys.readouterr().out
    assert f"Go on with: oncoseg study --resume --out {out}" in said
    assert [path.name for path in (out / "runs").rglob("recipe.json")] == ["recipe.json"]
    assert main(["report", str(out)]) == 2
    assert "No run of the study" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"Done: {out} (1 of 4 runs are trained and evaluated)" in said
    assert [line for line in said.splitlines() if line.startswith("Left: ")] == [
        f"Left: {name}" for name in NAMES[:3]
    ]
    assert_same(RunFolder(out / "runs" / "T1C" / "ASPP"), RunFolder(whole / "runs" / "T1C" / "ASPP"))
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Not trained or not evaluated yet: FLAIR, U-Net; FLAIR, ASPP; T1C, U-Net." in page
    assert "No group has two networks to compare yet." in page


def test_other_tests_and_columns_are_taken_over_and_said(
    whole: Path, mri: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    capsys.readouterr()
    new = {"tested": ["dice", "hd95_max_mm"], "shown": ["recall"], "published": None}
    command = ["study", str(study_file(tmp_path, **new)), "--data", f"mri={mri}", "--out", str(out)]
    assert main([*command, "--store", str(store), "--workers", "0"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "`shown` and `tested` and `published` of the study changed; its runs are the same." in told
    assert {(row["metric"], row["family"]) for row in table(out / "tests.csv")} == {
        ("dice", "2"),
        ("hd95_max_mm", "2"),
    }
    assert StudyFolder(out).study().shown == ("recall",)
    assert "published_dice" not in table(out / "table1.csv")[0]
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before
    assert main([*command, "--store", str(store), "--workers", "0"]) == 0
    assert "of the study changed" not in capsys.readouterr().err


def test_an_evaluation_in_the_hands_of_another_process_is_passed_over(
    whole: Path, store: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    first, *_ = runs_of(out).values()
    (first.path / "evaluation" / "test" / "timing.json").unlink()
    told: list[str] = []
    with locked(first.path / "evaluation.lock", "It"):
        outcome = resume_study(out, store=store, workers=0, teller=Teller(tell=told.append))
    assert outcome == Outcome(out, False, "other processes work on FLAIR, U-Net")
    assert told == ["FLAIR, U-Net: another process works on it"]
    assert resume_study(out, store=store, workers=0).finished


def test_a_training_in_the_hands_of_another_process_is_passed_over(
    mri: Path, store: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[str]()
    options: dict[str, Any] = {"groups": ["T1C"], "store": store, "workers": 0}
    assert not train_study(tiny_study(), {"mri": mri}, out, max_minutes=1e-6, **options).finished
    first, second = (runs_of(out)[name] for name in ("T1C, U-Net", "T1C, ASPP"))
    with locked(first.lock, "It"):
        outcome = resume_study(out, teller=Teller(tell=told.append), **options)
    assert outcome == Outcome(out, False, "other processes work on T1C, U-Net")
    assert told[1:] == [
        "T1C, U-Net: another process works on it",
        "run 2 of 2: T1C, ASPP",
        "evaluating T1C, ASPP",
    ]
    assert (first.is_finished(), second.is_finished()) == (False, True)


def test_an_interrupted_evaluation_is_made_again(
    whole: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    *_, last = runs_of(out).values()
    (last.path / "evaluation" / "test" / "summary.json").unlink()

    def interrupted(*given: Any, **named: Any) -> Path:
        raise KeyboardInterrupt

    command = ["study", "--resume", "--out", str(out), "--store", str(store), "--workers", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_run", interrupted)
        assert main(command) == 130
    assert "Stopped: SIGINT was received" in capsys.readouterr().out
    assert not list(out.rglob("*.lock"))
    assert main(command) == 0
    assert (out / "table1.csv").read_bytes() == (whole / "table1.csv").read_bytes()


# what is refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--training.learning-rate", "0.5"], "FLAIR, U-Net: `training.learning_rate` was 0.001, is now 0.5"),
        (["--minutes-each", "5"], "minutes_each was None, is now 5.0"),
        (["--seeds", "[3]"], "FLAIR, U-Net: `training.seed` was 0, is now 3"),
        (["--seeds", "[0,1]"], "T1C, ASPP, not of FLAIR, U-Net, seed 0;"),
        (["--training.max-minutes", "5"], "Use --max-minutes for the whole call"),
        (["--training.learning-rte", "5"], "did you mean --training.learning-rate?"),
        (["--only-group", "T3"], "The study has no group 'T3'"),
        (["--max-minutes", "0"], "Expected --max-minutes above 0"),
        (["--data", "mri=elsewhere"], "was begun on"),
    ],
)
def test_changed_settings_are_refused(
    whole: Path, store: Path, tmp_path: Path, capsys: Capture, flags: list[str], message: str
) -> None:
    file = str(study_file(tmp_path))
    assert main(["study", file, "--out", str(whole), "--store", str(store), "--workers", "0", *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_another_study_is_refused(whole: Path, store: Path, mri: Path) -> None:
    other = tiny_study(variants={"ASPP": tiny_study().variants["ASPP"]})
    with pytest.raises(RunError, match=r"holds a study of FLAIR, U-Net; .*, not of FLAIR, ASPP; T1C, ASPP"):
        train_study(other, {"mri": mri}, whole, store=store, workers=0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["study"], "Expected a study, for example aspp-attention"),
        (["study", "aspp-attention"], "Expected --out FOLDER"),
        (["study", "--resume", "--dry-run"], "Expected --out FOLDER of the study"),
        (["study", "--resume", "--out", "OUT", "--split", "s"], "leave --split out"),
        (["study", "--resume", "--out", "OUT", "--seeds", "[0]"], "leave --seeds out"),
        (["study", "aspp-attention", "--seeds", "3", "--dry-run"], "such as '[0,1,2]', got '3'"),
        (["study", "aspp-attention", "--seeds", "[true]", "--dry-run"], "list of whole numbers"),
        (
            ["study", "x", "--resume", "--out", "OUT", "--training.seed", "1"],
            "leave the study x, the recipes'",
        ),
        (["study", "--resume", "--out", "nowhere"], "nowhere does not exist; expected the folder of a study"),
        (["study", "--resume", "--dry-run", "--out", "EMPTY"], "holds no study; expected the folder of"),
        (["report", "nowhere"], "nowhere does not exist; expected a run folder"),
        (["evaluate", "nowhere"], "nowhere does not exist; expected a run folder"),
        (["study", "aspp-attention", "--out", "NEW", "--data", "ct=x"], "has a modality 'ct'"),
        (["report", "OUT", "--evaluation", "x"], "is a study; leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused(
    whole: Path, tmp_path: Path, capsys: Capture, command: list[str], message: str
) -> None:
    places: Mapping[str, str] = {"OUT": str(whole), "NEW": str(tmp_path / "new"), "EMPTY": str(tmp_path)}
    assert main([places.get(word, word) for word in command]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_changed_data_are_refused(store: Path, tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", mri=8, ct=0)["mri"]
    options: dict[str, Any] = {"groups": ["FLAIR"], "variants": ["U-Net"], "store": store, "workers": 0}
    assert train_study(tiny_study(), {"mri": data}, tmp_path / "out", **options).finished
    sides = StudyFolder(tmp_path / "out").split()["mri"]
    for side, message in (
        ("test", "the images or masks of mri have changed"),
        ("train", "The mri data at .* have changed since .* was begun"),
    ):
        name = next(iter(sides[side]))
        kept = shutil.copytree(data / name, tmp_path / side)
        shutil.rmtree(data / name)
        made = brats_case(tmp_path / f"new-{side}", 77)
        for file in made.iterdir():
            (data / name).mkdir(exist_ok=True)
            file.rename(data / name / file.name.replace(made.name, name))
        with pytest.raises(RunError, match=message):
            resume_study(tmp_path / "out", **options)
        shutil.rmtree(data / name)
        shutil.copytree(kept, data / name)
    assert resume_study(tmp_path / "out", **options).finished


def test_a_split_without_test_patients_is_refused(
    whole: Path, mri: Path, store: Path, tmp_path: Path
) -> None:
    sides = StudyFolder(whole).split()
    sides["mri"]["test"] = {}
    (tmp_path / "split.json").write_text(json.dumps({"modalities": sides}))
    with pytest.raises(DataError, match="no patient under test"):
        train_study(
            tiny_study(), {"mri": mri}, tmp_path / "out", split_file=tmp_path / "split.json", store=store
        )
    assert not (tmp_path / "out").exists()


def test_runs_whose_data_were_not_given_are_told(mri: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs data for mri; expected --data mri=PATH when it is begun"):
        train_study(tiny_study(), {}, tmp_path / "out", store=store, workers=0)


def test_a_study_of_several_modalities_has_a_row_for_each(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    groups = {"both": Group(recipe=tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1))}
    plain = Variant(changes={"network.arguments.attention": False})
    study = tiny_study(
        groups=groups, variants={"gates": Variant(), "plain": plain}, changes={}, published=None
    )
    assert train_study(study, data, tmp_path / "out", store=store, workers=0).finished
    page = write_study(tmp_path / "out").read_text(encoding="utf-8")
    rows = table(tmp_path / "out" / "table1.csv")
    assert {(row["variant"], row["modality"]) for row in rows} == {
        (variant, modality) for variant in ("gates", "plain") for modality in ("mri", "ct")
    }
    found = read_results(tmp_path / "out")
    assert [row.panel.group for row in found.figure] == ["mri", "ct"]
    for name in ("gates, MRI", "plain, CT"):
        assert f'<th scope="row">{name}</th>' in page


def test_a_case_that_is_not_there_is_told(whole: Path) -> None:
    run = runs_of(whole)["FLAIR, ASPP"].path
    with pytest.raises(DataError, match="the test side has no case 'nobody' of mri"):
        view_of(run, "test", "mri", "nobody", 0)


def test_channels_go_to_the_modalities_that_take_them() -> None:
    study = tiny_study()
    given = {"FLAIR": "*flair*", "T1ce": "*gd*"}
    assert channels_of(study, given) == {"mri": given}
    with pytest.raises(DataError, match="takes the channel T9"):
        channels_of(study, {"T9": "x"})
