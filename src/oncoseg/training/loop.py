"""The loop over stages, epochs and batches.

Every random choice is drawn from (seed, stage, epoch, batch), so that going on from a checkpoint
sees the same slices, augmented in the same way, as a run that was never stopped. Nor do they depend on how
many processes share them: each takes some rows of every batch, and the loss is that of the whole batch.
"""

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor

from oncoseg import hardware, losses, models
from oncoseg.augment import Strengths, augment
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import write_bytes
from oncoseg.logits import Supervised
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import (
    Batch,
    Cases,
    SliceId,
    SliceIds,
    epoch_batches,
    joined,
    parts_of,
    read_ahead,
    share_of,
)
from oncoseg.stopping import stop_requests
from oncoseg.store import PreparedCase
from oncoseg.training import checkpoints, optimisers, schedules
from oncoseg.training.averages import AverageWeights
from oncoseg.training.log import EpochRow, TrainingLog
from oncoseg.training.ranks import Ranks
from oncoseg.training.stages import Stage, stages_of
from oncoseg.training.sums import EpochSums, mean_of_known, validate
from oncoseg.training.whole_batch import WholeBatch

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
        entered: float,
        ranks: Ranks | None = None,
    ) -> None:
        hardware.tune_allocator()
        settings = recipe.training
        self.run, self.recipe, self.cases, self.validation = run, recipe, cases, validation
        self.monitor, self.entered = monitor, entered
        self.ranks = Ranks(settings.device, settings.precision) if ranks is None else ranks
        self.device, self.precision, self.fabric = self.ranks.device, self.ranks.precision, self.ranks.fabric
        self.whole = WholeBatch(self.ranks)
        torch.manual_seed(settings.seed)
        network = models.build(
            recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments
        )
        self.layout = hardware.training_layout(self.precision, self.device)
        self.network = self.fabric.setup_module(hardware.in_layout(self.whole.seen_by(network), self.layout))
        if self.ranks.count > 1:
            self._settle_sums()
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
        self.log = TrainingLog(run, writes=self.ranks.first)

    # the loop -------------------------------------------------------------------------------

    def go(self) -> Outcome:
        """Train until the end, the budget or a request to stop."""
        self.started = self.saved = time.monotonic()
        if self.stage == len(self.stages):
            if not self.run.is_finished():  # killed after the last checkpoint
                self._save_metrics(finished=True)
            return Outcome(self.run.path, True, "all epochs were done before")
        self.steps_done = 0
        finished, reason = True, "all epochs are done"
        with contextlib.closing(self.log), stop_requests() as self.stop:
            try:
                self._train_stages()
            except _Stopped as stopped:
                finished, reason = False, str(stopped)
            self._save_checkpoint()
            self._save_metrics(finished)
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
        ahead = self._read_ahead(batches[self.step * each :])
        while group := list(itertools.islice(ahead, each)):
            self._train_step(group)
            self.step += 1
            self.steps_done += 1
            self._tell_monitor(stage, steps)
            late = time.monotonic() - self.saved > CHECKPOINT_MINUTES * 60
            if self._stop_if_asked(late):
                self._save_checkpoint()

    def _train_step(self, group: Sequence[tuple[SliceIds, Batch]]) -> None:
        """One step of the optimiser, by the mean gradient of one or more batches."""
        for number, (refs, batch) in enumerate(group):
            # the others' gradients are waited for once, with those of the last batch
            with self.fabric.no_backward_sync(self.network, enabled=number < len(group) - 1):
                loss = self._loss(parts_of(refs), batch, self._seed_of_batch(number))
                # several processes' gradients are averaged, but the loss is the sum of their rows'
                self.fabric.backward(loss * self.ranks.count / len(group))
        if (norm := self.recipe.training.clip_norm) is not None:
            # its own check would wait for the GPU at every step; `_check_finite` does it now and then
            self.fabric.clip_gradients(self.network, self.optimiser, max_norm=norm, error_if_nonfinite=False)
        self.optimiser.step()
        self.schedule.after_step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.after_step(self.network)

    def _loss(self, parts: Mapping[str, slice], batch: Batch, seed: int) -> Tensor:
        """Of the whole batch, whose modalities lie at `parts`; this process computes its own rows of it."""
        total = self.whole.total = max(part.stop for part in parts.values())
        images, own_masks = self._augmented(batch, seed, total)
        torch.manual_seed(seed + 1)
        output = self.network(images)
        heads = output.weighted() if isinstance(output, Supervised) else [(1.0, output)]
        heads = [(weight, self.ranks.whole(head, total)) for weight, head in heads]
        masks = self.ranks.whole(own_masks, total)
        logits, loss = heads[0][1], torch.zeros((), device=self.device)
        for name, part in parts.items():
            terms = [weight * self.losses[name](head[part], masks[part]) for weight, head in heads]
            term = torch.stack(terms).sum()
            loss = loss + self.recipe.modalities[name].loss.weight * term
            self.partial.add(name, term.detach(), logits[part].detach(), masks[part])
        return loss

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
            name: validate(self.validation[name], network, self.losses[name], self._stop_if_asked, self.ranks)
            for name in stage.modalities
        }

    # batches --------------------------------------------------------------------------------

    def _read_ahead(self, batches: Sequence[SliceIds]) -> Iterator[tuple[SliceIds, Batch]]:
        """What each whole batch holds, and this process's rows of it."""
        own = [share_of(batch, self.ranks.rows()) for batch in batches]
        if any(sum(map(len, batch.values())) < self.ranks.count for batch in batches):
            raise RecipeError(
                f"training.batch_size {self.recipe.training.batch_size} is shared by {self.ranks.count} "
                "processes; expected at least one slice for each. Start fewer processes, or train a new run "
                "with larger batches."
            )
        yield from zip(batches, read_ahead(self.cases, own), strict=True)

    def _batches(self, stage: Stage, epoch: int) -> list[dict[str, list[SliceId]]]:
        training = self.recipe.training
        cases = {name: self.cases[name] for name in stage.modalities}
        seed = (training.seed, self.stage, epoch)
        group = None if training.balance is None else GROUPS[training.balance]
        return epoch_batches(cases, training.batch_size, training.tumour_share, seed, group)

    def _augmented(self, batch: Batch, seed: int, total: int) -> tuple[Tensor, Tensor]:
        """One tensor of all modalities, augmented: this process's rows of `total`."""
        images, masks = joined(batch)
        images, masks = augment(
            images.to(self.device),
            masks.to(self.device),
            len(self.recipe.classes),
            self.strengths,
            torch.Generator().manual_seed(seed),
            rows=self.ranks.rows(),
            total=total,
        )
        return images.contiguous(memory_format=self.layout), masks

    def _seed_of_batch(self, number: int) -> int:
        """Of the `number`-th batch of the present step."""
        training = self.recipe.training
        place = [training.seed, self.stage, self.epoch, self.step * training.accumulate + number]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def _settle_sums(self) -> None:
        """Let a step go by before any counts.

        DDP lays out its buckets of gradients anew after the first one, and in another place of a bucket three
        or more numbers are added in another order. A resumed run would begin with the first layout again.
        """
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        size = self.recipe.augmentation.crop or self.recipe.preparation.slice_size
        self.whole.total = self.ranks.count
        images = torch.zeros(1, self.recipe.in_channels, *size, device=self.device)
        output = self.network.train()(images.contiguous(memory_format=self.layout))
        heads = output.weighted() if isinstance(output, Supervised) else [(1.0, output)]
        self.fabric.backward(torch.stack([head.mean() for _, head in heads]).sum())
        self.network.zero_grad(set_to_none=True)
        self.network.load_state_dict(own)

    # state ----------------------------------------------------------------------------------

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
        state = {
            "place": [self.stage, self.epoch, self.step],
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state(),
            "average": None if self.average is None else self.average.state(),
            "best": self.best,
            "epochs_without_better": self.epochs_without_better,
            "scores": self.scores,
            "partial": self.partial.state(),
            "log": [asdict(row) for row in self.log.rows],
            "minutes": self._minutes(),
        }
        self.ranks.from_first(lambda: checkpoints.save(self.run.checkpoint, state))
        self.saved = time.monotonic()

    def restore(self, warn: Callable[[str], None]) -> None:
        """Take over what the last whole checkpoint holds.

        Raises:
            RunError: all checkpoints are damaged, or it does not fit the recipe.
        """
        say = warn if self.ranks.first else lambda _: None
        state = self.ranks.first_then_others(
            lambda: checkpoints.load(self.run.checkpoint, self.device, say)  # the first one tidies up
        )
        if state is None:
            return
        try:
            self.network.load_state_dict(state["network"])
            self.stage, self.epoch, self.step = state["place"]
            self.best, self.scores, self.minutes_before = state["best"], state["scores"], state["minutes"]
            self.epochs_without_better = state["epochs_without_better"]
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
        self.log = TrainingLog(self.run, rows, writes=self.ranks.first)

    def _save_model(self) -> None:
        with self._kept_weights():
            weights = {
                name: value.contiguous().to("cpu", copy=True)
                for name, value in self.network.state_dict().items()
            }
        # save_file would make a file that only its owner may read
        self.ranks.from_first(lambda: write_bytes(self.run.model, safetensors.torch.save(weights)))

    def _save_metrics(self, finished: bool) -> None:
        metrics = {
            "best": self.best,
            "finished": finished,
            "minutes": round(self._minutes(), 2),
            "precision": self.precision,
            "processes": self.ranks.count,
            "hardware": hardware.describe(),
        }
        self.ranks.from_first(lambda: self.run.write_metrics(metrics))

    # time -----------------------------------------------------------------------------------

    def _minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def _stop_if_asked(self, late: bool = False) -> int:
        """Stop after the same step in all processes; whether a checkpoint is `late` in any of them."""
        budget = self.recipe.training.max_minutes
        # every call gets at least one step or one validation done, so that calls with a short budget end
        over = budget is not None and time.monotonic() - self.entered > budget * 60 and self.steps_done > 0
        received, spent, any_late = self.ranks.most(self.stop.signal, over, late)
        if received:
            raise _Stopped(f"{signal.Signals(received).name} was received")
        if spent:
            raise _Stopped(f"the time budget of {budget:g} minutes is spent")
        return any_late

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
        """Raise RunError where the epoch's losses or the weights are not finite: no checkpoint is spoilt."""
        batch, weights = self.partial.first_not_finite(), self.network.state_dict().values()
        if batch is None and all(bool(value.isfinite().all()) for value in weights):
            return
        step = self.step if batch is None else batch // self.recipe.training.accumulate + 1
        raise RunError(
            f"The loss or the weights became NaN or infinite at step {step} of "
            f"{self.stages[self.stage].name} epoch {self.epoch + 1}; expected finite numbers. Train into a "
            f"new folder with a lower training.learning_rate than {self.recipe.training.learning_rate:g}; "
            f"what was kept before stays in {self.run.path}."
        )
