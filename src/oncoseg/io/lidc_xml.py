"""LIDC-IDRI XML: what up to four readers marked in one CT series.

A reading session is one reader's: nodules of 3 mm and more with an outline in every slice and nine ratings,
nodules below 3 mm as one point, and non-nodules as one point. Readers are not the same people from case to
case. Armato et al., 2011, https://doi.org/10.1118/1.3528204; McNitt-Gray et al., 2007,
https://doi.org/10.1016/j.acra.2007.07.021. Lobulation and spiculation were rated inconsistently in about 100
of the first 399 cases (TCIA's notes on the collection).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.checks import check_regular

LARGEST_XML_BYTES = 16 << 20
"""No file may be larger; those of the collection have at most some MB."""

RATINGS = {
    "subtlety": 5,
    "internalStructure": 4,
    "calcification": 6,
    "sphericity": 5,
    "margin": 5,
    "lobulation": 5,
    "spiculation": 5,
    "texture": 5,
    "malignancy": 5,
}
"""What readers rated of a nodule, as the XML calls it → the highest rating; the lowest is 1."""

LONGEST_REASON = 100
"""Characters that an error repeats of what is damaged, which may be as long as the file."""

LARGEST_COORDINATE = 65536
"""No image has more columns or rows."""

ROOT = "LidcReadMessage"
"""Root element of the files about CT; those about chest X-rays have another."""


class OtherXmlError(DataError):
    """XML that is no LIDC reading of CT."""


class Outline(NamedTuple):
    """A reader's outline of a nodule in one slice.

    Attributes:
        image: SOPInstanceUID of the slice; empty where it does not say.
        z_mm: the slice's ImagePositionPatient along z (LPS); NaN where it does not say.
        included: False for an outline of something within a nodule that is not part of it.
        points: n×2 whole numbers, (i, j): column and row of pixels, from 0. They lie just outside of what is
            outlined.
    """

    image: str
    z_mm: float
    included: bool
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class NoduleMark:
    """One reader's mark of one nodule.

    Attributes:
        reader: from 1, in the file's order of sessions.
        id: as the reader's software called it; it means nothing elsewhere.
        outlines: one or more; a single one of one point for nodules below 3 mm.
        ratings: see `RATINGS`; empty for nodules below 3 mm, which are not rated.
    """

    reader: int
    id: str
    outlines: tuple[Outline, ...]
    ratings: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_outlined(self) -> bool:
        """Whether it was outlined, as nodules of 3 mm and more are, or has a single point in every slice."""
        return any(len(outline.points) > 1 for outline in self.outlines)


class PointMark(NamedTuple):
    """One reader's mark of something that looks like a nodule of 3 mm or more and is none."""

    reader: int
    id: str
    outline: Outline


@dataclass(frozen=True, eq=False)
class LidcRead:
    """What one file holds.

    Attributes:
        series_uid: SeriesInstanceUID of the CT.
        study_uid: its StudyInstanceUID; empty where it does not say.
        readers: number of reading sessions.
        nodules: marks of all readers, of any size.
        non_nodules: see `PointMark`.
    """

    series_uid: str
    study_uid: str
    readers: int
    nodules: tuple[NoduleMark, ...]
    non_nodules: tuple[PointMark, ...]


def read_lidc_xml(path: Path) -> LidcRead:
    """Read one file.

    Raises:
        OtherXmlError: it is no LIDC reading of CT.
        DataError: it is too large, is no XML, holds a document type definition, or is damaged.
    """
    root = parse_xml(path)
    if root.tag != ROOT:
        raise OtherXmlError(f"{path} is no LIDC reading of CT: expected the root element {ROOT}.")
    sessions = list(enumerate(root.findall("readingSession"), 1))
    try:
        nodules = tuple(
            _nodule(mark, reader)
            for reader, session in sessions
            for mark in session.findall("unblindedReadNodule")
        )
        non_nodules = tuple(
            PointMark(reader, _text(mark, "nonNoduleID"), _outline(mark, "locus"))
            for reader, session in sessions
            for mark in session.findall("nonNodule")
        )
    except ValueError as error:
        raise DataError(
            f"{path} has a damaged mark: {str(error)[:LONGEST_REASON]}. Copy it again."
        ) from error
    series_uid = _text(root, "ResponseHeader/SeriesInstanceUid")
    if not series_uid:
        raise DataError(f"{path} does not say of which series it is: SeriesInstanceUid is missing.")
    study_uid = _text(root, "ResponseHeader/StudyInstanceUID")
    return LidcRead(series_uid, study_uid, len(sessions), nodules, non_nodules)


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse XML that may come from anywhere: of bounded size, and without a document type definition.

    Such definitions can name other files and can be made to grow beyond all memory; these files have none.
    Namespaces are left alone: the files declare one for all of their elements.

    Raises:
        DataError: see above, or it is not well-formed.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_XML_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > LARGEST_XML_BYTES:
        raise DataError(f"{path} is larger than {LARGEST_XML_BYTES >> 20} MiB; expected an LIDC reading.")

    def refuse(*_: object) -> None:
        raise DataError(
            f"{path} holds a document type definition; it is refused, as no LIDC reading has one."
        )

    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{path} is no well-formed XML: {error}. Copy it again.") from error


def _nodule(mark: ElementTree.Element, reader: int) -> NoduleMark:
    outlines = tuple(_outline(roi, "edgeMap") for roi in mark.findall("roi"))
    return NoduleMark(reader, _text(mark, "noduleID"), outlines, _ratings(mark))


def _ratings(mark: ElementTree.Element) -> dict[str, int]:
    """The ratings that lie within their range."""
    ratings = {}
    for name, highest in RATINGS.items():
        text = _text(mark, f"characteristics/{name}")
        if text.isascii() and text.isdigit() and 1 <= int(text) <= highest:
            ratings[name] = int(text)
    return ratings


def _outline(mark: ElementTree.Element, points: str) -> Outline:
    """One outline or point.

    Raises:
        ValueError: a coordinate is missing or no number.
    """
    numbers = np.array(
        [
            (float(each.findtext("xCoord", "")), float(each.findtext("yCoord", "")))
            for each in mark.findall(points)
        ]
    ).reshape(-1, 2)
    if not (np.abs(numbers) < LARGEST_COORDINATE).all():
        raise ValueError("coordinates outside any image")
    return Outline(
        _text(mark, "imageSOP_UID"),
        float(_text(mark, "imageZposition") or "nan"),
        _text(mark, "inclusion").upper() != "FALSE",
        np.rint(numbers).astype(np.int64),
    )


def _text(parent: ElementTree.Element, path: str) -> str:
    """Text of the first element at a path; empty where there is none."""
    return (parent.findtext(path) or "").strip()
