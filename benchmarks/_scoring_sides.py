"""The ways of scoring masks with oncoseg that `evaluators_speed.py` times, in a process of its own each.

python benchmarks/_scoring_sides.py SIDE FOLDER OUT
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from metrics_speed import LABELS
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.pairs import Loaded, Pair, check_labels, find_pairs, load
from oncoseg.evaluate.scoring import Scoring, score_case
from oncoseg.labels import has_label
from oncoseg.metrics import confusion, dice, iou
from oncoseg.metrics.boxes import bounding_box
from oncoseg.processes import run_each

PROCESSES = 2


CLASSES = {f"label-{label}": (label,) for label in LABELS}

Scores = dict[str, dict[str, float]]
"""Class → metric → value."""


def evaluate(folder: Path, out: Path) -> None:
    """As `oncoseg evaluate` does, without its page."""
    evaluate_masks(folder / "truth", folder / "prediction", out, classes=CLASSES, workers=PROCESSES)


def score(function: Callable[[Pair], tuple[str, Scores]], folder: Path, out: Path) -> None:
    """Score every case, and write the scores into one file."""
    pairs = find_pairs(folder / "truth", folder / "prediction").pairs
    out.write_text(json.dumps(dict(run_each(function, pairs, PROCESSES, "scoring"))), encoding="utf-8")


def every_metric(pair: Pair) -> tuple[str, Scores]:
    """All that needs no probabilities."""
    loaded = checked(pair)
    masks = loaded.truth, loaded.prediction, loaded.spacing_mm
    rows = score_case(pair.case, pair.patient, *masks, CLASSES, Scoring())
    return pair.case, {row.label: row.values for row in rows}


def checked(pair: Pair) -> Loaded:
    """Both masks, on one grid and without unknown labels."""
    loaded = load(pair, 0.5, False)
    check_labels(loaded, CLASSES)
    return loaded


def overlap(pair: Pair) -> tuple[str, Scores]:
    """What nnU-Net's evaluator gives: counts, Dice and IoU."""
    loaded = checked(pair)
    box = bounding_box(loaded.truth, loaded.prediction)
    truth, prediction = loaded.truth[box], loaded.prediction[box]
    found = {}
    for name, joined in CLASSES.items():
        counts = confusion(has_label(truth, joined), has_label(prediction, joined))
        counts = counts._replace(tn=counts.tn + loaded.truth.size - truth.size)
        found[name] = {**counts._asdict(), "dice": dice(counts), "iou": iou(counts)}
    return pair.case, found


SIDES: dict[str, Callable[[Path, Path], None]] = {
    "the whole evaluation": evaluate,
    "all 22 metrics": partial(score, every_metric),
    "overlap alone": partial(score, overlap),
}
