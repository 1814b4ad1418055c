"""Learning from scans without a mask: the mean teacher.

The teacher is the moving average of the weights. Student and teacher see the same scan, moved and bent alike
but with other brightness, contrast and holes, and the student is drawn towards the teacher's probabilities.
Source: Tarvainen and Valpola 2017 (arXiv:1703.01780), its consistency cost and its ramp.

The teacher computes as it would be validated: without dropout, and with the averaged batch statistics. No
gradient reaches it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from oncoseg.augment import Strengths, two_views
from oncoseg.errors import RecipeError
from oncoseg.logits import Supervised, probabilities
from oncoseg.patches import PatchId, window_anywhere
from oncoseg.recipe import Recipe
from oncoseg.sampler import Batch, Cases, ExampleId, SliceId, read_batch
from oncoseg.store import Prepared
from oncoseg.training.averages import AverageWeights
from oncoseg.training.pieces import pieces_of
from oncoseg.training.stages import Stage
from oncoseg.volume_store import PreparedVolume

STEEPNESS = 5.0
"""Of the ramp, as in the paper."""

OWN_DRAWS = 1
"""Put behind (seed, stage, epoch, batch), so that these scans have draws of their own."""


def check_alone(recipe: Recipe, processes: int) -> None:
    """Check that scans without a mask are learnt from in one process.

    Raises:
        RecipeError: there are several.
    """
    if processes > 1 and recipe.training.unlabelled.weight > 0:
        raise RecipeError(
            f"training.unlabelled.weight is for one process; got {processes}. Start one, or set it to 0."
        )


def ramp(share: float) -> float:
    """exp(−5 (1 − share)²): from 0.0067 at 0 to 1 at 1, and from there on."""
    return math.exp(-STEEPNESS * (1 - min(share, 1.0)) ** 2)


def consistency(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of probabilities over rows, classes and pixels.

    Args:
        logits: the student's, `n classes …`.
        target: the teacher's probabilities, likewise.
    """
    return (probabilities(logits) - target).square().mean()


class MeanTeacher:
    """What a step learns from scans without a mask."""

    def __init__(self, recipe: Recipe, cases: Cases, average: AverageWeights) -> None:
        """Take cases by modality, at least one of each, and the average that teaches."""
        self._recipe, self._cases, self._average = recipe, cases, average
        self._strengths = Strengths(**recipe.augmentation.model_dump())
        self._reader = ThreadPoolExecutor(1)
        self._ahead: Future[Batch] | None = None
        self._seed = 0

    def weight(self, stage: Stage, epochs_done: float) -> float:
        """Of the consistency term: 0 in pretraining, rising in joint training, then the largest."""
        chosen = self._recipe.training.unlabelled
        if not stage.keeps_best:
            return 0.0
        rising = chosen.ramp_share * stage.epochs
        if stage.name != "joint" or rising == 0:
            return chosen.weight
        return chosen.weight * ramp(epochs_done / rising)

    def read_ahead(self, *place: int) -> None:
        """Begin to read as many scans as a batch has, while the others are computed.

        Args:
            place: seed, stage, epoch and batch, which decide which.
        """
        seeds = np.random.SeedSequence([*place, OWN_DRAWS])
        self._seed = int(seeds.generate_state(1)[0])
        refs = draw(self._cases, self._recipe.training.batch_size, np.random.default_rng(seeds))
        self._ahead = self._reader.submit(read_batch, self._cases, refs)

    def add_gradient(
        self,
        network: nn.Module,
        weight: float,
        backward: Callable[[Tensor], object],
        layout: torch.memory_format = torch.contiguous_format,
        pieces: int = 1,
    ) -> Tensor:
        """Add the gradient of the consistency term for the scans that `read_ahead` chose.

        Args:
            network: in training; it has its own weights, and no gradient is computed of it just now.
            weight: of the term.
            backward: computes the gradient of a loss.
            layout: of the images in memory.
            pieces: in how many parts, one after the other.

        Returns:
            The term without its weight, and without a gradient.
        """
        assert self._ahead is not None, "nothing was read"
        images, _ = self._ahead.result()
        seen, taught = self._views(images.to(next(network.parameters()).device))
        target = self._target(network, taught.contiguous(memory_format=layout), pieces)
        torch.manual_seed(self._seed + 1)
        total = torch.zeros((), device=seen.device)
        for piece in pieces_of({"all": slice(0, len(seen))}, pieces):
            rows = slice(None) if piece.rows is None else piece.rows
            output = network(seen[rows].contiguous(memory_format=layout))
            logits = output.logits if isinstance(output, Supervised) else output
            share, term = piece.shares["all"], consistency(logits, target[rows])
            backward(weight * share * term)
            total += share * term.detach()
        return total

    def _views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        prepared = self._recipe.preparation
        generator = torch.Generator().manual_seed(self._seed)
        return two_views(
            images, self._strengths, generator, spacing_mm=prepared.spacing_mm, window=prepared.patch
        )

    @torch.no_grad()
    def _target(self, network: nn.Module, images: Tensor, pieces: int) -> Tensor:
        """The teacher's probabilities; the network is in training again afterwards, whatever happens."""
        try:
            with self._average.in_place(network):
                network.eval()
                logits = [network(part) for part in images.tensor_split(min(pieces, len(images)))]
        finally:
            network.train()  # what does not fit into memory is computed again, in smaller pieces
        return probabilities(torch.cat(logits))


def draw(cases: Cases, size: int, rng: np.random.Generator) -> Mapping[str, Sequence[ExampleId]]:
    """Choose slices, each with the same chance, or windows: any case with the same chance, anywhere in it.

    Args:
        cases: modality → cases, at least one.
        size: how many, shared equally among the modalities.
        rng: decides.
    """
    each = max(1, size // len(cases))
    return {name: [_one(of_one, rng) for _ in range(each)] for name, of_one in cases.items()}


def _one(cases: Sequence[Prepared], rng: np.random.Generator) -> ExampleId:
    if isinstance(cases[0], PreparedVolume):
        number = int(rng.integers(len(cases)))
        case = cases[number]
        assert isinstance(case, PreparedVolume)
        return PatchId(number, window_anywhere(case, rng))
    ends = np.cumsum([len(case) for case in cases])
    place = int(rng.integers(ends[-1]))
    number = int(np.searchsorted(ends, place, side="right"))
    return SliceId(number, place - int(ends[number - 1] if number else 0))
