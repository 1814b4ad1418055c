"""Where each voxel of an augmented window of a volume is taken from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.augment.draws import Draws, Strengths

TRIED_ANGLES = 9
"""About each axis, to find out how far a rotation looks."""

ROUNDING = 1e-4
"""Of a margin in voxels."""


def sampling_grid(
    read: Sequence[int],
    window: Sequence[int],
    spacing_mm: Sequence[float],
    s: Strengths,
    draws: Draws,
    device: torch.device,
) -> Tensor:
    """One grid for flips, rotations, zoom and elastic deformation of each window, `n i j k 3`.

    Rotations and zoom are those of tissue in millimetres, so that they bend nothing where voxels are longer
    than wide. The axes are those of the patient: i to the right, j to the front, k to the head.

    Args:
        read: voxels along i, j, k that were read, with the window in their middle.
        window: voxels that are wanted.
        spacing_mm: voxel size along i, j, k.
        s: chances and ranges.
        draws: of as many rows as there are windows.
        device: where the windows are.

    Returns:
        Coordinates from -1 to 1 over what was read, in `grid_sample`'s order: along k, j, i.
    """
    theta = _affine(read, window, spacing_mm, s, draws)
    reverse = torch.arange(2, -1, -1)
    theta = torch.cat([theta[:, reverse][:, :, reverse], torch.zeros(len(theta), 3, 1)], dim=2)
    grid = functional.affine_grid(theta.to(device), [len(theta), 1, *window], align_corners=False)
    return grid + _elastic_displacement(grid, read, s, draws)


def margin_of(window: Sequence[int], spacing_mm: Sequence[float], s: Strengths) -> tuple[int, int, int]:
    """Voxels along i, j, k to read on either side of a window, so that no change looks beyond them.

    Elastic displacements are thought of up to two standard deviations.
    """
    half_mm = _half_mm(window, spacing_mm)
    most = (s.tilt_degrees, s.tilt_degrees, s.rotation_degrees) if s.rotation_chance else (0.0,) * 3
    tried = [torch.linspace(-math.radians(largest), math.radians(largest), TRIED_ANGLES) for largest in most]
    angles = torch.cartesian_prod(*tried).unbind(1)
    needed_mm = (_turned(angles).abs() @ half_mm).amax(0) / (s.scale_range[0] if s.scale_chance else 1)
    more = torch.clamp(needed_mm - half_mm, min=0) / torch.tensor(spacing_mm)
    more += 2 * s.elastic_pixels * (s.elastic_chance > 0)
    i, j, k = (math.ceil(voxels - ROUNDING) for voxels in more.tolist())
    return i, j, k


def _affine(
    read: Sequence[int], window: Sequence[int], spacing_mm: Sequence[float], s: Strengths, draws: Draws
) -> Tensor:
    """From where in the window to where in what was read, both from -1 to 1 along i, j, k: `n 3 3`."""
    chosen = draws.happens(s.rotation_chance)
    largest = (s.tilt_degrees, s.tilt_degrees, s.rotation_degrees)
    angles = [math.radians(most) * draws.between(-1, 1) * chosen for most in largest]
    zoom = torch.where(draws.happens(s.scale_chance), draws.between(*s.scale_range), 1.0)
    flips = 1 - 2 * torch.stack([draws.happens(chance) for chance in s.flip_chances], dim=1).float()
    from_mm, to_mm = _half_mm(window, spacing_mm), _half_mm(read, spacing_mm)
    return _turned(angles) / zoom[:, None, None] * from_mm / to_mm[:, None] * flips[:, None]


def _half_mm(size: Sequence[int], spacing_mm: Sequence[float]) -> Tensor:
    return torch.tensor([voxels * mm / 2 for voxels, mm in zip(size, spacing_mm, strict=True)])


def _turned(angles: Sequence[Tensor]) -> Tensor:
    """Rotations about i, then j, then k, of the patient in millimetres, `n 3 3`."""
    return _rotation(0, angles[0]) @ _rotation(1, angles[1]) @ _rotation(2, angles[2])


def _rotation(axis: int, angles: Tensor) -> Tensor:
    """About i, j or k, `n 3 3`."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrices = torch.eye(3).repeat(len(angles), 1, 1)
    matrices[:, first, first] = matrices[:, second, second] = angles.cos()
    matrices[:, first, second], matrices[:, second, first] = -angles.sin(), angles.sin()
    return matrices


def _elastic_displacement(grid: Tensor, size: Sequence[int], s: Strengths, draws: Draws) -> Tensor:
    """A smooth random field over each window, `n i j k 3`, read where `grid` looks."""
    coarse = draws.normal(3, *[s.elastic_cells] * 3)
    coarse *= draws.happens(s.elastic_chance)[:, None, None, None, None]
    if not coarse.any():
        return torch.zeros((), device=grid.device)
    # a voxel is 2/size in grid_sample's coordinates, which run from -1 to 1
    coarse *= (
        s.elastic_pixels * torch.tensor([2 / voxels for voxels in reversed(size)])[None, :, None, None, None]
    )
    smooth = functional.grid_sample(
        coarse.to(grid.device), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return smooth.permute(0, 2, 3, 4, 1)
