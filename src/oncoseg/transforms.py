"""From source voxels to what the network sees, and back. Training and prediction share every line here."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.errors import DataError
from oncoseg.logits import likeliest

ZEROS = "zeros"
"""Substitute that stands for an all-zero channel."""


def choose_channels(
    available: Sequence[str], wanted: Sequence[str], missing: str, substitutes: Mapping[str, str]
) -> list[str]:
    """For each wanted channel, the one to read: itself, its substitute, or `zeros`.

    Args:
        available: channels that the case has.
        wanted: channels in the network's order.
        missing: `error` or `substitute`.
        substitutes: channel → channel used in its place, or `zeros`.

    Raises:
        DataError: a channel is missing and may not, or cannot, be substituted; or all are.
    """
    chosen = [
        channel if channel in available else _substitute(channel, available, wanted, missing, substitutes)
        for channel in wanted
    ]
    if set(chosen) == {ZEROS}:
        raise DataError(f"All channels are missing; {_expected(available, wanted)} Add their files.")
    return chosen


def _substitute(
    channel: str,
    available: Sequence[str],
    wanted: Sequence[str],
    missing: str,
    substitutes: Mapping[str, str],
) -> str:
    used = substitutes.get(channel)
    lacking = f"Channel {channel} is missing; {_expected(available, wanted)}"
    if used is None:
        raise DataError(
            f"{lacking} Add its file; or train with a substitute for it, stated in the recipe, such as "
            f"--modalities.NAME.substitutes.{channel} {ZEROS}, where NAME is the modality's."
        )
    if missing == "error":
        raise DataError(
            f"{lacking} Add its file, or train with {used} allowed in its place: --modalities.NAME.missing "
            "substitute, where NAME is the modality's. A trained run keeps to what it was trained with."
        )
    if used not in (*available, ZEROS):
        raise DataError(
            f"Channel {channel} is missing and so is its substitute {used}; got {', '.join(available)}. "
            f"Add either file, or train with another substitute, such as "
            f"--modalities.NAME.substitutes.{channel} {ZEROS}, where NAME is the modality's; or without the "
            "channel, by --modalities.NAME.channels."
        )
    return used


def _expected(available: Sequence[str], wanted: Sequence[str]) -> str:
    return f"expected {', '.join(dict.fromkeys(wanted))}, got {', '.join(available) or 'none'}."


def to_slices(voxels: np.ndarray) -> Tensor:
    """Canonical voxels `c i j k` as a float32 stack of axial slices `k c i j`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(voxels, -1, 0), dtype=np.float32))


def resize_slices(slices: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad slices `n c h w` to a square with their smallest value, then resize them to `size`.

    Bilinear, with an antialiasing filter where it shrinks.
    """
    top, bottom, left, right = _square_padding(slices.shape[-2], slices.shape[-1])
    if top or bottom or left or right:
        floor = slices.amin(dim=(-2, -1), keepdim=True)
        slices = functional.pad(slices - floor, (left, right, top, bottom)) + floor
    if slices.shape[-2:] == size:
        return slices
    return functional.interpolate(slices, size, mode="bilinear", antialias=True, align_corners=False)


def restore_slices(slices: Tensor, grid: tuple[int, int]) -> Tensor:
    """Undo `resize_slices` for probabilities `n c h w`: back to slices of `grid` pixels."""
    rows, columns = grid
    side = max(grid)
    top, _, left, _ = _square_padding(rows, columns)
    if slices.shape[-2:] != (side, side):
        slices = functional.interpolate(
            slices, (side, side), mode="bilinear", antialias=True, align_corners=False
        )
    return slices[..., top : top + rows, left : left + columns]


def resize_labels(labels: np.ndarray, classes: int, size: tuple[int, int]) -> Tensor:
    """Class indices, canonical `i j k`, as prepared slices `k h w` (uint8).

    Each class is resized as an image. A pixel of which all classes together cover at least half goes to the
    class that covers most of it, so that a small lesion keeps its area instead of depending on where nearest
    neighbour happens to look; see `shares`.
    """
    slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(labels, -1, 0)))
    if slices.shape[-2:] == size and size[0] == size[1]:
        return slices
    one_hot = functional.one_hot(slices.long(), classes + 1).movedim(-1, 1).float()
    covered = resize_slices(one_hot[:, 1:], size)
    together = covered.sum(1)
    return likeliest(covered, together >= 1 - together)


def scale_slices(
    slices: Tensor, scaling: str, percentiles: tuple[float, float], window: tuple[float, float]
) -> Tensor:
    """Scale slices `n c h w` to [0, 1], every slice and channel on its own unless `window`.

    Args:
        slices: in the source's unit.
        scaling: `slice-minmax` (S1, section 4.1), `slice-percentile` or `window`.
        percentiles: lower and upper one for `slice-percentile`, in 0 … 100.
        window: lower and upper intensity for `window`.

    A constant slice becomes 0.
    """
    if scaling == "window":
        low, high = (torch.tensor(bound) for bound in window)
    elif scaling == "slice-percentile":
        flat = slices.flatten(-2)
        ranks = torch.tensor(percentiles) / 100
        low, high = (q[..., None, None] for q in torch.quantile(flat, ranks, dim=-1))
    elif scaling == "slice-minmax":
        low, high = slices.amin((-2, -1), keepdim=True), slices.amax((-2, -1), keepdim=True)
    else:
        raise DataError(f"Unknown scaling {scaling!r}; expected slice-minmax, slice-percentile or window.")
    span = high - low
    scaled = (slices - low) / torch.where(span > 0, span, 1.0)
    return scaled.clamp(0, 1) * (span > 0)


def prepare_slices(
    voxels: np.ndarray,
    size: tuple[int, int],
    scaling: str,
    percentiles: tuple[float, float],
    window: tuple[float, float],
) -> Tensor:
    """Canonical voxels `c i j k` as the network's slices `k c h w` in [0, 1]: resized, then scaled."""
    return scale_slices(resize_slices(to_slices(voxels), size), scaling, percentiles, window)


def _square_padding(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Rows to add above and below, columns to add left and right."""
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    return top, side - rows - top, left, side - columns - left
