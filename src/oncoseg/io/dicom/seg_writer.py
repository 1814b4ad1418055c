"""Writing a label map as a DICOM Segmentation (PS3.3 A.51) on the grid of the series it belongs to.

One binary segment per class, with the frames in which it occurs. Where a mask is empty, a segmentation needs
a frame all the same (PS3.3 C.8.20.2): the first slice is written, empty, once per segment.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oncoseg.files import atomic_file
from oncoseg.io.dicom.codes import Term, concept_of
from oncoseg.io.dicom.headers import quiet
from oncoseg.io.dicom.origin import (
    LPS,
    NEEDED,
    Algorithm,
    Origin,
    check_labels,
    directions_lps,
    origin_of,
    series_number,
    without_noise,
)
from oncoseg.io.dicom.series import Series, Slice

if TYPE_CHECKING:
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

ARTIFICIAL_INTELLIGENCE = Term("123110", "DCM", "Artificial Intelligence")
"""Family of algorithms (PS3.16 CID 7162)."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
"""CT Image Storage, one slice per file."""

SERIAL_NUMBER = "none"
"""Device Serial Number, which a segmentation must have and software has not."""


def write_seg(
    path: Path, labels: np.ndarray, series: Series, names: Mapping[int, str], algorithm: Algorithm
) -> None:
    """Write a label map as DICOM SEG, atomically.

    Args:
        path: ends in `.dcm`.
        labels: uint8, axes `i j k` of the series' grid, 0 is background.
        series: the images that it belongs to; patient, study and frame of reference are theirs.
        names: label value → what it marks; becomes the segment's label and decides its codes (`codes.py`).
            Segments are numbered from 1 in the order of the values.
        algorithm: what made it.

    Raises:
        DataError: another type, a value without a name, or a series that cannot be referred to.
        GeometryError: another shape than the series' grid.
        RunError: the disk is full or the folder cannot be written.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.uid import generate_uid

    check_labels(labels, series, names)
    values = sorted(names)
    origin = origin_of(series, names.values())
    planes = _numbered(labels, values).transpose(2, 1, 0)
    filled = np.flatnonzero(planes.any(axis=(1, 2)))
    kept = filled if len(filled) else np.array([0])
    seg = Segmentation(
        source_images=_sources(series, origin),
        pixel_array=planes[kept],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, names[value], algorithm) for number, value in enumerate(values, start=1)
        ],
        omit_empty_frames=len(filled) > 0,
        series_instance_uid=generate_uid(prefix=None),
        series_number=series_number(series),
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=algorithm.name,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=SERIAL_NUMBER,
        content_label=algorithm.name.upper(),
        content_description="Automatic segmentation",
        series_description=f"{algorithm.name} segmentation",
        plane_positions=[_position(series.slices[k]) for k in kept],
        plane_orientation=_orientation(series),
        pixel_measures=_measures(series),
    )
    _refer_to_frames(seg, series, origin)
    seg.ContentCreatorName = ""
    seg.update(origin.attributes)
    with atomic_file(path) as temporary, quiet():
        seg.save_as(temporary, enforce_file_format=True)


def _numbered(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Segment numbers, from 1 on, in place of label values."""
    numbers = np.zeros(256, np.uint8)
    numbers[values] = range(1, len(values) + 1)
    numbered: np.ndarray = numbers[labels]
    return numbered


def _description(number: int, name: str, algorithm: Algorithm) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    concept = concept_of(name)
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_code(concept.category),
        segmented_property_type=_code(concept.kind),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=_code(ARTIFICIAL_INTELLIGENCE),
            version=algorithm.version,
            parameters=dict(algorithm.parameters) or None,
        ),
        display_color=CIELabColor.from_rgb(*concept.colour_rgb),
    )


def _code(term: Term) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(term.value, term.scheme, term.meaning)


def _sources(series: Series, origin: Origin) -> list["Dataset"]:
    """Headers from which highdicom takes references and geometry: one per slice.

    They hold nothing about the patient, because highdicom writes what it finds odd in a name to its log. A
    frame of a multi-frame file stands as an image of its own, as highdicom refers to one such file only;
    `_refer_to_frames` mends that.
    """
    headers = []
    for k, each in enumerate(series.slices):
        header = _empty_header(series)
        if each.frame is None:
            header.SOPClassUID, header.SOPInstanceUID = origin.sop_classes[each.file], each.sop_instance_uid
        else:
            header.SOPClassUID, header.SOPInstanceUID = CT_IMAGE, _stand_in(k)
        header.update(_orientation(series)[0])
        header.update(_measures(series)[0])
        header.update(_position(each)[0])
        headers.append(header)
    return headers


def _stand_in(k: int) -> str:
    """What a frame is called until the segmentation is made."""
    return f"2.25.{k + 1}"


def _empty_header(series: Series) -> "Dataset":
    from pydicom import Dataset

    header = Dataset()
    for keyword in NEEDED:
        setattr(header, keyword, "")
    header.StudyInstanceUID, header.SeriesInstanceUID = series.study_uid, series.uid
    header.FrameOfReferenceUID, header.Modality = series.frame_of_reference_uid, series.modality
    header.Columns, header.Rows = series.grid[:2]
    return header


def _position(plane: Slice) -> "PlanePositionSequence":
    from highdicom import PlanePositionSequence

    return PlanePositionSequence("PATIENT", without_noise(plane.position_lps_mm))


def _orientation(series: Series) -> "PlaneOrientationSequence":
    from highdicom import PlaneOrientationSequence

    along_row, along_column = directions_lps(series)
    return PlaneOrientationSequence("PATIENT", without_noise([*along_row, *along_column]))


def _measures(series: Series) -> "PixelMeasuresSequence":
    """Distances; a slice is as thick as its distance from the next, so that a mask's voxels fill space."""
    from highdicom import PixelMeasuresSequence

    i_mm, j_mm, _ = series.spacing_mm
    depth_mm = abs(float(np.cross(*directions_lps(series)) @ (LPS @ series.affine_ras[:3, 2])))
    row_mm, column_mm, depth_mm = without_noise([j_mm, i_mm, depth_mm])
    return PixelMeasuresSequence((row_mm, column_mm), depth_mm, depth_mm)


def _refer_to_frames(seg: "Dataset", series: Series, origin: Origin) -> None:
    """Put the frames of multi-frame files in place of what stood for them."""
    from pydicom import Dataset

    if series.slices[0].frame is None:
        return
    frames = {_stand_in(k): each for k, each in enumerate(series.slices)}
    items = {  # by identity, as segments share them
        id(source): source
        for group in seg.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    for source in items.values():
        _refer_to(source, found := frames[source.ReferencedSOPInstanceUID], origin)
        source.ReferencedFrameNumber = (found.frame or 0) + 1
    files = [Dataset() for _ in series.files]
    for item, each in zip(files, {each.file: each for each in series.slices}.values(), strict=True):
        _refer_to(item, each, origin)
    seg.SourceImageSequence = files
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = files


def _refer_to(item: "Dataset", each: Slice, origin: Origin) -> None:
    item.ReferencedSOPClassUID = origin.sop_classes[each.file]
    item.ReferencedSOPInstanceUID = each.sop_instance_uid
