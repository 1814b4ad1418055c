"""Random changes of a training batch, fused into one resampling of images and masks together.

Runs on the device that holds the batch. All random numbers come from one CPU generator, so that the
same seed gives the same batch on every device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class _Draws(NamedTuple):
    """Random numbers for some rows of a batch, which are the same whoever has the other rows."""

    generator: torch.Generator
    total: int
    rows: slice

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1, `rows …`."""
        return torch.rand(self.total, *shape, generator=self.generator)[self.rows]

    def places(self, count: int) -> Tensor:
        """Row and column between 0 and 1, `2 rows count`."""
        return torch.rand(2, self.total, count, generator=self.generator)[:, self.rows]

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and standard deviation 1, `rows …`."""
        return torch.randn(self.total, *shape, generator=self.generator)[self.rows]

    def happens(self, chance: float) -> Tensor:
        """Whether something does, for each row."""
        return self.uniform() < chance

    def between(self, low: float, high: float) -> Tensor:
        """A number for each row."""
        return low + (high - low) * self.uniform()


def augment(
    images: Tensor,
    masks: Tensor,
    classes: int,
    strengths: Strengths,
    generator: torch.Generator,
    *,
    rows: slice = slice(None),
    total: int | None = None,
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
        rows: which of a larger batch's rows these are: they are changed as they would be within it.
        total: rows of that batch; None where these are all.

    Returns:
        Images and masks of the same types; of the crop's size if there is one, else the same.
    """
    draws = _Draws(generator, len(images) if total is None else total, rows)
    grid = _sampling_grid(images, masks, strengths, draws)
    one_hot = functional.one_hot(masks.long(), classes + 1)[..., 1:].movedim(-1, 1).to(images.dtype)
    moved = functional.grid_sample(
        torch.cat([images, one_hot], dim=1), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    images, covered = moved.split([images.shape[1], classes], dim=1)
    share, label = covered.max(dim=1)
    masks = torch.where(share >= 0.5, label + 1, 0).to(masks.dtype)
    images = _change_intensity(images, strengths, draws)
    return _drop_holes(images, strengths, draws), masks


def _sampling_grid(images: Tensor, masks: Tensor, s: Strengths, draws: _Draws) -> Tensor:
    """Where each output pixel is taken from, `n h w 2`, as (x, y) from -1 to 1 over the slice."""
    n, _, *slice_size = images.shape
    window = s.crop or slice_size
    angle = math.radians(s.rotation_degrees) * draws.between(-1, 1)
    angle = angle * draws.happens(s.rotation_chance)
    zoom = torch.where(draws.happens(s.scale_chance), draws.between(*s.scale_range), 1.0)
    flip_x, flip_y = 1 - 2 * torch.stack([draws.happens(s.flip_chance) for _ in range(2)]).float()
    height, width = (pixels / whole for pixels, whole in zip(window, slice_size, strict=True))
    aspect = slice_size[0] / slice_size[1]
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cosine * flip_x * width, -sine * flip_y * height * aspect
    theta[:, 1, 0], theta[:, 1, 1] = sine * flip_x * width / aspect, cosine * flip_y * height
    theta[:, :, 2] = _centres(masks, window, s.crop_on_tumour, draws)
    grid = functional.affine_grid(theta.to(images.device), [n, 1, *window], align_corners=False)
    return grid + _elastic_displacement(grid, slice_size, s, draws)


def _centres(masks: Tensor, window: Sequence[int], on_tumour: float, draws: _Draws) -> Tensor:
    """The middle of each slice's window, `n 2` as (x, y) from -1 to 1.

    With the chance `on_tumour`, near a random pixel of the slice's tumour; otherwise at any pixel. A
    window that would stick out is moved inside. Were its corner drawn instead, the slice's own corners
    would almost never be seen, and its middle always.
    """
    n, *slice_size = masks.shape
    spread = draws.uniform(2) * 2 - 1
    picks = draws.uniform()
    chosen = draws.happens(on_tumour)
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


def _elastic_displacement(grid: Tensor, slice_size: Sequence[int], s: Strengths, draws: _Draws) -> Tensor:
    """A smooth random field over each slice, `n h w 2`, read where `grid` looks.

    The field belongs to the slice and not to the window, so that a crop bends tissue no more than the
    whole slice does.
    """
    coarse = draws.normal(2, s.elastic_cells, s.elastic_cells)
    coarse *= draws.happens(s.elastic_chance)[:, None, None, None]
    # a pixel is 2/size in grid_sample's coordinates, which run from -1 to 1
    coarse *= s.elastic_pixels * torch.tensor([2 / slice_size[1], 2 / slice_size[0]])[None, :, None, None]
    smooth = functional.grid_sample(
        coarse.to(grid.device), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return smooth.permute(0, 2, 3, 1)


def _change_intensity(images: Tensor, s: Strengths, draws: _Draws) -> Tensor:
    chosen = draws.happens(s.brightness_chance)
    shift = s.brightness * draws.between(-1, 1) * chosen
    gain = 1 + s.contrast * draws.between(-1, 1) * chosen
    shift, gain = (x.to(images.device, images.dtype)[:, None, None, None] for x in (shift, gain))
    mean = images.mean(dim=(-2, -1), keepdim=True)
    changed = ((images - mean) * gain + mean + shift).clamp(0, 1)
    return torch.where(chosen.to(images.device)[:, None, None, None], changed, images)


def _drop_holes(images: Tensor, s: Strengths, draws: _Draws) -> Tensor:
    rows, columns = images.shape[-2:]
    chosen = draws.happens(s.dropout_chance)
    centres = draws.places(s.dropout_holes)
    half = s.dropout_size / 2
    near_row = (torch.arange(rows)[None, None] / rows - centres[0][..., None]).abs() < half
    near_column = (torch.arange(columns)[None, None] / columns - centres[1][..., None]).abs() < half
    holes = (near_row[..., :, None] & near_column[..., None, :]).any(1) & chosen[:, None, None]
    return images.masked_fill(holes[:, None].to(images.device), 0)
