"""The command `oncoseg leaks`."""

from pathlib import Path

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
) -> None:
    """Look for patients and images that are on two sides of a split, under whatever name.

    Finds one patient on two sides, identical images, and images that look the same though they were
    rescaled, resampled, cut or turned; which of them really are the same is for you to judge.

    Args:
        run: A run folder, whose training, validation and test sides are compared.
        side: NAME=PATH of a data set, at least twice: data sets to compare instead of a run's sides.
        data: MODALITY=PATH, where a run's data set has moved since training.
        channel: Which image of every case to compare, such as FLAIR; the first when left out.
    """
    from oncoseg.evaluate.leaks import leaks_of_folders, leaks_of_run

    if (run is None) == (side is None):
        raise RunError("Expected either a run folder or --side NAME=PATH twice or more, and not both.")
    with terminal.progress("comparing images") as progress:
        if run is not None:
            found, problems = leaks_of_run(run, parse_data(data or []), channel, progress)
        else:
            found, problems = leaks_of_folders(parse_data(side or [], "--side"), channel, progress)
    terminal.note_problems("not compared", problems)
    for leak in found:
        terminal.say(f"[{leak.kind}] {leak.message}")
    if found:
        raise DataError(f"{len(found)} times something is on two sides; expected none. Mend the split.")
    terminal.say("No patient and no image was found on two sides.")
