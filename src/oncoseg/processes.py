"""The same work on many items in several processes, within a memory bound."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TypeVar

from oncoseg.errors import RunError

LARGEST_SHARE_GIB = 8.0
"""The most memory that the processes take together unless told otherwise."""

_HIDING = Lock()
"""One thread at a time exchanges `__main__` in `program_hidden`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def processes_within(wanted: int | None, memory_gib: float | None, each_gib: float, items: int) -> int:
    """How many processes fit the memory bound: at least one; 0 if none were asked for.

    Args:
        wanted: processes; None for one per processor, 0 for none besides this one.
        memory_gib: bound on the memory of all together; None for half of what is free, at most
            `LARGEST_SHARE_GIB`.
        each_gib: what one process needs.
        items: there are never more processes than items.

    Raises:
        RunError: a negative number of processes.
    """
    if wanted is not None and wanted < 0:
        raise RunError(f"Expected --workers of 0 or more, got {wanted}.")
    if wanted == 0:
        return 0
    bound = memory_gib or min(LARGEST_SHARE_GIB, free_memory_gib() / 2)
    return max(1, min(wanted or available_processors(), items, int(bound / each_gib)))


def run_each(
    function: Callable[[Item], Result],
    items: Collection[Item],
    count: int,
    what: str,
    start: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """The results of all items in the order in which they are done.

    Closing the iterator lets the running ones finish and drops the others.

    Args:
        function: of one item; of a module, so that it can be sent to other processes.
        items: what to work on.
        count: processes; with fewer than two, everything happens in this one.
        what: names the work in the error.
        start: called first in every new process.

    Raises:
        RunError: a process was ended from outside.
    """
    if count < 2:
        yield from map(function, items)
        return
    executor = ProcessPoolExecutor(count, get_context("spawn"), _begin, (start,))
    pending: set[Future[Result]] = set()
    queue = iter(items)
    try:
        while True:
            while len(pending) < 2 * count and (item := next(queue, None)) is not None:
                with program_hidden():
                    pending.add(executor.submit(function, item))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise RunError(
            f"A {what} process was ended from outside, probably for want of memory; expected room for "
            f"{count} of them. Run the same command again with fewer workers."
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def available_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


GROUPS_FOLDER = Path("/sys/fs/cgroup")
"""Where Linux keeps control groups (version 2), which bound the memory of containers and batch jobs."""


def free_memory_gib() -> float:
    """Memory that can be had without swapping, within a container's, batch job's or process's own bound.

    Where the system does not tell, all there is.
    """
    free = min([_free_on_machine_gib(), *_free_within_limits_gib()])
    try:
        line = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1]
        within = free_in_group(GROUPS_FOLDER / line.partition("::")[2].lstrip("/"), GROUPS_FOLDER)
    except (OSError, IndexError):
        return free
    return free if within is None else min(free, within / 2**30)


def free_in_group(group: Path, top: Path) -> float | None:
    """Bytes that a control group and those above it leave; None where there is no bound.

    Args:
        group: its folder.
        top: the folder of the group that holds all.
    """
    left: list[float] = []
    for folder in [group, *group.parents]:
        with contextlib.suppress(OSError, ValueError, StopIteration):  # "max" is no bound
            bound = int((folder / "memory.max").read_text(encoding="ascii"))
            used = int((folder / "memory.current").read_text(encoding="ascii"))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            left.append(max(0, bound - used + cached))
        if folder == top:
            break
    return min(left, default=None)


def _free_within_limits_gib() -> list[float]:
    """What the process's own limits leave, as `ulimit -v` and `ulimit -d` set them."""
    if sys.platform != "linux":
        return []
    import resource

    left = []
    bounds = {"VmSize": resource.RLIMIT_AS, "VmData": resource.RLIMIT_DATA}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in bounds and (most := resource.getrlimit(bounds[name])[0]) != resource.RLIM_INFINITY:
                left.append(max(0, most - 1024 * int(value.split()[0])) / 2**30)
    return left


def _free_on_machine_gib() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return kib / 2**20
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return 2 * LARGEST_SHARE_GIB


@contextmanager
def program_hidden() -> Iterator[None]:
    """Keep the processes that start meanwhile from importing the calling program.

    They have no use for it, and a script without `if __name__ == "__main__":` would run again in each.
    """
    with _HIDING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin(start: Callable[[], None] | None) -> None:
    ignore_interrupts()
    if start is not None:
        start()
