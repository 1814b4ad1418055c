"""Training a recipe into a run folder, and going on with it; the loop is in `oncoseg.training.loop`.

Where `torchrun` or SLURM started several processes, all call the same function; the first one prepares and
writes for all of them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from oncoseg import hardware, models
from oncoseg.errors import FailedRun, RecipeError, RunError
from oncoseg.files import new_folder, remove_leftovers
from oncoseg.limits import memory_errors
from oncoseg.locks import Locked, locked
from oncoseg.models.comparators import TooLargeError
from oncoseg.prepare import Progress, Settings
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.split import UNLABELLED, read_split
from oncoseg.training import checkpoints, limits, mean_teacher, schedules
from oncoseg.training import data as training_data
from oncoseg.training.choices import losses_of, optimiser_of, schedule_of
from oncoseg.training.loop import Training
from oncoseg.training.meter import Meter
from oncoseg.training.ranks import Ranks
from oncoseg.training.sources import (
    Data,
    Sources,
    check_modalities,
    check_stated,
    check_there,
    moved,
    stated,
)
from oncoseg.training.status import Outcome, Status

NOT_FORETOLD = "Memory, disk and time are not told in advance where several processes train together."
"""Said in place of it."""

MEASURING = "Measuring a few steps: how much memory and time they take …"
"""Said before, as it may take minutes on a busy machine."""

WRITTEN = frozenset({"recipe.json", "split.json"})
"""What `train` writes before `data.json`, without which nobody can go on with a run."""

BEFORE_DATA = WRITTEN | {"training.lock", "tensorboard"}
"""Names in a run folder whose `train` was killed before it wrote `data.json`."""


def train(
    recipe: Recipe,
    data: Data,
    out: Path,
    *,
    store: Path | None = None,
    split_file: Path | None = None,
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    same_data_as: RunFolder | None = None,
    warn: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
    entered: float | None = None,
) -> Outcome:
    """Train a recipe from raw folders into a new run folder.

    Args:
        recipe: the complete description; it is kept in the run folder.
        data: modality → folder of its data set, or `Sources` with more to say of them.
        out: the run folder; new, empty, or as a call left it that was killed before it trained.
        store: the prepared store; None for the one in the user's cache.
        split_file: a `split.json` to use instead of drawing a split, or nnU-Net's folds; see `read_split`.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        monitor: called after every step and every validation; of several processes, in the first.
        same_data_as: a run that is repeated; data other than those that it was trained on are refused.
        warn: told when a GPU's memory does not hold a batch, which is then computed in parts; and before
            steps are measured for `foretell`.
        foretell: told before the first step, in a line, what memory, disk and time it will take, as a few
            steps on trial say; None to do without them. Several processes do without; `warn` is told so.
        entered: when the time budget began, by `time.monotonic`; None for now.

    Raises:
        RunError: `out` holds something or cannot be written, memory or disk will not do, the data are
            others than those of `same_data_as`, or the loss is not finite any more.
        DataError: data that cannot be used.
        RecipeError: an unknown loss or network, arguments that they do not take, or no such device.
    """
    meter = Meter(entered)
    check_recipe(recipe)
    sources = Sources.of(data)
    check_modalities(recipe, sources.folders)
    check_stated(recipe, sources.licences, sources.origins)
    given = read_split(split_file, tuple(recipe.modalities)) if split_file else None
    ranks, run = _ranks(recipe), RunFolder(out)
    mean_teacher.check_alone(recipe, ranks.count)

    def load() -> training_data.TrainingData:
        _check_idle(run)
        _check_not_begun(run, recipe)
        with _removed_if_empty(out):
            loaded = training_data.load(
                recipe,
                sources,
                store or training_data.default_store(),
                split=given,
                workers=workers,
                progress=prepare_progress,
            )
            if same_data_as is not None:
                training_data.check_unchanged(same_data_as.data(), loaded.data, same_data_as.path, "a rerun")
            return loaded

    def describe() -> None:
        _check_not_begun(run, recipe)  # by another one, while this one prepared
        run.write_recipe(recipe)
        run.write_split(recipe.training.seed, loaded.split)
        # the last: before, nobody can go on with it
        run.write_data(sources.stated_in(loaded.data))

    with ranks.together(), memory_errors():
        loaded = ranks.from_first(load)
        with _removed_if_empty(out):
            needs = _needs(run, recipe, loaded, foretell, ranks, warn)
            watched = _watched(monitor, ranks)
            training = Training(
                run, recipe, loaded.train, loaded.validation, watched, meter, warn, ranks, loaded.unlabelled
            )
        with _locked(run, ranks):
            ranks.from_first(describe)
            _tell(needs, training, foretell)
            return training.go()


def resume(
    out: Path,
    *,
    data: Mapping[str, Path] | None = None,
    store: Path | None = None,
    max_minutes: float | Literal["recipe"] | None = "recipe",
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    warn: Callable[[str], None] = lambda _: None,
    extend: int | None = None,
    entered: float | None = None,
    foretell: Callable[[str], None] | None = None,
    licences: Mapping[str, str] = MappingProxyType({}),
    origins: Mapping[str, str] = MappingProxyType({}),
) -> Outcome:
    """Go on with a run that was stopped; recipe, data and split are those in the run folder.

    Args:
        out: the run folder.
        data: modality → where the same data lie now, which the run folder then says; those left out lie where
            they did.
        warn: told when a damaged checkpoint is passed over, and as in `train`.
        extend: epochs to add to a finished run, with a schedule of their own; kept in its recipe's
            `training.extensions` from when training goes on. From then on until they are done the run is not
            finished, and goes on without `extend`.
        store: the prepared store; what it does not hold is prepared again.
        max_minutes: budget for this call; None for no end, "recipe" for the one in the recipe.
        workers: see `train`.
        prepare_progress: see `train`.
        monitor: see `train`.
        entered: when the budget began, by `time.monotonic`; None for now.
        foretell: see `train`.
        licences: see `Sources`; they replace what was stated before.
        origins: likewise.

    Raises:
        Locked: another process is training it.
        RunError: not a run folder, of another version, its data have changed since, the loss is not finite
            any more, or it is to be extended before it is finished.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    meter = Meter(entered)
    run = RunFolder(out)
    kept, records = run.recipe(), moved(run.data(), data or {})
    check_stated(kept, licences, origins)
    ranks = _ranks(kept)
    mean_teacher.check_alone(kept, ranks.count)

    def load() -> training_data.TrainingData:
        check_there(records)
        loaded = training_data.load(
            recipe,
            Sources.of_records(records),
            store or training_data.default_store(),
            split=run.split(),
            workers=workers,
            progress=prepare_progress,
        )
        training_data.check_unchanged(run.data(), loaded.data, out, "a resumed run")
        _keep_hidden(run, loaded.split)
        run.write_data(stated(records, licences, origins))
        return loaded

    with ranks.together(), memory_errors(), _locked(run, ranks):
        recipe = ranks.from_first(lambda: run.recipe() if extend is None else _extended(run, extend))
        if max_minutes != "recipe":
            recipe = recipe.with_changes({"training.max_minutes": max_minutes})
        check_recipe(recipe)
        loaded = ranks.from_first(load)
        if run.is_finished() and extend is None:
            foretell = None
        needs = _needs(run, recipe, loaded, foretell, ranks, warn)
        watched = _watched(monitor, ranks)
        training = Training(
            run, recipe, loaded.train, loaded.validation, watched, meter, warn, ranks, loaded.unlabelled
        )
        if ranks.from_first(lambda: _has_checkpoint(run, warn)):
            training.restore(warn)
        if extend is not None:
            ranks.from_first(lambda: _begin_extension(run, training))
        _tell(needs, training, foretell)
        return training.go()


def _keep_hidden(run: RunFolder, split: dict[str, Any]) -> None:
    """Name in the run folder who is learnt from without a mask, where its split was given without them."""
    kept = run.split()
    if any(UNLABELLED in parts and UNLABELLED not in kept[name] for name, parts in split.items()):
        seed = run.split_seed()
        run.write_split(run.recipe().training.seed if seed is None else seed, split)


def _ranks(recipe: Recipe) -> Ranks:
    return Ranks(recipe.training.device, recipe.training.precision, recipe.training.weights)


def _check_idle(run: RunFolder) -> None:
    """Check that no other process is training a run there.

    Raises:
        Locked: one is.
    """
    if run.lock.is_file():
        try:
            with locked(run.lock, f"The run {run.path}"):
                pass
        except Locked as busy:
            raise Locked(
                f"{busy} Once it has ended, `oncoseg train --resume --out {run.path}` goes on with it where "
                "it is not finished; or choose another folder."
            ) from busy


def _check_not_begun(run: RunFolder, recipe: Recipe) -> None:
    """Make a run folder; it may hold what a killed call of this recipe wrote before `data.json`, no more.

    Raises:
        RunError: it holds more.
    """
    remove_leftovers(run.path)
    names = {path.name for path in run.path.iterdir()} if run.path.is_dir() else set()
    if not names or names - BEFORE_DATA or (names & WRITTEN and not _holds(run, recipe)):
        if (run.path / "data.json").is_file():
            raise RunError(
                f"The run folder {run.path} exists already and is not empty: it holds a run; expected a new "
                f"or empty folder. Go on with that run (`oncoseg train --resume --out {run.path}`), choose "
                "another name, or delete it first."
            )
        new_folder(run.path, "The run folder")


def _holds(run: RunFolder, recipe: Recipe) -> bool:
    """Whether a run folder has this very recipe, as it is written: no other is written over."""
    try:
        return (run.path / "recipe.json").read_text(encoding="utf-8") == recipe.to_json() + "\n"
    except (OSError, ValueError):
        return False


def _needs(
    run: RunFolder,
    recipe: Recipe,
    loaded: training_data.TrainingData,
    foretell: object,
    ranks: Ranks,
    warn: Callable[[str], None],
) -> limits.Needs | None:
    """What training will take, if anyone wants to know; of several processes nobody does.

    Raises:
        RunError: memory or disk will not do.
    """
    if foretell is None:
        return None
    if ranks.count > 1:
        if ranks.first:
            warn(NOT_FORETOLD)
        return None
    warn(MEASURING)
    needs = limits.foresee(recipe, loaded.train, loaded.validation, loaded.unlabelled)
    if needs is not None:
        limits.check_disk(needs, run)
    return needs


def _tell(needs: limits.Needs | None, training: Training, foretell: Callable[[str], None] | None) -> None:
    if needs is not None and foretell is not None:
        foretell(needs.in_words(*limits.left(training)))


@contextlib.contextmanager
def _locked(run: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Hold the run's lock in the first process, for all of them.

    Raises:
        Locked: another training holds it; in the others it is an `ElsewhereError`.
    """
    with contextlib.ExitStack() as held:
        ranks.from_first(lambda: held.enter_context(locked(run.lock, f"The run {run.path}")))
        yield


def _has_checkpoint(run: RunFolder, warn: Callable[[str], None]) -> bool:
    """Whether there is one to go on from; tells where there was one once.

    Raises:
        RunError: the run is finished, and nothing is left to go on from.
    """
    if checkpoints.exists(run.checkpoint):
        return True
    if run.is_finished():
        raise FailedRun(
            f"{run.path} is finished, but its checkpoints are gone, so that there is nothing to go on from. "
            "It can be evaluated and predicted with as it is; to train it again, use `oncoseg rerun`."
        )
    if run.log.is_file():
        warn(
            f"{run.path} has a log of finished epochs, but no checkpoint any more: training begins again at "
            "the first epoch, and replaces log.csv and the kept weights."
        )
    return False


def _extended(run: RunFolder, epochs: int) -> Recipe:
    """The recipe of a finished run, with more epochs; nothing is written yet.

    Raises:
        RunError: the run is not finished.
    """
    recipe = run.recipe()
    if not run.is_finished():
        raise RunError(_unfinished(run, recipe))
    return recipe.with_changes({"training.extensions": [*recipe.training.extensions, epochs]})


def _begin_extension(run: RunFolder, training: Training) -> None:
    """From now on the run is one that was planned so, and not finished.

    Raises:
        RunError: its last checkpoint is not of a finished run, whatever the run folder says.
    """
    kept, extensions = run.recipe(), training.recipe.training.extensions
    if training.stage < len(training.stages) - 1:
        raise RunError(_unfinished(run, kept))
    # in this order: a kill between leaves a run that is to be gone on with, and is not extended twice
    run.write_metrics(run.metrics() | {"finished": False})
    run.write_recipe(kept.with_changes({"training.extensions": extensions}))


def _unfinished(run: RunFolder, recipe: Recipe) -> str:
    extensions = recipe.training.extensions
    why = f" (its extension by {extensions[-1]} epochs is not done yet)" if extensions else ""
    return (
        f"{run.path} is not finished; expected a finished run to extend{why}. Go on with it first, without "
        f"--extend: oncoseg train --resume --out {run.path}"
    )


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
        RecipeError: a cascade, an unknown loss or network, arguments that they do not take, slices or windows
            that the network does not take, sizes of voxels or windows that were not planned, or a device that
            is not there.
    """
    if recipe.cascade.organ is not None:
        raise RecipeError(
            f"The recipe is of a cascade around {recipe.cascade.organ}; expected one of a single stage. "
            "Train it with oncoseg.train_cascade.train_cascade, or set cascade.organ to none."
        )
    hardware.choose_device(recipe.training.device)
    for modality in recipe.modalities.values():
        Settings.of(modality, recipe.classes, recipe.preparation)
    losses_of(recipe)
    weight = torch.nn.Parameter(torch.zeros(1))
    schedule_of(recipe, optimiser_of(recipe, [weight]), steps=schedules.ANY_STEPS)
    for size, of_what in _seen(recipe).items():
        _check_size(recipe, size, of_what)


def _seen(recipe: Recipe) -> dict[tuple[int, ...], tuple[str, str]]:
    """Every size that the network sees → what is of that size, and the field that decides it.

    Crops are for training: validation and prediction see whole slices. In 3D all see windows of one size.
    """
    chosen = recipe.preparation
    if chosen.spatial_dims == 3:
        return {recipe.example_size: ("windows", "preparation.patch")}
    whole = {chosen.slice_size: ("slices", "preparation.slice_size")}
    return {recipe.example_size: ("crops", "augmentation.crop")} | whole


def _check_size(recipe: Recipe, size: tuple[int, ...], of_what: tuple[str, str]) -> None:
    """Check that the network takes images of a size.

    Raises:
        RecipeError: it does not.
    """
    name, (seen, field) = recipe.network.name, of_what
    try:
        models.describe(name, recipe.network_arguments, recipe.in_channels, len(recipe.classes), size)
    except RuntimeError as error:
        other = "smaller" if isinstance(error, TooLargeError) else "larger"
        beside = (
            ", which validation and prediction see beside the crops of training,"
            if (recipe.augmentation.crop is not None and seen == "slices")
            else ""
        )
        raise RecipeError(
            f"Network {name!r} does not take {seen} of {'×'.join(map(str, size))}{beside} ({error}). "
            f"Choose a {other} {field}, or other network.arguments."
        ) from error
