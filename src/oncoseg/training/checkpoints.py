"""The state that a stopped training goes on from: the last two, each with the hash of its content.

    checkpoint.pt            the last one
    checkpoint-before.pt     the one before it, for where the last one is damaged

A file begins with a line of its own: a mark, and the SHA-256 of all that follows. It is written under a
temporary name, flushed to the disk and renamed, so that a kill at any moment leaves whole files only.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from oncoseg.errors import FailedRun, RunError
from oncoseg.files import disk_errors, rename, write_bytes

MARK = b"oncoseg checkpoint sha256 "
"""Begins every checkpoint."""

BEFORE = "checkpoint-before.pt"
"""The name of the one before the last."""

DAMAGED = "checkpoint-damaged.pt"
"""Where one lies that was passed over; it is never read again."""

UNFIT = (
    "The checkpoint {path} does not fit its recipe ({kind}); expected one that this run wrote. Delete it to "
    "start this run again, or train into a new folder."
)
"""Said where it does not."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Keep a state as the last one, and the last one as the one before.

    Raises:
        RunError: the disk is full or the folder cannot be written; both files are as they were.
    """
    content = encoded(state)
    _settle(path)
    write_bytes(_fresh(path), content)
    _settle(path)


def encoded(state: Mapping[str, Any]) -> bytes:
    """The content of a state's file."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    return MARK + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def load(path: Path, device: torch.device, remark: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest state that is whole; None where there is none at all.

    Args:
        path: of the last one.
        device: where its tensors go.
        remark: told, in a sentence, that a damaged one is passed over, or that the last one is gone.

    Raises:
        RunError: there are some, but all are damaged; or the folder cannot be written.
    """
    _settle(path)
    if not path.is_file() and path.with_name(BEFORE).is_file():
        remark(f"The checkpoint {path} is gone; expected it. Going on from the checkpoint before it.")
    there = [file for file in (path, path.with_name(BEFORE)) if file.is_file()]
    for file in there:
        try:
            state = read(file, device)
        except RunError as error:
            damaged = error
            if file is not there[-1]:
                remark(f"{error} Going on from the checkpoint before it.")
        else:
            if file is not there[0]:  # else the next `save` would keep the damaged one in place of this
                with disk_errors(path):
                    rename(there[0], path.with_name(DAMAGED))
            return state
    if there:
        names = " and ".join(file.name for file in there)
        raise FailedRun(f"{damaged} No other is left: delete {names} to start this run again.") from damaged
    return None


def exists(path: Path) -> bool:
    """Whether there is any state to go on from."""
    return any(file.is_file() for file in (_fresh(path), path, path.with_name(BEFORE)))


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read one checkpoint.

    Raises:
        RunError: it cannot be read, is no checkpoint, or its content is not what its hash says.
    """
    try:
        content = path.read_bytes()
        head, _, body = content.partition(b"\n")
        if head != MARK + hashlib.sha256(body).hexdigest().encode():
            raise RunError(f"The checkpoint {path} is damaged: its hash does not fit its content.")
        return dict(torch.load(io.BytesIO(body), map_location=device, weights_only=True))
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"The checkpoint {path} cannot be read ({type(error).__name__}).") from error


def _settle(path: Path) -> None:
    """Give a fresh checkpoint its name; also where a kill came before the last call could."""
    fresh = _fresh(path)
    with disk_errors(path):
        if fresh.is_file():
            if path.is_file():
                rename(path, path.with_name(BEFORE))
            rename(fresh, path)


def _fresh(path: Path) -> Path:
    """Where a whole new checkpoint lies until it has its name."""
    return path.with_name(f"{path.name}.new")
