"""The whole pipeline on phantoms, as an example of the Python API: one step, some lines.

Phantoms are made-up images; what a network scores on them says nothing about patients.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.datasets import open_dataset
from oncoseg.errors import RunError
from oncoseg.evaluate.run import evaluate_run
from oncoseg.phantom import PHANTOMS
from oncoseg.predict import Predictor
from oncoseg.recipes import get_recipe
from oncoseg.report import write_report
from oncoseg.train import resume, train

KINDS = {"mri": "brain-mri", "ct": "lung-ct"}
"""Modality → kind of phantom."""

CASES = {"mri": 8, "ct": 16}
"""Modality → number of phantom patients."""

PARTS = {"phantoms", "store", "run", "predictions"}
"""What lies in the demonstration's folder."""

CHANGES: dict[str, Any] = {
    "network.arguments.features": [32, 64, 128],
    "augmentation.crop": [64, 64],
    "augmentation.crop_on_tumour": 0.8,
    "training.batch_size": 16,
    "training.pretrain_epochs": 3,
    "training.max_epochs": 9,
    "training.learning_rate": 2e-3,
}
"""What makes the published recipe quick enough for a demonstration."""


class Demo(NamedTuple):
    """What the demonstration wrote."""

    run: Path
    evaluation: Path
    predictions: list[Path]
    report: Path


def run_demo(
    out: Path,
    cases: dict[str, int] = CASES,
    changes: dict[str, Any] = CHANGES,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    monitor: Callable[[Any], None] | None = None,
) -> Demo:
    """Make phantoms, train the unified MRI and CT system on them, evaluate, predict and report.

    A demonstration that was stopped goes on where it was.

    Args:
        out: the folder to make, or one that an earlier call left.
        cases: modality → number of phantom patients, at least 3.
        changes: of the published recipe's fields, see `Recipe.with_changes`.
        workers: processes for preparing, see `prepare`.
        say: called with a line before every step.
        monitor: called after every step of the training, see `train`.

    Raises:
        RunError: `out` holds something else.
        KeyboardInterrupt: the training was asked to stop.
    """
    _check_folder(out)
    say("1/5 making phantoms: synthetic images, not patients")
    data = {modality: out / "phantoms" / modality for modality in KINDS}
    for modality, kind in KINDS.items():
        if not data[modality].exists():
            PHANTOMS[kind](data[modality], cases[modality], seed=0)

    say("2/5 preparing and training: the published recipe, made smaller and shorter")
    settings: dict[str, Any] = {"store": out / "store", "workers": workers, "monitor": monitor}
    if (out / "run").exists():
        outcome = resume(out / "run", **settings)
    else:
        recipe = get_recipe("unified-mri-ct").with_changes(changes)
        outcome = train(recipe, data, out / "run", **settings)
    if not outcome.finished:
        raise KeyboardInterrupt(outcome.reason)
    run = outcome.run

    say("3/5 evaluating on phantoms that were not trained on")
    evaluation = evaluate_run(run, split="test", replace=True)

    say("4/5 predicting one study, on its own grid")
    first = open_dataset(data["mri"]).cases[0]
    folder = next(iter(first.images.values())).files[0].parent
    predictions = Predictor.load(run).predict([folder], out / "predictions", modality="mri")

    say("5/5 writing the report")
    return Demo(run, evaluation, predictions, write_report(run))


def _check_folder(out: Path) -> None:
    others = {path.name for path in out.iterdir()} - PARTS if out.is_dir() else set()
    if others or out.is_file():
        raise RunError(
            f"{out} is not a folder that the demo made; expected a new one. Choose another: "
            f"oncoseg demo --out {out}-2."
        )
