"""What a look through DICOM files finds: series, annotations, and what was left out and why."""

from dataclasses import dataclass, field
from pathlib import Path

from oncoseg.io.dicom.series import Series


@dataclass(frozen=True)
class Annotation:
    """An object that marks something in images.

    Attributes:
        file: where it lies.
        kind: `RTSTRUCT`, `SEG` or `SR`.
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        sop_instance_uid: of the file.
        frame_of_reference_uid: empty where it does not say at its top level.
        description: SeriesDescription; shown and never stored.
        patient: see `Series.patient`.
        made_by: ManufacturerModelName, such as of the software that drew it.
    """

    file: Path
    kind: str
    uid: str
    study_uid: str
    sop_instance_uid: str
    frame_of_reference_uid: str
    description: str
    patient: str
    made_by: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Files that make no volume.

    Attributes:
        kind: `localiser`, `secondary capture`, `dose report`, …; `refused` for what should be a volume and
            cannot be one; `damaged` for a file that cannot be parsed.
        reason: in words that say how to mend it, where that is possible.
        files: which.
        uid: SeriesInstanceUID; empty where it is unknown.
        study_uid: StudyInstanceUID.
        modality: as for `Series`.
        description: SeriesDescription; shown and never stored.
        number: SeriesNumber, or None.
    """

    kind: str
    reason: str
    files: tuple[Path, ...]
    uid: str = ""
    study_uid: str = ""
    modality: str = ""
    description: str = ""
    number: int | None = None


@dataclass
class Survey:
    """What was found.

    Attributes:
        series: those that are volumes, by study, number, UID and part.
        annotations: objects that mark something in images.
        left_out: everything else that is DICOM, with the reason.
        not_dicom: how many files are no DICOM files.
    """

    series: list[Series] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    not_dicom: int = 0
