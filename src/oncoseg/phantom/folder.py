"""A folder of synthetic cases: seeds, names, the note for readers, and nothing half-written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from oncoseg import __version__, files
from oncoseg.errors import RecipeError

Progress = Callable[[int, int], None]
"""Called after each case with the number of cases done and the number asked for."""

WriteCase = Callable[[Path, str, np.random.Generator], None]
"""Writes one case: its folder, its name and its own source of randomness."""

LEAST_SIZE = 16
"""Fewest voxels along an axis in which an organ can be told."""

NOTE = """Synthetic images made by oncoseg {version}:
oncoseg phantom {kind} OUT --cases {cases} --seed {seed}

They show no patient. Scores on them are not results about patients; they only show that the software runs.
The same version, seed and case number always give the same voxels.
"""


def check_size(size: tuple[int, int, int]) -> None:
    """Check the voxels of a case along i, j, k.

    Raises:
        RecipeError: there are too few.
    """
    if min(size) < LEAST_SIZE:
        raise RecipeError(f"Expected at least {LEAST_SIZE} voxels along each axis, got a size of {size}.")


def each_case(
    out: Path,
    kind: str,
    cases: int,
    seed: int,
    names: range,
    name_format: str,
    progress: Progress | None = None,
) -> Iterator[tuple[str, np.random.Generator]]:
    """Begin the folder `out`; then give each case's name and its own source of randomness.

    Args:
        out: a new or empty folder.
        kind: the phantom's name.
        cases: how many, from 1 to the length of `names`.
        seed: 0 or more. Case number i depends on it and on i, not on `cases`.
        names: the numbers that cases get, in order.
        name_format: a case's name with `{}` in the place of its number.
        progress: called after each case.

    Raises:
        RecipeError: `cases` or `seed` is out of range.
        RunError: `out` holds something already, or cannot be written.
    """
    if not 1 <= cases <= len(names):
        raise RecipeError(f"Expected 1 to {len(names)} cases for the phantom {kind}, got {cases}.")
    if seed < 0:
        raise RecipeError(f"Expected a seed of 0 or more for the phantom {kind}, got {seed}.")
    files.new_folder(out, "The phantom's folder")
    note = NOTE.format(version=__version__, kind=kind, cases=cases, seed=seed)
    files.write_text(out / files.SYNTHETIC_NOTE, note)
    if progress is not None:
        progress(0, cases)
    for index in range(cases):
        yield (
            name_format.format(names[index]),
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,))),
        )
        if progress is not None:
            progress(index + 1, cases)


def write_cases(
    out: Path,
    kind: str,
    cases: int,
    seed: int,
    names: range,
    name_format: str,
    write_case: WriteCase,
    progress: Progress | None = None,
) -> None:
    """Write `cases` folders below `out` with `write_case`; an interruption leaves only complete ones.

    Otherwise as `each_case`.
    """
    for name, rng in each_case(out, kind, cases, seed, names, name_format, progress):
        with files.atomic_folder(out / name) as folder:
            write_case(folder, name, rng)
