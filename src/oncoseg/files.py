"""Writing that never leaves half a file behind, and the hashes that make a store content-addressed."""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oncoseg.errors import RunError

HASH_BLOCK_BYTES = 1 << 20
"""How much of a file is read at a time while hashing."""

TEMPORARY_MARK = ".partial-"
"""Begins the name of every unfinished file or folder, so that leftovers can be recognised.

After it come the machine (hashed) and the process that write it, a random part, and the final name.
"""

LARGEST_JSON_BYTES = 64 << 20
"""No JSON file is read that is larger: the index of a hundred thousand cases has a third of it."""

SYNTHETIC_NOTE = "SYNTHETIC.txt"
"""A file of this name says that the images in and below its folder were made up and show no patient."""


SYNTHETIC_SENTENCE = "These are synthetic phantoms: the figures say nothing about patients."
"""Stands with every table that phantoms have a part in."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the suffixes of `path`, because writers choose their format by them.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    temporary = _temporary_name(path)
    with disk_errors(path), _removed_on_failure(temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        yield temporary
        _flush_to_disk(temporary)
        rename(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` on success, delete it on failure.

    If another process has put `path` there meanwhile, its folder stays and ours is dropped: only
    for content-addressed folders, where both hold the same.
    """
    temporary = _temporary_name(path)
    with disk_errors(path), _removed_on_failure(temporary):
        temporary.mkdir(parents=True)
        remove_leftovers(path.parent)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        for folder in (temporary, *temporary.rglob("*")):
            if folder.is_dir():
                _flush_to_disk(folder)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(temporary)
        _flush_to_disk(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN becomes null."""
    write_text(path, json.dumps(without_nan(value), indent=2, ensure_ascii=False) + "\n")


def without_nan(value: Any) -> Any:
    """The value as JSON can hold it, which has no NaN: None in its place, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file that may come from anywhere.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, larger than `LARGEST_JSON_BYTES`, no JSON, or nested too deeply.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(LARGEST_JSON_BYTES + 1)
    if len(data) > LARGEST_JSON_BYTES:
        raise ValueError(f"it is larger than {LARGEST_JSON_BYTES >> 20} MiB")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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


def user_cache() -> Path:
    """Where this program keeps what it can make again: in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oncoseg"


def existing_folder(path: Path) -> Path:
    """Make `path` if it is not there.

    Raises:
        RunError: it cannot be made.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def new_folder(path: Path, what: str) -> Path:
    """Make `path`, which must not exist yet or be empty, leftovers of a killed process aside.

    Raises:
        RunError: the folder exists and holds something.
    """
    remove_leftovers(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{what} {path} exists already and is not empty; expected a new or empty folder. "
            "Choose another name, or delete it first."
        )
    return existing_folder(path)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Delete a new folder again where the work that was to fill it fails or is interrupted before."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            folder.rmdir()
        raise


@contextlib.contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """Give a folder among the system's temporary ones that only this user can read; delete it at the end.

    Those that killed processes left are deleted, too: they may hold images of patients.
    """
    remove_leftovers(Path(tempfile.gettempdir()))
    prefix = f"{TEMPORARY_MARK}{machine()}-{os.getpid()}-{what}-"
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files and folders in `folder` whose process on this machine was killed."""
    if not folder.is_dir():
        return
    pattern = re.compile(rf"{re.escape(TEMPORARY_MARK)}{machine()}-(\d+)-")
    for path in folder.iterdir():
        owner = pattern.match(path.name)
        if owner and not is_running(int(owner[1])):
            _remove(path)


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
            "you may write to, then run the same command again (a training with --resume); nothing "
            "half-written was left."
        ) from error


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_MARK}{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")


@functools.cache
def machine() -> str:
    """Stands for this machine: on a shared disk, another's processes cannot be asked after."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_running(process: int) -> bool:
    """Whether a process of this machine lives; also where it cannot be asked after."""
    if os.name != "posix":
        return True  # cannot be asked elsewhere without ending it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # somebody else's
    return True


def rename(path: Path, new: Path) -> None:
    """Rename a file over another one beside it, so that a power cut after this does not undo it."""
    path.replace(new)
    _flush_to_disk(new.parent)


def _flush_to_disk(path: Path) -> None:
    """Write a file's content, or the names in a folder, to the disk itself."""
    if os.name != "posix" and path.is_dir():
        return  # cannot be opened elsewhere
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems, such as of networks, do not take it of folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
