"""DICOM files for tests, made with pydicom: each number in them can be worked out by hand.

`slices` makes a series of single-frame images and `multi_frame` one enhanced image, both from an array with
axes `i j k` (column, row, slice) of stored numbers. Datasets are changed as a test likes, then written with
`write`. All UIDs are the same in every run.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def uid(*names: object) -> str:
    """A UID that is the same for the same names."""
    return str(generate_uid(entropy_srcs=[repr(names)]))


def numbered(grid: Sequence[int] = (4, 5, 6), kind: str = "u2") -> np.ndarray:
    """Every voxel another number: 1, 2, 3, … along i, then j, then k."""
    return np.arange(1, np.prod(grid) + 1).reshape(grid, order="F").astype(kind)


def normal(cosines: Sequence[float]) -> np.ndarray:
    """Row direction × column direction."""
    return np.cross(cosines[:3], cosines[3:])


def positions(
    count: int, spacing_mm: float, cosines: Sequence[float] = AXIAL, first: Sequence[float] = (-10, 20, 30)
) -> list[list[float]]:
    """Places of slices along the normal."""
    return [(np.array(first) + k * spacing_mm * normal(cosines)).tolist() for k in range(count)]


def slices(
    stored: np.ndarray,
    *,
    modality: str = "CT",
    cosines: Sequence[float] = AXIAL,
    spacing_mm: tuple[float, float, float] = (0.5, 0.8, 2.0),
    at: Sequence[Sequence[float]] | None = None,
    name: str = "series",
    **tags: Any,
) -> list[FileDataset]:
    """One dataset per slice.

    Args:
        stored: numbers with axes `i j k`.
        modality: CT, MR or PT.
        cosines: ImageOrientationPatient.
        spacing_mm: along i, j, k.
        at: ImagePositionPatient of each slice; along the normal where left out.
        name: tells series apart.
        tags: set in every dataset; None deletes one.
    """
    at = at or positions(stored.shape[2], spacing_mm[2], cosines)
    made = []
    for k in range(stored.shape[2]):
        dataset = _image(CLASSES[modality], stored[..., k : k + 1], name, k)
        dataset.Modality = modality
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = list(at[k])
        dataset.ImageOrientationPatient = list(cosines)
        dataset.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        dataset.SliceThickness = spacing_mm[2]
        if modality != "MR":
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024 if modality == "CT" else 0
        if modality == "PT":
            dataset.Units = "BQML"
        change(dataset, tags)
        made.append(dataset)
    return made


def multi_frame(
    stored: np.ndarray,
    *,
    modality: str = "CT",
    cosines: Sequence[float] = AXIAL,
    spacing_mm: tuple[float, float, float] = (0.5, 0.8, 2.0),
    at: Sequence[Sequence[float]] | None = None,
    name: str = "enhanced",
    frame: Callable[[Dataset, int], None] | None = None,
    **tags: Any,
) -> FileDataset:
    """One enhanced image, with the arguments of `slices`; `frame` is called with each frame's groups, number.

    Orientation, pixel spacing and rescale are shared, the position is each frame's own.
    """
    dataset = _image(ENHANCED[modality], stored, name, 0)
    dataset.Modality = modality
    dataset.NumberOfFrames = stored.shape[2]
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(cosines))]
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=[spacing_mm[1], spacing_mm[0]], SliceThickness=spacing_mm[2])
    ]
    shared.PixelValueTransformationSequence = [
        _item(RescaleSlope=1, RescaleIntercept=-1024 if modality == "CT" else 0, RescaleType="HU")
    ]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k, place in enumerate(at or positions(stored.shape[2], spacing_mm[2], cosines)):
        own = _item(PlanePositionSequence=Items([_item(ImagePositionPatient=list(place))]))
        own.FrameContentSequence = [_item(DimensionIndexValues=[1, k + 1])]
        if frame:
            frame(own, k)
        groups.append(own)
    dataset.PerFrameFunctionalGroupsSequence = groups
    change(dataset, tags)
    return dataset


def change(dataset: Dataset, tags: dict[str, Any]) -> None:
    """Set tags by keyword; None deletes one."""
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)


def write(datasets: Sequence[FileDataset], folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write datasets as files, in this order; `000.dcm` and so on where no names are given."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in names or [f"{n:03}.dcm" for n in range(len(datasets))]]
    for file, dataset in zip(files, datasets, strict=True):
        dataset.save_as(file, enforce_file_format=True)
    return files


def compressed(dataset: FileDataset, syntax: str, fragments: Sequence[bytes]) -> FileDataset:
    """The same image with compressed pixels, one fragment per frame, which need not be decodable."""
    dataset.PixelData = encapsulate(list(fragments))
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    change(item, tags)
    return item


def _image(sop_class: str, stored: np.ndarray, name: str, number: int) -> FileDataset:
    """What all images have: identity, and pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(name, "instance", number)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid(name)
    dataset.FrameOfReferenceUID = uid("frame of reference")
    dataset.PatientID, dataset.PatientName = "secret-id", "Secret^Name"
    dataset.SeriesDescription, dataset.SeriesNumber = f"description of {name}", 3
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    columns, rows, _ = stored.shape
    bits = stored.dtype.itemsize * 8
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    data = stored.transpose(2, 1, 0).astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    return dataset


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element with explicit VR, little-endian."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def put_element(file: Path, tag: int, new: bytes) -> None:
    """Put bytes in place of a top-level element of a file with explicit VR, or where it would stand."""
    data = file.read_bytes()
    at = 144 + int.from_bytes(data[140:144], "little")
    while at < len(data):
        group, number, vr = struct.unpack_from("<HH2s", data, at)
        long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        (length,) = struct.unpack_from("<L" if long else "<H", data, at + (8 if long else 6))
        end = at + (12 if long else 8) + length
        if (group << 16 | number) >= tag:
            break
        at = end
    after = end if (group << 16 | number) == tag else at
    file.write_bytes(data[:at] + new + data[after:])
