"""Writing that never leaves half a file: failures are made with a real limit on the size of files."""

import contextlib
import errno
import json
import math
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from oncoseg import files
from oncoseg.errors import RunError
from oncoseg.files import (
    TEMPORARY_MARK,
    atomic_file,
    atomic_folder,
    new_folder,
    rename,
    sha256_of_file,
    sha256_of_json,
    write_bytes,
    write_json,
    write_text,
)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let every write beyond so many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "mask.nii.gz"
    with atomic_file(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".nii.gz")
        assert TEMPORARY_MARK in temporary.name
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["mask.nii.gz"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the n")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_folder(tmp_path / "case") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").touch()
        raise error
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "case") as temporary:
        (temporary / "file").touch()
    assert names(tmp_path) == ["case"]


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", dead_process)
        killed = files._temporary_name(tmp_path / "case"), files._temporary_name(tmp_path / "mask.nii")
        patch.setattr(files, "machine", lambda: "0" * 8)
        elsewhere = files._temporary_name(tmp_path / "case")
    running = files._temporary_name(tmp_path / "case")
    for folder in (killed[0], running, elsewhere):
        folder.mkdir()
        (folder / "half").touch()
    killed[1].touch()
    write_text(tmp_path / "a.txt", "")
    assert set(names(tmp_path)) == {running.name, elsewhere.name, "a.txt"}


def test_what_a_killed_process_left_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", dead_process)
        files._temporary_name(tmp_path / "recipe.json").touch()
    assert names(new_folder(tmp_path, "The run folder")) == []


def test_a_folders_files_are_on_the_disk_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(files, "_flush_to_disk", lambda path: flushed.append(path.name))
    with atomic_folder(tmp_path / "case") as temporary:
        (temporary / "inner").mkdir()
        for name in ("a", "inner/b"):
            (temporary / name).touch()
    assert sorted(flushed) == sorted(["a", "b", "inner", temporary.name, tmp_path.name])


def flushed(patch: pytest.MonkeyPatch, told: Callable[[Path], None]) -> None:
    """Call `told` with every file and folder that is flushed to the disk."""
    fsync = os.fsync

    def look(descriptor: int) -> None:
        told(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    patch.setattr(os, "fsync", look)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")
def test_names_are_on_the_disk_before_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[set[str]] = []  # in the folder, whenever it is flushed itself

    def told(path: Path) -> None:
        if path == tmp_path.resolve():
            names.append({one.name for one in tmp_path.iterdir()})

    flushed(monkeypatch, told)
    write_text(tmp_path / "file", "new")
    assert names.pop() == {"file"}
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "x").touch()
    assert names.pop() == {"file", "folder"}
    write_bytes(tmp_path / "other", b"")
    rename(tmp_path / "other", tmp_path / "file")
    assert names.pop() == {"file", "folder"}


def test_a_file_system_that_cannot_flush_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is asked of the disk, in order: `flush` of a file and `rename`, each with the file's number."""
    asked: list[tuple[str, int]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def flushed(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # of folders see above
            asked.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        return lambda path, target: (asked.append(("rename", path.stat().st_ino)), real(path, target))[1]

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed(replace))
    monkeypatch.setattr(Path, "rename", renamed(rename))
    return asked


def test_what_gets_its_name_is_on_the_disk_before(tmp_path: Path, disk: list[tuple[str, int]]) -> None:
    for write in (lambda path: write_text(path, "x"), lambda path: write_bytes(path, b"x")):
        path = tmp_path / "file"
        write(path)
        number = path.stat().st_ino
        assert disk == [("flush", number), ("rename", number)]
        disk.clear()
    with atomic_folder(tmp_path / "case") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_bytes(b"x")
    folder = tmp_path / "case"
    assert disk == [("flush", (folder / "inner" / "file").stat().st_ino), ("rename", folder.stat().st_ino)]


def test_the_first_of_two_equal_folders_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "case") as ours:
        (ours / "ours").touch()
        with atomic_folder(tmp_path / "case") as theirs:
            (theirs / "theirs").touch()
    assert names(tmp_path) == ["case"]
    assert names(tmp_path / "case") == ["theirs"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(RunError, match=r"Could not write .*big.txt: .*Free some space"):
        write_text(tmp_path / "big.txt", "x" * 5000)
    with largest_file(1000), pytest.raises(RunError, match="Could not write"):
        write_bytes(tmp_path / "big.bin", bytes(5000))
    with (
        largest_file(1000),
        pytest.raises(RunError, match="Could not write"),
        atomic_folder(tmp_path / "case") as temporary,
    ):
        (temporary / "file").write_bytes(bytes(5000))
    assert names(tmp_path) == []


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda: write_text(tmp_path / "file" / "a.txt", ""),
        lambda: new_folder(tmp_path / "file" / "run", "The run folder"),
        lambda: files.existing_folder(tmp_path / "file"),
    ):
        with pytest.raises(RunError, match="Could not write"):
            write()


def test_a_new_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "a" / "run", "The run folder").is_dir()
    assert new_folder(tmp_path / "a" / "run", "The run folder").is_dir()
    (tmp_path / "a" / "run" / ".hidden").touch()
    with pytest.raises(RunError, match=r"The run folder .* exists already and is not empty"):
        new_folder(tmp_path / "a" / "run", "The run folder")
    with pytest.raises(RunError, match="exists already"):
        new_folder(tmp_path / "a" / "run" / ".hidden", "The run folder")


def test_json_is_readable_and_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"α": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "α" in text
    assert json.loads(text) == {"α": [1, 2.5, None]}


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")  # FIPS 180-2
    (tmp_path / "b").write_bytes(bytes(files.HASH_BLOCK_BYTES + 1))
    assert sha256_of_file(tmp_path / "b") != sha256_of_file(tmp_path / "a")
    assert sha256_of_json({"a": 1, "b": [1]}) == sha256_of_json({"b": [1], "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})


def test_reading_errors_inside_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^no number$"), atomic_file(tmp_path / "a"):
        raise OSError("no number")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_number_becomes_null_at_any_depth(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [1.5, {"c": math.nan}], "d": (math.nan, "x", None), "e": np.float64("nan")}
    write_json(tmp_path / "x.json", value)
    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert read == {"a": None, "b": [1.5, {"c": None}], "d": [None, "x", None], "e": None}
