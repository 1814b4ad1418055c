"""One training in a process of its own, for the tests of what is told in advance: foretold, or measured.

    python tests/measured.py prepared|foretold|measured RECIPE FOLDER

Prints JSON: `memory` in bytes and `seconds` per batch.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from oncoseg.recipe import Recipe
from oncoseg.train import train
from oncoseg.training import data as training_data
from oncoseg.training import limits, loop
from tiny import brats_case, lidc_nodule, tiny_recipe

SLICES = 34
"""Of each MRI: more than are validated at a time."""

S1 = [64, 128, 256]
"""Features of its stages."""

RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "preparation__slice_size": [64, 64],
        "network__arguments__features": [16, 32, 64],
        "training__batch_size": 8,
    },
    "S1 at 64×64, batch 8": {
        "preparation__slice_size": [64, 64],
        "network__arguments__features": S1,
        "training__batch_size": 8,
    },
    "S1 at 128×128, batch 4": {
        "preparation__slice_size": [128, 128],
        "network__arguments__features": S1,
        "training__batch_size": 4,
    },
    "S1 at 128×128, batch 8": {
        "preparation__slice_size": [128, 128],
        "network__arguments__features": S1,
        "training__batch_size": 8,
    },
}
"""Name → changes of the tiny recipe."""

LONG = {
    name: {"preparation__slice_size": [256, 256], "modalities__mri__loss": {"name": name}}
    for name in ("focal-tversky", "lovasz")
}
"""Loss → changes, for MRI of many slices: then validation takes more than training."""

LONG_SLICES, LONG_BATCHES = 400, 4
"""Of each case; and how many batches are trained on, as they do not matter."""


def recipe_of(name: str) -> Recipe:
    """One epoch on both modalities, or of long cases on one."""
    changes = {"training__pretrain_epochs": 0, "training__max_epochs": 1, **(RECIPES | LONG)[name]}
    recipe = tiny_recipe(**changes)
    return recipe.with_only(["mri"]) if name in LONG else recipe


def data_in(root: Path, slices: int = SLICES) -> dict[str, Path]:
    """Three patients of each, so that one is trained on."""
    for number in range(3):
        brats_case(root / "mri", number, grid=(20, 20, slices))
        lidc_nodule(root / "ct", number)
    return {"mri": root / "mri", "ct": root / "ct"}


def prepared(recipe: Recipe, data: dict[str, Path], folder: Path) -> dict[str, float]:
    """Prepare only, so that the others measure none of it."""
    training_data.load(recipe, data, folder / "store", workers=0)
    return {}


def foretold(recipe: Recipe, data: dict[str, Path], folder: Path) -> dict[str, float]:
    """What the program says beforehand."""
    loaded = training_data.load(recipe, data, folder / "store", workers=0)
    needs = limits.foresee(recipe, loaded.train, loaded.validation)
    assert needs is not None
    return {"memory": needs.memory_bytes, "seconds": needs.step_seconds}


def measured(recipe: Recipe, data: dict[str, Path], folder: Path) -> dict[str, float]:
    """What it takes in the end: the process's peak."""
    times: list[float] = []
    store = folder / "store"
    train(
        recipe, data, folder / "run", store=store, workers=0, monitor=lambda _: times.append(time.monotonic())
    )
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    return {"memory": peak_bytes(), "seconds": steps[len(steps) // 2]}


def peak_bytes() -> int:
    """Of this program alone: `getrusage` also counts what the process held that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    how, name, place = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    work = {"prepared": prepared, "foretold": foretold, "measured": measured}[how]
    recipe = recipe_of(name)
    if name in LONG:
        every = loop.Training._batches
        loop.Training._batches = lambda *given: every(*given)[:LONG_BATCHES]  # type: ignore[method-assign]
    result = work(recipe, {modality: place / modality for modality in recipe.modalities}, place)
    sys.stdout.write(json.dumps(result))
