"""What the sides of a split share: patients, identical images, images that look the same."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from oncoseg.datasets.base import Case, Problem
from oncoseg.errors import DataError
from oncoseg.io import read
from oncoseg.leakage.fingerprints import BITS, NO_IMAGE, ImageFingerprint, fingerprint
from oncoseg.leakage.search import alike

Kind = Literal["same-patient", "identical-image", "similar-image"]
"""What two sides share, the surest first."""

Entry = tuple[str, str, ImageFingerprint]
"""A case's id, its patient and the fingerprint of its image."""


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


def fingerprint_cases(
    cases: Sequence[Case],
    channel: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Entry], list[Problem]]:
    """Read one channel of every case, one at a time, and describe it.

    A case that cannot be read keeps its place, with `NO_IMAGE`, as its patient can still be compared.

    Args:
        cases: of one side.
        channel: its name; None takes each case's first.
        progress: called with the cases done and their total after each case.

    Returns:
        One entry per case, and what could not be compared.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for case in cases:
        image, problem = _fingerprint_case(case, channel or next(iter(case.images), ""))
        entries.append((case.id, case.patient, image))
        problems += [problem] if problem else []
        if progress:
            progress(len(entries), len(cases))
    return entries, problems


def find_leaks(sides: Mapping[str, Iterable[Entry]]) -> list[Leak]:
    """Find what two sides share.

    Patients are one when their ids are equal but for letter case and blanks; an empty id is nobody's.
    Such a patient is told once per two sides, and their images are not compared with each other. Other
    pairs of cases are told by their images, when these are identical or look the same.

    Args:
        sides: the parts of a split by name, such as train, validation and test.

    Returns:
        For every two sides in turn: patients, then identical, then similar images, the most similar first.
    """
    listed = {name: list(entries) for name, entries in sides.items()}
    leaks: list[Leak] = []
    for (name_a, a), (name_b, b) in itertools.combinations(listed.items(), 2):
        leaks += _shared_patients(name_a, a, name_b, b)
        leaks += _identical_images(name_a, a, name_b, b)
        leaks += _similar_images(name_a, a, name_b, b)
    return leaks


def _fingerprint_case(case: Case, channel: str) -> tuple[ImageFingerprint, Problem | None]:
    if channel not in case.images:
        text = f"{case.id}: expected the channel {channel!r}, got {', '.join(case.images) or 'none'}; "
        text += "its image is not compared with others. Name a channel that every case has."
        return NO_IMAGE, Problem("missing-channel", case.id, text)
    try:
        return fingerprint(read(case.images[channel])), None
    except DataError as error:
        text = f"{case.id}: {channel} cannot be compared with other images. {error}"
        return NO_IMAGE, Problem("unreadable", case.id, text)


def _patient_key(entry: Entry) -> str:
    return " ".join(entry[1].split()).casefold()


def _one_patient(a: Entry, b: Entry) -> bool:
    return _patient_key(a) == _patient_key(b) != ""


def _shared_patients(name_a: str, a: Sequence[Entry], name_b: str, b: Sequence[Entry]) -> list[Leak]:
    leaks = []
    others = _by_key(b)
    for key, cases_a in _by_key(a).items():
        if cases_b := others.get(key):
            names = " and ".join(sorted({repr(entry[1]) for entry in (*cases_a, *cases_b)}))
            text = (
                f"The patient {names} is in {name_a} ({_listed(cases_a)}) and in {name_b} "
                f"({_listed(cases_b)}). Move all cases of a patient to one side."
            )
            leaks.append(Leak("same-patient", name_a, cases_a[0][0], name_b, cases_b[0][0], None, text))
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
    return f"{entries[0][0]}{more}"


def _identical_images(name_a: str, a: Sequence[Entry], name_b: str, b: Sequence[Entry]) -> list[Leak]:
    holders: dict[str | None, list[Entry]] = {}
    for other in b:
        holders.setdefault(other[2].content, []).append(other)
    holders.pop(None, None)
    leaks = []
    for one in a:
        for other in holders.get(one[2].content, ()):
            if not _one_patient(one, other):
                text = (
                    f"{one[0]} in {name_a} and {other[0]} in {name_b} hold exactly the same voxels. "
                    "Find out which is right, and leave the other out."
                )
                leaks.append(Leak("identical-image", name_a, one[0], name_b, other[0], 1.0, text))
    return leaks


def _similar_images(name_a: str, a: Sequence[Entry], name_b: str, b: Sequence[Entry]) -> list[Leak]:
    leaks = []
    for match in alike([entry[2].slices for entry in a], [entry[2].slices for entry in b]):
        one, other = a[match.a], b[match.b]
        if _one_patient(one, other) or one[2].content == other[2].content:
            continue
        after = " after turning or mirroring" if match.turned else ""
        text = (
            f"{one[0]} in {name_a} and {other[0]} in {name_b} look the same{after}: more than half of the "
            f"compared slices differ in at most {match.differing} of {BITS} bits. Look at both; if they are "
            "of one patient, move them to one side."
        )
        similarity = 1 - match.differing / BITS
        leaks.append(Leak("similar-image", name_a, one[0], name_b, other[0], similarity, text))
    return sorted(leaks, key=lambda leak: -(leak.similarity or 0))
