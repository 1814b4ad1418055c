"""A plain table of cases for whatever has no layout of its own: one line per case, one column per channel.

Columns: `case`, `patient`, a column per channel with paths (`CT`, `T1`, …), `label` or one `label.READER`
per reader, `class`, `site`. Paths are relative to the table; `FILE#2` is the third volume of a 4D file, and
a folder of DICOM files is a series. Beside the table, `labels.json` names the label values:
`{"liver": 1, "tumour": 2}`; structures of an annotation get the value of the label that is called like them.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.datasets.dataset_json import Listing
from oncoseg.datasets.folders import collect, list_folder, safe_id, shortened
from oncoseg.datasets.structures import Labels, is_annotation, own_labels, structure_names, structures_of
from oncoseg.datasets.tables import SHOWN_COLUMNS, TABLE_SUFFIXES, Table, read_table
from oncoseg.errors import DataError
from oncoseg.files import read_json
from oncoseg.io import IMAGE_SUFFIXES, VOLUME_SUFFIXES, ImageRef, image_ref, is_dicom

INDEX = "cases.csv"
"""The table's name where a folder is given."""

LABELS = "labels.json"

DEFAULT_LABELS = {1: "tumour", 255: "tumour"}
"""Without `labels.json`: masks of 0 and 1, or of 0 and 255."""

CASE, PATIENT, CLASS, SITE = "case", "patient", "class", "site"

LABEL = re.compile(r"label(\.(?P<reader>.+))?", re.IGNORECASE)

LIKE_LABEL = re.compile(
    r"(labels?|masks?|seg(mentation)?s?|annotations?|ground[ _-]?truth|truth|gt)([\W_\d].*)?", re.IGNORECASE
)
"""Headings that mean a mask in all likelihood; taken as a channel, the network would be shown the answer."""

CELL = re.compile(r"(?P<path>.+?)(#(?P<component>\d+))?")

GLANCE_CELLS = 20
"""How many cells of a column are looked for as folders."""

Row = tuple[int, Mapping[str, str]]
"""Number of a row, and what it says of the case."""

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
    return _scan(path, need_images=True)


def scan_masks(path: Path) -> Scan:
    """Describe every line, also those that name masks and no images.

    Raises:
        DataError: no table or several, or one that cannot be used at all.
    """
    return _scan(path, need_images=False)


def _scan(path: Path, need_images: bool) -> Scan:
    tables = _tables(path)
    if len(tables) != 1:
        names = ", ".join(str(file) for file in tables) or "none"
        raise DataError(f"{path}: expected one table named {INDEX}, found {names}. Give the file itself.")
    table = read_table(tables[0], (CASE, PATIENT))
    if not table.rows:
        raise DataError(f"{table.path} names its columns and no case; expected one line for each. Add some.")
    columns = _columns(table, need_images)
    labels = read_labels(table.path.parent / LABELS)
    files = _Files(table, columns, labels)
    named = {name: table.column(name) or ("",) * len(table.rows) for name in (CASE, PATIENT, CLASS, SITE)}
    rows = (
        (number, {name: cells[number] for name, cells in named.items()}) for number in range(len(table.rows))
    )
    found = collect("table", [_describe(table, row, columns, files, need_images) for row in rows])
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
        given = read_json(path)
        pairs = [
            (int(key), value) if isinstance(value, str) and key.isdecimal() else (int(value), key)
            for key, value in given.items()
        ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
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


def _columns(table: Table, need_images: bool) -> Columns:
    images: dict[str, Sequence[str]] = {}
    masks: dict[str, Sequence[str]] = {}
    ignored = []
    for heading in table.columns:
        cells = table.column(heading) or ()
        if heading.lower() in (CASE, PATIENT, CLASS, SITE) or not heading:
            continue
        if LABEL.fullmatch(heading):
            masks[heading] = cells
        elif any(_is_image(cell) for cell in cells) or _name_folders(table.path.parent, cells):
            _check_channel(table, heading)
            images[_new_channel(table, heading, images)] = cells
        else:
            ignored.append(heading)
    if not images and (need_images or not masks):
        known, given = (
            ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)),
            shortened(table.columns, most=SHOWN_COLUMNS),
        )
        raise DataError(
            f"{table.path} has no column of images: expected one per channel, such as CT or T1, with paths "
            f"that end in {known}. Its columns are {given}."
        )
    return Columns(images, masks, ignored)


def _check_channel(table: Table, heading: str) -> None:
    if LIKE_LABEL.fullmatch(heading):
        raise DataError(
            f"{table.path} has a column {heading} of files; masks are expected under label, or one "
            "label.READER for each reader. Rename it; if it is a channel of the image, give it another name."
        )


def _new_channel(table: Table, heading: str, channels: Mapping[str, object]) -> str:
    name = channel_name(heading)
    if name in channels:
        raise DataError(f"{table.path} has two columns of the channel {name}; expected one. Rename one.")
    return name


def _is_image(cell: str) -> bool:
    match = CELL.fullmatch(cell)
    return bool(match and match["path"].lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)))


def _name_folders(folder: Path, cells: Sequence[str]) -> bool:
    """Whether the first cells name folders; others, such as ages, are not looked for one by one."""
    filled = [cell for cell in cells if cell][:GLANCE_CELLS]
    return any((folder / cell).is_dir() for cell in filled)


class _Files:
    """What lies where: files from one listing of each folder, and the structures of annotations."""

    def __init__(self, table: Table, columns: Columns, labels: Mapping[int, str] | None) -> None:
        self._folder = table.path.parent
        self._listing = Listing()
        self._names: dict[Path, tuple[str, ...]] = {}
        for cell in (cell for cells in columns.masks.values() for cell in cells if cell):
            with contextlib.suppress(DataError):  # told where the cell's case is described
                file = self.reference(cell).files[0]
                if is_annotation(file):
                    self._names[file] = structure_names(file)
        own = own_labels(name for names in self._names.values() for name in names)
        self._structures: Labels = own if labels is None else {name: [name] for name in labels.values()}
        if labels is not None:
            self.labels = dict(labels)
        else:
            self.labels = dict(enumerate(own, 1)) if own else dict(DEFAULT_LABELS)

    def reference(self, cell: str) -> ImageRef:
        """The file or series that a cell names.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        match = CELL.fullmatch(cell)
        texts = (match["path"], match["path"].replace("\\", "/")) if match else (cell,)
        places = [self._folder / text for text in texts]
        path = next((place for place in places if place in self._listing), None)
        if path is not None and (_is_image(cell) or is_dicom(path)):
            return image_ref(path, int(match["component"]) if match and match["component"] else None)
        if path is not None:
            known = ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
            raise DataError(f"{path} has a suffix that cannot be read; expected one of {known}, or DICOM.")
        series = next((place for place in places if place.is_dir()), None)
        if series is None:
            near = self._alike(places[-1])
            raise DataError(
                f"{places[0]} does not exist{near}. Paths are relative to the table's folder; mend it."
            )
        files = tuple(series / name for name in sorted(self._listing.names(series)))
        if not any(map(is_dicom, files)):
            raise DataError(f"{series} is a folder without DICOM files; expected a series, or name a file.")
        return ImageRef(tuple(file for file in files if is_dicom(file)))

    def _alike(self, place: Path) -> str:
        """Words about a file whose name differs in the case of its letters alone."""
        names = self._listing.names(place.parent)
        alike = next((name for name in sorted(names) if name.lower() == place.name.lower()), None)
        return f", but {alike} does: capital letters count" if alike else ""

    def mask(self, cell: str, image: ImageRef | None) -> ImageRef:
        """The mask that a cell names, on the grid of an image.

        Raises:
            DataError: see `reference`; or an annotation that cannot be used, of which nothing has a label, or
                without an image.
        """
        ref = self.reference(cell)
        file = ref.files[0]
        if not is_annotation(file):
            return ref
        if image is None:
            raise DataError(
                f"{file} is drawn on an image, which the line does not name. Add it to the table."
            )
        names = self._names[file] if file in self._names else structure_names(file)
        values = {name: value for value, name in self.labels.items()}
        structures = structures_of(names, self._structures, values)
        if not structures:
            told = ", ".join(own_labels(names))  # a name may hold a patient's
            raise DataError(f"{file} marks {told}, none of which {LABELS} names. Add one to it.")
        return ImageRef(ref.files, grid_of=image.files, structures=structures)


def _describe(table: Table, described: Row, columns: Columns, files: _Files, need_images: bool) -> Described:
    row, texts = described
    where = f"{table.path.name}, line {table.lines[row]}"
    if not texts[CASE] or not texts[PATIENT]:
        text = (
            f"{where}: expected a case and its patient; it is left out. Fill in both, alike where each case "
        )
        return None, [Problem("unnamed-case", None, f"{text}is a patient of its own.")]
    case_id = safe_id(texts[CASE])
    problems: list[Problem] = []
    images: dict[str, ImageRef] = {}
    masks: list[ImageRef] = []
    for heading, cells in (*columns.images.items(), *columns.masks.items()):
        if not cells[row] or (heading in columns.masks and need_images and not images):
            continue
        try:
            if heading in columns.images:
                images[heading] = files.reference(cells[row])
            else:
                masks.append(files.mask(cells[row], next(iter(images.values()), None)))
        except DataError as error:
            problems.append(Problem("missing-file", case_id, f"{case_id} ({where}), {heading}: {error}"))
    if not images and (need_images or not masks):
        text = f"{case_id} ({where}): no image can be found; the case is left out. Mend its paths."
        return None, [*problems, Problem("no-case", case_id, text)]
    site, target = texts[SITE] or None, texts[CLASS] or None
    return Case(case_id, texts[PATIENT], images, tuple(masks), files.labels, site, target), problems


LAYOUT = Layout(
    title=f"A table ({INDEX}, or any CSV or TSV file): case, patient, channels, label, class, site",
    channels=(),
    recognise=recognise,
    scan=scan,
    index=INDEX,
)
