"""What a multi-frame image says of each frame, under the keywords of a single-frame image (PS3.3, C.7.6.16).

Enhanced and legacy-converted images describe their frames in functional groups: those shared by all frames,
and for each frame its own.
"""

from collections.abc import Mapping
from typing import Any

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import UNREADABLE, Header
from oncoseg.io.dicom.kinds import MULTI_FRAME

SAME = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RescaleType": ("PixelValueTransformationSequence", "RescaleType"),
    "StackID": ("FrameContentSequence", "StackID"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
}
"""Keyword of a single-frame image → the functional group, and the keyword in it, that say the same."""

FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
"""Functional groups that hold a frame's FrameType, which is its ImageType."""

WHOLE = "RealWorldValueMappingSequence"
"""A functional group that is taken as it is."""

GROUPS = frozenset({*(group for group, _ in SAME.values()), *FRAME_TYPES, WHOLE})
"""All that is looked at."""


def frames_of(header: Header) -> list[dict[str, Any]] | None:
    """Keyword → value of each frame; None for a single-frame image.

    Raises:
        DataError: several frames whose places are not said, or whose description is damaged.
    """
    if header.text("SOPClassUID") not in MULTI_FRAME:
        if header.whole("NumberOfFrames", 1) > 1:
            raise DataError("it holds several frames without saying where each lies")
        return None
    per_frame = header.values.get("PerFrameFunctionalGroupsSequence", UNREADABLE)
    shared = header.values.get("SharedFunctionalGroupsSequence", [])
    if per_frame is UNREADABLE or shared is UNREADABLE:
        raise DataError("it is a multi-frame image that does not describe its frames")
    try:
        common = _groups(shared[0]) if shared else {}
        return [_values(common | _groups(own)) for own in per_frame]
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError("the description of its frames is damaged") from error


def _groups(item: Any) -> dict[str, Any]:
    """Functional group → its sequence, where it is not empty."""
    return {name: item[name].value for name in GROUPS if name in item and item[name].value}


def _values(groups: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        keyword: groups[group][0].get(name) for keyword, (group, name) in SAME.items() if group in groups
    }
    for group in FRAME_TYPES:
        if group in groups:
            found["ImageType"] = groups[group][0].get("FrameType")
    found[WHOLE] = groups.get(WHOLE)
    return {keyword: value for keyword, value in found.items() if value is not None and value != ""}
