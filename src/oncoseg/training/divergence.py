"""Noticing a step that came to NaN or infinity, and saying which slices it was.

A GPU computes behind the program's back; asking for a loss would wait for it. So every step's figures are
sent to the host without waiting, and looked at once they are there: on a CPU before the weights are changed,
on a GPU a few steps later.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from oncoseg.errors import FailedRun
from oncoseg.recipe import Training
from oncoseg.sampler import Cases, ExampleId, ExampleIds
from oncoseg.training import shards

MOST_WAITING = 64
"""Steps whose figures may be under way; for the oldest of more, the program waits."""

NAMED_WEIGHTS = 10
"""So many of the weights that are not finite are named."""


class Arrival(Protocol):
    """Tells when what was sent is there, as a CUDA event does."""

    def query(self) -> bool:
        """Whether it is there."""

    def synchronize(self) -> None:
        """Wait until it is."""


class WatchedStep(NamedTuple):
    """One step of the optimiser; epoch and step count from 1."""

    stage: str
    epoch: int
    step: int
    learning_rate: float
    batches: Sequence[ExampleIds]


class Seen(NamedTuple):
    """A step with its figures.

    Attributes:
        step: which one.
        losses: modality and loss, of every batch or part of one.
        gradient_norm: before clipping.
        steps_later: how many steps had been begun after it when it was looked at.
    """

    step: WatchedStep
    losses: Sequence[tuple[str, float]]
    gradient_norm: float
    steps_later: int


class _Sent(NamedTuple):
    step: WatchedStep
    names: Sequence[str]
    figures: Tensor
    arrival: Arrival | None


def send(figures: Tensor) -> tuple[Tensor, Arrival | None]:
    """Copy figures to the host without waiting for the GPU; None where they are there at once."""
    if figures.device.type != "cuda":
        return figures, None
    there = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
    there.copy_(figures, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return there, event


class Watch:
    """The figures of the latest steps, until they were looked at."""

    def __init__(self, send: Callable[[Tensor], tuple[Tensor, Arrival | None]] = send) -> None:
        self._send = send
        self._waiting: deque[_Sent] = deque()
        self.latest: Seen | None = None

    def add(self, step: WatchedStep, losses: Sequence[tuple[str, Tensor]], gradient_norm: Tensor) -> None:
        """Send the figures of a step."""
        figures = torch.stack([*(loss for _, loss in losses), gradient_norm]).detach().double()
        self._waiting.append(_Sent(step, [name for name, _ in losses], *self._send(figures)))

    def first_bad(self, wait: bool = False) -> Seen | None:
        """The first step that is not finite, of those whose figures are there or, if wanted, of all."""
        while self._waiting:
            sent = self._waiting[0]
            if sent.arrival is not None and not sent.arrival.query():
                if not wait and len(self._waiting) <= MOST_WAITING:
                    return None
                sent.arrival.synchronize()
            self._waiting.popleft()
            *losses, norm = sent.figures.tolist()
            named = list(zip(sent.names, losses, strict=True))
            self.latest = Seen(sent.step, named, norm, len(self._waiting))
            if not sent.figures.isfinite().all():
                return self.latest
        return None


def is_finite(network: nn.Module) -> bool:
    """Whether all weights and buffers are; of weights that are shared out, this process's parts."""
    return not bad_weights(network) and not _not_finite(network.named_buffers())


def bad_weights(network: nn.Module) -> list[str]:
    """The names of those that are not finite; of weights that are shared out, in this process's parts."""
    return _not_finite(network.named_parameters())


def _not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, value in named if not bool(shards.local(value).isfinite().all())]


def report_of(
    seen: Seen,
    cases: Cases,
    network: nn.Module,
    weights: Sequence[str],
    training: Training,
    precision: str,
) -> dict[str, Any]:
    """What is known of a step, for `nan.json`; figures that are not finite are text.

    Args:
        seen: the step.
        cases: modality → the training cases.
        network: as it is now.
        weights: the names of its weights that are not finite.
        training: the recipe's settings.
        precision: in which was computed.
    """
    batches = [
        {name: [_slice(cases, name, ref) for ref in refs] for name, refs in batch.items()}
        for batch in seen.step.batches
    ]
    bad_slices = [
        one for batch in batches for slices in batch.values() for one in slices if not one["finite"]
    ]
    return {
        "stage": seen.step.stage,
        "epoch": seen.step.epoch,
        "step": seen.step.step,
        "noticed_steps_later": seen.steps_later,
        "losses": [{"modality": name, "loss": _figure(loss)} for name, loss in seen.losses],
        "gradient_norm": _figure(seen.gradient_norm),
        "learning_rate": seen.step.learning_rate,
        "precision": precision,
        "images_finite": not bad_slices,
        "weights_not_finite": {"count": len(weights), "first": weights[:NAMED_WEIGHTS]},
        "batch_statistics_finite": not _not_finite(network.named_buffers()),
        "batches": batches,
        "suggestion": _suggestion(bad_slices, training, precision),
    }


def error_of(report: Mapping[str, Any], folder: Path, has_checkpoint: bool) -> FailedRun:
    """What is said of a step of which `report_of` tells, and that is kept in a run folder.

    Args:
        report: of the step.
        folder: of the run.
        has_checkpoint: whether anything of before is kept there.
    """
    before = f"what was kept before stays in {folder}, and nan.json there names the slices"
    if not has_checkpoint:
        before = f"nothing was kept before, and nan.json in {folder} names the slices"
    return FailedRun(
        f"The loss or the weights became NaN or infinite at step {report['step']} of {report['stage']} epoch "
        f"{report['epoch']}; expected finite numbers. {report['suggestion']}; {before}."
    )


def _slice(cases: Cases, modality: str, ref: ExampleId) -> dict[str, Any]:
    """A slice, or where a window of a volume begins."""
    case = cases[modality][ref.case]
    images, _ = case.example(ref.position)
    return {"case": case.id, "slice": ref.position, "finite": bool(images.isfinite().all())}


def _figure(value: float) -> float | str:
    return value if -float("inf") < value < float("inf") else str(value)


def _suggestion(bad_slices: Sequence[Mapping[str, Any]], training: Training, precision: str) -> str:
    if bad_slices:
        case, number = bad_slices[0]["case"], bad_slices[0]["slice"]
        what = f"The window at {number}" if isinstance(number, tuple) else f"Slice {number}"
        return f"{what} of the prepared case {case} is not finite: mend its images, or leave it out"
    lower = f"a lower training.learning_rate than {training.learning_rate:g}"
    others = ["training.clip_norm 1"] if training.clip_norm is None else []
    others += ["training.precision 32-true"] if precision == "bf16-mixed" else []
    return f"Train into a new folder with {' or '.join([lower, *others])}"
