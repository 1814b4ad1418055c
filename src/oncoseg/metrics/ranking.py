"""Exact ROC-AUC and average precision of any number of voxels, in memory that is bounded by the tumour.

Both follow from two counts for every distinct probability among the tumour voxels: how many
background voxels lie below it, and how many on it. The background is therefore never sorted as a
whole; it passes by in chunks. `histogram` gives the whole curve and adds up over cases, at the price
of a bounded error.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK_VOXELS = 1 << 22
"""Voxels looked at together: some 150 MB of working memory, while calls into NumPy stay few."""

CELLS = 1 << 21
"""Most cells that the range of the tumour's probabilities is cut into; 16 MB for a count of each."""

MOST_VOXELS = 1 << 32
"""With fewer, twice the number of (tumour, background) pairs is under 2⁶³, so that int64 is exact."""


class Ranking(NamedTuple):
    """How well a probability sorts tumour voxels before background; NaN where one of them is missing.

    Attributes:
        auc: area under the ROC curve in [0, 1]: the chance that a tumour voxel gets more than a
            background voxel, ties counting half (Hanley and McNeil, Radiology 1982). Chance is 0.5.
        average_precision: Σ (Rₙ − Rₙ₋₁)·Pₙ in (0, 1] over falling thresholds, each distinct
            probability being one step; nothing is interpolated. Chance is the share of tumour.
    """

    auc: float
    average_precision: float


def ranking(probability: np.ndarray, truth: np.ndarray, chunk_voxels: int = CHUNK_VOXELS) -> Ranking:
    """Both areas, exactly, from two passes over arrays that may be memory maps of any layout.

    The working memory is that of a chunk and of some ten numbers for every tumour voxel. Truth
    without tumour or without background gives NaN for both.

    Args:
        probability: in [0, 1], real, any shape.
        truth: bool, of the same shape.
        chunk_voxels: voxels looked at together; of no influence on the result.

    Raises:
        ValueError: another shape or type, a probability outside [0, 1] or NaN, or MOST_VOXELS reached.
    """
    if truth.size >= MOST_VOXELS:
        raise ValueError(f"Expected fewer than {MOST_VOXELS} voxels, got {truth.size}.")
    found = [part[tumour] for part, tumour in paired_chunks(probability, truth, chunk_voxels)]
    if not sum(map(len, found)):
        return Ranking(math.nan, math.nan)
    levels, tumours = np.unique(np.concatenate(found), return_counts=True)
    background = truth.size - int(tumours.sum())
    if not background:
        return Ranking(math.nan, math.nan)
    below, equal = _background_counts(probability, truth, levels, chunk_voxels)
    return Ranking(_auc(tumours, below, equal, background), _average_precision(tumours, below, background))


def roc_auc_exact(probability: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve without binning, ties counting half; see `ranking`."""
    return ranking(probability, truth).auc


def average_precision_exact(probability: np.ndarray, truth: np.ndarray) -> float:
    """Average precision without binning, every distinct probability one step; see `ranking`."""
    return ranking(probability, truth).average_precision


def paired_chunks(
    probability: np.ndarray, truth: np.ndarray, chunk_voxels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Go through probabilities and truth together, in whatever order reads them fastest.

    Yields:
        One-dimensional arrays of at most `chunk_voxels` probabilities and their truth. They are valid
        until the next pair.

    Raises:
        ValueError: another shape or type, or a probability outside [0, 1] or NaN.
    """
    if probability.shape != truth.shape or truth.dtype != bool:
        raise ValueError(
            f"Expected probabilities and a bool mask of one shape, got {probability.shape} and "
            f"{truth.dtype} {truth.shape}."
        )
    with np.nditer(
        [probability, truth],
        flags=["external_loop", "buffered", "zerosize_ok"],
        order="K",
        buffersize=chunk_voxels,
    ) as chunks:
        for part, tumour in chunks:
            if part.size and not (part.min() >= 0 and part.max() <= 1):  # NaN fails both
                raise ValueError(f"Expected probabilities in [0, 1], got {part.min()} to {part.max()}.")
            yield part, tumour


def _auc(tumours: np.ndarray, below: np.ndarray, equal: np.ndarray, background: int) -> float:
    won_twice = int((tumours * (2 * below + equal)).sum())
    return won_twice / (2 * int(tumours.sum()) * background)


def _average_precision(tumours: np.ndarray, below: np.ndarray, background: int) -> float:
    true = np.cumsum(tumours[::-1])[::-1]
    precision = true / (true + background - below)
    return float((tumours * precision).sum() / true[0])


def _background_counts(
    probability: np.ndarray, truth: np.ndarray, levels: np.ndarray, chunk_voxels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count background voxels below each level and on it; `levels` are distinct and rise.

    Probabilities fall into cells. Most background shares its cell with no level, so that counting by
    cell settles it; only the rest is sorted and compared with the levels one by one.
    """
    grid = _grid(levels, truth.size)
    cell_of_level = _cell(levels, grid)
    has_level = np.zeros(grid.cells, bool)
    has_level[cell_of_level] = True
    in_cell = np.zeros(grid.cells, np.int64)
    up_to = np.zeros(len(levels) + 1, np.int64)  # above the level before, up to this one
    equal = np.zeros(len(levels), np.int64)
    for part, tumour in paired_chunks(probability, truth, chunk_voxels):
        background = part[~tumour]
        cell = _cell(background, grid)
        in_cell += np.bincount(cell, minlength=grid.cells)
        close = np.sort(background[has_level[cell]])  # sorted keys are found several times faster
        position = levels.searchsorted(close)
        up_to += np.bincount(position, minlength=len(levels) + 1)
        tied = levels.take(position, mode="clip") == close
        equal += np.bincount(position[tied], minlength=len(levels))
    in_cell[has_level] = 0
    return np.cumsum(in_cell)[cell_of_level] + np.cumsum(up_to)[:-1] - equal, equal


class _Grid(NamedTuple):
    """Cells of 2^shift keys from `first` on, with one cell more at either end for all beyond."""

    first: int
    shift: int
    cells: int


def _grid(levels: np.ndarray, voxels: int) -> _Grid:
    """The finest cells over the levels' range that are no more than CELLS and two per voxel."""
    first, last = (int(key) for key in _key(levels[[0, -1]]))
    most = min(CELLS, 1 << voxels.bit_length())
    shift = max(0, (last - first).bit_length() - (most.bit_length() - 1))
    return _Grid(first, shift, ((last - first) >> shift) + 3)


def _cell(probability: np.ndarray, grid: _Grid) -> np.ndarray:
    """Number of the cell, rising with the probability: 0 is below the levels, the last one above."""
    steps = (_key(probability) - grid.first) >> grid.shift
    return steps.clip(-1, grid.cells - 2).astype(np.intp) + 1


def _key(probability: np.ndarray) -> np.ndarray:
    """Integers that never fall as a probability rises: the bits of its float32, with −0 made 0.

    Bits of floats that are not negative sort as these do, and resolve small probabilities as finely
    as a logarithm would. Rounding to float32 may make two probabilities one, but swaps none.
    """
    key: np.ndarray = np.abs(probability, dtype=np.float32).view(np.int32)
    return key
