"""Training a cascade: a cross-validation that finds an organ, then a run on what lies in its boxes.

No box that stage 2 is trained on comes from a network that has seen its patient: each is of the one fold that
left the patient out. Boxes of new patients are of all folds together, and where nothing is found nothing is
marked, while training takes the whole image; see docs/cascade.md.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from oncoseg.cascade_folder import CascadeFolder, Found, missed_in_words
from oncoseg.cross_validate import resume_folds, train_folds
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError, OncosegError, RecipeError, RunError, nearest
from oncoseg.files import atomic_folder, filled, new_folder
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.locks import locked
from oncoseg.predict import Predictor
from oncoseg.prepare import Progress, Settings, read_truth
from oncoseg.recipe import Cascade, Recipe
from oncoseg.regions import slices_of, whole
from oncoseg.run_folder import RunFolder
from oncoseg.split import from_json, read_split
from oncoseg.stopping import name_of, orderly_termination
from oncoseg.train import check_recipe, resume, train
from oncoseg.training import data as training_data
from oncoseg.training.ranks import check_alone
from oncoseg.training.sources import (
    Data,
    Opened,
    Sources,
    check_modalities,
    check_stated,
    check_there,
    moved,
    stated,
)
from oncoseg.training.status import Outcome, Status, received, spent

TOGETHER = "A cascade"
"""Begins the sentence where several processes would share the batches of its stages."""

NOT_UNLABELLED = (
    "A cascade learns from masks only, in both stages; got {what}. Leave that out, or train one run, without "
    "--cascade.organ."
)
"""Said where scans without a mask are to be learnt from."""

DONE = "both stages are done"
"""Why a cascade's training ended."""


def stages(recipe: Recipe) -> tuple[Recipe, Recipe]:
    """The recipes of both stages, each of which is an ordinary one.

    Stage 1 knows one class, the organ with all that lies in it; class weights of its losses, which are of
    several classes, are left out. Stage 2 is the recipe itself.

    Raises:
        RecipeError: there is no cascade, or stage 1 has an unknown field.
    """
    chosen = recipe.cascade
    if chosen.organ is None:
        raise RecipeError("The recipe is of a single stage; expected cascade.organ, such as liver.")
    second = recipe.with_changes({"cascade": Cascade().model_dump(mode="json")})
    own = recipe.classes.get(chosen.organ, (chosen.organ,))
    joined = dict.fromkeys([*own, *(label for labels in recipe.classes.values() for label in labels)])
    changes: dict[str, Any] = {"classes": {chosen.organ: list(joined)}, "published": []}
    changes["training.tumour_class"] = None
    for name, modality in recipe.modalities.items():
        arguments = {key: value for key, value in modality.loss.arguments.items() if key != "class_weights"}
        changes[f"modalities.{name}.loss.arguments"] = arguments
    return second.with_changes(changes).with_changes(chosen.first), second


def train_cascade(
    recipe: Recipe,
    data: Data,
    out: Path,
    *,
    store: Path | None = None,
    split_file: Path | None = None,
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    box_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
) -> Outcome:
    """Train both stages of a recipe with `cascade.organ` into a new folder.

    The patients under test are in no fold of stage 1. Stopped at any point, `resume_cascade` goes on.

    Args:
        recipe: of the whole; its time budget is that of the whole call.
        data: modality → folder of its data set, or `Sources` with more to say of them.
        out: the folder; new or empty.
        store: the prepared store; None for the one in the user's cache.
        split_file: see `train.train`.
        workers: processes for preparing, see `prepare`.
        prepare_progress: called with (cases done, cases in all).
        box_progress: likewise, while stage 1 finds the boxes.
        monitor: called after every step and every validation.
        tell: called before each part of the work, with what stage 1 did not find, and as by `resume_folds`.
        foretell: told before the first step of every fold, and of stage 2, what that will take.

    Raises:
        RunError: `out` holds something or cannot be written, or a loss is not finite any more.
        DataError: data that cannot be used, too few patients, or a modality without the organ's label.
        RecipeError: an unknown loss or network, arguments that they do not take, no such device, or scans
            without a mask to be learnt from.
    """
    entered = time.monotonic()
    check_alone(TOGETHER)
    sources = Sources.of(data)
    first, second = stages(recipe)
    for stage in (second, first):
        _check_masks_only(stage, sources)
    check_recipe(first)
    check_recipe(second)
    check_modalities(recipe, sources.folders)
    check_stated(recipe, sources.licences, sources.origins)
    given = read_split(split_file, tuple(recipe.modalities)) if split_file else None
    new_folder(out, "The folder of the cascade")
    with filled(out):
        looked_at = replace(sources, opened=partial(_look_for_organ, recipe, sources.opened))
        split, records = training_data.divide(recipe, looked_at, split=given, progress=prepare_progress)
        _check_patients(split, recipe.cascade.folds)
        with atomic_folder(out) as unfinished:
            run = RunFolder(unfinished)
            run.write_recipe(recipe)
            run.write_split(recipe.training.seed, split)
            run.write_data(sources.stated_in(records))
            CascadeFolder(unfinished).write_found({})
    try:
        return resume_cascade(
            out,
            store=store,
            max_minutes=recipe.training.max_minutes,
            workers=workers,
            prepare_progress=prepare_progress,
            box_progress=box_progress,
            monitor=monitor,
            tell=tell,
            foretell=foretell,
            entered=entered,
        )
    except OncosegError:
        if not is_cross_validation(CascadeFolder(out).first):  # nothing was trained: the data are at fault
            shutil.rmtree(out, ignore_errors=True)
        raise


def resume_cascade(
    out: Path,
    *,
    store: Path | None = None,
    max_minutes: float | Literal["recipe"] | None = "recipe",
    workers: int | None = None,
    prepare_progress: Progress | None = None,
    box_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    data: Mapping[str, Path] | None = None,
    licences: Mapping[str, str] = MappingProxyType({}),
    origins: Mapping[str, str] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
    entered: float | None = None,
) -> Outcome:
    """Go on with a cascade, wherever it was stopped; see `train_cascade`.

    Args:
        out: the folder of the cascade.
        store: see `train_cascade`.
        max_minutes: budget for this call; None for no end, "recipe" for the one in the recipe.
        workers: see `train_cascade`.
        prepare_progress: see `train_cascade`.
        box_progress: see `train_cascade`.
        monitor: see `train_cascade`.
        data: modality → where the same data lie now, which both stages then say.
        licences: see `Sources`; they replace what was stated before.
        origins: likewise.
        tell: see `train_cascade`.
        foretell: see `train_cascade`.
        entered: when the budget began, by `time.monotonic`; None for now.

    Raises:
        Locked: another process is training it.
        RunError: as `train.resume`; no cascade, or its data are others than those that stage 1 has seen.
        DataError: data that cannot be used any more.
        RecipeError: no such device here.
    """
    entered = time.monotonic() if entered is None else entered
    check_alone(TOGETHER)
    run = RunFolder(out)
    recipe = run.recipe()
    minutes = recipe.training.max_minutes if max_minutes == "recipe" else max_minutes
    check_stated(recipe, licences, origins)
    options: dict[str, Any] = {
        "store": store,
        "workers": workers,
        "prepare_progress": prepare_progress,
        "monitor": monitor,
        "foretell": foretell,
    }
    again = {"max_minutes": minutes, "licences": licences, "origins": origins, "data": data}
    work = _Work(CascadeFolder(out), recipe, minutes, entered, tell, options, again)
    if CascadeFolder(out).is_finished() and not (licences or origins or data):
        work.warn()
        return Outcome(out, True, DONE)
    with locked(run.lock, f"The cascade {out}"):
        records = stated(moved(run.data(), data or {}), licences, origins)
        try:
            with orderly_termination():
                stopped = (
                    work.take_over(records)
                    or work.find_organ()
                    or work.find_boxes(box_progress or (lambda done, total: None))
                    or work.look_inside()
                )
        except KeyboardInterrupt as asked:  # not within training, which stops by itself
            stopped = received(name_of(asked))
    if not stopped:
        work.warn()
    return Outcome(out, not stopped, stopped or DONE)


@dataclass(frozen=True)
class _Work:
    """The parts of the work; each says why it stopped, or nothing where it is done."""

    folder: CascadeFolder
    recipe: Recipe
    minutes: float | None
    entered: float
    tell: Callable[[str], None]
    options: Mapping[str, Any]
    again: Mapping[str, Any]

    def take_over(self, records: Mapping[str, Any]) -> str:
        """Keep where the data lie now; of data that lie elsewhere, once they are found to be the same."""
        if self.again["data"]:
            self._check_same(records)
        RunFolder(self.folder.path).write_data(dict(records))
        return ""

    def find_organ(self) -> str:
        """Train stage 1."""
        out, chosen = self.folder.first, self.recipe.cascade
        self.tell(f"stage 1: {chosen.organ} in the whole image, {chosen.folds} networks")
        common = {**self.options, "tell": self.tell}
        if is_cross_validation(out):
            return _before_next(resume_folds(out, entered=self.entered, **self.again, **common))
        recipe = stages(self.recipe)[0].with_changes({"training.max_minutes": self.minutes})
        sources = replace(self._sources(), cases=self._seen())
        return _before_next(train_folds(recipe, sources, out, chosen.folds, **common))

    def find_boxes(self, progress: Progress) -> str:
        """Let each fold of stage 1 look at the patients that it left out; keeps every box at once."""
        found, todo = self.folder.found(), self._cases()
        total, done = sum(map(len, todo.values())), sum(map(len, found.values()))
        if done < total and not self._over():
            self._check_same(RunFolder(self.folder.path).data())
            self.tell(f"the boxes: {total - done} cases, each by a network that has not seen the patient")
        for fold, cases in todo.items():
            left = [(name, case) for name, case in cases if case.id not in found.get(name, {})]
            if not left:
                continue
            predictor = Predictor.load(FoldsFolder(self.folder.first).run(fold).path)
            for name, case in left:
                if self._over():
                    return spent(self.minutes or 0)
                progress(done, total)
                found.setdefault(name, {})[case.id] = self._found(predictor, name, case, fold)
                self.folder.write_found(found)
                done += 1
        progress(done, total)
        self.tell(in_words(found, self.recipe.cascade.organ or ""))
        return ""

    def look_inside(self) -> str:
        """Train stage 2."""
        run, whole_run = self.folder.second, RunFolder(self.folder.path)
        if run.is_finished():
            return ""
        begun = (run.path / "data.json").is_file()
        if not begun:  # else its own data are compared when it goes on
            self._check_same(whole_run.data())
        self.tell("stage 2: all classes, in the boxes")
        common = {**self.options, "entered": self.entered, "warn": self.tell}
        if begun:
            return _unfinished(resume(run.path, **self.again, **common))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(run.path)  # of a process that was killed before it began to train
        found = self.folder.found()
        boxes = {name: {case: one.box for case, one in of.items()} for name, of in found.items()}
        recipe = stages(self.recipe)[1].with_changes({"training.max_minutes": self.minutes})
        sources, split = replace(self._sources(), boxes=boxes), self.folder.path / "split.json"
        try:
            return _unfinished(train(recipe, sources, run.path, split_file=split, **common))
        except DataError as error:
            raise DataError(_of_boxes(error, found, self.recipe.cascade.organ or "")) from error
        finally:
            if (run.path / "data.json").is_file():  # what it knows of the prepared cases, too
                records = {name: dict(record) for name, record in run.data().items()}
                for record in records.values():
                    record.pop("boxes", None)
                whole_run.write_data(records)

    def warn(self) -> None:
        """Tell, at the end, in how many cases stage 1 missed the organ; nothing where that is not known."""
        with contextlib.suppress(RunError):
            if text := missed_in_words(self.folder.found(), self.recipe.cascade.organ or ""):
                self.tell(text)

    def _check_same(self, records: Mapping[str, Any]) -> None:
        """Compare the data with those that stage 1 has learnt from, where it has begun.

        Raises:
            RunError: they are others.
            DataError: they cannot be used any more.
        """
        if not is_cross_validation(self.folder.first):
            return
        check_there(records)
        first = RunFolder(self.folder.first)
        _, now = training_data.load_all(
            first.recipe(),
            replace(Sources.of_records(records), cases=self._seen()),
            self.options["store"] or training_data.default_store(),
            workers=self.options["workers"],
            progress=self.options["prepare_progress"],
        )
        training_data.check_unchanged(first.data(), now, self.folder.path, "a cascade")

    def _seen(self) -> dict[str, list[str]]:
        """Modality → ids of the training and validation cases."""
        return {
            name: [case for part in ("train", "validation") for of in parts[part].values() for case in of]
            for name, parts in RunFolder(self.folder.path).split().items()
        }

    def _found(self, predictor: Predictor, modality: str, case: Case, fold: int) -> Found:
        box, like = predictor.find(case, modality, self.recipe.cascade.margin_mm)
        of = self.recipe.modalities[modality]
        settings = Settings.of(of, self.recipe.classes, self.recipe.preparation)
        truth = read_truth(case, settings, like) > 0
        used = whole(truth.shape) if box is None else box
        voxels = int(np.count_nonzero(truth))
        inside = int(np.count_nonzero(truth[slices_of(used)]))
        return Found(fold, used, box is not None, voxels, voxels - inside)

    def _cases(self) -> dict[int, list[tuple[str, Case]]]:
        """Fold of stage 1, from 1 → (modality, case) of the patients that it left out."""
        known = {
            name: open_dataset(Path(record["path"]), record["layout"], channels=record.get("channels")).cases
            for name, record in RunFolder(self.folder.path).data().items()
        }
        return {
            number: [
                (name, case)
                for name, parts in split.items()
                for case in from_json({"test": parts["test"]}, known[name])["test"]
            ]
            for number, split in enumerate(FoldsFolder(self.folder.first).splits(), 1)
        }

    def _sources(self) -> Sources:
        return Sources.of_records(RunFolder(self.folder.path).data())

    def _over(self) -> bool:
        return self.minutes is not None and time.monotonic() - self.entered > self.minutes * 60


def _before_next(outcome: Outcome) -> str:
    """Why nothing else is to be begun after a part of the work; empty for going on."""
    return received(outcome.too_late) if outcome.finished and outcome.too_late else _unfinished(outcome)


def _unfinished(outcome: Outcome) -> str:
    return "" if outcome.finished else outcome.reason


def in_words(found: Mapping[str, Mapping[str, Found]], organ: str) -> str:
    """What the boxes of stage 1 hold of the truth."""
    every = [one for of in found.values() for one in of.values()]
    missed = sum(not one.organ_found for one in every)
    outside, voxels = sum(one.truth_outside for one in every), sum(one.truth_voxels for one in every)
    share = outside / voxels if voxels else 0
    text = f"boxes of {len(every)} cases; {outside} of {voxels} true voxels ({share:.2%}) lie outside of them"
    if not missed:
        return text
    return f"{text}; no {organ} was found in {missed} cases, of which stage 2 sees the whole image"


def _of_boxes(error: DataError, found: Mapping[str, Mapping[str, Found]], organ: str) -> str:
    """What is wrong with the cases of stage 2, which may be due to their boxes."""
    if not any(one.truth_outside for of in found.values() for one in of.values()):
        return str(error)
    return (
        f"{error} That may be due to stage 1 ({in_words(found, organ)}): try a larger --cascade.margin-mm, "
        "or train stage 1 for longer (--cascade.first), in a new folder."
    )


def _check_masks_only(stage: Recipe, sources: Sources) -> None:
    wanted = {
        "training.unlabelled.weight": stage.training.unlabelled.weight > 0,
        "split.labelled below 1": stage.split.labelled < 1,
        "scans without masks (--unlabelled)": bool(sources.unlabelled),
    }
    if what := [name for name, given in wanted.items() if given]:
        raise RecipeError(NOT_UNLABELLED.format(what=" and ".join(what)))


def _look_for_organ(recipe: Recipe, opened: Opened | None, modality: str, scan: Scan) -> None:
    """Pass on what was found in a data set, if some of its labels are of the organ.

    Stage 1 takes the tumours for a part of the organ, and would find them alone where the organ has no label.

    Raises:
        DataError: none is.
    """
    if opened is not None:
        opened(modality, scan)
    organ = recipe.cascade.organ or ""
    wanted = recipe.classes.get(organ, (organ,))
    known = dict.fromkeys(label for case in scan.cases if case.masks for label in case.labels.values())
    if known and "*" not in wanted and known.keys().isdisjoint(wanted):
        raise DataError(
            f"{modality}: no case has the label {wanted[0]!r}; {nearest(wanted[0].casefold(), known)} "
            "Name the organ with --cascade.organ."
        )


def _check_patients(split: Mapping[str, Any], folds: int) -> None:
    patients = {
        patient
        for parts in split.values()
        for part in ("train", "validation")
        for patient in parts.get(part, {})
    }
    if len(patients) < folds:
        raise DataError(
            f"The first stage needs a patient for each of its {folds} folds; got {len(patients)} under train "
            "and validation. Take fewer folds with --cascade.folds, or add patients."
        )
