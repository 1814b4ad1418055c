"""What adapters share: listing folders quickly, numeric order, and names that fit a file system."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from oncoseg.datasets.base import Case, Problem, Scan

GLANCE_FOLDERS = 64
"""How many folders recognising a layout may list."""


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the sub folders, sorted; hidden ones and macOS leftovers are left out."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith((".", "__MACOSX")):
                (folders if entry.is_dir() else files).append(entry.name)
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
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if not missing:
        return None
    return Problem(
        "slice-gap",
        case,
        f"{case}: expected consecutive slices from {numbers[0]} to {numbers[-1]}, but {shortened(missing)} "
        "is missing. Restore it; without it slices are joined that are not neighbours.",
    )


def shortened(values: Sequence[object], most: int = 5) -> str:
    """At most a few values, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
