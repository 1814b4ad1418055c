"""What is odd about the numbers of a series and can be dealt with, in words for people."""

from collections.abc import Sequence

from oncoseg.io.dicom.planes import Plane

LOSSY = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51", "81", "91", "203")), "lossy"),
}
"""Transfer syntaxes that are made for giving up exactness."""


def remarks_on(planes: Sequence[Plane]) -> list[str]:
    """Remarks on how the pixels of a series are stored and scaled."""
    header = planes[0].header
    kinds = {plane.pixels.format for plane in planes}
    modality = header.text("Modality")
    remarks = []
    if any(plane.header.text("LossyImageCompression") == "01" for plane in planes):
        remarks.append("the images were compressed with loss: small structures may have changed")
    elif any(kind.transfer_syntax in LOSSY for kind in kinds):
        remarks.append("the transfer syntax is for compression with loss: small structures may have changed")
    if any(kind.inverted for kind in kinds):
        remarks.append(
            "low numbers are meant to be bright (MONOCHROME1): "
            + ("kept, as the rescaled values have a unit" if modality in ("CT", "PT") else "turned over")
        )
    if any(kind.padding for kind in kinds):
        remarks.append(
            f"pixels outside the image are marked; they become {'-1024 HU' if modality == 'CT' else '0'}"
        )
    if (
        modality == "CT"
        and "RescaleIntercept" not in header.values
        and not header.values.get("SharedFunctionalGroupsSequence")
    ):
        remarks.append("no rescale to Hounsfield units is given: the numbers are taken as they are")
    if modality == "PT" and header.text("Units"):
        remarks.append(f"PET in {header.text('Units')}: no uptake value (SUV) is computed")
    if "RealWorldValueMappingSequence" in header.values:
        remarks.append("a real-world value mapping is given and not applied: the rescaled numbers are read")
    if not header.text("PatientID"):
        remarks.append("no PatientID: the study is taken as a patient of its own")
    return remarks
