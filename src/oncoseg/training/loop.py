"""The loop over stages, epochs and batches.

Every random choice is drawn from (seed, stage, epoch, batch), so that going on from a checkpoint sees the
same slices, augmented in the same way, as a run that was never stopped. Processes that share a batch take
some of its rows each, and the loss is that of the whole batch.
"""

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import safetensors.torch
import torch
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn

from oncoseg import hardware
from oncoseg.errors import FailedRun
from oncoseg.logits import Supervised
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import Batch, Cases, ExampleIds, parts_of
from oncoseg.stopping import stop_requests
from oncoseg.training import checkpoints, kept, optimisers, shards
from oncoseg.training.averages import AverageWeights
from oncoseg.training.choices import (
    check_schedules,
    losses_of,
    network_of,
    optimiser_of,
    schedule_of,
)
from oncoseg.training.divergence import WatchedStep
from oncoseg.training.feed import Feed
from oncoseg.training.guard import Guard
from oncoseg.training.log import TrainingLog, rows_of
from oncoseg.training.mean_teacher import MeanTeacher
from oncoseg.training.meter import Meter
from oncoseg.training.pieces import IN_PARTS, NOT_ONE_SLICE, NOT_OWN_SHARE, Piece, pieces_of
from oncoseg.training.ranks import Ranks
from oncoseg.training.record import Record
from oncoseg.training.room import Room
from oncoseg.training.stages import Stage, stages_of
from oncoseg.training.status import ALL_DONE, Outcome, Status, received, spent, stalled
from oncoseg.training.sums import EpochSums, Validated, mean_of_known, validate
from oncoseg.training.whole_batch import WholeBatch

GPU_LOOK_SECONDS = 0.5
"""Between two looks at the loss of a training on a GPU, each of which makes the processor wait."""

CHECKPOINT_MINUTES = 5.0
"""A kill -9 costs at most this much training."""


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
        ranks: Ranks | None = None,
        unlabelled: Cases = MappingProxyType({}),
    ) -> None:
        hardware.tune_allocator()
        settings = recipe.training
        self.run, self.recipe, self.cases, self.validation = run, recipe, cases, validation
        self.monitor, self.meter = monitor, meter
        self.ranks = ranks or Ranks(settings.device, settings.precision, settings.weights)
        self.device, self.precision, self.fabric = self.ranks.device, self.ranks.precision, self.ranks.fabric
        if self.device.type == "cuda":
            hardware.tune_gpu(settings.deterministic)
        torch.manual_seed(settings.seed)
        network = network_of(recipe)
        self.layout = hardware.training_layout(self.precision, self.device, recipe.preparation.spatial_dims)
        self.whole = WholeBatch(self.ranks, self.layout)
        if settings.compiled and self.ranks.alone:
            network.compile()
        self.network = self.fabric.setup_module(hardware.in_layout(self.whole.seen_by(network), self.layout))
        if not self.ranks.alone:
            example = torch.zeros(1, recipe.in_channels, *recipe.example_size, device=self.device)
            example = example.contiguous(memory_format=self.layout)
            self.whole.settle(self.network, example, self.fabric.backward)
        decay = settings.average_decay
        self.average = None if decay is None else AverageWeights(self.network, decay)
        self.teacher = MeanTeacher(recipe, unlabelled, self.average) if unlabelled and self.average else None
        self.stages = stages_of(recipe)
        self.losses = losses_of(recipe)
        self.feed = Feed(recipe, cases, self.ranks, self.layout)
        self.stage, self.epoch, self.step = 0, 0, 0
        check_schedules(recipe, [stage.epochs * self._steps_of_epoch(stage) for stage in self.stages])
        self.best: dict[str, Any] = {}
        self.epochs_without_better, self.minutes_before = 0, 0.0
        self.scores: dict[str, float] = {}
        self.class_scores: dict[str, dict[str, float]] = {}
        self.optimiser_state: dict[str, Any] | None = None
        self.partial = EpochSums()
        self.log = TrainingLog(run, writes=self.ranks.first)
        self.record = Record(run, recipe, meter, warn)
        self.guard = Guard(run, recipe, cases, self.network, self.ranks, self._note_end)
        self.loss, self.looked, self.saw_bad = math.nan, -math.inf, False
        self.warn, self.pieces, self.room = warn, 1, Room(self._tell_and_remark)

    # the loop -------------------------------------------------------------------------------

    def go(self) -> Outcome:
        """Train until the end, the budget or a request to stop."""
        self.started = self.saved = time.monotonic()
        if self.stage == len(self.stages):
            if not self.ranks.from_first(self.run.is_finished):  # killed after the last checkpoint
                self._save_metrics(finished=True)
            return Outcome(self.run.path, True, "all epochs were done before")
        self.steps_done = 0
        changed = self.ranks.from_first(lambda: self.record.begin(self._place(), self.precision))
        if changed is not None and self.ranks.first:
            self.warn(changed)
        finished, reason = True, ALL_DONE
        with stop_requests() as self.stop:
            try:
                reason = self._train_stages()
            except _Stopped as stopped:
                finished, reason = False, str(stopped)
            self._save_checkpoint()
            self._save_metrics(finished)
            self.ranks.from_first(lambda: self._note_end(reason))
        if (waited := self.meter.waited_in_words(time.monotonic() - self.started)) is not None:
            self.warn(waited)
        too_late = signal.Signals(self.stop.signal).name if finished and self.stop.signal else ""
        return Outcome(self.run.path, finished, reason, too_late)

    def _train_stages(self) -> str:
        """Train to the end; why it is that."""
        reason = ALL_DONE
        for stage in self.stages[self.stage :]:
            self._set_up_optimiser(stage)
            while self.epoch < stage.epochs and not self._out_of_patience():
                self._train_epoch(stage)
                self._finish_epoch(stage)
            if self.epoch < stage.epochs:
                reason = stalled(self.recipe.training.patience, stage.name, self.epoch, stage.epochs)
            self.stage, self.epoch, self.epochs_without_better = self.stage + 1, 0, 0
        return reason

    def _train_epoch(self, stage: Stage) -> None:
        """Train the rest of the present epoch."""
        each, batches = self.recipe.training.accumulate, self._batches(stage, self.epoch)
        steps = math.ceil(len(batches) / each)
        self.network.train()
        ahead = self.feed.read_ahead(batches[self.step * each :])
        while True:
            with self.meter.waiting():
                group = list(itertools.islice(ahead, each))
            if not group:
                return
            self._train_step(group)
            self.step += 1
            self.steps_done += 1
            self._tell_monitor(stage, steps)
            late = time.monotonic() - self.saved > CHECKPOINT_MINUTES * 60
            if self._stop_if_asked(late):
                self._save_checkpoint()

    def _train_step(self, group: Sequence[tuple[ExampleIds, Batch]]) -> None:
        """One step of the optimiser, by the mean gradient of one or more batches."""
        sums = self._gradients(group)
        norm = optimisers.clip(self.fabric, self.network, self.optimiser, self.recipe.training.clip_norm)
        self.partial.join(sums)
        place = (self.stages[self.stage].name, self.epoch + 1, self.step + 1)
        refs = [refs for refs, _ in group]
        self.guard.add(WatchedStep(*place, self.schedule.rate, refs), sums.losses(), norm)
        self.optimiser.step()
        self.schedule.after_step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.after_step(self.network)

    def _gradients(self, group: Sequence[tuple[ExampleIds, Batch]]) -> EpochSums:
        """The mean gradient of some batches; where the GPU's memory does not hold one, in parts of it."""
        while True:
            try:
                return self._gradients_at_once(group)
            except torch.OutOfMemoryError as error:
                if not self.ranks.alone:  # the others wait for this one's gradients
                    raise FailedRun(NOT_OWN_SHARE) from error
            self._halve(group[0][0])  # what the failed try held is free by now

    def _gradients_at_once(self, group: Sequence[tuple[ExampleIds, Batch]]) -> EpochSums:
        sums = EpochSums()
        pieces = self.pieces if self.ranks.alone else 1
        first = self.step * self.recipe.training.accumulate
        for number, (refs, batch) in enumerate(group):
            parts, seed = parts_of(refs), self.feed.seed(self.stage, self.epoch, first + number)
            self.whole.total = max(part.stop for part in parts.values())
            images, masks = self.feed.augmented(batch, self.whole.total, seed)
            consistency = self._consistency_weight()
            if self.teacher is not None and consistency:
                place = self.recipe.training.seed, self.stage, self.epoch, first + number
                self.teacher.read_ahead(*place)
            torch.manual_seed(seed + 1)
            # the others' gradients are waited for once, with those of the last batch
            with self.fabric.no_backward_sync(self.network, enabled=number < len(group) - 1):
                for piece in pieces_of(parts, pieces):
                    self._backward(images, masks, piece, len(group), sums)
            if self.teacher is not None and consistency:
                share, backward = consistency / len(group), self.fabric.backward
                sums.add_consistency(
                    self.teacher.add_gradient(self.network, share, backward, self.layout, pieces)
                )
        return sums

    def _consistency_weight(self) -> float:
        """Of what scans without a mask add to the present step; 0 for nothing."""
        if self.teacher is None:
            return 0.0
        return self.teacher.weight(self.stages[self.stage], self.epoch + self.step / self.steps_of_epoch)

    def _backward(self, images: Tensor, masks: Tensor, piece: Piece, batches: int, sums: EpochSums) -> None:
        """Add the gradient of a part of a batch; this process computes its own rows of it."""
        if piece.rows is not None:
            images, masks = images[piece.rows].contiguous(memory_format=self.layout), masks[piece.rows]
        output = self.network(images)
        heads = output.weighted() if isinstance(output, Supervised) else [(1.0, output)]
        heads = [(weight, self.ranks.whole(head, self.whole.total)) for weight, head in heads]
        masks = self.ranks.whole(masks, self.whole.total)
        logits, loss = heads[0][1], torch.zeros((), device=self.device)
        for name, part in piece.parts.items():
            terms = [weight * self.losses[name](head[part], masks[part]) for weight, head in heads]
            term = torch.stack(terms).sum()
            loss = loss + self.recipe.modalities[name].loss.weight * piece.shares[name] * term
            sums.add(name, term.detach(), logits[part].detach(), masks[part])
        # several processes' gradients are averaged, but the loss is the sum of their rows'
        self.fabric.backward(loss * self.ranks.count / batches)

    def _halve(self, batch: ExampleIds) -> None:
        """From now on compute batches in parts of half the size; the optimiser's steps stay where they were.

        Raises:
            RunError: they are of single slices already.
        """
        self.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        sizes = [len(refs) for refs in batch.values()]
        if self.pieces >= max(sizes):
            raise FailedRun(NOT_ONE_SLICE)
        self.pieces *= 2
        place = {"step": self.step + 1, "stage": self.stages[self.stage].name, "epoch": self.epoch + 1}
        what = {"size": sum(sizes), "examples": self.recipe.examples, "pieces": self.pieces}
        self._tell_and_remark(IN_PARTS.format(**place, **what))

    def _finish_epoch(self, stage: Stage) -> None:
        self.guard.check()
        with self._kept_weights():
            found = self._validate(stage)
        self.scores = {name: one.dice for name, one in found.items()}
        self.class_scores = {name: one.by_class(self.recipe.classes) for name, one in found.items()}
        macro = mean_of_known(list(self.scores.values()))
        self._tell_monitor(stage, self.step, validated=True)
        self.epoch, self.step = self.epoch + 1, 0
        trained = {name: (self.partial.loss(name), self.partial.dice(name)) for name in stage.modalities}
        end = macro, self.schedule.rate, round(self._minutes(), 3), self.partial.consistency()
        rows = rows_of(stage.name, self.epoch, trained, found, self.class_scores, *end)
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
            self.best |= {"class_dice": self.class_scores} if len(self.recipe.classes) > 1 else {}
            self._save_model()

    def _out_of_patience(self) -> bool:
        patience = self.recipe.training.patience
        return patience is not None and self.epochs_without_better >= patience

    def _kept_weights(self) -> contextlib.AbstractContextManager[None]:
        """Within, the network has the weights that are validated and kept: its own, or their average."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place(self.network)

    def _validate(self, stage: Stage) -> dict[str, Validated]:
        """By modality. A stop within loses them; going on then begins with them."""
        complete: nn.Module = self.network.eval()
        if self.ranks.sharded:
            complete = shards.complete(complete, lambda: network_of(self.recipe))

        def on_device(images: Tensor) -> Tensor:
            with self.fabric.autocast():
                return cast(Tensor, complete(images.to(self.device, memory_format=self.layout)))

        network = partial(self.room.computed, on_device)

        def of(name: str) -> Validated:
            return validate(
                self.validation[name], network, self.losses[name], self._stop_if_asked, self.ranks
            )

        return {name: self.room.validated(partial(of, name), self.ranks.alone) for name in stage.modalities}

    def _note_end(self, reason: str) -> None:
        self.record.keep(self._place(), reason)

    def _tell_and_remark(self, text: str) -> None:
        self.record.remark(text)
        self.warn(text)

    # state ----------------------------------------------------------------------------------

    def _place(self) -> dict[str, Any]:
        """Where training is, for the record."""
        over = self.stage == len(self.stages)
        name = "end" if over else self.stages[self.stage].name
        return {"stage": name, "epoch": None if over else self.epoch + 1, "steps_of_epoch": self.step}

    def _set_up_optimiser(self, stage: Stage) -> None:
        optimiser = optimiser_of(self.recipe, self.network.parameters())
        self.steps_of_epoch = self._steps_of_epoch(stage)
        self.schedule = schedule_of(self.recipe, optimiser, stage.epochs * self.steps_of_epoch)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(shards.parted_optimiser(self.optimiser_state["optimiser"], optimiser))
            self.schedule.restore(self.optimiser_state["schedule"])
            self.optimiser_state = None
        self.optimiser = cast(_FabricOptimizer, self.fabric.setup_optimizers(optimiser))
        self.steps_in_all = self._steps_left() + self.steps_done

    def _save_checkpoint(self) -> None:
        self.guard.check()
        state = shards.whole_state(self._state(), keep=self.ranks.first)

        def save() -> None:
            checkpoints.save(self.run.checkpoint, state)
            kept.settle(self.run.model, self.best.get("sha256"))
            self.record.keep(self._place())

        self.ranks.from_first(save)
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
            "consistencies": self.partial.consistencies(),
            "pieces": self.pieces,
            "log": [asdict(row) for row in self.log.rows],
            "minutes": self._minutes(),
        }

    def restore(self, warn: Callable[[str], None]) -> None:
        """Take over what the last whole checkpoint holds.

        Raises:
            RunError: all checkpoints are damaged, or it does not fit the recipe.
        """
        say = warn if self.ranks.first else lambda _: None
        device = torch.device("cpu") if self.ranks.sharded else self.device  # it may not hold the whole
        state = self.ranks.first_then_others(
            lambda: checkpoints.load(self.run.checkpoint, device, say)  # the first one tidies up
        )
        if state is None:
            return
        try:
            self.network.load_state_dict(shards.parted_state(state["network"], self.network.state_dict()))
            self.stage, self.epoch, self.step = state["place"]
            self.best, self.scores, self.minutes_before = state["best"], state["scores"], state["minutes"]
            self.epochs_without_better = state["epochs_without_better"]
            self.pieces = state.get("pieces", 1)
            if self.average is not None:
                self.average.restore(state["average"])
            self.partial = EpochSums(state["partial"], self.device, state.get("consistencies", ()))
            rows = state["log"]
        except Exception as error:
            unfit = checkpoints.UNFIT.format(path=self.run.checkpoint, kind=type(error).__name__)
            raise FailedRun(unfit) from error
        if self.epoch or self.step:  # a stage begins with an optimiser of its own
            self.optimiser_state = state
        self.log = TrainingLog(self.run, rows, writes=self.ranks.first)
        self._restore_model(say)

    def _save_model(self) -> None:
        with self._kept_weights():
            weights = shards.whole_weights(self.network, keep=self.ranks.first)
        # save_file would make a file that only its owner may read
        content = safetensors.torch.save(weights) if self.ranks.first else b""
        self.best["sha256"] = self.ranks.from_first(lambda: kept.offer(self.run.model, content))

    def _restore_model(self, warn: Callable[[str], None]) -> None:
        """See that the kept weights are there; where they are not, have them again or say that they are lost.

        Raises:
            RunError: they are lost, and there is no epoch left to choose others from.
        """
        if self.ranks.from_first(lambda: kept.are_there(self.run.model, self.best)):
            return
        best = {"path": self.run.model, "stage": "joint", **self.best}
        last = self.log.rows[-1]
        if self.step == 0 and (last.stage, last.epoch) == (best["stage"], best["epoch"]):
            self._save_model()  # they are those that training goes on from
            self.ranks.from_first(lambda: kept.settle(self.run.model, self.best["sha256"]))
            warn(kept.RESTORED.format(**best))
            return
        if self.stage == len(self.stages):
            raise FailedRun(kept.NONE_LEFT.format(**best, run=self.run.path))
        warn(kept.LOST.format(**best))
        self.best = {}

    def _save_metrics(self, finished: bool) -> None:
        metrics = {"best": self.best, "finished": finished, "minutes": round(self._minutes(), 2)}
        metrics |= {"precision": self.precision, "processes": self.ranks.count}
        self.ranks.from_first(lambda: self.run.write_metrics(metrics | {"hardware": hardware.describe()}))

    # time -----------------------------------------------------------------------------------

    def _minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def _stop_if_asked(self, late: bool = False) -> int:
        """Stop after the same step in all processes; whether a checkpoint is `late` in any of them.

        What only some of them know, each by its own clock, the others learn here and nowhere else: a process
        that asked them at another place would wait for ever.
        """
        budget = self.recipe.training.max_minutes
        # every call gets at least one step or one validation done, so that calls with a short budget end
        over = (
            budget is not None and time.monotonic() - self.meter.entered > budget * 60 and self.steps_done > 0
        )
        asked, any_over, any_late, any_bad = self.ranks.most(self.stop.signal, over, late, self.saw_bad)
        if any_bad:
            self.guard.check()
        if asked:
            raise _Stopped(received(signal.Signals(asked).name))
        if any_over:
            raise _Stopped(spent(budget or 0))
        return any_late

    def _steps_left(self) -> int:
        lengths = [self._steps_of_epoch(stage) * stage.epochs for stage in self.stages[self.stage :]]
        return sum(lengths) - self.epoch * self._steps_of_epoch(self.stages[self.stage]) - self.step

    def _batches(self, stage: Stage, epoch: int) -> Sequence[ExampleIds]:
        return self.feed.batches(stage.modalities, self.stage, epoch)

    def _steps_of_epoch(self, stage: Stage) -> int:
        return math.ceil(len(self._batches(stage, 0)) / self.recipe.training.accumulate)

    def _tell_monitor(self, stage: Stage, steps: int, validated: bool = False) -> None:
        if self.monitor is None:
            return
        done = max(1, self.steps_done)
        left = (time.monotonic() - self.started) / done * (self.steps_in_all - self.steps_done)
        loss = self._latest_loss()
        if not math.isfinite(loss):
            self.saw_bad = True  # the others may not have looked: all are told by `_stop_if_asked`
            return
        place = (stage.name, self.epoch + 1, stage.epochs, self.step, steps)
        self.monitor(Status(*place, loss, left, dict(self.scores), validated, self.class_scores))

    def _latest_loss(self) -> float:
        """The last step's; of a GPU, which has to be waited for, now and then only."""
        now = time.monotonic()
        if self.device.type != "cuda" or now - self.looked > GPU_LOOK_SECONDS:
            self.loss, self.looked = self.partial.latest_loss(), now
        return self.loss
