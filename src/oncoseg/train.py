"""Training a recipe into a run folder, and going on with it; the loop is in `oncoseg.training.loop`."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch

from oncoseg import hardware, models
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import new_folder
from oncoseg.locks import locked
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.split import read_split
from oncoseg.training import checkpoints, schedules
from oncoseg.training import data as training_data
from oncoseg.training.loop import Outcome, Status, Training, losses_of, optimiser_of


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
    channels: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    remark: training_data.Remark | None = None,
    opened: training_data.Opened | None = None,
) -> Outcome:
    """Train a recipe from raw folders into a new run folder.

    Args:
        recipe: the complete description; it is kept in the run folder.
        data: modality → folder of its data set.
        out: the run folder; new or empty.
        store: the prepared store; None for the one in the user's cache.
        split_file: a `split.json` to use instead of drawing a split, or nnU-Net's folds; see `read_split`.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        monitor: called after every step and every validation.
        accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
        channels: modality → channel → what its series are called; see `training_data.load`.
        remark: called for each modality with what is doubtful about its images.
        opened: called for each modality with what was found in its data set.

    Raises:
        RunError: `out` holds something or cannot be written, or the loss is not finite any more.
        DataError: data that cannot be used.
        RecipeError: an unknown loss or network, arguments that they do not take, or no such device.
    """
    entered = time.monotonic()
    check_recipe(recipe)
    training_data.check_modalities(recipe, data)
    given = read_split(split_file, tuple(recipe.modalities)) if split_file else None
    run = RunFolder(new_folder(out, "The run folder"))
    try:
        loaded = training_data.load(
            recipe,
            data,
            store or training_data.default_store(),
            split=given,
            workers=workers,
            progress=prepare_progress,
            accept_implausible=accept_implausible,
            channels=channels,
            remark=remark,
            opened=opened,
        )
        training = Training(run, recipe, loaded.train, loaded.validation, monitor, entered)
    except BaseException:
        with contextlib.suppress(OSError):  # something else, such as the store, was put there
            out.rmdir()
        raise
    run.write_recipe(recipe)
    run.write_split(recipe.training.seed, loaded.split)
    with locked(run.lock, f"The run {out}"):
        run.write_data(loaded.data)  # the last, so that nobody can go on with it before
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
    entered: float | None = None,
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
        entered: when the budget began, by `time.monotonic`; None for now.

    Raises:
        Locked: another process is training it.
        RunError: not a run folder, of another version, its data have changed since, the loss is not finite
            any more, or it is to be extended before it is finished.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    entered = time.monotonic() if entered is None else entered
    run = RunFolder(out)
    recipe, records = run.recipe(), run.data()
    with locked(run.lock, f"The run {out}"):
        if extend is not None:
            recipe = _extended(run, recipe, extend)
        if max_minutes != "recipe":
            recipe = recipe.with_changes({"training.max_minutes": max_minutes})
        check_recipe(recipe)
        loaded = training_data.load(
            recipe,
            {name: Path(record["path"]) for name, record in records.items()},
            store or training_data.default_store(),
            split=run.split(),
            workers=workers,
            progress=prepare_progress,
            accept_implausible=any(record.get("accept_implausible") for record in records.values()),
            channels={name: record.get("channels", {}) for name, record in records.items()},
        )
        for name, record in records.items():
            if loaded.data[name]["fingerprint"] != record["fingerprint"]:
                raise RunError(
                    f"The {name} data at {record['path']} have changed since {out} was started; a resumed "
                    "run must see the same data. Restore them, or start a new run."
                )
        training = Training(run, recipe, loaded.train, loaded.validation, monitor, entered)
        if checkpoints.exists(run.checkpoint):
            training.restore(warn)
        return training.go()


def _extended(run: RunFolder, recipe: Recipe, epochs: int) -> Recipe:
    """Write more epochs into the recipe of a finished run."""
    if not run.is_finished():
        raise RunError(
            f"{run.path} is not finished; expected a finished run to extend. Go on with it first: "
            f"oncoseg train --resume --out {run.path}"
        )
    recipe = recipe.with_changes({"training.extensions": [*recipe.training.extensions, epochs]})
    run.write_recipe(recipe)
    return recipe


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
