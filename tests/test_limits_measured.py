"""What is told in advance is what a training takes: each in a process of its own, from tiny to system S1."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from measured import LONG, LONG_SLICES, RECIPES, data_in

WITHIN = 0.25
"""By what share the foretold memory may be off."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_memory_is_foretold_within_a_quarter(name: str, tmp_path: Path) -> None:
    data_in(tmp_path)
    foretold, measured = (call(how, name, tmp_path) for how in ("foretold", "measured"))
    assert foretold["memory"] == pytest.approx(measured["memory"], rel=WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_the_memory_of_validating_a_long_case_is_foretold_within_a_quarter(name: str, tmp_path: Path) -> None:
    data_in(tmp_path, LONG_SLICES)
    call("prepared", name, tmp_path)
    foretold, measured = (call(how, name, tmp_path) for how in ("foretold", "measured"))
    assert foretold["memory"] == pytest.approx(measured["memory"], rel=WITHIN)


def call(how: str, name: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("measured.py")
    done = subprocess.run(
        [sys.executable, str(script), how, name, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    return dict(json.loads(done.stdout))


def environment() -> dict[str, str]:
    """Of this process, with the paths that pytest added."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
