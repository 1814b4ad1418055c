"""A choice of series for channels, from the command line to the evaluation of a run and back."""

from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.evaluate.leaks import sides_of_run
from oncoseg.run_folder import RunFolder
from test_dicom_folder import outline, series, square

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
