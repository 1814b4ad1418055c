"""What people see: messages, tables and progress. Results go to stdout, everything else to stderr."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from oncoseg.datasets.base import Problem, Scan

WIDTH_OF_FILES = 120
"""Columns of what is written to a file or a pipe."""

WIDTH_OF_TABLES = 240
"""The same for tables, which are only as wide as they need to be."""

NARROW = 120
"""A terminal with fewer columns gets tables without what can be done without."""

MARGIN_OF_COLUMN = 3
"""Columns of the terminal between two of a table's."""

LINE_AT_STEP = 5
"""The step of a call at which the first estimate is written where there is no terminal."""

LINE_AFTER_SECONDS = 30.0
"""Of other long work where there is no terminal: a line whenever so much time has passed."""

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


def stdout(width_of_files: int = WIDTH_OF_FILES) -> Console:
    """The console for results; it has a width of its own unless it is a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=width_of_files)


def stderr() -> Console:
    """The console for messages and progress."""
    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line of results as it is, without wrapping it."""
    stdout().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a message beside the results."""
    stderr().print(text, markup=False, soft_wrap=True)


def note_problems(
    what: str, problems: Sequence["Problem"], others: str = "; `oncoseg inspect` lists them all"
) -> None:
    """Print what is wrong with a data set: of each kind of problem, how many there are and the first.

    Args:
        what: the modality or data set, as the user knows it.
        problems: as an adapter found them.
        others: where the others are told.
    """
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    for kind, found in kinds.items():
        more = f" (the first of {len(found)}{others})" if len(found) > 1 else ""
        note(f"{what}: [{kind}] {found[0].message}{more}")


def note_found(what: str, found: "Scan", passed_over: Sequence[str] = ()) -> None:
    """Print what was decided about a data set, such as guesses of channels, and what is wrong with it.

    Args:
        what: the modality or data set, as the user knows it.
        found: in it.
        passed_over: kinds of problems that do not matter here.
    """
    for remark in found.remarks:
        note(f"{what}: {remark}")
    note_problems(what, [problem for problem in found.problems if problem.kind not in passed_over])


def print_error(message: str) -> None:
    """Print an error, red on a terminal."""
    stderr().print(Text(message, style="red"), soft_wrap=True)


def is_narrow() -> bool:
    """Whether results go to a terminal with little room."""
    return stdout(WIDTH_OF_TABLES).width < NARROW


def print_table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: int = 0,
    unbroken: int = 1,
) -> None:
    """Print a table.

    Args:
        title: above it.
        columns: their headings.
        rows: their cells; None is shown as an em dash.
        right: from which column on cells are aligned to the right, counted from 1; 0 for none.
        unbroken: up to which column cells stay in one line, however narrow the terminal; headings may not.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    texts = [["—" if cell is None else str(cell) for cell in row] for row in rows]
    console = stdout(WIDTH_OF_TABLES)
    for number, width in enumerate(_widths(columns, texts, unbroken, console.width), 1):
        justify: Literal["left", "right"] = "right" if 0 < right <= number else "left"
        table.add_column(columns[number - 1], justify=justify, overflow="fold", width=width)
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(table)


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], unbroken: int, room: int
) -> list[int | None]:
    """Of each column; None where it is the table's own matter.

    Where there is no room for whole headings, these are broken between words rather than the cells.
    """
    cells = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else [0] * len(columns)
    words = [max(map(len, column.split()), default=0) for column in columns]
    whole = [max(len(column), cell) for column, cell in zip(columns, cells, strict=True)]
    least = [max(word, cell) for word, cell in zip(words, cells, strict=True)]
    needed = sum(whole) + MARGIN_OF_COLUMN * len(columns)
    chosen = whole if needed <= room else least
    return [width if number < unbroken else None for number, width in enumerate(chosen)]


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show a bar with the time elapsed and left; without a terminal, a line every half minute."""
    with progress_in_steps(what) as (show,):
        yield show


@contextmanager
def progress_in_steps(*steps: str) -> Iterator[list[Progress]]:
    """The same for work in several steps, each of which begins when it is told of first."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    console = stderr()
    first, *others = steps
    if not console.is_terminal:
        yield [_lines_in_time(first, time.monotonic()), *(_lines_in_time(what) for what in others)]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        yield [_bar_in_time(bar, what, begun=what == first) for what in steps]


def _bar_in_time(bar: "Bar", what: str, begun: bool) -> Progress:
    task = bar.add_task(what, total=None, start=begun, visible=begun)

    def show(done: int, total: int) -> None:
        bar.start_task(task)  # only the first time
        bar.update(task, completed=done, total=total, visible=True)

    return show


def _lines_in_time(what: str, started: float | None = None) -> Progress:
    said, before = started, 0

    def show(done: int, total: int) -> None:
        nonlocal said, started, before
        now = time.monotonic()
        if started is None or said is None:
            started, said, before = now, now, done
        if before < done < total and now - said >= LINE_AFTER_SECONDS:
            said = now
            left = (now - started) * (total - done) / (done - before)
            note(f"{what} {done}/{total}  left {_duration(left)}")

    return show


@contextmanager
def training_progress() -> Iterator[Callable[[Any], None]]:
    """Show where training is, with each modality's validation Dice and the time left of the whole run.

    A line for every finished epoch with its own validation; above a bar on a terminal, elsewhere (such as
    in a batch job's log) after a first line with an estimate. Gives a function for `train`'s `monitor`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = stderr()
    if not console.is_terminal:
        yield _lines_of_epochs()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("training", total=None, more="")

        def show(status: Any) -> None:
            epoch, more = _in_words(status)
            if status.validated:
                bar.console.print(f"{epoch}  {more}", markup=False, soft_wrap=True)
            else:
                bar.update(task, description=epoch, completed=status.step, total=status.steps, more=more)

        yield show


def _lines_of_epochs() -> Callable[[Any], None]:
    steps = 0

    def show(status: Any) -> None:
        nonlocal steps
        steps += not status.validated
        # the time left is an estimate from the steps so far, so not before a few were timed
        if status.validated or steps == LINE_AT_STEP:
            note("  ".join(_in_words(status)))

    return show


def _in_words(status: Any) -> tuple[str, str]:
    """Which epoch, and everything else."""
    scores = "  ".join(
        f"{name} {score:.3f}{_of_classes(status, name)}" for name, score in status.scores.items()
    )
    left = _duration(max(0.0, status.seconds_left))
    dice = f"  {'Dice' if status.validated else 'last Dice'} {scores}" if scores else ""
    done = " done" if status.validated else ""
    return (
        f"{status.stage} epoch {status.epoch}/{status.epochs}{done}",
        f"left {left}  loss {status.loss:.3f}{dice}",
    )


def _of_classes(status: Any, modality: str) -> str:
    """Each class's Dice, where there are several and they are the epoch's own."""
    each = status.class_scores.get(modality) if status.validated else None
    return f" ({', '.join(f'{name} {score:.3f}' for name, score in each.items())})" if each else ""


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03."""
    from datetime import timedelta

    return str(timedelta(seconds=round(seconds)))
