"""What the benchmarks share: phantoms at full size, child processes, and how figures are printed."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import oncoseg

FULL_SIZE, QUICK_SIZE = (240, 240, 155), (48, 48, 24)
"""Voxels of a BraTS case, and of the small one with which `--quick` only checks that all works."""


class Child(NamedTuple):
    """A process that has ended: wall time, processor time (its children's too), memory, what it wrote.

    Memory is the peak of the largest single process.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float
    output: str

    def result(self) -> Any:
        """What it printed last, as JSON."""
        return json.loads(self.output.splitlines()[-1])


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for everything that a benchmark writes."""
    with tempfile.TemporaryDirectory(prefix="oncoseg-benchmark-") as folder:
        yield Path(folder)


def make_phantoms(out: Path, cases: int, quick: bool) -> Path:
    """Write synthetic cases in the layout of BraTS 2021."""
    from oncoseg.phantom import make_brain_mri

    make_brain_mri(out, cases, seed=0, size=QUICK_SIZE if quick else FULL_SIZE)
    return out


def child_environment() -> dict[str, str]:
    """This environment, with this very oncoseg importable."""
    source = str(Path(oncoseg.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


def run_python(*arguments: object, python: str | Path = sys.executable) -> Child:
    """Run a fresh Python process and take its times and its peak of resident memory.

    Args:
        arguments: of the command, after Python itself.
        python: which one; that of another environment is given `-I`, so that it does not see this one's.

    Raises:
        RuntimeError: it failed; holds what it wrote.
    """
    command = [str(python), "-W", "ignore", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=child_environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Child(seconds, usage.ru_utime + usage.ru_stime, peak_mib(usage.ru_maxrss), text)


def peak_mib(maxrss: int) -> float:
    """`ru_maxrss` in MiB; Linux counts in KiB, macOS in bytes."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range, as text."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def print_hardware() -> None:
    """Print what was measured on: nothing that names the machine."""
    import torch

    from oncoseg import hardware
    from oncoseg.processes import available_processors

    cpu = torch.device("cpu")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = hardware.describe()
    print(
        f"{facts['processor']}, {available_processors()} cores, {memory_gib:.0f} GiB, "
        f"{torch.backends.cpu.get_cpu_capability()}; "
        f"oncoseg computes in {hardware.choose_precision('auto', cpu)}; Python {facts['python']}, "
        f"torch {facts['torch']}; load average before: {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )
