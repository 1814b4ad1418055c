"""glibc's allocator, told to keep its memory: else large blocks go back, and new ones are zeroed again."""

import ctypes
import sys

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2
"""Parameters of glibc's mallopt, as its malloc.h numbers them."""


def keep_memory(pad_bytes: int) -> None:
    """Never give large blocks back to the kernel; does nothing where there is no glibc.

    Args:
        pad_bytes: what is taken at a time beyond what is asked for.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, pad_bytes)):
            mallopt(parameter, value)
