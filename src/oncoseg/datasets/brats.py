"""BraTS 2021 and 2023: one folder per case with four sequences and a mask as NIfTI.

Names: 2021 `CASE_t1 CASE_t1ce CASE_t2 CASE_flair CASE_seg`, 2023 `CASE-t1n CASE-t1c CASE-t2w CASE-t2f
CASE-seg`, each `.nii.gz` or `.nii`. Baid et al., 2021, https://arxiv.org/abs/2107.02314.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.folders import GLANCE_FOLDERS, collect, safe_id, shortened, walk
from oncoseg.io import ImageRef

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
"""In the order of the 2021 names."""

MASK = "mask"
"""What a `seg` file is called among the channels found."""

SUFFIXES = {"_t1": "T1", "_t1ce": "T1ce", "_t2": "T2", "_flair": "FLAIR", "_seg": MASK} | {
    "-t1n": "T1",
    "-t1c": "T1ce",
    "-t2w": "T2",
    "-t2f": "FLAIR",
    "-seg": MASK,
}
"""End of a file's name before `.nii` → channel."""

LABELS = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour", 4: "enhancing tumour"}
"""2021 marks enhancing tumour with 4, 2023 with 3; neither uses the other's value for anything else."""

FILE = re.compile(rf"(?P<case>.+)(?P<suffix>{'|'.join(SUFFIXES)})\.nii(\.gz)?")
TIMEPOINT = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-\d{3}")
LIKE_A_MASK = re.compile(r".*seg.*\.nii(\.gz)?", re.IGNORECASE)

DEPTH = 2
"""Case folders may lie in the given folder or in sub folders of it."""

Found = dict[str, list[Path]]


def recognise(path: Path) -> bool:
    """True when one of the first folders holds a file with a BraTS name besides masks."""
    return any(
        SUFFIXES[match["suffix"]] != MASK
        for _, files, _ in walk(path, DEPTH, GLANCE_FOLDERS)
        for match in map(FILE.fullmatch, files)
        if match
    )


def scan(path: Path) -> Scan:
    """Describe every case below a folder of cases, or the one case of a case folder."""
    return collect("brats", _described(path))


def _described(path: Path) -> Iterator[tuple[Case | None, list[Problem]]]:
    for folder, files, folders in walk(path, DEPTH):
        found, others = _sort_files(folder, files)
        cases = {name: channels for name, channels in found.items() if set(channels) != {MASK}}
        if not cases and not folders and folder != path:
            yield None, [_no_case(folder)]
        for name, channels in cases.items():
            yield _describe(name, channels, others)


def _sort_files(folder: Path, files: list[str]) -> tuple[dict[str, Found], list[str]]:
    """Files by case and channel, and the names of those that look like masks but are not named so."""
    found: dict[str, Found] = {}
    others = []
    for name in files:
        if match := FILE.fullmatch(name):
            channels = found.setdefault(match["case"], {})
            channels.setdefault(SUFFIXES[match["suffix"]], []).append(folder / name)
        elif LIKE_A_MASK.fullmatch(name):
            others.append(name)
    return found, others


def _describe(name: str, found: Mapping[str, list[Path]], others: list[str]) -> tuple[Case, list[Problem]]:
    case_id = safe_id(name)
    images = {channel: ImageRef((found[channel][0],)) for channel in CHANNELS if channel in found}
    masks = tuple(ImageRef((file,)) for file in found.get(MASK, [])[:1])
    timepoint = TIMEPOINT.fullmatch(case_id)
    patient = timepoint["patient"] if timepoint else case_id
    case = Case(case_id, patient, images, masks, LABELS)
    return case, [*_missing(case), *_ambiguous(case_id, found), *_unknown_masks(case_id, others)]


def _missing(case: Case) -> list[Problem]:
    problems = []
    absent = [channel for channel in CHANNELS if channel not in case.images]
    if absent:
        problems.append(
            Problem(
                "missing-channel",
                case.id,
                f"{case.id}: expected the sequences {', '.join(CHANNELS)}, but {', '.join(absent)} is "
                "missing. Add it, or choose a recipe that states a substitute.",
            )
        )
    if not case.masks:
        text = f"{case.id}: no file named {case.id}_seg or {case.id}-seg, so the case has no truth and can"
        text += " only be predicted. Add its mask to train or evaluate."
        problems.append(Problem("missing-mask", case.id, text))
    return problems


def _ambiguous(case_id: str, found: Mapping[str, list[Path]]) -> list[Problem]:
    return [
        Problem(
            "duplicate-file",
            case_id,
            f"{case_id}: expected one file for {channel}, got {shortened([file.name for file in files])}; "
            f"{files[0].name} is used. Remove the others.",
        )
        for channel, files in found.items()
        if len(files) > 1
    ]


def _unknown_masks(case_id: str, names: list[str]) -> list[Problem]:
    return [
        Problem(
            "unrecognised-mask",
            case_id,
            f"{case_id}: {name} looks like a mask but is not named like the expert's ({case_id}_seg or "
            f"{case_id}-seg), so it is not used as truth. Rename it only if an expert drew it.",
        )
        for name in names
    ]


def _no_case(folder: Path) -> Problem:
    return Problem(
        "no-case",
        None,
        f"The folder {folder.name} holds no image with a BraTS name such as CASE_t1.nii.gz or "
        "CASE-t1n.nii.gz, so it gives no case. Name its files so, or move it elsewhere.",
    )


LAYOUT = Layout(
    title="BraTS 2021 or 2023: CASE/CASE_t1.nii.gz, _t1ce, _t2, _flair, _seg, or CASE/CASE-t1n.nii.gz, …",
    channels=CHANNELS,
    recognise=recognise,
    scan=scan,
    anonymous=True,
)
