"""The benchmarks run; what they measure is never tested."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import oncoseg

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "row"),
    [
        ("startup.py", "oncoseg --help"),
        ("prepare_speed.py", "1,251 cases"),
        ("train.py", "small"),
        ("train_speed.py", "MONAI"),
        ("predict_speed.py", "matrix product"),
        ("predict_volume.py", "one layer"),
        ("metrics_speed.py", "MONAI"),
        ("evaluators_speed.py", "overlap alone"),
        ("dicom_speed.py", "oncoseg slabs"),
        ("networks.py", "Attention U-Net (S1)"),
    ],
)
def test_benchmark_runs_and_prints_its_table(script: str, row: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(oncoseg.__file__).parents[1])}
    command = [sys.executable, str(BENCHMARKS / script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("|") and row in line for line in done.stdout.splitlines())
