"""Slices per second in training system S1, beside the common way of published code and beside MONAI.

    python benchmarks/train_speed.py [--rounds 5] [--steps 3] [--quick]

Three ways train on the same phantoms of 240×240×155 voxels, on the CPU, with batches of 8 slices (see
`_training_sides.py`). Each has a process of its own; they take turns of a few steps (A B C A B C …) and
stand still between their turns, so that all see the same machine. Times are of whole steps; the first
turn of each warms it up and is not counted. Preparing oncoseg's store and filling MONAI's cache come
before the first step and are not counted either.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from _common import (
    FULL_SIZE,
    QUICK_SIZE,
    child_environment,
    make_phantoms,
    print_hardware,
    print_table,
    scratch_folder,
    spread,
)

SIDES = ("oncoseg", "common way", "common way, one batch", "MONAI")
"""In the order of their turns; see `_training_sides.SIDES`."""

TRAINED_ON = 2
"""Cases; one more is for validation, which is never reached."""


class Turn(NamedTuple):
    """Mean seconds per step of one turn: before the network starts, from there on, and of processor time."""

    waiting: float
    network: float
    processor: float

    @property
    def step(self) -> float:
        """The whole step."""
        return self.waiting + self.network


class Side:
    """One way of training, in a process that only runs during its turns."""

    def __init__(self, name: str, work: Path, setup: dict[str, object]) -> None:
        work.mkdir()
        self._errors = work / "errors.txt"
        command = [sys.executable, "-W", "ignore", __file__, "--side", name]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, "--setup", json.dumps(setup | {"work": str(work)})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=child_environment(),
                start_new_session=True,
            )

    def warm_up(self) -> None:
        """Wait for the first turn, which sets everything up."""
        self._finish_turn()

    def turn(self, steps: int) -> Turn:
        """Let it train for some steps."""
        before = group_seconds(self._process.pid)
        os.killpg(self._process.pid, signal.SIGCONT)
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        waiting, network = self._finish_turn()
        return Turn(waiting, network, (group_seconds(self._process.pid) - before) / steps)

    def _finish_turn(self) -> list[float]:
        from _training_sides import RESULT

        for line in self._process.stdout:
            if line.startswith(RESULT):
                os.killpg(self._process.pid, signal.SIGSTOP)
                times = json.loads(line.removeprefix(RESULT))
                return [statistics.fmean(part) for part in zip(*times, strict=True)]
        raise RuntimeError(f"a side ended early:\n{self._errors.read_text()}")

    def close(self) -> None:
        """End the process and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def group_seconds(group: int) -> float:
    """Processor time so far of all processes of a group (Linux; NaN elsewhere)."""
    processes = [path for path in Path("/proc").glob("[0-9]*") if _group_of(path) == group]
    if not processes:
        return math.nan
    # fields 14 to 17 of proc(5)'s stat: its own time and that of its children that have ended
    ticks = [int(field) for path in processes for field in _fields(path)[11:15]]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _group_of(process: Path) -> int | None:
    try:
        return int(_fields(process)[2])
    except OSError:
        return None


def _fields(process: Path) -> list[str]:
    """What follows the name in a process's `stat`: its state, parent, group, …."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def main() -> None:
    """Measure and print."""
    # leave through the ends of all `with` blocks: sides that stand still would outlive this process
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--steps", type=int, default=3, help="steps in a turn")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--setup", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.setup)
        return
    rounds, steps = (1, 2) if options.quick else (options.rounds, options.steps)
    batch_size = 8
    warm_up = 1 if options.quick else 2
    depth = (QUICK_SIZE if options.quick else FULL_SIZE)[2]
    if warm_up + rounds * steps >= TRAINED_ON * depth // batch_size:
        parser.error(f"expected fewer steps in all than an epoch's {TRAINED_ON * depth // batch_size}")
    print_hardware()
    with scratch_folder() as scratch:
        setup = {
            "data": str(make_phantoms(scratch / "phantoms", TRAINED_ON + 1, options.quick)),
            "slice_size": (32, 32) if options.quick else (128, 128),
            "features": (8, 16, 32) if options.quick else (64, 128, 256),
            "batch_size": batch_size,
            "warm_up": warm_up,
        }
        report(take_turns(scratch, setup, rounds, steps), batch_size)


def run_side(name: str, setup: dict[str, object]) -> None:
    """Be one of the sides."""
    from _training_sides import SIDES, Clock, Setup

    paths = {key: Path(str(setup[key])) for key in ("work", "data")}
    complete = Setup(**(setup | paths))
    SIDES[name](complete, Clock(complete.warm_up))


def take_turns(scratch: Path, setup: dict[str, object], rounds: int, steps: int) -> dict[str, list[Turn]]:
    """Each side's turns, of `rounds` rounds."""
    turns: dict[str, list[Turn]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        sides = {}
        for number, name in enumerate(SIDES):
            sides[name] = Side(name, scratch / f"side-{number}", setup)
            stack.callback(sides[name].close)
            sides[name].warm_up()
        for _ in range(rounds):
            for name, side in sides.items():
                turns[name].append(side.turn(steps))
    return turns


def report(turns: dict[str, list[Turn]], batch_size: int) -> None:
    """Print speeds, ratios within rounds, and what part of a step is not the network's."""
    alone = [turn.network for turn in turns["common way, one batch"]]
    rows = []
    for name, of_one in turns.items():
        floors = alone if name == "common way" else [turn.network for turn in of_one]
        rest = [turn.step - floor for turn, floor in zip(of_one, floors, strict=True)]
        pairs = list(zip(of_one, turns["oncoseg"], strict=True))
        rows.append(
            [
                name,
                spread([batch_size / turn.step for turn in of_one]),
                spread([1000 * seconds for seconds in rest], 0),
                spread([100 * seconds / turn.step for seconds, turn in zip(rest, of_one, strict=True)], 1),
                spread([turn.processor / batch_size for turn in of_one]),
                spread([turn.step / ours.step for turn, ours in pairs]),
                spread([turn.processor / ours.processor for turn, ours in pairs]),
            ]
        )
    not_network = ["not network, ms per step", "not network, %"]
    ratios = ["time / oncoseg's", "processor time / oncoseg's"]
    print_table(["training", "slices/s", *not_network, "processor s per slice", *ratios], rows)
    print(
        "Median (range) over the rounds. For the common way, 'not network' is what it needs beyond the same\n"
        "network on one batch held in memory, since its loader's processes also slow the network down; for\n"
        "the others, it is the time until the network starts (waiting, reading, augmenting)."
    )


if __name__ == "__main__":
    main()
