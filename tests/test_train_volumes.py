"""Training on windows of volumes, by the loop that trains on slices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from oncoseg.cli import main
from oncoseg.errors import RecipeError, RunError
from oncoseg.phantom.liver_ct import make_liver_ct
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import limits
from runs import assert_same, checkpoint_of, log_of, stopping_at
from tiny import brats_case
from together import together

CHANGES: dict[str, Any] = {
    "preparation.spatial_dims": 3,
    "preparation.spacing_mm": [1, 1, 1.5],
    "preparation.patch": [8, 8, 4],
    "modalities.mri.scaling": "volume-percentile",
    "network.arguments.features": [4, 8],
    "augmentation.flip_chances": [0.5, 0.5, 0.5],
    "training.pretrain_on": None,
    "training.max_epochs": 2,
    "training.batch_size": 2,
    "training.patches_per_case": 3,
    "training.device": "cpu",
    "training.precision": "32-true",
}
"""Of 2 training cases: 6 windows, 3 steps in an epoch."""

GRID = (14, 10, 12)


def volume_recipe(**changes: Any) -> Recipe:
    extra = {name.replace("__", "."): value for name, value in changes.items()}
    return get_recipe("unified-mri-ct").with_only(["mri"]).with_changes(CHANGES | extra)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("volumes")
    for number in range(4):
        brats_case(root, number, grid=GRID)
    return {"mri": root}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def whole(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(volume_recipe(), data, out, store=store, workers=0).finished
    return RunFolder(out)


def test_the_network_is_one_of_volumes(whole: RunFolder) -> None:
    kernels = [value for name, value in checkpoint_of(whole)["network"].items() if name.endswith("0.weight")]
    assert any(value.shape[2:] == (3, 3, 3) for value in kernels)
    assert [row["epoch"] for row in log_of(whole)] == ["1", "2"]
    assert whole.recipe().preparation.patch == (8, 8, 4)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_stopped_run_goes_on_as_if_it_never_was(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "run"
    assert not train(volume_recipe(), data, out, store=store, workers=0, monitor=stopping_at(step)).finished
    torch.manual_seed(7)
    assert resume(out, store=store, workers=0).finished
    assert_same(RunFolder(out), whole)


def test_what_it_takes_is_foretold_and_changes_nothing(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    left: list[tuple[int, int]] = []
    counted = limits.left
    monkeypatch.setattr(limits, "left", lambda training: (left.append(counted(training)), left[-1])[1])
    train(volume_recipe(), data, tmp_path / "run", store=store, workers=0, foretell=said.append)
    assert_same(RunFolder(tmp_path / "run"), whole)
    assert "of memory" in said[0]
    # 14×10×8 voxels are covered by 2·2·2 windows, in each of two epochs
    assert left == [(6, 16)]


def test_windows_that_do_not_fit_are_refused_before_they_are_tried(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(*given: Any, steps: int = limits.STEPS) -> limits._Tried:
        batch = given[4]
        assert batch == 1, "what does not fit is not tried"
        return limits._Tried(300e6, 1.0, 1.0, 1000, 1000, False)

    monkeypatch.setattr(limits, "_try", tried)
    monkeypatch.setattr(limits, "resident_bytes", lambda: 100e6)
    monkeypatch.setattr(limits, "free_memory_gib", lambda: 0.25)
    with pytest.raises(RunError, match=r"in batches of 2 windows will take about 0\.5 GiB of memory"):
        train(volume_recipe(), data, tmp_path / "run", store=store, workers=0, foretell=lambda _: None)


@pytest.mark.parametrize("missing", ["preparation__patch", "preparation__spacing_mm"])
def test_what_was_not_planned_is_said_before_anything_is_prepared(
    data: Mapping[str, Path], tmp_path: Path, missing: str
) -> None:
    with pytest.raises(RecipeError, match=missing.replace("__", r"\.")):
        train(volume_recipe(**{missing: None}), data, tmp_path / "run", store=tmp_path / "none", workers=0)
    assert not (tmp_path / "none").exists()


def begin(out: Path, data: Mapping[str, Path], store: Path) -> bool:
    return train(volume_recipe(), data, out, store=store, workers=0).finished


@pytest.mark.slow
def test_two_processes_train_as_one(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    assert together(2, begin, tmp_path / "run", data, store) == [True, True]
    ours, theirs = checkpoint_of(RunFolder(tmp_path / "run")), checkpoint_of(whole)
    assert ours["place"] == theirs["place"]
    first = [row["train_loss"] for row in (log_of(RunFolder(tmp_path / "run"))[0], log_of(whole)[0])]
    assert float(first[0]) == pytest.approx(float(first[1]), rel=1e-4)


@pytest.mark.slow
def test_the_command_learns_to_find_a_liver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From raw files, with fields as flags: a Dice far beyond that of marking everything."""
    make_liver_ct(tmp_path / "data", 4, 0, size=(48, 48, 24))
    arguments = {
        "--only": "ct",
        "--data": f"ct={tmp_path / 'data'}",
        "--out": str(tmp_path / "run"),
        "--store": str(tmp_path / "store"),
        "--workers": "0",
        "--preparation.spatial-dims": "3",
        "--preparation.spacing-mm": "[10,10,12]",
        "--preparation.patch": "[32,32,16]",
        "--modalities.ct.channels": '["CT"]',
        "--modalities.ct.scaling": "window",
        "--modalities.ct.window": "[-100,250]",
        "--network.arguments.features": "[8,16,32]",
        "--training.max-epochs": "15",
        "--training.pretrain-on": "none",
        "--training.batch-size": "2",
        "--training.learning-rate": "0.01",
        "--augmentation.elastic-chance": "0",
        "--training.device": "cpu",
        "--training.precision": "32-true",
    }
    flags = [part for pair in arguments.items() for part in pair]
    assert main(["train", "unified-mri-ct", *flags]) == 0
    rows = log_of(RunFolder(tmp_path / "run"))
    assert float(rows[-1]["train_dice"]) > 0.7
    assert float(RunFolder(tmp_path / "run").metrics()["best"]["macro_dice"]) > 0.6
