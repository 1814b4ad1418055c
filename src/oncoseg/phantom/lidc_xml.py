"""Readers' masks as the XML file of LIDC-IDRI.

A reader's outline is the first pixel outside the nodule all the way round, slice by slice (Armato et al.,
2011, https://doi.org/10.1118/1.3528204, II.C). Here it is traced around each mask with its holes filled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from scipy import ndimage

NAMESPACE = "http://www.nih.gov"
"""Of the elements."""

AROUND = ((-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1))
"""A pixel's neighbours in turn."""


@dataclass(frozen=True, eq=False)
class Mark:
    """What one reader marked.

    Attributes:
        name: of the mark.
        masks: slice index → bool `i j`; a mark of one point has one pixel.
        ratings: characteristic → 1 to 6, in LIDC's order; empty for a nodule under 3 mm.
        nodule: False for what the reader took for no nodule.
    """

    name: str
    masks: Mapping[int, np.ndarray]
    ratings: Mapping[str, int]
    nodule: bool = True


def write_readings(
    readers: Sequence[Sequence[Mark]], uids: Sequence[str], heights_mm: Sequence[float], series_uid: str
) -> str:
    """The file's text.

    Args:
        readers: each reader's marks.
        uids: SOPInstanceUID of each slice.
        heights_mm: z of each slice in DICOM's patient coordinates.
        series_uid: of the images.
    """
    root = ElementTree.Element("LidcReadMessage", {"uid": series_uid + ".0", "xmlns": NAMESPACE})
    header = ElementTree.SubElement(root, "ResponseHeader")
    _texts(header, {"Version": "1.7", "SeriesInstanceUid": series_uid})
    for marks in readers:
        session = ElementTree.SubElement(root, "readingSession")
        _texts(session, {"annotationVersion": "3.12", "servicingRadiologistID": "anonymous"})
        for mark in marks:
            _add_mark(session, mark, uids, heights_mm)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def trace(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed chains of pixels (i, j) just outside each part of a mask; the first pixel comes last again.

    Args:
        mask: bool `i j`; pixels that touch at a corner are one part. Nothing lies at the border.
    """
    parts, count = ndimage.label(ndimage.binary_fill_holes(mask), np.ones((3, 3)))
    return [_around(ndimage.binary_dilation(parts == part)) for part in range(1, count + 1)]


def _around(filled: np.ndarray) -> list[tuple[int, int]]:
    """The outermost pixels of one part in turn (Moore's neighbour tracing, Jacob's stopping rule)."""
    first = _first_pixel(filled)
    chain, here, came_from = [first], first, 0
    start: tuple[tuple[int, int], int] | None = None
    while True:
        for turn in range(1, 9):
            direction = (came_from + turn) % 8
            i, j = here[0] + AROUND[direction][0], here[1] + AROUND[direction][1]
            if 0 <= i < filled.shape[0] and 0 <= j < filled.shape[1] and filled[i, j]:
                break
        if start == (here, direction):
            return chain
        start = start or (here, direction)
        here, came_from = (i, j), (direction + 5) % 8 if direction % 2 else (direction + 6) % 8
        chain.append(here)


def _add_mark(
    session: ElementTree.Element, mark: Mark, uids: Sequence[str], heights_mm: Sequence[float]
) -> None:
    element = ElementTree.SubElement(session, "unblindedReadNodule" if mark.nodule else "nonNodule")
    _texts(element, {"noduleID" if mark.nodule else "nonNoduleID": mark.name})
    if mark.ratings:
        ratings = ElementTree.SubElement(element, "characteristics")
        _texts(ratings, {name: str(value) for name, value in mark.ratings.items()})
    for k, mask in mark.masks.items():
        place = {"imageZposition": f"{heights_mm[k]:.6f}", "imageSOP_UID": uids[k]}
        if not mark.nodule:
            _texts(element, place)
            _add_points(element, "locus", [_first_pixel(mask)])
            continue
        for chain in trace(mask) if mark.ratings else [[_first_pixel(mask)]]:
            roi = ElementTree.SubElement(element, "roi")
            _texts(roi, place | {"inclusion": "TRUE"})
            _add_points(roi, "edgeMap", chain)


def _add_points(parent: ElementTree.Element, tag: str, points: Sequence[tuple[int, int]]) -> None:
    for i, j in points:
        _texts(ElementTree.SubElement(parent, tag), {"xCoord": str(i), "yCoord": str(j)})


def _first_pixel(mask: np.ndarray) -> tuple[int, int]:
    i, j = np.argwhere(mask)[0]
    return int(i), int(j)


def _texts(parent: ElementTree.Element, texts: Mapping[str, str]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = text
