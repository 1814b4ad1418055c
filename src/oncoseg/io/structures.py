"""What annotations of all kinds share: named structures, each of which can be drawn on a series' grid."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from oncoseg.errors import DataError, GeometryError, nearest
from oncoseg.io.dicom.deidentify.words import all_known
from oncoseg.io.dicom.series import Series

SHOWN_NAMES = 40
"""How many names of structures an error lists."""


class Structure(NamedTuple):
    """Something that an annotation marks.

    Attributes:
        name: as in the file; where several are called the same, ` #` and their number are added.
        number: as in the file.
        parts: how many contours, frames or nodules make it up.
        unit: what `parts` counts.
    """

    name: str
    number: int
    parts: int
    unit: str


class Drawing(NamedTuple):
    """A structure on a series' grid.

    Attributes:
        inside: bool, axes `i j k`.
        remarks: what was odd and could be dealt with, in words.
    """

    inside: np.ndarray
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class StructureSet:
    """An opened annotation.

    Attributes:
        kind: `RTSTRUCT`, `SEG` or `LIDC`.
        structures: in the file's order, with distinct names.
        series_uids: SeriesInstanceUID of the series that it says it was made on.
        draw: puts a structure on the grid of a series. Raises GeometryError where it does not fit there,
            and DataError where it is damaged.
    """

    kind: str
    structures: tuple[Structure, ...]
    series_uids: tuple[str, ...]
    draw: Callable[[Structure, Series], Drawing]

    def find(self, pattern: str) -> list[Structure]:
        """The structure of this name, or else all that fit it as a pattern (`GTV*`), in any case of letters.

        Raises:
            DataError: there is none; lists the names, as far as they are of known words.
        """
        exact = [each for each in self.structures if each.name == pattern]
        fitting = exact or [
            each for each in self.structures if fnmatchcase(each.name.casefold(), pattern.casefold())
        ]
        if not fitting:
            names = [each.name for each in self.structures if all_known(each.name)]
            near = nearest(pattern, names, "name one of these, or a pattern such as 'GTV*'.")
            raise DataError(f"No structure is called {pattern!r}; there is {self.listed()}: {near}")
        return fitting

    def listed(self) -> str:
        """The names for a message; one that may hold a patient's is only counted, as errors are kept."""
        known = [repr(each.name) for each in self.structures if all_known(each.name)]
        more, others = len(known) - SHOWN_NAMES, len(self.structures) - len(known)
        texts = [", ".join(known[:SHOWN_NAMES])] if known else []
        texts += [f"{more} more"] if more > 0 else []
        texts += [f"{others} with words that may name a patient (`list_structures`)"] if others else []
        return " and ".join(texts) or "none"


def distinct(structures: Sequence[Structure]) -> tuple[Structure, ...]:
    """Add the number to names that occur more than once."""
    counts = Counter(each.name for each in structures)
    return tuple(
        each if counts[each.name] == 1 else each._replace(name=f"{each.name} #{each.number}")
        for each in structures
    )


def empty(series: Series) -> np.ndarray:
    """A mask of a series' grid without anything inside; memory is only taken where it is written to."""
    return np.zeros(series.grid[::-1], bool).T


def lps_to_voxels(series: Series) -> np.ndarray:
    """4×4, DICOM's patient coordinates in millimetres to voxel indices of a series."""
    return np.linalg.inv(series.affine_ras) @ np.diag([-1.0, -1.0, 1.0, 1.0])


def slice_distance_mm(series: Series) -> float:
    """Distance of the planes of neighbouring slices, along their normal."""
    i, j, k = series.affine_ras[:3, :3].T
    normal = np.cross(i, j)
    return float(abs(k @ normal) / np.linalg.norm(normal))


def check_frame_of_reference(own: str, series: Series, refers_to_it: bool) -> None:
    """Check that positions of an annotation mean places in a series.

    Args:
        own: FrameOfReferenceUID of the annotation; empty where it does not say.
        series: where it is to be drawn.
        refers_to_it: whether it names the series or its images, which says the same.

    Raises:
        GeometryError: they have different frames of reference.
    """
    known = {own, series.frame_of_reference_uid} - {""}
    if len(known) > 1 and not refers_to_it:
        raise GeometryError(
            "The annotation and the series have different frames of reference, so that positions in one mean "
            "nothing in the other; expected the series that it was drawn on, or one registered with it."
        )
