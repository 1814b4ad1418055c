"""Fingerprints of images, remembered by path, size and time of change of their files.

Each is a small file of its own, named by a hash: a path may name a patient. Processes share the folder, and
what cannot be read or written is simply computed.
"""

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np

from oncoseg.errors import RunError
from oncoseg.files import sha256_of_json, write_bytes
from oncoseg.io import ImageRef
from oncoseg.leakage.fingerprints import NO_IMAGE, VERSION, ImageFingerprint

LARGEST_MIB = 256
"""Of the folder: the fingerprints of about 25,000 volumes, 6,000 examinations with four sequences."""


def place_of(folder: Path, ref: ImageRef) -> Path | None:
    """Where an image's fingerprint is kept as long as its files do not change.

    Args:
        folder: of all fingerprints.
        ref: the image.

    Returns:
        None where its files cannot be looked at.
    """
    try:
        states = [(str(file.absolute()), *_state(file)) for file in ref.files]
    except OSError:
        return None  # reading it will say what is wrong
    others = [list(map(str, ref.grid_of)), ref.structures, ref.component]
    name = sha256_of_json([VERSION, states, others])
    return folder / name[:2] / f"{name}.npz"


def recall(place: Path) -> ImageFingerprint | None:
    """What was kept there; None where nothing whole is."""
    try:
        # opened here, as np.load leaves a damaged file open
        with place.open("rb") as packed, np.load(packed, allow_pickle=False) as stored:
            slices, content = stored["slices"], str(stored["content"]) or None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if slices.dtype != np.uint64 or slices.shape[1:] != NO_IMAGE.slices.shape[1:]:
        return None
    with contextlib.suppress(OSError):
        place.touch()  # so that it is not the oldest
    return ImageFingerprint(content, slices)


def keep(place: Path, found: ImageFingerprint) -> None:
    """Keep it there, if that can be written."""
    buffer = io.BytesIO()
    np.savez(buffer, content=np.array(found.content or ""), slices=found.slices)
    with contextlib.suppress(RunError):
        write_bytes(place, buffer.getvalue())


def forget_oldest(folder: Path, largest_mib: float = LARGEST_MIB) -> None:
    """Delete what has not been used for longest, until the folder is small enough."""
    with contextlib.suppress(OSError):
        files = [(path.stat(), path) for path in folder.glob("*/*.npz")]
        total = sum(state.st_size for state, _ in files)
        for state, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= largest_mib * 2**20:
                return
            path.unlink(missing_ok=True)
            total -= state.st_size


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns
