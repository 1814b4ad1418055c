"""A DICOM folder on the command line: which series are which channel, and whose the cases are."""

import csv
from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.datasets import open_dataset
from oncoseg.evaluate.leaks import sides_of_run
from oncoseg.run_folder import RunFolder
from test_dicom_folder import outline, series, square
from tiny import brats_case

FLAGS = (
    *("--only", "mri", "--channel", "T1=sequence 17", "--channel", "T2=sequence 18"),
    *("--modalities.mri.missing", "substitute", "--modalities.mri.substitutes.FLAIR", "zeros"),
    *("--preparation.slice-size", "[16,16]", "--network.arguments.features", "[4,8]"),
    *("--training.max-epochs", "1", "--training.batch-size", "4", "--training.device", "cpu"),
    *("--training.precision", "32-true"),
)


def test_a_run_keeps_to_the_channels_that_were_chosen_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for patient in ("A", "B", "C", "D"):
        first = series(tmp_path / "in", "a", "sequence 17", patient=patient, grid=(16, 16, 4))
        series(tmp_path / "in", "b", "sequence 18", patient=patient, grid=(16, 16, 4))
        outline(tmp_path / "in", patient, first, {"GTV": [square(3, 8, 1), square(3, 8, 2)]}, patient)
    data, run = ["--data", f"mri={tmp_path / 'in'}"], tmp_path / "run"
    store = ["--store", str(tmp_path / "store")]
    assert main(["train", "unified-mri-ct", *data, *store, *FLAGS, "--out", str(run)]) == 0
    said = capsys.readouterr().err
    assert "mri: T1 as --channel says (4 series, number 3)." in said
    assert RunFolder(run).data()["mri"]["channels"] == {"T1": "sequence 17", "T2": "sequence 18"}
    assert RunFolder(run).data()["mri"]["substituted_channels"] == {"T1ce": "T1", "FLAIR": "zeros"}
    assert main(["evaluate", str(run)]) == 0  # without the choice no series would be any channel
    assert main(["train", "--resume", "--out", str(run), *store]) == 0
    assert sum(map(len, sides_of_run(run)[0].values())) == 4


def test_a_key_says_whose_the_cases_are_and_nothing_else_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for patient in ("Jane Doe", "John Doe"):
        series(tmp_path / "in", "a", "ax t1", patient=patient)
    key = tmp_path / "secret" / "key.csv"
    command = ["inspect", str(tmp_path / "in"), "--key-file"]
    assert main([*command, str(key)]) == 0
    printed = capsys.readouterr()
    assert "Doe" not in printed.out + printed.err
    assert key.stat().st_mode & 0o777 == 0o600
    with key.open() as file:
        rows = list(csv.DictReader(file))
    cases = {case.id: case for case in open_dataset(tmp_path / "in").cases}
    assert {row["patient_id"] for row in rows} == {"Jane Doe", "John Doe"}
    for row in rows:
        assert Path(row["first_image"]) == cases[row["case"]].images["T1"].files[0]
        assert row["patient_id"] in row["first_image"]  # the test's folders are named so
        assert row["patient"] == cases[row["case"]].patient
    for unfit, reason in ((key, "must be a new file"), (tmp_path / "in" / "key.csv", "must be a new file")):
        assert main([*command, str(unfit)]) == 2
        assert reason in capsys.readouterr().err
    brats_case(tmp_path / "brats", 1)
    assert main(["inspect", str(tmp_path / "brats"), "--key-file", str(tmp_path / "other.csv")]) == 2
    assert "expected a DICOM folder for --key-file" in capsys.readouterr().err
    assert not (tmp_path / "other.csv").exists()
