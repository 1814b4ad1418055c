"""What a training takes of this machine: time, processor time and, where the processor tells it, energy."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RAPL_FOLDER = Path("/sys/class/powercap")
"""Where Linux tells the energy counters of Intel and AMD processors (RAPL, in microjoules)."""

NOT_THERE = "this system shows no energy counter of its processor (RAPL under /sys/class/powercap)"
NOT_READABLE = "the processor's energy counter may not be read by this user"
SCOPE = "processor packages of the whole machine, whatever else ran on it; no GPU, memory or cooling"
"""What the counters measure and why there may be none."""

WORTH_TELLING_SHARE, WORTH_TELLING_SECONDS = 0.1, 30.0
"""From when on waiting for slices is told: this share of a training's time, and so long."""


class Meter:
    """Counts from its making on. Read it now and then: an energy counter begins again after about an hour.

    Attributes:
        entered: when the call's time budget began, by `time.monotonic`; before the meter, where the call had
            trained another fold until then.
    """

    def __init__(self, entered: float | None = None, rapl: Path = RAPL_FOLDER) -> None:
        self._began = time.monotonic()
        self.entered = self._began if entered is None else entered
        self._processor = _processor_seconds()
        self._joules = self._waited = 0.0
        self._missing = ""
        # intel-rapl:0 is a package; intel-rapl:0:1 is a part of it and would count twice
        self._counters = sorted(zone for zone in rapl.glob("intel-rapl:*") if zone.name.count(":") == 1)
        self._before = self._energies()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, training waits for its slices."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def waited_in_words(self, seconds: float) -> str | None:
        """What to tell of the waiting within so many seconds of training; None where it is not worth it."""
        if self._waited < max(WORTH_TELLING_SECONDS, WORTH_TELLING_SHARE * seconds):
            return None
        return (
            f"{self._waited / seconds:.0%} of the time went by waiting for slices to be read; a prepared "
            "store on a faster disk (--store) would save most of it."
        )

    def read(self) -> dict[str, Any]:
        """Figures for the record.

        Minutes, seconds of waiting for slices, processor seconds of this process and its finished children,
        and energy with its scope.
        """
        now = self._energies()
        for zone, before in self._before.items():
            change = now.get(zone, before) - before
            if change < 0:
                change += _number(zone / "max_energy_range_uj")
            self._joules += change / 1e6
        self._before = now
        return {
            "minutes": round((time.monotonic() - self._began) / 60, 3),
            "waiting_seconds": round(self._waited, 2),
            "processor_seconds": round(_processor_seconds() - self._processor, 2),
            "energy_joules": None if self._missing else round(self._joules, 1),
            "energy_note": self._missing or SCOPE,
        }

    def _energies(self) -> dict[Path, int]:
        if not self._counters:
            self._missing = NOT_THERE
        try:
            return {zone: _number(zone / "energy_uj") for zone in self._counters}
        except (OSError, ValueError):
            self._missing = NOT_READABLE
            return {}


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _processor_seconds() -> float:
    return sum(os.times()[:4])
