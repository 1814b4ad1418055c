"""The command `oncoseg leaks`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.data import parse_data
from oncoseg.errors import DataError, RunError


def leaks(
    run: Path | None = None,
    /,
    *,
    side: list[str] | None = None,
    data: list[str] | None = None,
    channel: str | None = None,
    workers: int | None = None,
    no_cache: Annotated[bool, Parameter(name="--no-cache")] = False,
) -> None:
    """Look for patients and images that are on two sides of a split, under whatever name.

    Finds one patient on two sides, identical images, and images that look the same though they were
    rescaled, resampled, cut or turned; which of them really are the same is for you to judge. Every image of
    a case is compared with every one of the others. What was read is remembered in your cache folder, so that
    the next time nothing is read again; stopped, the same command goes on.

    Args:
        run: A run folder, whose training, validation and test sides are compared; or that of a
            cross-validation, whose folds are.
        side: NAME=PATH of a data set, at least twice: data sets to compare instead of a run's sides.
        data: MODALITY=PATH, where a run's data set has moved since training.
        channel: The only image of every case to compare, such as FLAIR; all when left out.
        workers: Processes; one per processor when left out.
        no_cache: Read every image anew, and remember nothing.
    """
    from oncoseg.evaluate.leaks import default_cache, leaks_between, sides_of_folders, sides_of_run

    if (run is None) == (side is None) or (side is not None and data is not None):
        raise RunError(
            "Expected either a run folder, with --data where a data set has moved, or --side NAME=PATH twice "
            "or more."
        )
    if run is not None:
        groups = sides_of_run(run, parse_data(data or []))
    else:
        groups = sides_of_folders(parse_data(side or [], "--side"))
    with terminal.progress_in_steps("reading images", "comparing images") as (reading, comparing):
        found, problems = leaks_between(
            groups,
            channel,
            cache=None if no_cache else default_cache(),
            workers=workers,
            reading=reading,
            comparing=comparing,
        )
    terminal.note_problems("not compared", problems, others="")
    for leak in found:
        terminal.say(f"[{leak.kind}] {leak.message}")
    if found:
        raise DataError(f"{len(found)} times something is on two sides; expected none. Mend the split.")
    if problems:
        terminal.note("Nothing was found, but not everything could be compared.")
    terminal.say("No patient and no image was found on two sides.")
