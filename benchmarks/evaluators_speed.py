"""Scoring four cases of 512×512×600 voxels from .nii.gz files, beside nnU-Net's evaluator and panoptica.

    python benchmarks/evaluators_speed.py [--rounds 3] [--quick] [--only oncoseg nnU-Net]

The masks are those of `metrics_speed.py`, with five classes. Each way reads both folders, scores every case
and class in two processes, and writes its file. What each computes:

- oncoseg, the whole evaluation: `evaluate_masks`, with the tables, and slices of some cases for the page that
  the command draws; not the page itself.
- oncoseg, all 22 metrics: of this the scoring: overlap, volume, distances, surface Dice, lesions, panoptic
  quality and BraTS 2023's lesion-wise scores.
- oncoseg, overlap alone: of this what nnU-Net's evaluator does, too: reading, checking, counting.
- nnU-Net: TP, FP, FN, TN, Dice and IoU.
- panoptica: lesions, matched and scored with Dice, IoU and average distance, and the Dice of the whole class,
  as its defaults are. A second time with the voxels copied into the order that it is fast with: in a NIfTI
  file the first axis varies fastest, in NumPy the last.

nnU-Net and panoptica get environments of their own (`_environments.py`; 2 GB, made once), and are left out,
with the reason, where these cannot be made. Processor time is that of all processes of a way.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

import _environments
from _common import Child, print_hardware, print_table, run_python, scratch_folder, spread
from _environments import NNUNET, PANOPTICA, Peer, Unavailable
from metrics_speed import FULL, LABELS, QUICK, SPACING_MM, masks

CASES, PROCESSES = 4, 2

OURS = ("the whole evaluation", "all 22 metrics", "overlap alone")
"""Names in `_scoring_sides.SIDES`. No command does the last two alone; they are here for the comparison."""

PEERS: dict[str, tuple[Peer, tuple[str, ...]]] = {
    "nnU-Net": (NNUNET, ()),
    "panoptica": (PANOPTICA, ()),
    "panoptica, voxels reordered first": (PANOPTICA, ("--reorder",)),
}
"""Way → whose, and options of the driver."""

Side = Callable[[Path, Path], Child]
"""Scores the cases of a folder, and writes to a path."""


def write_cases(folder: Path, grid: tuple[int, int, int]) -> None:
    """Write masks into folders `truth` and `prediction`; each case's prediction lies a voxel further."""
    truth, prediction = masks(grid)
    for number in range(CASES):
        for name, mask in (("truth", truth), ("prediction", np.roll(prediction, number, axis=0))):
            file = folder / name / f"case_{number}.nii.gz"
            file.parent.mkdir(exist_ok=True)
            nibabel.Nifti1Image(mask, np.diag([*SPACING_MM, 1.0])).to_filename(file)


def run_ours(side: str, folder: Path, out: Path) -> Child:
    """Score with oncoseg."""
    return run_python(__file__, "--side", side, folder, out)


def run_peer(python: Path, peer: Peer, options: Sequence[str], folder: Path, out: Path) -> Child:
    """Score with a peer in its environment."""
    folders = folder / "truth", folder / "prediction"
    more = ["--processes", PROCESSES, *options, "--labels", *LABELS]
    return run_python("-I", peer.driver, *folders, out, *more, python=python)


def sides(install: bool, only: tuple[str, ...]) -> dict[str, Side]:
    """Every way that can be run here and whose name begins with one of `only`."""
    ours = {f"oncoseg, {side}": partial(run_ours, side) for side in OURS}
    found: dict[str, Side] = {side: run for side, run in ours.items() if side.startswith(only)}
    for name, (peer, options) in PEERS.items():
        if not name.startswith(only):
            continue
        try:
            python = _environments.python_of(peer, install)
        except Unavailable as reason:
            print(f"Left out: {name}. {reason}.\n", flush=True)
        else:
            shown = name.replace(peer.name, f"{peer.name} {peer.version}")
            found[shown] = partial(run_peer, python, peer, options)
    return found


def row(side: str, of_one: list[Child], first: list[Child]) -> list[str]:
    """Times, their ratios to the first's, memory."""
    pairs = list(zip(of_one, first, strict=True))
    return [
        side,
        spread([child.seconds for child in of_one], 1),
        spread([child.processor_seconds for child in of_one], 1),
        spread([child.seconds / one.seconds for child, one in pairs]),
        spread([child.processor_seconds / one.processor_seconds for child, one in pairs]),
        spread([child.peak_mib for child in of_one], 0),
    ]


def compare(grid: tuple[int, int, int], rounds: int, quick: bool, only: tuple[str, ...]) -> None:
    """Run every way in turn, and print the table."""
    ways = sides(not quick, only)
    ended: dict[str, list[Child]] = {side: [] for side in ways}
    with scratch_folder() as scratch:
        # in a process of its own, since Linux counts what this one has taken for its children's peak
        run_python(__file__, "--write", scratch, *["--quick"] * quick)
        for turn in range(rounds):
            for number, (side, run) in enumerate(ways.items()):
                child = run(scratch, scratch / f"{turn}-{number}.json")
                ended[side].append(child)
                took = f"{child.seconds:.1f} s, {child.processor_seconds:.1f} processor s"
                print(f"round {turn + 1}, {side}: {took}", file=sys.stderr, flush=True)
    what = f"{CASES} cases of {'×'.join(map(str, grid))}, {len(LABELS)} classes, {PROCESSES} processes"
    head = [what, "s", "processor s", "time / first's", "processor time / first's", "peak MiB"]
    first = next(iter(ended.values()))
    print_table(head, [row(side, of_one, first) for side, of_one in ended.items()])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--quick", action="store_true", help="only check that it works; installs nothing")
    parser.add_argument("--only", nargs="+", default=[""], help="what the names of the ways begin with")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    grid = QUICK if arguments.quick else FULL
    if arguments.write:
        write_cases(arguments.write, grid)
    elif arguments.side:
        from _scoring_sides import SIDES

        side, folder, out = arguments.side
        SIDES[side](Path(folder), Path(out))
    else:
        print_hardware()
        compare(grid, 1 if arguments.quick else arguments.rounds, arguments.quick, tuple(arguments.only))


if __name__ == "__main__":
    main()
