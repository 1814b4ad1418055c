"""A hospital's DICOM files in folders of any kind (system S2): series are found by their headers.

A case is what one study shows on one grid. `channels.json` in the folder says which series is what, by a
SeriesInstanceUID, part of the description, or a pattern: `{"T1": "t1 mprage", "FLAIR": "*flair*"}`, and so
does the flag `--channel`, in its place. Without either the channels are guessed. Which series became what is
told either way. An RTSTRUCT or SEG that refers to a series is its mask; several are several readers; what
oncoseg itself has predicted is none. `labels.json` joins structures to labels, later ones over earlier ones:
`{"lung": "Lung*", "tumour": ["GTV*", "lesion*"]}`. Without it every structure is a label.

Patients get salted pseudonyms (`oncoseg.io.dicom.patients`), the same as in de-identified DICOM by the same
salt; no name, number or description is kept.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.datasets import lidc_dicom
from oncoseg.datasets.base import Case, Layout, Problem, Progress, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.datasets.folders import GLANCE_FOLDERS, collect, shortened, walk
from oncoseg.datasets.structures import Labels, own_labels, structures_of
from oncoseg.errors import DataError
from oncoseg.files import read_json
from oncoseg.io import ImageRef, is_dicom
from oncoseg.io.annotations import open_structures
from oncoseg.io.dicom.channels import guess_channels
from oncoseg.io.dicom.choosing import describes, listed
from oncoseg.io.dicom.findings import Annotation, Survey
from oncoseg.io.dicom.origin import SOFTWARE
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import survey
from oncoseg.volume import Volume, same_grid

CHANNELS, LABELS = "channels.json", "labels.json"
"""What may lie in the folder beside the DICOM files."""

DEPTH = 6
"""Recognising a layout looks no deeper below a folder."""

GLANCE_FILES = 3
"""How many files of a folder recognising looks at."""

SHOWN_NAMES = 12
"""How many structures, or numbers of series, are listed."""

FLAG = "--channel"
"""The flag that says what `channels.json` does."""

LEFT_OUT = ("refused", "damaged")
"""Kinds of what was left out that should have been a volume."""


Reasons = dict[str, list[Series]]
"""Which channel some series were taken for and why, in words → these series."""


class Wanted(NamedTuple):
    """Which series is which channel, as somebody said.

    Attributes:
        patterns: channel → SeriesInstanceUID, or what the description contains or matches.
        said_in: where that was said, in words.
    """

    patterns: Mapping[str, str]
    said_in: str


class Marked(NamedTuple):
    """An annotation that could be opened.

    Attributes:
        file: where it lies.
        study: of whom, and of which examination.
        series_uids: the series that it refers to.
        names: of its structures.
    """

    file: Path
    study: tuple[str, str]
    series_uids: tuple[str, ...]
    names: tuple[str, ...]


def recognise(path: Path) -> bool:
    """True when one of the first folders holds DICOM that is not LIDC-IDRI's."""
    found = any(
        is_dicom(folder / name)
        for folder, files, _ in walk(path, DEPTH, GLANCE_FOLDERS)
        for name in files[:GLANCE_FILES]
    )
    return found and not lidc_dicom.recognise(path)


def scan(
    path: Path,
    channels: Mapping[str, str] | None = None,
    predicted: bool = False,
    progress: Progress | None = None,
) -> Scan:
    """Describe every study by its headers.

    Args:
        path: a folder.
        channels: what `channels.json` would say, in its place; None for the file, or for guesses without it.
        predicted: whether masks that oncoseg itself has predicted are taken, too.
        progress: called with (files done, files in all).

    Raises:
        DataError: `channels.json` or `labels.json` cannot be used.
    """
    wanted = Wanted(channels, FLAG) if channels else Wanted(_read_channels(path / CHANNELS), CHANNELS)
    joined = _read_labels(path / LABELS)
    found = survey(path, progress=progress)
    drawn = [each for each in found.annotations if predicted or each.made_by != SOFTWARE]
    marked, problems = _open_all(drawn)
    labels = own_labels(name for each in marked for name in each.names) if joined is None else joined
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for series in found.series:
        studies[series.patient, series.study_uid].append(series)
    reasons: Reasons = defaultdict(list)
    described: list[tuple[Case | None, list[Problem]]] = []
    for number, study in _numbered(studies):
        of_study = [each for each in marked if _refers_to(each, study, studies[study])]
        described += _describe(study[0], number, studies[study], of_study, wanted, labels, reasons)
    scanned = collect("dicom_folder", described)
    problems += [*scanned.problems, *_left_out(found), *_unused(marked, scanned.cases)]
    problems += _unmatched(wanted, found.series)
    remarks = [f"{reason} ({_numbers(series)})." for reason, series in sorted(reasons.items())]
    taken = {id(each) for series in reasons.values() for each in series}
    if own := len(found.annotations) - len(drawn):
        remarks.append(f"RTSTRUCT and SEG that oncoseg made are no truth, and not used: {own}.")
    if others := [each for each in found.series if id(each) not in taken]:
        remarks.append(f"Of no channel, and not used: {_numbers(others)}.")
    if labels and joined is None:
        shown = shortened([repr(name) for name in labels], most=SHOWN_NAMES)
        remarks.append(
            f"Structures are labels of their own: {shown}. Join them in {LABELS} if that is wrong."
        )
    return Scan("dicom_folder", scanned.cases, tuple(problems), remarks=tuple(remarks))


def _numbered(studies: Mapping[tuple[str, str], object]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Studies with the ends of their cases' names: none for a patient's only study, else 1, 2, …."""
    counts, numbers = Counter(patient for patient, _ in studies), Counter[str]()
    for patient, uid in sorted(studies):
        numbers[patient] += 1
        yield ("" if counts[patient] == 1 else f"_{numbers[patient]}"), (patient, uid)


def _refers_to(marked: Marked, study: tuple[str, str], series: Sequence[Series]) -> bool:
    """Whether it names a series of the study, or names none and is filed with it."""
    uids = {each.uid for each in series}
    return bool(uids & set(marked.series_uids)) or (not marked.series_uids and marked.study == study)


def _describe(
    patient: str,
    number: str,
    study: Sequence[Series],
    marked: Sequence[Marked],
    wanted: Wanted,
    labels: Labels,
    reasons: Reasons,
) -> list[tuple[Case | None, list[Problem]]]:
    """The cases of one study: one for each grid on which it has channels."""
    patient = f"P{patient}"
    name = f"{patient}{number}"
    if wanted.patterns:
        chosen, problems = _mapped(name, study, wanted, reasons)
    else:
        chosen, problems = _guessed(study, marked, reasons), []
    if not chosen:
        text = (
            f"{name}: none of {len(study)} series can be told to be a channel; the study is left out. Say "
            f"what they show with {FLAG} or in {CHANNELS}:\n{listed(study)}"
        )
        return [(None, [*problems, Problem("no-case", name, text)])]
    groups = _by_grid(chosen)
    described: list[tuple[Case | None, list[Problem]]] = [(None, problems)]
    for group in groups:
        case_id = f"{name}_{'-'.join(group)}" if len(groups) > 1 else name
        images = {channel: ImageRef(series.files) for channel, series in group.items()}
        masks = [mask for each in marked if (mask := _mask(each, group, len(groups) == 1, labels))]
        names = dict(enumerate(labels, 1)) if masks else {}
        problems = [] if masks else [_no_mask(case_id, group, marked)]
        described.append((Case(case_id, patient, images, tuple(masks), names), problems))
    return described


def _mapped(
    name: str, study: Sequence[Series], wanted: Wanted, reasons: Reasons
) -> tuple[dict[str, Series], list[Problem]]:
    """The series that somebody named; a channel that the study lacks is no problem."""
    chosen: dict[str, Series] = {}
    problems = []
    for channel, pattern in wanted.patterns.items():
        fitting = [each for each in study if _fits(each, pattern)]
        if len(fitting) == 1 and not any(fitting[0] is other for other in chosen.values()):
            chosen[channel_name(channel)] = fitting[0]
            reasons[f"{channel_name(channel)} as {wanted.said_in} says"].append(fitting[0])
        elif fitting:
            text = f"{name}: expected one series for {channel} that is no other channel; {len(fitting)} fit "
            text += f"{wanted.said_in}. Write a pattern that fits one of them, or its uid:\n{listed(fitting)}"
            problems.append(Problem("ambiguous-channel", name, text))
    return chosen, problems


def _fits(series: Series, pattern: str) -> bool:
    return pattern == series.uid or describes(series.description, pattern)


def _unmatched(wanted: Wanted, series: Sequence[Series]) -> list[Problem]:
    """Channels that no series of any study is said to be, which are misspelt more often than not."""
    missed = [
        channel
        for channel, pattern in wanted.patterns.items()
        if not any(_fits(each, pattern) for each in series)
    ]
    text = f"fits what {wanted.said_in} says; expected part of a SeriesDescription, or a SeriesInstanceUID."
    return [Problem("unmatched-channel", None, f"{channel}: no series {text}") for channel in missed]


def _numbers(series: Sequence[Series]) -> str:
    """How many series, and the numbers that the scanner gave them; no description, which may hold a name."""
    numbers = sorted({each.number for each in series if each.number is not None})
    named = f", number {shortened(numbers, most=SHOWN_NAMES)}" if numbers else ""
    return f"{len(series)} series{named}"


def _guessed(study: Sequence[Series], marked: Sequence[Marked], reasons: Reasons) -> dict[str, Series]:
    """What the series show by guess; of several that show the same, one with an annotation."""
    drawn = {uid for each in marked for uid in each.series_uids}
    guesses = guess_channels(study) | guess_channels([series for series in study if series.uid in drawn])
    for channel, guess in guesses.items():
        reasons[f"{channel_name(channel)} by guess: {guess.reason}"].append(guess.series)
    return {channel_name(channel): guess.series for channel, guess in guesses.items()}


def _by_grid(chosen: Mapping[str, Series]) -> list[dict[str, Series]]:
    groups: list[dict[str, Series]] = []
    for channel, series in chosen.items():
        alike = (group for group in groups if same_grid(_empty(series), _empty(next(iter(group.values())))))
        group = next(alike, None)
        if group is None:
            groups.append(group := {})
        group[channel] = series
    return groups


def _empty(series: Series) -> Volume:
    return Volume(np.broadcast_to(np.uint8(0), (1, *series.grid)), series.affine_ras)


def _mask(marked: Marked, group: Mapping[str, Series], alone: bool, labels: Labels) -> ImageRef | None:
    """The annotation on the grid of the series that it refers to; None if it is of another."""
    on = [series for series in group.values() if series.uid in marked.series_uids]
    if not on and alone and not marked.series_uids:
        on = list(group.values())
    values = {label: value for value, label in enumerate(labels, 1)}
    structures = structures_of(marked.names, labels, values)
    if not on or not structures:
        return None
    return ImageRef((marked.file,), grid_of=on[0].files, structures=structures)


def _open_all(annotations: Sequence[Annotation]) -> tuple[list[Marked], list[Problem]]:
    opened, problems = [], []
    for each in annotations:
        try:
            found = open_structures(each.file)
        except DataError as error:
            problems.append(Problem("unreadable", None, f"An annotation cannot be used: {error}"))
            continue
        names = tuple(structure.name for structure in found.structures)
        opened.append(Marked(each.file, (each.patient, each.study_uid), found.series_uids, names))
    return opened, problems


def _no_mask(case_id: str, group: Mapping[str, Series], marked: Sequence[Marked]) -> Problem:
    uids = {series.uid for series in group.values()}
    drawn = own_labels(name for each in marked if uids & set(each.series_uids) for name in each.names)
    if drawn:
        what = f"{LABELS} names none of its structures, which are "
        what += shortened([repr(name) for name in drawn], most=SHOWN_NAMES)
        mend = 'Add one there, such as {"tumour": ["GTV*"]}.'
    else:
        what, mend = "no RTSTRUCT or SEG refers to its series", "Add it anywhere in the folder."
    text = f"{case_id}: {what}, so it has no truth and can only be predicted. {mend}"
    return Problem("missing-mask", case_id, text)


def _left_out(found: Survey) -> list[Problem]:
    return [
        Problem(
            "no-case",
            None,
            f"A {each.modality or 'DICOM'} series of {len(each.files)} file(s), of which the first is "
            f"{each.files[0]}, is left out: {each.reason.rstrip('.')}. "
            "Export it again, whole, if it should be used.",
        )
        for each in found.left_out
        if each.kind in LEFT_OUT
    ]


def _unused(marked: Sequence[Marked], cases: Sequence[Case]) -> list[Problem]:
    used = {file for case in cases for mask in case.masks for file in mask.files}
    others = [str(each.file) for each in marked if each.file not in used]
    if not others:
        return []
    text = f"{len(others)} annotations mark no series that is used, or nothing that {LABELS} asks for: "
    mend = "The images that they mark must lie in the folder, too."
    return [Problem("unused-annotation", None, f"{text}{shortened(others)}. {mend}")]


def _read_channels(path: Path) -> dict[str, str]:
    given = {}
    for channel, pattern in _read_map(path, '{"T1": "t1 mprage", "FLAIR": "*flair*"}').items():
        if not isinstance(pattern, str):
            raise DataError(f'{path}: expected one text per channel, such as {{"T1": "t1 mprage"}}.')
        given[channel] = pattern
    return given


def _read_labels(path: Path) -> dict[str, list[str]] | None:
    if not path.is_file():
        return None
    labels = {}
    for name, given in _read_map(path, '{"lung": "Lung*", "tumour": ["GTV*"]}').items():
        patterns = given if isinstance(given, list) else [given]
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise DataError(f'{path}: expected names of structures, such as {{"tumour": ["GTV*"]}}.')
        labels[name] = [str(pattern) for pattern in patterns]
    return labels


def _read_map(path: Path, example: str) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Expected for example {example}.") from error
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: expected a map such as {example}.")
    return found


LAYOUT = Layout(
    title="DICOM files in folders of any kind, with RTSTRUCT or SEG; channels.json and labels.json if wanted",
    channels=(),
    recognise=recognise,
    scan=scan,
    anonymous=True,
)
