"""A plain table of cases for whatever has no layout of its own: one line per case, one column per channel.

Columns: `case`, `patient`, a column per channel with paths (`CT`, `T1`, …), `label` or one `label.READER`
per reader, `class`, `site`. Paths are relative to the table; `FILE#2` is the third volume of a 4D file.
Beside the table, `labels.json` names the label values: `{"liver": 1, "tumour": 2}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.datasets.dataset_json import Listing
from oncoseg.datasets.folders import collect, list_folder, safe_id
from oncoseg.datasets.tables import TABLE_SUFFIXES, Table, read_table
from oncoseg.errors import DataError
from oncoseg.io import IMAGE_SUFFIXES, SEGMENTATION_SUFFIX, VOLUME_SUFFIXES, ImageRef, image_ref
from oncoseg.io.segments import list_segments

INDEX = "cases.csv"
"""The table's name where a folder is given."""

LABELS = "labels.json"

DEFAULT_LABELS = {1: "tumour", 255: "tumour"}
"""Without `labels.json`: masks of 0 and 1, or of 0 and 255."""

CASE, PATIENT, CLASS, SITE = "case", "patient", "class", "site"

LABEL = re.compile(r"label(\.(?P<reader>.+))?", re.IGNORECASE)

CELL = re.compile(r"(?P<path>.+?)(#(?P<component>\d+))?")

Described = tuple[Case | None, list[Problem]]


@dataclass(frozen=True)
class Columns:
    """Which column says what, each as its cells.

    Attributes:
        images: channel → cells.
        masks: heading → cells, one per reader.
        ignored: headings of the others.
    """

    images: Mapping[str, Sequence[str]]
    masks: Mapping[str, Sequence[str]]
    ignored: Sequence[str]


def recognise(path: Path) -> bool:
    """True for a CSV or TSV file, and for a folder that holds `cases.csv`, itself or one level below."""
    return bool(_tables(path))


def scan(path: Path) -> Scan:
    """Describe every line.

    Raises:
        DataError: no table or several, or one that cannot be used at all.
    """
    tables = _tables(path)
    if len(tables) != 1:
        names = ", ".join(str(file) for file in tables) or "none"
        raise DataError(f"{path}: expected one table named {INDEX}, found {names}. Give the file itself.")
    table = read_table(tables[0], (CASE, PATIENT))
    columns = _columns(table)
    labels = read_labels(table.path.parent / LABELS)
    listing = Listing()
    found = collect(
        "table", [_describe(table, row, columns, labels, listing) for row in range(len(table.rows))]
    )
    remarks = list(table.remarks)
    if columns.ignored:
        remarks.append(
            f"No cell of these columns names an image, so they are not read: {', '.join(columns.ignored)}."
        )
    return Scan("table", found.cases, found.problems, remarks=tuple(remarks))


def read_labels(path: Path) -> dict[int, str] | None:
    """Label value → name from a map of either direction; None without the file.

    Raises:
        DataError: the file is no such map.
    """
    if not path.is_file():
        return None
    try:
        given = json.loads(path.read_bytes())
        pairs = [
            (int(key), value) if isinstance(value, str) else (int(value), key) for key, value in given.items()
        ]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f'{path} is no map of labels ({error}); expected for example {{"liver": 1, "tumour": 2}}.'
        ) from error
    return {value: name for value, name in sorted(pairs) if value != 0}


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(TABLE_SUFFIXES) else []
    if (path / INDEX).is_file():
        return [path / INDEX]
    try:
        _, folders = list_folder(path)
    except OSError:
        return []
    return [path / name / INDEX for name in folders if (path / name / INDEX).is_file()]


def _columns(table: Table) -> Columns:
    images: dict[str, Sequence[str]] = {}
    masks: dict[str, Sequence[str]] = {}
    ignored = []
    for heading in table.columns:
        cells = table.column(heading) or ()
        if heading.lower() in (CASE, PATIENT, CLASS, SITE) or not heading:
            continue
        if LABEL.fullmatch(heading):
            masks[heading] = cells
        elif any(_is_image(cell) for cell in cells):
            images[_new_channel(table, heading, images)] = cells
        else:
            ignored.append(heading)
    if not images:
        known, given = ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)), ", ".join(table.columns)
        raise DataError(
            f"{table.path} has no column of images: expected one per channel, such as CT or T1, with paths "
            f"that end in {known}. Its columns are {given}."
        )
    return Columns(images, masks, ignored)


def _new_channel(table: Table, heading: str, channels: Mapping[str, object]) -> str:
    name = channel_name(heading)
    if name in channels:
        raise DataError(f"{table.path} has two columns of the channel {name}; expected one. Rename one.")
    return name


def _is_image(cell: str) -> bool:
    match = CELL.fullmatch(cell)
    return bool(match and match["path"].lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)))


def _describe(
    table: Table, row: int, columns: Columns, labels: Mapping[int, str] | None, listing: Listing
) -> Described:
    texts = {name: (table.column(name) or [""] * (row + 1))[row] for name in (CASE, PATIENT, CLASS, SITE)}
    where = f"{table.path.name}, line {table.lines[row]}"
    if not texts[CASE] or not texts[PATIENT]:
        text = (
            f"{where}: expected a case and its patient; it is left out. Fill in both, alike where each case "
        )
        return None, [Problem("unnamed-case", None, f"{text}is a patient of its own.")]
    case_id, problems = safe_id(texts[CASE]), []
    images: dict[str, ImageRef] = {}
    masks: list[ImageRef] = []
    for heading, cells in (*columns.images.items(), *columns.masks.items()):
        try:
            ref = _reference(table.path.parent, cells[row], listing)
        except DataError as error:
            problems.append(Problem("missing-file", case_id, f"{case_id} ({where}), {heading}: {error}"))
            continue
        if ref and heading in columns.masks:
            masks.append(ref)
        elif ref:
            images[heading] = ref
    if not images:
        text = f"{case_id} ({where}): no image can be found; the case is left out. Mend its paths."
        return None, [*problems, Problem("no-case", case_id, text)]
    try:
        named, refs = _named(masks, images, labels)
    except DataError as error:
        return None, [*problems, Problem("unreadable", case_id, f"{case_id} ({where}): {error}")]
    return Case(
        case_id, texts[PATIENT], images, refs, named, texts[SITE] or None, texts[CLASS] or None
    ), problems


def _reference(folder: Path, cell: str, listing: Listing) -> ImageRef | None:
    """The file that a cell names; None for an empty cell.

    Raises:
        DataError: it is not there, or has a suffix that cannot be read.
    """
    match = CELL.fullmatch(cell)
    if not match:
        return None
    named = folder / match["path"]
    path = next(
        (file for file in (named, folder / match["path"].replace("\\", "/")) if file in listing), None
    )
    if path is None:
        raise DataError(f"{named} does not exist. Paths are relative to the table's folder; mend it.")
    if not _is_image(cell):
        known = ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
        raise DataError(f"{named} has a suffix that cannot be read; expected one of {known}.")
    return image_ref(path, int(match["component"]) if match["component"] else None)


def _named(
    masks: Sequence[ImageRef], images: Mapping[str, ImageRef], labels: Mapping[int, str] | None
) -> tuple[Mapping[int, str], tuple[ImageRef, ...]]:
    """Names of the label values, and the masks; of Slicer's segmentations, the segments get the values.

    Raises:
        DataError: a segmentation that lists no segments.
    """
    segmentations = {mask for mask in masks if mask.files[0].name.lower().endswith(SEGMENTATION_SUFFIX)}
    if not segmentations:
        return labels or DEFAULT_LABELS, tuple(masks)
    names = {mask: [segment.name for segment in list_segments(mask.files[0])] for mask in segmentations}
    ordered = list(dict.fromkeys(name for mask in masks for name in names.get(mask, [])))
    values = {name: value for value, name in (labels or dict(enumerate(ordered, 1))).items()}
    grid = next(iter(images.values())).files
    refs = [
        ImageRef(
            mask.files, grid_of=grid, structures=tuple((n, values[n]) for n in names[mask] if n in values)
        )
        if mask in segmentations
        else mask
        for mask in masks
    ]
    return {value: name for name, value in values.items()}, tuple(refs)


LAYOUT = Layout(
    title=f"A table ({INDEX}, or any CSV or TSV file): case, patient, channels, label, class, site",
    channels=(),
    recognise=recognise,
    scan=scan,
    index=INDEX,
)
