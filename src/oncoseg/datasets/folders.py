"""What adapters share: listing folders quickly, numeric order, and names that fit a file system."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

from oncoseg.datasets.base import Case, Problem, Scan

GLANCE_FOLDERS = 64
"""How many folders recognising a layout may list."""


SHOWN = 5
"""How many values a message lists."""


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the sub folders, sorted.

    Hidden ones, macOS leftovers, pipes, sockets and devices are left out; links to nowhere count as files.
    """
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file() or not Path(entry).exists():
                files.append(entry.name)
    return sorted(files), sorted(folders)


def walk(root: Path, depth: int, limit: int | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders from `root` to `depth` levels below, level by level, with their files and sub folders.

    A folder that cannot be listed counts as empty.
    """
    level, seen = [root], 0
    for remaining in range(depth, -1, -1):
        below: list[Path] = []
        for folder in level:
            if limit is not None and seen == limit:
                return
            seen += 1
            try:
                files, folders = list_folder(folder)
            except OSError:
                files, folders = [], []
            yield folder, files, folders
            if remaining:
                below += [folder / name for name in folders]
        level = below


def collect(layout: str, described: Iterable[tuple[Case | None, list[Problem]]]) -> Scan:
    """Join what an adapter described; of cases with one id only the first stays, and it is reported."""
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for case, case_problems in described:
        if case and case.id in cases:
            text = f"{case.id} is there more than once; only the first is used. Remove the other one."
            problems.append(Problem("duplicate-case", case.id, text))
            continue
        problems += case_problems
        if case:
            cases[case.id] = case
    return Scan(layout, tuple(cases[name] for name in sorted(cases)), tuple(problems))


def safe_id(name: str) -> str:
    """A name in which everything but letters, digits, `.`, `_` and `-` is replaced by `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def numbered(names: list[str], pattern: re.Pattern[str]) -> dict[int, str]:
    """Names that match, by the number in the pattern's first group, in numeric order."""
    found = {int(match[1]): name for name in names if (match := pattern.fullmatch(name))}
    return dict(sorted(found.items()))


def gap_problem(numbers: list[int], case: str) -> Problem | None:
    """A problem when slice numbers jump, as neighbouring slices are then not neighbours in the patient."""
    count = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not count:
        return None
    # a name may hold any number: the missing ones are never listed as a whole
    missing = (number for before, after in pairwise(numbers) for number in range(before + 1, after))
    return Problem(
        "slice-gap",
        case,
        f"{case}: expected consecutive slices from {numbers[0]} to {numbers[-1]}, but "
        f"{shortened(list(islice(missing, SHOWN)), count)} "
        "is missing. Restore it; without it slices are joined that are not neighbours.",
    )


def shortened(values: Sequence[object], count: int | None = None, most: int = SHOWN) -> str:
    """At most a few values, and how many more there are of all `count` (else of `values`)."""
    shown, count = ", ".join(str(value) for value in values[:most]), count or len(values)
    return shown if count <= most else f"{shown} and {count - most} more"
