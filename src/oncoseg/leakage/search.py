"""Which images of two sides look the same, by the hashes of their slices.

Some slices of the image that has fewer are looked for among all slices of the other, so that a part of a
study is found, too. Turning or mirroring a slice by right angles only reorders and negates its frequencies,
so that such copies are found. Not found are copies that were turned by other angles (some degrees), warped
or cut within the body, and those of whose slices the other image lacks half.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from oncoseg.leakage.fingerprints import BITS, FREQUENCIES, NO_IMAGE, packed, unpacked

PROBES = 8
"""Slices, evenly spread, of the smaller image that are looked for; more than half must be found."""

MOST_BITS = 31
"""Bits of 255 in which slices that look the same may differ: an eighth. No two of 754 images of different
patients differ in fewer than 49; copies with other grey values, noise or voxel size differ in 0 to 31."""

FEW_SLICES = 4
"""With fewer slices an image must be more alike: single slices near the top of the head differ in only 31
bits between patients, four in a row in at least 41."""

MOST_BITS_OF_FEW = 16
"""Bits in which the slices of an image with fewer than `FEW_SLICES` may differ."""

MOST_FIRST_BITS = 12
"""Bits that may differ among the first 64, which are compared first to save time. Of slices that differ in
`MOST_BITS` in all, 8 are expected there."""

BLOCK = 1 << 14
"""Slices compared at once, so that the processor's cache holds them."""


class Match(NamedTuple):
    """Two images that look the same.

    Attributes:
        a: place of the first among the images of its side.
        b: place of the second.
        differing: bits in which the middle one of the compared slices differs.
        turned: whether one is turned by right angles or mirrored against the other.
    """

    a: int
    b: int
    differing: int
    turned: bool


class _Gallery(NamedTuple):
    """The slices of a side, image after image, those with the fewest slices first.

    Attributes:
        places: of the images on their side.
        counts: how many slices each has, in the same order.
        owners: for every slice, which of `places` it belongs to.
        firsts: 2 × slices, the first 64 bits of `hashes`.
        hashes: slices × 2 × 4.
    """

    places: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    firsts: np.ndarray
    hashes: np.ndarray


def alike(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], progress: Callable[[], None] | None = None
) -> list[Match]:
    """Compare all images of one side with all of another.

    Args:
        a: for each image the `ImageFingerprint.slices`.
        b: the same of the other side.
        progress: called once for every image of both sides.

    Returns:
        Those that look the same, by place on the first side, then on the second.
    """
    notify = progress or (lambda: None)
    forward = _searched(a, _gallery(b), "left", notify)
    back = (match._replace(a=match.b, b=match.a) for match in _searched(b, _gallery(a), "right", notify))
    return sorted([*forward, *back])


def _gallery(images: Sequence[np.ndarray]) -> _Gallery:
    counts = np.array([len(slices) for slices in images], int)
    places = np.argsort(counts, kind="stable")
    hashes = np.concatenate([NO_IMAGE.slices, *(images[place] for place in places)])
    owners = np.repeat(np.arange(len(places)), counts[places])
    return _Gallery(places, counts[places], owners, np.ascontiguousarray(hashes[:, :, 0].T), hashes)


def _searched(
    images: Sequence[np.ndarray],
    gallery: _Gallery,
    side: Literal["left", "right"],
    notify: Callable[[], None],
) -> Iterator[Match]:
    """Look for every image among those with at least as many slices (`left`) or with more (`right`)."""
    for number, slices in enumerate(images):
        notify()
        first = int(np.searchsorted(gallery.counts, len(slices), side))
        if len(slices) == 0 or first == len(gallery.counts):
            continue
        chosen = np.linspace(0, len(slices) - 1, min(len(slices), PROBES)).round().astype(int)
        as_is, *turned = (_differing(probes, gallery, first) for probes in _turns(slices[chosen]))
        best = np.minimum(as_is, np.min(turned, axis=0))
        allowed = MOST_BITS if len(slices) >= FEW_SLICES else MOST_BITS_OF_FEW
        for place in np.flatnonzero(best <= allowed):
            differing = int(best[place])
            turn = bool(differing < as_is[place])
            yield Match(number, int(gallery.places[first + place]), differing, turn)


def _turns(hashes: np.ndarray) -> list[np.ndarray]:
    """Hashes `n 2 4` of slices as they lie, then of the seven other ways in which a slice may be turned.

    Mirroring an axis negates its odd frequencies, transposing swaps the axes.
    """
    bits = unpacked(hashes)
    odd = np.arange(FREQUENCIES) % 2 == 1
    return [
        packed((bits.swapaxes(-1, -2) if transposed else bits) ^ (odd[:, None] & rows) ^ (odd & columns))
        for transposed, rows, columns in itertools.product((False, True), repeat=3)
    ]


def _differing(probes: np.ndarray, gallery: _Gallery, first: int) -> np.ndarray:
    """Bits in which the middle probe differs from the nearest slice of each image from `first` on.

    Of an even number of probes it is the upper middle one, so that more than half differ in no more bits.
    Both ways in which a slice is hashed are tried; one of them must serve for all probes.
    """
    nearest = np.full((2, len(probes), len(gallery.places)), BITS, np.uint8)
    start = int(np.searchsorted(gallery.owners, first))
    for begin in range(start, len(gallery.owners), BLOCK):
        block = slice(begin, begin + BLOCK)
        for view in range(2):
            differ = np.bitwise_count(probes[:, view, :1] ^ gallery.firsts[view, block])
            probe, place = np.divmod(np.flatnonzero(differ <= MOST_FIRST_BITS), differ.shape[1])
            candidates = gallery.hashes[block, view][place]
            whole = np.bitwise_count(probes[probe, view] ^ candidates).sum(axis=-1, dtype=np.uint8)
            np.minimum.at(nearest[view], (probe, gallery.owners[block][place]), whole)
    middle = np.sort(nearest[:, :, first:], axis=1)[:, len(probes) // 2]
    return np.asarray(middle.min(axis=0))
