"""Learning from scans without a mask: who they are, and what a step learns from them."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoseg.augment import Strengths, two_views
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RecipeError, RunError
from oncoseg.recipe import Recipe
from oncoseg.rerun import rerun
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import SliceId
from oncoseg.split import hide_labels
from oncoseg.train import resume, train
from oncoseg.training import data as training_data
from oncoseg.training.averages import AverageWeights
from oncoseg.training.mean_teacher import MeanTeacher, check_alone, consistency, draw, ramp
from oncoseg.training.sources import Sources
from oncoseg.training.stages import Stage
from runs import assert_same, checkpoint_of, log_of, stopping_at
from tiny import brats_case, lidc_nodule, tiny_data, tiny_recipe

TEACHING: dict[str, Any] = {"training__unlabelled__weight": 1.0, "training__average_decay": 0.5}
JOINT = Stage("joint", ("mri",), 10, keeps_best=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two more patients of MRI."""
    root = tmp_path_factory.mktemp("scans")
    for number in (70, 71):
        brats_case(root, number)
    return root


@pytest.fixture(scope="module")
def taught(
    data: Mapping[str, Path], store: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    out = tmp_path_factory.mktemp("taught") / "run"
    train(tiny_recipe(**TEACHING), Sources(data, unlabelled={"mri": scans}), out, store=store, workers=0)
    return RunFolder(out)


class OneParameter(nn.Module):
    """The logit is the parameter times the pixel."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(value))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images[:, :1]


class _Pixels:
    """A case of one slice of one channel, of whom nothing else is asked."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return 1

    def example(self, position: int) -> tuple[Tensor, Tensor]:
        return self.pixels[None, None], torch.zeros(1, *self.pixels.shape, dtype=torch.uint8)


def plain(**changes: Any) -> Recipe:
    """Batches of one slice that nothing is done to."""
    none = {f"augmentation__{what}_chance": 0 for what in ("flip", "rotation", "elastic")}
    none |= {f"augmentation__{what}_chance": 0 for what in ("brightness", "dropout")}
    return tiny_recipe(**TEACHING, training__batch_size=1, **none, **changes)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_ramp_is_the_papers() -> None:
    assert [ramp(share) for share in (0, 0.5, 1, 7)] == [math.exp(-5), math.exp(-1.25), 1, 1]


def test_the_weight_rises_over_a_share_of_joint_training_only() -> None:
    recipe = tiny_recipe(**TEACHING | {"training__unlabelled__weight": 4.0})
    teacher = MeanTeacher(recipe, {}, AverageWeights(OneParameter(1.0), 0.5))
    assert recipe.training.unlabelled.ramp_share == 0.3
    assert teacher.weight(JOINT, 0) == pytest.approx(4 * math.exp(-5))
    assert teacher.weight(JOINT, 1.5) == pytest.approx(4 * math.exp(-1.25))
    assert teacher.weight(JOINT, 3) == teacher.weight(JOINT, 9) == 4
    assert teacher.weight(JOINT._replace(name="pretrain", keeps_best=False), 5) == 0
    assert teacher.weight(JOINT._replace(name="extension-1"), 0) == 4


def test_the_consistency_is_the_mean_square_between_probabilities() -> None:
    logits, target = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[0.25, 0.5]]]])
    assert consistency(logits, target).item() == pytest.approx((0.25**2 + (sigmoid(2) - 0.5) ** 2) / 2)
    several = torch.zeros(1, 2, 1, 1)  # background and two classes, a third each
    wanted = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert consistency(several, wanted).item() == pytest.approx(((2 / 3) ** 2 + (1 / 3) ** 2) / 2)


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_gradient_of_one_parameter_is_that_by_hand_and_the_teacher_gets_none(pieces: int) -> None:
    pixels = torch.tensor([[0.2, 0.8], [0.5, 1.0]])
    network = OneParameter(0.5)
    average = AverageWeights(network, 0.5)  # the teacher stays at 0.5
    with torch.no_grad():
        network.factor.fill_(2.0)
    recipe = plain().with_changes({"training.batch_size": 2})
    teacher = MeanTeacher(recipe, cast(Any, {"mri": [_Pixels(pixels)]}), average)
    teacher.read_ahead(0, 0, 0, 0)
    given = teacher.add_gradient(network.train(), 3.0, lambda loss: loss.backward(), pieces=pieces)
    by_hand = 0.0
    for pixel in pixels.flatten().tolist():
        student, target = sigmoid(2 * pixel), sigmoid(0.5 * pixel)
        by_hand += 3 * 2 * (student - target) * student * (1 - student) * pixel / 4
    squares = [(sigmoid(2 * pixel) - sigmoid(0.5 * pixel)) ** 2 for pixel in pixels.flatten().tolist()]
    assert given.item() == pytest.approx(sum(squares) / 4, rel=1e-5)
    assert not given.requires_grad
    assert network.factor.grad is not None
    assert network.factor.grad.item() == pytest.approx(by_hand, rel=1e-5)
    assert network.factor.item() == 2.0
    values = cast(dict[str, Tensor], average.state()["values"])
    assert values["factor"].item() == 0.5
    assert not values["factor"].requires_grad
    assert network.training


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_teacher_that_does_not_fit_leaves_the_network_in_training(pieces: int) -> None:
    """The loop computes the batch again, in smaller pieces: not with the running statistics of validation."""
    sizes: list[int] = []

    class Full(OneParameter):
        def forward(self, images: Tensor) -> Tensor:
            if not self.training:
                sizes.append(len(images))
                if len(images) > 1:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    network = Full(0.5)
    average = AverageWeights(network, 0.5)
    with torch.no_grad():
        network.factor.fill_(2.0)
    recipe = plain().with_changes({"training.batch_size": 3})
    teacher = MeanTeacher(recipe, cast(Any, {"mri": [_Pixels(torch.rand(2, 2))]}), average)
    teacher.read_ahead(0, 0, 0, 0)
    if pieces < 3:
        with pytest.raises(torch.OutOfMemoryError):
            teacher.add_gradient(network.train(), 1.0, lambda loss: loss.backward(), pieces=pieces)
        assert sizes == [3 if pieces == 1 else 2], "the teacher's pass is divided as the student's is"
        assert network.factor.grad is None
    else:
        teacher.add_gradient(network.train(), 1.0, lambda loss: loss.backward(), pieces=pieces)
        assert sizes == [1, 1, 1]
        assert network.factor.grad is not None
    assert network.training
    assert network.factor.item() == 2.0, "its own weights are in place again"


def test_both_views_lie_alike_and_differ_in_their_intensities() -> None:
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    moving = Strengths(brightness_chance=0, dropout_chance=0, rotation_chance=1, elastic_chance=1)
    one, other = two_views(images, moving, torch.Generator().manual_seed(1))
    assert torch.equal(one, other)
    assert not torch.equal(one, images)
    still = Strengths(
        flip_chance=0, rotation_chance=0, elastic_chance=0, brightness_chance=1, contrast=0, dropout_chance=0
    )
    one, other = two_views(0.4 + 0.2 * images, still, torch.Generator().manual_seed(1))
    shifts = (one - other).flatten(1)  # with brightness alone, the views differ by a number for each row
    assert torch.allclose(shifts, shifts[:, :1].expand_as(shifts), atol=1e-6)
    assert (shifts[:, 0].abs() > 1e-3).all()


def test_every_slice_has_the_same_chance() -> None:
    cases = cast(Any, [range(1), range(3)])
    drawn = draw({"mri": cases, "ct": cases}, 4000, np.random.default_rng(0))
    assert {name: len(refs) for name, refs in drawn.items()} == {"mri": 2000, "ct": 2000}
    counts = [list(drawn["mri"]).count(ref) for ref in [SliceId(0, 0), *(SliceId(1, k) for k in range(3))]]
    assert sum(counts) == 2000
    assert all(430 < count < 570 for count in counts), "500 each, by more than three standard deviations"


# who they are ---------------------------------------------------------------------------------------


def test_hidden_masks_are_those_of_patients_and_a_smaller_share_is_within_a_larger_one(
    data: Mapping[str, Path],
) -> None:
    (case,) = open_dataset(data["mri"]).cases[:1]
    cases = [replace(case, id=f"{n}-{k}", patient=str(n)) for n in range(10) for k in range(2)]
    few, hidden = hide_labels(cases, 0.2, seed=1)
    more, _ = hide_labels(cases, 0.5, seed=1)
    assert len({case.patient for case in few}) == 2
    assert len(few) == 4
    assert not {case.patient for case in few} & {case.patient for case in hidden}
    assert len(few) + len(hidden) == 20
    assert {case.id for case in few} < {case.id for case in more}
    assert len(hide_labels(cases, 0.001, seed=1)[0]) == 2, "one patient at least"
    assert hide_labels(cases, 0.2, seed=2)[0] != few


def test_hidden_masks_are_nowhere_in_what_is_learnt_from(tmp_path: Path, store: Path) -> None:
    data = tiny_data(tmp_path / "data", mri=8, ct=3)
    recipe = tiny_recipe(**TEACHING, split__labelled=0.5)
    loaded = training_data.load(recipe, data, store, workers=0)
    sides = loaded.split["mri"]
    assert {part: len(of) for part, of in sides.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
        "unlabelled": 3,
    }
    assert not set(sides["unlabelled"]) & {*sides["train"], *sides["validation"], *sides["test"]}
    assert sorted(case.patient for case in loaded.unlabelled["mri"]) == sorted(sides["unlabelled"])
    for case in loaded.unlabelled["mri"]:
        assert case.tumour_pixels.sum() == 0
        assert not any(case.example(k)[1].any() for k in range(len(case)))
    assert all(case.tumour_pixels.sum() > 0 for case in loaded.train["mri"])
    assert "unlabelled" not in loaded.data["ct"], "of one training patient the mask is kept"
    everybody = training_data.load(tiny_recipe(), data, store, workers=0)
    assert everybody.unlabelled == {}
    for part in ("validation", "test"):
        assert everybody.split["mri"][part] == sides[part]


def test_cases_without_a_mask_are_learnt_from_and_never_of_who_judges(tmp_path: Path, store: Path) -> None:
    data = tiny_data(tmp_path / "data", mri=4, ct=3)
    for number in (70, 71):
        next(brats_case(data["mri"], number).glob("*_seg.nii.gz")).unlink()
    recipe = tiny_recipe(**TEACHING)
    loaded = training_data.load(recipe, data, store, workers=0)
    assert sorted(loaded.split["mri"]["unlabelled"]) == ["BraTS2021_00070", "BraTS2021_00071"]
    assert loaded.data["mri"]["unlabelled"] | {"fingerprint": ""} == {
        "path": None,
        "cases": 2,
        "patients": 2,
        "fingerprint": "",
    }
    again = training_data.load(recipe, data, store, split=loaded.split, workers=0)
    assert (again.split, again.data) == (loaded.split, loaded.data)
    listed = json.loads(json.dumps(loaded.split))
    listed["mri"]["unlabelled"] |= listed["mri"]["test"]
    with pytest.raises(DataError, match="1 patients are in both test and unlabelled"):
        training_data.load(recipe, data, store, split=listed, workers=0)


def test_a_patients_other_scan_without_a_mask_stays_on_the_patients_side(tmp_path: Path, store: Path) -> None:
    """Of a patient who validates or is tested it is left out; of one who trains it is learnt from."""
    data = tiny_data(tmp_path / "data", mri=3, ct=3)
    for patient in range(3):
        folder = lidc_nodule(data["ct"], patient, nodule=1)
        for reader in folder.glob("mask-*"):
            shutil.rmtree(reader)
    scan = open_dataset(data["ct"])
    assert sum(not case.masks for case in scan.cases) == 3
    told: list[str] = []
    sources = Sources(data, remark=lambda _, problems: told.extend(one.message for one in problems))
    loaded = training_data.load(tiny_recipe(**TEACHING), sources, store, workers=0)
    assert list(loaded.split["ct"]["unlabelled"]) == list(loaded.split["ct"]["train"])
    assert "1 scan is learnt from without a mask, of 1 patient." in told
    assert any(text.startswith("2 scans without a mask are not learnt from") for text in told)


def test_a_folder_of_scans_must_not_hold_who_validates_or_is_tested(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**TEACHING)
    split = training_data.load(tiny_recipe(), data, store, workers=0).split["mri"]
    (one,), (other,) = split["test"].values(), split["validation"].values()
    named = ", ".join(sorted([*one, *other]))
    with pytest.raises(DataError, match=rf"mri: 2 patients of the folder .* validate or are .* \({named}\)"):
        training_data.load(recipe, Sources(data, unlabelled={"mri": data["mri"]}), store, workers=0)
    shutil.copytree(data["mri"] / one[0], tmp_path / "mri" / one[0])
    message = rf"mri: 1 patient of .* validates or is tested, going by names \({one[0]}\)"
    with pytest.raises(DataError, match=message):
        training_data.load(recipe, Sources(data, unlabelled={"mri": tmp_path / "mri"}), store, workers=0)
    with pytest.raises(DataError, match="no scan without a mask to learn from"):
        training_data.load(recipe, data, store, workers=0)
    with pytest.raises(DataError, match=r"weight is 0, .* --training\.unlabelled\.weight 0\.1"):
        training_data.load(tiny_recipe(), Sources(data, unlabelled={"mri": tmp_path}), store, workers=0)
    with pytest.raises(DataError, match="Unknown modality 'pet'"):
        training_data.load(recipe, Sources(data, unlabelled={"pet": tmp_path}), store, workers=0)


# training -------------------------------------------------------------------------------------------


def test_a_run_says_what_it_learnt_from_without_masks(taught: RunFolder, scans: Path) -> None:
    kept = taught.data()["mri"]["unlabelled"]
    assert (kept["path"], kept["cases"], kept["patients"]) == (str(scans.resolve()), 2, 2)
    assert len(kept["fingerprint"]) == 16
    recorded = taught.record()["data"]["mri"]["unlabelled"]
    assert recorded == {name: value for name, value in kept.items() if name != "path"}
    assert taught.split()["mri"]["unlabelled"] == {}


def test_scans_without_masks_change_the_joint_training_and_not_what_comes_before(
    taught: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(training__average_decay=0.5), data, tmp_path / "run", store=store, workers=0)
    without = RunFolder(tmp_path / "run")
    assert log_of(taught)[0] == log_of(without)[0] | {"consistency": ""}, "it learns from masks only"
    assert log_of(taught)[1] != log_of(without)[1]
    assert taught.model.read_bytes() != without.model.read_bytes()


def test_the_log_has_the_consistency_of_joint_training(taught: RunFolder, whole: RunFolder) -> None:
    rows = log_of(taught)
    assert {row["stage"] for row in rows} == {"pretrain", "joint"}
    for row in rows:
        if row["stage"] == "pretrain":
            assert row["consistency"] == ""
        else:
            assert 0 < float(row["consistency"]) < 1
    assert "consistency" not in log_of(whole)[0]


def test_the_report_says_how_many_scans_had_no_mask_and_shows_the_consistency(
    taught: RunFolder, whole: RunFolder, tmp_path: Path
) -> None:
    from oncoseg.report import write_report

    out = tmp_path / "run"
    shutil.copytree(taught.path, out)
    page = write_report(out).read_text(encoding="utf-8")
    assert "<td>2 (2)</td>" in page.partition("Without a mask</th>")[2].partition("</table>")[0]
    assert 'alt="Consistency loss of scans without a mask over' in page
    assert (out / "report" / "learning-consistency.svg").is_file()
    shutil.copytree(whole.path, tmp_path / "plain")
    page = write_report(tmp_path / "plain").read_text(encoding="utf-8")
    assert "ithout a mask" not in page
    assert not (tmp_path / "plain" / "report" / "learning-consistency.svg").exists()


@pytest.mark.parametrize("step", [3, 5, 8])
def test_going_on_is_exact(
    taught: RunFolder, data: Mapping[str, Path], store: Path, scans: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "run"
    sources = Sources(data, unlabelled={"mri": scans})
    first = train(tiny_recipe(**TEACHING), sources, out, store=store, workers=0, monitor=stopping_at(step))
    assert not first.finished
    torch.manual_seed(7)
    assert resume(out, store=store, workers=0).finished
    assert_same(RunFolder(out), taught)
    ours, whole = (checkpoint_of(run)["average"]["values"] for run in (RunFolder(out), taught))
    assert all(torch.equal(value, whole[name]) for name, value in ours.items())


def test_a_rerun_is_the_same(taught: RunFolder, store: Path, tmp_path: Path) -> None:
    _, agreement = rerun(taught.path, tmp_path / "again", store=store, workers=0)
    assert agreement is not None
    assert agreement.verdict == "identical"


def test_changed_scans_are_noticed(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    brats_case(tmp_path / "scans", 80)
    out, sources = tmp_path / "run", Sources(data, unlabelled={"mri": tmp_path / "scans"})
    train(tiny_recipe(**TEACHING), sources, out, store=store, workers=0, monitor=stopping_at(1))
    brats_case(tmp_path / "scans", 81)
    with pytest.raises(RunError, match=r"mri data .* have changed"):
        resume(out, store=store, workers=0)


def test_off_is_as_it_was(whole: RunFolder) -> None:
    assert whole.recipe().training.unlabelled.weight == 0
    assert whole.recipe().split.labelled == 1
    for record in (*whole.data().values(), *whole.split().values(), *whole.record()["data"].values()):
        assert "unlabelled" not in record


def test_memory_is_told_with_the_scans(
    data: Mapping[str, Path], store: Path, scans: Path, taught: RunFolder, tmp_path: Path
) -> None:
    """The steps on trial learn from scans without masks, too, and leave no trace."""
    told: list[str] = []
    sources = Sources(data, unlabelled={"mri": scans})
    train(tiny_recipe(**TEACHING), sources, tmp_path / "run", store=store, workers=0, foretell=told.append)
    assert len(told) == 1
    assert_same(RunFolder(tmp_path / "run"), taught)


def test_what_does_not_go_together_is_refused(data: Mapping[str, Path], tmp_path: Path) -> None:
    from oncoseg.cross_validate import train_folds

    with pytest.raises(RecipeError, match=r"expected training\.average_decay with it"):
        tiny_recipe(training__unlabelled__weight=1.0)
    with pytest.raises(RecipeError, match="is for one process; got 2"):
        check_alone(tiny_recipe(**TEACHING), 2)
    check_alone(tiny_recipe(), 2)
    with pytest.raises(RecipeError, match="without --folds"):
        train_folds(tiny_recipe(split__labelled=0.5), data, tmp_path / "cv", 3)


def test_windows_of_volumes_are_learnt_from_too(tmp_path: Path, store: Path) -> None:
    data = {"mri": tmp_path / "mri"}
    for number in range(5):
        brats_case(data["mri"], number, grid=(16, 16, 16))
    recipe = tiny_recipe(**TEACHING, split__labelled=0.4).with_only(["mri"])
    recipe = recipe.with_changes(
        {
            "preparation.spatial_dims": 3,
            "preparation.spacing_mm": [1, 1, 1],
            "preparation.patch": [8, 8, 8],
            "modalities.mri.scaling": "volume-percentile",
            "training.max_epochs": 1,
            "training.batch_size": 2,
        }
    )
    train(recipe, data, tmp_path / "run", store=store, workers=0)
    assert RunFolder(tmp_path / "run").data()["mri"]["unlabelled"]["cases"] == 2
    assert RunFolder(tmp_path / "run").is_finished()


# the command line, and other programs -----------------------------------------------------------------


def test_the_flag_names_a_modality_and_belongs_to_new_runs(
    taught: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from oncoseg.cli import main

    new = ["train", "unified-mri-ct", "--out", str(tmp_path / "run"), "--unlabelled", str(tmp_path)]
    assert main(new) == 2
    assert "Expected --unlabelled NAME=PATH" in capsys.readouterr().err
    resumed = ["train", "--resume", "--out", str(taught.path), "--unlabelled", f"mri={tmp_path}"]
    assert main(resumed) == 2
    assert "keeps its own scans" in capsys.readouterr().err


def test_masks_of_who_was_learnt_from_without_one_are_no_test() -> None:
    from oncoseg.evaluate.masks import check_unseen
    from oncoseg.evaluate.pairs import Pair

    split = {"mri": {"train": {"A": ["A"]}, "validation": {"B": ["B"]}, "test": {"C": ["C"]}}}
    pairs = [Pair("C", "C", (), {}), Pair("D", "D", (), {})]
    check_unseen(pairs, split)
    with pytest.raises(DataError, match="1 patients were seen in training, the first is 'D'"):
        check_unseen(pairs, {"mri": split["mri"] | {"unlabelled": {"D": ["D"]}}})


def test_nnunet_does_not_get_hidden_masks_either(tmp_path: Path) -> None:
    from oncoseg.convert import convert
    from test_convert_folds import SPLIT, folds_in, named, table_of

    root, out = table_of(tmp_path / "in", {"A": 2, "B": 1, "C": 1, "D": 1}), tmp_path / "Dataset001_A"
    split = {"ct": SPLIT["ct"] | {"unlabelled": {"D": ["D_0"]}}}
    assert convert(root, "nnunet", out, names="keep", split=split, workers=0).left_out == ("D_0",)
    assert folds_in(out) == [{"train": ["A_0", "A_1"], "val": ["B_0"]}]
    assert named(out / "labelsTr") == ["A_0.nii.gz", "A_1.nii.gz", "B_0.nii.gz"]


def test_a_trained_run_is_evaluated_and_its_sides_compared(tmp_path: Path, store: Path) -> None:
    from oncoseg import evaluate_run
    from oncoseg.evaluate.leaks import sides_of_run

    data = tiny_data(tmp_path / "data", mri=8, ct=3)
    recipe = tiny_recipe(**TEACHING, split__labelled=0.5)
    train(recipe, data, tmp_path / "run", store=store, workers=0)
    evaluate_run(tmp_path / "run")
    sides = sides_of_run(tmp_path / "run")[0]
    assert {name: len(cases) for name, cases in sides.items()} == {"train": 6, "validation": 1, "test": 1}
    run = RunFolder(tmp_path / "run")
    spoilt = run.split()
    spoilt["mri"]["unlabelled"] |= spoilt["mri"]["test"]
    run.write_split(0, spoilt)
    with pytest.raises(DataError, match="1 patients of test are also in unlabelled"):
        evaluate_run(tmp_path / "run")
