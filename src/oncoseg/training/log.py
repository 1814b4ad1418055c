"""The log of a training run: `log.csv`, and TensorBoard's files where that extra is installed."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from oncoseg.files import write_text
from oncoseg.run_folder import RunFolder


@dataclass(frozen=True)
class EpochRow:
    """One modality's figures after one epoch.

    Attributes:
        stage: `pretrain` or `joint`.
        epoch: from 1, within the stage.
        modality: a name in the recipe's modalities.
        train_loss: mean over the epoch's batches, of augmented slices.
        train_dice: pooled over the epoch's augmented slices, in [0, 1].
        validation_loss: of each case on its own, mean over cases.
        validation_dice: per patient on the prepared grid, mean over patients; NaN if none has tumour.
        macro_dice: mean of the modalities' validation_dice but for NaN; decides which weights are kept.
        learning_rate: at the epoch's end.
        minutes: of computing since the run's start, all calls together.
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


def rows_of(
    stage: str,
    epoch: int,
    trained: Mapping[str, tuple[float, float]],
    validated: Mapping[str, tuple[float, float]],
    macro_dice: float,
    learning_rate: float,
    minutes: float,
) -> list[EpochRow]:
    """The rows of one epoch: `trained` and `validated` are modality → loss and Dice."""
    return [
        EpochRow(stage, epoch, name, *figures, *validated[name], macro_dice, learning_rate, minutes)
        for name, figures in trained.items()
    ]


class TrainingLog:
    """All rows so far. The file is rewritten whole and atomically, so that a resumed run has no doubles."""

    def __init__(self, run: RunFolder, rows: Sequence[dict[str, Any]] = (), *, writes: bool = True) -> None:
        """Take over the rows of a checkpoint; only one process of a training writes."""
        self._run, self._writes = run, writes
        self.rows = [EpochRow(**row) for row in rows]
        self._tensorboard = _tensorboard_writer(run, first_step=self._steps()) if writes else None

    def add(self, rows: Sequence[EpochRow]) -> None:
        """Add one epoch's rows and write both logs."""
        self.rows += rows
        if not self._writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        write_text(self._run.log, text.getvalue())
        if self._tensorboard is not None:
            for row in rows:
                for name in ("train_loss", "train_dice", "validation_loss", "validation_dice"):
                    self._tensorboard.add_scalar(f"{name}/{row.modality}", getattr(row, name), self._steps())
            self._tensorboard.add_scalar("learning_rate", rows[0].learning_rate, self._steps())
            self._tensorboard.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _steps(self) -> int:
        return len({(row.stage, row.epoch) for row in self.rows})


def _tensorboard_writer(run: RunFolder, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.tensorboard), purge_step=first_step + 1)
