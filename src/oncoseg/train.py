"""Training: one readable loop over stages, epochs and batches.

Every random choice is drawn from (seed, stage, epoch, step), so that going on from a checkpoint
sees the same slices, augmented in the same way, as a run that was never stopped.
"""

import contextlib
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor

from oncoseg import hardware, losses, models, training_data
from oncoseg.augment import Strengths, augment
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import new_folder, write_bytes
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import Batch, Cases, SliceId, epoch_batches, joined, read_ahead
from oncoseg.split import read_split
from oncoseg.stopping import stop_requests
from oncoseg.training_log import EpochRow, TrainingLog
from oncoseg.training_sums import EpochSums, mean_of_known, validate

CHECKPOINT_MINUTES = 5.0
"""A kill -9 costs at most this much training."""

SHORTEST_WARMUP_STEPS = 2
"""Of OneCycleLR, which divides by zero where the peak would fall on the very first step."""


class Stage(NamedTuple):
    """A part of the training with its own one-cycle schedule."""

    name: str
    modalities: tuple[str, ...]
    epochs: int
    keeps_best: bool


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


def stages_of(recipe: Recipe) -> list[Stage]:
    """Pretraining on one modality if the recipe wants it, then joint training (S1, section 4.4)."""
    training = recipe.training
    stages = [Stage("joint", tuple(recipe.modalities), training.max_epochs, keeps_best=True)]
    if training.pretrain_on is not None and training.pretrain_epochs > 0:
        stages.insert(
            0, Stage("pretrain", (training.pretrain_on,), training.pretrain_epochs, keeps_best=False)
        )
    return stages


def train(
    recipe: Recipe,
    data: Mapping[str, Path],
    out: Path,
    *,
    store: Path | None = None,
    split_file: Path | None = None,
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    accept_implausible: bool = False,
    channels: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    remark: training_data.Remark | None = None,
    opened: training_data.Opened | None = None,
) -> Outcome:
    """Train a recipe from raw folders into a new run folder.

    Args:
        recipe: the complete description; it is kept in the run folder.
        data: modality → folder of its data set.
        out: the run folder; new or empty.
        store: the prepared store; None for the one in the user's cache.
        split_file: a `split.json` to use instead of drawing a split, or nnU-Net's folds; see `read_split`.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        monitor: called after every step and every validation.
        accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
        channels: modality → channel → what its series are called; see `training_data.load`.
        remark: called for each modality with what is doubtful about its images.
        opened: called for each modality with what was found in its data set.

    Raises:
        RunError: `out` holds something or cannot be written, or the loss is not finite any more.
        DataError: data that cannot be used.
        RecipeError: an unknown loss or network, arguments that they do not take, or no such device.
    """
    entered = time.monotonic()
    check_recipe(recipe)
    training_data.check_modalities(recipe, data)
    given = read_split(split_file, tuple(recipe.modalities)) if split_file else None
    run = RunFolder(new_folder(out, "The run folder"))
    try:
        loaded = training_data.load(
            recipe,
            data,
            store or training_data.default_store(),
            split=given,
            workers=workers,
            progress=prepare_progress,
            accept_implausible=accept_implausible,
            channels=channels,
            remark=remark,
            opened=opened,
        )
        training = _Training(run, recipe, loaded.train, loaded.validation, monitor, entered)
    except BaseException:
        with contextlib.suppress(OSError):  # something else, such as the store, was put there
            out.rmdir()
        raise
    run.write_recipe(recipe)
    run.write_split(recipe.training.seed, loaded.split)
    run.write_data(loaded.data)
    return training.go()


def resume(
    out: Path,
    *,
    store: Path | None = None,
    max_minutes: float | Literal["recipe"] | None = "recipe",
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
) -> Outcome:
    """Go on with a run that was stopped; recipe, data and split are those in the run folder.

    Args:
        out: the run folder.
        store: the prepared store; what it does not hold is prepared again.
        max_minutes: budget for this call; None for no end, "recipe" for the one in the recipe.
        workers: see `train`.
        prepare_progress: see `train`.
        monitor: see `train`.

    Raises:
        RunError: not a run folder, of another version, its data have changed since, or the loss is not
            finite any more.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    entered = time.monotonic()
    run = RunFolder(out)
    recipe, records = run.recipe(), run.data()
    if max_minutes != "recipe":
        recipe = recipe.with_changes({"training.max_minutes": max_minutes})
    check_recipe(recipe)
    loaded = training_data.load(
        recipe,
        {name: Path(record["path"]) for name, record in records.items()},
        store or training_data.default_store(),
        split=run.split(),
        workers=workers,
        progress=prepare_progress,
        accept_implausible=any(record.get("accept_implausible") for record in records.values()),
        channels={name: record.get("channels", {}) for name, record in records.items()},
    )
    for name, record in records.items():
        if loaded.data[name]["fingerprint"] != record["fingerprint"]:
            raise RunError(
                f"The {name} data at {record['path']} have changed since {out} was started; a resumed run "
                "must see the same data. Restore them, or start a new run."
            )
    training = _Training(run, recipe, loaded.train, loaded.validation, monitor, entered)
    if run.checkpoint.is_file():
        training.restore()
    return training.go()


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe names before anything is prepared for it.

    Raises:
        RecipeError: an unknown loss or network, arguments that they do not take, slices that the network
            does not take, or a device that is not there.
    """
    hardware.choose_device(recipe.training.device)
    _losses_of(recipe)
    name, arguments = recipe.network.name, recipe.network.arguments
    size = recipe.augmentation.crop or recipe.preparation.slice_size
    try:
        models.describe(name, arguments, recipe.in_channels, len(recipe.classes), size)
    except RuntimeError as error:
        raise RecipeError(
            f"Network {name!r} does not take slices of {size[0]}×{size[1]} ({error}). Choose a larger "
            "preparation.slice_size, or other network.arguments."
        ) from error


def _losses_of(recipe: Recipe) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    return {
        name: losses.build(modality.loss.name, modality.loss.arguments)
        for name, modality in recipe.modalities.items()
    }


class _Stopped(Exception):
    """Training was asked to stop, or its time is over; the text says which."""


class _Training:
    """The network, its optimiser, and where the loop is."""

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        cases: Cases,
        validation: Cases,
        monitor: Callable[[Status], None] | None,
        entered: float,
    ) -> None:
        hardware.tune_allocator()
        settings = recipe.training
        self.run, self.recipe, self.cases, self.validation = run, recipe, cases, validation
        self.monitor, self.entered = monitor, entered
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
        self.stages = stages_of(recipe)
        self.losses = _losses_of(recipe)
        self.strengths = Strengths(**recipe.augmentation.model_dump())
        self.stage, self.epoch, self.step = 0, 0, 0
        self.best: dict[str, Any] = {}
        self.scores: dict[str, float] = {}
        self.minutes_before = 0.0
        self.optimiser_state: dict[str, Any] | None = None
        self.partial = EpochSums()
        self.log = TrainingLog(run)

    # the loop -------------------------------------------------------------------------------

    def go(self) -> Outcome:
        """Train until the end, the budget or a request to stop."""
        if self.stage == len(self.stages):
            return Outcome(self.run.path, True, "all epochs were done before")
        self.started = self.saved = time.monotonic()
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
            while self.epoch < stage.epochs:
                self._train_epoch(stage)
                self._finish_epoch(stage)
            self.stage, self.epoch = self.stage + 1, 0

    def _train_epoch(self, stage: Stage) -> None:
        """Train the rest of the present epoch."""
        batches = self._batches(stage, self.epoch)
        self.network.train()
        for batch in read_ahead(self.cases, batches[self.step :]):
            self._train_step(batch)
            self.step += 1
            self.steps_done += 1
            self._tell_monitor(stage, len(batches))
            self._stop_if_asked()
            if time.monotonic() - self.saved > CHECKPOINT_MINUTES * 60:
                self._save_checkpoint()

    def _train_step(self, batch: Batch) -> None:
        images, masks, parts = self._augmented(batch)
        torch.manual_seed(self._seed_of_step() + 1)
        logits = self.network(images)
        loss = torch.zeros((), device=self.device)
        for name, part in parts.items():
            term = self.losses[name](logits[part], masks[part])
            loss = loss + self.recipe.modalities[name].loss.weight * term
            self.partial.add(name, term.detach(), logits[part].detach(), masks[part])
        self.fabric.backward(loss)
        if (norm := self.recipe.training.clip_norm) is not None:
            # its own check would wait for the GPU at every step; `_check_finite` does it now and then
            self.fabric.clip_gradients(self.network, self.optimiser, max_norm=norm, error_if_nonfinite=False)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _finish_epoch(self, stage: Stage) -> None:
        self._check_finite()
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
                learning_rate=float(self.schedule.get_last_lr()[0]),
                minutes=round(self._minutes(), 3),
            )
            for name in stage.modalities
        ]
        self.partial = EpochSums()
        if stage.keeps_best and self._is_best(macro):
            self.best = {"epoch": self.epoch, "macro_dice": macro, "validation_dice": dict(self.scores)}
            self._save_model()
        self.log.add(rows)
        self._save_checkpoint()
        self._save_metrics(finished=False)

    def _is_best(self, macro: float) -> bool:
        """The first counts, then what is higher; NaN is lower than any number."""
        kept = self.best.get("macro_dice", math.nan)
        return not self.best or macro > kept or (math.isnan(kept) and not math.isnan(macro))

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
        return epoch_batches(cases, training.batch_size, training.tumour_share, seed)

    def _augmented(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, slice]]:
        """One tensor of all modalities, augmented, and which rows are whose."""
        images, masks, parts = joined(batch)
        generator = torch.Generator().manual_seed(self._seed_of_step())
        images, masks = augment(
            images.to(self.device), masks.to(self.device), len(self.recipe.classes), self.strengths, generator
        )
        return images.contiguous(memory_format=self.layout), masks, parts

    def _seed_of_step(self) -> int:
        place = [self.recipe.training.seed, self.stage, self.epoch, self.step]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    # state ----------------------------------------------------------------------------------

    def _set_up_optimiser(self, stage: Stage) -> None:
        training = self.recipe.training
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        steps = stage.epochs * len(self._batches(stage, 0))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=training.learning_rate,
            total_steps=steps + 1,
            pct_start=max(training.warmup_share, SHORTEST_WARMUP_STEPS / (steps + 1)),
            anneal_strategy="linear",
        )
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state["optimiser"])
            self.schedule.load_state_dict(self.optimiser_state["schedule"])
            self.optimiser_state = None
        self.optimiser = cast(_FabricOptimizer, self.fabric.setup_optimizers(optimiser))
        self.steps_in_all = self._steps_left() + self.steps_done

    def _save_checkpoint(self) -> None:
        self._check_finite()
        state = {
            "place": [self.stage, self.epoch, self.step],
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "scores": self.scores,
            "partial": self.partial.state(),
            "log": [asdict(row) for row in self.log.rows],
            "minutes": self._minutes(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.run.checkpoint, buffer.getvalue())
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Take over what the last checkpoint holds.

        Raises:
            RunError: the checkpoint is damaged or does not fit the recipe.
        """
        try:
            state = torch.load(self.run.checkpoint, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.stage, self.epoch, self.step = state["place"]
            self.best, self.scores, self.minutes_before = state["best"], state["scores"], state["minutes"]
            self.partial = EpochSums(state["partial"], self.device)
            rows = state["log"]
        except Exception as error:
            raise RunError(
                f"The checkpoint {self.run.checkpoint} cannot be used ({type(error).__name__}); expected one "
                "that this run wrote. Delete it to start this run again, or train into a new folder."
            ) from error
        self.optimiser_state = state
        self.log.close()
        self.log = TrainingLog(self.run, rows)

    def _save_model(self) -> None:
        weights = {name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}
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
        lengths = [len(self._batches(stage, 0)) * stage.epochs for stage in self.stages[self.stage :]]
        done = self.epoch * len(self._batches(self.stages[self.stage], 0)) + self.step
        return sum(lengths) - done

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
        step = self.step if batch is None else batch + 1
        raise RunError(
            f"The loss or the weights became NaN or infinite at step {step} of "
            f"{self.stages[self.stage].name} epoch {self.epoch + 1}; expected finite numbers. Train into a "
            f"new folder with a lower training.learning_rate than {self.recipe.training.learning_rate:g}; "
            f"what was kept before stays in {self.run.path}."
        )
