"""What a file about a series takes over from it: patient, study, frame of reference and references."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.dicom.headers import quiet
from oncoseg.io.dicom.series import Series

if TYPE_CHECKING:
    from pydicom import Dataset

NEEDED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    "PositionReferenceIndicator",
)
"""What every object of a study has, empty where unknown (type 2 in PS3.3 C.7.1.1, C.7.2.1, C.7.4.1)."""

TAKEN_OVER = (
    *("SpecificCharacterSet", "IssuerOfPatientID", "PatientAge", "StudyDescription"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    "LongitudinalTemporalInformationModified",
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName"),
    *("ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID"),
)
"""Attributes of patient and study that are taken over where the source has them. Remarks, histories and
other free text are not."""

HOW_REMOVED = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
"""One of these is required where a patient's identity was removed (type 1C)."""

SEXES = ("M", "F", "O")
"""The values that Patient's Sex may have."""


SOFTWARE = "oncoseg"
"""ManufacturerModelName of all masks that are predicted here."""

LONGEST_NAME = 64
"""Characters in a long string (VR LO, PS3.5 section 6.2), such as a segment's label or a structure's name."""

DECIMALS = 10
"""Of written millimetres and direction cosines; beyond them is what floating point adds."""


SERIES_NUMBER_OFFSET, LARGEST_NUMBER = 9000, 2**31 - 1
"""Added to the source's series number, so that masks are listed behind the images; and where numbers end."""

UTF8 = "ISO_IR 192"
"""The character set that holds every name."""

LPS = np.diag([-1.0, -1.0, 1.0])
"""RAS+ to DICOM's patient coordinates, and back."""


@dataclass(frozen=True)
class Algorithm:
    """What made a mask.

    Attributes:
        version: of oncoseg.
        parameters: what else decides the mask, such as the hash of the weights; no personal data.
        name: of the software.
    """

    version: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    name: str = SOFTWARE

    def __str__(self) -> str:
        """In one line."""
        return ", ".join([f"{self.name} {self.version}", *(f"{k}={v}" for k, v in self.parameters.items())])


class Origin(NamedTuple):
    """The source of a mask.

    Attributes:
        attributes: of patient, study and frame of reference; for copying into a file of the same study.
        sop_classes: of each of the series' files.
    """

    attributes: "Dataset"
    sop_classes: Mapping[Path, str]


def origin_of(series: Series, names: Iterable[str]) -> Origin:
    """Read what a file about a series takes over from its headers.

    Args:
        series: the source.
        names: texts of the new file; where they are ASCII, the source's character set is kept.

    Raises:
        DataError: a file cannot be read, or the series has no frame of reference, without which nothing
            can be placed in it.
    """
    from pydicom import Dataset

    if not series.frame_of_reference_uid:
        raise DataError(
            "The series has no frame of reference (FrameOfReferenceUID); DICOM needs one to say where a mask "
            "lies. Write the mask as NIfTI."
        )
    header = _read(series.files[0], [*NEEDED, *TAKEN_OVER])
    attributes = Dataset()
    for keyword in (*NEEDED, *TAKEN_OVER):
        if keyword in header:
            attributes[keyword] = header[keyword]
        elif keyword in NEEDED:
            setattr(attributes, keyword, "")
    if attributes.PatientSex not in SEXES:
        attributes.PatientSex = ""
    if attributes.get("PatientIdentityRemoved") == "YES" and not {*HOW_REMOVED} & {*attributes.dir()}:
        attributes.DeidentificationMethod = "Not stated by the source"
    if not all(name.isascii() for name in names):
        attributes.SpecificCharacterSet = UTF8
    attributes.StudyInstanceUID = series.study_uid
    attributes.FrameOfReferenceUID = series.frame_of_reference_uid
    return Origin(attributes, {file: str(_read(file, ["SOPClassUID"]).SOPClassUID) for file in series.files})


def directions_lps(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row of pixels (i) and down a column (j), in LPS."""
    i, j = (LPS @ series.affine_ras[:3, axis] for axis in (0, 1))
    return i / np.linalg.norm(i), j / np.linalg.norm(j)


def series_number(series: Series) -> int:
    """Number of a series of masks."""
    return min(SERIES_NUMBER_OFFSET + max(series.number or 0, 0), LARGEST_NUMBER)


def without_noise(values: Iterable[float]) -> list[float]:
    """Numbers as they are written: rounded to `DECIMALS`."""
    return [round(float(value), DECIMALS) for value in values]


def check_labels(labels: np.ndarray, series: Series, names: Mapping[int, str]) -> None:
    """Check that a label map lies on a series' grid and that each of its values has a name.

    Raises:
        DataError: another type than uint8; a value without a name; a name that DICOM cannot hold.
        GeometryError: another shape than the series' grid.
    """
    if labels.dtype != np.uint8:
        raise DataError(f"Expected a mask of uint8, got {labels.dtype}.")
    if labels.shape != series.grid:
        raise GeometryError(f"Expected a mask on the series' grid {series.grid}, got {labels.shape}.")
    nameless = sorted({*np.unique(labels).tolist()} - {0, *names})
    if nameless or not names:
        raise DataError(f"Expected a name for each class of the mask, got none for {nameless or 'any'}.")
    for name in names.values():
        if not name.strip() or len(name) > LONGEST_NAME or "\\" in name or not name.isprintable():
            raise DataError(
                f"The class name {name!r} does not fit into DICOM; expected 1 to {LONGEST_NAME} characters "
                "without a backslash."
            )


def _read(file: Path, keywords: Sequence[str]) -> "Dataset":
    from pydicom import dcmread

    try:
        with quiet():
            header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords))
            header.decode()  # texts, while the file's character set is at hand
            return header
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError(f"{file} cannot be read as DICOM ({type(error).__name__}). Copy it again.") from error
