"""The commands about runs: `oncoseg train`, `predict`, `report`, `demo`."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.data import Chosen, parse_channels, parse_data, parse_stated, spread_over
from oncoseg.cli.recipes import Fields, changed, open_recipe
from oncoseg.cli.scores import print_scores
from oncoseg.errors import RunError

if TYPE_CHECKING:
    from oncoseg.recipe import Recipe
    from oncoseg.training.status import Outcome

TRAIN_FLAGS = (
    *("data", "only", "channel", "out", "resume", "extend", "folds", "fold"),
    *("store", "split", "workers", "accept-implausible", "licence", "origin", "unlabelled"),
    *("help", "debug"),
)
"""The flags of `train` besides a recipe's fields."""

NOT_FOR_PREDICTING = (
    "missing-mask",
    "missing-mask-slice",
    "unused-annotation",
    "surplus-readers",
    "leaking-split",
)
"""Problems of a data set that do not matter to who predicts it."""

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
    channel: Chosen = None,
    resume: bool = False,
    extend: int | None = None,
    folds: int | Literal["patients"] | None = None,
    fold: int | None = None,
    store: Path | None = None,
    split_file: Annotated[Path | None, Parameter(name="--split")] = None,
    workers: int | None = None,
    accept_implausible: bool = False,
    licence: list[str] | None = None,
    origin: list[str] | None = None,
    unlabelled: list[str] | None = None,
    **fields: Fields,
) -> int:
    """Train a recipe's network from raw folders; Ctrl-C stops cleanly and --resume goes on.

    Every field of the recipe is a flag too; they are listed below.

    Args:
        recipe: A recipe's name, or the path of a recipe's JSON file. Not needed with --resume.
        out: The run folder, or that of a cross-validation: new, or with --resume the one to go on with.
        data: Once per modality: its name and the folder of its data set, as in mri=data/lgg. With --resume
            only where the same data lie elsewhere now.
        only: A modality to train on without the others; may be repeated.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage": part of the description, a pattern (*flair*), or a SeriesInstanceUID.
            Then nothing is guessed, and the run keeps to it.
        resume: Go on with a run that was stopped, with its own recipe, data and split.
        extend: With --resume, epochs to add to a finished run, with a learning-rate schedule of their own;
            the recipe in the run folder keeps them.
        folds: Train a network for each of so many folds of the patients (cross-validation), into run folders
            within the folder; patients leaves out one patient in each.
        fold: Of a cross-validation, train this fold only, from 1, such as in one of several processes.
        store: The prepared store; in your cache folder when left out.
        split_file: A split.json to use, such as another run's, instead of drawing one; or nnU-Net's
            splits_final.json, of which FILE#2 is the third fold.
        workers: Processes for preparing; one per processor when left out.
        accept_implausible: Take images that cannot be what they are said to be, such as a CT without
            Hounsfield units.
        licence: For the run's record, once per modality: its name and the licence of its data, as in
            mri="CC BY 4.0".
        origin: For the run's record, likewise: where the data come from, such as a DOI.
        unlabelled: Once per modality: its name and another folder of scans, to learn from without masks;
            needs --training.unlabelled.weight. Cases without a mask in the data set itself are taken, too.
        **fields: Fields of the recipe, such as --training.max-epochs 3.
    """
    folders = parse_data(data or [])
    licences, origins = parse_stated(licence or [], "--licence"), parse_stated(origin or [], "--origin")
    if resume:
        if folds is not None:
            raise RunError("A resumed cross-validation keeps its own folds; leave --folds out.")
        if channel:
            raise RunError("A resumed run keeps its own channels; leave --channel out, or start a new run.")
        if unlabelled:
            raise RunError("A resumed run keeps its own scans; leave --unlabelled out, or start a new run.")
        stated = {"licences": licences, "origins": origins}
        return _resume(recipe, folders, only, out, store, split_file, workers, extend, fold, fields, stated)
    if extend is not None:
        raise RunError("--extend adds epochs to a finished run; expected --resume with it.")
    if recipe is None:
        raise RunError(
            "Expected a recipe to train, for example unified-mri-ct; `oncoseg recipes` lists them."
        )
    from oncoseg.cross_validate import train_folds
    from oncoseg.train import train as start
    from oncoseg.train_cascade import train_cascade
    from oncoseg.training.sources import Sources, channels_by_modality

    chosen = changed(open_recipe(recipe), fields, TRAIN_FLAGS, only)
    sources = Sources(
        folders,
        channels_by_modality(chosen, parse_channels(channel)),
        accept_implausible,
        licences,
        origins,
        terminal.note_problems,
        terminal.note_found,
        unlabelled=parse_data(unlabelled or [], "--unlabelled"),
    )
    in_stages = chosen.cascade.organ is not None
    _check_folds(folds, fold, split_file, in_stages)
    with _progress() as (preparing, finding, monitor):
        options: dict[str, Any] = {
            "store": store,
            "workers": workers,
            "prepare_progress": preparing,
            "monitor": monitor,
            "foretell": tell_needs,
        }
        if in_stages:
            options |= {"split_file": split_file, "tell": terminal.note, "box_progress": finding}
            outcome = train_cascade(chosen, sources, out, **options)
        elif folds is None:
            outcome = start(chosen, sources, out, split_file=split_file, warn=terminal.note, **options)
        else:
            count = None if folds == "patients" else folds
            outcome = train_folds(chosen, sources, out, count, fold=fold, tell=terminal.note, **options)
    return _report_outcome(outcome)


def begun(tokens: Sequence[str]) -> Path | None:
    """The folder of a `train` that was interrupted while preparing, where there is a run to go on with."""
    joined = [token.removeprefix("--out=") for token in tokens if token.startswith("--out=")]
    apart = [after for flag, after in itertools.pairwise(tokens) if flag == "--out"]
    for out in map(Path, (*joined, *apart)):
        if any((out / name).is_file() for name in ("data.json", "folds.json")):
            return out
    return None


def _check_folds(folds: object, fold: int | None, split_file: Path | None, in_stages: bool) -> None:
    if in_stages and folds is not None:
        raise RunError(
            "A cascade cannot be cross-validated as a whole; leave --folds out. Its first stage has folds "
            "of its own: --cascade.folds."
        )
    if folds is None and fold is not None:
        raise RunError("--fold chooses one fold of a cross-validation; expected --folds with it.")
    if folds is not None and split_file is not None:
        raise RunError("--folds draws the sides of every fold; leave --split out, or --folds.")


def tell_needs(line: str) -> None:
    """Say what a training or a prediction will take."""
    terminal.note(f"This will take {line}.")


def predict(
    run: Path,
    /,
    *inputs: Path,
    out: Path,
    modality: str | None = None,
    channel: Chosen = None,
    formats: Annotated[list[str] | None, Parameter(name="--format", negative="")] = None,
    probabilities: bool = False,
    threshold: float | None = None,
    flips: bool = False,
    overlap: float | None = None,
    ray: str | None = None,
    accept_implausible: bool = False,
) -> None:
    """Mark tumours in new images; each result lies on its input's own grid.

    Args:
        run: The run folder with the trained network.
        inputs: Images, folders of images, or data sets.
        out: The folder for the masks.
        modality: What the inputs are (mri, ct, …), where the run knows more than one.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage": part of the description, a pattern (*flair*), or a SeriesInstanceUID.
            Then nothing is guessed.
        formats: Of the masks: nifti, or for DICOM images also seg (DICOM Segmentation) and rtstruct (RT
            Structure Set); may be repeated. NIfTI when left out.
        probabilities: Also write the probability of tumour of every voxel.
        threshold: Probability from which a voxel is tumour, in place of the run's.
        flips: Average over the four mirror images of each slice, four times as slow; in 3D over eight.
        overlap: Of a run in 3D, share of a window that the next one covers, in place of the run's; 0.25 is
            about twice as fast as 0.5, and a little less smooth.
        ray: A Ray cluster to spread the images over: its address, `auto`, or `local` for one on this machine.
        accept_implausible: Take images that cannot be what they are said to be, such as a CT without
            Hounsfield units.
    """
    if not inputs:
        raise RunError(
            "Expected something to predict: name a file, a folder or a data set after the run folder."
        )
    from oncoseg.predict import Predictor
    from oncoseg.prediction_record import remarks, substitutions
    from oncoseg.run_folder import RunFolder

    changes = prediction_changes(threshold, flips)
    if overlap is not None:
        changes["prediction.overlap"] = overlap
    predictor = Predictor.load(run, changes)
    with terminal.progress("predicting slices") as progress, spread_over(ray, gpus=True) as spread:
        written = predictor.predict(
            inputs,
            out,
            modality=modality,
            channels=parse_channels(channel),
            formats=formats or ("nifti",),
            probabilities=probabilities,
            accept_implausible=accept_implausible,
            progress=progress,
            opened=lambda path, found: terminal.note_found(
                # by its number, as the name of a patient's folder may be the patient's
                "input" if len(inputs) == 1 else f"input {inputs.index(path) + 1}",
                found,
                NOT_FOR_PREDICTING,
            ),
            foretell=tell_needs,
            spread=spread,
            warn=terminal.note,
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
    """Write a run's or a study's HTML report, and beside it every curve as a file of its own.

    RUN/report holds the page (index.html) with tables, curves and pictures and their definitions; the
    curves as SVG (learning curves, ROC, precision–recall, patients) and examples.png, for slides.

    Args:
        run: The run folder; evaluate it first. Or a study's folder, of which what is done is shown.
        evaluation: A folder that `evaluate RUN --out` wrote, to show in place of the run's own; the report
            is then written into it.
    """
    from oncoseg.report import FIGURE_SUFFIXES, write_report, write_study
    from oncoseg.study_folder import is_study

    if is_study(run):
        if evaluation is not None:
            raise RunError(f"--evaluation is for runs, and {run} is a study; leave it out.")
        terminal.say(f"Report: {write_study(run)}")
        return
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
    fold: int | None,
    fields: Mapping[str, Any],
    stated: Mapping[str, Mapping[str, str]],
) -> int:
    from oncoseg.cascade_folder import is_cascade
    from oncoseg.cross_validate import resume_folds
    from oncoseg.folds_folder import is_cross_validation
    from oncoseg.run_folder import RunFolder
    from oncoseg.train import resume
    from oncoseg.train_cascade import resume_cascade

    of_folds, in_stages = is_cross_validation(out), is_cascade(out)
    if fold is not None and not of_folds:
        raise RunError(f"--fold chooses one fold of a cross-validation, and {out} holds none; leave it out.")
    if extend is not None and of_folds:
        raise RunError(
            f"--extend adds epochs to one run, and {out} is a cross-validation; expected one of its folds, "
            f"such as --out {out / 'fold-1'}."
        )
    if extend is not None and in_stages:
        raise RunError(f"--extend adds epochs to one run, and {out} is a cascade; leave it out.")
    if split_file is not None:
        raise RunError("A resumed run keeps its own split; leave --split out, or start a new run.")
    kept = RunFolder(out).recipe()
    wanted = changed(open_recipe(name) if name else kept, fields, TRAIN_FLAGS, only)
    _check_same_recipe(kept, wanted, out)
    with _progress() as (preparing, finding, monitor):
        options: dict[str, Any] = {
            "store": store,
            "max_minutes": wanted.training.max_minutes,
            "workers": workers,
            "prepare_progress": preparing,
            "monitor": monitor,
            "foretell": tell_needs,
            "data": folders,
            **stated,
        }
        if in_stages:
            outcome = resume_cascade(out, tell=terminal.note, box_progress=finding, **options)
        elif of_folds:
            outcome = resume_folds(out, fold=fold, tell=terminal.note, **options)
        else:
            outcome = resume(out, warn=terminal.note, extend=extend, **options)
    return _report_outcome(outcome)


@contextlib.contextmanager
def progress_of_training() -> Iterator[tuple[Callable[[int, int], None], Callable[[Any], None]]]:
    """What shows preparing and training: only the first of several processes shows anything."""
    with _progress() as (preparing, _, monitor):
        yield preparing, monitor


@contextlib.contextmanager
def _progress() -> Iterator[
    tuple[Callable[[int, int], None], Callable[[int, int], None], Callable[[Any], None]]
]:
    """The same with the boxes of a cascade, which are found between its stages."""
    from oncoseg.training.ranks import is_first

    if not is_first():
        yield lambda done, total: None, lambda done, total: None, lambda status: None
        return
    steps = terminal.progress_in_steps("preparing", "finding boxes")
    with steps as (preparing, finding), terminal.training_progress() as monitor:
        yield preparing, finding, monitor


def _check_same_recipe(kept: "Recipe", wanted: "Recipe", out: Path) -> None:
    """A resumed run may be given its recipe and fields again; only its time budget may differ."""
    from oncoseg.cli.changes import changes_in_words

    if differs := changes_in_words(kept, wanted):
        raise RunError(
            f"{out} was started with other settings; expected the same, got others of {differs}. Leave the "
            "recipe and its fields out to go on with the run's own (only --training.max-minutes may change), "
            "or start a new run."
        )


def _report_outcome(outcome: "Outcome") -> int:
    """Say how training ended; the exit code is 128 + n after signal n, `UNFINISHED` after the budget."""
    from oncoseg.training.ranks import is_first, leave_together

    if is_first():
        _say_outcome(outcome)
    leave_together()
    return 0 if outcome.finished else stop_code(outcome)


def stop_code(outcome: "Outcome") -> int:
    """The exit code of a training that was stopped."""
    received = signal.Signals.__members__.get(outcome.reason.split()[0])
    return 128 + received if received is not None else UNFINISHED


def _say_outcome(outcome: "Outcome") -> None:
    from oncoseg.cascade_folder import last_run

    if outcome.finished:
        terminal.say(f"Trained: {outcome.run} ({outcome.reason})")
        if best := kept(last_run(outcome.run).metrics).get("best"):
            dice = ", ".join(f"{name} {_digits(value)}" for name, value in best["validation_dice"].items())
            place = f"{best['stage']} epoch {best['epoch']}"
            terminal.say(f"Kept: the weights of {place}, validation Dice {dice}")
        if left := _folds_left(outcome.run):
            terminal.say(f"Left: {', '.join(left)}; oncoseg train --resume --out {outcome.run}")
        else:
            terminal.say(f"Next: oncoseg evaluate {outcome.run}")
        return
    say_stopped(outcome, f"oncoseg train --resume --out {outcome.run}")
    if stop_code(outcome) == UNFINISHED and outcome.reason.startswith("the time budget"):
        terminal.say(
            "It has as much time again; --training.max-minutes N gives it another budget, none takes it away."
        )


def say_stopped(outcome: "Outcome", command: str) -> None:
    """Say why a training was stopped, and how to go on."""
    terminal.say(f"Stopped: {outcome.reason}; everything so far is kept in {outcome.run}")
    terminal.say(f"Go on with: {command}")


def _folds_left(out: Path) -> list[str]:
    """Of a cross-validation, the folds that are not finished."""
    from oncoseg.folds_folder import FoldsFolder, is_cross_validation

    runs = FoldsFolder(out).runs() if is_cross_validation(out) else []
    return [run.path.name for run in runs if not run.is_finished()]


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def kept(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run folder's record says; nothing where the folder was passed on without it."""
    try:
        return read()
    except RunError:
        return {}
