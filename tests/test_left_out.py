"""Cases with too many slices: left out of every side, told, and kept in the record; no voxel is read."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from oncoseg import cli, io
from oncoseg.datasets import open_dataset
from oncoseg.datasets.left_out import TOO_MANY_SLICES, left_out, without_large
from oncoseg.errors import DataError
from oncoseg.recipe import Recipe
from oncoseg.training import data as training_data
from oncoseg.training.sources import Sources
from tiny import brats_case, tiny_recipe

SMALL, LARGE, MOST = 4, 7, 5
"""Slices of the tiny cases, and how many one may have."""

LARGE_CASE = "BraTS2021_00004"


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    for number in range(5):
        brats_case(tmp_path / "mri", number, grid=(20, 20, LARGE if number == 4 else SMALL))
    return {"mri": tmp_path / "mri"}


def recipe(**changes: Any) -> Recipe:
    return tiny_recipe(**changes).with_only(["mri"]).with_changes({"modalities.mri.max_slices": MOST})


def test_only_cases_above_the_number_are_left_out(data: dict[str, Path]) -> None:
    scan = open_dataset(data["mri"])
    kept = without_large(scan, MOST)
    assert left_out(kept) == {LARGE_CASE}
    assert {case.id for case in scan.cases} - {case.id for case in kept.cases} == {LARGE_CASE}
    (told,) = kept.problems
    assert (told.kind, told.case) == (TOO_MANY_SLICES, LARGE_CASE)
    assert "7 axial slices" in told.message
    assert "at most 5" in told.message
    assert without_large(scan, LARGE) == scan
    assert without_large(scan, None) is scan


def test_no_voxel_is_read(data: dict[str, Path]) -> None:
    for path in data["mri"].rglob("*.nii.gz"):
        header = gzip.decompress(path.read_bytes())[:352]
        path.write_bytes(gzip.compress(header))
    scan = open_dataset(data["mri"])
    with pytest.raises(DataError):
        io.read(next(iter(scan.cases[0].images.values())))
    assert left_out(without_large(scan, MOST)) == {LARGE_CASE}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_counted_along_the_bodys_axis(tmp_path: Path, axis: int) -> None:
    """The same case with its axial slices along another axis of the file."""
    folder = brats_case(tmp_path / "mri", 0, grid=(20, 20, SMALL))
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        order = [n for n in range(3) if n != 2]
        order.insert(axis, 2)
        affine = image.affine[:, [*order, 3]]
        nib.Nifti1Image(np.asarray(image.dataobj).transpose(order), affine).to_filename(path)
    scan = open_dataset(tmp_path / "mri")
    assert left_out(without_large(scan, SMALL)) == set()
    assert left_out(without_large(scan, SMALL - 1)) == {"BraTS2021_00000"}


def test_a_case_that_cannot_be_read_stays_for_preparing_to_say_why(data: dict[str, Path]) -> None:
    for path in (data["mri"] / LARGE_CASE).glob("*.nii.gz"):
        path.write_bytes(b"no image")
    assert left_out(without_large(open_dataset(data["mri"]), MOST)) == set()


def test_the_run_tells_it_and_keeps_it_in_its_record(data: dict[str, Path], tmp_path: Path) -> None:
    said: list[str | None] = []
    sources = Sources(data, opened=lambda _, scan: said.extend(problem.case for problem in scan.problems))
    loaded = training_data.load(recipe(), sources, tmp_path / "store", workers=0)
    listed = [case for part in loaded.split["mri"].values() for cases in part.values() for case in cases]
    assert len(listed) == 4
    assert LARGE_CASE not in listed
    record = loaded.data["mri"]
    assert record["cases"] == 4
    assert [(problem["kind"], problem["case"]) for problem in record["problems"]] == [
        (TOO_MANY_SLICES, LARGE_CASE)
    ]
    assert said == [LARGE_CASE]


def test_folds_do_without_it_too(data: dict[str, Path], tmp_path: Path) -> None:
    prepared, _ = training_data.load_all(recipe(), data, tmp_path / "store", workers=0)
    assert LARGE_CASE not in {case.id for case in prepared["mri"]}


def test_a_given_split_that_lists_it_is_used_without_it(data: dict[str, Path], tmp_path: Path) -> None:
    sides = {"train": (0, 4), "validation": (1,), "test": (2, 3)}
    names = "BraTS2021_{:05d}"
    split = {"mri": {part: {names.format(n): [names.format(n)] for n in of} for part, of in sides.items()}}
    loaded = training_data.load(recipe(), data, tmp_path / "store", split=split, workers=0)
    assert list(loaded.split["mri"]["train"]) == [names.format(0)]
    split["mri"]["train"] = {LARGE_CASE: [LARGE_CASE]}
    with pytest.raises(DataError, match="no case under train"):
        training_data.load(recipe(), data, tmp_path / "store", split=split, workers=0)


def test_prepare_tells_it(data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(recipe().to_json())
    asked = ["prepare", str(path), f"--data=mri={data['mri']}", "--store", str(tmp_path / "store")]
    assert cli.main([*asked, "--workers", "0"]) == 0
    shown = capsys.readouterr()
    assert f"{LARGE_CASE}: it has 7 axial slices" in " ".join(shown.err.split())


def test_inspect_lists_each(data: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    brats_case(data["mri"], 5, grid=(20, 20, LARGE))
    assert cli.main(["inspect", str(data["mri"]), "--max-slices", str(MOST)]) == 0
    shown = capsys.readouterr().out
    assert "4 cases of 4 patients" in shown
    assert [shown.count(f"[{TOO_MANY_SLICES}] BraTS2021_{number:05d}") for number in range(6)] == [
        *(0, 0, 0, 0),
        *(1, 1),
    ]
