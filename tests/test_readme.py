"""What the README shows is run: its Python example, and that its commands are there."""

import re
import shlex
from pathlib import Path

import pytest

import oncoseg
from oncoseg import prepare as preparing
from oncoseg.cli import main
from tiny import tiny_data, tiny_recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    data = tiny_data(tmp_path / "tiny")
    (tmp_path / "data").mkdir()
    data["mri"].rename(tmp_path / "data" / "brats")
    data["ct"].rename(tmp_path / "data" / "lidc")
    tiny_data(tmp_path / "new", mri=1, ct=0)
    (tmp_path / "new" / "mri").rename(tmp_path / "new_patients")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # in this process: starting others would take most of the test's time
    monkeypatch.setattr(preparing, "available_processors", lambda: 1)
    monkeypatch.setattr(oncoseg, "get_recipe", lambda name: tiny_recipe(), raising=False)
    exec(example.replace('"training.max_epochs": 20', '"training.max_epochs": 1'), {})
    assert (tmp_path / "runs" / "first" / "report" / "index.html").is_file()
    assert (tmp_path / "masks" / "BraTS2021_00000.nii.gz").is_file()


def test_every_command_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
    shown = [line for _, block in blocks for line in block.splitlines() if line.startswith("oncoseg ")]
    assert len(shown) >= 8
    for line in shown:
        _, command, *words = shlex.split(line, comments=True)
        name = [unified for unified in words[:1] if unified in oncoseg.RECIPES]
        assert main([command, *name, "--help"]) == 0
        described = capsys.readouterr().out
        assert all(word in described for word in words if word.startswith("--"))
