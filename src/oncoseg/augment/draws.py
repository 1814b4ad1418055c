"""How much an augmentation changes, and the random numbers that decide it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strengths:
    """How often and how much; the fields mean what the recipe's augmentation fields mean."""

    flip_chance: float = 0.5
    flip_chances: tuple[float, float, float] = (0.5, 0.0, 0.0)
    rotation_chance: float = 0.5
    rotation_degrees: float = 15.0
    tilt_degrees: float = 5.0
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


class Draws(NamedTuple):
    """Random numbers for some rows of a batch, which are the same whoever has the other rows."""

    generator: torch.Generator
    total: int
    rows: slice

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1, `rows …`."""
        return torch.rand(self.total, *shape, generator=self.generator)[self.rows]

    def places(self, axes: int, count: int) -> Tensor:
        """Positions between 0 and 1 along each axis, `axes rows count`."""
        return torch.rand(axes, self.total, count, generator=self.generator)[:, self.rows]

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and standard deviation 1, `rows …`."""
        return torch.randn(self.total, *shape, generator=self.generator)[self.rows]

    def happens(self, chance: float) -> Tensor:
        """Whether something does, for each row."""
        return self.uniform() < chance

    def between(self, low: float, high: float) -> Tensor:
        """A number for each row."""
        return low + (high - low) * self.uniform()
