"""Arrays as large as a scan that need not lie in memory."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from oncoseg.files import disk_errors


def scratch_array(folder: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros that the system may keep on disk instead of in memory; its file has no name.

    Raises:
        RunError: the disk has no room for it.
    """
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        # without its space taken beforehand, a full disk would end the process at the first write
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=shape, order="F")
