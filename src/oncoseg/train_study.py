"""Training a study: ordinary runs, each evaluated at once, one after the other or in several processes."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from oncoseg.errors import FailedRun, RunError
from oncoseg.evaluate.run import evaluate_run, is_evaluated
from oncoseg.files import read_json, write_json
from oncoseg.locks import Locked, locked
from oncoseg.prepare import Progress
from oncoseg.run_folder import RunFolder
from oncoseg.stopping import name_of, orderly_termination
from oncoseg.studies.study import Run, Study
from oncoseg.study_folder import SIDE, TIMING_FILE, StudyFolder, is_complete, is_done, is_study, minutes_spent
from oncoseg.study_layout import begin, check_same, lay_out, take_over
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
    on with it, or joins the processes that work on it: runs that are done are not trained again. A run that
    fails does not keep the others; it is tried again, after them, when this is called again.

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
        RunError: `out` holds something else or another study, or the data have changed since it was begun.
        FailedRun: runs that cannot go on, such as one whose loss is not finite; all others are done.
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
    if said := take_over(folder, study):
        teller.tell(said)
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
    budget, failed = _Budget(entered, max_minutes), dict[str, str]()
    # those that failed before come last, so that they keep no other
    for number, run in sorted(enumerate(runs, 1), key=lambda one: bool(folder.failure(one[1]))):
        beginning = f"run {number} of {len(runs)}: {run.name}"
        try:
            stopped = _finish(folder, study, run, beginning, budget, store, workers, teller)
        except Locked:
            teller.tell(f"{run.name}: another process works on it")
        except FailedRun as error:
            failed[run.name] = str(error)
            folder.note_failure(run, str(error))
            teller.tell(f"{run.name} failed: {error}")
        else:
            if stopped:
                return Outcome(folder.path, False, stopped)
            folder.note_failure(run, "")
    left_over = [run.name for run in runs if not is_complete(folder, study, run) and run.name not in failed]
    if left_over:
        return Outcome(folder.path, False, f"other processes work on {'; '.join(left_over)}")
    if failed:
        raise FailedRun(_failures(folder, failed, len(runs)))
    return Outcome(folder.path, True, f"{len(runs)} of {len(study.runs())} runs are trained and evaluated")


def _finish(
    folder: StudyFolder,
    study: Study,
    run: Run,
    beginning: str,
    budget: "_Budget",
    store: Path,
    workers: int | None,
    teller: Teller,
) -> str:
    """Train and evaluate a run; why it was stopped before that, or empty."""
    where = folder.run(run)
    while not is_done(where, study.minutes_each):
        if budget.is_spent():
            return budget.reason
        teller.tell(beginning)
        minutes = _least(budget.left(), study.minutes_each, where)
        outcome = _train(where, minutes, store, workers, teller)
        if outcome.too_late:
            return received(outcome.too_late)
        if not outcome.finished and outcome.reason != spent(minutes or 0):
            return outcome.reason
    if not _is_evaluated(where):
        if budget.is_spent():
            return budget.reason
        _evaluate(where, run, study, teller)
    return ""


def _failures(folder: StudyFolder, failed: Mapping[str, str], runs: int) -> str:
    """What is said at the end of all runs that failed."""
    each = "\n".join(f"  {name}: {why}" for name, why in failed.items())
    return (
        f"{len(failed)} of {runs} runs failed; all others are trained and evaluated:\n{each}\n"
        f"`oncoseg study --resume --out {folder.path}` tries these again. A run with other settings needs a "
        "study of its own; --only-group and --only-variant choose its runs."
    )


class _Budget:
    """The time of a call, which does something however short it is, so that calls come to an end."""

    def __init__(self, entered: float, max_minutes: float | None) -> None:
        self._ends = None if max_minutes is None else entered + 60 * max_minutes
        self._asked = False
        self.reason = spent(max_minutes or 0)

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
        FailedRun: its share of time did not hold an epoch, or its weights are gone.
    """
    if not where.model.is_file() and study.minutes_each is not None and not where.is_finished():
        raise FailedRun(
            f"{run.name} has no weights: its {study.minutes_each:g} minutes did not hold one epoch with its "
            "validation. Begin a new study with more --minutes-each, or with fewer data."
        )
    where.need_model()
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
