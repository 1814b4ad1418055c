import csv
import math
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from oncoseg.run_folder import RunFolder
from oncoseg.training.log import EpochRow, TrainingLog

COLUMNS = (
    "stage,epoch,modality,train_loss,train_dice,validation_loss,validation_dice,"
    "macro_dice,learning_rate,minutes"
)


def row(epoch: int, modality: str = "mri", stage: str = "joint") -> EpochRow:
    return EpochRow(stage, epoch, modality, 0.5, 0.25, 0.125, math.nan, 0.75, 1e-4, 1.5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run folder without TensorBoard installed."""
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    return RunFolder(tmp_path)


def test_one_row_per_epoch_and_modality(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([row(1, "ct", "pretrain")])
    log.add([row(1), row(1, "ct")])
    header, *lines = run.log.read_text().splitlines()
    assert header == COLUMNS
    assert lines[0] == "pretrain,1,ct,0.5,0.25,0.125,nan,0.75,0.0001,1.5"
    assert [line.split(",")[:3] for line in lines[1:]] == [["joint", "1", "mri"], ["joint", "1", "ct"]]


def test_each_of_several_classes_has_a_column(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([replace(row(1), class_dice={"liver": 0.875, "tumour": math.nan})])
    log = TrainingLog(run, [asdict(one) for one in log.rows])
    log.add([replace(row(2), class_dice={"liver": 1.0, "tumour": 0.125})])
    header, *lines = run.log.read_text().splitlines()
    assert header == f"{COLUMNS},validation_dice/liver,validation_dice/tumour"
    assert [line.split(",")[-2:] for line in lines] == [["0.875", "nan"], ["1.0", "0.125"]]


def test_the_consistency_has_a_column_where_there_is_any(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([row(1, stage="pretrain")])
    assert run.log.read_text().splitlines()[0] == COLUMNS
    log.add([replace(row(1), consistency=0.125)])
    header, pretraining, joint = run.log.read_text().splitlines()
    assert header == f"{COLUMNS},consistency"
    assert (pretraining.split(",")[-1], joint.split(",")[-1]) == ("", "0.125")


def test_going_on_from_a_checkpoint_has_no_doubles(run: RunFolder) -> None:
    log = TrainingLog(run)
    log.add([row(1)])
    kept = [asdict(one) for one in log.rows]
    log.add([row(2)])  # after the checkpoint: lost
    again = TrainingLog(run, kept)
    again.add([row(2)])
    with run.log.open() as file:
        assert [int(one["epoch"]) for one in csv.DictReader(file)] == [1, 2]


def shown(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: tag → every step with its value."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.tensorboard)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: sorted({(one.step, one.value) for one in events.Scalars(tag)}) for tag in tags}


def test_tensorboard_gets_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TrainingLog(RunFolder(tmp_path))
    pretraining = EpochRow("pretrain", 1, "ct", 0.5, 0.25, 0.75, 0.125, 0.125, 2.0, 1.5)
    mri = EpochRow("joint", 1, "mri", 1.5, 1.25, 1.75, 1.125, 0.375, 4.0, 1.5, consistency=0.0625)
    each = {"liver": 3.0, "tumour": 1.25}
    ct = EpochRow("joint", 1, "ct", 2.5, 2.25, 2.75, 2.125, 0.375, 4.0, 1.5, each, 0.0625)
    log.add([pretraining])
    log.add([mri, ct])
    # epochs are counted through both stages
    assert shown(RunFolder(tmp_path)) == {
        "train_loss/ct": [(1, 0.5), (2, 2.5)],
        "train_dice/ct": [(1, 0.25), (2, 2.25)],
        "validation_loss/ct": [(1, 0.75), (2, 2.75)],
        "validation_dice/ct": [(1, 0.125), (2, 2.125)],
        "validation_dice/ct/liver": [(2, 3.0)],
        "validation_dice/ct/tumour": [(2, 1.25)],
        "train_loss/mri": [(2, 1.5)],
        "train_dice/mri": [(2, 1.25)],
        "validation_loss/mri": [(2, 1.75)],
        "validation_dice/mri": [(2, 1.125)],
        "learning_rate": [(1, 2.0), (2, 4.0)],
        "consistency": [(2, 0.0625)],
    }


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunFolder(tmp_path)
    log = TrainingLog(run)
    log.add([row(1)])
    kept = [asdict(one) for one in log.rows]
    log.add([replace(row(2), train_loss=0.75)])
    log.add([replace(row(3), train_loss=0.875)])
    (events,) = run.tensorboard.iterdir()
    events.rename(events.with_name("events.out.tfevents.0"))  # of an earlier second than what follows
    again = TrainingLog(run, kept)
    again.add([replace(row(2), train_loss=0.625)])
    assert shown(run)["train_loss/mri"] == [(1, 0.5), (2, 0.625)]


def test_files_of_one_second_are_read_in_the_order_in_which_they_were_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    run, kept = RunFolder(tmp_path), []
    monkeypatch.setattr(time, "time", lambda: 1e9)
    for loss in (0.75, 0.5, 0.25):
        log = TrainingLog(run, kept)
        log.add([replace(row(1), train_loss=loss)])
    assert len(list(run.tensorboard.iterdir())) == 3
    assert shown(run)["train_loss/mri"] == [(1, 0.25)]
