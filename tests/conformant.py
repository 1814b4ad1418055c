"""Small DICOM series, whole enough to pass dciodvfy, with a patient whose identifiers can be looked for."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "1.3.6.1.4.1.99999.7."
"""Begins the UIDs that are made up here."""

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
TURNED = (0.96, 0.28, 0.0, -0.168, 0.576, -0.8)
"""Directions of a row and of a column; the last is oblique to all axes."""


def slice_header(number: int = 0, modality: str = "CT", **changes: Any) -> Dataset:
    """One slice without pixels; `changes` are attributes, None takes one away."""
    header = Dataset()
    all_of_it = _common(number, modality) | (_CT if modality == "CT" else _MR) | changes
    with disable_value_validation():  # damaged values are wanted, too
        for keyword, value in all_of_it.items():
            if value is not None:
                setattr(header, keyword, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def write_slices(
    folder: Path,
    grid: tuple[int, int, int] = (8, 6, 5),
    *,
    cosines: tuple[float, ...] = AXIAL,
    spacing_mm: tuple[float, float, float] = (0.75, 1.25, 3.0),
    tilt_mm: float = 0.0,
    origin_lps_mm: tuple[float, float, float] = (-20.5, 31.25, 104.125),
    modality: str = "CT",
    edit: Callable[[Dataset], None] = lambda header: None,
    **changes: Any,
) -> list[Path]:
    """Write a series of single-frame files.

    Args:
        folder: where to.
        grid: voxels along i, j, k.
        cosines: direction of a row and of a column.
        spacing_mm: along i, j, and between slices.
        tilt_mm: how far each slice lies further along a column than the one before, as with a tilted gantry.
        origin_lps_mm: centre of the very first pixel.
        modality: CT or MR.
        edit: last changes to each file.
        **changes: attributes of all files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    step = np.cross(row, column) * spacing_mm[2] + column * tilt_mm
    files = []
    for k in range(grid[2]):
        header = slice_header(k, modality, **changes)
        header.Columns, header.Rows = grid[:2]
        header.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        header.SliceThickness = spacing_mm[2]
        header.ImageOrientationPatient = list(cosines)
        header.ImagePositionPatient = [round(x, 6) for x in np.array(origin_lps_mm) + k * step]
        pixels = np.random.default_rng(k).integers(0, 1000, grid[1::-1], np.uint16)
        header.PixelData = pixels.tobytes()
        edit(header)
        files.append(folder / f"{k:03}.dcm")
        with disable_value_validation():
            dcmwrite(files[-1], header, enforce_file_format=True)
    return files


def _common(number: int, modality: str) -> dict[str, Any]:
    return {
        "SOPClassUID": CT if modality == "CT" else MR,
        "SOPInstanceUID": f"{ROOT}1.{number + 1}",
        "StudyInstanceUID": f"{ROOT}2",
        "SeriesInstanceUID": f"{ROOT}3",
        "FrameOfReferenceUID": f"{ROOT}4",
        "PositionReferenceIndicator": "",
        "Modality": modality,
        "PatientName": "Planted^Name",
        "PatientID": "PLANTED-ID",
        "PatientBirthDate": "19610203",
        "PatientSex": "F",
        "StudyDate": "20240506",
        "SeriesDate": "20240506",
        "ContentDate": "20240506",
        "StudyTime": "101112",
        "ContentTime": "101315",
        "AccessionNumber": "PLANTED-ACC",
        "ReferringPhysicianName": "Planted^Doctor",
        "StudyID": "PLANTED-STUDY",
        "StudyDescription": "Planted study",
        "SeriesDescription": "Planted series",
        "Manufacturer": "Planted manufacturer",
        "SeriesNumber": 7,
        "InstanceNumber": number + 1,
        "AcquisitionNumber": 1,
        "Laterality": "",
        "PatientPosition": "HFS",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }


_CT = {
    "RescaleIntercept": -1024,
    "RescaleSlope": 1,
    "RescaleType": "HU",
    "KVP": 120,
}
_MR = {
    "ScanningSequence": "SE",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "EchoTime": 12,
    "RepetitionTime": 500,
    "EchoTrainLength": 1,
}


def write_enhanced(folder: Path, grid: tuple[int, int, int], parts: int = 1, **more: Any) -> Path:
    """Write a series as multi-frame files, whose frames run from the last slice to the first."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as single:
        slices = [dcmread(file) for file in write_slices(Path(single), grid, **more)][::-1]
        each = len(slices) // parts
        for part in range(parts):
            image = LegacyConvertedEnhancedCTImage(
                slices[part * each : (part + 1) * each],
                series_instance_uid=f"{ROOT}5",
                series_number=8,
                sop_instance_uid=f"{ROOT}6{part or ''}",
                instance_number=part + 1,
            )
            image.save_as(folder / f"enhanced{part or ''}.dcm", enforce_file_format=True)
    return folder / "enhanced.dcm"
