"""A run repeated: the same recipe, data and split trained again, and whether the numbers agree."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from oncoseg.cascade_folder import is_cascade
from oncoseg.errors import RunError
from oncoseg.files import sha256_of_file, write_json
from oncoseg.folds_folder import is_cross_validation
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training.ranks import is_first
from oncoseg.training.sources import Sources
from oncoseg.training.status import Outcome, Status

TOLERANCE = 0.01
"""By how much losses and Dice of the log may differ, absolutely, and still count as agreeing.

Other processors and library versions round otherwise, and training amplifies it from step to step.
"""

RESULT_FILE = "rerun.json"
"""In the new run folder: what the comparison found."""

Place = tuple[str, str, str]
"""Stage, epoch and modality, which say which row of log.csv it is."""

NOT_COMPARED = "minutes"
"""The column that no two runs share."""


class Difference(NamedTuple):
    """One figure of the log that differs; text where a row is in one of the logs only."""

    stage: str
    epoch: str
    modality: str
    column: str
    before: str
    now: str

    def __str__(self) -> str:
        return (
            f"{self.column} of {self.stage} epoch {self.epoch}, {self.modality}: "
            f"{self.before} there, {self.now} here"
        )


class Agreement(NamedTuple):
    """Whether two runs came to the same.

    Attributes:
        verdict: `identical`: weights and log bit for bit; `close`: every figure of the log within the
            tolerance; `different`: not.
        same_weights: whether the kept weights are bit for bit the same.
        tolerance: see `TOLERANCE`.
        first: the first figure that differs by more than the tolerance, or at all where none does.
        circumstances: what else differs (a package, the processor, the code) → before and now.
    """

    verdict: Literal["identical", "close", "different"]
    same_weights: bool
    tolerance: float
    first: Difference | None
    circumstances: Mapping[str, tuple[Any, Any]]


def rerun(
    run: Path,
    out: Path,
    *,
    data: Mapping[str, Path] | None = None,
    store: Path | None = None,
    workers: int | None = None,
    tolerance: float = TOLERANCE,
    prepare_progress: Progress | None = None,
    monitor: Callable[[Status], None] | None = None,
    warn: Callable[[str], None] = lambda _: None,
    foretell: Callable[[str], None] | None = None,
) -> tuple[Outcome, Agreement | None]:
    """Train a finished run's recipe on its data and split again, and compare.

    Called again after a stop, it goes on; after the end, it compares only.

    Args:
        run: the run folder to repeat.
        out: the new run folder.
        data: modality → where its data lie now; those left out lie where they did.
        store: see `train`.
        workers: see `train`.
        tolerance: see `TOLERANCE`.
        prepare_progress: see `train`.
        monitor: see `train`.
        warn: see `resume`.
        foretell: see `train`.

    Returns:
        How the training ended, and the comparison; None where it was stopped before its end.

    Raises:
        Locked: another process is training `out`.
        RunError: `run` is not finished or a cross-validation, its data have changed, or `out` holds something
            else.
        DataError: data that cannot be used.
    """
    if is_cross_validation(run):
        raise RunError(
            f"{run} is a cross-validation; expected one run to repeat, such as its fold {run / 'fold-1'}."
        )
    if is_cascade(run):
        raise RunError(
            f"{run} is a cascade; expected one run to repeat, such as its second stage {run / 'stage-2'}."
        )
    old, new = RunFolder(run), RunFolder(out)
    recipe = old.recipe().with_changes({"training.max_minutes": None})
    sources = Sources.of_records(old.data())
    if not old.is_finished():
        raise RunError(
            f"{run} is not finished; expected a finished run to repeat. Go on with it first: "
            f"oncoseg train --resume --out {run}"
        )
    if _begun(old, new, recipe):
        outcome = resume(
            out,
            data=data,
            store=store,
            workers=workers,
            prepare_progress=prepare_progress,
            monitor=monitor,
            warn=warn,
            foretell=foretell,
        )
    else:
        outcome = train(
            recipe,
            replace(sources, folders={**sources.folders, **(data or {})}),
            out,
            store=store,
            split_file=old.path / "split.json",
            workers=workers,
            prepare_progress=prepare_progress,
            monitor=monitor,
            same_data_as=old,
            warn=warn,
            foretell=foretell,
        )
    if not outcome.finished:
        return outcome, None
    agreement = compare(old, new, tolerance)
    first = None if agreement.first is None else agreement.first._asdict()
    if is_first():
        write_json(out / RESULT_FILE, agreement._asdict() | {"first": first})
    return outcome, agreement


def compare(old: RunFolder, new: RunFolder, tolerance: float = TOLERANCE) -> Agreement:
    """Compare the kept weights and the logs of two finished runs."""
    same_weights = sha256_of_file(old.need_model()) == sha256_of_file(new.need_model())
    differences = list(_differences(_rows(old), _rows(new)))
    beyond = [one for one in differences if not _within(one, tolerance)]
    identical = same_weights and not differences
    verdict: Literal["identical", "close", "different"]
    verdict = "identical" if identical else "different" if beyond else "close"
    first = next(iter([*beyond, *differences]), None)
    return Agreement(verdict, same_weights, tolerance, first, _circumstances(old, new))


def _begun(old: RunFolder, new: RunFolder, recipe: Recipe) -> bool:
    """Whether the new folder holds this very rerun, begun before."""
    if not (new.path / "data.json").is_file():  # the last of what `train` writes before it begins
        return False
    if old.path.resolve() == new.path.resolve():
        raise RunError(f"Expected a new folder for the rerun, got {new.path} itself. Choose another --out.")
    return (new.recipe(), new.split()) == (recipe, old.split())


def _rows(run: RunFolder) -> dict[Place, dict[str, str]]:
    with run.log.open(newline="", encoding="utf-8") as file:
        return {(row["stage"], row["epoch"], row["modality"]): row for row in csv.DictReader(file)}


def _differences(
    before: Mapping[Place, Mapping[str, str]], now: Mapping[Place, Mapping[str, str]]
) -> Iterator[Difference]:
    """All figures that are not the same, in the log's order."""
    for place in dict.fromkeys([*before, *now]):
        if place not in before or place not in now:
            yield Difference(*place, "row", _presence(place in before), _presence(place in now))
            continue
        for column, text in before[place].items():
            if column != NOT_COMPARED and text != now[place].get(column):
                yield Difference(*place, column, text, now[place].get(column, "absent"))


def _presence(there: bool) -> str:
    return "present" if there else "absent"


def _within(difference: Difference, tolerance: float) -> bool:
    try:
        before, now = float(difference.before), float(difference.now)
    except ValueError:
        return False
    return math.isclose(before, now, rel_tol=0.0, abs_tol=tolerance)


def _circumstances(old: RunFolder, new: RunFolder) -> dict[str, tuple[Any, Any]]:
    """What differs in the circumstances of the two runs' last calls, where both are recorded."""
    try:
        before, now = (run.record()["calls"][-1] for run in (old, new))
    except (RunError, LookupError):
        return {}
    facts = [_facts(before), _facts(now)]
    return {
        name: (facts[0].get(name), facts[1].get(name))
        for name in dict.fromkeys([*facts[0], *facts[1]])
        if facts[0].get(name) != facts[1].get(name)
    }


def _facts(call: Mapping[str, Any]) -> dict[str, Any]:
    code = (call.get("revision") or {}).get("commit")
    hardware = {name: value for name, value in call.get("hardware", {}).items() if name != "torch"}
    return {**call.get("packages", {}), **hardware, "precision": call.get("precision"), "revision": code}
