"""Damaged DICOM files and LIDC readings by the thousand: each must be read or refused with a `DataError`.

    python tests/fuzz_dicom.py --runs 2000      # always the same files
    python tests/fuzz_dicom.py --seconds 30     # others each time, as in `make fuzz`

As `fuzz_nifti.py`, whose ways of damage it takes, for CT slices, multi-frame images, RTSTRUCT, SEG and XML.
"""

import functools
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import fuzz_loop
from dicom_files import multi_frame, numbered, slices, write
from fuzz_loop import LONGEST_SECONDS, Check, Make
from fuzz_nifti import cut, flip_bits, insert, overwrite
from oncoseg.errors import DataError, GeometryError
from oncoseg.io.annotations import open_structures
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import read_series
from oncoseg.io.lidc_xml import read_lidc_xml
from tiny_dicom import AXIAL, SALT, Drawn, write_ct, write_rtstruct, write_seg
from tiny_lidc import Marked, Roi, Session, write_lidc_xml

GRID = (8, 7, 3)

ANNOTATIONS = ("rtstruct", "seg", "labelmap")

LONGEST_MESSAGE = 2000
"""Characters of an error: a sentence, not the file."""

EVIL = (
    b"\xff\xff\xff\xff",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\0\0",
    b"SQ",
    b"UN",
    b"99999999",
)
"""What a length, a count, a kind or a number may be replaced by."""


@functools.cache
def series(folder: Path) -> Series:
    """The sound CT that the annotations mark."""
    write_ct(folder / "ct", np.zeros(GRID))
    return find_series(folder / "ct", salt=SALT)[0]


@functools.cache
def valid_files(folder: Path) -> Mapping[str, bytes]:
    """Sound files of every kind: name → content."""
    square = AXIAL.points([(2, 1, 1), (5, 1, 1), (5, 4, 1), (2, 4, 1)])
    frame, place = np.eye(GRID[1], GRID[0], dtype=bool), AXIAL.points([(0, 0, 1)])[0].tolist()
    files = {
        "slice": write([slices(numbered(GRID))[0]], folder / "a")[0],
        "frames": write([multi_frame(numbered(GRID))], folder / "b")[0],
        "rtstruct": write_rtstruct(folder / "rs.dcm", {"GTV": [Drawn(square)], "PTV": [Drawn(square)]}),
        "seg": write_seg(folder / "seg.dcm", [(1, frame, place)], ["GTV"]),
        "labelmap": write_seg(folder / "map.dcm", [(1, frame, place)], ["GTV"], kind="LABELMAP"),
        "xml": write_lidc_xml(
            folder / "a.xml", "1.2", [Session([Marked([Roi("1.1", 0, [(2, 1), (4, 3)])])])]
        ),
    }
    return {name: file.read_bytes() for name, file in files.items()}


def replace(data: bytearray, rng: np.random.Generator) -> None:
    """Put evil bytes where a length or a number may be."""
    evil = EVIL[rng.integers(len(EVIL))]
    at = int(rng.integers(max(1, len(data) - len(evil))))
    data[at : at + len(evil)] = evil


DAMAGES = (replace, replace, flip_bits, cut, overwrite, insert)


def make_file(folder: Path, sound: Mapping[str, bytes], seed: int) -> Path:
    """The damaged file of a seed."""
    rng = np.random.default_rng(seed)
    name = list(sound)[rng.integers(len(sound))]
    content = bytearray(sound[name])
    for _ in range(rng.integers(1, 5)):
        DAMAGES[rng.integers(len(DAMAGES))](content, rng)
    path = folder / f"{seed}-{name}{'.xml' if name == 'xml' else '.dcm'}"
    path.write_bytes(content)
    return path


def check(path: Path, ct: Series) -> str:
    """Read a file as what it was; gives `read` or `refused`.

    Raises:
        Exception: anything besides a `DataError`, or a `GeometryError` of contours that fit nowhere.
    """
    began = time.process_time()
    try:
        _read(path, ct)
        result = "read"
    except (DataError, GeometryError) as error:
        if len(str(error)) > LONGEST_MESSAGE:
            raise AssertionError("the message is no sentence") from error
        result = "refused"
    assert time.process_time() - began < LONGEST_SECONDS, "too slow"
    return result


def _read(path: Path, ct: Series) -> None:
    kind = path.stem.partition("-")[2]
    if kind == "xml":
        read_lidc_xml(path)
    elif kind in ANNOTATIONS:
        opened = open_structures(path)
        for structure in opened.structures:
            assert opened.draw(structure, ct).inside.shape == ct.grid, "shape"
    else:
        for each in survey(path, salt=SALT).series:
            assert np.isfinite(read_series(each).array).all(), "voxels"


def prepare(folder: Path) -> tuple[Make, Check]:
    """What makes and reads damaged files, see `fuzz_loop`."""
    ct, sound = series(folder), valid_files(folder)
    return (lambda seed: make_file(folder, sound, seed)), (lambda path: check(path, ct))


if __name__ == "__main__":
    sys.exit(fuzz_loop.run(__doc__, prepare))
