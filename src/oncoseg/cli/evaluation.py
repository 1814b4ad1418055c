"""The commands about scores: `oncoseg evaluate` and `compare`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.data import parse_data
from oncoseg.cli.runs import kept, prediction_changes
from oncoseg.cli.scores import faults, left_out, print_contest, print_mask_scores, print_scores
from oncoseg.errors import DataError, RunError

NAMED_OUTCOMES = ("undefined", "computed", "forfeit", "diagonal")
"""What an outcome may be besides a number; see oncoseg.metrics.catalogue.Outcome."""


@dataclass(frozen=True)
class MaskOptions:
    """Flags for masks of any origin; a run needs none of them."""

    prediction: Path | None = None
    """A folder of predicted masks (NIfTI, PNG or TIFF named as the truth's cases), or a data set."""
    truth: Path | None = None
    """A data set, or a folder of true masks (NIfTI; PNG or TIFF of one slice each)."""
    images: Path | None = None
    """A data set, or a folder of images named as the cases, for the pictures; the truth's when left out."""
    classes: Annotated[list[str] | None, Parameter(name="--class")] = None
    """NAME=VALUES, as in tumour=1,2,4; may be repeated. Every label alone when left out."""
    patients: Path | None = None
    """A CSV file with the columns case and patient, where one patient has several cases."""
    key_file: Path | None = None
    """What `oncoseg convert --key-file` wrote: masks under pseudonyms get their cases' names back, as a
    comparison with an evaluation under these names needs. The tables then hold the names."""
    policy: Literal["strict", "brats-2023", "drop"] = "strict"
    """What empty and missing masks are worth."""
    outcome: list[str] | None = None
    """METRIC.SITUATION=VALUE, as in dice.both_empty=1, in place of the policy's; may be repeated."""
    tolerance_mm: float = 2.0
    """Of the surface Dice."""
    connectivity: Literal[6, 18, 26] = 26
    """Neighbours that join a voxel to a lesion."""
    min_lesion_mm3: float = 0.0
    """Smaller lesions are not counted, true or predicted."""
    challenge: Literal["GLI", "SSA", "MEN", "PED", "MET"] = "GLI"
    """Whose rules the BraTS 2023 lesion-wise scores follow."""
    consensus: float = 0.5
    """Share of several readers that must mark a voxel."""
    resample: bool = False
    """Bring predictions from other grids onto the truth's, by nearest neighbour."""
    trained_on: Path | None = None
    """The run folder whose network made the predictions (or that of a cross-validation); patients that it
    has seen are refused."""
    workers: int | None = None
    """Processes; one per processor when left out."""


def evaluate(
    run: Path | None = None,
    /,
    *,
    split: str | None = None,
    data: list[str] | None = None,
    threshold: float | None = None,
    flips: bool = False,
    replace: bool = False,
    out: Path | None = None,
    masks: Annotated[MaskOptions | None, Parameter(name="*")] = None,
) -> None:
    """Compare predictions with the truth: a run's, on patients it was not trained on, or any masks.

    Predictions that are missing or cannot be used count as missing; the exit code is then 2, after all
    scores are written.

    With a RUN, --split, --data, --threshold, --flips and --replace are used; with masks of any origin
    --prediction, --truth and everything after it.

    Args:
        run: The run folder with the trained network; or that of a cross-validation, of which each patient is
            scored by the fold that has not seen them.
        split: test (when left out), validation or train; of a cross-validation none.
        data: MODALITY=PATH, where a data set has moved since training.
        threshold: Probability from which a voxel is tumour, in place of the run's.
        flips: Average over the four mirror images of each slice; four times as slow.
        replace: Put it in the place of an evaluation of other weights, data or settings.
        out: The folder for the tables; a new one. Of a run, RUN/evaluation/SPLIT when left out.
        masks: Flags for masks of any origin.
    """
    if run is not None and masks is None:
        moved, changes = parse_data(data or []), prediction_changes(threshold, flips)
        _evaluate_run(run, split, moved, changes, out, replace)
    elif masks is None:
        raise RunError(
            "Expected a run folder, or --prediction, --truth and --out for masks of any origin; see "
            "`oncoseg evaluate --help`."
        )
    elif run is not None or split or data or threshold is not None or flips or replace:
        raise RunError(
            "Expected a run folder with --split, --data, --threshold, --flips or --replace, or masks with "
            "the flags for masks; got both. Leave one kind out."
        )
    elif masks.prediction is None or masks.truth is None or out is None:
        raise RunError("Expected all of --prediction FOLDER, --truth FOLDER and --out FOLDER (a new one).")
    else:
        _evaluate_masks(masks.prediction, masks.truth, out, masks)


def _evaluate_masks(prediction: Path, truth: Path, out: Path, masks: MaskOptions) -> None:
    from oncoseg.evaluate.masks import evaluate_masks
    from oncoseg.evaluate.pairs import read_key, read_patients
    from oncoseg.evaluate.scoring import Scoring
    from oncoseg.report import write_evaluation

    if truth.resolve() == prediction.resolve():
        raise DataError(f"The truth and the predictions are the same folder, {truth}; expected two.")
    scoring = Scoring(
        masks.tolerance_mm,
        masks.connectivity,
        masks.min_lesion_mm3,
        masks.challenge,
        masks.policy,
        _outcomes(masks.outcome or []),
    )
    names, patients = read_key(masks.key_file) if masks.key_file else (None, None)
    if masks.patients:
        patients = read_patients(masks.patients)
    with terminal.progress("scoring cases") as progress:
        result = evaluate_masks(
            truth,
            prediction,
            out,
            images=masks.images,
            classes=_classes(masks.classes or []) or None,
            patients=patients,
            names=names,
            scoring=scoring,
            share=masks.consensus,
            resample=masks.resample,
            trained_on=masks.trained_on,
            workers=masks.workers,
            progress=progress,
        )
    print_mask_scores(result.summary)
    terminal.say(f"Evaluation: {write_evaluation(result.folder)}")
    if wrong := faults(result.summary):
        raise DataError(wrong)


def _evaluate_run(
    run: Path,
    split: str | None,
    moved: Mapping[str, Path],
    changes: Mapping[str, Any],
    out: Path | None,
    replace: bool,
) -> None:
    from oncoseg.cascade_folder import last_run
    from oncoseg.evaluate.run import evaluate_run

    if not kept(last_run(run).metrics).get("finished", True):
        terminal.note(f"The training is not finished; these are its best weights so far: {run}")
    with terminal.progress("evaluating") as progress:
        folder = evaluate_run(
            run, split, data=moved, progress=progress, changes=changes, out=out, replace=replace
        )
    print_scores(folder)
    terminal.say(f"Evaluation: {folder}")


def _classes(texts: Sequence[str]) -> dict[str, list[int]]:
    classes: dict[str, list[int]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in classes:
            raise DataError(f"--class {name}= is given twice; join its values, as in {name}=1,2.")
        try:
            classes[name] = [int(value) for value in values.split(",")]
        except ValueError as error:
            raise DataError(
                f"Expected --class NAME=VALUES with whole numbers, as in tumour=1,2,4, got {text!r}."
            ) from error
        if not name or min(classes[name]) < 1:
            raise DataError(f"Expected a name and label values above 0, as in tumour=1,2,4, got {text!r}.")
    return classes


def _outcomes(texts: Sequence[str]) -> dict[Any, Any]:
    from oncoseg.errors import nearest
    from oncoseg.metrics.catalogue import METRICS, SITUATIONS

    outcomes: dict[Any, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        metric, _, situation = key.partition(".")
        if metric not in METRICS:
            raise DataError(f"Unknown metric {metric!r} in --outcome {text}; {nearest(metric, METRICS)}")
        if situation not in SITUATIONS:
            raise DataError(
                f"Unknown situation {situation!r} in --outcome {text}; {nearest(situation, SITUATIONS)}"
            )
        outcomes[metric, situation] = _outcome(text, value, METRICS[metric].unit == "mm")
    return outcomes


def _outcome(text: str, value: str, in_mm: bool) -> Any:
    if value in NAMED_OUTCOMES and (in_mm or value != "diagonal"):
        return value
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        named = ", ".join(name for name in NAMED_OUTCOMES if in_mm or name != "diagonal")
        raise DataError(f"Expected a finite number, or one of {named}; got --outcome {text}.")
    return number


def compare(
    *systems: str,
    out: Path,
    split: str = "test",
    metric: list[str] | None = None,
    reference: str | None = None,
    common_only: bool = False,
) -> None:
    """Compare evaluations of the same patients: means with intervals, paired tests, ranks.

    All tests together are one family under Holm's correction.

    Args:
        systems: Evaluation folders or evaluated run folders, as NAME=PATH or PATH; with commas between them,
            several trainings of one system, as in NAME=PATH,PATH.
        out: The folder for the tables; a new one.
        split: Which evaluation of a run folder; of a cross-validation it is the one out of fold.
        metric: A metric to compare by; may be repeated.
        reference: The system that every other one is compared with; every pair when left out.
        common_only: Compare on the patients that both systems have; means and ranks over those that all have.
    """
    from oncoseg.evaluate.compare import TESTED
    from oncoseg.evaluate.compare import compare as compare_all
    from oncoseg.evaluate.contest_files import write
    from oncoseg.report import write_comparison

    chosen = tuple(metric) if metric else TESTED
    contest = compare_all(
        _folders(systems, split), metrics=chosen, reference=reference, common_only=common_only
    )
    page = write_comparison(contest, write(contest, out))
    print_contest(contest)
    terminal.say(f"Comparison: {page}")


def _folders(systems: Sequence[str], split: str) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for text in systems:
        name, equals, paths = text.partition("=")
        texts = (paths if equals else text).split(",")
        if not all(texts) or (equals and not name):
            raise DataError(f"Expected NAME=PATH, PATH or NAME=PATH,PATH, got {text!r}.")
        given = [Path(path) for path in texts]
        name = name if equals else given[0].resolve().name
        if name in folders:
            raise DataError(f"Two systems are called {name!r}; name them, as in first={given[0]}.")
        folders[name] = [_evaluation_in(path, split) for path in given]
    return folders


def _evaluation_in(path: Path, split: str) -> Path:
    """The evaluation itself, or the one that a run folder holds; of a cross-validation, out of fold."""
    from oncoseg.folds_folder import is_cross_validation

    split = "out-of-fold" if split == "test" and is_cross_validation(path) else split
    inside = path / "evaluation"
    if not inside.is_dir():
        return path
    if not (inside / split).is_dir():
        has = ", ".join(sorted(folder.name for folder in inside.iterdir())) or "none"
        raise DataError(f"The run {path} has no evaluation of {split!r}, but of: {has}. Choose with --split.")
    return inside / split


def agreement(dataset: Path, /, *, out: Path, consensus: float = 0.5, workers: int | None = None) -> None:
    """Compare the readers of a data set with each other: the ceiling for any system.

    Every two readers, and of three or more every reader with the consensus of the others; the patient is the
    unit. Cases that cannot be used are left out; the exit code is then 2, after all scores are written.
    Stopped, the same command goes on where it was.

    Args:
        dataset: A data set whose cases have several masks.
        out: The folder for the tables; a new one.
        consensus: Share of the other readers that must mark a voxel.
        workers: Processes; one per processor when left out.
    """
    from oncoseg.evaluate.agreement import reader_agreement
    from oncoseg.report import write_evaluation

    with terminal.progress("comparing readers") as progress:
        result = reader_agreement(dataset, out, share=consensus, workers=workers, progress=progress)
    print_mask_scores(result.summary)
    for remark in result.summary["remarks"]:
        terminal.say(remark)
    terminal.say(f"Agreement: {write_evaluation(result.folder)}")
    if unusable := result.summary["left_out"]:
        raise DataError(left_out(unusable))
