import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.demo import Demo, run_demo
from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder
from oncoseg.training.status import Status

TINY = {
    "preparation.slice_size": [32, 32],
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


def test_a_stopped_demo_goes_on(tmp_path: Path) -> None:
    def run(monitor: Callable[[Status], None]) -> Demo:
        cases = {"mri": 3, "ct": 3}
        return run_demo(tmp_path / "demo", cases=cases, changes=TINY, workers=0, monitor=monitor)

    def stop(status: Status) -> None:
        if status.stage == "joint":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    phantoms = sorted((tmp_path / "demo" / "phantoms").rglob("*.gz"))
    made = [path.stat().st_mtime_ns for path in phantoms]
    seen: list[str] = []
    assert run(lambda status: seen.append(status.stage)).report.is_file()
    assert set(seen) == {"joint"}  # the pretraining was not done again
    assert made == [path.stat().st_mtime_ns for path in phantoms]
    again = run(lambda status: seen.append("again"))
    assert again.report.is_file()
    assert "again" not in seen


def test_another_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(RunError, match="not a folder that the demo made"):
        run_demo(tmp_path)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path}-2" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]
