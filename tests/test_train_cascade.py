"""Cascades on tiny liver phantoms: who sees whom, what is kept, stopped anywhere, used by every command."""

import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from oncoseg.cascade_folder import CascadeFolder
from oncoseg.cli import main
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RunError
from oncoseg.folds_folder import FoldsFolder, split_of_model
from oncoseg.locks import Locked, locked
from oncoseg.phantom.liver_ct import make_liver_ct
from oncoseg.predict import Predictor
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.regions import Box
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume
from oncoseg.train_cascade import in_words, resume_cascade, stages, train_cascade
from oncoseg.training.status import Outcome, Status
from runs import assert_same, stopping_at

GRID = (40, 40, 20)

CHANGES: dict[str, Any] = {
    "cascade.organ": "liver",
    "cascade.folds": 2,
    "cascade.first": {"preparation.slice_size": [16, 16], "training.max_epochs": 12},
    "preparation.slice_size": [32, 32],
    "network.arguments.features": [4, 8],
    "training.max_epochs": 2,
    "training.learning_rate": 0.01,
    "training.batch_size": 8,
    "training.device": "cpu",
    "training.precision": "32-true",
}


def liver_recipe(**changes: Any) -> Recipe:
    extra = {name.replace("__", "."): value for name, value in changes.items()}
    return get_recipe("residual-attention-liver").with_changes(CHANGES | extra)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("liver") / "data"
    make_liver_ct(root, 7, 1, size=GRID)
    return {"ct": root}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def steps() -> list[Status]:
    """Of the fixture `whole`, in order."""
    return []


@pytest.fixture(scope="module")
def whole(
    data: Mapping[str, Path], store: Path, steps: list[Status], tmp_path_factory: pytest.TempPathFactory
) -> CascadeFolder:
    """Both stages from beginning to end."""
    out = tmp_path_factory.mktemp("cascade") / "liver"

    def count(status: Status) -> None:
        steps.extend([] if status.validated else [status])

    outcome = train_cascade(liver_recipe(), data, out, store=store, workers=0, monitor=count)
    assert outcome == Outcome(out, True, "both stages are done")
    return CascadeFolder(out)


def begin(data: Mapping[str, Path], store: Path, out: Path, **more: Any) -> Outcome:
    recipe = more.pop("recipe", liver_recipe())
    return train_cascade(recipe, data, out, store=store, workers=0, **more)


def patients(split: Mapping[str, Any], *parts: str) -> set[str]:
    return {patient for part in parts for patient in split["ct"][part]}


# who sees whom


def test_no_box_is_of_a_network_that_has_seen_its_patient(
    whole: CascadeFolder, data: Mapping[str, Path]
) -> None:
    of_case = {case.id: case.patient for case in open_dataset(data["ct"]).cases}
    found = whole.found()["ct"]
    folds = FoldsFolder(whole.first).runs()
    for case, one in found.items():
        split = folds[one.fold - 1].split()
        assert of_case[case] not in patients(split, "train", "validation")
        assert of_case[case] in patients(split, "test")
    split = RunFolder(whole.path).split()
    assert {of_case[case] for case in found} == patients(split, "train", "validation")


def test_nobody_under_test_is_seen_by_either_stage(whole: CascadeFolder) -> None:
    split = RunFolder(whole.path).split()
    tested = patients(split, "test")
    assert tested
    for seen in (*(run.split() for run in FoldsFolder(whole.first).runs()),):
        assert not patients(seen, "train", "validation", "test") & tested
    assert whole.second.split() == split
    assert patients(split_of_model(whole.path), "train", "validation") == patients(
        split, "train", "validation"
    )


def test_boxes_are_what_the_folds_find(whole: CascadeFolder, data: Mapping[str, Path]) -> None:
    cases = {case.id: case for case in open_dataset(data["ct"]).cases}
    folds = FoldsFolder(whole.first)
    for name, one in whole.found()["ct"].items():
        box, _ = Predictor.load(folds.run(one.fold).path).find(cases[name], "ct", 20.0)
        assert one.box == (box or tuple((0, size) for size in GRID))
        assert one.organ_found == (box is not None)
    kept = whole.second.data()["ct"]["boxes"]
    assert kept == {name: [list(side) for side in one.box] for name, one in whole.found()["ct"].items()}


def test_stages_are_ordinary_recipes(whole: CascadeFolder) -> None:
    first, second = stages(liver_recipe(modalities__ct__loss__arguments={"class_weights": [1, 3]}))
    assert first.classes == {"liver": ("liver", "tumour")}
    assert first.preparation.slice_size == (16, 16)
    assert first.modalities["ct"].loss.arguments == {}
    assert second.classes == {"liver": ("liver",), "tumour": ("tumour",)}
    assert second.modalities["ct"].loss.arguments == {"class_weights": (1, 3)}
    assert first.cascade.organ is second.cascade.organ is None
    first, second = stages(liver_recipe())
    assert RunFolder(whole.first).recipe() == first
    assert whole.second.recipe() == second
    only_tumour = liver_recipe(classes={"tumour": ["tumour"]})
    assert stages(only_tumour)[0].classes == {"liver": ("liver", "tumour")}


def test_boxes_without_any_tumour_are_told_as_such(whole: CascadeFolder, store: Path, tmp_path: Path) -> None:
    out = without(whole, tmp_path / "run", "stage-2")
    folder = CascadeFolder(out)
    corner: Box = (0, 4), (0, 4), (0, 2)
    folder.write_found(
        {
            "ct": {
                case: replace(one, box=corner, truth_outside=one.truth_voxels)
                for case, one in folder.found()["ct"].items()
            }
        }
    )
    with pytest.raises(DataError, match=r"may be due to stage 1 .*100.00%.*larger --cascade\.margin-mm"):
        resume_cascade(out, store=store, workers=0)
    assert not folder.second.path.exists()


# stopping and going on


@pytest.mark.slow
@pytest.mark.parametrize("where", ["first fold", "last fold", "second stage"])
def test_a_stopped_cascade_goes_on_as_if_it_never_was(
    whole: CascadeFolder,
    steps: list[Status],
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    where: str,
) -> None:
    of_second = sum(1 for status in steps if status.epochs == 2)
    step = {"first fold": 3, "last fold": len(steps) - of_second - 2, "second stage": len(steps) - 2}[where]
    out = tmp_path / "run"
    outcome = begin(data, store, out, monitor=stopping_at(step))
    assert outcome == Outcome(out, False, "SIGTERM was received")
    assert CascadeFolder(out).second.path.exists() == (where == "second stage")
    outcome = resume_cascade(out, store=store, workers=0)
    assert outcome == Outcome(out, True, "both stages are done")
    assert_same_cascade(CascadeFolder(out), whole)


@pytest.mark.slow
def test_stopped_between_boxes_it_finds_the_others_only(
    whole: CascadeFolder,
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    find = Predictor.find

    def counted(self: Predictor, case: Any, *arguments: Any) -> Any:
        asked.append(case.id)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return find(self, case, *arguments)

    monkeypatch.setattr(Predictor, "find", counted)
    out = tmp_path / "run"
    assert begin(data, store, out) == Outcome(out, False, "SIGINT was received")
    assert len(CascadeFolder(out).found()["ct"]) == 2
    assert resume_cascade(out, store=store, workers=0).finished
    assert len(asked) == 6
    assert set(asked[:2]) & set(asked[2:]) == set()
    assert_same_cascade(CascadeFolder(out), whole)


class Interrupting:
    """Sends this process SIGINT, once, in a phase that begins with something said, at its nth event."""

    def __init__(self, said: str, at: int) -> None:
        self.said, self.left, self.begun = said, at, not said

    def tell(self, text: str) -> None:
        self.begun = self.begun or text.startswith(self.said)
        self.happen()

    def happen(self, *_: Any) -> None:
        self.left -= self.begun
        if self.begun and self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "at"),
    [
        pytest.param("stage 1", 3, id="stage 1 is prepared"),
        pytest.param("fold 2", 1, id="between folds"),
        pytest.param("boxes of", 1, id="after the boxes"),
        pytest.param("stage 2", 3, id="stage 2 is prepared"),
    ],
)
def test_ctrl_c_in_any_phase_loses_nothing(
    whole: CascadeFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, said: str, at: int
) -> None:
    asked, out = Interrupting(said, at), tmp_path / "run"
    told: dict[str, Any] = {"tell": asked.tell, "box_progress": asked.happen}
    told |= {"prepare_progress": asked.happen}
    fresh = tmp_path / "store"  # in which something is to be prepared
    assert begin(data, fresh, out, **told) == Outcome(out, False, "SIGINT was received")
    assert CascadeFolder(out).second.path.exists() is False
    assert resume_cascade(out, store=store, workers=0).finished
    assert_same_cascade(CascadeFolder(out), whole)


def test_ctrl_c_while_the_sides_are_drawn_leaves_nothing(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("oncoseg.training.data.divide", divide)
    with pytest.raises(KeyboardInterrupt):
        begin(data, store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def assert_same_cascade(one: CascadeFolder, other: CascadeFolder) -> None:
    for ours, theirs in zip(FoldsFolder(one.first).runs(), FoldsFolder(other.first).runs(), strict=True):
        assert_same(ours, theirs)
    assert one.found() == other.found()
    assert_same(one.second, other.second)
    assert RunFolder(one.path).data() == RunFolder(other.path).data()


def test_the_budget_is_of_the_whole(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = begin(data, store, out, recipe=liver_recipe(training__max_minutes=1e-9))
    assert outcome == Outcome(out, False, "the time budget of 1e-09 minutes is spent")
    with pytest.raises(RunError, match=r"no weights of its second stage yet; .*--resume --out .*/run"):
        Predictor.load(out)


@pytest.mark.slow
def test_it_goes_on_with_data_that_have_moved(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    out, there = tmp_path / "run", tmp_path / "there"
    assert not begin(data, store, out, monitor=stopping_at(3)).finished
    shutil.copytree(data["ct"], there)
    assert resume_cascade(out, store=store, workers=0, data={"ct": there}).finished
    folder = CascadeFolder(out)
    for run in (RunFolder(out), RunFolder(folder.first), folder.second):
        assert run.data()["ct"]["path"] == str(there)


def trained_first(whole: CascadeFolder, out: Path, boxes: bool) -> CascadeFolder:
    """A copy of the cascade as a stop after stage 1 leaves it, or after the boxes."""
    folder = CascadeFolder(without(whole, out, "stage-2"))
    if not boxes:
        folder.write_found({})
    return folder


def test_data_that_were_refused_are_not_taken_over(
    whole: CascadeFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    make_liver_ct(tmp_path / "other", 7, 2, size=GRID)
    folder = trained_first(whole, tmp_path / "run", boxes=False)
    before = RunFolder(folder.path).data()
    with pytest.raises(RunError, match=r"other have changed since .*/run was started, or are others"):
        resume_cascade(folder.path, store=store, workers=0, data={"ct": tmp_path / "other"})
    assert RunFolder(folder.path).data() == before
    assert resume_cascade(folder.path, store=store, workers=0).finished
    assert_same_cascade(folder, whole)
    assert folder.second.data()["ct"]["path"] == str(data["ct"])


@pytest.mark.parametrize("boxes", [False, True], ids=["before the boxes", "before stage 2"])
def test_images_that_were_replaced_after_stage_1_are_refused(
    whole: CascadeFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, boxes: bool
) -> None:
    there = tmp_path / "there"
    shutil.copytree(data["ct"], there)
    folder = trained_first(whole, tmp_path / "run", boxes)
    for run in (RunFolder(folder.path), RunFolder(folder.first), *FoldsFolder(folder.first).runs()):
        run.write_data({"ct": run.data()["ct"] | {"path": str(there)}})
    found = folder.found()
    make_liver_ct(tmp_path / "other", 7, 2, size=GRID)
    for path in (tmp_path / "other").glob("*Tr/*"):
        shutil.copy(path, there / path.relative_to(tmp_path / "other"))
    with pytest.raises(
        RunError, match=r"ct data at .*there have changed since .*a cascade must see the same"
    ):
        resume_cascade(folder.path, store=store, workers=0)
    assert folder.found() == found
    assert not folder.second.path.exists()


def test_one_process_at_a_time(whole: CascadeFolder, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole.path, out)
    metrics = CascadeFolder(out).second.metrics()
    CascadeFolder(out).second.write_metrics(metrics | {"finished": False})
    (out / "training.lock").write_text("elsewhere 1\n")
    with pytest.raises(Locked, match="another machine"), locked(out / "training.lock", "The cascade"):
        pass
    with pytest.raises(Locked, match="another machine"):
        resume_cascade(out, store=store)


# what is refused


def test_the_second_stage_is_not_used_alone(whole: CascadeFolder) -> None:
    with pytest.raises(RunError, match="is the second stage of a cascade"):
        Predictor.load(whole.second.path)


def test_damaged_boxes_are_told(whole: CascadeFolder, tmp_path: Path) -> None:
    shutil.copy(whole.path / "cascade.json", tmp_path / "cascade.json")
    (tmp_path / "cascade.json").write_text('{"found": {"ct": {"a": {"box": 3}}}}')
    with pytest.raises(RunError, match=r"cascade\.json cannot be read"):
        CascadeFolder(tmp_path).found()


def without(whole: CascadeFolder, out: Path, part: str) -> Path:
    """A copy of the cascade that lacks a part."""
    shutil.copytree(whole.path, out)
    if (out / part).is_dir():
        shutil.rmtree(out / part)
    else:
        (out / part).unlink()
    return out


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("stage-1", r"lost its first stage, .*stage-1; .*train it again with .*--resume --out [^ ]*/run`"),
        ("stage-1/folds.json", r"lost its first stage"),
        ("stage-1/fold-2", r"1 of the 2 folds .* not trained to the end: fold-2"),
        ("stage-1/fold-2/model.safetensors", r"fold-2 has no model.safetensors: .* are gone. Restore"),
        ("stage-2", r"no weights of its second stage yet"),
        ("stage-2/model.safetensors", r"stage-2 has no model.safetensors: .* are gone. .*/stage-2`"),
        ("recipe.json", r"expected recipe.json in it"),
    ],
)
def test_a_missing_part_is_told(whole: CascadeFolder, tmp_path: Path, part: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        Predictor.load(without(whole, tmp_path / "run", part))


def test_boxes_are_not_needed_for_predicting(whole: CascadeFolder, store: Path, tmp_path: Path) -> None:
    out = without(whole, tmp_path / "run", "cascade.json")
    assert Predictor.load(out).weights_sha256 == Predictor.load(whole.path).weights_sha256
    assert resume_cascade(out, store=store).finished
    (out / "stage-2" / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"cascade\.json cannot be read \(FileNotFoundError\)"):
        resume_cascade(out, store=store, workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["stage-1", "stage-2"])
def test_a_stage_that_was_lost_is_trained_again(
    whole: CascadeFolder, store: Path, tmp_path: Path, part: str
) -> None:
    out = without(whole, tmp_path / "run", part)
    assert not CascadeFolder(out).is_finished()
    assert resume_cascade(out, store=store, workers=0).finished
    assert_same_cascade(CascadeFolder(out), whole)


def test_weights_that_were_lost_come_back_from_the_checkpoint(
    whole: CascadeFolder, store: Path, tmp_path: Path
) -> None:
    """By the very command that the error names, where they are those of the last epoch."""
    out = without(whole, tmp_path / "run", "stage-2/model.safetensors")
    assert CascadeFolder(out).second.metrics()["best"]["epoch"] == 2
    assert resume(CascadeFolder(out).second.path, store=store, workers=0).finished
    assert Predictor.load(out).weights_sha256 == Predictor.load(whole.path).weights_sha256


def test_words_without_any_truth() -> None:
    assert in_words({}, "liver") == "boxes of 0 cases; 0 of 0 true voxels (0.00%) lie outside of them"


# the commands


@pytest.mark.slow
def test_the_commands_take_the_folder(
    whole: CascadeFolder, data: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole.path, out)
    tested = next(iter(RunFolder(out).split()["ct"]["test"].values()))[0]
    image = data["ct"] / "imagesTr" / f"{tested}.nii.gz"
    assert main(["predict", str(out), str(image), "--out", str(tmp_path / "masks")]) == 0
    mask, source = nib.load(tmp_path / "masks" / f"{tested}.nii.gz"), nib.load(image)
    assert mask.shape == source.shape
    assert np.abs(mask.affine - source.affine).max() < 1e-6
    assert main(["evaluate", str(out)]) == 0
    assert main(["report", str(out)]) == 0
    page = (out / "report" / "index.html").read_text()
    assert "No epoch has been finished" not in page
    assert "The weights have changed" not in page
    assert main(["leaks", str(out)]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert "both stages are done" in capsys.readouterr().out
    assert main(["rerun", str(out), "--out", str(tmp_path / "again")]) == 2
    assert "is a cascade; expected one run to repeat" in capsys.readouterr().err
    masks = ["--prediction", str(data["ct"] / "labelsTr"), "--truth", str(data["ct"])]
    assert main(["evaluate", *masks, "--trained-on", str(out), "--out", str(tmp_path / "scores")]) == 2
    assert "5 patients were seen in training" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cascade_from_the_command_line(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    flags = [
        *("--cascade.organ", "liver", "--cascade.folds", "2", "--cascade.margin-mm", "30"),
        *("--cascade.first", '{"training.max_epochs": 1}', "--training.max-epochs", "1"),
        *("--preparation.slice-size", "[16,16]", "--network.arguments.features", "[4,8]"),
        *("--training.device", "cpu", "--store", str(store), "--workers", "0"),
    ]
    command = ["train", "residual-attention-liver", "--data", f"ct={data['ct']}", "--out"]
    assert main([*command, str(tmp_path / "run"), *flags]) == 0
    assert RunFolder(tmp_path / "run").recipe().cascade.margin_mm == 30
    assert CascadeFolder(tmp_path / "run").is_finished()
    assert main([*command, str(tmp_path / "other"), *flags, "--folds", "3"]) == 2
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--cascade.margin-mm", "10"]) == 2
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--extend", "1"]) == 2
