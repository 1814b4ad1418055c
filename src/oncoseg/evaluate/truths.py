"""A fingerprint of every case's truth, so that systems are only compared where they had the same one."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError
from oncoseg.evaluate.long_table import COUNTS, read_counts
from oncoseg.labels import has_label
from oncoseg.metrics.boxes import bounding_box
from oncoseg.volume import Volume, to_canonical

DIGEST_BYTES = 8
"""Of a fingerprint: among a million truths two have one by chance once in 37 million tries."""

VOLUME_TOLERANCE = 1e-3
"""True volumes that differ by a larger share are of voxels of another size."""

Part = tuple[str, str]
"""Group and class."""


class Scored(NamedTuple):
    """A case as an evaluation had it.

    Attributes:
        patient: whose it is.
        truth: fingerprint of the truth; empty where unknown.
        true_ml: its volume; NaN where unknown.
        empty: whether the truth marks no voxel.
    """

    patient: str
    truth: str
    true_ml: float = math.nan
    empty: bool = False


def in_canonical(labels: np.ndarray, like: Volume) -> np.ndarray:
    """Label values `i j k` on the grid of `like`, their axes turned nearest to R, A, S; a view."""
    turned: np.ndarray = to_canonical(like.with_array(labels[None]))[0].array[0]
    return turned


def fingerprints(truth: np.ndarray, classes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Class → hash of the grid's shape and of the voxels that it marks.

    Args:
        truth: label values, axes `i j k` in canonical orientation, so that it does not matter how a file
            is turned.
        classes: name → the label values that it joins.
    """
    outer = bounding_box(truth)
    near = np.ascontiguousarray(truth[outer])  # a NIfTI file's order of memory is slow to hash from
    return {
        label: _fingerprint(truth.shape, [side.start for side in outer], has_label(near, joined))
        for label, joined in classes.items()
    }


def _fingerprint(shape: Sequence[int], starts: Sequence[int], marked: np.ndarray) -> str:
    box = bounding_box(marked)
    place = [(start + side.start, start + side.stop) for start, side in zip(starts, box, strict=True)]
    if not marked.any():
        place = []
    digest = hashlib.blake2b(repr((tuple(shape), place)).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.packbits(marked[box]).data)
    return digest.hexdigest()


def read_scored(folder: Path) -> dict[Part, dict[str, Scored]]:
    """Group and class → case → what an evaluation's files say of it; nothing in those of early versions.

    Raises:
        DataError: a damaged table.
    """
    found: dict[Part, dict[str, Scored]] = {}
    try:
        for row in read_counts(folder):
            found.setdefault((row["group"], row["class"]), {})[row["case"]] = Scored(
                row["patient"],
                row.get("truth") or "",
                float(row["true_ml"] or "nan"),
                int(row["tp"]) + int(row["fn"]) == 0,
            )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The table {folder / COUNTS}.csv is damaged ({type(error).__name__}: {error}). Evaluate again."
        ) from error
    return found


def check_same_truths(
    evaluations: Mapping[str, Mapping[Part, Mapping[str, Scored]]], parts: Sequence[Part]
) -> list[str]:
    """Check that evaluations have scored the same cases of their common patients, against the same truths.

    Args:
        evaluations: name → what `read_scored` gives.
        parts: groups and classes that are compared.

    Returns:
        The evaluations whose files do not tell.

    Raises:
        DataError: they have not; names the first case.
    """
    (first, known), *others = evaluations.items()
    for name, evaluation in others:
        for part in parts:
            _check_part(first, known.get(part, {}), name, evaluation.get(part, {}))
    return [name for name, evaluation in evaluations.items() if not _tells(evaluation, parts)]


def _tells(evaluation: Mapping[Part, Mapping[str, Scored]], parts: Sequence[Part]) -> bool:
    return all(
        evaluation.get(part) and all(case.truth for case in evaluation[part].values()) for part in parts
    )


def _check_part(one: str, ours: Mapping[str, Scored], other: str, theirs: Mapping[str, Scored]) -> None:
    if not ours or not theirs:
        return
    for a, has, b, lacks in ((one, ours, other, theirs), (other, theirs, one, ours)):
        if alone := sorted(_alone(has, lacks)):
            raise DataError(
                f"{a} and {b} have scored other cases of the same patients: {len(alone)} of {a} are not in "
                f"{b}, the first is {alone[0]!r}. Evaluate all systems on the same cases."
            )
    different = sorted(
        case for case, scored in ours.items() if case in theirs and _differ(scored, theirs[case])
    )
    if different:
        raise DataError(
            f"{one} and {other} were scored against different truths, in {len(different)} of {len(ours)} "
            f"cases, the first is {different[0]!r}; expected the same masks. Evaluate all systems against "
            "the same truth."
        )


def _alone(has: Mapping[str, Scored], lacks: Mapping[str, Scored]) -> Iterator[str]:
    patients = {scored.patient for scored in lacks.values()}
    return (case for case, scored in has.items() if case not in lacks and scored.patient in patients)


def _differ(a: Scored, b: Scored) -> bool:
    if a.truth and b.truth and a.truth != b.truth:
        return True
    return abs(a.true_ml - b.true_ml) > VOLUME_TOLERANCE * max(a.true_ml, b.true_ml)
