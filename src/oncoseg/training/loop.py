"""The loop over stages, epochs and batches.

Every random choice is drawn from (seed, stage, epoch, batch), so that going on from a checkpoint
sees the same slices, augmented in the same way, as a run that was never stopped.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor

from oncoseg import hardware, losses, models
from oncoseg.augment import Strengths, augment
from oncoseg.errors import RunError
from oncoseg.files import write_bytes
from oncoseg.logits import Supervised
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import Batch, Cases, SliceId, epoch_batches, joined, read_ahead
from oncoseg.stopping import stop_requests
from oncoseg.store import PreparedCase
from oncoseg.training import checkpoints, optimisers, schedules
from oncoseg.training.averages import AverageWeights
from oncoseg.training.divergence import Refs, Seen, Watch, WatchedStep, is_finite, report_of
from oncoseg.training.log import EpochRow, TrainingLog
from oncoseg.training.meter import Meter
from oncoseg.training.pieces import IN_PARTS, NOT_ONE_SLICE, Piece, pieces_of
from oncoseg.training.record import Record
from oncoseg.training.stages import Stage, stages_of
from oncoseg.training.sums import EpochSums, mean_of_known, validate

CHECKPOINT_MINUTES = 5.0
"""A kill -9 costs at most this much training."""


GROUPS: Mapping[str, Callable[[PreparedCase], str | None]] = {
    "class": lambda case: case.target,
    "site": lambda case: case.site,
}
"""How `training.balance` groups cases; those of which nothing is known are a group, too."""


class Status(NamedTuple):
    """Where training is, for showing progress; `validated` once an epoch's own scores are there."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float
    scores: Mapping[str, float]
    validated: bool = False


class Outcome(NamedTuple):
    """How a call of `train` ended."""

    run: Path
    finished: bool
    reason: str


def losses_of(recipe: Recipe) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Modality → its loss of logits and masks."""
    return {
        name: losses.build(modality.loss.name, modality.loss.arguments, len(recipe.classes))
        for name, modality in recipe.modalities.items()
    }


def optimiser_of(recipe: Recipe, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser of some parameters."""
    training = recipe.training
    chosen = training.optimiser
    return optimisers.build(
        chosen.name, parameters, training.learning_rate, training.weight_decay, chosen.arguments
    )


class _Stopped(Exception):
    """Training was asked to stop, or its time is over; the text says which."""


class Training:
    """The network, its optimiser, and where the loop is."""

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        cases: Cases,
        validation: Cases,
        monitor: Callable[[Status], None] | None,
        meter: Meter,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        hardware.tune_allocator()
        settings = recipe.training
        self.run, self.recipe, self.cases, self.validation = run, recipe, cases, validation
        self.monitor, self.entered = monitor, meter.entered
        self.device = hardware.choose_device(settings.device)
        self.precision = hardware.choose_precision(settings.precision, self.device)
        accelerator = "cuda" if self.device.type == "cuda" else "cpu"
        self.fabric = Fabric(accelerator=accelerator, devices=1, precision=cast(Any, self.precision))
        torch.manual_seed(settings.seed)
        network = models.build(
            recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments
        )
        self.layout = hardware.training_layout(self.precision, self.device)
        self.network = self.fabric.setup_module(hardware.in_layout(network, self.layout))
        decay = settings.average_decay
        self.average = None if decay is None else AverageWeights(self.network, decay)
        self.stages = stages_of(recipe)
        self.losses = losses_of(recipe)
        self.strengths = Strengths(**recipe.augmentation.model_dump())
        self.stage, self.epoch, self.step = 0, 0, 0
        self.best: dict[str, Any] = {}
        self.epochs_without_better = 0
        self.scores: dict[str, float] = {}
        self.minutes_before = 0.0
        self.optimiser_state: dict[str, Any] | None = None
        self.partial = EpochSums()
        self.log = TrainingLog(run)
        self.record = Record(run, recipe, meter)
        self.watch = Watch()
        self.warn = warn
        self.pieces = 1

    # the loop -------------------------------------------------------------------------------

    def go(self) -> Outcome:
        """Train until the end, the budget or a request to stop."""
        self.started = self.saved = time.monotonic()
        if self.stage == len(self.stages):
            if not self.run.is_finished():  # killed after the last checkpoint
                self._save_metrics(finished=True)
            return Outcome(self.run.path, True, "all epochs were done before")
        self.steps_done = 0
        self.record.begin(self._place(), self.precision)
        finished, reason = True, "all epochs are done"
        with contextlib.closing(self.log), stop_requests() as self.stop:
            try:
                self._train_stages()
            except _Stopped as stopped:
                finished, reason = False, str(stopped)
            self._save_checkpoint()
            self._save_metrics(finished)
            self.record.keep(self._place(), reason)
        return Outcome(self.run.path, finished, reason)

    def _train_stages(self) -> None:
        for stage in self.stages[self.stage :]:
            self._set_up_optimiser(stage)
            while self.epoch < stage.epochs and not self._out_of_patience():
                self._train_epoch(stage)
                self._finish_epoch(stage)
            self.stage, self.epoch, self.epochs_without_better = self.stage + 1, 0, 0

    def _train_epoch(self, stage: Stage) -> None:
        """Train the rest of the present epoch."""
        each, batches = self.recipe.training.accumulate, self._batches(stage, self.epoch)
        steps = math.ceil(len(batches) / each)
        self.network.train()
        ahead = read_ahead(self.cases, batches[self.step * each :])
        while group := list(itertools.islice(ahead, each)):
            self._train_step(group, batches[self.step * each :][: len(group)])
            self.step += 1
            self.steps_done += 1
            self._tell_monitor(stage, steps)
            self._stop_if_asked()
            if time.monotonic() - self.saved > CHECKPOINT_MINUTES * 60:
                self._save_checkpoint()

    def _train_step(self, group: Sequence[Batch], refs: Sequence[Refs]) -> None:
        """One step of the optimiser, by the mean gradient of one or more batches."""
        sums = self._gradients(group)
        norm = self._clip()
        self.partial.join(sums)
        place = (self.stages[self.stage].name, self.epoch + 1, self.step + 1)
        self.watch.add(WatchedStep(*place, self.schedule.rate, refs), sums.losses(), norm)
        self._stop_if_diverged(self.watch.first_bad())
        self.optimiser.step()
        self.schedule.after_step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.after_step(self.network)

    def _clip(self) -> Tensor:
        """Bound the norm of the gradient, if wanted; gives what it was before."""
        if (norm := self.recipe.training.clip_norm) is None:
            grads = [one.grad for one in self.network.parameters() if one.grad is not None]
            return torch.nn.utils.get_total_norm(grads)
        # its own check would wait for the GPU at every step; `Watch` does not
        found = self.fabric.clip_gradients(
            self.network, self.optimiser, max_norm=norm, error_if_nonfinite=False
        )
        return cast(Tensor, found)

    def _gradients(self, group: Sequence[Batch]) -> EpochSums:
        """The mean gradient of some batches; where the GPU's memory does not hold one, in parts of it."""
        while True:
            with contextlib.suppress(torch.OutOfMemoryError):
                return self._gradients_at_once(group)
            self._halve(group)  # what the failed try held is free by now

    def _gradients_at_once(self, group: Sequence[Batch]) -> EpochSums:
        sums = EpochSums()
        for number, batch in enumerate(group):
            seed = self._seed_of_batch(number)
            images, masks, parts = self._augmented(batch, seed)
            torch.manual_seed(seed + 1)
            for piece in pieces_of(parts, self.pieces):
                self._backward(images, masks, piece, len(group), sums)
        return sums

    def _backward(self, images: Tensor, masks: Tensor, piece: Piece, batches: int, sums: EpochSums) -> None:
        """Add the gradient of a part of a batch."""
        if piece.rows is not None:
            images, masks = images[piece.rows].contiguous(memory_format=self.layout), masks[piece.rows]
        output = self.network(images)
        heads = output.weighted() if isinstance(output, Supervised) else [(1.0, output)]
        logits, loss = heads[0][1], torch.zeros((), device=self.device)
        for name, part in piece.parts.items():
            terms = [weight * self.losses[name](head[part], masks[part]) for weight, head in heads]
            term = torch.stack(terms).sum()
            loss = loss + self.recipe.modalities[name].loss.weight * piece.shares[name] * term
            sums.add(name, term.detach(), logits[part].detach(), masks[part])
        self.fabric.backward(loss / batches)

    def _halve(self, group: Sequence[Batch]) -> None:
        """From now on compute batches in parts of half the size; the optimiser's steps stay where they were.

        Raises:
            RunError: they are of single slices already.
        """
        self.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        size = sum(len(images) for images, _ in group[0].values())
        if self.pieces >= max(len(images) for images, _ in group[0].values()):
            raise RunError(NOT_ONE_SLICE)
        self.pieces *= 2
        text = IN_PARTS.format(
            size=size,
            step=self.step + 1,
            stage=self.stages[self.stage].name,
            epoch=self.epoch + 1,
            pieces=self.pieces,
        )
        self.record.remark(text)
        self.warn(text)

    def _finish_epoch(self, stage: Stage) -> None:
        self._check_finite()
        with self._kept_weights():
            found = self._validate(stage)
        self.scores = {name: score for name, (_, score) in found.items()}
        macro = mean_of_known(list(self.scores.values()))
        self._tell_monitor(stage, self.step, validated=True)
        self.epoch, self.step = self.epoch + 1, 0
        rows = [
            EpochRow(
                stage=stage.name,
                epoch=self.epoch,
                modality=name,
                train_loss=self.partial.loss(name),
                train_dice=self.partial.dice(name),
                validation_loss=found[name][0],
                validation_dice=self.scores[name],
                macro_dice=macro,
                learning_rate=self.schedule.rate,
                minutes=round(self._minutes(), 3),
            )
            for name in stage.modalities
        ]
        self.partial = EpochSums()
        self.schedule.after_epoch(macro)
        self._keep_if_best(stage, macro)
        self.log.add(rows)
        self._save_checkpoint()
        self._save_metrics(finished=False)

    def _keep_if_best(self, stage: Stage, macro: float) -> None:
        """The first counts, then what is higher; NaN is lower than any number."""
        kept = self.best.get("macro_dice", math.nan)
        better = not self.best or macro > kept or (math.isnan(kept) and not math.isnan(macro))
        self.epochs_without_better = 0 if better else self.epochs_without_better + 1
        if stage.keeps_best and better:
            place = {"stage": stage.name, "epoch": self.epoch}
            self.best = place | {"macro_dice": macro, "validation_dice": dict(self.scores)}
            self._save_model()

    def _out_of_patience(self) -> bool:
        patience = self.recipe.training.patience
        return patience is not None and self.epochs_without_better >= patience

    def _kept_weights(self) -> contextlib.AbstractContextManager[None]:
        """Within, the network has the weights that are validated and kept: its own, or their average."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place(self.network)

    def _validate(self, stage: Stage) -> dict[str, tuple[float, float]]:
        """Modality → loss and Dice. A stop within loses them; going on then begins with them."""
        self.network.eval()

        def network(images: Tensor) -> Tensor:
            return cast(Tensor, self.network(images.to(self.device, memory_format=self.layout)))

        return {
            name: validate(self.validation[name], network, self.losses[name], self._stop_if_asked)
            for name in stage.modalities
        }

    # batches --------------------------------------------------------------------------------

    def _batches(self, stage: Stage, epoch: int) -> list[dict[str, list[SliceId]]]:
        training = self.recipe.training
        cases = {name: self.cases[name] for name in stage.modalities}
        seed = (training.seed, self.stage, epoch)
        group = None if training.balance is None else GROUPS[training.balance]
        return epoch_batches(cases, training.batch_size, training.tumour_share, seed, group)

    def _augmented(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor, dict[str, slice]]:
        """One tensor of all modalities, augmented, and which rows are whose."""
        images, masks, parts = joined(batch)
        generator = torch.Generator().manual_seed(seed)
        images, masks = augment(
            images.to(self.device), masks.to(self.device), len(self.recipe.classes), self.strengths, generator
        )
        return images.contiguous(memory_format=self.layout), masks, parts

    def _seed_of_batch(self, number: int) -> int:
        """Of the `number`-th batch of the present step."""
        training = self.recipe.training
        place = [training.seed, self.stage, self.epoch, self.step * training.accumulate + number]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    # state ----------------------------------------------------------------------------------

    def _place(self) -> dict[str, Any]:
        """Where training is, for the record."""
        over = self.stage == len(self.stages)
        name = "end" if over else self.stages[self.stage].name
        return {"stage": name, "epoch": None if over else self.epoch + 1, "steps_of_epoch": self.step}

    def _set_up_optimiser(self, stage: Stage) -> None:
        optimiser = optimiser_of(self.recipe, self.network.parameters())
        chosen, steps = self.recipe.training.schedule, stage.epochs * self._steps_of_epoch(stage)
        self.schedule = schedules.build(chosen.name, optimiser, steps, chosen.arguments)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state["optimiser"])
            self.schedule.restore(self.optimiser_state["schedule"])
            self.optimiser_state = None
        self.optimiser = cast(_FabricOptimizer, self.fabric.setup_optimizers(optimiser))
        self.steps_in_all = self._steps_left() + self.steps_done

    def _save_checkpoint(self) -> None:
        self._check_finite()
        checkpoints.save(self.run.checkpoint, self._state())
        self.record.keep(self._place())
        self.saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "place": [self.stage, self.epoch, self.step],
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state(),
            "average": None if self.average is None else self.average.state(),
            "best": self.best,
            "epochs_without_better": self.epochs_without_better,
            "scores": self.scores,
            "partial": self.partial.state(),
            "pieces": self.pieces,
            "log": [asdict(row) for row in self.log.rows],
            "minutes": self._minutes(),
        }

    def restore(self, warn: Callable[[str], None]) -> None:
        """Take over what the last whole checkpoint holds.

        Raises:
            RunError: all checkpoints are damaged, or it does not fit the recipe.
        """
        state = checkpoints.load(self.run.checkpoint, self.device, warn)
        if state is None:
            return
        try:
            self.network.load_state_dict(state["network"])
            self.stage, self.epoch, self.step = state["place"]
            self.best, self.scores, self.minutes_before = state["best"], state["scores"], state["minutes"]
            self.epochs_without_better = state["epochs_without_better"]
            self.pieces = state.get("pieces", 1)
            if self.average is not None:
                self.average.restore(state["average"])
            self.partial = EpochSums(state["partial"], self.device)
            rows = state["log"]
        except Exception as error:
            raise RunError(
                f"The checkpoint {self.run.checkpoint} does not fit its recipe "
                f"({type(error).__name__}); expected one that this run wrote. Delete it to start this run "
                "again, or train into a new folder."
            ) from error
        if self.epoch or self.step:  # a stage begins with an optimiser of its own
            self.optimiser_state = state
        self.log.close()
        self.log = TrainingLog(self.run, rows)

    def _save_model(self) -> None:
        with self._kept_weights():
            weights = {
                name: value.contiguous().to("cpu", copy=True)
                for name, value in self.network.state_dict().items()
            }
        # save_file would make a file that only its owner may read
        write_bytes(self.run.model, safetensors.torch.save(weights))

    def _save_metrics(self, finished: bool) -> None:
        self.run.write_metrics(
            {
                "best": self.best,
                "finished": finished,
                "minutes": round(self._minutes(), 2),
                "precision": self.precision,
                "hardware": hardware.describe(),
            }
        )

    # time -----------------------------------------------------------------------------------

    def _minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def _stop_if_asked(self) -> None:
        if self.stop.reason:
            raise _Stopped(self.stop.reason)
        budget = self.recipe.training.max_minutes
        # every call gets at least one step or one validation done, so that calls with a short budget end
        spent = budget is not None and time.monotonic() - self.entered > budget * 60
        if spent and self.steps_done > 0:
            raise _Stopped(f"the time budget of {budget:g} minutes is spent")

    def _steps_left(self) -> int:
        lengths = [self._steps_of_epoch(stage) * stage.epochs for stage in self.stages[self.stage :]]
        return sum(lengths) - self.epoch * self._steps_of_epoch(self.stages[self.stage]) - self.step

    def _steps_of_epoch(self, stage: Stage) -> int:
        return math.ceil(len(self._batches(stage, 0)) / self.recipe.training.accumulate)

    def _tell_monitor(self, stage: Stage, steps: int, validated: bool = False) -> None:
        if self.monitor is None:
            return
        per_step = (time.monotonic() - self.started) / max(1, self.steps_done)
        left = per_step * (self.steps_in_all - self.steps_done)
        loss = self.partial.latest_loss()  # waits for the GPU, so only where someone looks
        if not math.isfinite(loss):
            self._check_finite()
        place = (stage.name, self.epoch + 1, stage.epochs, self.step, steps)
        self.monitor(Status(*place, loss, left, dict(self.scores), validated))

    def _check_finite(self) -> None:
        """Raise RunError where a loss, a gradient or the weights are not finite: no checkpoint is spoilt."""
        self._stop_if_diverged(self.watch.first_bad(wait=True))
        if self.watch.latest is not None and not is_finite(self.network):
            self._stop_if_diverged(self.watch.latest)

    def _stop_if_diverged(self, seen: Seen | None) -> None:
        """Write `nan.json` about a step whose figures, or the weights after it, are not finite.

        Raises:
            RunError: there is such a step.
        """
        if seen is None:
            return
        report = report_of(seen, self.cases, self.network, self.recipe.training, self.precision)
        self.run.write_divergence(report)
        self.record.keep(self._place(), "the loss or the weights became NaN or infinite")
        raise RunError(
            f"The loss or the weights became NaN or infinite at step {seen.step.step} of {seen.step.stage} "
            f"epoch {seen.step.epoch}; expected finite numbers. {report['suggestion']}; what was kept before "
            f"stays in {self.run.path}, and nan.json there names the slices."
        )
