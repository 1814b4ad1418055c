"""Locks between real processes: one holds, one waits, one dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import oncoseg
from oncoseg import locks
from oncoseg.locks import Locked, locked

HOLD = """
import sys
from pathlib import Path
from oncoseg.locks import locked
with locked(Path(sys.argv[1]), "It"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """Another process that holds a lock until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(oncoseg.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_process_holds_a_lock_until_it_has_done(tmp_path: Path) -> None:
    path = tmp_path / "training.lock"
    with holder(path) as other:
        with pytest.raises(Locked, match=rf"^The run is being trained by process {other.pid}; "):
            locked(path, "The run").__enter__()
        other.communicate("done\n")
    assert not path.exists()
    with locked(path, "The run"):
        assert path.read_text().split()[1] == str(os.getpid())
    assert not path.exists()


def test_a_lock_says_what_is_being_done(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.lock"
    with (
        locked(path, "The run x", "evaluated"),
        pytest.raises(Locked, match=r"^The run x is being evaluated by"),
    ):
        locked(path, "The run x", "evaluated").__enter__()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "training.lock"
    with holder(path) as other:
        other.kill()
    assert path.read_text().split()[1] == str(other.pid), "it could not clean up"
    with locked(path, "The run"), pytest.raises(Locked, match=f"process {os.getpid()};"):
        locked(path, "The run").__enter__()
    assert not path.exists()


def test_the_lock_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "training.lock"
    path.write_text("0123abcd 77\n")
    with pytest.raises(Locked, match=rf"process 77 of another machine.* delete {path}"):
        locked(path, "The run").__enter__()
    assert path.read_text() == "0123abcd 77\n"


def test_without_locks_of_the_file_system_the_processes_are_asked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.lock"
    with holder(path) as other:
        monkeypatch.setattr(locks, "_try_lock", lambda file: None)
        with pytest.raises(Locked, match=f"process {other.pid};"):
            locked(path, "The run").__enter__()
        other.kill()
        other.wait()
        with locked(path, "The run"):
            assert path.read_text().split()[1] == str(os.getpid())


def test_a_failure_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "It"):
        raise ZeroDivisionError
    assert not (tmp_path / "lock").exists()
