"""The code on docs/dicom.md runs."""

import re
from pathlib import Path

import pytest

from dicom_files import numbered, slices, write

PAGE = Path(__file__).parents[1] / "docs" / "dicom.md"


def test_the_code_on_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write(slices(numbered()), tmp_path / "ct")
    write(
        slices(numbered(), name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "scout"
    )
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"folder": tmp_path}
    exec(code, names)
    volume, scout, guess = capsys.readouterr().out.splitlines()
    assert volume.startswith("3 CT (4, 5, 6)")
    assert scout == "localiser 6 single slices that plan a scan, no volume"
    assert guess.endswith("its modality is CT")
