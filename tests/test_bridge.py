"""From our data to nnU-Net and back: its folders, its masks under its names, and a comparison with ours.

nnU-Net itself is not run: its masks are stand-ins, in files named and laid out as its prediction leaves them.
"""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg.cli import main
from oncoseg.run_folder import RunFolder
from test_convert import SALT
from tiny import CHANGES

MODEST = CHANGES | {
    "preparation.slice_size": [32, 32],
    "training.max_epochs": 6,
    "training.learning_rate": 0.02,
    "split.train": 0.4,
}


def call(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, a run that was trained on some and evaluated on the others."""
    root = tmp_path_factory.mktemp("bridge")
    assert call("phantom", "brain-mri", root / "data", "--cases", 6, "--size", 32, 32, 16) == 0
    fields = [
        word
        for name, value in MODEST.items()
        for word in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value))
        if not name.startswith("training.pretrain")
    ]
    data = ("--only", "mri", "--data", f"mri={root / 'data'}", "--store", root / "store")
    assert call("train", "unified-mri-ct", *data, "--out", root / "run", "--workers", 0, *fields) == 0
    assert call("evaluate", root / "run") == 0
    return root


def stand_in(raw: Path, out: Path) -> dict[str, float]:
    """Masks of the test cases, one voxel off, in a folder as nnU-Net leaves it; case → Dice by hand."""
    out.mkdir()
    dice = {}
    for path in sorted((raw / "labelsTs").iterdir()):
        truth = nib.load(path)
        voxels = np.asarray(truth.dataobj)
        moved = np.roll(voxels, 1, axis=0)
        nib.Nifti1Image(moved.astype(np.uint8), truth.affine).to_filename(out / path.name)
        common = np.count_nonzero((voxels > 0) & (moved > 0))
        both = np.count_nonzero(voxels) + np.count_nonzero(moved)
        dice[path.name.removesuffix(".nii.gz")] = 2 * common / both
    shutil.copy(raw / "dataset.json", out / "dataset.json")  # as nnU-Net does
    for name in ("plans.json", "predict_from_raw_data_args.json"):
        (out / name).write_text("{}")
    return dice


def compared(root: Path, theirs: Path, out: Path) -> dict[str, float]:
    """System → mean Dice."""
    assert call("compare", f"ours={root / 'run'}", f"nnunet={theirs}", "--metric", "dice", "--out", out) == 0
    (part,) = json.loads((out / "comparison.json").read_text())["parts"]
    return {system: summary["mean"] for system, summary in part["summaries"].items()}


@pytest.mark.slow
def test_nnunets_masks_are_compared_with_ours_on_the_same_split(bridge: Path, tmp_path: Path) -> None:
    raw = tmp_path / "Dataset501_Phantom"
    split = bridge / "run" / "split.json"
    assert call("convert", bridge / "data", "--to", "nnunet", "--split", split, "--out", raw) == 0
    sides = RunFolder(bridge / "run").split()["mri"]
    (fold,) = json.loads((raw / "splits_final.json").read_text())
    assert sorted(fold["train"]) == sorted(sides["train"])
    assert sorted(fold["val"]) == sorted(sides["validation"])
    dice = stand_in(raw, tmp_path / "theirs")
    assert sorted(dice) == sorted(sides["test"])
    masks = ("--prediction", tmp_path / "theirs", "--truth", raw / "labelsTs", "--class", "tumour=1,2,3")
    assert call("evaluate", *masks, "--out", tmp_path / "scores") == 0
    means = compared(bridge, tmp_path / "scores", tmp_path / "comparison")
    assert means["nnunet"] == pytest.approx(np.mean(list(dice.values())), abs=1e-6)
    summary = json.loads((bridge / "run" / "evaluation" / "test" / "summary.json").read_text())
    ours = [row["scores"]["dice"]["mean"] for row in summary["table"] if row["averaging"] == "patient"]
    assert means["ours"] == pytest.approx(ours[0])
    assert means["ours"] > 0


@pytest.mark.slow
def test_pseudonyms_become_names_again_by_their_key(bridge: Path, tmp_path: Path) -> None:
    raw, salt, key = tmp_path / "Dataset502_Phantom", tmp_path / "salt", tmp_path / "key.csv"
    salt.write_bytes(SALT)
    secret = ("--salt-file", salt, "--key-file", key)
    split = bridge / "run" / "split.json"
    assert call("convert", bridge / "data", "--to", "nnunet", "--split", split, *secret, "--out", raw) == 0
    dice = stand_in(raw, tmp_path / "theirs")
    names = set(RunFolder(bridge / "run").split()["mri"]["test"])
    assert not names & set(dice)
    masks = ("--prediction", tmp_path / "theirs", "--truth", raw / "labelsTs", "--class", "tumour=1,2,3")
    assert call("evaluate", *masks, "--out", tmp_path / "unnamed") == 0
    unlike = ("--metric", "dice", "--out", tmp_path / "none")
    assert call("compare", f"ours={bridge / 'run'}", f"nnunet={tmp_path / 'unnamed'}", *unlike) == 2
    assert call("evaluate", *masks, "--key-file", key, "--out", tmp_path / "scores") == 0
    with (tmp_path / "scores" / "cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice"]
    assert {row["case"] for row in rows} == {row["patient"] for row in rows} == names
    means = compared(bridge, tmp_path / "scores", tmp_path / "comparison")
    assert means["nnunet"] == pytest.approx(np.mean(list(dice.values())), abs=1e-6)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.csv").write_text("case,patient\na,b\n")
    masks = ("--prediction", tmp_path / "theirs", "--truth", tmp_path / "truth")
    assert call("evaluate", *masks, "--key-file", tmp_path / "key.csv", "--out", tmp_path / "x") == 2
    assert "with the columns pseudonym, case and patient" in capsys.readouterr().err
