"""The processes of one training: which of them this is, and what they tell each other.

`torchrun` or SLURM starts them; Lightning Fabric finds out how many there are and where. Tensors go through
Fabric's own process group (NCCL between GPUs, gloo between processors). Everything else (errors, requests to
stop, figures of cases) goes through a second one, of gloo, in which a process may wait for hours, as it does
while the first one prepares the data.
"""

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.parallel import ParallelStrategy
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from oncoseg import hardware
from oncoseg.errors import ElsewhereError, OncosegError, RecipeError, RunError
from oncoseg.training import shards
from oncoseg.training.room import FULL

LONGEST_WAIT = timedelta(days=7)
"""For another process that prepares, validates or writes; one that has ended is noticed at once."""

Result = TypeVar("Result")


class Ranks:
    """All processes of a training, seen from one of them; usually there is one only.

    Attributes:
        number: of this process, from 0.
        count: how many there are.
        precision: Fabric's name of the number format.
        fabric: set up for them.
        device: on which this process computes.
        sharded: whether the processes share out the network's weights.
    """

    def __init__(self, device: str = "auto", precision: str = "auto", weights: str = "copied") -> None:
        """Meet the other processes, if there are any.

        Args:
            device: see `hardware.choose_device`.
            precision: see `hardware.choose_precision`.
            weights: `copied` or `sharded`, see `Training.weights` of a recipe; the same for one process.

        Raises:
            RecipeError: no such device, or fewer GPUs than processes on this machine.
            RunError: SLURM does not say how many processes there are on each machine.
        """
        chosen = hardware.choose_device(device)
        self.precision = hardware.choose_precision(precision, chosen)
        environment = _environment()
        self.count = environment.world_size() if environment else 1
        self.number = environment.global_rank() if environment else 0
        self.sharded = weights == "sharded" and self.count > 1
        accelerator, given = "cuda" if chosen.type == "cuda" else "cpu", cast(Any, self.precision)
        logging.getLogger("lightning_fabric").setLevel(
            logging.WARNING
        )  # else it tells its settings each time
        if self.count == 1:
            alone = LightningEnvironment()  # else Fabric would ask SLURM, whatever started this process
            self.fabric = Fabric(accelerator=accelerator, devices=1, precision=given, plugins=[alone])
            self.device = chosen
            return
        each, machines = _processes_and_machines()
        _check_gpus(chosen, each)
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=each,
            num_nodes=machines,
            strategy=_sharded(self.count) if self.sharded else _copied(),
            plugins=[cast(ClusterEnvironment, environment)],
            precision=given,
        )
        self.fabric.launch()
        self.device = self.fabric.device
        self._talk = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.number == 0

    def from_first(self, function: Callable[[], Result]) -> Result:
        """What `function` gives in the first process; the others wait for it, and get a copy.

        Raises:
            OncosegError: there; here it is an `ElsewhereError`.
        """
        if self.count == 1:
            return function()
        sent: list[Any] = [None, None]
        if self.first:
            try:
                sent[0] = function()
            except OncosegError as error:
                sent[1] = error
        failure = sent[1]
        words = [sent[0], None if failure is None else str(failure)]
        distributed.broadcast_object_list(words, src=0, group=self._talk, device=torch.device("cpu"))
        if words[1] is not None:
            raise failure or ElsewhereError(words[1])
        return cast(Result, words[0])

    def first_then_others(self, function: Callable[[], Result]) -> Result:
        """What `function` gives here, called only after it has succeeded in the first process.

        Raises:
            OncosegError: there; here it is an `ElsewhereError`.
        """
        own: list[Result] = []
        self.from_first(lambda: own.append(function()))
        return own[0] if self.first else function()

    def most(self, *values: int) -> tuple[int, ...]:
        """Of each value the highest among the processes; they must all ask at the same place."""
        if self.count == 1:
            return values
        shared = torch.tensor(values)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=self._talk)
        return tuple(shared.tolist())

    def dealt(self, items: Sequence[Result]) -> Sequence[Result]:
        """This process's share of some items: every `count`-th, from its number on."""
        return items[self.number :: self.count]

    def gathered(self, own: Sequence[Result], total: int) -> list[Result]:
        """What all processes found for items that `dealt` shared out, in the items' order."""
        if self.count == 1:
            return list(own)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, list(own), group=self._talk)
        return [parts[item % self.count][item // self.count] for item in range(total)]

    def rows(self) -> slice:
        """Which rows of a whole batch are this process's."""
        return slice(self.number, None, self.count)

    def whole(self, own: Tensor, total: int) -> Tensor:
        """The rows of a whole batch of `total`, of which this process has `own`.

        The gradient goes to its own rows only: those of the others' reach their networks there.
        """
        if self.count == 1:
            return own
        padding = own.new_zeros((-(-total // self.count) - len(own), *own.shape[1:]))
        filled = torch.cat([own, padding]).contiguous()
        parts = [torch.empty_like(filled) for _ in range(self.count)]
        distributed.all_gather(parts, filled.detach())
        parts[self.number] = filled
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in a sentence where another process has ended, or the GPU's memory is full.

        Raises:
            RunError: one has, or it is.
        """
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise RunError(FULL) from error
        except RuntimeError as error:
            if self.count == 1 or not _is_broken_connection(error):
                raise
            raise RunError(
                f"Process {self.number} of {self.count} lost another one of this training, which has ended; "
                "its own message says why. What the last checkpoint holds is kept: start all of them again "
                "with --resume."
            ) from error


def leave_together() -> None:
    """Wait for all processes: torchrun ends the others as soon as one ends with a code besides 0."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def check_alone(what: str) -> None:
    """Check that this is the only process of its training.

    Raises:
        RunError: there are others; `what` begins the sentence.
    """
    if (environment := _environment()) is not None:
        raise RunError(
            f"{what} was started in {environment.world_size()} processes that share batches, as by torchrun "
            "or srun; expected one. Start the command by itself, as often as you like: those share the work."
        )


def is_first() -> bool:
    """Whether this process is the first of its training, or the only one."""
    environment = _environment()
    return environment is None or environment.global_rank() == 0


def _environment() -> ClusterEnvironment | None:
    """Who started several processes and tells them about each other; None for one process."""
    if TorchElasticEnvironment.detect() and int(os.environ["WORLD_SIZE"]) > 1:
        return TorchElasticEnvironment()
    # a batch script has the number of tasks, too; only what srun starts has a step
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in os.environ:
        try:
            return SLURMEnvironment()
        except RuntimeError as error:
            raise RunError(
                "SLURM was given --ntasks; expected --ntasks-per-node, with as many tasks as each machine "
                "has GPUs, and --nodes."
            ) from error
    return None


def _processes_and_machines() -> tuple[int, int]:
    if "LOCAL_WORLD_SIZE" in os.environ:
        each = int(os.environ["LOCAL_WORLD_SIZE"])
        return each, int(os.environ["WORLD_SIZE"]) // each
    machines = int(os.environ["SLURM_NNODES"])
    return int(os.environ["SLURM_NTASKS"]) // machines, machines


def _copied() -> ParallelStrategy:
    return DDPStrategy(**_buffers_left_alone())


def _sharded(processes: int) -> ParallelStrategy:
    return ModelParallelStrategy(shards.share_out, data_parallel_size=processes, tensor_parallel_size=1)


def _buffers_left_alone() -> dict[str, Any]:
    """For DDP: batch statistics are the same in all processes, and those validate at their own pace."""
    takes = inspect.signature(DistributedDataParallel).parameters
    newer = "forward_sync_buffers"  # since PyTorch 2.13
    return {newer if newer in takes else "broadcast_buffers": False}


def _check_gpus(device: torch.device, processes: int) -> None:
    there = torch.cuda.device_count()
    if device.type == "cuda" and processes > there:
        raise RecipeError(
            f"{processes} processes were started on a machine where they see {there} GPUs; expected at least "
            "one for each, all of them seen by every process. Start fewer, or set training.device to cpu."
        )


def _is_broken_connection(error: RuntimeError) -> bool:
    """Whether another process was lost; gloo has no class of its own for it."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
