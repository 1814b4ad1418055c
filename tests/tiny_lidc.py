"""LIDC XML for tests, written as the collection's files are, and outlines around given pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATED = {
    "subtlety": 4,
    "internalStructure": 1,
    "calcification": 6,
    "sphericity": 3,
    "margin": 4,
    "lobulation": 2,
    "spiculation": 1,
    "texture": 5,
    "malignancy": 3,
}


class Roi(NamedTuple):
    """An outline: slice's UID, its z, points (column, row)."""

    image: str
    z_mm: float
    points: Sequence[tuple[int, int]]
    included: bool = True


class Marked(NamedTuple):
    """A reader's mark of a nodule."""

    rois: Sequence[Roi]
    ratings: Mapping[str, object] = RATED
    name: str = "Nodule 001"


@dataclass
class Session:
    """What one reader marked: nodules, and non-nodules as points."""

    nodules: Sequence[Marked] = ()
    non_nodules: Sequence[Roi] = field(default_factory=tuple)


def border(low: tuple[int, int], high: tuple[int, int]) -> list[tuple[int, int]]:
    """The closed chain of pixels just outside of the pixels from `low` to `high` (both inside)."""
    (left, top), (right, bottom) = (low[0] - 1, low[1] - 1), (high[0] + 1, high[1] + 1)
    chain = [(i, top) for i in range(left, right)] + [(right, j) for j in range(top, bottom)]
    chain += [(i, bottom) for i in range(right, left, -1)] + [(left, j) for j in range(bottom, top, -1)]
    return [*chain, chain[0]]


def around(mask: np.ndarray) -> list[tuple[int, int]]:
    """A closed chain around a convex set of pixels (bool, i j): the corners of its hull, grown by a pixel."""
    from scipy.spatial import ConvexHull

    i, j = np.nonzero(mask)
    grown = np.concatenate([np.column_stack([i + di, j + dj]) for di in (-1, 0, 1) for dj in (-1, 0, 1)])
    corners = grown[ConvexHull(grown).vertices]
    steps = []
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        count = int(np.abs(other - one).max())
        steps += [one + np.rint((other - one) * step / count).astype(int) for step in range(count)]
    chain = [(int(i), int(j)) for i, j in steps]
    return [*chain, chain[0]]


def write_lidc_xml(
    path: Path,
    series: str,
    sessions: Sequence[Session],
    *,
    root: str = "LidcReadMessage",
    before: str = "",
    encoding: str = "UTF-8",
) -> Path:
    text = "".join(
        f"<readingSession><annotationVersion>3.12</annotationVersion>"
        f"<servicingRadiologistID>anonymous</servicingRadiologistID>{_nodules(session)}{_points(session)}"
        "</readingSession>"
        for session in sessions
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="{encoding}"?>\n{before}<{root} uid="1.2" xmlns="http://www.nih.gov">'
        f"<ResponseHeader><Version>1.8.1</Version><SeriesInstanceUid>{series}</SeriesInstanceUid>"
        f"<StudyInstanceUID>1.2.3.2</StudyInstanceUID></ResponseHeader>{text}</{root}>\n",
        encoding=encoding,
    )
    return path


def _nodules(session: Session) -> str:
    return "".join(
        f"<unblindedReadNodule><noduleID>{mark.name}</noduleID>{_ratings(mark)}"
        + "".join(_roi(roi) for roi in mark.rois)
        + "</unblindedReadNodule>"
        for mark in session.nodules
    )


def _ratings(mark: Marked) -> str:
    values = "".join(f"<{name}>{value}</{name}>" for name, value in mark.ratings.items())
    return f"<characteristics>{values}</characteristics>" if values else ""


def _roi(roi: Roi) -> str:
    points = "".join(f"<edgeMap><xCoord>{i}</xCoord><yCoord>{j}</yCoord></edgeMap>" for i, j in roi.points)
    return f"<roi>{_place(roi)}<inclusion>{str(roi.included).upper()}</inclusion>{points}</roi>"


def _points(session: Session) -> str:
    return "".join(
        f"<nonNodule><nonNoduleID>7</nonNoduleID>{_place(point)}<locus><xCoord>{point.points[0][0]}</xCoord>"
        f"<yCoord>{point.points[0][1]}</yCoord></locus></nonNodule>"
        for point in session.non_nodules
    )


def _place(roi: Roi) -> str:
    return f"<imageZposition>{roi.z_mm}</imageZposition>" + (
        f"<imageSOP_UID>{roi.image}</imageSOP_UID>" if roi.image else ""
    )
