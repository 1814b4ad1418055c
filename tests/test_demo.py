from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.demo import run_demo
from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder

TINY = {
    "preparation.slice_size": [16, 16],
    "network.arguments.features": [2, 4, 4],
    "training.pretrain_epochs": 1,
    "training.max_epochs": 1,
}


def test_the_whole_pipeline_runs_on_phantoms(tmp_path: Path) -> None:
    said: list[str] = []
    demo = run_demo(tmp_path / "demo", cases={"mri": 3, "ct": 3}, changes=TINY, workers=0, say=said.append)
    assert [line.split()[0] for line in said] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert RunFolder(demo.run).recipe().network.arguments["features"] == [2, 4, 4]
    assert (demo.evaluation / "summary.json").is_file()
    assert demo.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.suffixes for path in demo.predictions] == [[".nii", ".gz"]]


def test_an_existing_demo_folder_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="exists already"):
        run_demo(tmp_path)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"rm -r {tmp_path}" in capsys.readouterr().err
