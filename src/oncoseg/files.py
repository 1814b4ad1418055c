"""Writing that never leaves half a file behind, and the hashes that make a store content-addressed."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oncoseg.errors import RunError

HASH_BLOCK_BYTES = 1 << 20
"""How much of a file is read at a time while hashing."""

TEMPORARY_MARK = ".partial-"
"""Part of the name of every unfinished file or folder, so that leftovers can be recognised."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the suffixes of `path`, because writers choose their format by them.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    with disk_errors(path), _removed_on_failure(temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` on success, delete it on failure.

    If another process has put `path` there meanwhile, its folder stays and ours is dropped: only
    for content-addressed folders, where both hold the same.
    """
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    with disk_errors(path), _removed_on_failure(temporary):
        temporary.mkdir(parents=True)
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically.

    Libraries that write through C or Rust report a full disk as an error of their own; what they make
    goes through here, where it becomes a sentence.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def existing_folder(path: Path) -> Path:
    """Make `path` if it is not there.

    Raises:
        RunError: it cannot be made.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def new_folder(path: Path, what: str) -> Path:
    """Make `path`, which must not exist yet or be empty.

    Raises:
        RunError: the folder exists and holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{what} {path} exists already and is not empty; expected a new or empty folder. "
            "Choose another name, or delete it first."
        )
    return existing_folder(path)


def sha256_of_file(path: Path) -> str:
    """Hash a file's content, reading it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hash a JSON-able value independently of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a system's error while writing `path` into a sentence.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise
        raise RunError(
            f"Could not write {path}: {error.strerror}. Free some space or choose a folder that "
            "you may write to, then run the same command again; nothing half-written was left."
        ) from error


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
