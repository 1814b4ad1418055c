"""The ways of scoring masks with oncoseg that `evaluators_speed.py` times, in a process of its own each.

python benchmarks/_scoring_sides.py SIDE FOLDER OUT
"""

import json
from collections.abc import Callable
from pathlib import Path

from metrics_speed import LABELS
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.pairs import Pair, check_labels, find_pairs, load
from oncoseg.metrics import confusion, dice, iou
from oncoseg.metrics.boxes import bounding_box
from oncoseg.processes import run_each

PROCESSES = 2


def score_everything(folder: Path, out: Path) -> None:
    """As `oncoseg evaluate` does, without its page."""
    classes = {f"label-{label}": (label,) for label in LABELS}
    evaluate_masks(folder / "truth", folder / "prediction", out, classes=classes, workers=PROCESSES)


def score_overlap(folder: Path, out: Path) -> None:
    """Only what nnU-Net's evaluator gives."""
    pairs = find_pairs(folder / "truth", folder / "prediction").pairs
    found = dict(run_each(count_overlap, pairs, PROCESSES, "scoring"))
    out.write_text(json.dumps(found), encoding="utf-8")


def count_overlap(pair: Pair) -> tuple[str, dict[int, dict[str, float]]]:
    """Of one case: label → counts, Dice and IoU."""
    loaded = load(pair, 0.5, False)
    check_labels(loaded, {"all": LABELS})
    box = bounding_box(loaded.truth, loaded.prediction)
    truth, prediction = loaded.truth[box], loaded.prediction[box]
    found = {}
    for label in LABELS:
        counts = confusion(truth == label, prediction == label)
        counts = counts._replace(tn=counts.tn + loaded.truth.size - truth.size)
        found[label] = {**counts._asdict(), "dice": dice(counts), "iou": iou(counts)}
    return pair.case, found


SIDES: dict[str, Callable[[Path, Path], None]] = {
    "all 22 metrics": score_everything,
    "overlap alone": score_overlap,
}
