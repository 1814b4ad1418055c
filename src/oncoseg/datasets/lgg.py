"""LGG MRI segmentation (Kaggle `kaggle_3m`): `PATIENT_DATE/PATIENT_DATE_N.tif` with `_N_mask.tif` beside it.

Colour TIFF of 256×256: red is T1 before contrast, green is FLAIR, blue is T1 after contrast; there is no
T2. Where a patient lacks one of the T1 sequences the publishers repeated FLAIR in its place.
Buda et al., 2019, https://doi.org/10.1016/j.compbiomed.2019.05.002.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.folders import GLANCE_FOLDERS, collect, gap_problem, numbered, shortened, walk
from oncoseg.io import ImageRef

COMPONENTS = {"T1": 0, "T1ce": 2, "FLAIR": 1}
"""Channel → component of the colour image."""

LABELS = {255: "tumour"}
"""The masks' one value."""

FOLDER = re.compile(r"(?P<patient>TCGA_(?P<site>[A-Z0-9]{2})_[A-Z0-9]{4})_\d{8}")

DEPTH = 2
"""Case folders may lie in the given folder or in one below it; or it is one case's folder."""


def recognise(path: Path) -> bool:
    """True when one of the first folders is named like a case and holds its slices."""
    return any(
        FOLDER.fullmatch(folder.name) and _slices(folder.name, files, "")
        for folder, files, _ in walk(path.resolve(), DEPTH, GLANCE_FOLDERS)
    )


def scan(path: Path) -> Scan:
    """Describe every examination."""
    return collect("lgg", _described(path.resolve()))


def _described(path: Path) -> Iterator[tuple[Case | None, list[Problem]]]:
    for folder, files, _ in walk(path, DEPTH):
        if match := FOLDER.fullmatch(folder.name):
            yield _describe(folder, files, match)


def _describe(folder: Path, files: list[str], match: re.Match[str]) -> tuple[Case | None, list[Problem]]:
    case_id = folder.name
    images = _slices(case_id, files, "")
    if not images:
        text = f"{case_id}: expected {case_id}_1.tif and so on, got none; the case is left out. Restore it."
        return None, [Problem("no-case", None, text)]
    masks = _slices(case_id, files, "_mask")
    problems = [problem for problem in (gap_problem(list(images), case_id),) if problem]
    problems += _mask_problems(case_id, images, masks)
    complete = set(images) <= set(masks)
    truth = (ImageRef(tuple(folder / masks[number] for number in images)),) if complete else ()
    slices = tuple(folder / name for name in images.values())
    channels = {channel: ImageRef(slices, component) for channel, component in COMPONENTS.items()}
    return Case(case_id, match["patient"], channels, truth, LABELS, match["site"]), problems


def _mask_problems(case_id: str, images: dict[int, str], masks: dict[int, str]) -> list[Problem]:
    problems = []
    if not masks:
        text = f"{case_id}: no {case_id}_N_mask.tif, so the case has no truth and can only be predicted. "
        text += "Add its masks to train or evaluate."
        problems.append(Problem("missing-mask", case_id, text))
    elif absent := sorted(set(images) - set(masks)):
        text = f"{case_id}: slice {shortened(absent)} has no mask, so the case has no truth. Restore it."
        problems.append(Problem("missing-mask-slice", case_id, text))
    if surplus := sorted(set(masks) - set(images)):
        text = f"{case_id}: mask {shortened(surplus)} has no image and is ignored. Restore the image."
        problems.append(Problem("missing-image-slice", case_id, text))
    return problems


def _slices(case_id: str, files: list[str], ending: str) -> dict[int, str]:
    return numbered(files, re.compile(rf"{re.escape(case_id)}_(\d+){ending}\.tif"))


LAYOUT = Layout(
    title="LGG MRI segmentation (kaggle_3m): TCGA_XX_NNNN_DATE/TCGA_XX_NNNN_DATE_1.tif with _1_mask.tif",
    channels=tuple(COMPONENTS),
    recognise=recognise,
    scan=scan,
    anonymous=True,
)
