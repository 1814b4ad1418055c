"""Random changes of a training batch, fused into one resampling of images and masks together.

Runs on the device that holds the batch. All random numbers come from one CPU generator, so that the
same seed gives the same batch on every device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.augment import slices, volumes
from oncoseg.augment.draws import Draws, Strengths
from oncoseg.logits import likeliest

__all__ = ["Strengths", "augment", "two_views"]


def augment(
    images: Tensor,
    masks: Tensor,
    classes: int,
    strengths: Strengths,
    generator: torch.Generator,
    *,
    rows: slice = slice(None),
    total: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Change every slice of a batch, or every window of volumes, at random (S1, section 4.1).

    Crop, flips, rotation, zoom and elastic deformation are one sampling grid, applied once to image
    and mask; what comes from outside the slice or window is 0, and which class a pixel of the mask is of,
    `shares` says. Brightness, contrast and coarse dropout change the image only.

    Args:
        images: `n c h w` or `n c i j k`, in [0, 1].
        masks: `n …`, class indices.
        classes: highest class index.
        strengths: chances and ranges.
        generator: on the CPU.
        rows: which of a larger batch's rows these are: they are changed as they would be within it.
        total: rows of that batch; None where these are all.
        spacing_mm: of windows, the voxel size along i, j, k; None for cubes.
        window: voxels that are wanted of what was read with a margin; None for all.

    Returns:
        Images and masks of the same types; of the crop's or window's size if there is one, else the same.
    """
    draws = Draws(generator, len(images) if total is None else total, rows)
    images, masks = _moved(images, masks, classes, strengths, draws, spacing_mm, window)
    return _varied(images, strengths, draws), masks


def two_views(
    images: Tensor,
    strengths: Strengths,
    generator: torch.Generator,
    *,
    spacing_mm: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Change images without a mask twice: moved and bent in the same way, so that pixels still correspond.

    Brightness, contrast and coarse dropout are drawn for each view. The arguments are those of `augment`; a
    crop lies anywhere.

    Returns:
        Two batches of images.
    """
    draws = Draws(generator, len(images), slice(None))
    nowhere = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8, device=images.device)
    images, _ = _moved(images, nowhere, 1, strengths, draws, spacing_mm, window)
    return _varied(images, strengths, draws), _varied(images, strengths, draws)


def _moved(
    images: Tensor,
    masks: Tensor,
    classes: int,
    strengths: Strengths,
    draws: Draws,
    spacing_mm: Sequence[float] | None,
    window: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    if images.dim() == 4:
        grid = slices.sampling_grid(images, masks, strengths, draws)
    else:
        read, sides_mm = images.shape[2:], spacing_mm or (1.0, 1.0, 1.0)
        grid = volumes.sampling_grid(read, window or read, sides_mm, strengths, draws, images.device)
    one_hot = functional.one_hot(masks.long(), classes + 1)[..., 1:].movedim(-1, 1).to(images.dtype)
    moved = functional.grid_sample(
        torch.cat([images, one_hot], dim=1), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    images, covered = moved.split([images.shape[1], classes], dim=1)
    return images, likeliest(covered, covered.sum(1) >= 0.5).to(masks.dtype)


def _varied(images: Tensor, strengths: Strengths, draws: Draws) -> Tensor:
    return _drop_holes(_change_intensity(images, strengths, draws), strengths, draws)


def _change_intensity(images: Tensor, s: Strengths, draws: Draws) -> Tensor:
    chosen = draws.happens(s.brightness_chance)
    shift = s.brightness * draws.between(-1, 1) * chosen
    gain = 1 + s.contrast * draws.between(-1, 1) * chosen
    each = (-1, *[1] * (images.dim() - 1))
    shift, gain = (x.to(images.device, images.dtype).view(each) for x in (shift, gain))
    mean = images.mean(dim=tuple(range(2, images.dim())), keepdim=True)
    changed = ((images - mean) * gain + mean + shift).clamp(0, 1)
    return torch.where(chosen.to(images.device).view(each), changed, images)


def _drop_holes(images: Tensor, s: Strengths, draws: Draws) -> Tensor:
    size = images.shape[2:]
    chosen = draws.happens(s.dropout_chance)
    centres = draws.places(len(size), s.dropout_holes)
    half = s.dropout_size / 2
    holes = torch.ones(1, 1, *[1] * len(size), dtype=torch.bool)
    for axis, (length, middles) in enumerate(zip(size, centres, strict=True)):
        near = (torch.arange(length)[None, None] / length - middles[..., None]).abs() < half
        holes = holes & near.view(*middles.shape, *[-1 if axis == other else 1 for other in range(len(size))])
    dropped = holes.any(1) & chosen.view(-1, *[1] * len(size))
    return images.masked_fill(dropped[:, None].to(images.device), 0)
