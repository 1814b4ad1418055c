"""Writing a label map as an RT Structure Set (PS3.3 A.19) on the slices of the series it belongs to.

Contours run along the edges of the voxels, with keyholes for holes: see `outlines.py`. The file is encoded in
Implicit VR Little Endian, because an explicit one cannot hold a contour of more than 64 kB (PS3.3 C.8.8.6).
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoseg.files import atomic_file
from oncoseg.io.dicom.codes import concept_of
from oncoseg.io.dicom.headers import quiet
from oncoseg.io.dicom.origin import (
    LPS,
    Algorithm,
    Origin,
    check_labels,
    origin_of,
    series_number,
)
from oncoseg.io.dicom.outlines import outlines
from oncoseg.io.dicom.series import Series, Slice

if TYPE_CHECKING:
    from pydicom import Dataset

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""SOP classes of a structure set, and of a study as structure sets refer to it (PS3.3 C.8.8.5)."""

COORDINATE_DECIMALS = 4
"""Of a contour's millimetres: they fit into the 16 characters of a decimal string, and a ten thousandth is
far less than the half voxel between an outline and the nearest voxel's centre."""

CONTOUR_DATA = 0x3006_0050

LONGEST_TEXT = 1024
"""Characters in a short text (VR ST)."""


def write_rtstruct(
    path: Path, labels: np.ndarray, series: Series, names: Mapping[int, str], algorithm: Algorithm
) -> None:
    """Write a label map as RTSTRUCT, atomically. A class without voxels becomes a structure without contours.

    Args:
        path: ends in `.dcm`.
        labels: uint8, axes `i j k` of the series' grid, 0 is background.
        series: the images that it belongs to; patient, study and frame of reference are theirs.
        names: label value → what it marks; becomes the structure's name, and decides its type and colour
            (`codes.py`). Structures are numbered from 1 in the order of the values.
        algorithm: what made it.

    Raises:
        DataError: another type, a value without a name, or a series that cannot be referred to.
        GeometryError: another shape than the series' grid.
        RunError: the disk is full or the folder cannot be written.
    """
    from pydicom import dcmwrite

    check_labels(labels, series, names)
    origin = origin_of(series, names.values())
    file = _structure_set(series, origin, algorithm, datetime.now())
    file.StructureSetROISequence = []
    file.ROIContourSequence = []
    file.RTROIObservationsSequence = []
    for number, value in enumerate(sorted(names), start=1):
        name, concept = names[value], concept_of(names[value])
        file.StructureSetROISequence.append(_structure(number, name, series, algorithm))
        contours = _item(ROIDisplayColor=list(concept.colour_rgb), ReferencedROINumber=number)
        if found := list(_contours(labels == value, series, origin)):
            contours.ContourSequence = found
        file.ROIContourSequence.append(contours)
        file.RTROIObservationsSequence.append(_observation(number, name))
    with atomic_file(path) as temporary, quiet():
        dcmwrite(temporary, file, implicit_vr=True, little_endian=True, enforce_file_format=True)


def _structure_set(series: Series, origin: Origin, algorithm: Algorithm, moment: datetime) -> "Dataset":
    """The file without its structures."""
    from pydicom.uid import generate_uid

    file = _item(
        SOPClassUID=RTSTRUCT_CLASS,
        SOPInstanceUID=generate_uid(prefix=None),
        InstanceCreationDate=moment.strftime("%Y%m%d"),
        InstanceCreationTime=moment.strftime("%H%M%S"),
        Modality="RTSTRUCT",
        SeriesInstanceUID=generate_uid(prefix=None),
        SeriesNumber=series_number(series),
        SeriesDescription=f"{algorithm.name} structures",
        OperatorsName="",
        Manufacturer=algorithm.name,
        ManufacturerModelName=algorithm.name,
        SoftwareVersions=algorithm.version,
        InstanceNumber=1,
        StructureSetLabel=algorithm.name.upper(),
        StructureSetDescription=str(algorithm)[:LONGEST_TEXT],
        StructureSetDate=moment.strftime("%Y%m%d"),
        StructureSetTime=moment.strftime("%H%M%S"),
        ReferencedFrameOfReferenceSequence=[_referenced(series, origin)],
        ApprovalStatus="UNAPPROVED",
    )
    file.update(origin.attributes)
    return file


def _referenced(series: Series, origin: Origin) -> "Dataset":
    """Frame of reference, study, series and files that the contours belong to."""
    images = _item(
        SeriesInstanceUID=series.uid,
        ContourImageSequence=[
            _item(ReferencedSOPClassUID=origin.sop_classes[file], ReferencedSOPInstanceUID=uid)
            for file, uid in {each.file: each.sop_instance_uid for each in series.slices}.items()
        ],
    )
    study = _item(
        ReferencedSOPClassUID=STUDY_CLASS,
        ReferencedSOPInstanceUID=series.study_uid,
        RTReferencedSeriesSequence=[images],
    )
    return _item(FrameOfReferenceUID=series.frame_of_reference_uid, RTReferencedStudySequence=[study])


def _structure(number: int, name: str, series: Series, algorithm: Algorithm) -> "Dataset":
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=series.frame_of_reference_uid,
        ROIName=name,
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=f"{algorithm.name} {algorithm.version}",
    )


def _observation(number: int, name: str) -> "Dataset":
    concept = concept_of(name)
    code = _item(
        CodeValue=concept.kind.value,
        CodingSchemeDesignator=concept.kind.scheme,
        CodeMeaning=concept.kind.meaning,
    )
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType=concept.interpreted,
        ROIInterpreter="",
        RTROIIdentificationCodeSequence=[code],
    )


def _contours(mask: np.ndarray, series: Series, origin: Origin) -> Iterator["Dataset"]:
    """One closed contour for each region of each slice."""
    step_i, step_j = (LPS @ series.affine_ras[:3, axis] for axis in (0, 1))
    number = 0
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        plane = series.slices[k]
        image = _image(plane, origin)
        for polygon in outlines(mask[:, :, k]):
            points = np.array(plane.position_lps_mm) + polygon[:, :1] * step_i + polygon[:, 1:] * step_j
            number += 1
            yield _contour(number, points, image)


def _contour(number: int, points_lps_mm: np.ndarray, image: "Dataset") -> "Dataset":
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    contour = _item(
        ContourNumber=number,
        ContourImageSequence=[image],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points_lps_mm),
    )
    # as bytes: as numbers of pydicom's, a lung's contours would take a gigabyte
    numbers = np.round(points_lps_mm, COORDINATE_DECIMALS) + 0.0  # and no "-0"
    text = "\\".join(map(_shortest, numbers.ravel().tolist())).encode()
    text += b" " * (len(text) % 2)
    tag = Tag(CONTOUR_DATA)
    contour[tag] = RawDataElement(tag, "DS", len(text), text, 0, True, True)
    contour.set_original_encoding(True, True, "iso8859")  # these bytes are written as they are
    return contour


def _shortest(number: float) -> str:
    return f"{number:.{COORDINATE_DECIMALS}f}".rstrip("0").rstrip(".")


def _image(plane: Slice, origin: Origin) -> "Dataset":
    image = _item(
        ReferencedSOPClassUID=origin.sop_classes[plane.file],
        ReferencedSOPInstanceUID=plane.sop_instance_uid,
    )
    if plane.frame is not None:
        image.ReferencedFrameNumber = plane.frame + 1
    return image


def _item(**attributes: Any) -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
