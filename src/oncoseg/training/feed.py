"""What a training's steps see: the examples of each batch, read ahead, on the device and augmented.

Every random choice is drawn from (seed, stage, epoch, batch) and for the whole batch, of which each process
has some rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from oncoseg.augment import Strengths, augment
from oncoseg.processes import available_processors
from oncoseg.recipe import Recipe
from oncoseg.sampler import Batch, Cases, ExampleIds, read_ahead, share_of
from oncoseg.training.choices import batches_of, check_shared
from oncoseg.training.ranks import Ranks

GPU_READERS = 4
"""Threads that read examples for a GPU; beside a processor's own computing, one is fast enough."""


class Feed:
    """The training side's examples, in the order and form in which one process computes them."""

    def __init__(self, recipe: Recipe, cases: Cases, ranks: Ranks, layout: torch.memory_format) -> None:
        self._recipe, self._cases, self._ranks, self._layout = recipe, cases, ranks, layout
        self._strengths = Strengths(**recipe.augmentation.model_dump())

    def batches(self, modalities: Sequence[str], stage: int, epoch: int) -> Sequence[ExampleIds]:
        """What each whole batch of an epoch holds; `stage` and `epoch` count from 0."""
        cases = {name: self._cases[name] for name in modalities}
        return batches_of(self._recipe, cases, (self._recipe.training.seed, stage, epoch))

    def read_ahead(self, batches: Sequence[ExampleIds]) -> Iterator[tuple[ExampleIds, Batch]]:
        """What each whole batch holds, and this process's rows of it.

        Raises:
            RecipeError: a batch is too small for so many processes.
        """
        own = [share_of(batch, self._ranks.rows()) for batch in batches]
        check_shared(batches, self._ranks.count, self._recipe)
        on_gpu = self._ranks.device.type == "cuda"
        readers = min(GPU_READERS, available_processors()) if on_gpu else 1
        yield from zip(batches, read_ahead(self._cases, own, readers=readers, pinned=on_gpu), strict=True)

    def augmented(self, batch: Batch, total: int, seed: int) -> tuple[Tensor, Tensor]:
        """This process's rows of a whole batch of `total` rows, on the device and augmented."""
        images, masks = (part.to(self._ranks.device, non_blocking=True) for part in batch)
        images, masks = augment(
            images,
            masks,
            len(self._recipe.classes),
            self._strengths,
            torch.Generator().manual_seed(seed),
            rows=self._ranks.rows(),
            total=total,
            spacing_mm=self._recipe.preparation.spacing_mm,
            window=self._recipe.preparation.patch,
        )
        return images.contiguous(memory_format=self._layout), masks

    def seed(self, stage: int, epoch: int, batch: int) -> int:
        """Of a batch's augmentation and dropout; all count from 0."""
        place = [self._recipe.training.seed, stage, epoch, batch]
        return int(np.random.SeedSequence(place).generate_state(1)[0])
