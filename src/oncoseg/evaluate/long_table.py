"""The tables from which everything else is made: one row per case (or patient), class and metric."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from oncoseg.errors import DataError
from oncoseg.evaluate.scoring import CaseScores
from oncoseg.files import atomic_file

CASES, PATIENTS, COUNTS = "cases", "patients", "counts"
"""Names of the tables' files, without suffix."""


class Row(NamedTuple):
    """One value.

    Attributes:
        group: the modality, where a system has several; else empty.
        case: the case's id; empty in the table of patients.
        patient: whose case it is.
        label: the class.
        metric: a name in METRICS.
        value: NaN where undefined.
        rule: the situation that decided the value, such as `prediction_empty`; empty if none did.
    """

    group: str
    case: str
    patient: str
    label: str
    metric: str
    value: float
    rule: str


COUNTS_HEADER = (
    "group",
    "case",
    "patient",
    "class",
    "tp",
    "fp",
    "fn",
    "tn",
    "true_ml",
    "predicted_ml",
    "truth",
)
"""Columns of counts.csv; the last is a fingerprint of the class in the truth, see `truths`."""

HEADER = ("group", "case", "patient", "class", "metric", "value", "rule")
"""Columns of the files."""


def rows_of(scores: Iterable[CaseScores]) -> list[Row]:
    """One row for every value."""
    return [
        Row(one.group, one.case, one.patient, one.label, name, value, one.rules.get(name, ""))
        for one in scores
        for name, value in one.values.items()
    ]


def write(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write FOLDER/NAME.csv and FOLDER/NAME.parquet; an undefined value is empty, or null."""
    with (
        atomic_file(folder / f"{name}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows((*row[:5], "" if math.isnan(row.value) else row.value, row.rule) for row in rows)
    _write_parquet(folder / f"{name}.parquet", rows)


def read(folder: Path, name: str = PATIENTS) -> list[Row]:
    """Read what `write` wrote, from the CSV file.

    Raises:
        DataError: it is not there, or not such a table.
    """
    path = folder / f"{name}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != HEADER:
            raise ValueError(f"its columns are {', '.join(header)}")
        return [
            Row(group, case, patient, label, metric, float(value) if value else math.nan, rule)
            for group, case, patient, label, metric, value, rule in lines
        ]
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the table {path} ({error}); expected what `oncoseg evaluate` writes, with the "
            f"columns {', '.join(HEADER)}."
        ) from error


def write_counts(folder: Path, scores: Iterable[CaseScores]) -> None:
    """Write FOLDER/counts.csv: voxels and volumes of every case and class."""
    with (
        atomic_file(folder / f"{COUNTS}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COUNTS_HEADER)
        for one in scores:
            true_ml, predicted_ml = one.volumes_ml
            volumes = (
                "" if math.isnan(true_ml) else true_ml,
                "" if math.isnan(predicted_ml) else predicted_ml,
            )
            writer.writerow((one.group, one.case, one.patient, one.label, *one.counts, *volumes, one.truth))


def read_counts(folder: Path) -> list[dict[str, str]]:
    """Read counts.csv as text; nothing where there is none."""
    path = folder / f"{COUNTS}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = list(zip(*rows, strict=True)) or [()] * len(HEADER)
    columns[5] = tuple(None if math.isnan(value) else value for value in columns[5])
    types = [pyarrow.string()] * 5 + [pyarrow.float64(), pyarrow.string()]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with atomic_file(path) as temporary:
        parquet.write_table(pyarrow.table(dict(zip(HEADER, arrays, strict=True))), temporary)
