"""The loss and Dice of an epoch: summed up while it is trained, and of the validation cases after it.

Classes are counted one by one, as `logits.labels` tells them apart, and the Dice is the mean over them. A
class of which the truth of a modality has no pixel at all is left out: no network is chosen by it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oncoseg.logits import labels
from oncoseg.metrics import Confusion, dice, pool
from oncoseg.store import Prepared
from oncoseg.training.ranks import Ranks

VALIDATION_BATCH = 32
"""Slices computed at a time in validation; windows of volumes are computed one by one."""

Classes = tuple[Confusion, ...]
"""Counts of each class."""


class Validated(NamedTuple):
    """What the validation of a modality found.

    Attributes:
        loss: mean over cases.
        dice: mean over patients; of each the mean over classes.
        of_classes: Dice of each of several classes, mean over patients, in order; NaN for one of which no
            patient has any. Empty for a single class.
    """

    loss: float
    dice: float
    of_classes: tuple[float, ...] = ()

    def by_class(self, names: Iterable[str]) -> dict[str, float]:
        """Class → Dice; nothing for a single class."""
        return dict(zip(names, self.of_classes, strict=True)) if self.of_classes else {}


class EpochSums:
    """Losses and pixel counts of an epoch so far, for each modality, and what scans without a mask gave."""

    def __init__(
        self,
        state: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        consistencies: Sequence[float] = (),
    ) -> None:
        """Start at nothing, or where `state` left off, on the device where the network computes."""
        self._losses: dict[str, list[Tensor]] = {}
        self._counts: dict[str, Tensor] = {}
        self._consistencies = [torch.tensor(value, device=device) for value in consistencies]
        for name, (losses, counts) in (state or {}).items():
            self._losses[name] = list(torch.tensor(losses, device=device))
            # a checkpoint of the first versions has three numbers, of one class
            self._counts[name] = torch.tensor(counts, device=device).reshape(3, -1)

    def add(self, name: str, loss: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Take in one batch, or a part of one: logits `n classes …`, masks `n …`."""
        self._losses.setdefault(name, []).append(loss)
        counts = _tp_fp_fn(logits, masks)
        self._counts[name] = self._counts.get(name, torch.zeros_like(counts)) + counts

    def add_consistency(self, value: Tensor) -> None:
        """Take in the consistency loss, without its weight, of one batch without masks."""
        self._consistencies.append(value)

    def consistency(self) -> float | None:
        """Mean over the batches without masks; None where there were none."""
        return torch.stack(self._consistencies).mean().item() if self._consistencies else None

    def consistencies(self) -> list[float]:
        """Of every batch without masks, for a checkpoint beside `state`."""
        return [value.item() for value in self._consistencies]

    def loss(self, name: str) -> float:
        """Mean over the batches."""
        return torch.stack(self._losses[name]).mean().item()

    def latest_loss(self) -> float:
        """Of the last batch, mean over the modalities."""
        return float(np.mean([losses[-1].item() for losses in self._losses.values()]))

    def losses(self) -> list[tuple[str, Tensor]]:
        """Modality and loss of every batch."""
        return [(name, loss) for name, losses in self._losses.items() for loss in losses]

    def join(self, others: "EpochSums") -> None:
        """Take in all that others hold."""
        self._consistencies += others._consistencies
        for name, losses in others._losses.items():
            self._losses.setdefault(name, []).extend(losses)
            counts = others._counts[name]
            self._counts[name] = self._counts.get(name, torch.zeros_like(counts)) + counts

    def dice(self, name: str) -> float:
        """Pooled over all pixels so far, mean over classes; NaN when neither truth nor prediction has any."""
        counts = [Confusion(tp, fp, fn, 0) for tp, fp, fn in self._counts[name].T.tolist()]
        return mean_of_known([dice(counts[index]) for index in _present(counts)])

    def state(self) -> dict[str, list[Any]]:
        """For a checkpoint."""
        return {
            name: [torch.stack(losses).tolist(), self._counts[name].tolist()]
            for name, losses in self._losses.items()
        }


@torch.inference_mode()
def validate(
    cases: Sequence[Prepared],
    network: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    before_case: Callable[[], object] = lambda: None,
    ranks: Ranks | None = None,
) -> Validated:
    """Mean loss over cases, and mean Dice over patients at probability 0.5, on the prepared grid.

    All pixels of a patient's cases are counted together, class by class. A class that is neither in a
    patient's truth nor in the prediction has no Dice there and is left out of the patient's mean; one that is
    found where none is has 0. A patient without any Dice is left out of the mean over patients.

    Args:
        cases: of one modality.
        network: images `n c …` in [0, 1] → logits `n classes …`.
        loss: logits and masks `n …` → one number.
        before_case: called before each case, in all processes equally often; what it raises ends the
            validation.
        ranks: the processes that share the cases and all get the same result; None for this one only.
    """
    share, rounds, own = cases if ranks is None else ranks.dealt(cases), len(cases), []
    for number in range(rounds if ranks is None else -(-rounds // ranks.count)):
        before_case()
        if number < len(share):
            own.append(_measured(share[number], network, loss))
    measured = own if ranks is None else ranks.gathered(own, len(cases))
    losses = [one for one, _ in measured]
    counts: dict[str, list[Classes]] = {}
    for case, (_, of_case) in zip(cases, measured, strict=True):
        counts.setdefault(case.patient, []).append(of_case)
    return Validated(float(np.mean(losses)), *_mean_dice([_pooled(of_one) for of_one in counts.values()]))


def _mean_dice(patients: Sequence[Classes]) -> tuple[float, tuple[float, ...]]:
    """Mean over patients of the mean over classes, and each of several classes' own."""
    present = _present(_pooled(patients))
    means = [mean_of_known([dice(one[index]) for index in present]) for one in patients]
    classes = len(patients[0])
    each = [
        mean_of_known([dice(one[index]) for one in patients]) if index in present else math.nan
        for index in range(classes)
    ]
    return mean_of_known(means), tuple(each) if classes > 1 else ()


def _measured(
    case: Prepared,
    network: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, Classes]:
    """Loss, where a case has several groups of parts their mean by size, and counts of a case."""
    losses, counts = [], []
    for group in case.parts(VALIDATION_BATCH):
        computed = [(network(part.images).float()[part.keep], part.masks) for part in group]
        logits = torch.cat([one for one, _ in computed])
        masks = torch.cat([truth.to(logits.device) for _, truth in computed])
        losses.append(loss(logits, masks).item())
        counts.append(count_pixels(logits, masks))
    sizes = [sum(one[0]) for one in counts]
    mean = losses[0] if len(losses) == 1 else float(np.average(losses, weights=sizes))
    return mean, _pooled(counts)


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN if all are."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _pooled(counts: Sequence[Classes]) -> Classes:
    """Class by class."""
    return tuple(pool(of_class) for of_class in zip(*counts, strict=True))


def _present(counts: Sequence[Confusion]) -> list[int]:
    """Places of the classes that the truth has any of; all where it has none at all."""
    return [index for index, one in enumerate(counts) if not one.truth_empty] or list(range(len(counts)))


def _tp_fp_fn(logits: Tensor, masks: Tensor) -> Tensor:
    """Pixels of each class at probability 0.5, `3 classes`."""
    found, columns = labels(logits), []
    for index in range(1, logits.shape[1] + 1):
        predicted, truth = found == index, masks == index
        columns.append([(predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()])
    return torch.stack([torch.stack(column) for column in columns], dim=1)


def count_pixels(logits: Tensor, masks: Tensor) -> Classes:
    """Compare logits `n classes …` with masks `n …` at probability 0.5, class by class."""
    counts = _tp_fp_fn(logits, masks).T.tolist()
    return tuple(Confusion(tp, fp, fn, masks.numel() - tp - fp - fn) for tp, fp, fn in counts)
