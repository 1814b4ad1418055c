"""A run repeated: identical, close or different; elsewhere, after a stop, and refused where it cannot be."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import pytest

from oncoseg.cli import main
from oncoseg.cross_validate import train_folds
from oncoseg.errors import DataError, RunError
from oncoseg.locks import Locked, locked
from oncoseg.rerun import compare, rerun
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from oncoseg.training.status import Status
from runs import assert_same, stopping_at
from tiny import tiny_data, tiny_recipe


@pytest.fixture
def copied(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to be changed."""
    return RunFolder(Path(shutil.copytree(whole.path, tmp_path / "copied")))


def change_log(run: RunFolder, row: int, column: str, by: float) -> str:
    """Add to one figure of a log; gives the new text."""
    lines = run.log.read_text().splitlines()
    cells = lines[row].split(",")
    place = lines[0].split(",").index(column)
    cells[place] = repr(float(cells[place]) + by)
    run.log.write_text("\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]]) + "\n")
    return cells[place]


def test_a_rerun_of_moved_data_is_bit_for_bit_the_same(
    whole: RunFolder, data: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(data["mri"].parent, tmp_path / "moved"))
    flags = [text for name in ("mri", "ct") for text in ("--data", f"{name}={moved / name}")]
    out = tmp_path / "again"
    code = main(
        [
            "rerun",
            str(whole.path),
            "--out",
            str(out),
            *flags,
            "--store",
            str(tmp_path / "s"),
            "--workers",
            "0",
        ]
    )
    assert code == 0
    assert "Identical: the weights and every figure" in capsys.readouterr().out
    assert_same(RunFolder(out), whole)
    found = json.loads((out / "rerun.json").read_text())
    assert (found["verdict"], found["same_weights"], found["first"]) == ("identical", True, None)
    assert RunFolder(out).data()["mri"]["path"] == str((moved / "mri").resolve())


def test_a_stopped_rerun_goes_on(
    whole: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    outcome, agreement = rerun(whole.path, out, store=store, workers=0, monitor=stopping_at(4))
    assert (outcome.finished, agreement) == (False, None)
    _, agreement = rerun(whole.path, out, store=store, workers=0)
    assert agreement is not None
    assert agreement.verdict == "identical"
    assert len(RunFolder(out).record()["calls"]) == 2


def test_small_differences_agree_and_the_first_large_one_is_named(
    whole: RunFolder, copied: RunFolder
) -> None:
    change_log(copied, 2, "validation_dice", 0.004)
    found = compare(whole, copied)
    assert (found.verdict, found.same_weights) == ("close", True)
    assert compare(whole, copied, tolerance=0.003).verdict == "different"
    before = whole.log.read_text().splitlines()[4].split(",")[3]
    now = change_log(copied, 4, "train_loss", 0.02)
    found = compare(whole, copied)
    assert found.verdict == "different"
    # rows 2 and 3 are joint epoch 1, 4 and 5 epoch 2: MRI, then CT
    assert str(found.first) == f"train_loss of joint epoch 2, mri: {before} there, {now} here"


def test_other_weights_are_not_identical_and_a_missing_row_is_a_difference(
    whole: RunFolder, copied: RunFolder
) -> None:
    copied.model.write_bytes(copied.model.read_bytes()[:-1] + b"x")
    found = compare(whole, copied)
    assert (found.verdict, found.same_weights, found.first) == ("close", False, None)
    copied.log.write_text("".join(copied.log.read_text().splitlines(keepends=True)[:-1]))
    found = compare(whole, copied)
    assert found.verdict == "different"
    assert str(found.first) == "row of joint epoch 2, ct: present there, absent here"


def test_other_circumstances_are_named(whole: RunFolder, copied: RunFolder) -> None:
    assert compare(whole, copied).circumstances == {}
    record = copied.record()
    record["calls"][-1]["packages"]["numpy"] = "1.0"
    record["calls"][-1]["hardware"]["processor"] = "another"
    copied.write_record(record)
    found = compare(whole, copied).circumstances
    assert set(found) == {"numpy", "processor"}
    assert found["numpy"][1] == "1.0"


def test_different_numbers_have_an_exit_code_of_their_own(
    whole: RunFolder, copied: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    shutil.copytree(whole.path, out)  # a rerun that is finished is compared only
    change_log(copied, 3, "train_dice", 0.5)
    flags = ["--out", str(out), "--store", str(store), "--workers", "0"]
    assert main(["rerun", str(copied.path), *flags]) == 3
    assert "Different: the weights are the same; first beyond 0.01 is train_dice" in capsys.readouterr().out


def test_a_rerun_refuses_changed_data_and_leaves_nothing(tmp_path: Path, store: Path) -> None:
    data = tiny_data(tmp_path / "data")
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    run = train(recipe, data, tmp_path / "run", store=store, workers=0).run
    sides = RunFolder(run).split()["mri"]["train"]
    (case,) = next(iter(sides.values()))
    image = nib.load(data["mri"] / case / f"{case}_flair.nii.gz")
    voxels = image.get_fdata().astype("int16")
    voxels[0, 0, 0] += 1
    nib.Nifti1Image(voxels, image.affine).to_filename(data["mri"] / case / f"{case}_flair.nii.gz")
    with pytest.raises(RunError, match=r"mri data at .* have changed since .* a rerun must see the same"):
        rerun(run, tmp_path / "again", store=store, workers=0)
    assert not (tmp_path / "again").exists()


def test_a_rerun_needs_a_finished_run_and_a_folder_of_its_own(
    data: Mapping[str, Path], whole: RunFolder, store: Path, tmp_path: Path
) -> None:
    part = train(tiny_recipe(), data, tmp_path / "part", store=store, workers=0, monitor=stopping_at(1)).run
    with pytest.raises(RunError, match="is not finished; expected a finished run to repeat"):
        rerun(part, tmp_path / "again", store=store)
    with pytest.raises(RunError, match="Choose another --out"):
        rerun(whole.path, whole.path, store=store)
    with pytest.raises(RunError, match="exists already and is not empty"):
        rerun(whole.path, tmp_path, store=store)
    with pytest.raises(RunError, match="exists already and is not empty"):
        rerun(whole.path, _other_run(tmp_path), store=store)


def test_a_rerun_keeps_to_the_channels_of_the_run(copied: RunFolder, store: Path, tmp_path: Path) -> None:
    data = copied.data()
    copied.write_data(data | {"mri": data["mri"] | {"channels": {"T1": "t1 mprage"}}})
    with pytest.raises(DataError, match="expected a DICOM folder where a series is chosen for T1"):
        rerun(copied.path, tmp_path / "again", store=store, workers=0)


def test_a_rerun_holds_the_lock_of_its_folder(whole: RunFolder, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    held = []

    def look(status: Status) -> None:
        held.append(RunFolder(out).lock.exists())

    rerun(whole.path, out, store=store, workers=0, monitor=look)
    assert held
    assert all(held)
    with locked(RunFolder(out).lock, "It"), pytest.raises(Locked, match="again is being trained by"):
        rerun(whole.path, out, store=store, workers=0)


def test_a_fold_is_repeated_and_a_cross_validation_is_not(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    out = train_folds(recipe, data, tmp_path / "cv", 3, fold=1, store=store, workers=0).run
    with pytest.raises(RunError, match="is a cross-validation; expected one run to repeat, such as its fold"):
        rerun(out, tmp_path / "again", store=store, workers=0)
    _, agreement = rerun(out / "fold-1", tmp_path / "again", store=store, workers=0)
    assert agreement is not None
    assert agreement.verdict == "identical"


def _other_run(tmp_path: Path) -> Path:
    other = RunFolder(tmp_path / "other")
    other.write_recipe(tiny_recipe(training__seed=9))
    other.write_split(9, {"mri": {}})
    other.write_data({})
    return other.path
