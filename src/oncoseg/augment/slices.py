"""Where each pixel of an augmented slice is taken from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.augment.draws import Draws, Strengths


def sampling_grid(images: Tensor, masks: Tensor, s: Strengths, draws: Draws) -> Tensor:
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


def _centres(masks: Tensor, window: Sequence[int], on_tumour: float, draws: Draws) -> Tensor:
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


def _elastic_displacement(grid: Tensor, slice_size: Sequence[int], s: Strengths, draws: Draws) -> Tensor:
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
