"""`oncoseg plan`: what it prints and writes; and a planned system from raw files to masks."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg.cli import main
from oncoseg.cli.recipes import open_recipe
from oncoseg.prediction_record import read_record
from oncoseg.recipe_plan import FIELDS
from tiny import brats_case, lidc_nodule

Capture = pytest.CaptureFixture[str]

AFFINE = np.diag([1, 1, 3.5, 1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plan") / "mri"
    for number in range(4):
        brats_case(root, number, affine=AFFINE, grid=(30, 26, 12))
    return root


def command(data: Path, *more: str) -> list[str]:
    only = ["--only", "mri", "--data", f"mri={data}"]
    return ["plan", "unified-mri-ct", *only, "--memory-gib", "1", *more]


def test_every_field_is_shown_with_its_reason(data: Path, capsys: Capture) -> None:
    assert main(command(data)) == 0
    lines = capsys.readouterr().out.splitlines()
    for field in FIELDS.values():
        (line,) = [line for line in lines if line.split()[:1] == [field]]
        assert len(line.split()) > 5
    assert any("[1.0, 1.0, 3.5]" in line and "10th percentile" in line for line in lines)
    assert "--out FILE.json" in lines[-1]


def test_a_planned_system_goes_from_files_to_masks(data: Path, tmp_path: Path, capsys: Capture) -> None:
    planned = tmp_path / "planned.json"
    small = ["--network.arguments.features", "[4, 8]", "--training.batch-size", "2"]
    few = ["--training.max-epochs", "1", "--training.device", "cpu", "--training.precision", "32-true"]
    assert main(command(data, *small, *few, "--out", str(planned))) == 0
    printed = capsys.readouterr().out
    assert f"oncoseg train {planned} --data mri={data} --out RUN" in printed
    recipe = open_recipe(str(planned))
    assert json.loads(planned.read_text()) == recipe.model_dump(mode="json")
    assert recipe.network.arguments["features"] == [4, 8]
    assert recipe.preparation.spacing_mm == (1, 1, 3.5)
    assert recipe.training.max_epochs == 1
    run = tmp_path / "run"
    train = ["train", str(planned), "--data", f"mri={data}", "--out", str(run), "--workers", "0"]
    assert main([*train, "--store", str(tmp_path / "store")]) == 0
    out = tmp_path / "masks"
    assert main(["predict", str(run), str(data), "--out", str(out), "--overlap", "0.25"]) == 0
    masks = sorted(out.glob("*.nii.gz"))
    assert len(masks) == 4
    assert all(nib.load(path).shape == (30, 26, 12) for path in masks)
    assert read_record(out / "prediction.json")["prediction"]["overlap"] == 0.25
    assert main(["evaluate", str(run)]) == 0


def test_a_plan_that_cannot_run_is_shown_but_not_written(data: Path, tmp_path: Path, capsys: Capture) -> None:
    planned = tmp_path / "planned.json"
    patch = ["--preparation.patch", "[512,512,512]"]
    assert main(command(data, *patch, "--out", str(planned))) == 2
    printed = capsys.readouterr()
    assert "your choice; a step takes" in printed.out
    assert "Next:" not in printed.out
    message = " ".join(printed.err.split())
    assert "A training step of attention-unet takes about" in message
    assert message.endswith("Nothing was written.")
    assert not planned.exists()
    assert main(command(data, *patch)) == 2, "also without a file to write"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--memory-gib", "0"], "above 0"),
        (["--preparation.patches", "[8,8,8]"], "did you mean --preparation.patch?"),
        (["--preparation.spatial-dims", "2"], "Plans are for 3D"),
        (["--preparation.patch", "[8,8]"], "preparation.patch"),
        (["--memory", "2"], "Unknown option --memory"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    data: Path, capsys: Capture, more: list[str], message: str
) -> None:
    given = command(data)
    if more[0] == "--memory-gib":
        given = given[:-2]
    assert main([*given, *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_data_of_another_modality_or_without_voxel_size_are_refused(tmp_path: Path, capsys: Capture) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    assert main(["plan", "unified-mri-ct", "--data", f"ct={tmp_path / 'ct'}"]) == 2
    assert "needs data for mri and ct" in " ".join(capsys.readouterr().err.split())
    assert main(["plan", "unified-mri-ct", "--only", "ct", "--data", f"ct={tmp_path / 'ct'}"]) == 2
    assert "hold no voxel size" in " ".join(capsys.readouterr().err.split())
    brats_case(tmp_path / "mri", 1)
    next((tmp_path / "mri").rglob("*_seg.nii.gz")).unlink()
    assert main(command(tmp_path / "mri")) == 2
    assert "No case of mri has a mask" in " ".join(capsys.readouterr().err.split())
