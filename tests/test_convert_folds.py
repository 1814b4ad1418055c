"""A split converted with its data: what nnU-Net finds as its folds."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from oncoseg import cli
from oncoseg.convert import convert
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError
from test_convert import SALT


def table_of(root: Path, patients: dict[str, int]) -> Path:
    """A table with so many cases of each patient, called `patient_number`."""
    root.mkdir()
    mask = nib.Nifti1Image(np.eye(3, dtype=np.uint8)[:, :, None], np.eye(4))
    image = nib.Nifti1Image(np.arange(9, dtype=np.int16).reshape(3, 3, 1), np.eye(4))
    lines = ["case,patient,CT,label"]
    for patient, count in patients.items():
        for name in (f"{patient}_{number}" for number in range(count)):
            image.to_filename(root / f"{name}.nii")
            mask.to_filename(root / f"{name}_m.nii")
            lines.append(f"{name},{patient},{name}.nii,{name}_m.nii")
    (root / "cases.csv").write_text("\n".join(lines))
    return root


SPLIT = {"ct": {"train": {"A": ["A_0", "A_1"]}, "validation": {"B": ["B_0"]}, "test": {"C": ["C_0"]}}}
"""Of four patients; the fourth is on no side."""


def folds_in(out: Path) -> Any:
    return json.loads((out / "splits_final.json").read_text())


def named(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_runs_split_is_one_fold_and_its_test_patients_lie_apart(tmp_path: Path) -> None:
    root, out = table_of(tmp_path / "in", {"A": 2, "B": 1, "C": 1, "D": 1}), tmp_path / "Dataset001_A"
    done = convert(root, "nnunet", out, names="keep", split=SPLIT, workers=0)
    assert folds_in(out) == [{"train": ["A_0", "A_1"], "val": ["B_0"]}]
    assert named(out / "imagesTr") == ["A_0_0000.nii.gz", "A_1_0000.nii.gz", "B_0_0000.nii.gz"]
    assert named(out / "labelsTr") == ["A_0.nii.gz", "A_1.nii.gz", "B_0.nii.gz"]
    assert (named(out / "imagesTs"), named(out / "labelsTs")) == (["C_0_0000.nii.gz"], ["C_0.nii.gz"])
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 3
    assert (done.cases, done.left_out, done.folds) == (4, ("D_0",), 1)
    scan = open_dataset(out)
    assert scan.problems == ()
    folds, withheld = scan.remarks
    assert folds == "splits_final.json: 1 folds, each of 2 to train and 1 to validate on."
    assert withheld.startswith("labelsTs: 1 masks of test cases are not read")


def test_folds_have_the_names_of_the_converted_cases(tmp_path: Path) -> None:
    root, out = table_of(tmp_path / "in", {"A": 2, "B": 1, "C": 1}), tmp_path / "Dataset001_A"
    convert(root, "nnunet", out, split=SPLIT, salt=SALT, workers=0)
    (fold,) = folds_in(out)
    names = [name.removesuffix("_0000.nii.gz") for name in named(out / "imagesTr")]
    assert sorted([*fold["train"], *fold["val"]]) == names
    assert len(fold["train"]) == 2
    assert not any(name.startswith(("A", "B", "C")) for name in names)


def test_without_a_split_no_patient_is_on_both_sides_of_a_fold(tmp_path: Path) -> None:
    root, out = table_of(tmp_path / "in", dict.fromkeys("ABCDEFG", 3)), tmp_path / "Dataset001_A"
    assert convert(root, "nnunet", out, names="keep", workers=0).folds == 5
    folds = folds_in(out)
    everybody = named(root)
    for fold in folds:
        assert not {name[0] for name in fold["train"]} & {name[0] for name in fold["val"]}
        assert len(fold["train"]) + len(fold["val"]) == 21
        assert all(f"{name}.nii" in everybody for name in (*fold["train"], *fold["val"]))
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(
        name.removesuffix("_0000.nii.gz") for name in named(out / "imagesTr")
    )


def test_four_patients_are_too_few_for_five_folds(tmp_path: Path) -> None:
    root, out = table_of(tmp_path / "in", dict.fromkeys("ABCD", 2)), tmp_path / "Dataset001_A"
    assert convert(root, "nnunet", out, names="keep", workers=0).folds == 0
    assert not (out / "splits_final.json").exists()


@pytest.mark.parametrize(
    ("to", "change", "reason"),
    [
        ("nifti", {}, r"can be written with --to nnunet"),
        (
            "nnunet",
            {"train": {"A": ["A_9"]}},
            r"lists 1 cases under train that .* not hold, the first is 'A_9'",
        ),
        ("nnunet", {"validation": {}}, r"or none to validate on"),
        (
            "nnunet",
            {"validation": {"A": ["A_1"]}, "train": {"A": ["A_0"]}},
            r"1 patients are in both train and",
        ),
        ("nnunet", {"train": "A_0"}, r"another form than expected"),
    ],
)
def test_splits_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, to: str, change: dict[str, Any], reason: str
) -> None:
    root = table_of(tmp_path / "in", {"A": 2, "B": 1, "C": 1})
    with pytest.raises(DataError, match=reason):
        convert(root, to, tmp_path / "out", names="keep", split={"ct": {**SPLIT["ct"], **change}}, workers=0)
    assert not (tmp_path / "out").exists()


def test_the_sides_of_ct_and_mri_from_one_data_set_are_joined(tmp_path: Path) -> None:
    root = table_of(tmp_path / "in", {"A": 2, "B": 2, "C": 1})
    split = {
        "ct": {"train": {"A": ["A_0"]}, "validation": {"B": ["B_0"]}, "test": {}},
        "mri": {"train": {"A": ["A_1"]}, "validation": {"B": ["B_1"]}, "test": {"C": ["C_0"]}},
        "pet": {"train": {"X": ["elsewhere"]}, "validation": {}, "test": {}},
    }
    convert(root, "nnunet", tmp_path / "out", names="keep", split=split, workers=0)
    assert folds_in(tmp_path / "out") == [{"train": ["A_0", "A_1"], "val": ["B_0", "B_1"]}]


def test_the_command_takes_a_runs_split_and_says_where_nnunet_looks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = table_of(tmp_path / "in", {"A": 2, "B": 1, "C": 1, "D": 1}), tmp_path / "Dataset001_A"
    (tmp_path / "split.json").write_text(json.dumps({"seed": 0, "modalities": SPLIT}))
    asked = [
        "convert",
        str(root),
        "--to",
        "nnunet",
        "--out",
        str(out),
        "--split",
        str(tmp_path / "split.json"),
    ]
    assert cli.main([*asked, "--keep-names", "--workers", "0"]) == 0
    said = " ".join((seen := capsys.readouterr()).out.split() + seen.err.split())
    assert "Copy it to nnUNet_preprocessed/Dataset001_A before nnU-Net trains" in said
    assert "1 cases are left out, because the split does not list them" in said
    assert "Rename the folder" not in said
    assert folds_in(out) == [{"train": ["A_0", "A_1"], "val": ["B_0"]}]
