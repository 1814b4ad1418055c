"""Damaged NIfTI files by the thousand: each must be read as a sound volume or refused with a `DataError`.

    python tests/fuzz_nifti.py --runs 3000      # always the same files, as in `make test`
    python tests/fuzz_nifti.py --seconds 60     # others each time, as in `make fuzz`
    python tests/fuzz_nifti.py --seconds 60 --first 1     # from this seed on, as in `.ci/run`

A file that does anything else (another exception, a warning, a crash, too much time or memory) is kept in
the folder `--keep`, and the exit code is 1. Each damaged file is named by its seed.
"""

import functools
import gzip
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

import fuzz_loop
from fuzz_loop import LONGEST_SECONDS
from oncoseg.errors import DataError
from oncoseg.io import ImageRef, read, read_grid, remarks, voxel_bytes

GRID = (5, 6, 7)

EVIL = (0, 1, -1, 127, 128, 255, 256, 348, 352, 540, 32767, -32768, 65535, 2**31 - 1, -(2**31))
"""Numbers at the edges of what the fields can hold."""

EVIL_FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3.4e38, -3.4e38, 1e20, 0.5, -7.0)

FIELDS: Mapping[str, str] = {
    "dim": "h",
    "datatype": "h",
    "pixdim": "f",
    "vox_offset": "f",
    "scl_slope": "f",
} | {
    "scl_inter": "f",
    "xyzt_units": "B",
    "qform_code": "h",
    "sform_code": "h",
    "quatern_b": "f",
    "qoffset_x": "f",
    "srow_x": "f",
    "magic": "B",
    "sizeof_hdr": "i",
}
"""Fields of the NIfTI-1 header that decide how a file is read → their type for `struct`."""


@functools.cache
def valid_files() -> Sequence[tuple[str, bytes]]:
    """Sound files of every kind: name, content unpacked."""
    files = []
    values = np.arange(np.prod(GRID)).reshape(GRID)
    affine = np.array([[-0.9, 0, 0, 90], [0, 0.1, 2.5, -126], [0, 1.1, -0.2, 72], [0, 0, 0, 1]])
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in ("u1", "i2", "f4", "f8", "i8", "u8"):
            image = kind(values.astype(dtype), affine, dtype=dtype)
            image.header.set_qform(affine, 1)
            files.append((f"{kind.__name__}-{dtype}", image.to_bytes()))
    image = nib.Nifti1Image(np.stack([values] * 3, -1).astype("i2"), affine)
    image.header.set_slope_inter(0.5, -1000)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment of some length"))
    return (*files, ("four", image.to_bytes()))


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Change one or a few things."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind: Callable[[bytearray, np.random.Generator], None] = DAMAGES[rng.integers(len(DAMAGES))]
        kind(data, rng)
    return bytes(data)


def set_field(data: bytearray, rng: np.random.Generator) -> None:
    """Put an evil number into a field."""
    name = list(FIELDS)[rng.integers(len(FIELDS))]
    code = FIELDS[name]
    field = nib.Nifti1Header.template_dtype.fields[name]
    places = max(1, field[0].itemsize // struct.calcsize(code))
    offset = field[1] + int(rng.integers(places)) * struct.calcsize(code)
    if code == "f":
        packed = struct.pack("<f", EVIL_FLOATS[rng.integers(len(EVIL_FLOATS))])
    else:
        size = struct.calcsize(code)
        value = int(EVIL[rng.integers(len(EVIL))]) % (1 << (8 * size))
        packed = value.to_bytes(size, "little")
    if offset + len(packed) <= len(data):
        data[offset : offset + len(packed)] = packed


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    """Flip bits, mostly in the header."""
    end = min(len(data), 600) if rng.random() < 0.8 else len(data)
    for _ in range(int(rng.integers(1, 6))):
        if end:
            data[rng.integers(end)] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """Drop the end."""
    del data[int(rng.integers(len(data) + 1)) :]


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a stretch by noise."""
    start = int(rng.integers(max(1, len(data))))
    length = int(rng.integers(1, 40))
    data[start : start + length] = rng.bytes(min(length, max(0, len(data) - start)))


def insert(data: bytearray, rng: np.random.Generator) -> None:
    """Shift everything behind a place."""
    start = int(rng.integers(len(data) + 1))
    data[start:start] = rng.bytes(int(rng.integers(1, 20)))


DAMAGES = (set_field, set_field, set_field, flip_bits, cut, overwrite, insert)


def make_file(folder: Path, seed: int) -> Path:
    """The damaged file of a seed; plain, compressed, or damaged once more after compression."""
    rng = np.random.default_rng(seed)
    name, sound = valid_files()[rng.integers(len(valid_files()))]
    content = damage(sound, rng)
    way = rng.random()
    if way < 0.4:
        path = folder / f"{seed}-{name}.nii"
    else:
        path = folder / f"{seed}-{name}.nii.gz"
        content = gzip.compress(content, 1)
        content = damage(content, rng) if way > 0.8 else content
    path.write_bytes(content)
    return path


def check(path: Path) -> str:
    """Read a file in every way; gives `read` or `refused`.

    Raises:
        Exception: anything besides a `DataError`.
    """
    began = time.process_time()
    try:
        for component in (None, 1):
            ref = ImageRef((path,), component)
            try:
                grid, volume = read_grid(ref), read(ref)
                remarks(ref)
            except DataError:
                if component == 1:
                    raise
                continue
            assert volume.array.shape == grid.array.shape == (1, *volume.grid), "shape"
            assert volume.array.dtype == grid.array.dtype, "type"
            assert volume.array.nbytes == voxel_bytes(ref), "size"
            assert np.isfinite(volume.affine_ras).all(), "affine"
            assert np.isfinite(volume.array).all(), "voxels"
            assert np.isfinite(volume.spacing_mm).all(), "spacing"
            return "read"
    except DataError as error:
        if str(path) not in str(error):
            raise AssertionError("the message does not name the file") from error
    assert time.process_time() - began < LONGEST_SECONDS, "too slow"
    return "refused"


if __name__ == "__main__":
    sys.exit(fuzz_loop.run(__doc__, lambda folder: (lambda seed: make_file(folder, seed), check)))
