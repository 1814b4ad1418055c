"""Training a study: ordinary runs, each evaluated at once, one after the other or in several processes."""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from oncoseg.errors import RunError
from oncoseg.evaluate.run import evaluate_run, is_evaluated
from oncoseg.files import read_json, write_json
from oncoseg.locks import Locked, locked
from oncoseg.prepare import Progress
from oncoseg.run_folder import RunFolder
from oncoseg.stopping import name_of, orderly_termination
from oncoseg.studies.study import Run, Study
from oncoseg.study_folder import SIDE, TIMING_FILE, StudyFolder, is_complete, is_done, is_study, minutes_spent
from oncoseg.study_layout import begin, check_same, lay_out
from oncoseg.train import check_recipe, resume
from oncoseg.training import data as training_data
from oncoseg.training.ranks import check_alone
from oncoseg.training.sources import Data, Sources
from oncoseg.training.status import Outcome, Status, received, spent

TOGETHER = "A study"
"""Begins the sentence where several processes would share the batches of its runs."""

SHORTEST = 1e-6
"""Minutes of a budget that is spent: training takes no 0."""


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
        try:
            begin(study, chosen, sources, out, split_file, teller.preparing)
        except RunError:  # something is in the folder
            if not is_study(out):
                raise
    check_same(folder, study, sources.folders)  # another process may have begun it meanwhile
    lay_out(folder, chosen, sources, store, workers, teller.preparing)
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
            if _is_evaluated(where):
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


def _is_evaluated(where: RunFolder) -> bool:
    return is_evaluated(where.path, SIDE) and (where.path / "evaluation" / SIDE / TIMING_FILE).is_file()


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
    with locked(where.path / "evaluation.lock", f"The run {run.name}", "evaluated"):
        if _is_evaluated(where):  # by another process, since it was last looked
            return
        teller.tell(f"evaluating {run.name}")
        seconds: list[float] = []
        with teller.evaluating() as progress:
            evaluation = evaluate_run(where.path, SIDE, progress=progress, timed=seconds.append)
        summary = read_json(evaluation / "summary.json")
        timing = {"seconds": round(sum(seconds), 3), "cases": len(seconds), **summary["prediction"]}
        write_json(evaluation / TIMING_FILE, timing)
