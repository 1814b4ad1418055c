"""How an image is shown to people: which channel, how bright, and where the patient's right is.

Axial slices of canonical voxels (`volume.to_canonical`) are shown in the radiological convention: seen
from the feet, the patient's right on the left of the picture and anterior at the top.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AFTER_CONTRAST = ("t1ce", "t1c", "t1gd")
"""Names of T1 after contrast, in small letters."""

CHANNELS = ("flair", "t2f", "t2", "t2w", *AFTER_CONTRAST, "t1", "t1n", "t1w", "ct")
"""The first of these that a case has is shown: a tumour with its oedema is seen best on FLAIR."""

ENHANCING = ("enhanc", "necro", "core")
"""Classes with such a word in their name are seen after contrast only."""

ENHANCING_SHORT = ("et", "tc")
"""Likewise the short names of BraTS: enhancing tumour and tumour core."""

PERCENTILES = (1.0, 99.5)
"""Of the voxels besides the background: black and white, unless the image is CT in Hounsfield units."""

MOST_SAMPLED = 1_000_000
"""Percentiles are taken from about so many voxels of a regular grid."""

AIR_BELOW_HU = -500
"""An image that reaches below it shows air in Hounsfield units; other modalities hold no such values."""

LUNG_HU = (-950, -500)
"""Aerated lung; the air outside the body lies below."""

LUNG_SHARE = 0.3
"""Share of lung in the surroundings of the marks from which the lung window is taken."""

SURROUNDINGS_MM = 15.0
"""How far around the marks that is asked (voxels, where their size is unknown)."""

OBLIQUE_FROM = math.sin(math.radians(15))
"""Part of a direction from which a second letter names it too (DICOM PS3.3 C.7.6.1.1.1)."""

DIRECTIONS = ("RL", "AP", "SI")
"""Letters of the two ends of the axes of RAS+."""


class Window(NamedTuple):
    """Values shown black and white, in the image's unit, and what that is called."""

    low: float
    high: float
    words: str


LUNG = Window(-1350, 150, "lung window, level −600, width 1500 HU")
"""For what lies in the lung."""

SOFT_TISSUE = Window(-160, 240, "soft-tissue window, level 40, width 400 HU")
"""For everything else on CT."""


class Letters(NamedTuple):
    """What lies at each side of a picture: R or L, A or P, S or I, the strongest first."""

    left: str
    right: str
    top: str
    bottom: str


def letters(affine_ras: np.ndarray) -> Letters:
    """The patient's directions at the sides of an axial slice as it is shown.

    Args:
        affine_ras: 4×4 of the canonical grid, voxel index to RAS+ millimetres.
    """
    i, j = affine_ras[:3, 0], affine_ras[:3, 1]
    return Letters(_direction(i), _direction(-i), _direction(j), _direction(-j))


def _direction(vector: np.ndarray) -> str:
    parts = vector / np.linalg.norm(vector)
    strongest = sorted(range(3), key=lambda axis: -abs(parts[axis]))
    named = [axis for axis in strongest if abs(parts[axis]) >= OBLIQUE_FROM]
    return "".join(DIRECTIONS[axis][int(parts[axis] < 0)] for axis in named)


def shown_channel(channels: Sequence[str], label: str = "") -> str:
    """The channel on which a class is seen best; the first one where none is known.

    Args:
        channels: names of those that the case has, at least one.
        label: name of the class.
    """
    name = label.lower()
    enhancing = name in ENHANCING_SHORT or any(word in name for word in ENHANCING)
    wanted = (*AFTER_CONTRAST, *CHANNELS) if enhancing else CHANNELS
    known = {channel.lower(): channel for channel in channels}
    return next((known[name] for name in wanted if name in known), channels[0])


def choose_window(
    voxels: np.ndarray, marks: np.ndarray, spacing_mm: Sequence[float] | None = None, channel: str = ""
) -> Window:
    """What to show black and white: a window of CT, else robust percentiles.

    Args:
        voxels: in the image's unit, any number of axes.
        marks: bool, of the same shape: what the window must suit.
        spacing_mm: voxel size along each axis; None where unknown.
        channel: its name, where known; an image that is named as something else is not taken for CT.
    """
    if channel.upper() in ("", "CT") and voxels.min() < AIR_BELOW_HU:
        return LUNG if _share_of_lung(voxels, marks, spacing_mm) >= LUNG_SHARE else SOFT_TISSUE
    step = math.ceil((voxels.size / MOST_SAMPLED) ** (1 / voxels.ndim))
    sampled = voxels[(slice(None, None, step),) * voxels.ndim]
    values, counts = np.unique(sampled, return_counts=True)
    inside = sampled[sampled != values[counts.argmax()]]  # the background is what is there most
    low, high = np.percentile(inside if inside.size else sampled, PERCENTILES).tolist()
    if low == high:  # one value besides the background
        low, high = float(values[0]), float(values[-1])
    return Window(low, high, f"grey from {low:.4g} to {high:.4g}")


def brightness(voxels: np.ndarray, window: Window) -> np.ndarray:
    """Voxels as float32, 0 is black and 1 white."""
    width = window.high - window.low
    scaled = (voxels.astype(np.float32) - np.float32(window.low)) / np.float32(width if width > 0 else 1)
    return np.clip(scaled, 0, 1, out=scaled)


def brightened(image: np.ndarray, window: Window) -> np.ndarray:
    """The same array with `brightness` in place of its values, `i j k`; slice by slice to spare memory."""
    for k in range(image.shape[2]):
        image[..., k] = brightness(image[..., k], window)
    return image


def _share_of_lung(voxels: np.ndarray, marks: np.ndarray, spacing_mm: Sequence[float] | None) -> float:
    box = []
    for axis, size_mm in enumerate(spacing_mm or [1.0] * marks.ndim):
        others = tuple(other for other in range(marks.ndim) if other != axis)
        marked = np.flatnonzero(marks.any(axis=others))
        room = math.ceil(SURROUNDINGS_MM / size_mm)
        box.append(slice(max(marked[0] - room, 0), marked[-1] + 1 + room) if marked.size else slice(None))
    around = voxels[tuple(box)][~marks[tuple(box)]]
    return float(((around >= LUNG_HU[0]) & (around <= LUNG_HU[1])).mean()) if around.size else 0.0
