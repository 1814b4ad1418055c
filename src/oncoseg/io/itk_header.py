"""The text headers of NRRD and MetaImage files, checked before SimpleITK sees them.

ITK believes what a MetaImage header says of its dimensions, and a damaged one can end the process.
"""

import re
from pathlib import Path

from oncoseg.errors import DataError
from oncoseg.io.checks import check_regular

LARGEST_HEADER_BYTES = 1 << 20
"""A header ends within this many bytes, or the file is none of these."""

DETACHED_SUFFIXES = (".nhdr", ".mhd")
"""Headers whose voxels lie in another file."""

DATA_FILE_KEYS = ("elementdatafile", "data file", "datafile")
"""What names the file of the voxels."""

LARGEST_SIDE = 1 << 20
"""No image of a patient has more voxels along an axis."""

MOST_COMPONENTS = 1 << 12
"""No image of a patient has more numbers in a voxel."""

NUMBERS = {"dimsize": 1, "elementspacing": 1, "elementsize": 1, "offset": 1, "position": 1, "origin": 1} | {
    "centerofrotation": 1,
    "transformmatrix": 2,
    "rotation": 2,
    "orientation": 2,
}
"""Fields of a MetaImage with as many numbers as dimensions, to this power."""

LINE = re.compile(rb"^[ \t]{0,8}([A-Za-z][\w ]{0,40}?)[ \t]{0,8}[=:](?!=)(.*)$", re.MULTILINE)
"""A field with its value; `:=` sets off a NRRD's free text, which is passed over."""


def read_fields(path: Path) -> dict[str, str]:
    """The fields of a header by their names in small letters.

    Raises:
        DataError: the file cannot be read, or is no NRRD or MetaImage.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            block = file.read(LARGEST_HEADER_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a NRRD or MetaImage file there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    fields: dict[str, str] = {}
    for line in LINE.finditer(_text(block)):
        name = line[1].decode("ascii").lower()
        fields[name] = line[2].decode("utf-8", "replace").strip()
        if name == DATA_FILE_KEYS[0]:
            break
    if not fields:
        raise DataError(f"{path} is no NRRD or MetaImage file: it does not begin with its header.")
    return fields


def check_fields(path: Path) -> None:
    """Check that a header's numbers are as many and as large as those of an image can be.

    Raises:
        DataError: says which field is impossible.
    """
    fields = read_fields(path)
    dimensions = _whole(fields.get("ndims", fields.get("dimension", "")))
    if dimensions not in (2, 3, 4):
        raise _impossible(path, "number of dimensions")
    for name, power in NUMBERS.items():
        if name in fields and len(fields[name].split()) != dimensions**power:
            raise _impossible(path, name)
    sides = [_whole(text) for text in fields.get("dimsize", fields.get("sizes", "")).split()]
    if len(sides) != dimensions or not all(0 < side <= LARGEST_SIDE for side in sides):
        raise _impossible(path, "size")
    if not 0 < _whole(fields.get("elementnumberofchannels", "1")) <= MOST_COMPONENTS:
        raise _impossible(path, "number of channels")


def data_file(path: Path) -> Path | None:
    """The file in which a header's voxels lie; None where they follow the header itself.

    Raises:
        DataError: the header names a file in another folder, or several files.
    """
    fields = read_fields(path)
    name = next((fields[key] for key in DATA_FILE_KEYS if key in fields), "LOCAL")
    if name.upper() == "LOCAL":
        return None
    plain = re.fullmatch(r"[^/\\%\"\s]+", name) and not name.upper().startswith("LIST")
    if not plain or not path.name.lower().endswith(DETACHED_SUFFIXES):
        raise DataError(
            f"{path} says that its voxels lie in {name!r}; expected one file beside a header named "
            f"{' or '.join(DETACHED_SUFFIXES)}. Save it as one .nrrd or .mha file."
        )
    return path.with_name(name)


def _text(block: bytes) -> bytes:
    """The beginning of a file up to a NRRD's empty line, so that voxels are not taken for text."""
    end = re.search(rb"\r?\n\r?\n", block) if block.startswith(b"NRRD") else None
    return block[: end.start()] if end else block


def _whole(text: str) -> int:
    """A whole number; 0, which is impossible everywhere, for anything else."""
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else 0


def _impossible(path: Path, what: str) -> DataError:
    return DataError(f"{path} states an impossible {what} in its header. Export or copy it again.")
