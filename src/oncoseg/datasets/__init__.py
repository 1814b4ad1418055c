"""Public data sets, read where they lie. Adapters describe cases; `oncoseg.io` reads their voxels."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from oncoseg.datasets import (
    brats,
    dataset_json,
    decathlon,
    dicom_folder,
    lgg,
    lidc_dicom,
    lidc_slices,
    nnunet_raw,
    paired,
    table,
)
from oncoseg.datasets.base import Case, Layout, Problem, Progress, Scan
from oncoseg.datasets.tables import TABLE_SUFFIXES
from oncoseg.errors import DataError, nearest
from oncoseg.files import SYNTHETIC_NOTE
from oncoseg.io import is_dicom

__all__ = ["DATASETS", "Case", "Layout", "Problem", "Scan", "open_dataset"]

DATASETS: dict[str, Layout] = {
    "brats": brats.LAYOUT,
    "lidc_slices": lidc_slices.LAYOUT,
    "lidc_dicom": lidc_dicom.LAYOUT,
    "lgg": lgg.LAYOUT,
    "decathlon": decathlon.LAYOUT,
    "nnunet_raw": nnunet_raw.LAYOUT,
    "table": table.LAYOUT,
    "paired": paired.LAYOUT,
    "dicom_folder": dicom_folder.LAYOUT,
}
"""Every layout by its name."""


SHOWN_PROBLEMS = 5
"""How many problems are told of a data set without any case."""


def open_dataset(
    path: Path,
    layout: str | None = None,
    *,
    need_images: bool = True,
    channels: Mapping[str, str] | None = None,
    predicted: bool = False,
    progress: Progress | None = None,
) -> Scan:
    """Describe the cases below a folder, without reading voxels.

    Args:
        path: the data set's folder; a folder above or, for a single case, the case's own also serve. Or a
            table of cases (CSV, TSV).
        layout: a name in DATASETS; None recognises it.
        need_images: False also takes a table's cases that have masks and no images, as for scores.
        channels: of a DICOM folder, channel → what its series are called (see `dicom_folder`); guessed, or
            read from `channels.json`, when left out.
        predicted: True takes masks that oncoseg itself has predicted, too, for scoring them; else they are
            no truth.
        progress: called with (files done, files in all) where a layout takes long, which are those of DICOM.

    Raises:
        DataError: the folder is missing, empty or of no known layout, the layout is unknown, or channels
            are given of what is no DICOM folder.
    """
    if layout is not None and layout not in DATASETS:
        raise DataError(f"Unknown data set layout {layout!r}; {nearest(layout, DATASETS)}")
    _check_folder(path)
    name = layout or _recognised(path)
    scan = _scan(path, name, need_images, channels, predicted, progress)
    if not scan.cases:
        reasons = "".join(f"\n  {problem.message}" for problem in scan.problems[:SHOWN_PROBLEMS])
        expected = f"Expected the layout {name}: {DATASETS[name].title}."
        raise DataError(f"No case was found in {path}. {expected}{reasons}")
    return replace(scan, synthetic=has_synthetic_note(path, scan.cases))


def _scan(
    path: Path,
    name: str,
    need_images: bool,
    channels: Mapping[str, str] | None,
    predicted: bool,
    progress: Progress | None,
) -> Scan:
    if name == "dicom_folder":
        return dicom_folder.scan(path, channels, predicted, progress)
    if channels:
        raise DataError(
            f"{path} has the layout {name}, whose files say which channel they are; expected a DICOM folder "
            f"where a series is chosen for {' and '.join(channels)}. Leave the choice out."
        )
    if name == "table" and not need_images:
        return table.scan_masks(path)
    found = DATASETS[name]
    return found.scan(path) if found.watched is None else found.watched(path, progress)


def has_synthetic_note(path: Path, cases: Iterable[Case] = ()) -> bool:
    """Whether the note lies in the folder, in its parent, or on the way to any case's images."""
    roots = {path.absolute(), path.resolve()}
    folders = roots | {root.parent for root in roots}
    for first in {ref.files[0].absolute().parent for case in cases for ref in case.images.values()}:
        for folder in (first, *first.parents):
            if folder in roots:
                break
            folders.add(folder)
    return any((folder / SYNTHETIC_NOTE).is_file() for folder in folders)


def _recognised(path: Path) -> str:
    names = [name for name, layout in DATASETS.items() if layout.recognise(path)]
    indexed = [name for name in names if _has_index(path, DATASETS[name])]
    if len(indexed) == 1:
        return indexed[0]
    if not names:
        known = "\n".join(f"  {name}: {layout.title}" for name, layout in DATASETS.items())
        raise DataError(f"{path} has no known layout; expected one of these:\n{known}\n{_hint(path)}")
    if len(names) > 1:
        raise DataError(
            f"{path} holds several data sets ({', '.join(names)}); expected one. Give the folder of one "
            "of them, or name the layout."
        )
    return names[0]


def _hint(path: Path) -> str:
    """What to do about a folder of no known layout."""
    if (path / "imagesTr").is_dir():
        return f"It holds imagesTr, but no {dataset_json.INDEX} that could be used: restore that."
    if (path.resolve().parent / dataset_json.INDEX).is_file():
        return f"The {dataset_json.INDEX} lies in the folder above: give that one."
    return f"For anything else, list its cases in a table, {table.INDEX}."


def _has_index(path: Path, layout: Layout) -> bool:
    return layout.index is not None and (path / layout.index).is_file()


def single_file_hint(path: Path) -> str:
    """What to name in place of a zip, a DICOMDIR or one DICOM file; nothing for other files."""
    if path.suffix.lower() == ".zip":
        return f"{path} is a zip; expected a folder. Unpack it, and name the folder."
    if is_dicom(path):
        what = "a DICOMDIR" if path.name.upper() == "DICOMDIR" else "one DICOM file of a series"
        return f"{path} is {what}; expected a folder. Name the one that it lies in."
    return ""


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist; expected the folder of a data set.")
    if path.is_file():
        if path.name.lower().endswith(TABLE_SUFFIXES):
            return
        if hint := single_file_hint(path):
            raise DataError(hint)
        raise DataError(f"{path} is a file; expected the folder of a data set, or a table of cases (CSV).")
    try:
        empty = next(path.iterdir(), None) is None
    except OSError as error:
        raise DataError(f"The folder {path} cannot be listed: {error.strerror}.") from error
    if empty:
        raise DataError(f"The folder {path} is empty; expected a data set. Unpack it there first.")
