"""What is odd about the numbers of a series and can be dealt with, in words for people."""

from collections.abc import Sequence

from oncoseg.io.dicom.kinds import UNITS_KNOWN
from oncoseg.io.dicom.planes import Plane
from oncoseg.io.dicom.rescale import MAPPING, uses_mapping

LOSSY = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51", "81"))
"""Transfer syntaxes that always give up exactness (JPEG baseline and extended, JPEG-LS near-lossless)."""


def remarks_on(planes: Sequence[Plane]) -> list[str]:
    """Remarks on how the pixels of a series are stored and what they mean."""
    found = [
        _on_loss(planes),
        _on_inversion(planes),
        _on_padding(planes),
        _on_units(planes[0]),
        _on_mapping(planes[0]),
        "" if planes[0].text("PatientID") else "no PatientID: the study is taken as a patient of its own",
    ]
    return [remark for remark in found if remark]


def _on_loss(planes: Sequence[Plane]) -> str:
    lossy = any(
        plane.text("LossyImageCompression") == "01" or plane.pixels.format.transfer_syntax in LOSSY
        for plane in planes
    )
    return "the images were compressed with loss: small structures may have changed" if lossy else ""


def _on_inversion(planes: Sequence[Plane]) -> str:
    if not any(plane.pixels.format.inverted for plane in planes):
        return ""
    if planes[0].text("Modality") in UNITS_KNOWN:
        return "shown with low values bright (MONOCHROME1); the values have a unit and are kept"
    return "stored with low numbers bright (MONOCHROME1): turned over"


def _on_padding(planes: Sequence[Plane]) -> str:
    if not any(plane.pixels.format.padding for plane in planes):
        return ""
    becomes = "-1024 HU" if planes[0].text("Modality") == "CT" else "0"
    return f"pixels outside the scanned area are marked (PixelPaddingValue); they become {becomes}"


def _on_units(plane: Plane) -> str:
    modality, unit = plane.text("Modality"), plane.text("RescaleType")
    if modality == "CT" and "RescaleIntercept" not in plane.values:
        return "no rescale to Hounsfield units is given: the numbers are taken as they are"
    if modality == "CT" and unit not in ("", "HU", "US"):
        return "its values are in other units than Hounsfield's (RescaleType)"
    if modality == "PT":
        return f"PET values in {plane.text('Units') or 'unknown units'}: no uptake value (SUV) is computed"
    return ""


def _on_mapping(plane: Plane) -> str:
    if MAPPING not in plane.values:
        return ""
    if uses_mapping(plane.values):
        return "values are those of its real-world value mapping, as there is no rescale"
    return "a real-world value mapping is given and not applied: values are the rescaled ones"
