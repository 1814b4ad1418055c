"""Sums over an epoch: the loss and Dice of what was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oncoseg.metrics import Confusion, dice


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
        """Take in one batch: logits `n classes h w`, masks `n h w`."""
        self._losses.setdefault(name, []).append(loss)
        counts = torch.stack(_tp_fp_fn(logits, masks))
        self._counts[name] = self._counts.get(name, torch.zeros_like(counts)) + counts

    def loss(self, name: str) -> float:
        """Mean over the batches."""
        return torch.stack(self._losses[name]).mean().item()

    def latest_loss(self) -> float:
        """Of the last batch, mean over the modalities."""
        return float(np.mean([losses[-1].item() for losses in self._losses.values()]))

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


def _tp_fp_fn(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels at probability 0.5, all classes together."""
    predicted, truth = (logits > 0).any(dim=1), masks > 0
    return (predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()


def count_pixels(logits: Tensor, masks: Tensor) -> Confusion:
    """Compare logits `n classes h w` with masks `n h w` at probability 0.5, all classes together."""
    tp, fp, fn = (int(count) for count in _tp_fp_fn(logits, masks))
    return Confusion(tp, fp, fn, masks.numel() - tp - fp - fn)
