"""What a network's output means: one logit per class, beside a background whose logit is 0.

The classes of a mask exclude each other, so the probabilities are a softmax over background and classes.
With one class that is the sigmoid.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Supervised(NamedTuple):
    """What a network with deep supervision returns while it is trained.

    Attributes:
        logits: as always, `n classes …`.
        coarser: of the decoder's coarser stages, the finest first, each enlarged to the same size.
    """

    logits: Tensor
    coarser: tuple[Tensor, ...]

    def weighted(self) -> list[tuple[float, Tensor]]:
        """Every logits with its weight in the loss: each coarser half of the finer, together 1.

        Source: Isensee et al. 2021 (nnU-Net), supplementary note 2.
        """
        every = (self.logits, *self.coarser)
        whole = 2 - 2.0 ** -(len(every) - 1)
        return [(2.0**-level / whole, logits) for level, logits in enumerate(every)]


def margins(logits: Tensor) -> Tensor:
    """Log odds of each class against all else, `n classes …`: the logits themselves where there is one class.

    Args:
        logits: `n classes …`.
    """
    classes = logits.shape[1]
    if classes == 1:
        return logits
    whole = with_background(logits)
    others = [
        torch.cat([whole[:, :index], whole[:, index + 1 :]], dim=1).logsumexp(1)
        for index in range(1, classes + 1)
    ]
    return logits - torch.stack(others, dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Probability of each class, `n classes …`, in [0, 1]; what is missing to 1 is background.

    Args:
        logits: `n classes …`; computed in 32 bits.
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        return logits.sigmoid()
    return with_background(logits).softmax(1)[:, 1:]


def labels(logits: Tensor) -> Tensor:
    """Class indices `n …`, uint8, at probability 0.5: marked where all classes together have more.

    Args:
        logits: `n classes …`.
    """
    together = logits[:, 0] if logits.shape[1] == 1 else logits.float().logsumexp(1)
    return likeliest(logits, together > 0)


def likeliest(values: Tensor, marked: Tensor) -> Tensor:
    """Class indices `n …`, uint8: of what is `marked` the class that has most of it; see `shares`.

    Args:
        values: logits, probabilities or shares, `n classes …`.
        marked: bool, `n …`.
    """
    if values.shape[1] == 1:
        return marked.to(torch.uint8)
    best = values.shape[1] - values.flip(1).argmax(1)
    return torch.where(marked, best, 0).to(torch.uint8)


def with_background(logits: Tensor) -> Tensor:
    """The logits behind the background's, `n classes+1 …`, as cross-entropy wants them."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
