"""Ctrl-C, SIGTERM and SIGUSR1: polite requests while training; elsewhere errors that clean up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """The number of the signal that asks for a stop after the present step; 0 for go on."""

    signal = 0


class Terminated(KeyboardInterrupt):
    """SIGTERM came: like Ctrl-C, leave at once, but leave nothing half-written."""


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, which would otherwise end the process without any cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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

    previous = {number: signal.signal(number, ask) for number in _asking()}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _asking() -> tuple[signal.Signals, ...]:
    """The signals that ask for a stop; Windows has no SIGUSR1."""
    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)
