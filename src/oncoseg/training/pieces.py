"""A batch in parts, for a GPU whose memory does not hold it whole."""

from collections.abc import Mapping
from typing import NamedTuple


class Piece(NamedTuple):
    """A part of a batch.

    Attributes:
        rows: of the batch that are its; None for all.
        parts: modality → which of those rows are whose.
        shares: modality → share of the modality's rows in the batch, so that the gradients of all parts
            add up to that of their mean.
    """

    rows: list[int] | None
    parts: Mapping[str, slice]
    shares: Mapping[str, float]


NOT_ONE_SLICE = (
    "The GPU's memory does not hold the training of one slice of each modality (in 3D: one window); expected "
    "room for that. Give it a smaller preparation.slice_size, augmentation.crop, preparation.patch or "
    "network, or set training.device to cpu."
)
"""Said where no parts are small enough."""

NOT_OWN_SHARE = (
    "The GPU's memory does not hold this process's share of a batch; expected room for that, as several "
    "processes do not compute it in parts. Start more processes, or train with a smaller training.batch_size "
    "and a larger training.accumulate."
)
"""Said where several processes share a batch."""

IN_PARTS = (
    "The GPU's memory did not hold a batch of {size} {examples} at step {step} of {stage} epoch {epoch}: "
    "from there on each is computed in {pieces} parts and their gradients are averaged. The steps stay the "
    "same, but a part has a loss and batch statistics of its own."
)
"""Said where they are."""


def pieces_of(parts: Mapping[str, slice], count: int) -> list[Piece]:
    """Divide a batch; a modality with fewer rows than there are parts is in some of them only.

    A part takes every `count`-th row of each modality, as its slices with tumour come first.

    Args:
        parts: modality → its rows in the batch.
        count: how many parts; 1 is the batch itself.
    """
    if count == 1:
        return [Piece(None, parts, dict.fromkeys(parts, 1.0))]
    pieces = []
    for number in range(count):
        rows: list[int] = []
        places: dict[str, slice] = {}
        shares: dict[str, float] = {}
        for name, part in parts.items():
            own = range(part.start + number, part.stop, count)
            if own:
                places[name] = slice(len(rows), len(rows) + len(own))
                shares[name] = len(own) / (part.stop - part.start)
                rows += own
        if rows:
            pieces.append(Piece(rows, places, shares))
    return pieces
