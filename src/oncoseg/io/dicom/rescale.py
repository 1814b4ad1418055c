"""What a plane's stored numbers mean: the slope and intercept of its values."""

from collections.abc import Mapping
from typing import Any

from oncoseg.errors import DataError
from oncoseg.io.dicom.headers import UNREADABLE, number_of

MAPPING = "RealWorldValueMappingSequence"
"""How stored numbers become values with a unit, beside or in place of the rescale (PS3.3, C.7.6.16.2.11)."""


def rescale(values: Mapping[str, Any]) -> tuple[float, float]:
    """Slope and intercept: the rescale, or else the one linear real-world value mapping, or else 1 and 0.

    Raises:
        DataError: a slope of 0, or numbers that are none.
    """
    slope = number_of(values.get("RescaleSlope"), "RescaleSlope")
    intercept = number_of(values.get("RescaleIntercept"), "RescaleIntercept")
    if slope is None and intercept is None and uses_mapping(values):
        item = values[MAPPING][0]
        slope = number_of(item.get("RealWorldValueSlope"), "RealWorldValueSlope")
        intercept = number_of(item.get("RealWorldValueIntercept"), "RealWorldValueIntercept")
    if slope == 0:
        raise DataError("its rescale slope is 0, so that all its values are one")
    return 1.0 if slope is None else slope, intercept or 0.0


def uses_mapping(values: Mapping[str, Any]) -> bool:
    """Whether the values are those of a real-world value mapping."""
    mapping = values.get(MAPPING)
    if "RescaleSlope" in values or mapping is None or mapping is UNREADABLE or len(mapping) != 1:
        return False
    return mapping[0].get("RealWorldValueSlope") is not None
