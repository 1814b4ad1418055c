"""Cases → fingerprints of their images, in several processes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from oncoseg.datasets.base import Case, Problem
from oncoseg.errors import DataError
from oncoseg.io import ImageRef, read_channels, voxel_bytes
from oncoseg.leakage.fingerprints import ImageFingerprint, fingerprint
from oncoseg.leakage.remembered import keep, place_of, recall
from oncoseg.processes import processes_within, run_each

MEMORY_PER_PROCESS_GIB = 0.3
"""Python, NumPy and SciPy in a process, besides the voxels."""

SOURCE_COPIES = 3
"""Of an image's voxels at the peak: as read, scaled and joined."""


class Entry(NamedTuple):
    """What is kept of a case.

    Attributes:
        case: its id.
        patient: whose it is.
        images: channel → fingerprint, of those that could be read.
    """

    case: str
    patient: str
    images: Mapping[str, ImageFingerprint]


def fingerprint_cases(
    cases: Sequence[Case],
    channel: str | None = None,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Entry], list[Problem]]:
    """Read the images of every case and describe them.

    A case that cannot be read keeps its place, without images, as its patient can still be compared.

    Args:
        cases: of one side or several.
        channel: the only one to read; None for all.
        cache: folder of remembered fingerprints; None for none.
        workers: processes; None for one per processor, 0 for none besides this one.
        progress: called with the cases done and their total after each case.

    Returns:
        One entry per case, and what could not be compared.

    Raises:
        RunError: a process was ended from outside.
    """
    count = processes_within(workers, None, _gib_of(cases), len(cases))
    found: dict[int, tuple[Entry, list[Problem]]] = {}
    look = partial(_look, channel, cache)
    for number, entry, problems in run_each(look, list(enumerate(cases)), count, "reading images"):
        found[number] = entry, problems
        if progress:
            progress(len(found), len(cases))
    in_order = [found[number] for number in range(len(cases))]
    return [entry for entry, _ in in_order], [problem for _, problems in in_order for problem in problems]


def _look(
    channel: str | None, cache: Path | None, item: tuple[int, Case]
) -> tuple[int, Entry, list[Problem]]:
    number, case = item
    images: dict[str, ImageFingerprint] = {}
    problems: list[Problem] = []
    for names in _sharing_files(case, channel):
        try:
            images |= _fingerprints({name: case.images[name] for name in names}, cache)
        except DataError as error:
            text = f"{case.id}: {' and '.join(names)} cannot be compared with other images. {error}"
            problems.append(Problem("unreadable", case.id, text))
    if not images and not problems:
        problems.append(_missing(case, channel))
    in_order = {name: images[name] for name in case.images if name in images}
    return number, Entry(case.id, case.patient, in_order), problems


def _sharing_files(case: Case, channel: str | None) -> list[list[str]]:
    """The channels to read; those of the same files, such as the colours of a picture, at once."""
    groups: dict[tuple[Path, ...], list[str]] = {}
    for name, ref in case.images.items():
        if channel in (None, name):
            groups.setdefault(ref.files, []).append(name)
    return list(groups.values())


def _fingerprints(refs: Mapping[str, ImageRef], cache: Path | None) -> dict[str, ImageFingerprint]:
    places = {name: None if cache is None else place_of(cache, ref) for name, ref in refs.items()}
    found = {name: known for name, place in places.items() if place and (known := recall(place)) is not None}
    rest = {name: ref for name, ref in refs.items() if name not in found}
    if not rest:
        return found
    joined = read_channels(rest)
    for number, name in enumerate(rest):
        found[name] = fingerprint(joined.with_array(joined.array[number : number + 1]))
        if place := places[name]:
            keep(place, found[name])
    return found


def _missing(case: Case, channel: str | None) -> Problem:
    has = ", ".join(case.images) or "none"
    wanted = "an image" if channel is None else f"the channel {channel!r}"
    text = f"{case.id}: expected {wanted}, got {has}; it is not compared with others."
    if channel is not None:
        text += " Name a channel that every case has, or leave --channel out to compare all."
    return Problem("missing-channel", case.id, text)


def _gib_of(cases: Sequence[Case]) -> float:
    """What a process needs for the largest image; those of a case are about equally large."""
    largest = max(map(_bytes_of, cases), default=0)
    return MEMORY_PER_PROCESS_GIB + SOURCE_COPIES * largest / 2**30


def _bytes_of(case: Case) -> int:
    first = next(iter(case.images.values()), None)
    try:
        return 0 if first is None else voxel_bytes(first)
    except DataError:
        return 0  # reading it will say what is wrong
