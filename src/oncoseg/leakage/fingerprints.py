"""A few kB by which an image is recognised, whatever it is called and however it was stored.

A fingerprint holds a hash of the voxels and two perceptual hashes per axial slice: the signs of the lowest
frequencies of its cosine transform. (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010, section 3.2, compares 64 frequencies with their median; here 255 with zero.) One is of
the slice as it lies, and bears other grey values, noise and voxel sizes; the other is of the part that
holds anything, and bears another margin.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.volume import Volume, to_canonical

VERSION = 1
"""Raised whenever the same image would get another fingerprint, so that remembered ones are not used."""

FREQUENCIES = 16
"""Lowest frequencies kept along each axis of a slice. Of 754 images of 298 real patients the two most alike
of different patients, whatever their channels, differ in 49 of 255 bits (19 %); with 8 frequencies it would
be 4 of 63 (6 %)."""

BITS = FREQUENCIES**2 - 1
"""Bits of a slice's hash; frequency (0, 0), the mean, has none."""

THUMBNAIL = 2 * FREQUENCIES
"""Pixels along each axis to which a slice is averaged before its transform."""

LEAST_SIDE = FREQUENCIES
"""Smaller contents, in pixels along an axis, do not have all the frequencies; such slices have no hash."""

CLIP_PERCENTILES = (2.0, 98.0)
"""A thumbnail's values beyond them are cut, so that metal or a bright vessel does not decide all bits."""

FRAME_LEVEL = 0.15
"""Share of a slice's range of values above which a pixel belongs to its content, not to its margin."""

LEAST_CONTENT = 0.25
"""Slices are left out whose content covers less than this share of the largest one's (the top of a head is an
oval in everyone), or whose range of values is less than this share of the slices' upper quartile (noise)."""

ROUNDING = 1e-9
"""A share of the largest value below which a value may be what rounding leaves of 0."""


class ImageFingerprint(NamedTuple):
    """What is kept of an image to recognise it by.

    Attributes:
        content: hash of the voxels' values and the shape, in canonical orientation, whatever the type of
            number; None for an image with one value everywhere, which is like no other.
        slices: uint64, slices × 2 × 4: of each axial slice that tells patients apart the hash as it lies
            and that of its content. Slices may be none.
    """

    content: str | None
    slices: np.ndarray


NO_IMAGE = ImageFingerprint(None, np.zeros((0, 2, FREQUENCIES**2 // 64), np.uint64))
"""The fingerprint of what could not be read or has one value everywhere."""


class _Look(NamedTuple):
    """One slice: range of values, content's area in pixels, bits (2 × frequencies × frequencies) if any."""

    contrast: float
    area: float
    bits: np.ndarray | None


def fingerprint(image: Volume | np.ndarray) -> ImageFingerprint:
    """Describe an image by hashes.

    Args:
        image: a volume, or an array `c i j k`, `i j k` or `i j` in canonical orientation. Of several
            channels the first is looked at.

    Raises:
        ValueError: another number of axes, no voxel, or values that are not finite real numbers.
    """
    voxels = _first_channel(image)
    digest = hashlib.blake2b(repr(voxels.shape).encode(), digest_size=16)
    looks = []
    for k in range(voxels.shape[2]):
        pixels = voxels[:, :, k].astype(np.float64, order="C") + 0.0  # −0 becomes 0
        if not np.isfinite(pixels).all():
            raise ValueError(f"Expected finite voxels, but slice {k} holds others.")
        digest.update(_exact(pixels).data)
        looks.append(_look(pixels))
    if voxels.min() == voxels.max():
        return NO_IMAGE
    kept = _kept(looks)
    return ImageFingerprint(digest.hexdigest(), packed(np.array(kept)) if kept else NO_IMAGE.slices)


def _exact(pixels: np.ndarray) -> np.ndarray:
    """The same values in half the bytes where these hold them, since hashing takes a quarter of the time."""
    smaller = pixels.astype(np.float32)
    return smaller if np.array_equal(smaller, pixels) else pixels


def packed(bits: np.ndarray) -> np.ndarray:
    """Bits `… frequency frequency` as uint64 `… 4`."""
    return np.packbits(bits.reshape(*bits.shape[:-2], -1), axis=-1).view(np.uint64)


def unpacked(hashes: np.ndarray) -> np.ndarray:
    """Undo `packed`."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=-1).astype(bool)
    return bits.reshape(*hashes.shape[:-1], FREQUENCIES, FREQUENCIES)


def _first_channel(image: Volume | np.ndarray) -> np.ndarray:
    array = to_canonical(image)[0].array if isinstance(image, Volume) else image
    if array.ndim not in (2, 3, 4) or array.size == 0 or array.dtype.kind not in "buif":
        raise ValueError(
            "Expected real voxels with axes c i j k, i j k or i j, got an array of "
            f"{array.dtype} and shape {array.shape}."
        )
    if array.ndim == 2:
        return array[:, :, None]
    return array[0] if array.ndim == 4 else array


def _kept(looks: Sequence[_Look]) -> list[np.ndarray]:
    """The bits of the slices that tell patients apart."""
    least = LEAST_CONTENT * np.percentile([look.contrast for look in looks], 75)
    clear = [look for look in looks if look.contrast >= least]
    largest = max(look.area for look in clear)
    return [look.bits for look in clear if look.bits is not None and look.area >= LEAST_CONTENT * largest]


def _look(pixels: np.ndarray) -> _Look:
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(pixels, 3, mode="nearest")  # a noisy pixel in the margin is no content
    level = smooth.min() + FRAME_LEVEL * np.ptp(smooth)
    content = (_extent(smooth.max(axis=1), level), _extent(smooth.max(axis=0), level))
    rows, columns = (stop - start for start, stop in content)
    bits = None
    if min(rows, columns) >= LEAST_SIDE:
        whole = ((0.0, float(pixels.shape[0])), (0.0, float(pixels.shape[1])))
        views = [_sign_bits(pixels, extents) for extents in (whole, content)]
        bits = None if any(view is None for view in views) else np.array(views)
    return _Look(float(np.ptp(smooth)), rows * columns, bits)


def _extent(profile: np.ndarray, level: float) -> tuple[float, float]:
    """From where to where a profile is above a level, to fractions of a pixel, by linear interpolation."""
    above = np.flatnonzero(profile > level)
    if not len(above):
        return 0.0, 0.0
    first, last = int(above[0]), int(above[-1])
    start, stop = 0.0, float(len(profile))
    if first > 0:
        start = first + 0.5 - (profile[first] - level) / (profile[first] - profile[first - 1])
    if last < len(profile) - 1:
        stop = last + 0.5 + (profile[last] - level) / (profile[last] - profile[last + 1])
    return float(start), float(stop)


def _sign_bits(pixels: np.ndarray, extents: Sequence[tuple[float, float]]) -> np.ndarray | None:
    """Which of the lowest frequencies are positive; None where the thumbnail has one value."""
    from scipy.fft import dctn

    rows, columns = extents
    small = _averaged(_averaged(pixels, *rows).T, *columns).T
    small = np.clip(small, *np.percentile(small, CLIP_PERCENTILES))
    if np.ptp(small) <= ROUNDING * np.ptp(pixels):
        return None
    spectrum = dctn(small, norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    spectrum[0, 0] = 0
    return np.asarray(spectrum > ROUNDING * np.abs(spectrum).max())


def _averaged(pixels: np.ndarray, start: float, stop: float) -> np.ndarray:
    """The means of THUMBNAIL equal parts of an extent along the first axis.

    The parts end within pixels. Their integrals are differences of running sums: products of matrices
    would wait for the processors that a training holds.
    """
    sums = np.concatenate([np.zeros((1, pixels.shape[1])), np.cumsum(pixels, axis=0)])
    edges = np.linspace(start, stop, THUMBNAIL + 1)
    whole = np.minimum(edges.astype(int), len(pixels) - 1)
    integrals = sums[whole] + (edges - whole)[:, None] * pixels[whole]
    return np.asarray(np.diff(integrals, axis=0) * (THUMBNAIL / (stop - start)))
