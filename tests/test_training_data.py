import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from oncoseg import cli, datasets
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RunError
from oncoseg.files import SYNTHETIC_NOTE
from oncoseg.split import read_split, split_patients
from oncoseg.training import data as training_data
from oncoseg.training.sources import Sources, check_modalities
from tiny import MRI_GRID, brats_case, tiny_data, tiny_recipe


def test_both_sides_are_prepared_and_the_test_set_is_not(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=5, ct=4)
    loaded = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)
    assert [len(loaded.train["mri"]), len(loaded.validation["mri"])] == [3, 1]
    assert len(loaded.split["mri"]["test"]) == 1
    folders = [path for path in (tmp_path / "store").glob("*/*") if path.is_dir()]
    assert len(folders) == 4 + 3
    for name in data:
        used = {case.patient for case in [*loaded.train[name], *loaded.validation[name]]}
        assert used.isdisjoint(loaded.split[name]["test"])
        listed = {**loaded.split[name]["train"], **loaded.split[name]["validation"]}
        assert used == set(listed)


def test_the_record_says_what_was_used(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    for path in (tmp_path / "mri").glob("*/*_t2.nii.gz"):
        path.unlink()
    recipe = tiny_recipe(modalities__mri__missing="substitute")
    loaded = training_data.load(recipe, data, tmp_path / "store", workers=0)
    record = loaded.data["mri"]
    assert record["path"] == str(data["mri"].resolve())
    assert (record["layout"], record["cases"], record["patients"]) == ("brats", 3, 3)
    assert record["substituted_channels"] == {"T2": "FLAIR"}
    assert loaded.data["ct"]["substituted_channels"] == {}
    json.dumps(loaded.data)


def test_the_fingerprint_follows_the_images_and_not_their_place(tmp_path: Path) -> None:
    first = training_data.load(tiny_recipe(), tiny_data(tmp_path / "a", 3, 3), tmp_path / "store", workers=0)
    moved = training_data.load(tiny_recipe(), tiny_data(tmp_path / "b", 3, 3), tmp_path / "store", workers=0)
    more = training_data.load(tiny_recipe(), tiny_data(tmp_path / "c", 4, 3), tmp_path / "store", workers=0)
    prints = [[one.data[name]["fingerprint"] for name in ("mri", "ct")] for one in (first, moved, more)]
    assert prints[0] == prints[1]
    assert prints[2][0] != prints[0][0]
    assert prints[2][1] == prints[0][1]


def test_a_given_split_is_used(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, 4, 4)
    store = tmp_path / "store"
    drawn = training_data.load(tiny_recipe(), data, store, workers=0)
    turned = {
        name: {"train": side["test"], "validation": side["validation"], "test": side["train"]}
        for name, side in drawn.split.items()
    }
    given = training_data.load(tiny_recipe(training__seed=5), data, store, split=turned, workers=0)
    assert given.split == turned
    assert [case.patient for case in given.train["mri"]] == list(turned["mri"]["train"])


def test_a_split_without_test_patients_is_used_but_not_without_a_word(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, 3, 3)
    said: list[tuple[str, str]] = []
    told = Sources(data, remark=lambda name, problems: said.append((name, problems[0].kind)))
    drawn = training_data.load(tiny_recipe(), told, tmp_path / "store", workers=0).split
    said = [one for one in said if one[1] == "no-test-patient"]
    assert said == []
    split = drawn | {"ct": drawn["ct"] | {"test": {}}}
    training_data.load(tiny_recipe(), told, tmp_path / "store", split=split, workers=0)
    assert [one for one in said if one[1] == "no-test-patient"] == [("ct", "no-test-patient")]
    misspelt = drawn | {"ct": drawn["ct"] | {"tests": {}}}
    with pytest.raises(DataError, match="unknown part 'tests'; did you mean 'test'"):
        training_data.load(tiny_recipe(), told, tmp_path / "store", split=misspelt, workers=0)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_split_with_nobody_on_a_side_is_refused(tmp_path: Path, part: str) -> None:
    data = tiny_data(tmp_path, 3, 3)
    drawn = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0).split
    with pytest.raises(DataError, match=f"ct: The split has no case under {part}"):
        training_data.load(
            tiny_recipe(), data, tmp_path / "store", split=drawn | {"ct": drawn["ct"] | {part: {}}}, workers=0
        )
    with pytest.raises(DataError, match="ct: The split has no case under train"):
        training_data.load(tiny_recipe(), data, tmp_path / "store", split={"mri": drawn["mri"]}, workers=0)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "3",
        '[{"train": ["a"]}]',
        '[["a"]]',
        '[{"train": 1, "val": 2}]',
        '{"seed": 0}',
        '{"modalities": 3}',
        '{"modalities": [1]}',
    ],
)
def test_a_split_file_of_another_form_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"Cannot read the split .*expected a file like"):
        read_split(tmp_path / "split.json", ["mri"])


def test_nnunets_folds_are_a_split_of_one_modality(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, 4, 3)
    names = [f"BraTS2021_0000{number}" for number in range(4)]
    folds = [{"train": names[:3], "val": names[3:]}, {"train": names[1:], "val": names[:1]}]
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(folds))
    only = tiny_recipe().with_only(["mri"])
    said: list[str] = []
    for path, (first, *_) in ((file, names), (tmp_path / "splits_final.json#1", names[1:])):
        split = read_split(path, ["mri"])
        loaded = training_data.load(
            only,
            Sources({"mri": data["mri"]}, remark=lambda _, problems: said.append(problems[0].kind)),
            tmp_path / "store",
            split=split,
            workers=0,
        )
        assert min(case.patient for case in loaded.train["mri"]) == first
        assert len(loaded.train["mri"]) == 3
        assert len(loaded.validation["mri"]) == 1
    assert "no-test-patient" in said
    with pytest.raises(DataError, match=r"has 2 folds, counted from 0; there is no fold 2"):
        read_split(tmp_path / "splits_final.json#2", ["mri"])
    with pytest.raises(DataError, match=r"of one data set; but the modalities are mri and ct.*--only"):
        read_split(file, ["mri", "ct"])


@pytest.mark.parametrize(
    "given", [{}, {"mri": "x"}, {"mri": "x", "ct": "y", "pet": "z"}, {"mr": "x", "ct": "y"}]
)
def test_one_folder_is_needed_for_each_modality(given: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"needs data for mri and ct; got .*--data mri=PATH --data ct=PATH"):
        check_modalities(tiny_recipe(), given)


def test_the_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert training_data.default_store() == tmp_path / "oncoseg" / "prepared"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert training_data.default_store() == tmp_path / ".cache" / "oncoseg" / "prepared"


def renamed(root: Path, names: dict[str, str]) -> None:
    for old, new in names.items():
        (root / old).rename(root / new)


def test_a_patient_with_several_modalities_is_on_one_side(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=4, ct=4)
    # patients 1, 2 and 3 have both; for themselves, the CTs would be split otherwise
    renamed(data["ct"], {f"LIDC-IDRI-{number:04d}": f"BraTS2021_{number + 1:05d}" for number in range(4)})
    loaded = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)
    sides = {
        name: {patient: part for part, listed in parts.items() for patient in listed}
        for name, parts in loaded.split.items()
    }
    both = set(sides["mri"]) & set(sides["ct"])
    assert len(both) == 3
    assert {patient: sides["ct"][patient] for patient in both} == {
        patient: sides["mri"][patient] for patient in both
    }
    cases = open_dataset(data["ct"]).cases
    alone = split_patients(cases, 0.7, 0.1, 0)
    assert {one.patient: part for part, of_part in alone.items() for one in of_part} != sides["ct"]


def test_a_given_split_with_a_patient_on_two_sides_is_refused(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    renamed(data["ct"], {"LIDC-IDRI-0000": "BraTS2021_00000"})
    names = {"mri": ["BraTS2021_{:05d}"] * 3, "ct": ["BraTS2021_{:05d}", *["LIDC-IDRI-{:04d}"] * 2]}
    parts = {"mri": ("train", "validation", "test"), "ct": ("test", "train", "validation")}
    split = {
        name: {
            part: {names[name][n].format(n): [names[name][n].format(n) + ("_nodule-0" * (name == "ct"))]}
            for n, part in enumerate(parts[name])
        }
        for name in data
    }
    with pytest.raises(DataError, match="1 patients are in both train and test"):
        training_data.load(tiny_recipe(), data, tmp_path / "store", split=split, workers=0)
    assert not (tmp_path / "store").exists()


def test_cases_without_truth_are_left_out_and_counted(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=4, ct=3)
    (data["mri"] / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    loaded = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)
    listed = [patient for side in loaded.split["mri"].values() for patient in side]
    assert sorted(listed) == ["BraTS2021_00000", "BraTS2021_00001", "BraTS2021_00003"]
    record = loaded.data["mri"]
    assert (record["cases"], record["without_truth"]) == (4, 1)
    (problem,) = record["problems"]
    assert (problem["kind"], problem["case"]) == ("missing-mask", "BraTS2021_00002")
    assert "no truth" in problem["message"]
    assert loaded.data["ct"]["without_truth"] == 0
    assert loaded.data["ct"]["problems"] == []


def test_data_sets_are_looked_through_once_and_their_problems_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_data(tmp_path, mri=4, ct=3)
    (data["mri"] / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    opened: list[Path] = []

    def counted(path: Path, **options: Any) -> Any:
        opened.append(path)
        return open_dataset(path, **options)

    for module in (training_data, datasets):
        monkeypatch.setattr(module, "open_dataset", counted)
    asked = [f"--data={name}={folder}" for name, folder in data.items()]
    said: list[tuple[str, str]] = []
    told: dict[str, str] = {}

    def start(recipe: Any, given: Any, out: Path, **_: Any) -> Any:
        training_data.load(tiny_recipe(), given, tmp_path / "store", workers=0)
        raise DataError("enough")

    def note(name: str, problems: Any) -> None:
        said.extend((name, problem.kind) for problem in problems)
        told.update({problem.kind: problem.message for problem in problems})

    monkeypatch.setattr("oncoseg.train.train", start)
    monkeypatch.setattr("oncoseg.cli.terminal.note_problems", note)
    assert cli.main(["train", "unified-mri-ct", *asked, "--out", str(tmp_path / "run")]) == 2
    assert opened == [data["mri"], data["ct"]]
    assert (
        "the class tumour takes every label: necrotic core, oedema, enhancing tumour."
        in told["joined-labels"]
    )
    assert """--classes.tumour '["enhancing tumour"]' or""" in told["joined-labels"]
    assert ("mri", "missing-mask") in said


def test_a_case_that_the_given_split_leaves_out_may_be_unfit(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    split = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0).split
    brats_case(data["mri"], 7)
    (data["mri"] / "BraTS2021_00007" / "BraTS2021_00007_t2.nii.gz").unlink()
    again = training_data.load(tiny_recipe(), data, tmp_path / "store", split=split, workers=0)
    assert again.split == split
    assert again.data["mri"]["problems"][0]["kind"] == "missing-channel"
    with pytest.raises(DataError, match=r"mri: Case BraTS2021_00007"):
        training_data.load(tiny_recipe(training__seed=1), data, tmp_path / "store", workers=0)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_side_without_any_tumour_is_refused(tmp_path: Path, part: str) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    split = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0).split
    (patient,) = split["mri"][part]
    mask = data["mri"] / patient / f"{patient}_seg.nii.gz"
    nib.Nifti1Image(np.zeros(MRI_GRID, np.uint8), np.eye(4)).to_filename(mask)
    with pytest.raises(DataError, match=rf"mri: None of the 1 cases under {part} has a tumour pixel"):
        training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)


def test_the_record_says_whether_the_images_are_synthetic(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    (data["ct"] / SYNTHETIC_NOTE).touch()
    loaded = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)
    assert {name: record["synthetic"] for name, record in loaded.data.items()} == {"mri": False, "ct": True}


def test_balancing_needs_cases_that_say_their_class(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", 3, 3)
    with pytest.raises(
        DataError, match=r"mri: .*training.balance is class, but the class of no case is known"
    ):
        training_data.load(tiny_recipe(training__balance="class"), data, tmp_path / "store", workers=0)


CORE = {"other": ["*"], "core": ["necrotic core"]}
"""Of MRI: the tiny tumours are all enhancing."""


def test_a_class_that_no_training_case_has_is_refused(tmp_path: Path) -> None:
    data = {"mri": tiny_data(tmp_path, mri=3, ct=1)["mri"]}
    recipe = tiny_recipe().with_only(["mri"]).with_changes({"classes": CORE})
    with pytest.raises(
        DataError, match=r"No case under train, of any modality, has a pixel of core .* some of every class"
    ):
        training_data.load(recipe, data, tmp_path / "store", workers=0)


def test_a_class_may_be_in_one_modality_only(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    recipe = tiny_recipe(classes={"other": ["*"], "core": ["necrotic core", "nodule"]})
    remarks: list[str] = []
    told = Sources(data, remark=lambda name, found: remarks.append(name))
    training_data.load(recipe, told, tmp_path / "store", workers=0)
    assert "validation" not in remarks


def test_a_class_that_no_validation_case_has_is_remarked(tmp_path: Path) -> None:
    data = {"mri": tiny_data(tmp_path, mri=3, ct=1)["mri"]}
    recipe = tiny_recipe().with_only(["mri"])
    remarks: dict[str, str] = {}
    split = training_data.load(recipe, data, tmp_path / "store", workers=0).split
    (patient,) = split["mri"]["train"]
    path = data["mri"] / patient / f"{patient}_seg.nii.gz"
    mask = np.asarray(nib.load(path).dataobj).copy()
    mask[:8, :8, 1] = 1
    nib.Nifti1Image(mask, np.eye(4)).to_filename(path)
    training_data.load(
        recipe.with_changes({"classes": CORE}),
        Sources(data, remark=lambda name, found: remarks.update({name: found[0].message})),
        tmp_path / "store",
        split=split,
        workers=0,
    )
    assert remarks["validation"] == (
        "No case under validation, of any modality, has a pixel of core after preparation, so that the kept "
        "weights are chosen without it."
    )


def test_a_run_of_several_classes_by_another_rule_is_not_gone_on_with(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    recipe = tiny_recipe(classes={"other": ["*"], "core": ["necrotic core", "nodule"]})
    records = training_data.load(recipe, data, tmp_path / "store", workers=0).data
    training_data.check_unchanged(records, records, tmp_path, "a resumed run")
    before = {
        name: {field: value for field, value in record.items() if field != "labels_by"}
        | {"fingerprint": "of then"}
        for name, record in records.items()
    }
    with pytest.raises(
        RunError, match=r"kept the weights by the Dice of all classes.* A rerun would mix both"
    ):
        training_data.check_unchanged(before, records, tmp_path, "a rerun")
    alone = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0).data
    assert "labels_by" not in alone["ct"], "a single class goes on as ever"
