"""Prediction in two stages: an organ in the whole image, then all else in a box around it, slab by slab."""

from collections.abc import Callable, Iterator

import numpy as np

from oncoseg.regions import Box, Found, margin_voxels, on_own_axes
from oncoseg.shares import foreground
from oncoseg.slabs import Place, SlabSource
from oncoseg.volume import Volume, to_canonical

Slabs = Iterator[tuple[Place, np.ndarray]]
"""Each slab's place in `c i j k` of a source, and its probabilities there, on the source's axes."""


def nothing_found(organ: str) -> str:
    """Said of an image in which stage 1 found nothing."""
    return (
        f"Stage 1 found no {organ} in this image, so nothing else was looked for: the mask is empty, which "
        "says nothing about tumours."
    )


def nothing_found_in(missed: int, cases: int, organ: str) -> str:
    """Said of an evaluation in which there are such images."""
    return (
        f"In {missed} of {cases} cases stage 1 found no {organ}, so that the prediction is empty, and counts "
        "as such in all scores."
    )


class Finder:
    """Takes in what stage 1 gives, and then knows the box.

    Args:
        source: that stage 1 is computed on.
        threshold: probability from which a voxel is of the organ; of several classes, of all together.
        margin_mm: by which the box is dilated.
    """

    def __init__(self, source: SlabSource, threshold: float, margin_mm: float) -> None:
        self._source, self._threshold, self._margin_mm = source, threshold, margin_mm
        self._found = Found(to_canonical(source.like)[0].grid)

    def watched(self, slabs: Slabs) -> Slabs:
        """The same slabs, each of which is taken in."""
        source, axis = self._source, self._source.axis
        for place, probability in slabs:
            marks = foreground(probability)[None] >= self._threshold
            start, stop, _ = place[axis + 1].indices(source.slices)
            canonical, _ = to_canonical(Volume(marks, source.like.affine_ras))
            self._found.add(source.slices - stop if source.backwards else start, canonical.array[0])
            yield place, probability

    def box(self) -> Box | None:
        """On the source's canonical grid; None where nothing was found."""
        spacing_mm = to_canonical(self._source.like)[0].spacing_mm
        return self._found.box(margin_voxels(self._margin_mm, spacing_mm))


def cascaded_slabs(
    source: SlabSource,
    finder: Finder,
    first: Slabs,
    second: Callable[[SlabSource], Slabs],
    classes: int,
    lost: Callable[[], None],
) -> Slabs:
    """Zeros for every slab of the source, while stage 1 is computed; then those of stage 2, in its box.

    Args:
        source: an open case.
        finder: of the source.
        first: what stage 1 gives.
        second: computes stage 2 on a part of the source.
        classes: that stage 2 gives.
        lost: called where stage 1 finds nothing.
    """
    for place, probability in finder.watched(first):
        yield place, np.zeros((classes, *probability.shape[1:]), np.float32)
    box = finder.box()
    if box is None:
        lost()
        return
    own = on_own_axes(box, source.like)
    for place, probability in second(source.within(own)):
        yield _moved(place, probability, own), probability


def _moved(place: Place, probability: np.ndarray, box: Box) -> Place:
    """What a place in a part of a source is in the whole."""
    firsts = [(part.start or 0) + first for part, (first, _) in zip(place[1:], box, strict=True)]
    sizes = probability.shape[1:]
    return (slice(None), *(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True)))
