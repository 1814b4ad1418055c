"""Validation where a GPU's memory does not hold it: in smaller batches, and its loss by the processor."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from oncoseg.errors import FailedRun

Result = TypeVar("Result")

SMALLER = (
    "The GPU's memory did not hold the validation of {rows} slices at a time: from there on they are "
    "computed in {parts} parts. That changes nothing else."
)
"""Said where it does not."""

ELSEWHERE = (
    "The GPU's memory did not hold the logits of a whole case and its loss: from there on the processor "
    "computes the loss of validation, more slowly."
)
"""Said where it does not."""

NOT_ONE = (
    "The GPU's memory does not hold the validation of one slice beside the network and its optimiser; "
    "expected room for that. Give it a smaller preparation.slice_size or network, or set training.device to "
    "cpu."
)
"""Said where no part is small enough."""

FULL = (
    "The GPU's memory is full, where no smaller batch would help: the weights, the state of their optimiser, "
    "or what other programs hold. What the last checkpoint holds is kept. Free the GPU, or take a smaller "
    "network or training.optimiser.name sgd, or set training.device to cpu."
)
"""Said anywhere else."""


class Room:
    """How validation is fitted into a GPU's memory; kept from one epoch to the next.

    Attributes:
        parts: in how many a batch is computed.
        logits_stay: whether they stay on the GPU until a case's loss is known.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.parts, self.logits_stay = 1, True
        self._tell = tell

    def computed(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What a network makes of a batch, in as many parts as it takes.

        Raises:
            RunError: not even one slice fits.
        """
        while True:
            try:
                outputs = [network(part) for part in images.tensor_split(min(self.parts, len(images)))]
                logits = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
                return logits if self.logits_stay else logits.cpu()
            except torch.OutOfMemoryError as error:
                if self.parts >= len(images):
                    raise FailedRun(NOT_ONE) from error
            torch.cuda.empty_cache()  # what the failed try held is free by now
            self.parts *= 2
            self._tell(SMALLER.format(rows=len(images), parts=self.parts))

    def validated(self, validate: Callable[[], Result], alone: bool) -> Result:
        """What a validation finds; where the GPU does not hold a case's logits, once more without them there.

        Args:
            validate: from its beginning.
            alone: whether this process has all the cases; several share them out and count them together.
        """
        try:
            return validate()
        except torch.OutOfMemoryError:
            if not alone or not self.logits_stay:
                raise
        torch.cuda.empty_cache()
        self.logits_stay = False
        self._tell(ELSEWHERE)
        return validate()
