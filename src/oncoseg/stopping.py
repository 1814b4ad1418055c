"""Ctrl-C, SIGTERM and SIGUSR1: polite requests while training; elsewhere errors that clean up."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """The number of the signal that asks for a stop after the present step; 0 for go on."""

    signal = 0


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 came: like Ctrl-C, leave at once, but leave nothing half-written."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def name_of(asked: KeyboardInterrupt) -> str:
    """The name of the signal that came."""
    return asked.signal.name if isinstance(asked, Terminated) else "SIGINT"


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGUSR1, which would otherwise end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise Terminated(number)

    with _handled(leave, [number for number in _asking() if number != signal.SIGINT]):
        yield


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGUSR1 into a clean stop; a second Ctrl-C stops at once.

    SLURM sends SIGTERM before it takes a job's machine away, or SIGUSR1 where `sbatch --signal` asks for it.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    with _handled(ask, _asking()):
        yield stop


@contextmanager
def _handled(handler: Callable[[int, Any], None], numbers: Iterable[signal.Signals]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _asking() -> tuple[signal.Signals, ...]:
    """The signals that ask for a stop; Windows has no SIGUSR1."""
    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)
