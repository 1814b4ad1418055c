"""The loss and Dice of an epoch: summed up while it is trained, and of the validation cases after it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oncoseg.logits import margins
from oncoseg.metrics import Confusion, dice, pool
from oncoseg.store import Prepared
from oncoseg.training.ranks import Ranks

VALIDATION_BATCH = 32
"""Slices computed at a time in validation; windows of volumes are computed one by one."""


class EpochSums:
    """Losses and pixel counts of an epoch so far, for each modality."""

    def __init__(self, state: Mapping[str, Any] | None = None, device: torch.device | None = None) -> None:
        """Start at nothing, or where `state` left off, on the device where the network computes."""
        self._losses: dict[str, list[Tensor]] = {}
        self._counts: dict[str, Tensor] = {}
        for name, (losses, counts) in (state or {}).items():
            self._losses[name] = list(torch.tensor(losses, device=device))
            self._counts[name] = torch.tensor(counts, device=device)

    def add(self, name: str, loss: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Take in one batch, or a part of one: logits `n classes …`, masks `n …`."""
        self._losses.setdefault(name, []).append(loss)
        counts = torch.stack(_tp_fp_fn(logits, masks))
        self._counts[name] = self._counts.get(name, torch.zeros_like(counts)) + counts

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
        for name, losses in others._losses.items():
            self._losses.setdefault(name, []).extend(losses)
            counts = others._counts[name]
            self._counts[name] = self._counts.get(name, torch.zeros_like(counts)) + counts

    def dice(self, name: str) -> float:
        """Pooled over all pixels so far; NaN when neither truth nor prediction holds any tumour."""
        tp, fp, fn = self._counts[name].tolist()
        return dice(Confusion(tp, fp, fn, 0))

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
) -> tuple[float, float]:
    """Mean loss over cases, and mean Dice over patients at probability 0.5, on the prepared grid.

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
    counts: dict[str, list[Confusion]] = {}
    for case, (_, confusion) in zip(cases, measured, strict=True):
        counts.setdefault(case.patient, []).append(confusion)
    return float(np.mean(losses)), mean_of_known([dice(pool(of_one)) for of_one in counts.values()])


def _measured(
    case: Prepared,
    network: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, Confusion]:
    """Loss, where a case has several groups of parts their mean by size, and counts of a case."""
    losses, counts = [], []
    for group in case.parts(VALIDATION_BATCH):
        computed = [(network(part.images).float()[part.keep], part.masks) for part in group]
        logits = torch.cat([one for one, _ in computed])
        masks = torch.cat([truth.to(logits.device) for _, truth in computed])
        losses.append(loss(logits, masks).item())
        counts.append(count_pixels(logits, masks))
    sizes = [sum(one) for one in counts]
    mean = losses[0] if len(losses) == 1 else float(np.average(losses, weights=sizes))
    return mean, pool(counts)


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN if all are."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _tp_fp_fn(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels at probability 0.5, all classes together."""
    predicted, truth = (margins(logits) > 0).any(dim=1), masks > 0
    return (predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()


def count_pixels(logits: Tensor, masks: Tensor) -> Confusion:
    """Compare logits `n classes …` with masks `n …` at probability 0.5, all classes together."""
    tp, fp, fn = (int(count) for count in _tp_fp_fn(logits, masks))
    return Confusion(tp, fp, fn, masks.numel() - tp - fp - fn)
