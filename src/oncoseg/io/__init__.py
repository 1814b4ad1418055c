"""Reading and writing images. The only place where file formats and other conventions exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncoseg.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from oncoseg.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""One file that holds a volume, read in slabs."""

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""One file (or a header and its data file) that holds a volume, read whole through SimpleITK."""

VOLUME_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES
"""Formats of volumes in one file."""

SEGMENTATION_SUFFIX = ".seg.nrrd"
"""How 3D Slicer names its segmentations, which are read as label maps."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
"""One file per axial slice."""

ANALYZE_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
"""Pairs of files that do not tell left from right, or are easily parted; refused."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""What DICOM files are often called; those with other names or none are known by how they begin."""


@dataclass(frozen=True)
class ImageRef:
    """Where one single-channel image or mask lies on disk.

    Attributes:
        files: one file that holds a volume (and its data file, where it is a mere header); one 2D image per
            slice in the order of the third axis; the files of one DICOM series, in any order; or the files
            of an annotation (RTSTRUCT, DICOM SEG, LIDC XML, Slicer's `.seg.nrrd`).
        component: which component of a colour image (0 red, 1 green, 2 blue), or which volume of a 4D one
            (index along its fourth axis); None for grey 3D ones.
        grid_of: of an annotation, the files of the image or series on whose grid it is read; else empty.
        structures: of an annotation, (name of a structure or segment, label value that it gets); where
            two overlap the later one is kept.
    """

    files: tuple[Path, ...]
    component: int | None = None
    grid_of: tuple[Path, ...] = ()
    structures: tuple[tuple[str, int], ...] = ()


def read(ref: ImageRef) -> "Volume":
    """Read one channel.

    Returns:
        Array with axes `1 i j k` in the file's own type; float32 where the file asks for scaling.

    Raises:
        DataError: missing, unreadable or truncated file, wrong number of dimensions, colour where
            grey is expected, or voxels that are not finite numbers.
    """
    return _read_together([ref])[0]


def read_channels(refs: Mapping[str, ImageRef]) -> "Volume":
    """Read several channels of one grid as `c i j k`, in the mapping's order; no file is decoded twice.

    Raises:
        DataError: see `read`.
        GeometryError: the channels do not share a grid.
    """
    from oncoseg.volume import stack_channels

    if not refs:
        raise DataError("Expected at least one channel to read, got none.")
    together: dict[tuple[Path, ...], list[str]] = {}
    for name, ref in refs.items():
        together.setdefault(ref.files, []).append(name)
    volumes: dict[str, Volume] = {}
    for names in together.values():
        volumes |= zip(names, _read_together([refs[name] for name in names]), strict=True)
    return stack_channels({name: volumes[name] for name in refs})


def read_grid(ref: ImageRef) -> "Volume":
    """The grid of a channel from the header (or the first slice) alone.

    Returns:
        A volume `1 i j k` of the type that `read` gives, whose voxels are all 0 and take no memory.

    Raises:
        DataError: the file is missing or unreadable.
    """
    import numpy as np

    from oncoseg.volume import Volume

    first = _first(ref.files)
    if _is_annotation(ref):
        return _zeros(read_grid(ImageRef(ref.grid_of)), f"u{_label_bytes(ref)}")
    if _is_nifti(first):
        from oncoseg.io.nifti import open_slabs

        with open_slabs(first, ref.component) as slabs:
            return slabs.like
    if first.name.lower().endswith(ITK_SUFFIXES):
        from oncoseg.io.itk import read_itk_grid

        grid = read_itk_grid(first)
        if not first.name.lower().endswith(SEGMENTATION_SUFFIX):
            return _component(grid, ref)
        whole = _grid_of(ref) or grid
        return _zeros(whole, f"u{_label_bytes(ref)}")
    if first.name.lower().endswith(IMAGE_SUFFIXES):
        from oncoseg.io.images import read_stack

        one = _component(read_stack([first]), ref)
        voxels = np.broadcast_to(one.array[..., :1] * 0, (*one.array.shape[:3], len(ref.files)))
        return Volume(voxels, one.affine_ras, one.spacing_known)
    if is_dicom(first):
        from oncoseg.io.dicom.volumes import series_of
        from oncoseg.io.dicom.voxels import open_series

        with open_series(series_of(ref.files)) as series:
            return _zeros(series.like, series.dtype)
    raise _unknown_suffix(first)


def voxel_bytes(ref: ImageRef) -> int:
    """Size in memory of what `read` would decode, from the header of the first file alone.

    Raises:
        DataError: the file is missing or unreadable.
    """
    first = _first(ref.files)
    if is_dicom(first) and not ref.grid_of:
        from oncoseg.io.dicom.volumes import expected_bytes

        return expected_bytes(ref.files)
    if _is_annotation(ref) and is_dicom(ref.grid_of[0]):
        from oncoseg.io.dicom.volumes import expected_voxels

        return expected_voxels(ref.grid_of) * _label_bytes(ref)
    if not first.name.lower().endswith(IMAGE_SUFFIXES):
        return read_grid(ref).array.nbytes
    from oncoseg.io.images import read_stack

    return read_stack([first]).array.nbytes * len(ref.files)


def remarks(ref: ImageRef) -> tuple[str, ...]:
    """What is odd in a file's header and was settled, in words; each continues a sentence about the file.

    Of an annotation also what was left out or taken in a certain way; it is drawn for that.

    Raises:
        DataError: the file is missing or unreadable.
    """
    if _is_annotation(ref):
        from oncoseg.io.annotations import read_labels

        return read_labels(ref).remarks
    if is_dicom(_first(ref.files)):
        from oncoseg.io.dicom.volumes import series_of

        return series_of(ref.files).remarks
    if not _is_nifti(ref.files[0]):
        return ()
    from oncoseg.io.nifti import open_slabs

    with open_slabs(ref.files[0], ref.component) as slabs:
        return slabs.header.remarks


def stem(path: Path) -> str:
    """A file's name without the suffix of its format, in any case of letters; `.nii.gz` is one suffix."""
    known = sorted((SEGMENTATION_SUFFIX, *VOLUME_SUFFIXES, *IMAGE_SUFFIXES), key=len, reverse=True)
    suffix = next((end for end in known if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def image_ref(path: Path, component: int | None = None) -> ImageRef:
    """A reference to one file, with the data file of a header that has one.

    Raises:
        DataError: a header whose data file cannot be told.
    """
    if path.name.lower().endswith((".mhd", ".nhdr")) and path.is_file():
        from oncoseg.io.itk_header import data_file

        return ImageRef((path, *filter(None, [data_file(path)])), component)
    return ImageRef((path,), component)


def orientation_known(volume: "Volume") -> bool:
    """Whether the source says how the patient lies in the grid.

    PNG and TIFF do not, nor does NIfTI with the codes of qform and sform both 0.
    """
    from nibabel.nifti1 import Nifti1Header

    header = volume.header
    placed = not isinstance(header, Nifti1Header) or max(header["qform_code"], header["sform_code"]) > 0
    return volume.spacing_known and bool(placed)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or else by how it begins; suffixes of other formats decide."""
    name = path.name.lower()
    if name.endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES, ".xml")):
        return False
    if name.endswith(DICOM_SUFFIXES):
        return True
    from oncoseg.io.dicom.headers import looks_like_dicom

    return looks_like_dicom(path)


def write_labels(path: Path, labels: "np.ndarray", like: "Volume") -> None:
    """Write a label map as uint8 NIfTI on the grid of `like`, atomically.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        labels: uint8, axes `i j k`, 0 is background.
        like: gives the affine; where it was read from NIfTI, also the qform and sform codes and
            the units. Nothing else of its header is copied, as free text may name a patient. Where
            it was read from DICOM, the codes are 1 (scanner) and the unit is millimetre. Where it is a
            stack of 2D images, neither size nor place is claimed: codes 0, unit unknown.

    Raises:
        DataError: another type or suffix.
        GeometryError: another shape than the grid of `like`.
        RunError: the disk is full or the folder cannot be written.
    """
    from oncoseg.io.nifti_writer import write_nifti

    write_nifti(path, labels, like, "uint8")


def write_scalars(path: Path, values: "np.ndarray", like: "Volume") -> None:
    """Write numbers such as probabilities (float32, axes `i j k`); otherwise as `write_labels`."""
    from oncoseg.io.nifti_writer import write_nifti

    write_nifti(path, values, like, "float32")


def _read_together(refs: Sequence[ImageRef]) -> list["Volume"]:
    """Read channels that lie in the same files, which are decoded once."""
    first = _first(refs[0].files)
    if _is_annotation(refs[0]):
        from oncoseg.io.annotations import read_labels

        return [read_labels(ref).volume for ref in refs]
    if _is_nifti(first):
        from oncoseg.io.nifti import read_nifti

        if len(refs[0].files) != 1:
            raise DataError(f"Expected one NIfTI file per channel, got {len(refs[0].files)} from {first} on.")
        return read_nifti(first, [ref.component for ref in refs])
    if first.name.lower().endswith(SEGMENTATION_SUFFIX):
        from oncoseg.io.segments import read_segmentation

        return [read_segmentation(first, ref.structures, _grid_of(ref)) for ref in refs]
    decoded = _decode(refs[0].files)
    return [_component(decoded, ref) for ref in refs]


def _decode(files: tuple[Path, ...]) -> "Volume":
    """Read every component of a volume file or of a stack of 2D images."""
    name = files[0].name.lower()
    if name.endswith(ITK_SUFFIXES):
        from oncoseg.io.itk import read_itk

        return read_itk(files[0])
    if name.endswith(IMAGE_SUFFIXES):
        from oncoseg.io.images import read_stack

        return read_stack(files)
    if is_dicom(files[0]):
        from oncoseg.io.dicom.volumes import series_of
        from oncoseg.io.dicom.voxels import read_series

        return read_series(series_of(files))
    raise _unknown_suffix(files[0])


def _is_annotation(ref: ImageRef) -> bool:
    """Whether something is to be drawn on the grid of a DICOM series."""
    return bool(ref.grid_of) and not ref.files[0].name.lower().endswith(SEGMENTATION_SUFFIX)


def _label_bytes(ref: ImageRef) -> int:
    """Bytes of a voxel of the label map that an annotation becomes."""
    return 1 if all(label < 256 for _, label in ref.structures) else 2


def _zeros(grid: "Volume", dtype: Any) -> "Volume":
    """The grid with voxels of a type that take no memory."""
    import numpy as np

    return grid.with_array(np.broadcast_to(np.zeros((), dtype), (1, *grid.grid)))


def _grid_of(ref: ImageRef) -> "Volume | None":
    return read_grid(ImageRef(ref.grid_of, 0)) if ref.grid_of else None


def _component(volume: "Volume", ref: ImageRef) -> "Volume":
    count = volume.array.shape[0]
    if ref.component is None and count == 1:
        return volume
    if ref.component is None:
        raise DataError(
            f"{ref.files[0]} is a colour image, or holds {count} volumes; expected one grey one. Convert it "
            "to grey first, or save each volume as a file of its own."
        )
    if not 0 <= ref.component < count:
        raise DataError(f"{ref.files[0]} has {count} component(s); expected one with number {ref.component}.")
    return volume.with_array(volume.array[ref.component : ref.component + 1])


def _first(files: tuple[Path, ...]) -> Path:
    if not files:
        raise DataError("Expected at least one image file, got none.")
    return files[0]


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _unknown_suffix(path: Path) -> DataError:
    if path.name.lower().endswith(ANALYZE_SUFFIXES):
        return DataError(
            f"{path} is of an Analyze or NIfTI pair (.hdr and .img), of which Analyze does not tell left "
            "from right; expected a single file. Convert it to .nii.gz with the program that wrote it."
        )
    known = ", ".join(VOLUME_SUFFIXES + IMAGE_SUFFIXES)
    return DataError(f"{path} has a suffix that cannot be read; expected one of {known}, or DICOM.")
