"""Unpacking a zip for a while, within bounds: nothing outside its folder, no links, no bombs."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from oncoseg.errors import DataError
from oncoseg.files import scratch_folder

MOST_ENTRIES = 100_000
"""No zip may hold more files."""

LARGEST_INDEX_BYTES = 16 << 20
"""No zip's table of contents may be larger: it is read before the files can be counted."""

LARGEST_UNPACKED_BYTES = 128 << 30
"""No zip may unpack to more."""

FREE_BYTES, LARGEST_RATIO = 1 << 30, 100
"""A zip may unpack to so many bytes, or so many times its size if that is more; images shrink 2 to 8 fold."""

LONGEST_END_BYTES = 76 + 22 + 65_535
"""The records at the end of a zip, with the longest comment."""

MOST_LEVELS = 64
"""No file may lie deeper in folders, of which there may be no more than `MOST_ENTRIES`, too."""

BLOCK_BYTES = 1 << 20
"""How much is unpacked at a time."""

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)
"""What reading a damaged, encrypted or exotic zip raises."""


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of a zip; removed at the end of the `with`.

    Raises:
        DataError: the zip is damaged, encrypted or beyond the bounds above, leads out of its folder or holds
            links; or there is no room.
    """
    with scratch_folder("zip") as folder:
        try:
            _check_index(path)
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, path, folder)
        except DAMAGE as error:
            raise DataError(
                f"{path} is damaged, encrypted or no usual zip: {error}. Unpack it yourself."
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be unpacked into {folder}: {error.strerror or error}.") from error
        yield folder


def _check_index(path: Path) -> None:
    """Check the size of the table of contents, which the end states (APPNOTE, 4.3.14 and 4.3.16)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LONGEST_END_BYTES))
        end = file.read()
    last = len(end) - 22
    at = last if end[last:][:4] == b"PK\x05\x06" else end.rfind(b"PK\x05\x06")
    if at < 0:
        raise zipfile.BadZipFile("it has no end")
    (length,) = struct.unpack_from("<L", end, at + 12)
    if at >= 76 and end[at - 20 :][:4] == b"PK\x06\x07":
        (length,) = struct.unpack_from("<Q", end, at - 76 + 40)
    if length > LARGEST_INDEX_BYTES:
        raise DataError(
            f"{path} lists far more than {MOST_ENTRIES} files ({length} bytes of names); unpack it yourself."
        )


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    if len(entries) > MOST_ENTRIES:
        raise DataError(
            f"{path} holds {len(entries)} files; expected at most {MOST_ENTRIES}. Unpack it yourself."
        )
    room = min(max(FREE_BYTES, LARGEST_RATIO * path.stat().st_size), LARGEST_UNPACKED_BYTES)
    names = [_safe_name(entry, path) for entry in entries]
    _check_folders(names, path)
    for name, entry in zip(names, entries, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as packed, target.open("xb") as file:
            while block := packed.read(BLOCK_BYTES):
                room -= len(block)
                if room < 0:
                    raise DataError(
                        f"{path} unpacks to more than {LARGEST_RATIO} times its size; expected images. If "
                        "that is right, unpack it yourself."
                    )
                file.write(block)


def _check_folders(names: Iterable[PurePosixPath], path: Path) -> None:
    """Check how many folders there would be: a file may need one for every other letter of its name."""
    folders: set[PurePosixPath] = set()
    for name in names:
        folders.update(name.parents)
        if len(folders) > MOST_ENTRIES:
            raise DataError(f"{path} holds more than {MOST_ENTRIES} folders; unpack it yourself.")


def _safe_name(entry: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    name = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DataError(f"{path} holds links or other things that are no plain files; unpack it yourself.")
    if len(name.parts) > MOST_LEVELS:
        raise DataError(f"{path} holds files more than {MOST_LEVELS} folders deep; unpack it yourself.")
    if not name.parts:
        raise DataError(f"{path} holds a file without a name; unpack it yourself.")
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in name.parts[0]:
        raise DataError(f"{path} holds files that would be written outside its folder; it may be an attack.")
    return name
