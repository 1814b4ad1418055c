"""CT and MRI of the same patients: `PATIENT/CT_image.nii.gz`, `CT_mask`, `MR_T1_image`, `MR_T1_mask`.

Each image is a case of its own, with the mask on its own grid, and the cases of one patient share the
patient and the class. So a case keeps what every case has, one grid, until something registers the images;
and each half can be used alone. `list_pairs` finds what belongs together.

`classes.csv` beside the patients' folders gives the class: columns `patient` and `class`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from oncoseg import io
from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.datasets.folders import GLANCE_FOLDERS, collect, safe_id, shortened, walk
from oncoseg.datasets.tables import read_table
from oncoseg.errors import DataError
from oncoseg.io import VOLUME_SUFFIXES, image_ref, stem
from oncoseg.volume import same_grid

CLASSES = "classes.csv"

LABELS = {1: "tumour"}

IMAGE_ENDS, MASK_ENDS = ("image", "img"), ("mask", "label", "seg")
"""What comes after the name of the modality; an image may go without."""

FILE = re.compile(
    rf"(?P<what>(CT|MRI?|T1|T2|FLAIR)[A-Za-z0-9+_-]*?)([_-](?P<end>{'|'.join((*IMAGE_ENDS, *MASK_ENDS))}))?",
    re.IGNORECASE,
)
"""An image or mask by its name without suffix."""

SHARED_MASK = re.compile("|".join(MASK_ENDS), re.IGNORECASE)
"""A mask that does not say whose it is: of the images on whose grid it lies."""

CT = "CT"

DEPTH = 2
"""Patients' folders may lie in the given folder or in one below it; or it is one patient's folder."""


class Pair(NamedTuple):
    """CT and MRI of one patient.

    Attributes:
        patient: whose they are.
        ct: the case of the CT.
        mr: the case of one MRI sequence.
    """

    patient: str
    ct: Case
    mr: Case


class _Found(NamedTuple):
    """A patient's files: what is shown (`CT`, `MR_T1`) → file; and a mask that does not say whose it is."""

    images: dict[str, Path]
    masks: dict[str, Path]
    shared: Path | None


def recognise(path: Path) -> bool:
    """True when one of the first folders holds a CT and an MRI by name."""
    return any(
        _is_pair(_sorted_files(folder, files)) for folder, files, _ in walk(path, DEPTH, GLANCE_FOLDERS)
    )


def scan(path: Path) -> Scan:
    """Describe every image of every patient.

    Raises:
        DataError: `classes.csv` cannot be used.
    """
    classes = _read_classes(path)
    found = collect("paired", _described(path.resolve(), classes))
    patients = {case.patient for case in found.cases}
    problems = list(found.problems)
    if without := sorted(patients - classes.keys()) if classes else []:
        text = f"{CLASSES} has no class for {shortened(without)}. Add it to learn from them."
        problems.append(Problem("missing-class", None, text))
    alone = sorted(patients - {pair.patient for pair in list_pairs(found.cases)})
    remarks = [f"No pair, as CT or MRI is missing: {shortened(alone)}."] if alone else []
    return Scan("paired", found.cases, tuple(problems), remarks=tuple(remarks))


def list_pairs(cases: Sequence[Case]) -> list[Pair]:
    """Every CT with every MRI of its patient, sorted by patient; one that lacks either is left out."""
    by_patient: dict[str, list[Case]] = {}
    for case in cases:
        by_patient.setdefault(case.patient, []).append(case)
    return [
        Pair(patient, ct, mr)
        for patient, own in sorted(by_patient.items())
        for ct in own
        if CT in ct.images
        for mr in own
        if CT not in mr.images
    ]


def _described(path: Path, classes: Mapping[str, str]) -> Iterator[tuple[Case | None, list[Problem]]]:
    for folder, files, _ in walk(path, DEPTH):
        found = _sorted_files(folder, files)
        patient = safe_id(folder.name)
        for what, image in found.images.items():
            yield _describe(patient, what, image, found, classes.get(patient))


def _describe(
    patient: str, what: str, image: Path, found: _Found, target: str | None
) -> tuple[Case | None, list[Problem]]:
    case_id, channel = safe_id(f"{patient}_{what}"), channel_name(what)
    mask = found.masks.get(what)
    try:
        if mask is None and found.shared is not None and _on_one_grid(image, found.shared):
            mask = found.shared
        images, masks = {channel: image_ref(image)}, (image_ref(mask),) if mask else ()
    except DataError as error:
        return None, [Problem("unreadable", case_id, f"{case_id}: {error}")]
    case = Case(case_id, patient, images, masks, LABELS, target=target)
    if masks:
        return case, []
    text = (
        f"{case_id}: no mask named {what}_mask, so the case has no truth and can only be predicted. Add it."
    )
    return case, [Problem("missing-mask", case_id, text)]


def _on_one_grid(image: Path, mask: Path) -> bool:
    return same_grid(io.read_grid(image_ref(image)), io.read_grid(image_ref(mask)))


def _sorted_files(folder: Path, files: Sequence[str]) -> _Found:
    found = _Found({}, {}, None)
    for name in files:
        plain = stem(Path(name))
        if not name.lower().endswith(VOLUME_SUFFIXES):
            continue
        if SHARED_MASK.fullmatch(plain):
            found = found._replace(shared=folder / name)
        elif match := FILE.fullmatch(plain):
            is_mask = (match["end"] or "").lower() in MASK_ENDS
            (found.masks if is_mask else found.images).setdefault(match["what"], folder / name)
    return found


def _is_pair(found: _Found) -> bool:
    return {_is_ct(what) for what in found.images} == {True, False}


def _is_ct(what: str) -> bool:
    return what.lower().startswith("ct")


def _read_classes(path: Path) -> dict[str, str]:
    folders = (path, *(path / name for _, _, names in walk(path, 0) for name in names))
    table_path = next((folder / CLASSES for folder in folders if (folder / CLASSES).is_file()), None)
    if table_path is None:
        return {}
    table = read_table(table_path, ("patient", "class"))
    patients, classes = table.column("patient") or (), table.column("class") or ()
    found: dict[str, str] = {}
    for patient, name in zip(patients, classes, strict=True):
        known = found.setdefault(safe_id(patient), name) if name else name
        if known != name:
            raise DataError(f"{table_path} gives {patient} the classes {known} and {name}; expected one.")
    return found


LAYOUT = Layout(
    title="CT and MRI pairs: PATIENT/CT_image.nii.gz, CT_mask, MR_T1_image, MR_T1_mask, and classes.csv",
    channels=("CT", "MR", "T1", "T1ce", "T2", "FLAIR"),
    recognise=recognise,
    scan=scan,
)
