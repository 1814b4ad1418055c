"""The command that trains a run again: `oncoseg rerun`."""

from pathlib import Path
from typing import TYPE_CHECKING

from oncoseg.cli import terminal
from oncoseg.cli.data import parse_data
from oncoseg.cli.runs import progress_of_training, say_stopped, stop_code, tell_needs

if TYPE_CHECKING:
    from oncoseg.rerun import Agreement
    from oncoseg.training.status import Outcome

NOT_REPEATED = 3
"""Exit code of a rerun whose numbers are not those of the run that it repeats."""


def rerun(
    run: Path,
    /,
    *,
    out: Path,
    data: list[str] | None = None,
    store: Path | None = None,
    workers: int | None = None,
    tolerance: float | None = None,
) -> int:
    """Train a finished run again, with its recipe, data and split, and say whether the numbers agree.

    After a stop, the same command goes on. The exit code is 3 where the numbers differ.

    Args:
        run: The run folder to repeat.
        out: The new run folder; its rerun.json holds the comparison.
        data: Once per modality whose data lie elsewhere now: its name and the folder, as in mri=data/lgg.
        store: The prepared store; in your cache folder when left out.
        workers: Processes for preparing; one per processor when left out.
        tolerance: By how much losses and Dice may differ, absolutely, and still agree; 0.01 when left out.
    """
    from oncoseg.rerun import TOLERANCE
    from oncoseg.rerun import rerun as repeat
    from oncoseg.training.ranks import is_first, leave_together

    with progress_of_training() as (preparing, monitor):
        outcome, agreement = repeat(
            run,
            out,
            data=parse_data(data or []),
            store=store,
            workers=workers,
            tolerance=TOLERANCE if tolerance is None else tolerance,
            prepare_progress=preparing,
            monitor=monitor,
            warn=terminal.note,
            foretell=tell_needs,
        )
    if is_first():
        _say_agreement(outcome, agreement, run)
    leave_together()
    if agreement is None:
        return stop_code(outcome)
    return NOT_REPEATED if agreement.verdict == "different" else 0


def _say_agreement(outcome: "Outcome", agreement: "Agreement | None", run: Path) -> None:
    if agreement is None:
        say_stopped(outcome, f"oncoseg rerun {run} --out {outcome.run}")
        return
    terminal.say(_in_words(agreement, run))
    for name, (before, now) in agreement.circumstances.items():
        terminal.say(f"Also other: {name} ({before} there, {now} here)")


def _in_words(agreement: "Agreement", run: Path) -> str:
    if agreement.verdict == "identical":
        return f"Identical: the weights and every figure of the log are bit for bit those of {run}."
    weights = "the weights are the same" if agreement.same_weights else "the weights differ"
    if agreement.verdict == "different":
        return f"Different: {weights}; first beyond {agreement.tolerance:g} is {agreement.first}"
    figures = "the log is the same" if agreement.first is None else f"first other figure: {agreement.first}"
    return f"Agrees within {agreement.tolerance:g}: {weights}; {figures}"
