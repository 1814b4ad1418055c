import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.errors import DataError
from oncoseg.evaluate.leaks import default_cache, leaks_between, sides_of_folders, sides_of_run
from oncoseg.run_folder import RunFolder
from tiny import brats_case

GRID = (40, 36, 12)
"""Large enough for a picture."""


def brats(root: Path, *numbers: int) -> Path:
    for number in numbers:
        brats_case(root, number, grid=GRID)
    return root


def renamed(root: Path, old: int, new: int) -> None:
    """Give a case another patient's name, its files included."""
    before, after = (f"BraTS2021_{number:05d}" for number in (old, new))
    for file in (root / before).iterdir():
        file.rename(file.with_name(file.name.replace(before, after)))
    (root / before).rename(root / after)


def run_on(root: Path, data: Path, sides: Mapping[str, list[int]]) -> Path:
    run = RunFolder(root)
    root.mkdir()
    names = {part: [f"BraTS2021_{n:05d}" for n in numbers] for part, numbers in sides.items()}
    run.write_split(0, {"mri": {part: {name: [name] for name in of} for part, of in names.items()}})
    run.write_data({"mri": {"path": str(data), "layout": "brats"}})
    return root


def test_an_image_under_another_name_is_found_in_a_runs_sides(tmp_path: Path) -> None:
    data = brats(tmp_path / "data", 0, 1, 2)
    brats(tmp_path / "again", 1)
    renamed(tmp_path / "again", 1, 7)
    shutil.move(tmp_path / "again" / "BraTS2021_00007", data)
    run = run_on(tmp_path / "run", data, {"train": [0, 1], "validation": [2], "test": [7]})
    read: list[tuple[int, int]] = []
    compared: list[tuple[int, int]] = []
    found, problems = leaks_between(
        sides_of_run(run),
        workers=0,
        reading=lambda *done: read.append(done),
        comparing=lambda *done: compared.append(done),
    )
    assert [(leak.kind, leak.side_a, leak.case_a, leak.side_b, leak.case_b) for leak in found] == [
        ("identical-image", "train", "BraTS2021_00001", "test", "BraTS2021_00007")
    ]
    assert problems == []
    assert read == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert compared == [(n, 32) for n in range(1, 33)]  # 4 cases × 4 channels, each against two other sides


def test_data_sets_are_compared_with_each_other(tmp_path: Path) -> None:
    sides = {"train": brats(tmp_path / "one", 0, 1), "test": brats(tmp_path / "two", 2)}
    assert leaks_between(sides_of_folders(sides), workers=0) == ([], [])
    brats(tmp_path / "two", 1)
    found, _ = leaks_between(sides_of_folders(sides), workers=0)
    assert [leak.kind for leak in found] == ["same-patient"]
    with pytest.raises(DataError, match="two or more"):
        sides_of_folders({"train": tmp_path / "one"})
    with pytest.raises(DataError, match="train and test are the same folder"):
        sides_of_folders({"train": tmp_path / "one", "test": tmp_path / "two" / ".." / "one"})


def test_a_sequence_that_is_another_patients_other_sequence_is_found(tmp_path: Path) -> None:
    sides = {"train": brats(tmp_path / "one", 0), "test": brats(tmp_path / "two", 2)}
    flair = tmp_path / "one" / "BraTS2021_00000" / "BraTS2021_00000_flair.nii.gz"
    shutil.copy(flair, tmp_path / "two" / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz")
    (leak,), _ = leaks_between(sides_of_folders(sides), workers=0)
    assert leak.kind == "identical-image"
    assert "(FLAIR as T1)" in leak.message
    assert leaks_between(sides_of_folders(sides), "T1", workers=0) == ([], [])


def test_a_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    sides = {"train": brats(tmp_path / "one", 0), "test": brats(tmp_path / "two", 2)}
    (tmp_path / "two" / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz").unlink()
    _, problems = leaks_between(sides_of_folders(sides), "T1", workers=0)
    assert [(problem.kind, problem.case) for problem in problems] == [("missing-channel", "BraTS2021_00002")]
    with pytest.raises(DataError, match="No case has the channel 'CT'; expected one of T1, T1ce, T2, FLAIR"):
        leaks_between(sides_of_folders(sides), "CT", workers=0)


def test_the_command_ends_with_2_where_something_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = brats(tmp_path / "data", 0, 1, 2)
    run = str(run_on(tmp_path / "run", data, {"train": [0], "validation": [1], "test": [2]}))
    assert main(["leaks", run, "--workers", "0", "--no-cache"]) == 0
    assert not (tmp_path / "cache").exists()
    assert main(["leaks", run, "--workers", "0"]) == 0
    assert len(list(default_cache().glob("*/*.npz"))) == 3 * 4
    assert "No patient and no image was found on two sides" in capsys.readouterr().out
    shutil.copytree(data, tmp_path / "copy")
    both = [f"--side=a={data}", f"--side=b={tmp_path / 'copy'}"]
    assert main(["leaks", *both, "--workers", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("[same-patient]") == 3
    assert "3 times something is on two sides" in captured.err
    assert main(["leaks"]) == 2
    assert main(["leaks", run, *both]) == 2
    assert main(["leaks", *both, "--data", f"mri={data}"]) == 2
    assert capsys.readouterr().err.count("Expected either a run folder, with --data") == 3
    assert main(["leaks", run, "--data", f"ct={data}"]) == 2
    assert "Unknown modality 'ct'; this run has mri." in capsys.readouterr().err


def test_messages_name_no_paths(tmp_path: Path) -> None:
    sides = {"train": brats(tmp_path / "one", 0), "test": brats(tmp_path / "two", 0)}
    (leak,), _ = leaks_between(sides_of_folders(sides), workers=0)
    assert str(tmp_path) not in json.dumps(leak._asdict())
