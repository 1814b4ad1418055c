"""Locks between processes: a file that says who works on something, so that nobody else does.

The system frees the lock of a process that has died, so that on the same machine it is taken over at once.
Whether a process of another machine still lives cannot be asked: its lock stays until the file is deleted.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from oncoseg.errors import RunError
from oncoseg.files import disk_errors, is_running, machine

if sys.platform != "win32":
    import fcntl


class Locked(RunError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, what: str, being: str = "trained") -> Iterator[None]:
    """Hold a lock as long as the work lasts; its file is deleted afterwards.

    Args:
        path: of its file, in a folder that exists.
        what: begins the sentence about another process that holds it, as in `The run x`.
        being: what is done with it meanwhile.

    Raises:
        Locked: another process holds it.
        RunError: the file cannot be written.
    """
    with disk_errors(path):
        file, free = _opened(path)
    with file:
        if holder := _holder(file, free):
            raise Locked(
                f"{what} is being {being} by {holder}; expected nobody. Wait until that has ended. If it was "
                f"killed on another machine, delete {path}."
            )
        with disk_errors(path):
            file.truncate(0)
            file.write(f"{machine()} {os.getpid()}\n")
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _opened(path: Path) -> tuple[IO[str], bool | None]:
    """The lock's file, and whether it is ours now; None where the file system has no locks."""
    while True:
        file = path.open("a+", encoding="utf-8")
        free = _try_lock(file)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file, free
        file.close()  # its holder has deleted it meanwhile: there may be another


def _try_lock(file: IO[str]) -> bool | None:
    if sys.platform == "win32":
        return None  # what the file says has to do
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _holder(file: IO[str], free: bool | None) -> str:
    """Who works there, in words; empty for nobody."""
    file.seek(0)
    where, _, process = file.read().strip().partition(" ")
    if where and where != machine():
        return f"process {process} of another machine"
    alive = process.isdecimal() and int(process) != os.getpid() and is_running(int(process))
    return f"process {process or 'unknown'}" if free is False or (free is None and alive) else ""
