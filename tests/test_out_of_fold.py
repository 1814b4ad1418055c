"""What a cross-validation is worth: out-of-fold scores, and the ensemble of its folds."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch

from oncoseg.cli import main
from oncoseg.cross_validate import train_folds
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate.leaks import sides_of_run
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.run import evaluate_run
from oncoseg.files import sha256_of_file, sha256_of_json
from oncoseg.folds_folder import FoldsFolder
from oncoseg.predict import Predictor
from oncoseg.report import write_report
from runs import replace_weights
from tiny import brats_case, tiny_recipe


@pytest.fixture(scope="module")
def folds(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> FoldsFolder:
    """Three folds, trained."""
    out = tmp_path_factory.mktemp("folds") / "cv"
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    assert train_folds(recipe, data, out, 3, store=store, workers=0).finished
    return FoldsFolder(out)


def rows_of(evaluation: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(Modality, patient) → row."""
    with (evaluation / "per_patient.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["modality"], row["patient"]): row for row in rows}
    assert len(found) == len(rows)
    return found


# out of fold


def test_every_patient_is_scored_by_the_fold_that_has_not_seen_them(
    folds: FoldsFolder, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    written = evaluate_run(folds.path, progress=lambda done, total: steps.append((done, total)))
    assert written == folds.path / "evaluation" / "out-of-fold"
    assert steps == [(done, 8) for done in range(9)]
    alone: dict[tuple[str, str], dict[str, str]] = {}
    for number, fold in enumerate(folds.runs()):
        of_fold = rows_of(evaluate_run(fold.path, out=tmp_path / str(number)))
        assert not alone.keys() & of_fold.keys()
        alone |= of_fold
    assert rows_of(written) == alone
    assert len(alone) == 8
    summary = json.loads((written / "summary.json").read_text())
    assert (summary["split"], summary["prediction"]["folds"]) == ("out-of-fold", 3)
    assert summary["weights"] == sha256_of_json([sha256_of_file(run.model) for run in folds.runs()])
    assert "one of 3 folds that has not seen them" in (written / "summary.md").read_text()
    # the same again renews it; other settings do not
    assert evaluate_run(folds.path, "out-of-fold") == written
    with pytest.raises(RunError, match=r"holds another evaluation: threshold was 0\.5, is now 0\.3"):
        evaluate_run(folds.path, changes={"prediction.threshold": 0.3})


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_ensemble_is_not_scored_on_patients_that_it_has_seen(folds: FoldsFolder, split: str) -> None:
    with pytest.raises(RunError, match=f"expected the split out-of-fold, got '{split}'"):
        evaluate_run(folds.path, split)


def test_masks_of_the_ensemble_are_not_scored_on_its_patients(
    folds: FoldsFolder, data: Mapping[str, Path], tmp_path: Path
) -> None:
    Predictor.load(folds.path).predict([data["mri"]], tmp_path / "masks", modality="mri")
    with pytest.raises(DataError, match="4 patients were seen in training"):
        evaluate_masks(data["mri"], tmp_path / "masks", tmp_path / "x", trained_on=folds.path, workers=0)


def test_a_fold_whose_split_was_changed_is_refused(folds: FoldsFolder, tmp_path: Path) -> None:
    shutil.copytree(folds.path, tmp_path / "cv")
    one, other = (tmp_path / "cv" / f"fold-{number}" / "split.json" for number in (1, 2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(RunError, match=r"The split of .*fold-1 is another than .*folds.json says"):
        evaluate_run(tmp_path / "cv")


def test_the_report_says_that_it_is_out_of_fold(folds: FoldsFolder) -> None:
    evaluate_run(folds.path, replace=True)
    page = write_report(folds.path).read_text()
    assert "each scored by the one fold of a cross-validation that was not trained on them" in page
    assert "Cross-validation with 3 folds, divided by patient" in page
    assert page.count("<td>4 (4)</td>") == 2, "all patients of either modality, in one column"
    assert "To go on:" not in page


def test_the_report_says_what_is_left(folds: FoldsFolder, tmp_path: Path) -> None:
    shutil.copytree(folds.path, tmp_path / "cv", ignore=shutil.ignore_patterns("evaluation", "report"))
    assert f"<code>oncoseg evaluate {tmp_path}/cv</code>" in write_report(tmp_path / "cv").read_text()
    fold = FoldsFolder(tmp_path / "cv").run(3)
    fold.write_metrics(fold.metrics() | {"finished": False})
    page = write_report(tmp_path / "cv").read_text()
    assert "1 of 3 folds are not trained to the end: fold-3." in page
    assert f"<code>oncoseg train --resume --out {tmp_path}/cv</code>" in page


# the ensemble


def test_an_ensemble_is_the_mean_of_its_folds_probabilities(
    folds: FoldsFolder, data: Mapping[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    slices = torch.rand(3, 4, 16, 16)
    members = [Predictor.load(run.path).predict_slices(slices) for run in folds.runs()]
    together = Predictor.load(folds.path).predict_slices(slices)
    expected = torch.stack(members).double().mean(dim=0)
    torch.testing.assert_close(together.double(), expected, rtol=0, atol=1e-6)
    assert not any(torch.allclose(together, one, atol=1e-5) for one in members)


def test_an_ensembles_map_of_a_new_patient_is_the_mean_of_the_folds_maps(
    folds: FoldsFolder, tmp_path: Path
) -> None:
    case, maps = brats_case(tmp_path / "new", 55), []
    for model in [*(run.path for run in folds.runs()), folds.path]:
        out = tmp_path / model.name
        Predictor.load(model, {"prediction.flips": True}).predict(
            [case], out, modality="mri", probabilities=True
        )
        maps.append(np.asarray(nib.load(out / "BraTS2021_00055_probability.nii.gz").dataobj, np.float64))
    *members, together = maps
    np.testing.assert_allclose(together, np.mean(members, axis=0), rtol=0, atol=1e-6)
    mask = np.asarray(nib.load(tmp_path / "cv" / "BraTS2021_00055.nii.gz").dataobj)
    assert np.array_equal(mask, together >= 0.5)
    record = json.loads((tmp_path / "cv" / "prediction.json").read_text())
    assert record["networks"] == 3
    assert record["weights_sha256"] == sha256_of_json([sha256_of_file(run.model) for run in folds.runs()])
    assert "networks" not in json.loads((tmp_path / "fold-1" / "prediction.json").read_text())


def test_other_weights_of_one_fold_are_another_ensemble(folds: FoldsFolder, tmp_path: Path) -> None:
    shutil.copytree(folds.path, tmp_path / "cv")
    run = FoldsFolder(tmp_path / "cv").run(2)
    before = Predictor.load(tmp_path / "cv").weights_sha256
    weights = {name: value + 1 for name, value in safetensors.torch.load_file(run.model).items()}
    replace_weights(run, safetensors.torch.save(weights))
    assert Predictor.load(tmp_path / "cv").weights_sha256 != before
    run.model.write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"fold-2/model\.safetensors does not hold the weights that metrics"):
        Predictor.load(tmp_path / "cv")


@pytest.mark.parametrize("use", [Predictor.load, evaluate_run])
def test_an_unfinished_fold_is_named_with_the_way_to_go_on(
    folds: FoldsFolder, tmp_path: Path, use: Any
) -> None:
    shutil.copytree(folds.path, tmp_path / "cv")
    fold = FoldsFolder(tmp_path / "cv").run(2)
    fold.write_metrics(fold.metrics() | {"finished": False})
    with pytest.raises(
        RunError, match=r"1 of the 3 folds .*: fold-2; .*`oncoseg train --resume --out .*/cv`"
    ):
        use(tmp_path / "cv")


def test_the_ensemble_knows_what_all_images_look_like(folds: FoldsFolder, data: Mapping[str, Path]) -> None:
    assert Predictor.load(folds.path).looks.keys() == {"mri", "ct"}
    assert len(open_dataset(data["mri"]).cases) == 4


# the other commands


def test_folds_are_searched_for_what_is_in_two_of_them(folds: FoldsFolder, data: Mapping[str, Path]) -> None:
    groups = sides_of_run(folds.path)
    assert [list(sides) for sides in groups] == [["fold-1", "fold-2", "fold-3"]] * 2
    for sides, modality in zip(groups, ("mri", "ct"), strict=True):
        found = sorted(case.id for cases in sides.values() for case in cases)
        assert found == [case.id for case in open_dataset(data[modality]).cases]


def test_cross_validations_are_compared_out_of_fold(folds: FoldsFolder, tmp_path: Path) -> None:
    evaluate_run(folds.path, replace=True)
    lower = evaluate_run(folds.path, changes={"prediction.threshold": 0.3}, out=tmp_path / "lower")
    command = ["compare", f"one={folds.path}", f"other={lower}", "--out", str(tmp_path / "compared")]
    assert main(command) == 0
    with (tmp_path / "compared" / "values.csv").open() as file:
        dice = [row for row in csv.DictReader(file) if row["metric"] == "dice"]
    assert sorted({(row["system"], row["group"]) for row in dice}) == [
        ("one", "ct"),
        ("one", "mri"),
        ("other", "ct"),
        ("other", "mri"),
    ]
    assert len(dice) == 2 * 8, "every patient by both"
