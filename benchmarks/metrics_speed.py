"""Scoring a pair of masks of 512×512×600 voxels with five classes, beside MONAI and surface-distance.

    python benchmarks/metrics_speed.py [--rounds 2] [--quick]

The masks are made up: a liver-sized organ, and four tumours of 6 to 40 mm in it, at 0.8×0.8×1 mm; the
prediction has every surface moved by about a voxel, one tumour missed and one made up. Each way has a process
of its own, in turn, and scores the same two arrays, in the order of memory that its reader of NIfTI files
gives. Making them is not timed; importing is. Processor time is that of all threads. What each computes:

- oncoseg: every metric of `oncoseg.evaluate.scoring` (22: overlap, volume, three kinds of HD95, Hausdorff and
  average distance, surface Dice, lesions, panoptic quality, BraTS 2023's lesion-wise scores).
- MONAI: Dice, HD95 and average surface distance, on the whole volume, as its users call them.
- surface-distance: robust Hausdorff distance, average distance and surface Dice from one set of distances;
  left out where it is not installed.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Literal

import numpy as np

from _common import Child, print_hardware, print_table, run_python, spread

SPACING_MM = (0.8, 0.8, 1.0)
FULL, QUICK = (512, 512, 600), (64, 64, 48)

TUMOURS_MM = (40, 20, 10, 6)
"""Diameters of the tumours, which are classes 2 to 5."""

LABELS = range(1, len(TUMOURS_MM) + 2)

TOLERANCE_MM = 2.0


def ball(
    grid: tuple[int, int, int], centre: tuple[float, float, float], radii_mm: tuple[float, ...]
) -> np.ndarray:
    """An ellipsoid; `centre` in shares of the grid."""
    axes = [
        ((np.arange(n) - share * n) * size / radius) ** 2
        for n, share, size, radius in zip(grid, centre, SPACING_MM, radii_mm, strict=True)
    ]
    return axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= 1


def masks(grid: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, uint8 label maps."""
    scale = grid[0] / FULL[0]
    truth, prediction = np.zeros(grid, np.uint8), np.zeros(grid, np.uint8)
    for mask, grown in ((truth, 0.0), (prediction, 1.0)):
        mask[ball(grid, (0.5, 0.45, 0.5), tuple(r * scale + grown for r in (110, 90, 80)))] = 1
        for number, diameter in enumerate(TUMOURS_MM):
            if mask is prediction and number == len(TUMOURS_MM) - 1:
                continue
            place = (0.4 + 0.07 * number, 0.45, 0.5)
            mask[ball(grid, place, (diameter / 2 * max(scale, 0.4) + grown,) * 3)] = number + 2
    prediction[ball(grid, (0.6, 0.6, 0.5), (5 * max(scale, 0.4),) * 3)] = 3
    return truth, prediction


def by_oncoseg(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Every metric of every class."""
    from oncoseg.evaluate.scoring import Scoring, score_case

    classes = {str(value): (value,) for value in LABELS}
    score_case("case", "patient", truth, prediction, SPACING_MM, classes, Scoring(tolerance_mm=TOLERANCE_MM))


def by_monai(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Three metrics of every class."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    for value in LABELS:
        pair = [torch.from_numpy(mask == value)[None, None] for mask in (prediction, truth)]
        compute_dice(*pair)
        compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING_MM)
        compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=SPACING_MM)


def by_surface_distance(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Three metrics of every class that both masks have; its empty masks do not work with NumPy 2."""
    import surface_distance

    for value in LABELS:
        if not (truth == value).any() or not (prediction == value).any():
            continue
        found = surface_distance.compute_surface_distances(truth == value, prediction == value, SPACING_MM)
        surface_distance.compute_robust_hausdorff(found, 95)
        surface_distance.compute_average_surface_distance(found)
        surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)


FILES, NUMPYS = "F", "C"
"""Orders of memory: the first axis varies fastest, as in NIfTI files, or the last."""

SIDES: dict[str, tuple[str, Literal["F", "C"], Callable[[np.ndarray, np.ndarray], None]]] = {
    "oncoseg": ("oncoseg", FILES, by_oncoseg),
    "MONAI": ("monai", NUMPYS, by_monai),
    "surface-distance": ("surface_distance", FILES, by_surface_distance),
}
"""Name → the package that it needs, the order that its `LoadImage`, else nibabel, gives, and the work."""


def score(side: str, grid: tuple[int, int, int]) -> None:
    """What a child process does: print the seconds, and those of the processor."""
    _, order, work = SIDES[side]
    truth, prediction = (np.asarray(mask, order=order) for mask in masks(grid))
    started, used = time.perf_counter(), time.process_time()
    work(truth, prediction)
    print(json.dumps([time.perf_counter() - started, time.process_time() - used]))


def row(side: str, of_one: list[Child], ours: list[Child]) -> list[str]:
    """Times, the ratio of the processor times, memory."""
    seconds, processor = zip(*(child.result() for child in of_one), strict=True)
    mine = [child.result()[1] for child in ours]
    return [
        side,
        spread(seconds, 1),
        spread(processor, 1),
        spread([theirs / our for theirs, our in zip(processor, mine, strict=True)], 1),
        spread([child.peak_mib for child in of_one], 0),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way")
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    grid = QUICK if arguments.quick else FULL
    if arguments.side:
        score(arguments.side, grid)
        return
    print_hardware()
    sides = [side for side, (package, *_) in SIDES.items() if importlib.util.find_spec(package)]
    ended: dict[str, list[Child]] = {side: [] for side in sides}
    quick = ["--quick"] if arguments.quick else []
    for _ in range(1 if arguments.quick else arguments.rounds):
        for side in sides:
            ended[side].append(run_python(__file__, "--side", side, *quick))
    rows = [row(side, of_one, ended["oncoseg"]) for side, of_one in ended.items()]
    what = f"{'×'.join(map(str, grid))}, five classes"
    print_table([what, "s", "processor s", "processor time / oncoseg's", "peak MiB"], rows)


if __name__ == "__main__":
    main()
