"""`dataset.json`, the index of the Medical Segmentation Decathlon and of nnU-Net."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Case, Problem
from oncoseg.datasets.folders import GLANCE_FOLDERS, list_folder, walk
from oncoseg.datasets.tables import read_table
from oncoseg.errors import DataError
from oncoseg.files import read_json

INDEX = "dataset.json"

PATIENTS = "patients.csv"
"""Beside the index, if wanted: columns case and patient, perhaps class and site, which the index lacks."""

DEPTH = 1
"""The index may lie in the given folder or in one below it."""


def find_roots(path: Path, fits: Callable[[Path, Mapping[str, Any]], bool]) -> list[Path]:
    """Folders with an index of a kind: the given one, or those directly below it.

    Args:
        path: where to look.
        fits: of a folder and its index, which is empty where it cannot be read.
    """
    roots = [folder for folder, files, _ in walk(path, DEPTH, GLANCE_FOLDERS) if INDEX in files]
    found = [root for root in roots if fits(root, _read_or_empty(root))]
    return [path] if path in found else found


def the_root(path: Path, roots: list[Path]) -> Path:
    """The one folder of a data set.

    Raises:
        DataError: there is none, or there are several.
    """
    if len(roots) == 1:
        return roots[0]
    if not roots:
        raise DataError(f"{path} holds no {INDEX} of this layout. Give the folder in which it lies.")
    names = ", ".join(sorted(root.name for root in roots))
    raise DataError(
        f"{path} holds several data sets ({names}); expected one. Give the folder of one of them."
    )


def read_index(root: Path) -> dict[str, Any]:
    """Read a folder's index.

    Raises:
        DataError: it is missing, immense (see `read_json`), or no JSON object.
    """
    path = root / INDEX
    try:
        index = read_json(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected the data set's index.") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Copy it again.") from error
    if not isinstance(index, dict):
        raise DataError(f"{path} is no index of a data set: expected a JSON object with labels and channels.")
    return index


def entries_of(index: Mapping[str, Any], name: str) -> list[tuple[str, str | None]]:
    """Images with their labels, as the lists `training` and `test` name them.

    Raises:
        DataError: an entry that names no image.
    """
    entries = index.get(name) or []
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
        if not isinstance(image, str) or not isinstance(label, str | None):
            raise DataError(
                f'The list {name} of {INDEX} has the entry {json.dumps(entry)[:80]}; expected {{"image": '
                '"./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}. Mend it.'
            )
        found.append((image, label))
    return found


def numbered_names(index: Mapping[str, Any], *keys: str) -> list[str]:
    """The texts of a map from 0, 1, … to names, in order, from the first key that is there.

    Raises:
        DataError: none is there, or its keys are not 0, 1, ….
    """
    names = next((index[key] for key in keys if key in index), None)
    if not isinstance(names, dict) or not names:
        raise DataError(f'{INDEX} lacks {keys[0]}; expected a map such as {{"0": "CT"}}.')
    try:
        ordered = [names[str(number)] for number in range(len(names))]
    except KeyError as error:
        raise DataError(
            f"{keys[0]} of {INDEX} lacks {error}; expected the numbers from 0 on, each with its name, as in "
            '{"0": "T1", "1": "T2"}.'
        ) from error
    return [str(name) for name in ordered]


def checked_path(root: Path, named: str) -> Path | None:
    """The file that an index names, or None where that is outside of the data set's folder."""
    relative = os.path.normpath(named.replace("\\", "/"))
    outside = relative == ".." or relative.startswith("../") or Path(relative).is_absolute()
    return None if outside else root / relative


class Listing:
    """Which files there are, from listing each folder once."""

    def __init__(self) -> None:
        """Begin with nothing listed."""
        self._names: dict[Path, frozenset[str]] = {}

    def __contains__(self, path: Path) -> bool:
        return path.name in self.names(path.parent)

    def names(self, folder: Path) -> frozenset[str]:
        """Names of a folder's files, hidden ones aside; none where it cannot be listed."""
        if folder not in self._names:
            try:
                files, _ = list_folder(folder)
            except OSError:
                files = []
            self._names[folder] = frozenset(files)
        return self._names[folder]


def with_patients(root: Path, cases: Iterable[Case]) -> tuple[list[Case], list[Problem]]:
    """Cases with the patient, class and site that `patients.csv` gives them, where there is one."""
    path, described = root / PATIENTS, list(cases)
    if not path.is_file():
        return described, []
    try:
        table = read_table(path, ("case", "patient"))
    except DataError as error:
        return described, [Problem("unreadable-table", None, str(error))]
    columns = {name: table.column(name) for name in ("case", "patient", "site", "class")}
    known = {
        case: {name: cells[row] for name, cells in columns.items() if cells and cells[row]}
        for row, case in enumerate(columns["case"] or ())
    }
    problems = [
        Problem(
            "unknown-patient",
            case.id,
            f"{case.id} is not in {PATIENTS} and counts as a patient of its own. Add its line.",
        )
        for case in described
        if "patient" not in known.get(case.id, {})
    ]
    return [_described(case, known.get(case.id, {})) for case in described], problems


def _described(case: Case, found: Mapping[str, str]) -> Case:
    return replace(
        case,
        patient=found.get("patient", case.patient),
        site=found.get("site", case.site),
        target=found.get("class", case.target),
    )


def _read_or_empty(root: Path) -> dict[str, Any]:
    try:
        return read_index(root)
    except DataError:
        return {}
