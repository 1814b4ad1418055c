"""Looking for patients and images that are on two sides of a run's split, or in two data sets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from oncoseg import split as splits
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem
from oncoseg.errors import DataError
from oncoseg.files import user_cache
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.leakage import Entry, Leak, find_leaks, fingerprint_cases, forget_oldest
from oncoseg.run_folder import RunFolder

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""

Sides = dict[str, Sequence[Case]]
"""Name of a side → its cases."""


def default_cache() -> Path:
    """Where fingerprints are remembered when nothing else is said: in the user's cache folder."""
    return user_cache() / "fingerprints"


def sides_of_run(run: Path, data: Mapping[str, Path] | None = None) -> list[Sides]:
    """The sides of a run's split, modality by modality; of a cross-validation, its folds.

    Args:
        run: a run folder with split and data, or the folder of a cross-validation.
        data: modality → folder, where a data set has moved since training.

    Raises:
        RunError: no run folder.
        DataError: data that are gone, or an unknown modality.
    """
    folder = RunFolder(run)
    moved, sources = dict(data or {}), folder.data()
    if unknown := sorted(set(moved) - set(sources)):
        raise DataError(f"Unknown modality {unknown[0]!r}; this run has {', '.join(sources)}.")
    folds = FoldsFolder(run).splits() if is_cross_validation(run) else []
    groups: list[Sides] = []
    for modality, source in sources.items():
        path = Path(moved.get(modality, source["path"]))
        cases = open_dataset(path, source["layout"], channels=source.get("channels")).cases
        if folds:
            tested = [{"test": split[modality]["test"]} for split in folds]
            groups.append(
                {
                    f"fold-{number}": splits.from_json(one, cases)["test"]
                    for number, one in enumerate(tested, 1)
                }
            )
        else:
            sides = splits.from_json(folder.split()[modality], cases)
            sides["train"] += sides.pop(splits.UNLABELLED, [])
            groups.append(dict(sides))
    return groups


def sides_of_folders(folders: Mapping[str, Path]) -> list[Sides]:
    """Data sets as sides, such as the training data and a clinic's test data.

    Args:
        folders: side → folder of a data set.

    Raises:
        DataError: fewer than two folders, the same one twice, or one that is no data set.
    """
    if len(folders) < 2:
        raise DataError(f"Expected two or more data sets to compare, got {len(folders)}.")
    seen: dict[Path, str] = {}
    for name, path in folders.items():
        if (same := seen.setdefault(path.resolve(), name)) != name:
            raise DataError(f"The sides {same} and {name} are the same folder, {path}; expected two.")
    return [{name: open_dataset(path).cases for name, path in folders.items()}]


def leaks_between(
    groups: Sequence[Sides],
    channel: str | None = None,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    reading: Progress | None = None,
    comparing: Progress | None = None,
) -> tuple[list[Leak], list[Problem]]:
    """Compare the sides of each group with each other.

    Args:
        groups: as `sides_of_run` or `sides_of_folders` gives them.
        channel: the only image of a case to compare; None for all.
        cache: folder of remembered fingerprints, made if it is not there; None for none.
        workers: processes for reading; None for one per processor, 0 for none besides this one.
        reading: called after every case that was read.
        comparing: then called after every image that was compared.

    Returns:
        What was found, and what could not be compared.

    Raises:
        DataError: `channel` is one that no case has.
        RunError: a process was ended from outside.
    """
    cases = [case for sides in groups for of_side in sides.values() for case in of_side]
    _check_channel(cases, channel)
    try:
        entries, problems = fingerprint_cases(cases, channel, cache=cache, workers=workers, progress=reading)
    finally:
        if cache is not None:
            forget_oldest(cache)
    total = sum(_images_compared(sides) for sides in _divided(groups, entries))
    leaks: list[Leak] = []
    before = 0
    for sides in _divided(groups, entries):
        leaks += find_leaks(sides, _shifted(comparing, before, total))
        before += _images_compared(sides)
    return leaks, problems


def _check_channel(cases: Sequence[Case], channel: str | None) -> None:
    known = list(dict.fromkeys(name for case in cases for name in case.images))
    if channel is not None and channel not in known:
        raise DataError(f"No case has the channel {channel!r}; expected one of {', '.join(known)}.")


def _divided(groups: Sequence[Sides], entries: Sequence[Entry]) -> list[dict[str, list[Entry]]]:
    """The entries as the cases were."""
    rest = iter(entries)
    return [{name: [next(rest) for _ in cases] for name, cases in sides.items()} for sides in groups]


def _images_compared(sides: Mapping[str, Sequence[Entry]]) -> int:
    """Every image is compared with each other side."""
    return (len(sides) - 1) * sum(len(entry.images) for entries in sides.values() for entry in entries)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)
