"""A function in a process of its own, within bounds of memory and time, that may crash without harm.

For native code that works on bytes from outside: a decoder that reads past its buffer, loops for ever or asks
for all memory ends its own process, and the caller gets an error.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from oncoseg.allocator import keep_memory
from oncoseg.errors import OncosegError
from oncoseg.processes import ignore_interrupts, program_hidden

START_SECONDS = 120.0
"""How long a new process may take to import what it needs, on a busy machine with a cold disk."""

PAD_BYTES = 16 << 20
"""What the process's allocator takes at a time. It keeps all, which saves a tenth of reading JPEG."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class LostError(OncosegError):
    """The process ended, or took too long and was ended; the message says which, as the end of a sentence."""


class LimitedProcess(Generic[Argument, Result]):
    """One function in one other process, which starts with the first call and is replaced when it is lost.

    Used by one thread at a time. Close it, or use it in a `with`.
    """

    def __init__(self, function: Callable[[Argument], Result], memory_bytes: int, seconds: float) -> None:
        """Set the bounds.

        Args:
            function: of a module. It raises `OncosegError`, which is raised again here; whatever else it
                raises counts as losing the process.
            memory_bytes: the most address space that the process may take beyond what it starts with
                (only where the system can bound it, as Linux does).
            seconds: the most time that one call may take.
        """
        self._function, self._memory_bytes, self._seconds = function, memory_bytes, seconds
        self._running: tuple[SpawnProcess, Connection] | None = None

    def __call__(self, argument: Argument) -> Result:
        """Call the function there.

        Raises:
            LostError: the process crashed, ran out of memory or took too long.
            OncosegError: what the function raised.
        """
        try:
            _, connection = self._running = self._running or self._start()
            connection.send(argument)
            if not connection.poll(self._seconds):
                raise LostError(f"took more than {self._seconds:g} seconds")
            done, result = connection.recv()
        except (OSError, EOFError) as error:
            self.close()
            raise LostError("ended unexpectedly") from error
        except BaseException:
            self.close()
            raise
        if done:
            return result  # type: ignore[no-any-return]
        raise result

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            process, connection = self._running
            self._running = None
            connection.close()
            process.kill()
            process.join()
            process.close()

    def __enter__(self) -> "LimitedProcess[Argument, Result]":
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._function, self._memory_bytes), daemon=True
        )
        with program_hidden():
            process.start()
        theirs.close()
        if not ours.poll(START_SECONDS):
            process.kill()
            raise LostError(f"did not start within {START_SECONDS:g} seconds")
        ours.recv()
        return process, ours


def _serve(connection: Connection, function: Callable[[Argument], Result], memory_bytes: int) -> None:
    """Answer calls until the other side is gone; errors that are no `OncosegError` end the process."""
    ignore_interrupts()
    keep_memory(PAD_BYTES)
    _limit(memory_bytes)
    _silence()
    connection.send(True)
    with suppress(EOFError, OSError):
        while True:
            argument = connection.recv()
            try:
                answer = True, function(argument)
            except OncosegError as error:
                connection.send((False, error))
                continue
            except BaseException:
                os._exit(1)
            connection.send(answer)


def _limit(memory_bytes: int) -> None:
    """Bound the address space where the system can, and leave no core file behind."""
    if sys.platform == "win32":
        return
    import resource

    with suppress(ValueError, OSError):  # a lower bound that the user has set stays
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _silence() -> None:
    """Send what native code prints to nowhere: it is about files that the caller reports on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
