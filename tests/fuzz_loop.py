"""The loop of the fuzzers: make a damaged file, read it, and keep each that does anything unexpected."""

import argparse
import contextlib
import itertools
import resource
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

LARGEST_MEMORY = 6 << 30
"""Bytes of address space that reading may take; the seeds are a few kB."""

LONGEST_SECONDS = 20.0
"""Of processor time for one file; reading one takes milliseconds."""


Make = Callable[[int], Path]
"""Writes the damaged file of a seed."""

Check = Callable[[Path], str]
"""Reads a file; says `read` or `refused`, and raises where it found something."""


def run(description: str | None, prepare: Callable[[Path], tuple[Make, Check]]) -> int:
    """Do what the command line asks for, and print how many files were read, refused and found wanting.

    Args:
        description: of the command.
        prepare: called once with an empty folder; gives what makes the damaged file of a seed in it, and what
            reads one and says `read` or `refused`.

    Returns:
        The exit code: 1 where reading a file raised anything, a warning included.
    """
    given = options(description)
    warnings.simplefilter("error")  # they would also repeat values, such as a patient's name
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))
    counts = {"read": 0, "refused": 0, "FOUND": 0}
    with tempfile.TemporaryDirectory() as folder:
        make, check = prepare(Path(folder))
        for seed in seeds(given.runs, given.seconds, given.first):
            path = make(seed)
            try:
                counts[check(path)] += 1
            except Exception as error:
                counts["FOUND"] += 1
                given.keep.mkdir(exist_ok=True)
                (given.keep / path.name).write_bytes(path.read_bytes())
                sys.stdout.write(f"{path.name}: {type(error).__name__}: {error}\n")
            path.unlink()
    sys.stdout.write(f"{counts}\n")
    return 1 if counts["FOUND"] else 0


def seeds(runs: int | None, seconds: float | None, first: int | None) -> Iterator[int]:
    """So many seeds; or until the time is over random ones, or those from `first` on."""
    if seconds is None:
        yield from range(first or 0, (first or 0) + (runs or 0))
        return
    end = time.monotonic() + seconds
    coming = itertools.count(first or 0)
    while time.monotonic() < end:
        yield secrets.randbelow(2**40) if first is None else next(coming)


def options(description: str | None) -> argparse.Namespace:
    """What the command line asks for: `runs`, `seconds`, `first` and `keep`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--first", type=int, help="the first seed")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    return parser.parse_args()
