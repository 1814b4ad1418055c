"""Masks in the form that each user uses: NIfTI for anyone, DICOM SEG and RTSTRUCT beside DICOM images."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oncoseg import io
from oncoseg.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np

    from oncoseg.io.dicom.origin import Algorithm
    from oncoseg.volume import Volume

MASK_FORMATS = {"nifti": ".nii.gz", "seg": "_seg.dcm", "rtstruct": "_rtstruct.dcm"}
"""Format of a mask → how its file's name ends, after the name of the case."""


class Outputs(NamedTuple):
    """Where one case's results go.

    Attributes:
        masks: format → path.
        scalars: one path for each class's probability, or none.
    """

    masks: Mapping[str, Path]
    scalars: Sequence[Path]

    @property
    def all(self) -> list[Path]:
        """Every path."""
        return [*self.masks.values(), *self.scalars]

    @property
    def folder(self) -> Path:
        """Where they all lie."""
        return self.all[0].parent

    def missing(self) -> list[Path]:
        """Those that are not there yet."""
        return [path for path in self.all if not path.is_file()]


def outputs(out: Path, case: str, formats: Iterable[str], classes: Sequence[str]) -> Outputs:
    """The paths of a case's results.

    Args:
        out: their folder.
        case: name of the case.
        formats: of the mask; at least one.
        classes: those whose probabilities are written; a single one is not named.
    """
    names = [f"_{each}" for each in classes] if len(classes) > 1 else ["" for _ in classes]
    return Outputs(
        {each: out / f"{case}{MASK_FORMATS[each]}" for each in formats},
        [out / f"{case}{name}_probability.nii.gz" for name in names],
    )


def check_mask_format(name: str, like: "Volume | None" = None) -> None:
    """Check that there is such a format, and that a mask of some images can be written in it.

    Raises:
        DataError: an unknown format; or one of DICOM for images that are not DICOM, to which it would refer.
    """
    if name not in MASK_FORMATS:
        raise DataError(f"Unknown format {name!r} of masks; {nearest(name, MASK_FORMATS)}")
    if like is not None and name != "nifti":
        from oncoseg.io.dicom.series import Series

        if not isinstance(like.header, Series):
            raise DataError(
                f"A mask can be written as {name} for DICOM images only, because it refers to them; these "
                "are none. Leave --format out for NIfTI, or name the DICOM images."
            )


def write_mask(
    path: Path,
    name: str,
    labels: "np.ndarray",
    like: "Volume",
    classes: Mapping[int, str],
    algorithm: "Algorithm",
) -> None:
    """Write a label map in one of `MASK_FORMATS`, atomically.

    Args:
        path: ends as the format asks.
        name: the format.
        labels: uint8, axes `i j k` on the grid of `like`, 0 is background.
        like: the images that it is of; their header says which series they are.
        classes: label value → what it marks.
        algorithm: what made it.

    Raises:
        DataError: see `check_mask_format`, `write_labels`, `write_seg` and `write_rtstruct`.
        GeometryError: another shape than the grid of `like`.
        RunError: the disk is full or the folder cannot be written.
    """
    check_mask_format(name, like)
    if name == "nifti":
        io.write_labels(path, labels, like)
    elif name == "seg":
        from oncoseg.io.dicom.seg_writer import write_seg

        write_seg(path, labels, like.header, classes, algorithm)
    else:
        from oncoseg.io.dicom.rtstruct_writer import write_rtstruct

        write_rtstruct(path, labels, like.header, classes, algorithm)


def check_distinct(files: Iterable[Outputs]) -> None:
    """Check that no two cases' results would be one file.

    Raises:
        DataError: they would.
    """
    counts = Counter(path for outputs in files for path in outputs.all)
    path, count = counts.most_common(1)[0] if counts else (None, 0)
    if count > 1:
        raise DataError(
            f"{count} results would be written as {path}; expected a name of its own for each. Rename the "
            "inputs, or predict them into different folders."
        )
