"""Is this image what it is said to be? A rough look before anything is trained on it or predicted from it.

Two kinds of questions. Some things cannot be right: a CT whose values are those of a picture, an MRI that
holds Hounsfield units, voxels of a metre. Others are unlike what the network has been trained on: another
part of the body, much thicker slices. The first are refused, unless the user insists; the second are remarks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from oncoseg.io import orientation_known
from oncoseg.volume import Volume, to_canonical

CT = "CT"
"""The channel whose values are Hounsfield units."""

SAMPLED_VOXELS = 2_000_000
"""About so many voxels of a channel are looked at, spread evenly."""

COUNTED_VOXELS = 20_000
"""Among about so many of them different values are counted."""

FEWEST_LEVELS = 12
"""An image has more different values than this, a label map often has not."""

LABELS = (*range(1, 21), 255)
"""Largest value of most label maps."""

AIR_HU, NO_AIR_HU = -500.0, -150.0
"""Air and lung lie below the first; a body with some fat and noise around it reaches below the second."""

PICTURE_LARGEST = 255.0
"""Largest value of a picture with 8 bits."""

UNSHIFTED_HU = 700.0
"""Without RescaleIntercept water is stored near 1024, so that most of a body lies above this."""

METAL_HU = 32767.0
"""No scanner writes more."""

CT_AIR_SHARE = 0.02
"""An image with so many voxels near -1000 and none far below -1100 holds Hounsfield units."""

CT_AIR_RANGE = (-1100.0, -850.0)
"""Where air lies in a CT."""

VOXEL_MM = (0.01, 15.0)
"""Smallest and largest plausible distance of voxels."""

EXTENT_MM = (1.0, 2500.0)
"""Smallest and largest plausible length of an image along any axis across the slices."""

BACKGROUND = 0.05
"""Voxels up to this share of the brightest (99.5th percentile) are background in other images than CT."""

STANDARDISED = 0.2
"""Values so far below 0, as a share of the brightest, are more than a spline's undershoot."""

SHARE_MARGIN = 0.15
"""Shares of air may differ by so much from all that was trained on."""

LENGTH_FACTOR = 1.5
"""Lengths may be so many times larger or smaller than all that was trained on."""


class Channel(NamedTuple):
    """What the voxels of one channel look like.

    Attributes:
        smallest: of all that were looked at.
        low: 0.5th percentile.
        high: 99.5th percentile.
        largest: of all that were looked at.
        air: share of voxels below `AIR_HU`.
        ct_air: share of voxels in `CT_AIR_RANGE`.
        background: share of voxels at most `BACKGROUND` of `high`.
        levels: number of different values among some thousand voxels.
    """

    smallest: float
    low: float
    high: float
    largest: float
    air: float
    ct_air: float
    background: float
    levels: int


@dataclass(frozen=True)
class Look:
    """What one case looks like; axes are the canonical ones, along k from the feet to the head.

    Attributes:
        channels: what was looked at, by channel.
        slices: number of axial slices.
        spacing_mm: voxel size along i, j, k; None where the files hold none.
        extent_mm: length along i, j, k; None likewise.
        oriented: whether the files say how the patient lies.
    """

    channels: Mapping[str, Channel]
    slices: int
    spacing_mm: tuple[float, float, float] | None
    extent_mm: tuple[float, float, float] | None
    oriented: bool

    def as_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"channels": {name: c._asdict() for name, c in self.channels.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Look":
        """From what `as_json` gave."""
        spacing, extent = (values[name] and tuple(values[name]) for name in ("spacing_mm", "extent_mm"))
        channels = {name: Channel(**channel) for name, channel in values["channels"].items()}
        return cls(channels, values["slices"], spacing, extent, values["oriented"])


class Doubt(NamedTuple):
    """Something that is not as expected.

    Attributes:
        kind: a short, stable word.
        refused: whether it must not be used unless the user insists.
        text: what was expected, what came and how to mend it.
    """

    kind: str
    refused: bool
    text: str


class Range(NamedTuple):
    """Smallest and largest value in all cases that a network was trained on."""

    low: float
    high: float


def look(like: Volume, channels: Mapping[str, np.ndarray]) -> Look:
    """Look at an image.

    Args:
        like: its grid and header; its voxels are not looked at.
        channels: name → voxels, in any shape; of a long scan some slices serve.
    """
    canonical, _ = to_canonical(like)
    spacing = canonical.spacing_mm if like.spacing_known else None
    i, j, k = (n * size for n, size in zip(canonical.grid, canonical.spacing_mm, strict=True))
    return Look(
        {name: channel(voxels) for name, voxels in channels.items()},
        canonical.grid[2],
        spacing,
        spacing and (i, j, k),
        orientation_known(like),
    )


def channel(voxels: np.ndarray) -> Channel:
    """Look at about `SAMPLED_VOXELS` of one channel's voxels, in any shape."""
    step = max(1, round((voxels.size / SAMPLED_VOXELS) ** (1 / 3)))
    sampled = voxels[tuple(slice(None, None, step if n > step else 1) for n in voxels.shape)]
    smallest, low, high, largest = (float(v) for v in np.percentile(sampled, (0, 0.5, 99.5, 100)))
    first, last = CT_AIR_RANGE
    return Channel(
        smallest,
        low,
        high,
        largest,
        air=float(np.mean(sampled < AIR_HU)),
        ct_air=float(np.mean((sampled > first) & (sampled < last))),
        background=float(np.mean(sampled <= BACKGROUND * high)),
        levels=len(np.unique(sampled.reshape(-1)[:: max(1, sampled.size // COUNTED_VOXELS)])),
    )


def doubts(found: Look, in_hounsfield: bool) -> list[Doubt]:
    """What cannot be right with an image, whatever it shows.

    Args:
        found: what it looks like.
        in_hounsfield: whether the preparation takes CT values as Hounsfield units, as a window does; where
            it scales each slice by itself other units are only remarked upon.
    """
    listed = _lengths(found)
    for name, values in found.channels.items():
        if values.levels <= FEWEST_LEVELS and values.smallest == 0 and values.largest in LABELS:
            listed.append(_label_map(name, values))
        else:
            listed += _ct(values, in_hounsfield) if name == CT else _not_ct(name, values)
    if not found.oriented:
        text = (
            "The files do not say how the patient lies; the usual order of rows, columns and slices is "
            "assumed. Left and right may be exchanged."
        )
        listed.append(Doubt("no-orientation", False, text))
    return listed


def _label_map(name: str, values: Channel) -> Doubt:
    text = (
        f"{name}: expected an image, got only {values.levels} different values from {values.smallest:g} to "
        f"{values.largest:g}, as in a label map. Check that the right file is there."
    )
    return Doubt("looks-like-labels", True, text)


def _ct(values: Channel, in_hounsfield: bool) -> list[Doubt]:
    extremes = f"{values.smallest:g} to {values.largest:g}"
    expected = "CT: expected Hounsfield units (air -1000, water 0)"
    if values.smallest >= 0 and values.largest <= PICTURE_LARGEST:
        text = f"{expected}, got {extremes}, as of a picture. Export the CT from its DICOM files."
        return [Doubt("not-hounsfield", in_hounsfield, text)]
    if values.smallest >= 0 and values.high > UNSHIFTED_HU:
        text = (
            f"{expected}, got {extremes}, as if stored values had not been shifted by their "
            "RescaleIntercept. Convert the DICOM files again, or subtract 1024."
        )
        return [Doubt("not-hounsfield", in_hounsfield, text)]
    if max(values.largest, -values.smallest) > METAL_HU:
        text = f"{expected}, got {extremes}. Convert the DICOM files again."
        return [Doubt("not-hounsfield", in_hounsfield, text)]
    if values.smallest > NO_AIR_HU:
        text = (
            f"CT: expected some air or fat, got {extremes}. It may have been cropped within an organ or "
            "its values clipped."
        )
        return [Doubt("no-air", False, text)]
    return []


def _not_ct(name: str, values: Channel) -> list[Doubt]:
    extremes = f"{values.smallest:g} to {values.largest:g}"
    if values.ct_air > CT_AIR_SHARE and values.smallest > 3 * CT_AIR_RANGE[0]:
        text = (
            f"{name}: expected an MRI, got {extremes} with {values.ct_air:.0%} of the voxels near -1000, "
            "as in a CT. Check that the right file is there."
        )
        return [Doubt("looks-like-ct", True, text)]
    if values.smallest < -STANDARDISED * values.high:
        text = (
            f"{name}: expected a magnitude image from 0 up, got {extremes}. It has probably been "
            "standardised; train and predict on images of one kind."
        )
        return [Doubt("negative", False, text)]
    return []


def _lengths(found: Look) -> list[Doubt]:
    if found.spacing_mm is None or found.extent_mm is None:
        return []
    wrong = [
        *(size for size in found.spacing_mm if not VOXEL_MM[0] <= size <= VOXEL_MM[1]),
        *(length for length in found.extent_mm[:2] if not EXTENT_MM[0] <= length <= EXTENT_MM[1]),
    ]
    if not wrong:
        return []
    text = (
        f"Expected voxels of {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm and slices {EXTENT_MM[0]:g} to "
        f"{EXTENT_MM[1]:g} mm wide, got voxels of {_by(found.spacing_mm)} mm and "
        f"{_by(found.extent_mm[:2])} mm. The header's unit is probably wrong."
    )
    return [Doubt("size", True, text)]


def summarise(looks: Iterable[Look]) -> dict[str, list[float]]:
    """Smallest and largest of each trait among the cases that a network is trained on."""
    values: dict[str, list[float]] = {}
    for one in looks:
        for name, value in _traits(one).items():
            values.setdefault(name, []).append(value)
    return {name: [min(listed), max(listed)] for name, listed in values.items()}


def unlike(found: Look, trained: Mapping[str, Sequence[float]]) -> list[Doubt]:
    """In what an image is unlike everything that the network was trained on.

    Args:
        found: what the image looks like.
        trained: from `summarise`.
    """
    listed = []
    for name, value in _traits(found).items():
        if name not in trained:
            continue
        seen = Range(*trained[name])
        if name.startswith("share"):
            low, high = seen.low - SHARE_MARGIN, seen.high + SHARE_MARGIN
        else:
            low, high = seen.low / LENGTH_FACTOR, seen.high * LENGTH_FACTOR
        if not low <= value <= high:
            what, shown = WORDS[name.partition(":")[0]], _percent if name.startswith("share") else _number
            of = f" of {name.partition(':')[2]}" if ":" in name else ""
            text = (
                f"{what}{of} is {shown(value)}; the network was trained on {shown(seen.low)} to "
                f"{shown(seen.high)}. It may show another part of the body or come from another scanner: "
                "look at the result before you use it."
            )
            listed.append(Doubt("unlike-training", False, text))
    return listed


WORDS = {
    "share-air": "The share of air and lung",
    "share-background": "The share of dark background",
    "spacing-in-slice": "The distance of pixels (mm)",
    "spacing-of-slices": "The distance of slices (mm)",
    "width": "The width of a slice (mm)",
    "range": "The range of values",
}
"""Trait → what it is called."""


def _traits(found: Look) -> dict[str, float]:
    """Numbers that can be compared between cases: lengths in mm, ranges, shares of voxels."""
    traits: dict[str, float] = {}
    for name, values in found.channels.items():
        if name == CT:
            traits |= {f"share-air:{name}": values.air, f"range:{name}": values.high - values.low}
        else:
            traits[f"share-background:{name}"] = values.background
    if found.spacing_mm is not None and found.extent_mm is not None:
        traits |= {
            "spacing-in-slice": math.sqrt(found.spacing_mm[0] * found.spacing_mm[1]),
            "spacing-of-slices": found.spacing_mm[2],
            "width": max(found.extent_mm[:2]),
        }
    return traits


def _by(lengths: Sequence[float]) -> str:
    return " × ".join(f"{length:.3g}" for length in lengths)


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _number(value: float) -> str:
    return f"{value:.3g}"
