"""Environments for others' programs are made whole or not at all. No network is needed."""

import subprocess
from pathlib import Path

import pytest

import _environments
from _environments import Peer, Unavailable, folder_of, python_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def peer(tmp_path: Path, *installs: tuple[str, ...], driver: str = "") -> Peer:
    script = tmp_path / "driver.py"
    script.write_text(driver, encoding="utf-8")
    return Peer("Peer", "peer", "1.0", installs, script)


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = peer(tmp_path)
    python = python_of(mine)
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True).strip()
    assert Path(prefix) == folder_of(mine) == tmp_path / "cache" / "oncoseg-benchmarks" / folder_of(mine).name
    monkeypatch.setattr(_environments.venv, "create", None)  # would fail if it were called
    assert python_of(mine) == python_of(mine, install=False) == python


def test_what_cannot_be_installed_says_why_and_is_not_used(tmp_path: Path) -> None:
    lacking = peer(tmp_path, ("--no-index", "oncoseg-is-no-such-package"))
    with pytest.raises(Unavailable, match="No matching distribution found for oncoseg-is-no-such-package"):
        python_of(lacking)
    with pytest.raises(Unavailable, match=r"Peer 1\.0 is not installed in"):
        python_of(lacking, install=False)


def test_what_is_installed_but_does_not_work_is_not_used(tmp_path: Path) -> None:
    broken = peer(tmp_path, driver="import oncoseg_is_no_such_module")
    with pytest.raises(Unavailable, match="ModuleNotFoundError: No module named 'oncoseg_is_no_such_module'"):
        python_of(broken)
    with pytest.raises(Unavailable, match="is not installed"):
        python_of(broken, install=False)


def test_an_environment_of_something_else_is_not_used(tmp_path: Path) -> None:
    python_of(peer(tmp_path))
    other = peer(tmp_path, ("--no-index", "oncoseg-is-no-such-package"))
    assert folder_of(other) == folder_of(peer(tmp_path))
    with pytest.raises(Unavailable, match="is not installed"):
        python_of(other, install=False)
    with pytest.raises(Unavailable, match="No matching distribution"):
        python_of(other)
    assert [folder.name for folder in folder_of(other).parent.iterdir()] == [folder_of(other).name]
