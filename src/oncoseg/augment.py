"""Random changes of a training batch, fused into one resampling of images and masks together.

Runs on the device that holds the batch. All random numbers come from one CPU generator, so that the
same seed gives the same batch on every device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Strengths:
    """How often and how much; the fields mean what the recipe's augmentation fields mean."""

    flip_chance: float = 0.5
    rotation_chance: float = 0.5
    rotation_degrees: float = 15.0
    scale_chance: float = 0.0
    scale_range: tuple[float, float] = (0.85, 1.2)
    elastic_chance: float = 0.3
    elastic_pixels: float = 2.0
    elastic_cells: int = 8
    brightness_chance: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.15
    dropout_chance: float = 0.3
    dropout_holes: int = 4
    dropout_size: float = 0.125
    crop: tuple[int, int] | None = None
    crop_on_tumour: float = 0.5


def augment(
    images: Tensor, masks: Tensor, classes: int, strengths: Strengths, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Change every slice of a batch at random (S1, section 4.1).

    Crop, flips, rotation, zoom and elastic deformation are one sampling grid, applied once to image
    and mask; what comes from outside the slice is 0. Brightness, contrast and coarse dropout change
    the image only.

    Args:
        images: `n c h w`, in [0, 1].
        masks: `n h w`, class indices.
        classes: highest class index.
        strengths: chances and ranges.
        generator: on the CPU.

    Returns:
        Images and masks of the same types; of the crop's size if there is one, else the same.
    """
    grid = _sampling_grid(images, masks, strengths, generator)
    one_hot = functional.one_hot(masks.long(), classes + 1)[..., 1:].movedim(-1, 1).to(images.dtype)
    moved = functional.grid_sample(
        torch.cat([images, one_hot], dim=1), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    images, covered = moved.split([images.shape[1], classes], dim=1)
    share, label = covered.max(dim=1)
    masks = torch.where(share >= 0.5, label + 1, 0).to(masks.dtype)
    images = _change_intensity(images, strengths, generator)
    return _drop_holes(images, strengths, generator), masks


def _happens(chance: float, n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < chance


def _between(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _sampling_grid(images: Tensor, masks: Tensor, s: Strengths, generator: torch.Generator) -> Tensor:
    """Where each output pixel is taken from, `n h w 2`, as (x, y) from -1 to 1 over the slice."""
    n, _, *slice_size = images.shape
    window = s.crop or slice_size
    angle = math.radians(s.rotation_degrees) * _between(-1, 1, n, generator)
    angle = angle * _happens(s.rotation_chance, n, generator)
    zoom = torch.where(_happens(s.scale_chance, n, generator), _between(*s.scale_range, n, generator), 1.0)
    flip_x, flip_y = 1 - 2 * torch.stack([_happens(s.flip_chance, n, generator) for _ in range(2)]).float()
    height, width = (pixels / whole for pixels, whole in zip(window, slice_size, strict=True))
    aspect = slice_size[0] / slice_size[1]
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cosine * flip_x * width, -sine * flip_y * height * aspect
    theta[:, 1, 0], theta[:, 1, 1] = sine * flip_x * width / aspect, cosine * flip_y * height
    theta[:, :, 2] = _centres(masks, window, s.crop_on_tumour, generator)
    grid = functional.affine_grid(theta.to(images.device), [n, 1, *window], align_corners=False)
    return grid + _elastic_displacement(grid, slice_size, s, generator)


def _centres(masks: Tensor, window: Sequence[int], on_tumour: float, generator: torch.Generator) -> Tensor:
    """The middle of each slice's window, `n 2` as (x, y) from -1 to 1.

    With the chance `on_tumour`, near a random pixel of the slice's tumour; otherwise at any pixel. A
    window that would stick out is moved inside. Were its corner drawn instead, the slice's own corners
    would almost never be seen, and its middle always.
    """
    n, *slice_size = masks.shape
    spread = torch.rand(n, 2, generator=generator) * 2 - 1
    picks = torch.rand(n, generator=generator)
    chosen = _happens(on_tumour, n, generator)
    free = torch.tensor([1 - size / whole for size, whole in zip(window, slice_size, strict=True)])
    if not free.any():
        return torch.zeros(n, 2)
    centres = torch.clamp(spread, -free, free)
    marked = (masks > 0).cpu()
    for number in (chosen & marked.flatten(1).any(1)).nonzero().flatten().tolist():
        pixels = marked[number].nonzero()
        pixel = pixels[int(picks[number] * len(pixels))]
        middle = (pixel + 0.5) * 2 / torch.tensor(slice_size) - 1
        jitter = spread[number] * (1 - free) / 2
        centres[number] = torch.clamp(middle + jitter, -free, free)
    return centres.flip(-1)


def _elastic_displacement(
    grid: Tensor, slice_size: Sequence[int], s: Strengths, generator: torch.Generator
) -> Tensor:
    """A smooth random field over each slice, `n h w 2`, read where `grid` looks.

    The field belongs to the slice and not to the window, so that a crop bends tissue no more than the
    whole slice does.
    """
    coarse = torch.randn(len(grid), 2, s.elastic_cells, s.elastic_cells, generator=generator)
    coarse *= _happens(s.elastic_chance, len(grid), generator)[:, None, None, None]
    # a pixel is 2/size in grid_sample's coordinates, which run from -1 to 1
    coarse *= s.elastic_pixels * torch.tensor([2 / slice_size[1], 2 / slice_size[0]])[None, :, None, None]
    smooth = functional.grid_sample(
        coarse.to(grid.device), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return smooth.permute(0, 2, 3, 1)


def _change_intensity(images: Tensor, s: Strengths, generator: torch.Generator) -> Tensor:
    n = len(images)
    chosen = _happens(s.brightness_chance, n, generator)
    shift = s.brightness * _between(-1, 1, n, generator) * chosen
    gain = 1 + s.contrast * _between(-1, 1, n, generator) * chosen
    shift, gain = (x.to(images.device, images.dtype)[:, None, None, None] for x in (shift, gain))
    mean = images.mean(dim=(-2, -1), keepdim=True)
    changed = ((images - mean) * gain + mean + shift).clamp(0, 1)
    return torch.where(chosen.to(images.device)[:, None, None, None], changed, images)


def _drop_holes(images: Tensor, s: Strengths, generator: torch.Generator) -> Tensor:
    n, _, rows, columns = images.shape
    chosen = _happens(s.dropout_chance, n, generator)
    centres = torch.rand(2, n, s.dropout_holes, generator=generator)
    half = s.dropout_size / 2
    near_row = (torch.arange(rows)[None, None] / rows - centres[0][..., None]).abs() < half
    near_column = (torch.arange(columns)[None, None] / columns - centres[1][..., None]).abs() < half
    holes = (near_row[..., :, None] & near_column[..., None, :]).any(1) & chosen[:, None, None]
    return images.masked_fill(holes[:, None].to(images.device), 0)
