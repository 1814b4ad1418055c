"""Systems are compared only where they were scored against the same truth."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg.errors import DataError
from oncoseg.evaluate.compare import compare
from oncoseg.evaluate.contest_files import markdown
from oncoseg.evaluate.contest_files import write as write_contest
from oncoseg.evaluate.long_table import COUNTS
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.truths import Scored, check_same_truths, fingerprints, read_scored
from oncoseg.report import write_comparison
from test_pairs import GRID, marked, write

CASES = ("a", "b", "c", "d", "e")


def labels(*voxels: tuple[int, int, int, int], grid: tuple[int, int, int] = (5, 6, 7)) -> np.ndarray:
    """A label map with single voxels `i j k value`."""
    array = np.zeros(grid, np.uint8)
    for i, j, k, value in voxels:
        array[i, j, k] = value
    return array


def of(array: np.ndarray) -> str:
    return fingerprints(array, {"tumour": (1,)})["tumour"]


def test_only_the_voxels_of_the_class_and_the_grid_decide() -> None:
    first = of(labels((1, 2, 3, 1), (4, 4, 4, 2)))
    assert first == of(labels((1, 2, 3, 1)))
    assert first == of(np.asfortranarray(labels((1, 2, 3, 1)).astype(np.uint16)))
    others = [
        labels((1, 2, 4, 1)),  # the same shape elsewhere
        labels((1, 2, 3, 1), (1, 2, 4, 1)),
        labels((1, 2, 3, 1), grid=(5, 6, 8)),
        labels((1, 2, 3, 2)),  # nothing of the class
        labels(),
    ]
    found = [of(other) for other in others]
    assert first not in found
    assert found[3] == found[4]
    assert len(set(found)) == 4


def test_classes_may_join_labels() -> None:
    both = fingerprints(labels((1, 1, 1, 1), (2, 2, 2, 4)), {"core": (1,), "whole": (1, 4)})
    assert both["core"] == of(labels((1, 1, 1, 1)))
    assert both["whole"] == of(labels((1, 1, 1, 1), (2, 2, 2, 1)))


def scored_against(folder: Path, truth: dict[str, np.ndarray], affine: np.ndarray | None = None) -> Path:
    """Score one and the same prediction against some truth."""
    for case in CASES:
        write(folder / "truth" / f"{case}.nii.gz", truth.get(case, marked()))
        write(folder / "masks" / f"{case}.nii.gz", marked())
    if affine is not None:
        for path in sorted((folder / "truth").iterdir()) + sorted((folder / "masks").iterdir()):
            image = nib.load(path)
            nib.Nifti1Image(np.asarray(image.dataobj)[::-1], affine).to_filename(path)
    evaluate_masks(folder / "truth", folder / "masks", folder / "scores", workers=0)
    return folder / "scores"


def test_another_truth_is_refused_with_the_first_case(tmp_path: Path) -> None:
    other = marked()
    other[0, 0, 0] = 1
    folders = {
        "one": scored_against(tmp_path / "one", {}),
        "two": scored_against(tmp_path / "two", {"d": other, "b": other}),
    }
    with pytest.raises(
        DataError, match="one and two were scored against different truths, in 2 of 5 cases, the first is 'b'"
    ):
        compare(folders, metrics=["dice"])


def test_a_truth_that_is_stored_the_other_way_round_is_the_same(tmp_path: Path) -> None:
    flipped = np.diag([-1.0, 1, 2, 1])
    flipped[0, 3] = GRID[0] - 1
    folders = {
        "one": scored_against(tmp_path / "one", {}),
        "two": scored_against(tmp_path / "two", {}, flipped),
    }
    assert compare(folders, metrics=["dice"]).remarks == []


def test_the_same_voxels_of_another_size_are_another_truth(tmp_path: Path) -> None:
    larger = {
        "one": scored_against(tmp_path / "one", {}),
        "two": scored_against(tmp_path / "two", {}, np.eye(4)),
    }
    with pytest.raises(DataError, match="different truths, in 5 of 5 cases"):
        compare(larger, metrics=["dice"])


def test_other_cases_of_the_same_patients_are_refused(tmp_path: Path) -> None:
    for case in CASES:
        write(tmp_path / "truth" / f"{case}.nii.gz", marked())
        write(tmp_path / "masks" / f"{case}.nii.gz", marked())
    patients = {case: "12"[case > "c"] for case in CASES}
    given = {"patients": patients, "workers": 0}
    evaluate_masks(tmp_path / "truth", tmp_path / "masks", tmp_path / "all", **given)
    (tmp_path / "truth" / "e.nii.gz").unlink()
    evaluate_masks(tmp_path / "truth", tmp_path / "masks", tmp_path / "fewer", **given)
    folders = {"fewer": tmp_path / "fewer", "all": tmp_path / "all"}
    with pytest.raises(DataError, match=r"all and fewer have scored other cases.*1 of all.*the first is 'e'"):
        compare(folders, metrics=["dice"])


def test_evaluations_of_early_versions_are_compared_and_said_to_be_unchecked(tmp_path: Path) -> None:
    folders = {name: scored_against(tmp_path / name, {}) for name in ("one", "two", "three")}
    without_column(folders["two"] / f"{COUNTS}.csv")
    (folders["three"] / f"{COUNTS}.csv").unlink()
    contest = compare(folders, metrics=["dice"])
    (remark,) = contest.remarks
    assert remark.startswith("The files of two, three are of an early version")
    assert remark in markdown(contest)
    page = write_comparison(contest, write_contest(contest, tmp_path / "out"))
    assert f'<div class="notice"><p>{remark}</p></div>' in page.read_text(encoding="utf-8")


def without_column(path: Path) -> None:
    with path.open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_patients_that_only_one_has_are_not_this_checks_matter() -> None:
    part = ("", "tumour")
    ours, theirs = {part: {"a": Scored("1", "x"), "b": Scored("2", "y")}}, {part: {"a": Scored("1", "x")}}
    assert check_same_truths({"ours": ours, "theirs": theirs}, [part]) == []


def test_every_case_and_class_has_its_fingerprint_in_the_files(tmp_path: Path) -> None:
    scores = scored_against(tmp_path / "one", {"b": np.zeros(GRID, np.uint8)})
    (found,) = read_scored(scores).values()
    assert list(found) == list(CASES)
    assert {case for case in CASES if found[case].truth == found["a"].truth} == set(CASES) - {"b"}
    assert len(found["b"].truth) == 16
