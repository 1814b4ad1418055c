"""`Case` and what a data set adapter must be able to do. Adapters describe; they never read voxels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oncoseg.io import ImageRef


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        id: unique in its data set; letters, digits, `.`, `_` and `-` only, as it becomes a file name.
        patient: cases of one patient share it and never lie on both sides of a split.
        images: where each channel lies, by its name (`T1`, `T1ce`, `T2`, `FLAIR`, `CT`, …).
        masks: one per reader, on the grid of the images; empty when there is no truth.
        labels: voxel value in the masks → name of what it marks; 0 is background and not listed.
        site: where the examination was made, if known.
        target: the case's class, such as `benign` or `malignant`, if known.
    """

    id: str
    patient: str
    images: Mapping[str, ImageRef]
    masks: tuple[ImageRef, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    site: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set, in words a user can act on.

    Attributes:
        kind: a short, stable word for tests and tables, such as `missing-channel`.
        case: the case it concerns, or None for the whole data set.
        message: what was expected, what came and how to mend it.
    """

    kind: str
    case: str | None
    message: str


@dataclass(frozen=True)
class Scan:
    """What was found in a folder.

    Attributes:
        layout: a name in DATASETS.
        cases: sorted by id.
        problems: those that show without reading voxels.
        synthetic: whether a note beside the images says that they show no patient; set by `open_dataset`.
        remarks: what is worth knowing and no problem, one sentence each.
    """

    layout: str
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    synthetic: bool = False
    remarks: tuple[str, ...] = ()


Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        title: one line for people.
        channels: every channel name the layout can offer; empty where each data set names its own.
        recognise: cheap; True when the folder looks like this layout.
        scan: describes every case below the folder.
        watched: the same, and tells how far it is: where thousands of files are opened.
        index: a file that only data sets of an indexed layout have. Where it lies in the very folder that
            was given, it decides, whatever the names of the other files look like.
        anonymous: whether the names of cases and patients tell nothing of a patient, as publishers or a
            salt made them; such names are kept when the data are converted.
    """

    title: str
    channels: tuple[str, ...]
    recognise: Callable[[Path], bool]
    scan: Callable[[Path], Scan]
    index: str | None = None
    anonymous: bool = False
    watched: Callable[[Path, Progress | None], Scan] | None = None
