"""Reading NRRD and MetaImage through SimpleITK (the extra `formats`). ITK's LPS becomes RAS+ here.

NRRD: https://teem.sourceforge.net/nrrd/format.html. MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg.errors import DataError
from oncoseg.io.checks import LARGEST_DEFLATE_RATIO, check_finite, check_memory
from oncoseg.io.itk_header import check_fields, data_file, read_fields
from oncoseg.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's and DICOM's x runs to the Left and y to Posterior."""

MILLIMETRE_UNITS = {"", "mm", "millimeter", "millimetre"}
"""What a NRRD may call its unit of length."""

INSTALL = 'pip install "oncoseg[formats]"'
"""Installs what this module needs."""


def read_itk(path: Path) -> Volume:
    """Read a NRRD or MetaImage file as `c i j k`: components of a voxel, or volumes along a fourth axis.

    `spacing_known` is False where a NRRD states neither a space nor a voxel size.

    Raises:
        DataError: SimpleITK is not installed, or the file cannot be used.
    """
    reader, like = _opened(path)
    needed = like.array.nbytes
    _check_size(path, needed)
    check_memory(path, 2 * needed)  # ITK's voxels and ours
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise DataError(f"{path} is truncated or damaged: {_reason(error)}. Copy it again.") from error
    array = _channels_first(_simpleitk().GetArrayViewFromImage(image), len(reader.GetSize()) == 4)
    check_finite(array, path)
    return like.with_array(array)


def read_itk_grid(path: Path) -> Volume:
    """The grid and type from the header alone, `c i j k`, with voxels that are 0 and take no memory.

    Raises:
        DataError: see `read_itk`.
    """
    return _opened(path)[1]


def _opened(path: Path) -> tuple[Any, Volume]:
    """SimpleITK's reader with the header read, and the grid."""
    sitk = _simpleitk()
    check_fields(path)
    if (voxels := data_file(path)) is not None and not voxels.is_file():
        raise DataError(f"{path} lacks the file of its voxels, {voxels.name}. Copy it beside the header.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() in (".nrrd", ".nhdr") else "MetaImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path} is no readable NRRD or MetaImage file: {_reason(error)}.") from error
    return reader, _grid(reader, path)


def _grid(reader: Any, path: Path) -> Volume:
    sitk = _simpleitk()
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) not in (3, 4) or min(size) < 1 or (len(size) == 4 and components > 1):
        raise DataError(
            f"{path} has {len(size)} dimensions of size {'×'.join(map(str, size))} and {components} "
            "component(s); expected a 3D image, or 4D with a volume per channel."
        )
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    number = re.search(r"(?:(\d+)-bit (signed|unsigned) integer|(\d+)-bit float)$", kind)
    if not number or "complex" in kind:
        raise DataError(f"{path} holds voxels of the kind {kind}; expected real numbers. Convert it first.")
    bits, sign, float_bits = number.groups()
    dtype = f"f{int(float_bits) // 8}" if float_bits else f"{'iu'[sign == 'unsigned']}{int(bits) // 8}"
    channels = components * math.prod(size[3:])
    voxels = np.broadcast_to(np.zeros((), dtype), (channels, *size[:3]))
    return Volume(voxels, _affine_ras(reader), _spacing_known(path))


def _affine_ras(reader: Any) -> np.ndarray:
    dimension = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.asarray(LPS_TO_RAS @ affine)


def _spacing_known(path: Path) -> bool:
    fields = read_fields(path)
    units = {unit.lower() for unit in re.findall(r'"(.*?)"', fields.get("space units", ""))}
    if units - MILLIMETRE_UNITS:
        given = ", ".join(sorted(units))
        raise DataError(f"{path} states lengths in {given}; expected mm. Convert it first.")
    return "ndims" in fields or any(name in fields for name in ("space", "space directions", "spacings"))


def _channels_first(view: np.ndarray, volumes: bool) -> np.ndarray:
    """A copy of ITK's `k j i`, `k j i c` or, for several volumes, `t k j i` with axes `c i j k`."""
    if view.ndim == 3:
        view = view[None]
    elif not volumes:
        view = view.transpose(3, 0, 1, 2)
    return np.array(view, order="C").transpose(0, 3, 2, 1)


def _check_size(path: Path, needed: int) -> None:
    """Check that the files can hold the voxels before memory is taken for them."""
    files: Sequence[Path] = (path, *filter(None, [data_file(path)]))
    if sum(file.stat().st_size for file in files) * LARGEST_DEFLATE_RATIO < needed:
        raise DataError(
            f"{path} is truncated or damaged: its header asks for {needed} bytes, more than it can hold. "
            "Copy it again."
        )


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise DataError(
            f"NRRD and MetaImage files are read by SimpleITK, which is not installed. Install it: {INSTALL}"
        ) from error
    sitk: Any = SimpleITK
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _reason(error: RuntimeError) -> str:
    """The last words of an ITK exception, which come after the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR:").strip().rstrip(".") if lines else "it cannot be read"
