"""Checkpoints: whole or not there, the newest that is whole, and never code."""

import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from oncoseg import files
from oncoseg.errors import RunError
from oncoseg.training import checkpoints

CPU = torch.device("cpu")


class Killed(BaseException):
    pass


def number(path: Path, remark: Callable[[str], None] = lambda text: pytest.fail(text)) -> int | None:
    state = checkpoints.load(path, CPU, remark)
    return None if state is None else int(state["number"])


def save(path: Path, value: int) -> None:
    checkpoints.save(path, {"number": value, "weights": torch.full((3,), float(value))})


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert number(path) is None
    assert not checkpoints.exists(path)
    for value in range(3):
        save(path, value)
        assert number(path) == value
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint-before.pt"}
    assert checkpoints.read(tmp_path / "checkpoint-before.pt", CPU)["number"] == 1


@pytest.mark.parametrize("call", range(3))
def test_a_kill_between_any_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    path, calls = tmp_path / "checkpoint.pt", 0
    save(path, 0)
    save(path, 1)
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Killed):
        save(path, 2)
    monkeypatch.undo()
    assert number(path) == (1 if call == 0 else 2)
    save(path, 3)
    assert number(path) == 3
    assert checkpoints.read(tmp_path / "checkpoint-before.pt", CPU)["number"] == (1 if call == 0 else 2)


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "checkpoint.pt", dict[int, bytes]()
    save(path, 0)
    before, real = path.read_bytes(), os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):  # after the renaming
            return
        assert path.read_bytes() == before
        flushed[os.fstat(descriptor).st_ino] = os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    monkeypatch.setattr(os, "fsync", fsync)
    save(path, 1)
    assert flushed == {path.stat().st_ino: path.read_bytes()}


def every_bit(content: bytes) -> list[bytes]:
    places = range(0, len(content), max(1, len(content) // 40))
    return [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in places]


def test_any_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save(path, 0)
    save(path, 1)
    content, said = path.read_bytes(), []
    damaged = [*every_bit(content), content[:-1], content[:50], b"", content + b"x"]
    for bad in damaged:
        path.write_bytes(bad)
        assert number(path, said.append) == 0
    assert len(said) == len(damaged)
    assert all("checkpoint.pt is damaged" in text for text in said)


def test_the_one_that_was_gone_on_from_outlives_the_next_one(tmp_path: Path) -> None:
    path, said = tmp_path / "checkpoint.pt", []
    save(path, 0)
    save(path, 1)
    path.write_bytes(b"damaged")
    assert number(path, said.append) == 0
    save(path, 2)
    path.write_bytes(b"damaged, too")
    assert number(path, said.append) == 0
    assert len(said) == 2
    assert (tmp_path / "checkpoint-damaged.pt").read_bytes() == b"damaged, too"


def test_every_rename_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, replace = [], Path.replace
    save(tmp_path / "checkpoint.pt", 0)
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1])
    monkeypatch.setattr(
        files, "_flush_to_disk", lambda path: done.append("folder" if path.is_dir() else "file")
    )
    save(tmp_path / "checkpoint.pt", 1)
    assert done == ["file", "rename", "folder", "rename", "folder", "rename", "folder"]


class Evil:
    def __reduce__(self) -> Any:
        return (Path("evil").touch, ())


def test_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(path, {"x": Evil()})
    with pytest.raises(
        RunError, match=r"checkpoint.pt cannot be read \(UnpicklingError\)\. No other is left"
    ):
        number(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match="is damaged"):
        number(path)
    assert not Path("evil").exists()
