"""What work will take, in words, and refusals where this machine does not have it."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from oncoseg.errors import FailedRun, RunError
from oncoseg.processes import free_memory_gib

GIB, GB = 2**30, 1e9

REFUSED = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
"""Words of PyTorch and the system where the processor's memory was refused."""

UNMAPPED = "failed to map segment"
"""Said by the system where there is no memory for a library."""

UNSAID = "could not create a "
"""oneDNN's words where it had no memory, but also where it cannot do something."""

LITTLE_GIB = 0.5
"""With less that is free, they are taken to mean memory."""

NOT_ENOUGH = (
    "The memory did not suffice; expected more. End other programs, raise the bound of this process "
    "(ulimit -v), container or batch job, or train with a smaller --training.batch-size and a larger "
    "--training.accumulate, or a smaller preparation.slice_size, preparation.patch or network. What was "
    "finished is kept."
)
"""Said where memory was refused."""

LITTLE_MB = 1.0
"""Of free disk, less than this is none."""

LITTLE_GB = 0.1
"""Below, megabytes are told."""


def in_words(memory_bytes: float, disk_bytes: float, seconds: float, kind: str = "memory") -> str:
    """One line for the user, such as `about 1.9 GiB of memory, 0.4 GB of disk, 52 minutes`.

    Args:
        memory_bytes: at the peak.
        disk_bytes: at the most.
        seconds: from now on.
        kind: of memory.
    """
    return (
        f"about {memory_bytes / GIB:.1f} GiB of {kind}, {_on_disk(disk_bytes)} of disk, {_duration(seconds)}"
    )


def check_disk(needed_bytes: float, folder: Path, what: str) -> None:
    """Check that a folder's disk has room.

    Raises:
        RunError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise RunError(
            f"{what} will take about {_on_disk(needed_bytes)}, but {_free(free)} free where "
            f"{folder} lies. Free some space, or choose another folder with --out."
        )


def check_memory(needed_bytes: float, room_bytes: float, what: str) -> None:
    """Check that memory will do.

    Args:
        needed_bytes: foretold for the whole process.
        room_bytes: the most that it may hold.
        what: begins the sentence.

    Raises:
        RunError: it will not.
    """
    if needed_bytes > room_bytes:
        raise RunError(
            f"{what} will take about {needed_bytes / GIB:.1f} GiB of memory, but there are "
            f"{room_bytes / GIB:.1f} GiB. End other programs, or take a machine, container or batch job with "
            "more."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused; PyTorch has no class of its own for it."""
    if isinstance(error, ImportError):
        return UNMAPPED in str(error)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) and UNSAID in str(error):
        return free_memory_gib() < LITTLE_GIB
    refused = isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSED)
    return refused or isinstance(error, MemoryError)


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a refusal of memory into a sentence.

    Raises:
        RunError: memory was refused.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        raise FailedRun(NOT_ENOUGH) from error


def resident_bytes() -> int | None:
    """The memory that this process holds now; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    except (OSError, StopIteration):
        return None


def _free(size: float) -> str:
    return f"only {_on_disk(size)} are" if size >= LITTLE_MB * 1e6 else "nothing is"


def _on_disk(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < LITTLE_GB * GB else f"{size / GB:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 120:
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"
