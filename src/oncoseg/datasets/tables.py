"""Tables that people write: CSV or TSV from any spreadsheet, whatever its separator and encoding."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from oncoseg.errors import DataError
from oncoseg.io.checks import check_regular

TABLE_SUFFIXES = (".csv", ".tsv")
"""Files that hold a table."""

SEPARATORS = ",;\t"
"""What may stand between cells; the one that the first line holds most of does."""

LARGEST_TABLE_BYTES = 64 << 20
"""A larger file is no table of cases."""

MOST_COLUMNS = 10_000
"""No table of cases has more."""

MOST_CELLS = 5_000_000
"""No table of cases has more: a hundred thousand rows of fifty columns."""

SHOWN_COLUMNS = 20
"""How many columns a message lists."""


@dataclass(frozen=True)
class Table:
    """Cells as texts, without blanks around them.

    Attributes:
        path: the file.
        columns: their headings, as written.
        rows: each with as many cells as there are columns; empty lines are left out.
        lines: each row's line in the file, counted from 1.
        remarks: what was odd and was settled.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    remarks: tuple[str, ...] = ()

    def column(self, name: str) -> tuple[str, ...] | None:
        """The cells of a column, whose name counts in any case of letters; None if there is none."""
        place = self._places.get(name.lower())
        return None if place is None else tuple(row[place] for row in self.rows)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Name of a column in small letters → its index; of several, which have no name, the first's."""
        return {name.lower(): n for n, name in reversed(list(enumerate(self.columns)))}


def read_table(path: Path, needed: Sequence[str] = ()) -> Table:
    """Read a table.

    Args:
        path: a CSV or TSV file: UTF-8 with or without a mark, UTF-16 with one, or else Windows-1252; commas,
            semicolons or tabs between cells.
        needed: columns that must be there.

    Raises:
        DataError: unreadable, without a heading or one that is needed, two columns of one name, or a row
            that is longer than the first.
    """
    text, remarks = _decoded(path)
    separator, text = _separated(text)
    try:
        found = list(_rows(path, text, separator))
    except csv.Error as error:
        raise DataError(f"{path} is no table: {error}. Save it again as CSV.") from error
    if not found:
        raise DataError(f"{path} is empty; expected a first line with the names of the columns.")
    columns = tuple(found[0][1])
    _check_columns(path, columns, needed)
    for line, row in found[1:]:
        if len(row) > len(columns):
            raise DataError(
                f"{path}, line {line}, has {len(row)} cells, but there are {len(columns)} columns. Put "
                "quotes round a cell that holds the separator."
            )
    rows = tuple((*row, *[""] * (len(columns) - len(row))) for _, row in found[1:])
    return Table(path, columns, rows, tuple(line for line, _ in found[1:]), remarks)


def _separated(text: str) -> tuple[str, str]:
    """What stands between cells, and the text without the line `sep=;` that tells Excel so."""
    first, newline, rest = text.lstrip("\r\n").partition("\n")
    if told := re.fullmatch(rf'"?sep=([{SEPARATORS}])"?', first.strip(" \r"), re.IGNORECASE):
        return told[1], newline + rest
    return max(SEPARATORS, key=first.count), text


def _rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each after the number of its last line.

    Raises:
        csv.Error: it is no table.
        DataError: there are more than `MOST_COLUMNS`, or, once all are as long as the longest, `MOST_CELLS`.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    count = longest = 0
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        count, longest = count + 1, max(longest, len(cells))
        if longest > MOST_COLUMNS or count * longest > MOST_CELLS:
            raise DataError(
                f"{path} has more than {MOST_COLUMNS} columns or {MOST_CELLS} cells; expected a table of "
                "cases. Check that it is the right file."
            )
        yield reader.line_num, cells


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    counts = Counter(column.lower() for column in columns if column)
    if missing := [name for name in needed if name.lower() not in counts]:
        what = f"column {missing[0]}" if len(missing) == 1 else f"columns {' and '.join(missing)}"
        there = ", ".join(columns[:SHOWN_COLUMNS]) + (" and more" if len(columns) > SHOWN_COLUMNS else "")
        alike = " Where each case is a patient of its own, repeat its name as the patient's."
        raise DataError(
            f"{path} lacks the {what}; its first line names {there}. Name the columns so there."
            f"{alike if 'patient' in missing else ''}"
        )
    if doubled := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"{path} has two columns named {doubled[0]}; expected one. Rename or remove one.")


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    check_regular(path)
    try:
        if path.stat().st_size > LARGEST_TABLE_BYTES:
            raise DataError(f"{path} is too large for a table of cases; check that it is the right file.")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected a table there.") from error
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is no text; expected a table as CSV, not as a spreadsheet's own format.")
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16"), ()
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        remark = (
            f"{path.name} is not UTF-8 and was read as Windows-1252; save it as UTF-8 if letters are wrong"
        )
        return data.decode("cp1252", "replace"), (remark,)
