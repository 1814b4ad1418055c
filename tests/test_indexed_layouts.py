"""Decathlon and nnU-Net folders as they lie on disk, here with empty files: adapters never read voxels."""

import json
from pathlib import Path
from typing import Any

import pytest

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.datasets.channels import channel_name, channel_names
from oncoseg.errors import DataError
from oncoseg.io import ImageRef


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def index(root: Path, **entries: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(entries))
    return root


def training(*names: str) -> list[dict[str, str]]:
    return [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]


def liver(root: Path) -> Path:
    """Task03 as its publishers index it."""
    touch(root, *(f"{part}/liver_{n}.nii.gz" for part in ("imagesTr", "labelsTr") for n in (0, 10, 2)))
    touch(root, "imagesTs/liver_132.nii.gz", "imagesTr/._liver_0.nii.gz", "._dataset.json")
    return index(
        root,
        name="Liver",
        description="Liver and cancer segmentation",
        tensorImageSize="3D",
        licence="CC-BY-SA 4.0",
        modality={"0": "CT"},
        labels={"0": "background", "1": "liver", "2": "cancer"},
        numTraining=3,
        numTest=1,
        training=training("liver_0", "liver_10", "liver_2"),
        test=["./imagesTs/liver_132.nii.gz"],
    )


def nnunet(
    root: Path, cases: tuple[str, ...] = ("a_1", "b"), ending: str = ".nii.gz", **changes: Any
) -> Path:
    for case in cases:
        touch(root, *(f"imagesTr/{case}_000{n}{ending}" for n in (0, 1)), f"labelsTr/{case}{ending}")
    touch(root, f"imagesTs/c_0000{ending}", f"imagesTs/c_0001{ending}")
    entries = {"channel_names": {"0": "CT", "1": "T1w"}, "labels": {"background": 0, "liver": 1, "tumour": 2}}
    return index(root, **{**entries, "numTraining": len(cases), "file_ending": ending, **changes})


def kinds(scan: Scan) -> list[str]:
    return [problem.kind for problem in scan.problems]


def by_id(scan: Scan) -> dict[str, Case]:
    return {case.id: case for case in scan.cases}


# channels


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("T1w", "T1"), ("t1gd", "T1ce"), ("T2w", "T2"), ("FLAIR", "FLAIR"), ("MR_T1", "T1"), ("ct", "CT")),
        *(("MRI", "MR"), ("ADC", "ADC"), ("late phase", "late-phase"), ("noNorm", "noNorm")),
        ("T2-FLAIR", "FLAIR"),
    ],
)
def test_channels_have_one_spelling(text: str, name: str) -> None:
    assert channel_name(text) == name


def test_a_channel_that_comes_again_gets_a_number() -> None:
    assert channel_names(["CT", "ct", "T1", "CT"]) == ["CT", "CT-2", "T1", "CT-3"]


# Decathlon


def test_the_liver_task_by_name(tmp_path: Path) -> None:
    scan = open_dataset(liver(tmp_path / "Task03_Liver"))
    assert (scan.layout, scan.problems) == ("decathlon", ())
    assert list(by_id(scan)) == ["liver_0", "liver_10", "liver_132", "liver_2"]
    case = by_id(scan)["liver_10"]
    assert case.labels == {1: "liver", 2: "tumour"}
    assert case.images == {"CT": ImageRef((tmp_path / "Task03_Liver/imagesTr/liver_10.nii.gz",))}
    assert case.masks == (ImageRef((tmp_path / "Task03_Liver/labelsTr/liver_10.nii.gz",)),)
    assert by_id(scan)["liver_132"].masks == ()
    assert "Liver and cancer segmentation; CC-BY-SA 4.0" in scan.remarks[0]


def test_the_vessel_task_by_name_and_others_as_they_say(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/x_001.nii.gz", "labelsTr/x_001.nii.gz")
    given = {"0": "background", "1": "Vessel", "2": "Tumour"}
    entries: dict[str, Any] = {"modality": {"0": "CT"}, "labels": given, "training": training("x_001")}
    names = {"HepaticVessel": {1: "vessel", 2: "tumour"}, "other": {1: "Vessel", 2: "Tumour"}}
    for name, labels in names.items():
        assert open_dataset(index(tmp_path, name=name, **entries)).cases[0].labels == labels


def test_channels_of_the_brain_task_are_volumes_of_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    entries = {"labels": {"0": "background", "1": "edema"}, "training": training("BRATS_001")}
    (case,) = open_dataset(index(tmp_path, modality=modality, **entries)).cases
    file = (tmp_path / "imagesTr" / "BRATS_001.nii.gz",)
    assert case.images == {name: ImageRef(file, n) for n, name in enumerate(["FLAIR", "T1", "T1ce", "T2"])}


def test_what_the_index_and_the_folder_disagree_about(tmp_path: Path) -> None:
    root = liver(tmp_path)
    (root / "imagesTr" / "liver_0.nii.gz").unlink()
    (root / "labelsTr" / "liver_2.nii.gz").unlink()
    touch(root, "imagesTr/liver_77.nii.gz")
    entries = json.loads((root / "dataset.json").read_text())
    entries["training"] += [{"image": "../../etc/passwd", "label": "x"}, {"image": "/etc/passwd"}]
    scan = open_dataset(index(root, **entries))
    assert sorted(kinds(scan)) == [
        *("miscounted", "missing-image", "missing-image", "missing-image", "missing-mask", "unlisted-image"),
    ]
    assert list(by_id(scan)) == ["liver_10", "liver_132", "liver_2"]
    assert by_id(scan)["liver_2"].masks == ()
    assert any("liver_77" in problem.message for problem in scan.problems)
    assert sum("outside" in problem.message for problem in scan.problems) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is damaged"),
        ("[1]", "is no index"),
        ('{"modality": {"0": "CT"}, "training": []}', "lacks labels"),
        ('{"modality": {"1": "CT"}, "training": [], "labels": {}}', "expected the numbers from 0 on"),
        ('{"modality": {"0": "CT"}, "training": [], "labels": {"one": "x"}}', "no whole number"),
        ('{"modality": {"0": "CT"}, "training": [{"file": "x"}], "labels": {"1": "x"}}', "has the entry"),
        ('{"modality": {"0": "CT"}, "training": [], "labels": {"1": "x"}}', "No case was found"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_an_index_that_cannot_be_used_is_explained(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path)


def test_a_folder_of_tasks_must_be_narrowed(tmp_path: Path) -> None:
    liver(tmp_path / "Task03_Liver")
    liver(tmp_path / "Task08_HepaticVessel")
    with pytest.raises(DataError, match=r"several data sets \(Task03_Liver, Task08_HepaticVessel\)"):
        open_dataset(tmp_path)


def test_patients_of_cases_come_from_a_table_beside_the_index(tmp_path: Path) -> None:
    root = liver(tmp_path)
    (root / "patients.csv").write_text(
        "case;patient;class;site\nliver_0;P1;benign;\nliver_10;P1;malignant;Ulm\n"
    )
    scan = open_dataset(root)
    cases = by_id(scan)
    assert [cases[name].patient for name in ("liver_0", "liver_10", "liver_2")] == ["P1", "P1", "liver_2"]
    assert (cases["liver_0"].target, cases["liver_0"].site) == ("benign", None)
    assert (cases["liver_10"].target, cases["liver_10"].site) == ("malignant", "Ulm")
    assert kinds(scan) == ["unknown-patient", "unknown-patient"]
    (root / "patients.csv").write_text("patient\n")
    assert kinds(open_dataset(root)) == ["unreadable-table"]


# nnU-Net


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_nnunet_raw_data(tmp_path: Path, ending: str) -> None:
    root = nnunet(tmp_path / "Dataset123_Liver", ending=ending)
    scan = open_dataset(root)
    assert (scan.layout, scan.problems, list(by_id(scan))) == ("nnunet_raw", (), ["a_1", "b", "c"])
    case = by_id(scan)["a_1"]
    assert case.images == {
        "CT": ImageRef((root / "imagesTr" / f"a_1_0000{ending}",)),
        "T1": ImageRef((root / "imagesTr" / f"a_1_0001{ending}",)),
    }
    assert case.masks == (ImageRef((root / "labelsTr" / f"a_1{ending}",)),)
    assert case.labels == {1: "liver", 2: "tumour"}
    assert by_id(scan)["c"].masks == ()


def test_version_1_is_told_from_the_decathlon_by_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz")
    entries: dict[str, Any] = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    scan = open_dataset(index(tmp_path, **entries, numTraining=1, training=training("liver_1")))
    assert (scan.layout, scan.problems) == ("nnunet_raw", ())
    assert scan.cases[0].labels == {1: "liver"}
    assert scan.cases[0].images["CT"].files[0].name == "liver_1_0000.nii.gz"


def test_files_that_the_index_names_itself_may_lie_anywhere(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/x.nii.gz", "elsewhere/y.nii.gz")
    entry = {
        "images": ["../elsewhere/x.nii.gz", "../elsewhere/gone.nii.gz"],
        "label": "../elsewhere/y.nii.gz",
    }
    root = nnunet(tmp_path / "Dataset001_A", (), dataset={"x": entry}, numTraining=1)
    scan = open_dataset(root)
    case = by_id(scan)["x"]
    assert case.images["CT"].files == (root / "../elsewhere/x.nii.gz",)
    assert case.masks[0].files == (root / "../elsewhere/y.nii.gz",)
    assert kinds(scan) == ["missing-channel"]


def test_a_colour_picture_holds_three_channels(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.png", "labelsTr/a.png")
    names = {"0": "R", "1": "G", "2": "B"}
    (case,) = open_dataset(index(tmp_path, channel_names=names, labels={"x": 1}, file_ending=".png")).cases
    file = (tmp_path / "imagesTr" / "a_0000.png",)
    assert case.images == {"R": ImageRef(file, 0), "G": ImageRef(file, 1), "B": ImageRef(file, 2)}


def test_values_are_named_after_all_of_their_regions(tmp_path: Path) -> None:
    regions = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    (case, *_) = open_dataset(nnunet(tmp_path, labels=regions, regions_class_order=[1, 3, 2])).cases
    assert case.labels == {1: "kidney", 2: "kidney + masses + tumor", 3: "kidney + masses"}


def test_the_label_to_be_ignored_is_said_and_not_declared(tmp_path: Path) -> None:
    scan = open_dataset(nnunet(tmp_path, labels={"background": 0, "liver": 1, "ignore": 2}))
    assert scan.cases[0].labels == {1: "liver"}
    assert kinds(scan) == ["ignore-label"]


def test_what_is_missing_or_too_much_in_nnunet_data(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ("a", "b", "c1", "d"))
    (root / "imagesTr" / "a_0001.nii.gz").unlink()
    (root / "labelsTr" / "b.nii.gz").unlink()
    touch(root, "labelsTr/lonely.nii.gz", "imagesTr/d_0002.nii.gz", "imagesTr/readme.txt")
    scan = open_dataset(root)
    assert sorted(kinds(scan)) == [
        *("miscounted", "missing-channel", "missing-image", "missing-mask", "unknown-channel"),
    ]
    assert set(by_id(scan)["a"].images) == {"CT"}


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("imagesTr/x_9001_0000.nii.gz", "imagesTr/x_9001.nii.gz", "Expected CASE_0000.nii.gz, where 0000 is"),
        ("imagesTr/x_9001_0000.nii.gz", "imagesTr/x_9001_0000.nii", "or mend file_ending"),
        ("imagesTr/x_9001_0000.nii.gz", "imagesTr/x_9001_0000.NII.GZ", "in imagesTr are not read"),
        ("labelsTr/x_9001.nii.gz", "labelsTr/x_9001.mha", "Expected CASE.nii.gz. Rename or convert"),
    ],
)
def test_files_of_nnunet_data_that_are_named_otherwise_are_told(
    tmp_path: Path, was: str, now: str, told: str
) -> None:
    root = nnunet(tmp_path, ("x_9001", "y"), channel_names={"0": "CT"})
    for spare in root.rglob("*_0001.nii.gz"):
        spare.unlink()
    (root / was).rename(root / now)
    scan = open_dataset(root)
    (problem,) = (each for each in scan.problems if each.kind == "misnamed")
    assert problem.message.startswith(f"1 files in {now.split('/')[0]} are not read: {now.split('/')[1]}.")
    assert told in problem.message
    assert "x" not in by_id(scan)


def test_a_channel_that_the_index_does_not_name_is_no_wrong_name(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ("a", "b"), channel_names={"0": "CT"})
    assert set(kinds(open_dataset(root))) == {"unknown-channel"}


def test_a_folder_of_nnunet_data_without_an_index_is_told(tmp_path: Path) -> None:
    root = nnunet(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.json lies in the folder above: give that one"):
        open_dataset(root / "imagesTr")
    (root / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"list its cases in a table, cases\.csv"):
        open_dataset(root / "imagesTr")
    with pytest.raises(DataError, match=r"imagesTr, but no dataset\.json that could be used: restore that"):
        open_dataset(root)


def test_folds_are_reported_and_checked_for_patients_on_both_sides(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "nnUNet_raw" / "Dataset001_A", ("a", "b"))
    touch(tmp_path, "nnUNet_preprocessed/Dataset001_A/splits_final.json")
    folds = tmp_path / "nnUNet_preprocessed" / "Dataset001_A" / "splits_final.json"
    folds.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    scan = open_dataset(root)
    assert scan.remarks == ("splits_final.json: 2 folds, each of 1 to train and 1 to validate on.",)
    assert not scan.problems
    (root / "patients.csv").write_text("case,patient\na,P\nb,P\nc,Q\n")
    assert kinds(open_dataset(root)) == ["leaking-split"]
    folds.write_text("{}")
    assert open_dataset(root).remarks == (f"{folds} is no list of folds of nnU-Net's and is not used.",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file_ending": ".b2nd"}, "file_ending .* cannot be read"),
        ({"labels": []}, "lacks labels"),
        ({"labels": {"liver": None}}, "expected whole numbers"),
        ({"dataset": {"x": {"images": "y"}}}, "lists no images"),
    ],
)
def test_nnunet_indices_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_dataset(nnunet(tmp_path, **changes))
