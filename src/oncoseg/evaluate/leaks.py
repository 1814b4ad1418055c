"""Looking for patients and images that are on two sides of a run's split, or in two data sets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from oncoseg import split as splits
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem
from oncoseg.errors import DataError
from oncoseg.leakage import Entry, Leak, find_leaks, fingerprint_cases
from oncoseg.run_folder import RunFolder

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def leaks_of_run(
    run: Path,
    data: Mapping[str, Path] | None = None,
    channel: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[Leak], list[Problem]]:
    """Compare the sides of a run's split with each other, modality by modality.

    Args:
        run: a run folder with split and data.
        data: modality → folder, where a data set has moved since training.
        channel: which image of a case is compared; None for its first.
        progress: called after every image.

    Returns:
        What was found, and what could not be compared.

    Raises:
        RunError: no run folder.
        DataError: data that are gone, or an unknown modality.
    """
    folder = RunFolder(run)
    moved, sources = dict(data or {}), folder.data()
    if unknown := sorted(set(moved) - set(sources)):
        raise DataError(f"Unknown modality {unknown[0]!r}; this run has {', '.join(sources)}.")
    leaks: list[Leak] = []
    problems: list[Problem] = []
    for modality, listed in folder.split().items():
        source = sources[modality]
        cases = open_dataset(Path(moved.get(modality, source["path"])), source["layout"]).cases
        sides = splits.from_json(listed, cases)
        found, lacking = _leaks(sides, channel, progress)
        leaks += found
        problems += lacking
    return leaks, problems


def leaks_of_folders(
    folders: Mapping[str, Path], channel: str | None = None, progress: Progress | None = None
) -> tuple[list[Leak], list[Problem]]:
    """Compare data sets with each other, such as the training data and a clinic's test data.

    Args:
        folders: side → folder of a data set.
        channel: which image of a case is compared; None for its first.
        progress: called after every image.

    Raises:
        DataError: fewer than two folders, or one that is no data set.
    """
    if len(folders) < 2:
        raise DataError(f"Expected two or more data sets to compare, got {len(folders)}.")
    return _leaks({name: open_dataset(path).cases for name, path in folders.items()}, channel, progress)


def _leaks(
    sides: Mapping[str, Sequence[Case]], channel: str | None, progress: Progress | None
) -> tuple[list[Leak], list[Problem]]:
    total, before = sum(map(len, sides.values())), 0
    entries: dict[str, list[Entry]] = {}
    problems: list[Problem] = []
    for side, cases in sides.items():
        entries[side], lacking = fingerprint_cases(cases, channel, _shifted(progress, before, total))
        problems += lacking
        before += len(cases)
    return find_leaks(entries), problems


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)
