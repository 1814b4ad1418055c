"""A glioma with a necrotic core inside an enhancing rim inside oedema, as signed distances and labels.

Positions are those of `oncoseg.phantom.brain_anatomy`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from oncoseg.phantom.brain_anatomy import CEREBRUM_CENTRE, CEREBRUM_RADII, Brain, draw_field
from oncoseg.phantom.shapes import Axes, SmoothField, mesh, random_direction

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4
"""Labels of BraTS 2021."""

CORE_RADIUS_MM = (6.0, 24.0)
"""Smallest and largest radius of a tumour's core."""

SECOND_TUMOUR_SHARE = 0.25
"""Share of patients with a second, smaller tumour."""

LEAST_ACROSS_MM = 12.0
"""Tumours grow at least this far from the plane between both halves of the brain."""


@dataclass(frozen=True, eq=False)
class Tumour:
    """What a tumour looks like before it is sampled; lengths in millimetres.

    Attributes:
        centre: its middle.
        radius: of its core, on average.
        rim: thickness of the enhancing rim.
        spread: how far oedema reaches beyond the core, on average.
        stretch: orthogonal directions (rows) scaled by one over the core's extent along them.
        bumps: displaces the core's surface.
        fingers: displaces the oedema's surface.
        irregularity: how far bumps displace, relative to the radius.
    """

    centre: np.ndarray
    radius: float
    rim: float
    spread: float
    stretch: np.ndarray
    bumps: SmoothField
    fingers: SmoothField
    irregularity: float


@dataclass(frozen=True, eq=False)
class Lesion:
    """A patient's tumours on a grid, `i j k`: signed distances in millimetres, negative inside."""

    whole_mm: np.ndarray
    core_mm: np.ndarray
    necrosis_mm: np.ndarray


def draw_tumours(rng: np.random.Generator) -> list[Tumour]:
    """Draw a patient's one or two tumours, the larger first."""
    low, high = np.log(CORE_RADIUS_MM)
    radius = float(np.exp(rng.uniform(low, high)))
    tumours = [_draw_tumour(rng, radius)]
    if rng.uniform() < SECOND_TUMOUR_SHARE:
        tumours.append(_draw_tumour(rng, max(CORE_RADIUS_MM[0], radius * rng.uniform(0.3, 0.7))))
    return tumours


def sample_lesion(tumours: list[Tumour], brain: Brain, axes: Axes) -> Lesion:
    """Grow the tumours into a brain: oedema follows white matter and stays out of fluid."""
    x, y, z = mesh(axes)
    guide = np.float32(5.0) * brain.grey + np.float32(9.0) * brain.fluid
    parts = []
    for tumour in tumours:
        offset = [p - np.float32(c) for p, c in zip((x, y, z), tumour.centre, strict=True)]
        turned = [sum(np.float32(r) * o for r, o in zip(row, offset, strict=True)) for row in tumour.stretch]
        distance = np.sqrt(sum(t * t for t in turned)) - np.float32(tumour.radius)
        core = distance + np.float32(tumour.irregularity * tumour.radius) * tumour.bumps.on(axes)
        fingers = np.float32(0.4 * tumour.spread) * tumour.fingers.on(axes)
        oedema = np.float32(0.8) * distance + np.float32(0.2) * core - np.float32(tumour.spread)
        thickness = np.float32(tumour.rim) * (1 + np.float32(0.35) * tumour.fingers.on(axes))
        parts.append((oedema + fingers + guide, core, core + np.maximum(thickness, 1)))
    whole, core, necrosis = (np.minimum.reduce(part) for part in zip(*parts, strict=True))
    return Lesion(np.minimum(whole, core), core, necrosis)


def draw_labels(lesion: Lesion, mask: np.ndarray) -> np.ndarray:
    """Labels `i j k`, uint8; each has at least one voxel around the next inner one, within the brain.

    On a coarse grid the deepest voxel is necrosis even where the rim fills the core.
    """
    deepest = lesion.necrosis_mm[mask].min()
    necrosis = (lesion.necrosis_mm <= max(deepest, 0)) & mask
    core = ((lesion.core_mm < 0) & mask) | (ndimage.binary_dilation(necrosis) & mask)
    whole = ((lesion.whole_mm < 0) & mask) | (ndimage.binary_dilation(core) & mask)
    labels = np.zeros(mask.shape, dtype=np.uint8)
    labels[whole] = OEDEMA
    labels[core] = ENHANCING
    labels[necrosis] = NECROSIS
    return labels


def _draw_tumour(rng: np.random.Generator, radius: float) -> Tumour:
    rim = min(rng.uniform(2.5, 5.0), 0.6 * radius)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Tumour(
        centre=_draw_centre(rng, radius),
        radius=radius,
        rim=rim,
        spread=rng.uniform(5.0, 17.0),
        stretch=rotation / rng.uniform(0.75, 1.3, (3, 1)),
        bumps=draw_field(rng, rng.uniform(7.0, 14.0)),
        fingers=draw_field(rng, rng.uniform(8.0, 14.0)),
        irregularity=rng.uniform(0.05, 0.25),
    )


def _draw_centre(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A place in one half of the cerebrum, deeper for a larger core, not in its lowest part."""
    while True:
        reach = np.subtract(CEREBRUM_RADII, 0.5 * radius + 8)
        centre = CEREBRUM_CENTRE + random_direction(rng) * reach * rng.uniform(0.4, 1.0)
        if abs(centre[0]) > LEAST_ACROSS_MM and centre[2] > -5:
            return centre
