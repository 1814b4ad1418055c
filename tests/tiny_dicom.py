"""Annotations for tests: a CT series of any orientation, and RTSTRUCTs and bit-packed segmentations of it.

Written with plain pydicom, tag by tag, so that they are independent of what reads them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_files import slices, write

CT, RTSTRUCT, SEG = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "481.3", "66.4"))
LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.66.7"
SERIES, STUDY, FRAME = "1.2.3.1", "1.2.3.2", "1.2.3.3"
NUMBER = 7

SALT = b"the salt of all tests, of 32 byte"
"""Of the keys of patients; kept where this user's own would be."""


class Geometry(NamedTuple):
    """Of a stack of slices, in DICOM's patient coordinates (LPS, mm)."""

    row: Sequence[float] = (1, 0, 0)
    column: Sequence[float] = (0, 1, 0)
    step_mm: Sequence[float] = (0, 0, 2.5)
    origin_mm: Sequence[float] = (-10, -20, 30)
    pixel_mm: Sequence[float] = (0.75, 0.5)  # between rows, between columns

    def points(self, ijk: Any) -> np.ndarray:
        """Voxel coordinates (n×3) to patient coordinates, straight from the definition (C.7.6.2.1.1)."""
        i, j, k = np.asarray(ijk, float).T[..., None]
        return (
            np.array(self.origin_mm)
            + i * self.pixel_mm[1] * np.array(self.row)
            + j * self.pixel_mm[0] * np.array(self.column)
            + k * np.array(self.step_mm)
        )


AXIAL = Geometry()


def image_uid(k: int, series: str = SERIES) -> str:
    return f"{series}.{k + 1}"


def write_ct(
    folder: Path,
    voxels: np.ndarray,
    geometry: Geometry = AXIAL,
    *,
    series: str = SERIES,
    patient: str = "LIDC-IDRI-9999",
    frame: str = FRAME,
    modality: str = "CT",
) -> tuple[Path, ...]:
    """One file for each k of `voxels` (i j k), whose numbers are stored as they are."""
    images = slices(
        voxels.astype(np.int16),
        cosines=(*geometry.row, *geometry.column),
        spacing_mm=(geometry.pixel_mm[1], geometry.pixel_mm[0], 2.5),
        at=[geometry.points([(0, 0, k)])[0].tolist() for k in range(voxels.shape[2])],
        SeriesInstanceUID=series,
        StudyInstanceUID=STUDY,
        FrameOfReferenceUID=frame,
        PatientID=patient,
        PatientName="",
        Modality=modality,
        RescaleIntercept=0,
    )
    for k, image in enumerate(images):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = image_uid(k, series)
    return tuple(write(images, folder))


class Drawn(NamedTuple):
    """A contour to write: points in patient coordinates, its type, and the images that it refers to."""

    points_mm: Any
    images: Sequence[str] = ()
    kind: str = "CLOSED_PLANAR"


def write_rtstruct(
    path: Path, structures: dict[str, Sequence[Drawn]], *, series: str = SERIES, frame: str = FRAME
) -> Path:
    rtstruct = _object(RTSTRUCT, "1.2.3.9.1", "1.2.3.9", "RTSTRUCT")
    rtstruct.StructureSetLabel = "tiny"
    referenced = _item(
        FrameOfReferenceUID=frame,
        RTReferencedStudySequence=[_item(RTReferencedSeriesSequence=[_item(SeriesInstanceUID=series)])],
    )
    rtstruct.ReferencedFrameOfReferenceSequence = [referenced]
    rtstruct.StructureSetROISequence = [
        _item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
        for number, name in enumerate(structures, NUMBER)
    ]
    rtstruct.ROIContourSequence = [
        _item(ReferencedROINumber=number, ContourSequence=[contour_item(each) for each in contours])
        for number, contours in enumerate(structures.values(), NUMBER)
    ]
    return _save(rtstruct, path)


def contour_item(drawn: Drawn) -> Dataset:
    numbers = [f"{each:.10g}" for each in np.ravel(drawn.points_mm)]
    item = _item(ContourGeometricType=drawn.kind, NumberOfContourPoints=len(numbers) // 3)
    item.ContourData = numbers
    if drawn.images:
        item.ContourImageSequence = [
            _item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in drawn.images
        ]
    return item


def write_seg(
    path: Path,
    frames: Sequence[tuple[int, np.ndarray, Sequence[float]]],
    labels: Sequence[str],
    geometry: Geometry = AXIAL,
    *,
    kind: str = "BINARY",
    frame: str = FRAME,
    series: str = SERIES,
) -> Path:
    """Frames of (segment number, pixels j i, position in LPS mm); BINARY ones are packed across frames."""
    seg = _object(LABELMAP_SEG if kind == "LABELMAP" else SEG, "1.2.3.8.1", "1.2.3.8", "SEG")
    seg.FrameOfReferenceUID, seg.SegmentationType = frame, kind
    seg.SamplesPerPixel, seg.PhotometricInterpretation, seg.PixelRepresentation = 1, "MONOCHROME2", 0
    pixels = np.stack([each for _, each, _ in frames])
    seg.NumberOfFrames, seg.Rows, seg.Columns = pixels.shape
    seg.BitsAllocated = seg.BitsStored = 1 if kind == "BINARY" else 8
    seg.HighBit = seg.BitsStored - 1
    stored = np.packbits(pixels.ravel(), bitorder="little") if kind == "BINARY" else pixels.astype(np.uint8)
    seg.PixelData = stored.tobytes() + b"\0" * (stored.size % 2)
    if kind == "FRACTIONAL":
        seg.SegmentationFractionalType, seg.MaximumFractionalValue = "PROBABILITY", 200
    seg.ReferencedSeriesSequence = [_item(SeriesInstanceUID=series)]
    seg.SegmentSequence = [
        _item(SegmentNumber=number, SegmentLabel=label, SegmentAlgorithmType="MANUAL")
        for number, label in enumerate(labels, 1)
    ]
    measures = _item(PixelSpacing=list(geometry.pixel_mm), SliceThickness=2.5)
    orientation = _item(ImageOrientationPatient=[*geometry.row, *geometry.column])
    seg.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    seg.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=list(position))],
            **(
                {"SegmentIdentificationSequence": [_item(ReferencedSegmentNumber=number)]}
                if kind != "LABELMAP"
                else {}
            ),
        )
        for number, _, position in frames
    ]
    return _save(seg, path)


def _object(sop_class: str, uid: str, series: str, modality: str) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = sop_class, uid
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = STUDY, series, modality
    return made


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _save(made: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path
