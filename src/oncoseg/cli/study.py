"""The commands about studies: `oncoseg study`, `studies`, `studies show`, `studies describe`."""

import contextlib
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.data import Chosen, parse_channels, parse_data, parse_stated
from oncoseg.cli.recipes import Fields, print_recipe_fields
from oncoseg.cli.runs import progress_of_training, say_stopped, stop_code, tell_needs
from oncoseg.errors import DataError, FailedRun, RecipeError, RunError

if TYPE_CHECKING:
    from oncoseg.studies.study import Run, Study
    from oncoseg.study_results import StudyResults
    from oncoseg.training.status import Outcome

STUDY_FLAGS = (
    *("data", "only-group", "only-variant", "channel", "out", "resume", "dry-run", "max-minutes"),
    *("minutes-each", "seeds", "store", "split", "workers", "accept-implausible", "licence", "origin"),
    *("help", "debug"),
)
"""The flags of `study` besides the recipes' fields."""


def study(
    name: str | None = None,
    /,
    *,
    out: Path | None = None,
    data: list[str] | None = None,
    only_group: list[str] | None = None,
    only_variant: list[str] | None = None,
    channel: Chosen = None,
    resume: bool = False,
    dry_run: bool = False,
    max_minutes: float | None = None,
    minutes_each: float | None = None,
    seeds: str | None = None,
    store: Path | None = None,
    split_file: Annotated[Path | None, Parameter(name="--split")] = None,
    workers: int | None = None,
    accept_implausible: bool = False,
    licence: list[str] | None = None,
    origin: list[str] | None = None,
    **fields: Fields,
) -> int:
    """Train several networks on the same patients, evaluate them, and make the paper's tables and figure.

    Stopped, the same command or --resume goes on; what is done is not done again. Several processes may
    share the work: start the same command in each. Every field of the recipes is a flag, too, for all runs.

    Args:
        name: A study's name, or the path of a study's JSON file. Not needed with --resume.
        out: The study's folder: new, or one to go on with.
        data: Once per modality: its name and the folder of its data set, as in mri=data/brats.
        only_group: Train the runs of this group only; may be repeated.
        only_variant: Train the runs of this network only; may be repeated.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage".
        resume: Go on with the study in the folder, with its own settings and data.
        dry_run: Only show what would be trained.
        max_minutes: Budget of this call, with preparing and evaluating.
        minutes_each: The same time for every run, after which its best weights so far are kept; all
            epochs when left out.
        seeds: Train every network once with each of these seeds, as in '[0,1,2]', and show the means; once
            with the recipe's own seed when left out.
        store: The prepared store; in your cache folder when left out.
        split_file: A split.json to use for all runs instead of drawing one; or nnU-Net's splits_final.json.
        workers: Processes for preparing; one per processor when left out.
        accept_implausible: Take images that cannot be what they are said to be.
        licence: For the record, once per modality: its name and the licence of its data.
        origin: For the record, likewise: where the data come from, such as a DOI.
        **fields: Fields of the recipes, such as --training.max-epochs 5.
    """
    groups, variants = only_group or [], only_variant or []
    if max_minutes is not None and max_minutes <= 0:
        raise RunError(f"Expected --max-minutes above 0, got {max_minutes:g}.")
    if resume:
        _check_resuming(name, fields, {"--data": data, "--channel": channel, "--split": split_file})
        _check_resuming(None, {}, {"--minutes-each": minutes_each, "--seeds": seeds})
        _check_resuming(None, {}, {"--licence": licence, "--origin": origin})
    elif name is None:
        raise RunError(
            "Expected a study, for example aspp-attention, or its JSON file; `oncoseg studies` lists them."
        )
    if dry_run:
        chosen = _kept(out) if name is None else _changed(name, fields, minutes_each, seeds)
        _print_plan(chosen, chosen.runs(groups, variants))
        return 0
    if out is None:
        raise RunError("Expected --out FOLDER for the study, as in --out studies/first.")
    from oncoseg.train_study import Teller, resume_study, train_study
    from oncoseg.training.sources import Sources

    with _showing_the_others(out), progress_of_training() as (preparing, monitor):
        teller = Teller(
            preparing,
            monitor,
            lambda: terminal.progress("evaluating"),
            terminal.note,
            tell_needs,
        )
        options: dict[str, Any] = {
            "groups": groups,
            "variants": variants,
            "store": store,
            "max_minutes": max_minutes,
            "workers": workers,
            "teller": teller,
        }
        if name is None:
            outcome = resume_study(out, **options)
        else:
            chosen = _changed(name, fields, minutes_each, seeds)
            sources = Sources(
                parse_data(data or []),
                channels_of(chosen, parse_channels(channel)),
                accept_implausible,
                parse_stated(licence or [], "--licence"),
                parse_stated(origin or [], "--origin"),
                terminal.note_problems,
                terminal.note_found,
            )
            outcome = train_study(chosen, sources, out, split_file=split_file, **options)
    return _report(outcome)


def list_all(*words: Annotated[str, Parameter(show=False)]) -> None:
    """List the studies: several networks on the same data."""
    from oncoseg.studies import STUDIES

    if words:
        near = difflib.get_close_matches(words[0], ("show", "describe"), n=1) or ["show"]
        raise RecipeError(f"Unknown command `studies {words[0]}`; did you mean `studies {near[0]}`?")
    rows = [(name, made.title, _size(made)) for name, made in _made(STUDIES)]
    terminal.print_table(None, ("study", "what it is", "runs"), rows)


def show(name: str, /) -> None:
    """Print a complete study as JSON, to be kept in a file, changed, and given to `study`.

    Args:
        name: A study's name, or the path of a study's JSON file.
    """
    from oncoseg.studies import open_study

    chosen = open_study(name)
    terminal.note(f"{chosen.title}\nSource: {chosen.source}")
    for deviation in chosen.deviations:
        terminal.note(f"Deviation: {deviation}")
    terminal.say(chosen.to_json())


def describe(name: str, /) -> None:
    """Print what a study would train: its runs, epochs, parameters and multiply-adds.

    Args:
        name: A study's name, or the path of a study's JSON file.
    """
    from oncoseg.studies import open_study

    chosen = open_study(name)
    _print_plan(chosen, chosen.runs())


def print_study_fields(name: str | None) -> None:
    """Print every field of the recipes as a flag, with the values of a study's first run."""
    from oncoseg.studies import open_study

    print_recipe_fields(open_study(name).runs()[0].recipe if name else None)


def _made(studies: Any) -> "list[tuple[str, Study]]":
    return [(name, make()) for name, make in studies.items()]


def _check_resuming(name: str | None, fields: Any, given: dict[str, Any]) -> None:
    wrong = [flag for flag, value in given.items() if value]
    if name is not None:
        wrong.append(f"the study {name}")
    if fields:
        wrong.append("the recipes' fields")
    if wrong:
        raise RunError(
            f"A resumed study keeps its own settings and data; leave {', '.join(wrong)} out, or --resume: "
            "without it, it is checked that they are the same."
        )


def _kept(out: Path | None) -> "Study":
    from oncoseg.study_folder import StudyFolder

    if out is None:
        raise RunError("Expected --out FOLDER of the study to go on with.")
    return StudyFolder(out).study()


def _size(made: "Study") -> str:
    return " × ".join(map(str, (len(made.groups), len(made.variants), *([len(made.seeds)] * made.several))))


def _changed(name: str, tree: Any, minutes_each: float | None, seeds: str | None) -> "Study":
    """The study with the command line's fields put into every run."""
    from oncoseg.cli.fields import check_flags, from_tokens
    from oncoseg.studies import open_study

    chosen = open_study(name)
    changes = from_tokens(tree)
    check_flags(chosen.runs()[0].recipe, changes, STUDY_FLAGS)
    return chosen.with_changes(changes, minutes_each, _seeds(seeds) if seeds is not None else ())


def _seeds(text: str) -> list[int]:
    """The seeds as they are typed.

    Raises:
        RecipeError: no list of whole numbers, or an empty one; a single number could be a seed or how many.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not values or any(type(value) is not int for value in values):
        raise RecipeError(f"Expected --seeds as a list of whole numbers, such as '[0,1,2]', got {text!r}.")
    return values


def channels_of(chosen: "Study", given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Modality → channel → what its series are called: each channel in the runs that take it.

    Raises:
        DataError: a channel that no run takes.
    """
    from oncoseg.training.sources import channels_by_modality

    parted: dict[str, dict[str, str]] = {}
    for channel, series in given.items():
        refused: list[DataError] = []
        runs = chosen.runs()
        for run in runs:
            try:
                found = channels_by_modality(run.recipe, {channel: series})
            except DataError as error:
                refused.append(error)
                continue
            for modality, of in found.items():
                parted.setdefault(modality, {}).update(of)
        if len(refused) == len(runs):
            raise refused[0]
    return parted


def _print_plan(chosen: "Study", runs: "Sequence[Run]") -> None:
    from oncoseg.study_results import network_cost, size_of_input

    rows = []
    for run in (one for one in runs if one.seed == chosen.first_seed):
        recipe, network = run.recipe, run.recipe.network
        cost = network_cost(recipe)
        shape = "×".join(map(str, (recipe.in_channels, *size_of_input(recipe))))
        epochs = recipe.training.max_epochs
        giga = f"{cost.multiply_adds / 1e9:.1f}"
        rows.append((run.group, run.variant, network.name, epochs, shape, f"{cost.parameters:,}", giga))
    columns = ("group", "network", "model", "epochs", "input", "parameters", "multiply-adds (G)")
    title = f"{chosen.name}: {len(rows)} runs"
    if chosen.several:
        title += f", each with the seeds {', '.join(map(str, chosen.seeds))}: {len(runs)} trainings"
    terminal.print_table(title, columns, rows, right=4, unbroken=len(columns))
    each = chosen.minutes_each
    budget = "all epochs" if each is None else f"{each:g} minutes, or all epochs where these take less"
    terminal.say(f"Budget of each run: {budget}. Metrics of the paired tests: {', '.join(chosen.tested)}.")


def _report(outcome: "Outcome") -> int:
    """Say how the study stands; once all that was asked for is done, with its tables and page."""
    command = f"oncoseg study --resume --out {outcome.run}"
    if not outcome.finished:
        say_stopped(outcome, command)
        return stop_code(outcome)
    terminal.say(f"Done: {outcome.run} ({outcome.reason})")
    _show(outcome.run)
    return 0


@contextlib.contextmanager
def _showing_the_others(out: Path) -> Iterator[None]:
    """Where runs failed, write the tables and the page of those that are done before it is said."""
    try:
        yield
    except FailedRun:
        from oncoseg.study_folder import StudyFolder, is_complete

        folder = StudyFolder(out)
        kept = folder.study()
        if any(is_complete(folder, kept, run) for run in kept.runs()):
            _show(out)
        raise


def _show(out: Path) -> None:
    """Write and print a study's results, unless another process does."""
    from oncoseg.locks import Locked, locked

    try:
        with locked(out / "page.lock", "The page", "written"):
            print_study(out)
    except Locked:  # it ended at the same moment
        terminal.say(f"Another process writes the tables and the page of {out}.")


def print_study(out: Path) -> None:
    """Write a study's tables and page from what is done, and print what the tests show."""
    from oncoseg.evaluate.contest_files import short_heading
    from oncoseg.files import SYNTHETIC_SENTENCE
    from oncoseg.report.study import conclude, titles, write_study
    from oncoseg.study_folder import StudyFolder
    from oncoseg.study_results import read_results

    found, folder = read_results(out), StudyFolder(out)
    page = write_study(out, found)
    for group in found.study.groups:
        rows = [
            [network.variant, row.modality, row.label, *_cells(row, found.study.shown)]
            for network in found.of_group(group)
            for row in network.overlap
            if row.averaging == "patient"
        ]
        columns = ("network", "modality", "class", "n", *(titles(found)[name] for name in found.study.shown))
        if rows:
            terminal.print_table(
                f"{group}, means over patients", columns, rows, right=4, unbroken=len(columns)
            )
        _print_variation(group, found)
    if found.synthetic:
        terminal.say(SYNTHETIC_SENTENCE)
    for group, contest in found.contests.items():
        terminal.say(conclude(group, contest).text)
        for part in contest.parts:
            for each in part.comparisons:
                terminal.say(f"  {short_heading(contest, part)}: {each.sentence}")
    for run in found.missing:
        terminal.say(f"Left: {folder.left(run)}")
    terminal.say(f"Tables: {out / 'table1.csv'}, {out / 'table2.csv'}")
    terminal.say(f"Report: {page}")


def _print_variation(group: str, found: "StudyResults") -> None:
    """How the first score of each network varies between its trainings, where there are several."""
    shown = found.study.shown[0]
    for network in found.of_group(group):
        for row in network.overlap:
            if shown in row.variation:
                what = ", ".join((network.variant, row.modality, row.label, shown))
                terminal.say(f"  {what}: {row.variation[shown].sentence}")


def _cells(row: Any, shown: Sequence[str]) -> list[Any]:
    from oncoseg.evaluate.paper_tables import with_interval

    scores = [with_interval(one.mean, one.low, one.high) for one in (row.scores[name] for name in shown)]
    return [row.scores["dice"].n, *scores]
