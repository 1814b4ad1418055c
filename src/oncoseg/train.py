"""Training a recipe into a run folder, and going on with it; the loop is in `oncoseg.training.loop`.

Where `torchrun` or SLURM started several processes, all call the same function; the first one prepares and
writes for all of them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch

from oncoseg import hardware, models
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import new_folder
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.training import checkpoints, schedules
from oncoseg.training import data as training_data
from oncoseg.training.loop import Outcome, Status, Training, losses_of, optimiser_of
from oncoseg.training.ranks import Ranks


def train(
    recipe: Recipe,
    data: Mapping[str, Path],
    out: Path,
    *,
    store: Path | None = None,
    split_file: Path | None = None,
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    accept_implausible: bool = False,
    remark: training_data.Remark | None = None,
) -> Outcome:
    """Train a recipe from raw folders into a new run folder.

    Args:
        recipe: the complete description; it is kept in the run folder.
        data: modality → folder of its data set.
        out: the run folder; new or empty.
        store: the prepared store; None for the one in the user's cache.
        split_file: a `split.json` to use instead of drawing a split.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        monitor: called after every step and every validation; of several processes, in the first.
        accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
        remark: called for each modality with what is doubtful about its images.

    Raises:
        RunError: `out` holds something or cannot be written, or the loss is not finite any more.
        DataError: data that cannot be used.
        RecipeError: an unknown loss or network, arguments that they do not take, or no such device.
    """
    entered = time.monotonic()
    check_recipe(recipe)
    training_data.check_modalities(recipe, data)
    given = training_data.read_split(split_file) if split_file else None
    ranks, run = Ranks(recipe.training.device, recipe.training.precision), RunFolder(out)

    def load() -> training_data.TrainingData:
        new_folder(out, "The run folder")
        with _removed_if_empty(out):
            return training_data.load(
                recipe,
                data,
                store or training_data.default_store(),
                split=given,
                workers=workers,
                progress=prepare_progress,
                accept_implausible=accept_implausible,
                remark=remark,
            )

    def describe() -> None:
        run.write_recipe(recipe)
        run.write_split(recipe.training.seed, loaded.split)
        run.write_data(loaded.data)

    with ranks.together():
        loaded = ranks.from_first(load)
        with _removed_if_empty(out):
            training = Training(
                run, recipe, loaded.train, loaded.validation, _watched(monitor, ranks), entered, ranks
            )
        ranks.from_first(describe)
        return training.go()


def resume(
    out: Path,
    *,
    store: Path | None = None,
    max_minutes: float | Literal["recipe"] | None = "recipe",
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    warn: Callable[[str], None] = lambda _: None,
    extend: int | None = None,
) -> Outcome:
    """Go on with a run that was stopped; recipe, data and split are those in the run folder.

    Args:
        out: the run folder.
        warn: told when a damaged checkpoint is passed over.
        extend: epochs to add to a finished run, with a schedule of their own; kept in its recipe's
            `training.extensions`.
        store: the prepared store; what it does not hold is prepared again.
        max_minutes: budget for this call; None for no end, "recipe" for the one in the recipe.
        workers: see `train`.
        prepare_progress: see `train`.
        monitor: see `train`.

    Raises:
        RunError: not a run folder, of another version, its data have changed since, the loss is not finite
            any more, or it is to be extended before it is finished.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    entered = time.monotonic()
    run = RunFolder(out)
    planned, records = run.recipe(), run.data()
    if extend is not None:
        planned = _extended(run, planned, extend)
    recipe = planned
    if max_minutes != "recipe":
        recipe = recipe.with_changes({"training.max_minutes": max_minutes})
    check_recipe(recipe)
    ranks = Ranks(recipe.training.device, recipe.training.precision)

    def load() -> training_data.TrainingData:
        loaded = training_data.load(
            recipe,
            {name: Path(record["path"]) for name, record in records.items()},
            store or training_data.default_store(),
            split=run.split(),
            workers=workers,
            progress=prepare_progress,
            accept_implausible=any(record.get("accept_implausible") for record in records.values()),
        )
        for name, record in records.items():
            if loaded.data[name]["fingerprint"] != record["fingerprint"]:
                raise RunError(
                    f"The {name} data at {record['path']} have changed since {out} was started; a resumed "
                    "run must see the same data. Restore them, or start a new run."
                )
        return loaded

    with ranks.together():
        if extend is not None:  # all processes have met, and so have read the recipe that was there
            ranks.from_first(lambda: run.write_recipe(planned))
        loaded = ranks.from_first(load)
        training = Training(
            run, recipe, loaded.train, loaded.validation, _watched(monitor, ranks), entered, ranks
        )
        if ranks.from_first(lambda: checkpoints.exists(run.checkpoint)):
            training.restore(warn)
        return training.go()


def _extended(run: RunFolder, recipe: Recipe, epochs: int) -> Recipe:
    """The recipe of a finished run, with more epochs."""
    if not run.is_finished():
        raise RunError(
            f"{run.path} is not finished; expected a finished run to extend. Go on with it first: "
            f"oncoseg train --resume --out {run.path}"
        )
    return recipe.with_changes({"training.extensions": [*recipe.training.extensions, epochs]})


def _watched(monitor: Callable[[Status], None] | None, ranks: Ranks) -> Callable[[Status], None] | None:
    """The monitor of this process; in the others than the first it sees nothing, but checks as much."""
    return monitor if monitor is None or ranks.first else lambda status: None


@contextlib.contextmanager
def _removed_if_empty(out: Path) -> Iterator[None]:
    """Delete a new run folder again where nothing comes of it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something else, such as the store, was put there
            out.rmdir()
        raise


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe names before anything is prepared for it.

    Raises:
        RecipeError: an unknown loss or network, arguments that they do not take, slices that the network
            does not take, or a device that is not there.
    """
    hardware.choose_device(recipe.training.device)
    losses_of(recipe)
    weight = torch.nn.Parameter(torch.zeros(1))
    schedules.build(
        recipe.training.schedule.name,
        optimiser_of(recipe, [weight]),
        steps=1,
        arguments=recipe.training.schedule.arguments,
    )
    name, arguments = recipe.network.name, recipe.network.arguments
    size = recipe.augmentation.crop or recipe.preparation.slice_size
    try:
        models.describe(name, arguments, recipe.in_channels, len(recipe.classes), size)
    except RuntimeError as error:
        raise RecipeError(
            f"Network {name!r} does not take slices of {size[0]}×{size[1]} ({error}). Choose a larger "
            "preparation.slice_size, or other network.arguments."
        ) from error
