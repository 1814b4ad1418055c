"""Medical Segmentation Decathlon: `TaskNN_Name/dataset.json`, `imagesTr`, `labelsTr`, `imagesTs`.

Several channels of a case are the volumes of one 4D file. Antonelli et al., 2022,
https://doi.org/10.1038/s41467-022-30695-9; http://medicaldecathlon.com.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.channels import channel_names
from oncoseg.datasets.dataset_json import (
    INDEX,
    Listing,
    checked_path,
    entries_of,
    find_roots,
    numbered_names,
    read_index,
    the_root,
    with_patients,
)
from oncoseg.datasets.folders import collect, safe_id, shortened
from oncoseg.datasets.nnunet_raw import is_nnunet
from oncoseg.errors import DataError
from oncoseg.io import ImageRef, stem

LABEL_NAMES = {
    ("liver", "liver", "cancer"): ("liver", "tumour"),  # Task03
    ("hepaticvessel", "vessel", "tumour"): ("vessel", "tumour"),  # Task08
}
"""A task and its labels as published, in small letters → names that the labels get here, for recipes."""

Described = tuple[Case | None, list[Problem]]


def recognise(path: Path) -> bool:
    """True when the folder, or one below it, holds the index of a Decathlon task."""
    return bool(find_roots(path, _is_task))


def scan(path: Path) -> Scan:
    """Describe every case that the index lists.

    Raises:
        DataError: no index, one that cannot be used, or several tasks.
    """
    root = the_root(path, find_roots(path, _is_task))
    index = read_index(root)
    channels = channel_names(numbered_names(index, "modality"))
    labels = read_labels(index)
    listing = Listing()
    described: list[Described] = [
        _describe(root, image, label, channels, labels, listing)
        for image, label in entries_of(index, "training")
    ]
    described += [
        _describe(root, image, None, channels, labels, listing, needs_mask=False)
        for image, _ in entries_of(index, "test")
    ]
    cases, problems = with_patients(root, (case for case, _ in described if case))
    found = collect("decathlon", [(case, []) for case in cases])
    problems += [problem for _, of_case in described for problem in of_case]
    problems += [*_unlisted(root, index, listing), *_miscounted(index)]
    return Scan("decathlon", found.cases, (*problems, *found.problems), remarks=_remarks(root, index))


def read_labels(index: Mapping[str, Any]) -> dict[int, str]:
    """Label value → name, without the background.

    Raises:
        DataError: there is no such map, or a value is no whole number.
    """
    labels = index.get("labels")
    if not isinstance(labels, dict):
        raise DataError(f'{INDEX} lacks labels; expected a map such as {{"0": "background", "1": "liver"}}.')
    try:
        named = {int(value): str(name) for value, name in labels.items()}
    except ValueError as error:
        raise DataError(
            f"labels of {INDEX} has a value that is no whole number: {error}. Mend it."
        ) from error
    labels = {value: name for value, name in sorted(named.items()) if value != 0}
    published = tuple(text.lower() for text in (str(index.get("name", "")), *labels.values()))
    return dict(zip(labels, LABEL_NAMES.get(published, labels.values()), strict=True))


def _is_task(root: Path, index: Mapping[str, Any]) -> bool:
    listed = isinstance(index.get("training"), list) and isinstance(index.get("modality"), dict)
    return (listed or not index) and not is_nnunet(root, index)


def _describe(
    root: Path,
    image: str,
    label: str | None,
    channels: list[str],
    labels: Mapping[int, str],
    listing: Listing,
    needs_mask: bool = True,
) -> Described:
    file = checked_path(root, image)
    case_id = safe_id(stem(Path(image)))
    if file is None or file not in listing:
        where = "lies outside of its folder" if file is None else "is not there"
        text = f"{case_id}: {INDEX} lists {image}, which {where}; the case is left out. Restore it."
        return None, [Problem("missing-image", case_id, text)]
    several = len(channels) > 1
    images = {name: ImageRef((file,), number if several else None) for number, name in enumerate(channels)}
    mask = checked_path(root, label) if label else None
    if mask is not None and mask in listing:
        return Case(case_id, case_id, images, (ImageRef((mask,)),), labels), []
    if not needs_mask:
        return Case(case_id, case_id, images, labels=labels), []
    text = f"{case_id}: its label {label or ''} is not there, so the case has no truth and can only be "
    problem = Problem("missing-mask", case_id, f"{text}predicted. Restore it.")
    return Case(case_id, case_id, images, labels=labels), [problem]


def _unlisted(root: Path, index: Mapping[str, Any], listing: Listing) -> list[Problem]:
    listed = {Path(image).name for part in ("training", "test") for image, _ in entries_of(index, part)}
    folders = ("imagesTr", "imagesTs")
    files = sorted({name for folder in folders for name in listing.names(root / folder)} - listed)
    files = [name for name in files if name.endswith((".nii.gz", ".nii"))]
    if not files:
        return []
    text = (
        f"{len(files)} images are not listed in {INDEX} and are not read: {shortened(files)}. Add them to it."
    )
    return [Problem("unlisted-image", None, text)]


def _miscounted(index: Mapping[str, Any]) -> list[Problem]:
    stated, listed = index.get("numTraining"), len(entries_of(index, "training"))
    if not isinstance(stated, int) or stated == listed:
        return []
    text = f"{INDEX} states {stated} training cases but lists {listed}; those listed are read. Correct it."
    return [Problem("miscounted", None, text)]


def _remarks(root: Path, index: Mapping[str, Any]) -> tuple[str, ...]:
    about = [str(index[key]) for key in ("name", "description", "licence", "license") if index.get(key)]
    return (f"{root.name}: {'; '.join(about)}.",) if about else ()


LAYOUT = Layout(
    title="Medical Segmentation Decathlon: TaskNN_Name/dataset.json with imagesTr, labelsTr, imagesTs",
    channels=(),
    recognise=recognise,
    scan=scan,
    index=INDEX,
    anonymous=True,
)
