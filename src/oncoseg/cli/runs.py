"""The commands about runs: `oncoseg train`, `predict`, `report`, `demo`."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.data import parse_data, spread_over
from oncoseg.cli.recipes import Fields, changed, open_recipe
from oncoseg.cli.scores import print_scores
from oncoseg.errors import DataError, RunError

if TYPE_CHECKING:
    from oncoseg.recipe import Recipe
    from oncoseg.training.loop import Outcome

TRAIN_FLAGS = (
    *("data", "only", "out", "resume", "extend", "store", "split", "workers", "accept-implausible"),
    *("help", "debug"),
)
"""The flags of `train` besides a recipe's fields."""

UNFINISHED = 75
"""Exit code of a training whose time budget is spent: go on later (EX_TEMPFAIL of BSD's sysexits)."""

DEMO_FOLDER = Path("oncoseg-demo")
"""Where `oncoseg demo` puts everything by default."""


def train(
    recipe: str | None = None,
    /,
    *,
    out: Path,
    data: list[str] | None = None,
    only: list[str] | None = None,
    resume: bool = False,
    extend: int | None = None,
    store: Path | None = None,
    split_file: Annotated[Path | None, Parameter(name="--split")] = None,
    workers: int | None = None,
    accept_implausible: bool = False,
    **fields: Fields,
) -> int:
    """Train a recipe's network from raw folders; Ctrl-C stops cleanly and --resume goes on.

    Every field of the recipe is a flag too; they are listed below.

    Args:
        recipe: A recipe's name, or the path of a recipe's JSON file. Not needed with --resume.
        out: The run folder: new, or with --resume the one to go on with.
        data: Once per modality: its name and the folder of its data set, as in mri=data/lgg.
        only: A modality to train on without the others; may be repeated.
        resume: Go on with a run that was stopped, with its own recipe, data and split.
        extend: With --resume, epochs to add to a finished run, with a learning-rate schedule of their own;
            the recipe in the run folder keeps them.
        store: The prepared store; in your cache folder when left out.
        split_file: A split.json to use, such as another run's, instead of drawing one.
        workers: Processes for preparing; one per processor when left out.
        accept_implausible: Take images that cannot be what they are said to be, such as a CT without
            Hounsfield units.
        **fields: Fields of the recipe, such as --training.max-epochs 3.
    """
    folders = parse_data(data or [])
    if resume:
        return _resume(recipe, folders, only, out, store, split_file, workers, extend, fields)
    if extend is not None:
        raise RunError("--extend adds epochs to a finished run; expected --resume with it.")
    if recipe is None:
        raise RunError(
            "Expected a recipe to train, for example unified-mri-ct; `oncoseg recipes` lists them."
        )
    from oncoseg.datasets import open_dataset
    from oncoseg.train import train as start
    from oncoseg.training.ranks import is_first

    chosen = changed(open_recipe(recipe), fields, TRAIN_FLAGS, only)
    for name, folder in folders.items() if is_first() else ():
        with contextlib.suppress(DataError):  # a folder that cannot be used at all is training's error
            terminal.note_problems(name, open_dataset(folder).problems)
    with _progress() as (preparing, monitor):
        outcome = start(
            chosen,
            folders,
            out,
            store=store,
            split_file=split_file,
            workers=workers,
            prepare_progress=preparing,
            monitor=monitor,
            accept_implausible=accept_implausible,
            remark=terminal.note_problems,
        )
    return _report_outcome(outcome)


def predict(
    run: Path,
    /,
    *inputs: Path,
    out: Path,
    modality: str | None = None,
    formats: Annotated[list[str] | None, Parameter(name="--format", negative="")] = None,
    probabilities: bool = False,
    threshold: float | None = None,
    flips: bool = False,
    ray: str | None = None,
    accept_implausible: bool = False,
) -> None:
    """Mark tumours in new images; each result lies on its input's own grid.

    Args:
        run: The run folder with the trained network.
        inputs: Images, folders of images, or data sets.
        out: The folder for the masks.
        modality: What the inputs are (mri, ct, …), where the run knows more than one.
        formats: Of the masks: nifti, or for DICOM images also seg (DICOM Segmentation) and rtstruct (RT
            Structure Set); may be repeated. NIfTI when left out.
        probabilities: Also write the probability of tumour of every voxel.
        threshold: Probability from which a voxel is tumour, in place of the run's.
        flips: Average over the four mirror images of each slice; four times as slow.
        ray: A Ray cluster to spread the images over: its address, `auto`, or `local` for one on this machine.
        accept_implausible: Take images that cannot be what they are said to be, such as a CT without
            Hounsfield units.
    """
    if not inputs:
        raise RunError(
            "Expected something to predict: name a file, a folder or a data set after the run folder."
        )
    from oncoseg.predict import Predictor, remarks, substitutions
    from oncoseg.run_folder import RunFolder

    predictor = Predictor.load(run, prediction_changes(threshold, flips))
    with terminal.progress("predicting slices") as progress, spread_over(ray, gpus=True) as spread:
        written = predictor.predict(
            inputs,
            out,
            modality=modality,
            formats=formats or ("nifti",),
            probabilities=probabilities,
            accept_implausible=accept_implausible,
            progress=progress,
            spread=spread,
        )
    if any(record.get("synthetic") for record in kept(RunFolder(run).data).values()):
        terminal.note(
            "This network was trained on synthetic phantoms: what it marks in patients means nothing."
        )
    for case, channels in substitutions(out).items():
        swaps = ", ".join(f"{used} in place of {missing}" for missing, used in channels.items())
        terminal.note(f"{case}: predicted with {swaps}")
    for case, texts in remarks(out).items():
        for text in texts:
            terminal.note(f"{case}: {text}")
    for path in written:
        terminal.say(str(path))


def report(run: Path, /, *, evaluation: Path | None = None) -> None:
    """Write a run's HTML report, and beside it every curve as a file of its own.

    RUN/report holds the page (index.html) with tables, curves and pictures and their definitions; the
    curves as SVG (learning curves, ROC, precision–recall, patients) and examples.png, for slides.

    Args:
        run: The run folder; evaluate it first.
        evaluation: A folder that `evaluate RUN --out` wrote, to show in place of the run's own; the report
            is then written into it.
    """
    from oncoseg.report import FIGURE_SUFFIXES, write_report

    page = write_report(run, evaluation)
    terminal.say(f"Report: {page}")
    for file in sorted(page.parent.iterdir()):
        if file.suffix in FIGURE_SUFFIXES:
            terminal.say(f"Figure: {file}")


def demo(*, out: Path = DEMO_FOLDER) -> None:
    """Run the whole pipeline on phantoms, in some minutes: made-up images, not patients.

    Args:
        out: The folder to make.
    """
    from oncoseg.demo import run_demo

    with terminal.training_progress() as monitor:
        result = run_demo(out, say=terminal.note, monitor=monitor)
    print_scores(result.evaluation)
    terminal.say(f"Report: {result.report.resolve()}")


def prediction_changes(threshold: float | None, flips: bool) -> dict[str, Any]:
    """The recipe's fields that two flags of predicting change."""
    changes: dict[str, Any] = {} if threshold is None else {"prediction.threshold": threshold}
    return changes | ({"prediction.flips": True} if flips else {})


def _resume(
    name: str | None,
    folders: Mapping[str, Path],
    only: list[str] | None,
    out: Path,
    store: Path | None,
    split_file: Path | None,
    workers: int | None,
    extend: int | None,
    fields: Mapping[str, Any],
) -> int:
    from oncoseg.run_folder import RunFolder
    from oncoseg.train import resume

    if split_file is not None:
        raise RunError("A resumed run keeps its own split; leave --split out, or start a new run.")
    run = RunFolder(out)
    kept = run.recipe()
    wanted = changed(open_recipe(name) if name else kept, fields, TRAIN_FLAGS, only)
    _check_same_recipe(kept, wanted, out)
    for modality, folder in folders.items():
        record = run.data().get(modality, {"path": "no data"})
        if Path(record["path"]) != folder.resolve():
            raise RunError(
                f"{out} was trained on {record['path']} for {modality}, not on {folder}. Leave --data "
                "out to go on with the same data, or start a new run."
            )
    with _progress() as (preparing, monitor):
        outcome = resume(
            out,
            store=store,
            max_minutes=wanted.training.max_minutes,
            workers=workers,
            prepare_progress=preparing,
            monitor=monitor,
            warn=terminal.note,
            extend=extend,
        )
    return _report_outcome(outcome)


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[Any], None]]]:
    """What shows preparing and training: only the first of several processes shows anything."""
    from oncoseg.training.ranks import is_first

    if not is_first():
        yield lambda done, total: None, lambda status: None
        return
    with terminal.progress("preparing") as preparing, terminal.training_progress() as monitor:
        yield preparing, monitor


def _check_same_recipe(kept: "Recipe", wanted: "Recipe", out: Path) -> None:
    """A resumed run may be given its recipe and fields again; only its time budget may differ."""
    one, other = kept.model_dump(mode="json"), wanted.model_dump(mode="json")
    for values in (one, other):
        values["training"]["max_minutes"] = None
    for part, value in one.items():
        if value != other[part]:
            raise RunError(
                f"{out} was started with other settings: `{part}` differs. Leave the recipe and its "
                "fields out to go on with the run's own (only --training.max-minutes may change), or start "
                "a new run."
            )


def _report_outcome(outcome: "Outcome") -> int:
    """Say how training ended; the exit code is 128 + n after signal n, `UNFINISHED` after the budget."""
    from oncoseg.training.ranks import is_first, leave_together

    received = signal.Signals.__members__.get(outcome.reason.split()[0])
    code = 128 + received if received is not None else UNFINISHED
    if is_first():
        _say_outcome(outcome)
    leave_together()
    return 0 if outcome.finished else code


def _say_outcome(outcome: "Outcome") -> None:
    from oncoseg.run_folder import RunFolder

    if outcome.finished:
        terminal.say(f"Trained: {outcome.run} ({outcome.reason})")
        if best := kept(RunFolder(outcome.run).metrics).get("best"):
            dice = ", ".join(f"{name} {_digits(value)}" for name, value in best["validation_dice"].items())
            terminal.say(f"Kept: the weights of joint epoch {best['epoch']}, validation Dice {dice}")
        terminal.say(f"Next: oncoseg evaluate {outcome.run}")
        return
    terminal.say(f"Stopped: {outcome.reason}; everything so far is kept in {outcome.run}")
    terminal.say(f"Go on with: oncoseg train --resume --out {outcome.run}")


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def kept(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run folder's record says; nothing where the folder was passed on without it."""
    try:
        return read()
    except RunError:
        return {}
