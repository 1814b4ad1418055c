"""Training a study: ordinary runs, each evaluated at once, one after the other or in several processes."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Problem, Scan
from oncoseg.datasets.left_out import without_large
from oncoseg.errors import DataError, RunError, nearest
from oncoseg.evaluate.run import evaluate_run, is_evaluated
from oncoseg.files import atomic_folder, filled, new_folder, read_json, write_json
from oncoseg.locks import Locked, locked
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.split import from_json, read_split, split_patients, to_json
from oncoseg.stopping import name_of, orderly_termination
from oncoseg.studies.study import Run, Study
from oncoseg.study_folder import StudyFolder, is_done, is_study, minutes_spent
from oncoseg.train import check_recipe, resume
from oncoseg.training import data as training_data
from oncoseg.training.ranks import check_alone
from oncoseg.training.sources import Data, Sources
from oncoseg.training.status import Outcome, Status, received, spent

TOGETHER = "A study"
"""Begins the sentence where several processes would share the batches of its runs."""

SIDE = "test"
"""On which all runs are evaluated."""

SHORTEST = 1e-6
"""Minutes of a budget that is spent: training takes no 0."""

TIMING_FILE = "timing.json"
"""Beside an evaluation: how long its predictions took."""


class Teller(NamedTuple):
    """Who is told how it goes; of all, nobody unless named.

    Attributes:
        preparing: called with (cases done, cases in all).
        monitor: called after every step and every validation.
        evaluating: gives, for each run anew, what is called with (cases done, cases in all).
        tell: called with a sentence before every run, and for one that another process works on.
        foretell: told before the first step of every run what it will take; see `train.train`.
    """

    preparing: Progress | None = None
    monitor: Callable[[Status], None] | None = None
    evaluating: Callable[[], AbstractContextManager[Progress | None]] = contextlib.nullcontext
    tell: Callable[[str], None] = lambda _: None
    foretell: Callable[[str], None] | None = None


SILENT = Teller()
"""Nobody is told anything."""


def train_study(
    study: Study,
    data: Data,
    out: Path,
    *,
    groups: Sequence[str] = (),
    variants: Sequence[str] = (),
    store: Path | None = None,
    split_file: Path | None = None,
    max_minutes: float | None = None,
    workers: int | None = None,
    teller: Teller = SILENT,
) -> Outcome:
    """Train every run of a study on the same patients, and evaluate each on the test side.

    The runs are run folders below OUT/runs like any other. Where the study was begun there before, this goes
    on with it, or joins the processes that work on it: runs that are done are not trained again.

    Args:
        study: complete, with all changes.
        data: modality → folder of its data set, or `Sources` with more to say of them.
        out: the folder; new, empty or with the same study.
        groups: train the runs of these only; none named for all.
        variants: likewise.
        store: the prepared store; None for the one in the user's cache.
        split_file: sides to use instead of drawing them; see `split.read_split`.
        max_minutes: budget of this call, preparing and evaluating included; None for no end.
        workers: processes for preparing, see `prepare`.
        teller: told how it goes.

    Returns:
        Whether all runs that were asked for are trained and evaluated, and if not, why.

    Raises:
        RunError: `out` holds something else or another study, the data have changed since it was begun, or a
            loss is not finite any more.
        DataError: data that cannot be used, or a split without anybody to test.
        RecipeError: runs that cannot be, see `Study.runs`; an unknown network, or no such device.
    """
    entered = time.monotonic()
    check_alone(TOGETHER)
    chosen = study.runs(groups, variants)
    store, folder = store or training_data.default_store(), StudyFolder(out)
    sources = Sources.of(data)
    for run in chosen:
        check_recipe(run.recipe)
    if not is_study(out):
        given = read_split(split_file, sorted(_modalities(study.runs()))) if split_file else None
        _check_sources(study, chosen, sources)
        _begin(study, sources, out, given, teller)
    _check_same(folder, study, sources.folders)  # another process may have begun it meanwhile
    _lay_out(folder, chosen, _told_once(folder, sources), store, workers, teller)
    try:
        with orderly_termination():
            return _go_on(folder, study, chosen, entered, store, max_minutes, workers, teller)
    except KeyboardInterrupt as asked:  # not within training, which stops by itself
        return Outcome(out, False, received(name_of(asked)))


def resume_study(
    out: Path,
    *,
    groups: Sequence[str] = (),
    variants: Sequence[str] = (),
    store: Path | None = None,
    max_minutes: float | None = None,
    workers: int | None = None,
    teller: Teller = SILENT,
) -> Outcome:
    """Go on with a study that was begun, on its own data; arguments and errors as of `train_study`."""
    folder = StudyFolder(out)
    return train_study(
        folder.study(),
        Sources.of_records(folder.data()),
        out,
        groups=groups,
        variants=variants,
        store=store,
        max_minutes=max_minutes,
        workers=workers,
        teller=teller,
    )


def _modalities(runs: Sequence[Run]) -> set[str]:
    return {name for run in runs for name in run.recipe.modalities}


# beginning ------------------------------------------------------------------------------------


def _check_sources(study: Study, chosen: Sequence[Run], sources: Sources) -> None:
    """Check that what is said of data is about the study's modalities, and that the chosen runs have theirs.

    Raises:
        DataError: it is about another, or one is missing.
    """
    known = sorted(_modalities(study.runs()))
    for name in sorted({*sources.folders, *sources.licences, *sources.origins} - set(known)):
        raise DataError(f"No run of {study.name} has a modality {name!r}; {nearest(name, known)}")
    _check_given(_modalities(chosen), sources.folders)


def _begin(
    study: Study, sources: Sources, out: Path, given: Mapping[str, Any] | None, teller: Teller
) -> None:
    """Draw the sides and write the study's own files."""
    new_folder(out, "The study's folder")
    with filled(out):
        split = _draw(study, sources, given, teller)
        with atomic_folder(out) as unfinished:
            folder = StudyFolder(unfinished)
            first = study.runs()[0].recipe
            RunFolder(unfinished).write_split(first.training.seed, split)
            folder.write_data(sources.stated_in(_records(sources)))
            folder.write_study(study)


def _records(sources: Sources) -> dict[str, dict[str, Any]]:
    """What `StudyFolder.data` describes, but for what the user states."""
    return {
        name: {
            "path": str(Path(path).resolve()),
            "channels": dict(sources.channels.get(name, {})),
            "accept_implausible": sources.accept_implausible,
        }
        for name, path in sources.folders.items()
    }


def _draw(study: Study, sources: Sources, given: Mapping[str, Any] | None, teller: Teller) -> dict[str, Any]:
    """One split for all runs, as `train` would draw it for the first; a patient keeps the side."""
    runs = study.runs()
    shares, seed = runs[0].recipe.split, runs[0].recipe.training.seed
    limits = {name: of.max_slices for run in runs for name, of in run.recipe.modalities.items()}
    split: dict[str, Any] = {}
    known: dict[str, str] = {}
    for name, path in sources.folders.items():
        scan = open_dataset(path, channels=sources.channels.get(name), progress=teller.preparing)
        scan = without_large(scan, limits[name])
        if given is None:
            cases = [case for case in scan.cases if case.masks]
            sides = split_patients(cases, shares.train, shares.validation, seed, known)
        else:
            sides = from_json(given.get(name, {}), scan.cases)
        known |= {case.patient: part for part, cases in sides.items() for case in cases}
        split[name] = to_json(sides)
    if not any(sides.get(SIDE) for sides in split.values()):
        raise DataError(
            "The split has no patient under test; expected at least one, to compare the networks on. Give "
            "another --split, or let it be drawn."
        )
    return split


def _check_same(folder: StudyFolder, study: Study, data: Mapping[str, Path]) -> None:
    """Check that what was asked for is what lies there.

    Raises:
        RunError: other runs, settings or data sets; names the first difference.
    """
    kept = folder.study()
    hint = f"Go on with it by `oncoseg study --resume --out {folder.path}`, or choose another folder."
    before, now = ({run.name: run.recipe for run in one.runs()} for one in (kept, study))
    if list(before) != list(now):
        raise RunError(
            f"{folder.path} holds a study of {'; '.join(before)}, not of {'; '.join(now)}; expected the "
            f"same. {hint}"
        )
    for name, recipe in now.items():
        if differs := _first_difference(before[name], recipe):
            raise RunError(f"{folder.path} was begun with other settings: {name}: {differs}. {hint}")
    if kept.minutes_each != study.minutes_each:
        raise RunError(
            f"{folder.path} was begun with other settings: minutes_each was {kept.minutes_each}, is now "
            f"{study.minutes_each}. {hint}"
        )
    for name, path in data.items():
        source = folder.data().get(name, {"path": "no data"})
        if source["path"] != str(path.resolve()):
            raise RunError(
                f"{folder.path} was begun on {source['path']} for {name}, not on {path}; expected the same. "
                f"{hint}"
            )


def _first_difference(before: Recipe, now: Recipe) -> str:
    one, other = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    for name in dict.fromkeys([*one, *other]):
        if not name.startswith(("title", "published", "deviations")) and one.get(name) != other.get(name):
            return f"`{name}` was {one.get(name)}, is now {other.get(name)}"
    return ""


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {path: values}
    return {
        name: value
        for key, of in values.items()
        for name, value in _flat(of, f"{path}.{key}" if path else key).items()
    }


def _lay_out(
    folder: StudyFolder,
    runs: Sequence[Run],
    sources: Sources,
    store: Path,
    workers: int | None,
    teller: Teller,
) -> None:
    """Make a run folder that was not begun for every run; those that are there must be of the same data.

    Runs with the same preparation share it. So preparing does not count for any run's share of time.

    Raises:
        RunError: data that have changed.
    """
    split = folder.split()
    records: dict[str, dict[str, Any]] = {}
    for run in runs:
        recipe = run.recipe
        key = _prepared_by(recipe).to_json()
        if key not in records:
            records[key] = _record(recipe, sources, split, store, workers, teller)
        where, record = folder.run(run), records[key]
        if not where.path.exists():
            with atomic_folder(where.path) as unfinished:
                written = RunFolder(unfinished)
                written.write_recipe(recipe)
                written.write_split(recipe.training.seed, {name: split[name] for name in recipe.modalities})
                written.write_data(record)
        for name, now in record.items():
            if where.data()[name]["fingerprint"] != now["fingerprint"]:
                raise RunError(
                    f"The {name} data at {now['path']} have changed since {folder.path} was begun; all runs "
                    "of a study must see the same data. Restore them, or begin a new study."
                )


def _told_once(folder: StudyFolder, sources: Sources) -> Sources:
    """The study's own sources, of which the caller is told each thing once, though several runs open them."""
    said: set[str] = set()

    def remark(name: str, problems: Sequence[Problem]) -> None:
        new = [one for one in problems if f"{name} {one.message}" not in said]
        said.update(f"{name} {one.message}" for one in new)
        if new and sources.remark is not None:
            sources.remark(name, new)

    def opened(name: str, scan: Scan) -> None:
        if name not in said and sources.opened is not None:
            said.add(name)
            sources.opened(name, scan)

    return replace(Sources.of_records(folder.data()), remark=remark, opened=opened)


def _prepared_by(recipe: Recipe) -> Recipe:
    """The recipe with nothing of its own but what decides the prepared data, and the checks of them."""
    plain = {"title": "", "deviations": (), "published": (), "name": ""}
    network = type(recipe.network)()
    training = type(recipe.training)(balance=recipe.training.balance)
    return recipe.model_copy(update=plain | {"network": network, "training": training})


def _check_given(modalities: Iterable[str], sources: Mapping[str, Any]) -> None:
    """Check that a study was begun with the data that a run needs.

    Raises:
        DataError: it was not.
    """
    if missing := sorted(set(modalities) - set(sources)):
        raise DataError(
            f"The study needs data for {' and '.join(missing)}; expected "
            f"{' '.join(f'--data {name}=PATH' for name in missing)} when it is begun. Begin a new study with "
            "it, or leave out the runs that need it with --only-group."
        )


def _record(
    recipe: Recipe,
    sources: Sources,
    split: Mapping[str, Any],
    store: Path,
    workers: int | None,
    teller: Teller,
) -> dict[str, Any]:
    """The record of a recipe's data for its run folders; prepares them."""
    _check_given(recipe.modalities, sources.folders)
    used = replace(sources, folders={name: sources.folders[name] for name in recipe.modalities})
    loaded = training_data.load(
        recipe,
        used,
        store,
        split={name: split[name] for name in recipe.modalities},
        workers=workers,
        progress=teller.preparing,
    )
    return used.stated_in(loaded.data)


# going on -------------------------------------------------------------------------------------


def _go_on(
    folder: StudyFolder,
    study: Study,
    runs: Sequence[Run],
    entered: float,
    store: Path,
    max_minutes: float | None,
    workers: int | None,
    teller: Teller,
) -> Outcome:
    budget = _Budget(entered, max_minutes)
    over = Outcome(folder.path, False, spent(max_minutes or 0))
    for number, run in enumerate(runs, 1):
        where = folder.run(run)
        try:
            while not is_done(where, study.minutes_each):
                if budget.is_spent():
                    return over
                teller.tell(f"run {number} of {len(runs)}: {run.name}")
                minutes = _least(budget.left(), study.minutes_each, where)
                outcome = _train(where, minutes, store, workers, teller)
                if outcome.too_late:
                    return Outcome(folder.path, False, received(outcome.too_late))
                if not outcome.finished and outcome.reason != spent(minutes or 0):
                    return outcome._replace(run=folder.path)
            if is_evaluated(where.path, SIDE) and (where.path / "evaluation" / SIDE / TIMING_FILE).is_file():
                continue
            if budget.is_spent():
                return over
            _evaluate(where, run, study, teller)
        except Locked:
            teller.tell(f"{run.name}: another process works on it")
    left_over = [run.name for run in runs if not is_complete(folder, study, run)]
    if left_over:
        return Outcome(folder.path, False, f"other processes work on {'; '.join(left_over)}")
    return Outcome(folder.path, True, f"{len(runs)} of {len(study.runs())} runs are trained and evaluated")


def is_complete(folder: StudyFolder, study: Study, run: Run) -> bool:
    """Whether a run is trained and evaluated, and how long its predictions took is known."""
    where = folder.run(run)
    timed = (where.path / "evaluation" / SIDE / TIMING_FILE).is_file()
    scored = (where.path / "evaluation" / SIDE / "summary.json").is_file()
    return is_done(where, study.minutes_each) and timed and scored


class _Budget:
    """The time of a call, which does something however short it is, so that calls come to an end."""

    def __init__(self, entered: float, max_minutes: float | None) -> None:
        self._ends = None if max_minutes is None else entered + 60 * max_minutes
        self._asked = False

    def is_spent(self) -> bool:
        """Whether nothing more may be begun; not the first time it is asked."""
        first, self._asked = not self._asked, True
        return not first and self._ends is not None and time.monotonic() >= self._ends

    def left(self) -> float | None:
        """Minutes that a training may take, which makes one step at least."""
        return None if self._ends is None else max(SHORTEST, (self._ends - time.monotonic()) / 60)


def _least(left: float | None, each: float | None, where: RunFolder) -> float | None:
    """Minutes until the call's or the run's own time is over, whichever is first; None for no end."""
    budgets = [left, None if each is None else each - minutes_spent(where)]
    return min((budget for budget in budgets if budget is not None), default=None)


def _train(
    where: RunFolder, minutes: float | None, store: Path, workers: int | None, teller: Teller
) -> Outcome:
    """Go on with a run until its end, or for so long."""
    return resume(
        where.path,
        store=store,
        max_minutes=minutes,
        workers=workers,
        prepare_progress=teller.preparing,
        monitor=teller.monitor,
        warn=teller.tell,
        foretell=teller.foretell,
    )


def _evaluate(where: RunFolder, run: Run, study: Study, teller: Teller) -> None:
    """Score a run on the test side and keep how long its predictions took.

    Raises:
        RunError: its share of time did not hold an epoch.
    """
    if not where.model.is_file():
        raise RunError(
            f"{run.name} has no weights: its {study.minutes_each:g} minutes did not hold one epoch with its "
            "validation. Begin a new study with more --minutes-each, or with fewer data."
        )
    with locked(where.path / "evaluation.lock", f"The evaluation of {run.name}"):
        teller.tell(f"evaluating {run.name}")
        seconds: list[float] = []
        with teller.evaluating() as progress:
            evaluation = evaluate_run(where.path, SIDE, progress=progress, timed=seconds.append)
        summary = read_json(evaluation / "summary.json")
        timing = {"seconds": round(sum(seconds), 3), "cases": len(seconds), **summary["prediction"]}
        write_json(evaluation / TIMING_FILE, timing)
