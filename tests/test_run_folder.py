import math
from collections.abc import Callable
from pathlib import Path

import pytest

from oncoseg.errors import RunError
from oncoseg.recipe import FORMAT_VERSION
from oncoseg.run_folder import RunFolder
from tiny import tiny_recipe


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write_recipe(tiny_recipe())
    folder.write_split(3, {"mri": {"train": {"P": ["P-0"]}}})
    folder.write_data({"mri": {"path": "somewhere"}})
    folder.write_metrics({"best": {"epoch": 2}})
    return folder


def test_what_is_written_is_read_again(run: RunFolder) -> None:
    assert run.recipe() == tiny_recipe()
    assert run.split() == {"mri": {"train": {"P": ["P-0"]}}}
    assert run.data() == {"mri": {"path": "somewhere"}}
    assert run.metrics() == {"best": {"epoch": 2}}


def test_metrics_are_json_where_a_score_is_not_known(run: RunFolder) -> None:
    run.write_metrics({"best": {"macro_dice": math.nan, "validation_dice": {"mri": math.nan, "ct": 0.5}}})
    assert "NaN" not in (run.path / "metrics.json").read_text()
    assert run.metrics()["best"] == {"macro_dice": None, "validation_dice": {"mri": None, "ct": 0.5}}


def test_a_folder_that_is_no_run_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a complete run folder: expected recipe\.json"):
        RunFolder(tmp_path).recipe()
    with pytest.raises(RunError, match=r"^nowhere does not exist; expected a run folder"):
        RunFolder(Path("nowhere")).recipe()


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1"])
def test_another_version_is_refused(run: RunFolder, version: object) -> None:
    text = (run.path / "recipe.json").read_text()
    old = f'"format_version": {FORMAT_VERSION}'
    assert old in text
    new = "" if version is None else f'"format_version": {version!r},'.replace("'", '"')
    (run.path / "recipe.json").write_text(text.replace(f"{old},", new))
    with pytest.raises(RunError, match=f"format version .*reads version {FORMAT_VERSION}"):
        run.recipe()


def test_a_recipe_that_does_not_fit_is_a_run_error(run: RunFolder) -> None:
    text = (run.path / "recipe.json").read_text()
    (run.path / "recipe.json").write_text(text.replace('"max_epochs": 2', '"max_epochs": -2'))
    with pytest.raises(RunError, match=r"holds a recipe that does not fit: .*max_epochs"):
        run.recipe()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"3", b'"text"', b"null"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("recipe.json", RunFolder.recipe),
        ("split.json", RunFolder.split),
        ("data.json", RunFolder.data),
        ("metrics.json", RunFolder.metrics),
    ],
)
def test_a_damaged_file_is_named(
    run: RunFolder, name: str, read: Callable[[RunFolder], object], content: bytes
) -> None:
    (run.path / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        read(run)


def test_a_split_without_modalities_is_damaged(run: RunFolder) -> None:
    (run.path / "split.json").write_text("{}")
    with pytest.raises(RunError, match=r"split\.json is damaged"):
        run.split()


def test_a_run_without_weights_says_how_to_go_on(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the weights of joint epoch 2, .* are gone.*--resume --out"):
        run.need_model()
    run.write_metrics({"best": {}})
    with pytest.raises(RunError, match=r"no joint epoch was finished.*--resume --out"):
        run.need_model()
    with pytest.raises(RunError, match="nowhere does not exist"):
        RunFolder(tmp_path / "nowhere").need_model()
    run.model.touch()
    assert run.need_model() == run.model
