"""What a training will take, told before it begins: a few of its own steps are made and measured.

The steps are of the real network on the real slices, at first in small batches; only where those say that the
recipe's own batch fits is it tried as well. Nothing of them is kept, and training then begins as if they had
not been.
"""

import gc
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

import torch
from torch import Tensor

from oncoseg import limits
from oncoseg.errors import FailedRun, RunError
from oncoseg.limits import GIB, resident_bytes
from oncoseg.processes import free_memory_gib
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import Cases, read_ahead
from oncoseg.stopping import StopRequest
from oncoseg.store import Part, Prepared
from oncoseg.training import checkpoints
from oncoseg.training.loop import Training
from oncoseg.training.meter import Meter
from oncoseg.training.room import FULL
from oncoseg.training.stages import stages_of
from oncoseg.training.sums import VALIDATION_BATCH, validate

CAUTION = 1.25
"""The memory of a batch that is yet untried is taken to be so many times what smaller batches foretell."""

STEPS = 5
"""Of the recipe's own batch; the median of all but the first is told."""

CHECKPOINTS = 3
"""Lie in the run folder at a time, while a new one is written; and so many files of weights."""

SMALL_FILES_BYTES = 1_000_000
"""Recipe, split, logs."""


class Needs(NamedTuple):
    """What a training takes.

    Attributes:
        memory_bytes: at its peak: of this process, or of the GPU where there is one.
        on_gpu: which of the two.
        disk_bytes: of the run folder at its largest.
        step_seconds: of one batch.
        slice_seconds: of one slice in validation.
    """

    memory_bytes: float
    on_gpu: bool
    disk_bytes: float
    step_seconds: float
    slice_seconds: float

    def in_words(self, batches: int, validated_slices: int) -> str:
        """One line for the user.

        Args:
            batches: still to be computed.
            validated_slices: still to be computed in validation.
        """
        seconds = batches * self.step_seconds + validated_slices * self.slice_seconds
        kind = "GPU memory" if self.on_gpu else "memory"
        return limits.in_words(self.memory_bytes, self.disk_bytes, seconds, kind)


class _Tried(NamedTuple):
    """Measured at one size of batch."""

    memory_bytes: float
    step_seconds: float
    slice_seconds: float
    checkpoint_bytes: int
    model_bytes: int
    on_gpu: bool


def foresee(
    recipe: Recipe, cases: Cases, validation: Cases, unlabelled: Cases = MappingProxyType({})
) -> Needs | None:
    """Measure what training a recipe takes.

    Args:
        recipe: as it will be trained.
        cases: modality → those that are trained on.
        validation: modality → those that choose the weights.
        unlabelled: modality → those that are learnt from without a mask.

    Returns:
        None where it cannot be told: the system does not tell a process's memory, or the steps failed, of
        which training itself will say more.

    Raises:
        RunError: the recipe's batch does not fit into the memory; says which would.
    """
    before = resident_bytes()
    if before is None:
        return None
    each = len(recipe.modalities)
    size = max(1, recipe.training.batch_size // each) * each
    if size < recipe.training.batch_size and any(len(one.modalities) == 1 for one in stages_of(recipe)):
        size += each  # pretraining on one modality has the whole of it; measured together with the others
    least = each if recipe.preparation.spatial_dims == 3 else max(2, each)
    small = [least, 2 * least]
    found: dict[int, _Tried] = {}
    try:
        for batch in small:
            if batch < size:
                found[batch] = _try(recipe, cases, validation, unlabelled, batch, steps=2)
        _check_fits(recipe, found, size, before)
        last = found[size] = _try(recipe, cases, validation, unlabelled, size, STEPS)
    except _FailedError:
        return None
    except (RuntimeError, MemoryError) as error:
        if not limits.is_out_of_memory(error):
            raise
        raise FailedRun(_refused(recipe, size, max(found, default=0))) from error
    disk = CHECKPOINTS * (last.checkpoint_bytes + last.model_bytes) + SMALL_FILES_BYTES
    return Needs(last.memory_bytes, last.on_gpu, disk, last.step_seconds, last.slice_seconds)


def _refused(recipe: Recipe, size: int, fits: int) -> str:
    """Said where a trial was refused the memory for it; batches of `fits` were not."""
    advice = "take a smaller network, preparation.slice_size, augmentation.crop or preparation.patch"
    if fits:
        steps = recipe.training.accumulate * math.ceil(size / fits)
        advice = f"--training.batch-size {fits} --training.accumulate {steps} takes as many for a step"
    return (
        f"Training in batches of {size} {recipe.examples} takes more memory than there is, of which "
        f"{free_memory_gib():.1f} GiB are free now: {advice}."
    )


def check_disk(needs: Needs, run: RunFolder) -> None:
    """Check that the run folder's disk has room for it.

    Raises:
        RunError: it has not.
    """
    there = sum(file.stat().st_size for file in run.path.iterdir() if file.is_file())
    limits.check_disk(needs.disk_bytes - there, run.path, "The run folder")


class _FailedError(Exception):
    """The steps failed."""


class _Beginning:
    """As much of a case as validation computes at a time."""

    def __init__(self, case: Prepared) -> None:
        self._case, self.patient = case, case.patient

    def __len__(self) -> int:
        return len(self._first().images)

    def parts(self, at_once: int) -> Iterator[Iterable[Part]]:
        yield [self._first()]

    def _first(self) -> Part:
        return next(iter(next(self._case.parts(VALIDATION_BATCH))))


class _MadeUp:
    """A case of so many slices that have nothing in them but one row of tumour."""

    patient = "made up"

    def __init__(self, slices: int, size: Sequence[int]) -> None:
        self._slices, self._size = slices, size

    def __len__(self) -> int:
        return self._slices

    def parts(self, at_once: int) -> Iterator[Iterable[Part]]:
        starts = range(0, self._slices, at_once)
        yield (self._part(min(at_once, self._slices - start)) for start in starts)

    def _part(self, slices: int) -> Part:
        masks = torch.zeros(slices, *self._size, dtype=torch.uint8)
        masks[:, 0] = 1
        return Part(torch.zeros(slices, 1, *self._size), masks, (...,))


def _hold_longest(training: Training, recipe: Recipe, validation: Cases) -> None:
    """Let the loss of each modality's longest case take its memory, of made-up logits.

    That of a volume is taken window by window, which was tried already.
    """
    if recipe.preparation.spatial_dims == 3:
        return

    def made_up(images: Tensor) -> Tensor:
        shape = (len(images), len(recipe.classes), *images.shape[2:])
        return torch.randn(shape, device=training.device)

    for name, cases in validation.items():
        longest = cast(Prepared, _MadeUp(max(map(len, cases)), recipe.preparation.slice_size))
        validate([longest], lambda images: training.room.computed(made_up, images), training.losses[name])


def _try(
    recipe: Recipe, cases: Cases, validation: Cases, unlabelled: Cases, batch: int, steps: int
) -> _Tried:
    """Make some steps of a batch size, validate a few slices, and make up a checkpoint."""
    changes = {"training.batch_size": batch, "training.accumulate": 1, "training.compiled": False}
    smaller = recipe.with_changes(changes)
    longest = {name: [max(of_one, key=len)] for name, of_one in validation.items()}
    parts = {name: [_Beginning(of_one[0])] for name, of_one in longest.items()}
    with tempfile.TemporaryDirectory(prefix="oncoseg-") as folder:
        try:
            run = RunFolder(Path(folder))
            few = cast(Cases, parts)
            training = Training(run, smaller, cases, few, None, Meter(), unlabelled=unlabelled)
            on_gpu = training.device.type == "cuda"
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            seconds = _steps(training, steps)
            began = time.monotonic()
            training._validate(training.stages[training.stage])
            validated = time.monotonic() - began
            if steps == STEPS:
                _hold_longest(training, recipe, validation)
            checkpoint = len(checkpoints.encoded(training._state()))
            model = sum(value.nbytes for value in training.network.state_dict().values())
            memory = torch.cuda.max_memory_reserved() if on_gpu else (resident_bytes() or 0)
        except torch.OutOfMemoryError as error:
            raise FailedRun(FULL) from error
        except RunError as error:
            raise _FailedError from error
    slices = sum(len(one) for of_one in parts.values() for one in of_one)
    del training
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return _Tried(memory, statistics.median(seconds[1:]), validated / slices, checkpoint, model, on_gpu)


def _steps(training: Training, count: int) -> list[float]:
    """Make steps of the last stage, which has all modalities; seconds of each."""
    training.started, training.steps_done = time.monotonic(), 0
    training.stop = StopRequest()
    training.stage = len(training.stages) - 1
    stage = training.stages[training.stage]
    # longer, as schedules end with their stage, which may be of fewer steps
    training._set_up_optimiser(stage._replace(epochs=stage.epochs + count))
    training.network.train()
    few = (list(training._batches(stage, 0)[:count]) * count)[:count]
    ends = [time.monotonic()]
    for refs, batch in zip(few, read_ahead(training.cases, few), strict=True):
        training._train_step([(refs, batch)])
        training.partial.latest_loss()  # waits for the GPU
        ends.append(time.monotonic())
    return [end - before for before, end in itertools.pairwise(ends)]  # with waiting for slices


def left(training: Training) -> tuple[int, int]:
    """Batches, and slices of validation, that a training has yet to compute."""
    stages, now = training.stages, training.stage
    if now == len(stages):
        return 0, 0
    slices = {name: sum(map(len, cases)) for name, cases in training.validation.items()}
    of_epoch = [sum(slices[name] for name in stage.modalities) for stage in stages]
    to_come = sum(stage.epochs * count for stage, count in zip(stages[now:], of_epoch[now:], strict=True))
    batches = training._steps_left() * training.recipe.training.accumulate
    return batches, to_come - training.epoch * of_epoch[now]


def _check_fits(recipe: Recipe, found: Mapping[int, _Tried], size: int, before: float) -> None:
    """Foretell a larger batch's memory from two smaller ones', or from one and what nothing takes.

    Raises:
        RunError: there is not so much.
    """
    if not found:
        return
    each, accumulate = len(recipe.modalities), recipe.training.accumulate
    second, two = max(found.items())
    nothing = 0.0 if two.on_gpu else before
    memory = {0: nothing} | {batch: tried.memory_bytes for batch, tried in found.items()}
    first = sorted(memory)[-2]
    slope = (two.memory_bytes - memory[first]) / (second - first)
    foretold = two.memory_bytes + CAUTION * slope * (size - second)
    room = _room(two)
    if foretold <= room:
        return
    fits = second + int((room - two.memory_bytes) / (CAUTION * slope)) // each * each
    smaller = "network, preparation.slice_size or augmentation.crop"
    if recipe.preparation.spatial_dims == 3:
        smaller = "network or preparation.patch"
    advice = (
        f"--training.batch-size {fits} --training.accumulate {accumulate * math.ceil(size / fits)} takes as "
        f"many {recipe.examples} for a step"
        if fits >= each
        else f"take a smaller {smaller}"
    )
    raise FailedRun(
        f"Training in batches of {size} {recipe.examples} will take about {foretold / GIB:.1f} GiB of "
        f"{'GPU memory' if two.on_gpu else 'memory'}, but there are {room / GIB:.1f} GiB: {advice}."
    )


def _room(tried: _Tried) -> float:
    """The most that training may take."""
    if tried.on_gpu:
        free, _ = torch.cuda.mem_get_info()
        return float(free)
    return free_memory_gib() * GIB + (resident_bytes() or 0)
