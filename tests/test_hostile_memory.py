"""Files that ask for more than there is: one sentence, in a process that may not take more memory."""

import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from tiny_dicom import AXIAL, Drawn, write_rtstruct, write_seg

MOST_BYTES = 3 << 30
"""Of address space; what is imported takes about half of it."""

READ = """
import sys
from pathlib import Path
from oncoseg.errors import OncosegError
path = Path(sys.argv[1])
try:
    if path.suffix in (".dcm", ".xml"):
        from oncoseg.io.annotations import open_structures
        open_structures(path)
    elif path.suffix == ".csv":
        from oncoseg.datasets.tables import read_table
        read_table(path)
    else:
        from oncoseg.io import ImageRef, read
        read(ImageRef((path,)))
except OncosegError as error:
    print(error)
    sys.exit(2)
"""


def seg_of_a_million_frames(folder: Path) -> Path:
    path = write_seg(folder / "a.dcm", [(1, np.eye(8, dtype=bool), (0, 0, 0))], ["GTV"])
    dataset = dcmread(path)
    dataset.NumberOfFrames = 2**31 - 1
    dataset.save_as(path)
    return path


def seg_of_huge_frames(folder: Path) -> Path:
    path = write_seg(folder / "a.dcm", [(1, np.eye(8, dtype=bool), (0, 0, 0))], ["GTV"])
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(path)
    return path


def rtstruct_of_millions_of_contours(folder: Path) -> Path:
    square = Drawn(AXIAL.points([(0, 0, 0), (1, 0, 0), (1, 1, 0)]))
    path = write_rtstruct(folder / "a.dcm", {"GTV": [square]})
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 2_100_000
    path.write_bytes(path.read_bytes() + struct.pack("<HH2sHL", 0x3006, 0x0080, b"SQ", 0, len(items)) + items)
    return path


def nifti_of_a_terabyte(folder: Path) -> Path:
    header = nib.Nifti1Header()
    header.set_data_shape((32000, 32000, 1000))
    (folder / "a.nii").write_bytes(header.binaryblock + bytes(4000))
    return folder / "a.nii"


def csv_of_many_bytes(folder: Path) -> Path:
    with (folder / "a.csv").open("wb") as file:
        file.write(b"case,patient\n")
        file.truncate(8 << 30)  # takes no room on the disk
    return folder / "a.csv"


def csv_of_one_long_cell(folder: Path) -> Path:
    (folder / "a.csv").write_bytes(b"case,patient\n" + b"a" * (32 << 20))
    return folder / "a.csv"


def xml_that_laughs(folder: Path) -> Path:
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    (folder / "a.xml").write_text(
        f'<!DOCTYPE l [<!ENTITY l0 "ha">{lines}]><LidcReadMessage>&l11;</LidcReadMessage>'
    )
    return folder / "a.xml"


def xml_of_one_long_number(folder: Path) -> Path:
    edge = f"<edgeMap><xCoord>{'x' * (10 << 20)}</xCoord><yCoord>1</yCoord></edgeMap>"
    roi = f"<roi><imageZposition>1</imageZposition><imageSOP_UID>1</imageSOP_UID>{edge}</roi>"
    nodule = f"<unblindedReadNodule><noduleID>1</noduleID>{roi}</unblindedReadNodule>"
    (folder / "a.xml").write_text(
        f"<LidcReadMessage><readingSession>{nodule}</readingSession></LidcReadMessage>"
    )
    return folder / "a.xml"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (seg_of_a_million_frames, "declares 2147483647 frames"),
        (seg_of_huge_frames, "expected each to be described"),
        (rtstruct_of_millions_of_contours, "or 2000000 items; expected an annotation"),
        (nifti_of_a_terabyte, "bytes"),
        (csv_of_many_bytes, "is too large for a table of cases"),
        (csv_of_one_long_cell, "is no table: field larger than field limit"),
        (xml_that_laughs, "holds a document type definition; it is refused"),
        (xml_of_one_long_number, "has a damaged mark"),
    ],
)
def test_it_is_refused_in_one_short_sentence(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    path = make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES)),
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert words in done.stdout
    assert str(path) in done.stdout
    assert len(done.stdout) < 1000
    assert list(tmp_path.iterdir()) == [path]
