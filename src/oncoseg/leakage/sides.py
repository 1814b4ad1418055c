"""What the sides of a split share: patients, identical images, images that look the same."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from oncoseg.leakage.fingerprints import BITS
from oncoseg.leakage.reading import Entry
from oncoseg.leakage.search import Match, alike

Kind = Literal["same-patient", "identical-image", "similar-image"]
"""What two sides share, the surest first."""

Progress = Callable[[int, int], None]
"""Called with (images searched for, in all)."""

Side = tuple[str, Sequence[Entry]]
"""Its name, and its cases."""


class Leak(NamedTuple):
    """Two cases on two sides that are of one patient or look the same.

    Attributes:
        kind: what they share.
        side_a: the first side.
        case_a: a case on it.
        side_b: the other side.
        case_b: a case on it.
        similarity: share of equal bits in the middle one of the compared slices, in [0, 1]; 1 for identical
            voxels; None where no image was compared.
        message: the same in words. It names ids, never paths.
    """

    kind: Kind
    side_a: str
    case_a: str
    side_b: str
    case_b: str
    similarity: float | None
    message: str


def find_leaks(sides: Mapping[str, Iterable[Entry]], progress: Progress | None = None) -> list[Leak]:
    """Find what two sides share.

    Patients are one when their ids are equal but for letter case and blanks; an empty id is nobody's.
    Such a patient is told once per two sides, and their images are not compared with each other. Other
    pairs of cases are told once, by their images, when any of the one, whatever its channel, is identical
    to any of the other or looks the same.

    Args:
        sides: the parts of a split by name, such as train, validation and test.
        progress: called after every image.

    Returns:
        For every two sides in turn: patients, then identical, then similar images, the most similar first.
    """
    listed = [(name, list(entries)) for name, entries in sides.items()]
    pairs = list(itertools.combinations(listed, 2))
    steps = itertools.count(1)
    total = sum(len(entry.images) for pair in pairs for _, entries in pair for entry in entries)

    def notify() -> None:
        if progress:
            progress(next(steps), total)

    return [leak for a, b in pairs for leak in _between(a, b, notify)]


def _between(a: Side, b: Side, notify: Callable[[], None]) -> list[Leak]:
    identical = _identical_images(a, b)
    found = {(leak.case_a, leak.case_b) for leak in identical}
    similar = [leak for leak in _similar_images(a, b, notify) if (leak.case_a, leak.case_b) not in found]
    return [*_shared_patients(*a, *b), *identical, *similar]


def _patient_key(entry: Entry) -> str:
    return " ".join(entry.patient.split()).casefold()


def _one_patient(a: Entry, b: Entry) -> bool:
    return _patient_key(a) == _patient_key(b) != ""


def _shared_patients(name_a: str, a: Sequence[Entry], name_b: str, b: Sequence[Entry]) -> list[Leak]:
    leaks = []
    others = _by_key(b)
    for key, cases_a in _by_key(a).items():
        if cases_b := others.get(key):
            names = " and ".join(sorted({repr(entry.patient) for entry in (*cases_a, *cases_b)}))
            text = (
                f"The patient {names} is in {name_a} ({_listed(cases_a)}) and in {name_b} "
                f"({_listed(cases_b)}). Move all cases of a patient to one side."
            )
            leaks.append(Leak("same-patient", name_a, cases_a[0].case, name_b, cases_b[0].case, None, text))
    return leaks


def _by_key(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Known patients → their cases."""
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(_patient_key(entry), []).append(entry)
    grouped.pop("", None)
    return grouped


def _listed(entries: Sequence[Entry]) -> str:
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    return f"{entries[0].case}{more}"


def _identical_images(a: Side, b: Side) -> list[Leak]:
    holders: dict[str, list[Entry]] = {}
    for other in b[1]:
        for content in _contents(other):
            holders.setdefault(content, []).append(other)
    leaks = []
    for one in a[1]:
        same = itertools.chain.from_iterable(holders.get(content, ()) for content in _contents(one))
        for other in {other.case: other for other in same if not _one_patient(one, other)}.values():
            text = (
                f"{one.case} in {a[0]} and {other.case} in {b[0]} hold exactly the same voxels "
                f"({', '.join(_same_channels(one, other))}). Find out which is right, and leave the other "
                "out."
            )
            leaks.append(Leak("identical-image", a[0], one.case, b[0], other.case, 1.0, text))
    return leaks


def _contents(entry: Entry) -> dict[str, list[str]]:
    """Content → the channels that hold it; an image with one value everywhere is like no other."""
    contents: dict[str, list[str]] = {}
    for channel, image in entry.images.items():
        if image.content is not None:
            contents.setdefault(image.content, []).append(channel)
    return contents


def _same_channels(one: Entry, other: Entry) -> Iterator[str]:
    """Where the two hold the same: `T1`, or `T1 as FLAIR` where no channel of the same name does."""
    theirs = _contents(other)
    for content, channels in _contents(one).items():
        if content in theirs:
            alike_named = [channel for channel in channels if channel in theirs[content]]
            yield from alike_named or [f"{channels[0]} as {theirs[content][0]}"]


def _similar_images(a: Side, b: Side, notify: Callable[[], None]) -> list[Leak]:
    (places_a, slices_a), (places_b, slices_b) = _images(a[1]), _images(b[1])
    nearest: dict[tuple[str, str], tuple[Match, Leak]] = {}
    for match in alike(slices_a, slices_b, notify):
        (one, channel_a), (other, channel_b) = places_a[match.a], places_b[match.b]
        known = nearest.get((one.case, other.case))
        if _one_patient(one, other) or (known and known[0].differing <= match.differing):
            continue
        after = " after turning or mirroring" if match.turned else ""
        where = channel_a if channel_a == channel_b else f"{channel_a} as {channel_b}"
        text = (
            f"{one.case} in {a[0]} and {other.case} in {b[0]} look the same{after} ({where}): more than half "
            f"of the compared slices differ in at most {match.differing} of {BITS} bits. Look at both; if "
            "they are of one patient, move them to one side."
        )
        similarity = 1 - match.differing / BITS
        leak = Leak("similar-image", a[0], one.case, b[0], other.case, similarity, text)
        nearest[one.case, other.case] = match, leak
    return sorted((leak for _, leak in nearest.values()), key=lambda leak: -(leak.similarity or 0))


def _images(entries: Sequence[Entry]) -> tuple[list[tuple[Entry, str]], list[np.ndarray]]:
    """Every image of a side: whose and which it is, and the hashes of its slices."""
    places = [(entry, channel) for entry in entries for channel in entry.images]
    return places, [entry.images[channel].slices for entry, channel in places]
