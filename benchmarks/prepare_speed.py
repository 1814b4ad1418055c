"""How long preparing cases takes, how large the store becomes, and how fast slices are read from it.

    python benchmarks/prepare_speed.py [--cases 6] [--data FOLDER] [--quick]

Prepares phantoms of 240×240×155 voxels with four sequences, or a data set of yours, with two workers
into a temporary store, in a process of its own, and extrapolates to the 1,251 cases of BraTS 2021.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _common import make_phantoms, peak_mib, print_hardware, print_table, run_python, scratch_folder

BRATS_CASES = 1251
"""Cases of the BraTS 2021 training set."""

WORKERS = 2
READS = 400


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--cases", type=int, default=6, help="number of phantoms")
    parser.add_argument("--data", type=Path, help="a BraTS data set to prepare in place of phantoms")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        print(json.dumps(measure(options.data, options.into)))
        return
    print_hardware()
    with scratch_folder() as scratch:
        cases = 3 if options.quick else options.cases
        data = options.data or make_phantoms(scratch / "phantoms", cases, options.quick)
        report(run_python(__file__, "--data", data.resolve(), "--into", scratch / "store").result())


def measure(data: Path, store: Path) -> dict[str, Any]:
    """Prepare a data set and read random slices; runs in a process of its own."""
    from oncoseg.datasets import open_dataset
    from oncoseg.prepare import Settings, prepare
    from oncoseg.recipes import get_recipe

    recipe = get_recipe("unified-mri-ct")
    settings = Settings.of(recipe.modalities["mri"], recipe.classes, recipe.preparation)
    cases = open_dataset(data).cases
    finished: list[float] = []

    def note(done: int, total: int) -> None:
        finished.append(time.perf_counter())

    started = time.perf_counter()
    prepared = prepare(cases, settings, store, workers=WORKERS, progress=note)
    seconds = time.perf_counter() - started
    own, workers = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "cases": len(cases),
        "slices": sum(map(len, prepared)),
        "seconds": seconds,
        "steady": _steady_seconds(finished),
        "store_bytes": sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
        "source_bytes": sum(path.stat().st_size for path in _files(cases)),
        "peak_mib": peak_mib(own) + min(WORKERS, len(cases)) * peak_mib(workers),
        "read_ms": _reading_ms(prepared),
    }


def _steady_seconds(finished: Sequence[float]) -> float | None:
    """Seconds per case after each worker's first one; `finished` begins with the time before all."""
    rest = finished[WORKERS:]
    return (rest[-1] - rest[0]) / (len(rest) - 1) if len(rest) > 1 else None


def _files(cases: Any) -> set[Path]:
    refs = [ref for case in cases for ref in (*case.images.values(), *case.masks)]
    return {path for ref in refs for path in ref.files}


def _reading_ms(prepared: Any) -> float:
    """Median time of reading one random slice with its mask, as training does."""
    rng = np.random.default_rng(0)
    times = []
    for _ in range(READS):
        case = prepared[rng.integers(len(prepared))]
        index = int(rng.integers(len(case)))
        started = time.perf_counter()
        case.read(index, index + 1)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def report(found: dict[str, Any]) -> None:
    """Print the figures and what follows for BraTS."""
    cases = found["cases"]
    each = found["steady"] or found["seconds"] / cases
    megabytes = found["store_bytes"] / cases / 1e6
    rows = [
        ["cases, slices", f"{cases}, {found['slices']}"],
        ["seconds in all, workers' start included", f"{found['seconds']:.1f}"],
        [f"seconds per case, once {WORKERS} workers run", f"{each:.2f}"],
        ["MB per case in the store", f"{megabytes:.1f}"],
        ["MB per case as source files", f"{found['source_bytes'] / cases / 1e6:.1f}"],
        [f"peak memory of all {1 + WORKERS} processes, at most, MiB", f"{found['peak_mib']:.0f}"],
        ["ms to read one random slice with its mask", f"{found['read_ms']:.2f}"],
        [f"**{BRATS_CASES:,} cases: minutes**", f"**{each * BRATS_CASES / 60:.0f}**"],
        [f"**{BRATS_CASES:,} cases: GB in the store**", f"**{megabytes * BRATS_CASES / 1e3:.1f}**"],
    ]
    print_table([f"preparing with {WORKERS} workers", ""], rows)
    print(f"Load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
