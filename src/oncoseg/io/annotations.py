"""Annotations of any kind on the grid of the series they belong to: RTSTRUCT, DICOM SEG, LIDC-IDRI XML."""

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io import ImageRef
from oncoseg.io.dicom.headers import DEFLATED, ITEM, meta_of, quiet, read_header
from oncoseg.io.dicom.kinds import kind_of
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.volumes import series_of
from oncoseg.io.structures import Drawing, Structure, StructureSet
from oncoseg.volume import Volume

LARGEST_BYTES = 2 << 30
"""No annotation may be larger, nor unpack to more."""

MOST_ITEMS = 2_000_000
"""No annotation may hold more items of sequences, each of which takes about a kilobyte of memory."""

ITEM_BIG_ENDIAN = b"\xff\xfe\xe0\x00"
"""The tag with which an item begins, in files of that byte order."""

BLOCK_BYTES = 1 << 20
"""How much is looked at at a time."""

LARGEST_LABEL = 65535
"""Label values go up to here."""

KEPT_SERIES = 8
"""Series whose headers are remembered, as the readers of a case follow each other, in several threads."""


class Labels(NamedTuple):
    """A label map.

    Attributes:
        volume: axes `1 i j k`, on the series' grid; uint8, or uint16 where labels exceed 255.
        remarks: what was odd and could be dealt with, each beginning with the label's number, as names of
            structures may name a patient.
    """

    volume: Volume
    remarks: tuple[str, ...]


def open_structures(path: Path, fraction: float = 0.5) -> StructureSet:
    """Open an annotation of any kind.

    Args:
        path: the annotation.
        fraction: of a FRACTIONAL segmentation, the share of its largest value from which on a voxel is
            inside; in (0, 1].

    Raises:
        DataError: it is of no kind that can be read, or is damaged.
    """
    if path.suffix.lower() == ".xml":
        from oncoseg.io.lidc_masks import open_lidc

        return open_lidc(path)
    with quiet():
        header = read_header(path)
    kind = kind_of(header.text("SOPClassUID"))
    _check_bytes(path, header.transfer_syntax == DEFLATED)
    if kind == "RTSTRUCT":
        from oncoseg.io.dicom.rtstruct import open_rtstruct

        return open_rtstruct(path)
    if kind == "SEG":
        from oncoseg.io.dicom.seg import open_seg

        return open_seg(path, fraction)
    raise DataError(f"{path} is {kind}; expected an annotation: RTSTRUCT, DICOM SEG or LIDC XML.")


def list_structures(path: Path) -> list[Structure]:
    """What an annotation marks, in the file's order.

    Raises:
        DataError: see `open_structures`.
    """
    return list(open_structures(path).structures)


def read_structures(
    path: Path, series: Series, wanted: Sequence[str] | None = None, fraction: float = 0.5
) -> dict[str, Drawing]:
    """Draw structures on the grid of a series.

    Args:
        path: the annotation.
        series: the one that it belongs to; see `find_series`.
        wanted: names or patterns such as `GTV*`; None for all.
        fraction: see `open_structures`.

    Returns:
        Name → bool mask `i j k` with remarks, in the file's order.

    Raises:
        DataError: see `open_structures`; or there is no such structure.
        GeometryError: it does not fit the series.
    """
    opened = open_structures(path, fraction)
    names = (
        {each.name for each in opened.structures}
        if wanted is None
        else {each.name for pattern in wanted for each in opened.find(pattern)}
    )
    return {each.name: opened.draw(each, series) for each in opened.structures if each.name in names}


def read_labels(ref: ImageRef) -> Labels:
    """Read the annotation of an `ImageRef` as a label map; of structures that overlap the later one is kept.

    Raises:
        DataError: see `read_structures`; or the reference does not say which series and structures are meant.
        GeometryError: see `read_structures`.
    """
    if len(ref.files) != 1 or not ref.grid_of:
        raise DataError(
            f"Expected one annotation and the files of its series, got {len(ref.files)} file(s) and a series "
            f"of {len(ref.grid_of)}."
        )
    opened = open_structures(ref.files[0])
    if not ref.structures:
        raise DataError(
            f"Expected names of structures in {ref.files[0]} with labels; it has {opened.listed()}."
        )
    bad = [label for _, label in ref.structures if not 0 < label <= LARGEST_LABEL]
    if bad:
        raise DataError(f"Expected labels from 1 to {LARGEST_LABEL}, got {bad[0]}.")
    series = series_of_files(ref.grid_of)
    smallest = np.uint8 if max(label for _, label in ref.structures) <= 255 else np.uint16
    labels = np.zeros(series.grid[::-1], smallest).T
    remarks = []
    for pattern, label in ref.structures:
        for structure in opened.find(pattern):
            drawing = opened.draw(structure, series)
            np.copyto(labels, label, where=drawing.inside)
            remarks += [f"label {label}: {remark}" for remark in drawing.remarks]
    return Labels(Volume(labels[None], series.affine_ras, header=series), tuple(dict.fromkeys(remarks)))


def series_of_files(files: tuple[Path, ...]) -> Series:
    """The one series that files make; remembered until they change.

    Raises:
        DataError: they make none, or several; says why.
    """
    try:
        states = tuple((state.st_size, state.st_mtime_ns) for state in (file.stat() for file in files))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return _series(files, states)


@lru_cache(KEPT_SERIES)
def _series(files: tuple[Path, ...], _states: tuple[tuple[int, int], ...]) -> Series:
    return series_of(files)


def _check_bytes(path: Path, deflated: bool) -> None:
    """Check how much there is to parse, before memory is taken for it.

    Raises:
        DataError: it is too much.
    """
    size = items = 0
    for block in _blocks(path, deflated):
        size, items = size + len(block), items + block.count(ITEM) + block.count(ITEM_BIG_ENDIAN)
        if size > LARGEST_BYTES or items > MOST_ITEMS:
            raise DataError(
                f"{path} holds more than {LARGEST_BYTES >> 20} MiB or {MOST_ITEMS} items; expected an "
                "annotation."
            )


def _blocks(path: Path, deflated: bool) -> Iterator[bytes]:
    """A file's bytes, some at a time; unpacked where its data set is deflated."""
    with path.open("rb") as file:
        if not deflated:
            while block := file.read(BLOCK_BYTES):
                yield block
            return
        rest = file.read(LARGEST_BYTES)
    unpacker, rest = zlib.decompressobj(-zlib.MAX_WBITS), rest[meta_of(rest)[1] :]
    while rest:
        try:
            block = unpacker.decompress(rest, BLOCK_BYTES)
        except zlib.error as error:
            raise DataError(f"{path} is damaged: it cannot be unpacked. Copy it again.") from error
        rest = unpacker.unconsumed_tail if block else b""
        yield block
