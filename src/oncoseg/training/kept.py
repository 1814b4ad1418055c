"""The kept weights, which are always those that the checkpoint at hand calls the best.

    model.safetensors          those of the last checkpoint's best epoch
    model-before.safetensors   the ones before them, for where the last checkpoint is damaged

New ones wait under another name until a checkpoint that names them by their hash is there. A kill between
leaves the old ones in place, and a repetition that comes out differently writes over those that wait.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncoseg.files import disk_errors, rename, sha256_of_file, write_bytes

BEFORE = "model-before.safetensors"
"""The name of the ones before."""

_WRONG = (
    "{path} does not hold the weights of {stage} epoch {epoch}, which this run kept as its best; expected "
    "those. "
)

LOST = _WRONG + "They are lost: what is kept from now on are the best weights of the epochs still to come."
"""Said where they were deleted or replaced."""

NONE_LEFT = (
    _WRONG
    + "They are lost, and no epoch is left to train, so that there is nothing to evaluate. Restore the "
    "file from a copy, add epochs to choose others from (oncoseg train --resume --out {run} --extend 10), or "
    "train again into a new folder."
)
"""Said where that happened to a finished run."""

RESTORED = _WRONG + "The last checkpoint holds the same weights; the file was written again from it."
"""Said where the best epoch is the last one."""


def offer(path: Path, content: bytes) -> str:
    """Write weights that wait for their checkpoint.

    Args:
        path: of the kept weights.
        content: a file of safetensors.

    Returns:
        The SHA-256 by which the checkpoint names them.

    Raises:
        RunError: the disk is full or the folder cannot be written; the kept ones are as they were.
    """
    write_bytes(_waiting(path), content)
    return hashlib.sha256(content).hexdigest()


def settle(path: Path, sha256: str | None) -> bool:
    """Put the weights that a checkpoint names in place; whether they are there.

    Args:
        path: of the kept weights.
        sha256: of those that the checkpoint names; None where it names none, as those of older runs do.

    Raises:
        RunError: the folder cannot be written.
    """
    waiting, before = _waiting(path), path.with_name(BEFORE)
    with disk_errors(path):
        if sha256 is None or _holds(path, sha256):
            return True
        if _holds(waiting, sha256):
            if path.is_file():
                rename(path, before)
            rename(waiting, path)
        elif _holds(before, sha256):
            path.unlink(missing_ok=True)  # of an epoch after that checkpoint
            rename(before, path)
    return _holds(path, sha256)


def are_there(path: Path, best: Mapping[str, Any]) -> bool:
    """Whether the kept weights are those of a checkpoint; see `settle`.

    Args:
        path: of the kept weights.
        best: of the checkpoint: empty where it names none, without a hash in older runs.
    """
    return settle(path, best.get("sha256")) and (not best or path.is_file())


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256


def _waiting(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
