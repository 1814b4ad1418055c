"""The log of a training run: `log.csv`, and TensorBoard's files where that extra is installed."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oncoseg.files import disk_errors, write_text
from oncoseg.run_folder import RunFolder
from oncoseg.training.sums import Validated


@dataclass(frozen=True)
class EpochRow:
    """One modality's figures after one epoch.

    Attributes:
        stage: `pretrain` or `joint`.
        epoch: from 1, within the stage.
        modality: a name in the recipe's modalities.
        train_loss: mean over the epoch's batches, of augmented slices.
        train_dice: pooled over the epoch's augmented slices, mean over classes, in [0, 1].
        validation_loss: of each case on its own, mean over cases.
        validation_dice: per patient on the prepared grid, mean over classes, then patients; see
            `sums.validate`. NaN if none has tumour.
        macro_dice: mean of the modalities' validation_dice but for NaN; decides which weights are kept.
        learning_rate: at the epoch's end.
        minutes: of computing since the run's start, all calls together.
        class_dice: of several classes each one's validation Dice, mean over patients.
        consistency: mean over the epoch's batches of scans without a mask, of all modalities, without its
            weight; None where nothing was learnt from such scans, and no column where that is so in all rows.
    """

    stage: str
    epoch: int
    modality: str
    train_loss: float
    train_dice: float
    validation_loss: float
    validation_dice: float
    macro_dice: float
    learning_rate: float
    minutes: float
    class_dice: Mapping[str, float] = field(default_factory=dict)
    consistency: float | None = None

    def figures(self) -> dict[str, Any]:
        """Column → value; each class has a column of its own, named as in `validation_dice/tumour`."""
        own = {
            name: value for name, value in asdict(self).items() if name not in ("class_dice", "consistency")
        }
        taught = {} if self.consistency is None else {"consistency": self.consistency}
        return own | taught | {f"validation_dice/{name}": value for name, value in self.class_dice.items()}


def rows_of(
    stage: str,
    epoch: int,
    trained: Mapping[str, tuple[float, float]],
    validated: Mapping[str, Validated],
    class_dice: Mapping[str, Mapping[str, float]],
    macro_dice: float,
    learning_rate: float,
    minutes: float,
    consistency: float | None = None,
) -> list[EpochRow]:
    """The rows of one epoch: `trained` is modality → loss and Dice, `class_dice` modality → class → Dice."""
    end = macro_dice, learning_rate, minutes
    return [
        EpochRow(stage, epoch, name, *figures, *validated[name][:2], *end, class_dice[name], consistency)
        for name, figures in trained.items()
    ]


class TrainingLog:
    """All rows so far. The file is rewritten whole and atomically, so that a resumed run has no doubles."""

    def __init__(self, run: RunFolder, rows: Sequence[dict[str, Any]] = (), *, writes: bool = True) -> None:
        """Take over the rows of a checkpoint; only one process of a training writes."""
        self._run, self._writes = run, writes
        self.rows = [EpochRow(**row) for row in rows]
        self._tensorboard = _events(run, first_step=self._steps() + 1) if writes else None

    def add(self, rows: Sequence[EpochRow]) -> None:
        """Add one epoch's rows and write both logs."""
        self.rows += rows
        if not self._writes:
            return
        text, figures = io.StringIO(), [row.figures() for row in self.rows]
        columns = dict.fromkeys(name for row in figures for name in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(figures)
        write_text(self._run.log, text.getvalue())
        if self._tensorboard is not None:
            for row in rows:
                for name in ("train_loss", "train_dice", "validation_loss", "validation_dice"):
                    self._tensorboard.add(f"{name}/{row.modality}", getattr(row, name), self._steps())
                for name, score in row.class_dice.items():
                    self._tensorboard.add(f"validation_dice/{row.modality}/{name}", score, self._steps())
            self._tensorboard.add("learning_rate", rows[0].learning_rate, self._steps())
            if rows[0].consistency is not None:
                self._tensorboard.add("consistency", rows[0].consistency, self._steps())
            self._tensorboard.flush()

    def _steps(self) -> int:
        return len({(row.stage, row.epoch) for row in self.rows})


class _Events:
    """One file of TensorBoard's, whose own writer would put the machine's name into the file's."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Begin a file; what others hold from `first_step` on is shown no more. Nothing is written yet.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder, self._file = folder, Path()
        self._fresh = io.BytesIO()
        self._records = RecordWriter(self._fresh)
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, tag: str, value: float, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))

    def flush(self) -> None:
        """Append what is new to the file.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        with disk_errors(self._folder):
            if not self._file.name:
                self._folder.mkdir(parents=True, exist_ok=True)
                # read in the order of their names: files of the same second are counted
                number = sum(1 for _ in self._folder.iterdir())
                name = f"events.out.tfevents.{int(time.time()):010d}.{number:06d}"
                self._file = self._folder / name
            with self._file.open("ab") as file:
                file.write(self._fresh.getvalue())
        self._fresh.seek(0)
        self._fresh.truncate()

    def _write(self, **given: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **given).SerializeToString())


def _events(run: RunFolder, first_step: int) -> _Events | None:
    try:
        return _Events(run.tensorboard, first_step)
    except ImportError:
        return None
