import csv
import math
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from oncoseg.run_folder import RunFolder
from oncoseg.training_log import EpochRow, TrainingLog

COLUMNS = (
    "stage,epoch,modality,train_loss,train_dice,validation_loss,validation_dice,"
    "macro_dice,learning_rate,minutes"
)


def row(epoch: int, modality: str = "mri", stage: str = "joint") -> EpochRow:
    return EpochRow(stage, epoch, modality, 0.5, 0.25, 0.125, math.nan, 0.75, 1e-4, 1.5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run folder without TensorBoard installed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    return RunFolder(tmp_path)


def test_one_row_per_epoch_and_modality(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([row(1, "ct", "pretrain")])
    log.add([row(1), row(1, "ct")])
    log.close()
    header, *lines = run.log.read_text().splitlines()
    assert header == COLUMNS
    assert lines[0] == "pretrain,1,ct,0.5,0.25,0.125,nan,0.75,0.0001,1.5"
    assert [line.split(",")[:3] for line in lines[1:]] == [["joint", "1", "mri"], ["joint", "1", "ct"]]


def test_going_on_from_a_checkpoint_has_no_doubles(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([row(1)])
    kept = [asdict(one) for one in log.rows]
    log.add([row(2)])  # after the checkpoint: lost
    again = TrainingLog(run, kept)
    again.add([row(2)])
    with run.log.open() as file:
        assert [int(one["epoch"]) for one in csv.DictReader(file)] == [1, 2]


def test_tensorboard_gets_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunFolder(tmp_path)
    log = TrainingLog(run)
    log.add([row(1), row(1, "ct")])
    log.close()
    assert len(list(run.tensorboard.iterdir())) == 1
    (events,) = run.tensorboard.iterdir()
    assert b"validation_dice/ct" in events.read_bytes()
