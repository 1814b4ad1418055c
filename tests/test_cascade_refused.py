"""What is not trained as a cascade: other recipes, organs without a label, scans without masks, bad data."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oncoseg.cli import main
from oncoseg.errors import DataError, RecipeError
from oncoseg.phantom.liver_ct import make_liver_ct
from oncoseg.recipes import get_recipe
from oncoseg.train import train
from oncoseg.train_cascade import stages, train_cascade
from oncoseg.training.sources import Sources
from test_train_cascade import GRID, begin, liver_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("liver") / "data"
    make_liver_ct(root, 7, 1, size=GRID)
    return {"ct": root}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_a_single_stage_is_not_trained_with_a_cascades_recipe(
    data: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="of a cascade around liver"):
        train(liver_recipe(), data, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"expected cascade\.organ"):
        stages(get_recipe("residual-attention-liver"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cascade__organ": "kidney"}, "'kidney'; expected one of liver, tumour"),
        ({"cascade__organ": "Liver"}, "'Liver'; did you mean 'liver'"),
        ({"cascade__organ": "LIVER"}, "'LIVER'; did you mean 'liver'"),
        ({"classes": {"liver": ["Liver"], "tumour": ["tumour"]}}, "'Liver'; did you mean 'liver'"),
    ],
    ids=["unknown", "capital", "capitals", "class"],
)
def test_an_organ_without_a_label_is_refused(
    data: Mapping[str, Path], tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    """Else stage 1 would learn the tumour alone and call it the organ."""
    with pytest.raises(DataError, match=f"ct: no case has the label {message}"):
        begin(data, tmp_path / "store", tmp_path / "run", recipe=liver_recipe(**changes))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_an_organ_is_a_label_of_the_data_or_a_class(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    tumour = {"tumour": ["tumour"]}
    for number, changes in enumerate(
        [{"classes": tumour}, {"classes": {"any": ["*"]} | tumour, "cascade__organ": "any"}]
    ):
        recipe = liver_recipe(**changes, training__max_minutes=1e-9)
        assert "time budget" in begin(data, store, tmp_path / str(number), recipe=recipe).reason


def test_the_command_suggests_the_organ(
    data: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out", str(tmp_path / "run"), "--cascade.organ", "Liver", "--store", str(tmp_path / "store")]
    assert main(["train", "residual-attention-liver", "--data", f"ct={data['ct']}", *flags]) == 2
    assert "no case has the label 'Liver'; did you mean 'liver'?" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


LEARNS_WITHOUT = {"training.unlabelled.weight": 0.1, "training.average_decay": 0.99}
"""Fields of a recipe that learns from scans without a mask, too."""


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (LEARNS_WITHOUT, r"got training\.unlabelled\.weight\."),
        ({"split__labelled": 0.5}, r"got split\.labelled below 1\."),
        ({"cascade__first": LEARNS_WITHOUT}, r"got training\.unlabelled\.weight\."),
        ({}, r"got scans without masks \(--unlabelled\)\."),
    ],
    ids=["weight", "share", "of stage 1", "folder"],
)
def test_scans_without_masks_are_refused_before_anything(
    tmp_path: Path, changes: Mapping[str, Any], what: str
) -> None:
    """In its own words, though there is no data set to look into."""
    there = {"ct": tmp_path / "nowhere"}
    sources = Sources(there, unlabelled={} if changes else there)
    with pytest.raises(RecipeError, match=f"A cascade learns from masks only, .*{what} .*--cascade.organ"):
        train_cascade(liver_recipe(**changes), sources, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_too_few_patients_for_the_folds_leave_nothing(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="each of its 9 folds; got 5 under train and validation"):
        begin(data, store, tmp_path / "run", recipe=liver_recipe(cascade__folds=9))
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used_leave_nothing(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    shutil.copytree(data["ct"], tmp_path / "data")
    for path in (tmp_path / "data" / "imagesTr").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError):
        begin({"ct": tmp_path / "data"}, store, tmp_path / "run")
    assert not (tmp_path / "run").exists()
