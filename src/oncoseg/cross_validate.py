"""Cross-validation: one ordinary run per fold, each going on on its own, in one process or in several."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from oncoseg import folds as drawing
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import atomic_folder, filled, new_folder
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.locks import Locked
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.stopping import name_of, orderly_termination
from oncoseg.store import Prepared
from oncoseg.train import check_recipe, resume
from oncoseg.training import class_presence
from oncoseg.training import data as training_data
from oncoseg.training.ranks import check_alone
from oncoseg.training.sources import (
    Data,
    Sources,
    check_stated,
    check_there,
    moved,
    stated,
)
from oncoseg.training.status import Outcome, Status, received, spent

NOT_UNLABELLED = (
    "A cross-validation learns from every mask and from nothing else; expected training.unlabelled.weight 0, "
    "split.labelled 1 and no --unlabelled. Train one run without --folds."
)
"""Said where scans without a mask are to be learnt from."""

TOGETHER = "A cross-validation"
"""Begins the sentence where several processes would share the batches of its folds."""


def train_folds(
    recipe: Recipe,
    data: Data,
    out: Path,
    folds: int | None,
    *,
    fold: int | None = None,
    store: Path | None = None,
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
) -> Outcome:
    """Draw folds of all patients with a mask, and train a network for each.

    Fold k is a run folder OUT/fold-k like any other: its patients are the test side; of the others the
    recipe's share validates, and the rest trains. See `folds` for how they are drawn. Where another process
    has begun the same cross-validation there, this one joins it.

    Args:
        recipe: of every fold; its time budget is that of the whole call.
        data: modality → folder of its data set, or `Sources` with more to say of them.
        out: the folder; new, empty or with the same cross-validation.
        folds: how many; None to leave out one patient in each.
        fold: train this one only, counted from 1.
        store: the prepared store; None for the one in the user's cache.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        monitor: called after every step and every validation.
        tell: called with a sentence before every fold, and as `resume_folds` says.
        foretell: told before the first step of every fold what that fold will take; see `train.train`.

    Returns:
        Whether all that was asked for is trained, and if not, why.

    Raises:
        RunError: `out` holds something else or cannot be written, there is no such fold, another process
            trains it, or a loss is not finite any more.
        DataError: data that cannot be used, too few patients or tumours for so many folds, or a fold that
            would train without any pixel of some class.
        RecipeError: an unknown loss or network, arguments that they do not take, or no such device.
    """
    entered = time.monotonic()
    check_alone(TOGETHER)
    check_recipe(recipe)
    sources = Sources.of(data)
    if recipe.split.labelled < 1 or recipe.training.unlabelled.weight > 0 or sources.unlabelled:
        raise RecipeError(NOT_UNLABELLED)
    check_stated(recipe, sources.licences, sources.origins)
    store = store or training_data.default_store()
    if not is_cross_validation(out):
        new_folder(out, "The folder of the folds")
    with filled(out):
        prepared, records = training_data.load_all(
            recipe, sources, store, workers=workers, progress=prepare_progress
        )
        splits = drawing.draw(prepared, folds, recipe.split.validation, recipe.training.seed)
        _chosen(fold, len(splits))
        class_presence.check_folds(prepared, splits, recipe.classes)
        if not is_cross_validation(out):
            with atomic_folder(out) as unfinished:
                _write(unfinished, recipe, records, splits, prepared)
    _check_same(out, recipe, records, splits)
    return resume_folds(
        out,
        fold=fold,
        store=store,
        max_minutes=recipe.training.max_minutes,
        workers=workers,
        prepare_progress=prepare_progress,
        monitor=monitor,
        licences=sources.licences,
        origins=sources.origins,
        tell=tell,
        foretell=foretell,
        entered=entered,
    )


def resume_folds(
    out: Path,
    *,
    fold: int | None = None,
    data: Mapping[str, Path] | None = None,
    store: Path | None = None,
    max_minutes: float | Literal["recipe"] | None = "recipe",
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    licences: Mapping[str, str] = MappingProxyType({}),
    origins: Mapping[str, str] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
    entered: float | None = None,
) -> Outcome:
    """Go on with the folds that are not finished and that no other process is training.

    Args:
        out: the folder of the cross-validation.
        fold: train this one only, counted from 1.
        data: modality → where the same data lie now, which the folder and all folds then say; those left out
            lie where they did.
        store: see `train_folds`.
        max_minutes: budget for this call; None for no end, "recipe" for the one in the recipe.
        workers: see `train_folds`.
        prepare_progress: see `train_folds`.
        monitor: see `train_folds`.
        licences: see `Sources`; they replace what was stated before, of every fold.
        origins: likewise.
        tell: called with a sentence before every fold, for one that another process is training, and with
            what `train.resume` warns of.
        foretell: see `train_folds`.
        entered: when the budget began, by `time.monotonic`; None for now.

    Returns:
        Whether all that was asked for is trained, and if not, why.

    Raises:
        RunError: as `train.resume`; no cross-validation, no such fold, or another process trains the fold
            that was asked for.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    entered = time.monotonic() if entered is None else entered
    check_alone(TOGETHER)
    folder = FoldsFolder(out)
    runs = folder.runs()
    chosen = _chosen(fold, len(runs))
    if data:
        _move(out, runs, data, store or training_data.default_store(), workers, prepare_progress)
    _state(out, runs, licences, origins)
    minutes = RunFolder(out).recipe().training.max_minutes if max_minutes == "recipe" else max_minutes
    go_on = partial(
        resume,
        store=store,
        max_minutes=minutes,
        workers=workers,
        prepare_progress=prepare_progress,
        monitor=monitor,
        warn=tell,
        foretell=foretell,
        entered=entered,
    )
    stop = ""
    try:
        with orderly_termination():
            for number in chosen:
                run = runs[number - 1]
                if stop or run.is_finished():
                    continue
                tell(f"fold {number} of {len(runs)}: {run.path}")
                outcome = _trained(go_on, run, tell if fold is None else None)
                stop = "" if outcome is None else _before_next(outcome, entered, minutes)
    except KeyboardInterrupt as asked:  # not within training, which stops by itself
        stop = received(name_of(asked))
    left = [str(number) for number in chosen if not runs[number - 1].is_finished()]
    if left:
        return Outcome(out, False, stop or f"other processes are training {_folds(left)}")
    return Outcome(out, True, f"{_folds([str(number) for number in chosen])} of {len(runs)} done")


def _trained(
    go_on: Callable[[Path], Outcome], run: RunFolder, tell: Callable[[str], None] | None
) -> Outcome | None:
    """How one fold ended; None where another process trains it, which is told, or else an error."""
    try:
        return go_on(run.path)
    except Locked as busy:
        if tell is None:
            raise
        tell(str(busy))
        return None


def _before_next(outcome: Outcome, entered: float, minutes: float | None) -> str:
    """Why no other fold is to be begun after this one; empty for going on."""
    if not outcome.finished:
        return outcome.reason
    if outcome.too_late:
        return received(outcome.too_late)
    if minutes is not None and time.monotonic() - entered > minutes * 60:
        return spent(minutes)
    return ""


def _state(
    out: Path, runs: Sequence[RunFolder], licences: Mapping[str, str], origins: Mapping[str, str]
) -> None:
    """Keep what the user says of the data in the records of all folds."""
    if not licences and not origins:
        return
    check_stated(RunFolder(out).recipe(), licences, origins)
    for run in (RunFolder(out), *runs):
        run.write_data(stated(run.data(), licences, origins))


def _move(
    out: Path,
    runs: Sequence[RunFolder],
    data: Mapping[str, Path],
    store: Path,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Keep where the data lie now in the records of all folds, once they are found to be the same."""
    whole = RunFolder(out)
    before = whole.data()
    records = moved(before, data)
    if records == before:
        return
    check_there(records)
    # of a cascade's first stage some patients of the data set are in no fold
    tested = {
        name: [
            case for split in FoldsFolder(out).splits() for of in split[name]["test"].values() for case in of
        ]
        for name in records
    }
    sources = replace(Sources.of_records(records), cases=tested)
    _, found = training_data.load_all(whole.recipe(), sources, store, workers=workers, progress=progress)
    training_data.check_unchanged(before, found, out, "a resumed cross-validation")
    for run in (whole, *runs):
        run.write_data(moved(run.data(), data))


def _folds(numbers: Sequence[str]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _chosen(fold: int | None, count: int) -> list[int]:
    if fold is not None and not 1 <= fold <= count:
        raise RunError(f"There is no fold {fold}; expected one from 1 to {count}.")
    return list(range(1, count + 1)) if fold is None else [fold]


def _write(
    out: Path,
    recipe: Recipe,
    records: Mapping[str, Any],
    splits: Sequence[drawing.Split],
    prepared: drawing.Cases,
) -> None:
    """Everything but weights: every fold is a run that was not begun."""
    RunFolder(out).write_recipe(recipe)
    RunFolder(out).write_data(dict(records))
    folder = FoldsFolder(out)
    for number, split in enumerate(splits, 1):
        run = folder.run(number)
        run.write_recipe(recipe)
        run.write_split(recipe.training.seed, split)
        run.write_data(
            {
                name: training_data.record_of_part(record, _seen(prepared[name], split[name]))
                for name, record in records.items()
            }
        )
    folder.write_splits(recipe.training.seed, splits)


def _seen(cases: Sequence[Prepared], parts: Mapping[str, Any]) -> list[Prepared]:
    """Those that training sees, in its order."""
    return [case for part in ("train", "validation") for case in cases if case.patient in parts[part]]


def _check_same(
    out: Path, recipe: Recipe, records: Mapping[str, Any], splits: Sequence[drawing.Split]
) -> None:
    """What lies there must be what was asked for, whoever wrote it; only the time budget may differ."""
    run = RunFolder(out)
    kept, wanted = (one.with_changes({"training.max_minutes": None}) for one in (run.recipe(), recipe))
    differs = {
        "another recipe": kept != wanted,
        "other data": run.data().keys() != records.keys()
        or not all(training_data.unchanged(record, records[name]) for name, record in run.data().items()),
        "other folds": FoldsFolder(out).splits() != list(splits),
    }
    if names := [name for name, other in differs.items() if other]:
        raise RunError(
            f"{out} holds a cross-validation with {' and '.join(names)}; expected the same. Go on with it "
            f"by `oncoseg train --resume --out {out}`, or choose another folder."
        )
