"""LIDC-IDRI as 2D slices: `PATIENT/nodule-N/images/slice-K.png` and `mask-R` beside `images` for each reader.

The layout of the Kaggle set "LIDC-IDRI-slices": 8-bit lung CT crops of 128×128, masks 0 or 255. A
reader who did not mark the nodule has an empty mask. Armato et al., 2011, https://doi.org/10.1118/1.3528204.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.folders import (
    GLANCE_FOLDERS,
    collect,
    gap_problem,
    list_folder,
    numbered,
    safe_id,
    shortened,
    walk,
)
from oncoseg.io import ImageRef

LABELS = {255: "nodule"}
"""The masks' one value."""

NODULE = re.compile(r"nodule-(\d+)")
READER = re.compile(r"mask-(\d+)")
SLICE = re.compile(r"slice-(\d+)\.png")

DEPTH = 2
"""The patients' folders may lie in the given folder or in one below it; or it is one patient's folder."""


def recognise(path: Path) -> bool:
    """True when one of the first folders holds a nodule's folder with images."""
    return any(
        (folder / name / "images").is_dir()
        for folder, _, folders in walk(path, DEPTH, GLANCE_FOLDERS)
        for name in folders
        if NODULE.fullmatch(name)
    )


def scan(path: Path) -> Scan:
    """Describe every nodule of every patient."""
    return collect("lidc_slices", _described(path.resolve()))


def _described(path: Path) -> Iterator[tuple[Case | None, list[Problem]]]:
    for folder, _, folders in walk(path, DEPTH):
        for name in numbered(folders, NODULE).values():
            yield _describe(folder, name)


def _describe(folder: Path, nodule: str) -> tuple[Case | None, list[Problem]]:
    patient = safe_id(folder.name)
    case_id = f"{patient}_{nodule}"
    _, folders = list_folder(folder / nodule)
    images = _slices(folder / nodule / "images") if "images" in folders else {}
    if not images:
        text = f"{case_id}: expected images/slice-0.png and so on, got no slice; the nodule is left out."
        return None, [Problem("no-case", None, f"{text} Restore its images.")]
    masks, problems = _readers(folder / nodule, numbered(folders, READER), images, case_id)
    gap = gap_problem(list(images), case_id)
    case = Case(case_id, patient, {"CT": ImageRef(tuple(images.values()))}, masks, LABELS)
    return case, [*([gap] if gap else []), *problems]


def _readers(
    folder: Path, readers: dict[int, str], images: dict[int, Path], case_id: str
) -> tuple[tuple[ImageRef, ...], list[Problem]]:
    """One mask per reader who has every slice, and what is wrong with the others."""
    masks, problems = [], []
    for name in readers.values():
        slices = _slices(folder / name)
        if absent := sorted(set(images) - set(slices)):
            text = f"{case_id}: {name} has no slice {shortened(absent)}, so it is left out. Restore it."
            problems.append(Problem("missing-mask-slice", case_id, text))
        else:
            masks.append(ImageRef(tuple(slices[number] for number in images)))
        if surplus := sorted(set(slices) - set(images)):
            text = f"{case_id}: {name} has slice {shortened(surplus)} without an image; it is ignored."
            problems.append(Problem("missing-image-slice", case_id, f"{text} Restore the image."))
    if not masks:
        text = f"{case_id}: no reader's mask (mask-0, mask-1, …) is complete, so the nodule has no truth."
        problems.append(Problem("missing-mask", case_id, f"{text} Restore the masks."))
    return tuple(masks), problems


def _slices(folder: Path) -> dict[int, Path]:
    files, _ = list_folder(folder)
    return {number: folder / name for number, name in numbered(files, SLICE).items()}


LAYOUT = Layout(
    title="LIDC-IDRI slices: PATIENT/nodule-N/images/slice-K.png and mask-0 … mask-3 beside images",
    channels=("CT",),
    recognise=recognise,
    scan=scan,
    anonymous=True,
)
