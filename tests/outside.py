"""Programs of others that judge or read our files; tests that need an absent one skip with a reason."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "dciodvfy": "apt install dicom3tools",
    "plastimatch": "apt install plastimatch",
    "segimage2itkimage": "pip install dcmqi",
}
"""Program → how to install it."""


def absent() -> list[str]:
    """Those that are not installed, each with the line that installs it."""
    return [f"{name} ({how})" for name, how in PROGRAMS.items() if _find(name) is None]


def run(name: str, *arguments: str | Path) -> str:
    """Run a program and give what it says; skips the test where the program is absent."""
    program = _find(name)
    if program is None:
        pytest.skip(f"{name} is not installed ({PROGRAMS[name]})")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=600
    )
    return done.stdout + done.stderr


def dicom_errors(path: Path) -> list[str]:
    """What dciodvfy finds wrong with a file."""
    said = run("dciodvfy", path)
    assert said, "dciodvfy says at least what kind of object it is"
    return [line for line in said.splitlines() if line.startswith("Error")]


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
