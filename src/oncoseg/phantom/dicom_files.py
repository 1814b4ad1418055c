"""Writing a synthetic series as DICOM files, one slice per file, the way a scanner does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

CT_STORAGE, MR_STORAGE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
"""SOP classes (PS3.4, B.5)."""

DATE, TIME = "20000101", "120000"
"""Of every synthetic study."""

HU_INTERCEPT = -1024
"""Added to the stored values of a CT."""


@dataclass(frozen=True)
class Scan:
    """One series of one patient.

    Attributes:
        modality: CT or MR.
        description: SeriesDescription.
        patient: PatientID; it also serves as the name.
        key: what makes its UIDs its own; equal keys give equal UIDs.
        number: SeriesNumber.
        attributes: further attributes of every slice, by keyword.
    """

    modality: str
    description: str
    patient: str
    key: tuple[str, ...]
    number: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)

    def uid(self, *more: object) -> str:
        """A UID under the root for UUIDs (PS3.5, B.2), decided by the key and by `more`."""
        from pydicom.uid import generate_uid

        return str(generate_uid(prefix="2.25.", entropy_srcs=["oncoseg phantom", *self.key, *map(str, more)]))


def write_series(
    folder: Path, scan: Scan, voxels: np.ndarray, spacing_mm: Sequence[float], origin_lps_mm: Sequence[float]
) -> list[str]:
    """Write axial slices as `1-001.dcm` and so on, in rising order.

    Args:
        folder: it exists.
        scan: what to say about them.
        voxels: int16, axes `i j k`: i to the patient's left, j backwards, k up; Hounsfield units for CT.
        spacing_mm: of the voxels along i, j, k.
        origin_lps_mm: centre of the first voxel, in DICOM's patient coordinates.

    Returns:
        SOPInstanceUID of each slice.
    """
    uids = []
    for k in range(voxels.shape[2]):
        x, y, z = origin_lps_mm
        slice_ = _slice(scan, k, voxels[..., k], spacing_mm, (x, y, z + k * spacing_mm[2]))
        slice_.save_as(folder / f"1-{k + 1:03}.dcm", enforce_file_format=True)
        uids.append(str(slice_.SOPInstanceUID))
    return uids


def _slice(
    scan: Scan,
    k: int,
    pixels: np.ndarray,
    spacing_mm: Sequence[float],
    position_mm: Sequence[float],
) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    from pydicom.valuerep import DSfloat

    image = Dataset()
    ct = scan.modality == "CT"
    image.SOPClassUID = CT_STORAGE if ct else MR_STORAGE
    image.SOPInstanceUID = scan.uid("instance", k)
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if ct else "OTHER"]
    _describe_patient(image, scan)
    image.SliceThickness = DSfloat(spacing_mm[2], auto_format=True)
    image.InstanceNumber = k + 1
    image.ImagePositionPatient = [DSfloat(p, auto_format=True) for p in position_mm]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.FrameOfReferenceUID = scan.uid("frame")
    image.PositionReferenceIndicator = ""
    image.PixelSpacing = [DSfloat(spacing_mm[axis], auto_format=True) for axis in (1, 0)]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape[1], pixels.shape[0]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    if ct:
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = HU_INTERCEPT, 1, "HU"
        image.KVP, image.AcquisitionNumber = 120, 1
    else:
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "NONE", ""
        image.MRAcquisitionType, image.EchoTrainLength = "2D", 1
    for keyword, value in scan.attributes.items():
        setattr(image, keyword, value)
    stored = pixels.astype(np.int32) - (HU_INTERCEPT if ct else 0)
    image.PixelData = np.ascontiguousarray(stored.T).astype("<u2").tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def _describe_patient(image: "Dataset", scan: Scan) -> None:
    """Patient, study, series and equipment; the synthetic patient's name is its id."""
    image.StudyDate = image.SeriesDate = image.ContentDate = DATE
    image.StudyTime = image.SeriesTime = image.ContentTime = TIME
    image.AccessionNumber, image.ReferringPhysicianName = "", ""
    image.Modality, image.Manufacturer = scan.modality, "oncoseg phantom"
    image.SeriesDescription = scan.description
    image.PatientID, image.PatientName = scan.patient, f"{scan.patient}^"
    image.PatientBirthDate, image.PatientSex, image.PatientPosition = "", "", "HFS"
    image.StudyInstanceUID, image.SeriesInstanceUID = scan.uid("study"), scan.uid("series", scan.number)
    image.StudyID, image.SeriesNumber = "1", scan.number
