"""Evaluating a run on one side of its split, with the leakage check before anything is computed."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg import datasets, predict
from oncoseg import split as splits
from oncoseg.case_prediction import CasePrediction
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate.case_masks import CaseMasks
from oncoseg.evaluate.panels import View
from oncoseg.evaluate.renewal import check_place
from oncoseg.evaluate.result import evaluate_predictions, format_version
from oncoseg.evaluate.scoring import TUMOUR, Scoring, as_json
from oncoseg.evaluate.tally import view_of_case
from oncoseg.files import sha256_of_file, sha256_of_json
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.networks import weights_sha256
from oncoseg.predict_cascade import nothing_found_in
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.shares import rule_of

SCORING = Scoring()
"""How the table of all metrics is made beside the paper's own."""

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all) before the first case and after each."""


OUT_OF_FOLD = "out-of-fold"
"""The side of a cross-validation: every patient, scored by the fold that has not seen them."""


class _Side(NamedTuple):
    """What one network is evaluated on: (modality, case) of a side of its own split."""

    run: Path
    cases: list[tuple[str, Case]]
    synthetic: bool


def evaluate_run(
    run: Path,
    split: str | None = None,
    data: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    changes: Mapping[str, Any] | None = None,
    out: Path | None = None,
    replace: bool = False,
    timed: Callable[[float], None] | None = None,
) -> Path:
    """Predict and score one side of a run's split, or all patients of a cross-validation out of fold.

    The same evaluation, made again, takes the earlier one's place.

    Args:
        run: a run folder with recipe, split, data and weights; or the folder of a cross-validation, of which
            each patient is predicted by the one fold that has not seen them.
        split: `test`, `validation` or `train`; of a cross-validation only `out-of-fold`. None for `test`,
            or for that.
        data: modality → folder, where a data set has moved since training.
        progress: told after every case.
        changes: of the recipe's fields, such as `prediction.threshold`.
        out: the folder for the tables; None for RUN/evaluation/SPLIT.
        replace: put it also in the place of an evaluation of other weights, data or settings.
        timed: told after every case how many seconds it took from its files to probabilities on their grid.

    Returns:
        The folder that was written.

    Raises:
        RunError: the run is incomplete, the side unknown or empty, or another evaluation in the way; of a
            cross-validation, another side, or a fold that is not finished.
        DataError: a case is gone or has no truth, or a patient is also on another side.
    """
    folds = is_cross_validation(run)
    part = split or (OUT_OF_FOLD if folds else "test")
    sides = _out_of_fold(run, part, dict(data or {})) if folds else [_side(run, part, dict(data or {}))]
    cases = [case for side in sides for case in side.cases]
    first = predict.Predictor.load(sides[0].run, changes)
    recipe = first.recipe
    threshold = recipe.prediction.threshold
    made: dict[str, Any] = {
        "split": part,
        "weights": weights_sha256(run) if folds else first.weights_sha256,
        "prediction": recipe.prediction.model_dump(mode="json")
        | {"precision": first.precision, "device": first.device.type}
        | rule_of(len(recipe.classes))
        | ({"folds": len(sides)} if folds else {}),
        "data": _fingerprints(cases),
        "synthetic": any(side.synthetic for side in sides),
    }
    in_run = run / "evaluation" / part
    if not replace:
        settings = {"threshold": threshold, "scoring": as_json(SCORING)}
        summary = {"format_version": format_version(recipe.classes), **settings, **made}
        check_place(out or in_run, summary, in_run=out is None)
    scratch = _present(out or in_run)
    predictions = _predictions(first, sides, changes, progress, timed, scratch)
    shown = class_to_show(recipe)
    evaluation = evaluate_predictions(predictions, threshold, recipe.published, scoring=SCORING, shown=shown)
    if missed := sum(map(len, evaluation.organ_not_found.values())):
        made["remarks"] = [nothing_found_in(missed, evaluation.count, recipe.cascade.organ or "organ")]
    return dataclasses.replace(evaluation, **made).write(out or in_run)


def is_evaluated(run: Path, split: str) -> bool:
    """Whether a run's evaluation of one side lies there whole, of its present weights and data.

    Raises:
        RunError: the run is incomplete, or has no such side.
        DataError: as `evaluate_run`.
    """
    try:
        summary = json.loads((run / "evaluation" / split / "summary.json").read_text(encoding="utf-8"))
        of = summary["format_version"], summary["weights"], summary["data"]
        rule = summary["prediction"].get("labels_by")
    except (OSError, ValueError, KeyError, TypeError):
        return False
    classes = RunFolder(run).recipe().classes
    if rule != rule_of(len(classes)).get("labels_by"):
        return False
    return of == (format_version(classes), weights_sha256(run), _fingerprints(_side(run, split, {}).cases))


def class_to_show(recipe: Recipe) -> str | None:
    """The class by which patients and slices are chosen for pictures, where the recipe names its tumour."""
    return recipe.training.tumour_class if len(recipe.classes) > 1 else None


def view_of(
    run: Path, split: str, modality: str, case_id: str, slice_index: int, label: str = TUMOUR
) -> View:
    """One slice of a case with what a run predicts on it.

    Args:
        run: a run folder.
        split: the side that the case is on.
        modality: of the case.
        case_id: the case.
        slice_index: along k, from 0 at the feet.
        label: of several classes, the one that is told of in numbers.

    Raises:
        RunError: the run is incomplete.
        DataError: the case is not there, or cannot be used.
    """
    cases = [case for name, case in _side(run, split, {}).cases if (name, case.id) == (modality, case_id)]
    if not cases:
        raise DataError(f"{run}: the {split} side has no case {case_id!r} of {modality}; expected one.")
    predictor = predict.Predictor.load(run)
    case = predictor.predict_case(cases[0], modality)
    return view_of_case(CaseMasks(case, predictor.recipe.prediction.threshold), slice_index, label)


def _out_of_fold(run: Path, part: str, moved: Mapping[str, Path]) -> list[_Side]:
    """The test side of every fold.

    Raises:
        RunError: another side is asked for, or a fold is not finished or tests others than it should.
    """
    if part != OUT_OF_FOLD:
        raise RunError(
            f"{run} is a cross-validation, whose every patient some fold was trained on; expected the split "
            f"{OUT_OF_FOLD}, got {part!r}. Leave --split out, or evaluate a fold: {run / 'fold-1'}."
        )
    folder = FoldsFolder(run)
    for fold, split in zip(folder.finished_runs(), folder.splits(), strict=True):
        if fold.split() != split:
            raise RunError(
                f"The split of {fold.path} is another than {run / 'folds.json'} says; expected the fold as "
                "it was drawn. Restore it, or train it again."
            )
    return [_side(fold.path, "test", moved) for fold in folder.runs()]


def _side(run: Path, part: str, moved: Mapping[str, Path]) -> _Side:
    folder = RunFolder(run)
    return _Side(run, *_cases(folder.split(), folder.data(), part, moved))


def _cases(
    sides: Mapping[str, Any], sources: Mapping[str, Any], part: str, moved: Mapping[str, Path]
) -> tuple[list[tuple[str, Case]], bool]:
    """(Modality, case) of one side, and whether phantoms are among them."""
    if part not in splits.PARTS:
        raise RunError(f"Unknown split {part!r}; expected one of {', '.join(splits.PARTS)}.")
    unknown = sorted(set(moved) - set(sides))
    if unknown:
        raise RunError(f"Unknown modality {unknown[0]!r}; this run has {', '.join(sides)}.")
    if not any(listed.get(part) for listed in sides.values()):
        raise RunError(
            f"The split of this run has no patient under {part}, so that there is nothing to evaluate. "
            "Choose another side with --split, or predict other patients and evaluate the masks."
        )
    chosen: list[tuple[str, Case]] = []
    synthetic = False
    for modality, listed in sides.items():
        source = sources[modality]
        folder = Path(moved.get(modality, source["path"]))
        try:
            scan = datasets.open_dataset(folder, source["layout"], channels=source.get("channels"))
        except DataError as error:
            raise DataError(
                f"{error} The run was trained on it; if it has moved, say where to: --data {modality}=PATH."
            ) from error
        cases = splits.from_json({part: listed.get(part, {})}, scan.cases)[part]
        _check_unseen(modality, sides, part, cases)
        chosen += [(modality, case) for case in cases]
        synthetic = synthetic or scan.synthetic
    return chosen, synthetic


def _check_unseen(modality: str, sides: Mapping[str, Any], part: str, cases: list[Case]) -> None:
    evaluated = {case.patient for case in cases} | set(sides[modality].get(part, {}))
    others = [*splits.PARTS, *([splits.UNLABELLED] if part != "train" else [])]
    for other in others:
        listed = {patient for parts in sides.values() for patient in parts.get(other, {})}
        shared = sorted(evaluated & listed) if other != part else []
        if shared:
            raise DataError(
                f"{modality}: {len(shared)} patients of {part} are also in {other}, the first is "
                f"{shared[0]!r}; expected every patient on one side only. A score on them would not tell "
                "how the network does on new patients: train again with a split by patient."
            )
    without = [case.id for case in cases if not case.masks]
    if without:
        raise DataError(
            f"{modality}: {len(without)} cases of {part} have no mask to compare with, the first is "
            f"{without[0]!r}. Add the masks, or use oncoseg predict for cases without truth."
        )


def _fingerprints(cases: list[tuple[str, Case]]) -> dict[str, str]:
    """Modality → a hash of what the files of its cases hold, wherever they lie."""
    contents: dict[str, list[Any]] = {}
    for modality, case in cases:
        channels = [[name, *map(sha256_of_file, case.images[name].files)] for name in sorted(case.images)]
        masks = [[*map(sha256_of_file, mask.files)] for mask in case.masks]
        contents.setdefault(modality, []).append([case.id, channels, masks])
    return {modality: sha256_of_json(sorted(listed))[:16] for modality, listed in contents.items()}


def _present(folder: Path) -> Path:
    """A folder, or the nearest above it that there is already: they lie on the same disk."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())


def _predictions(
    first: "predict.Predictor",
    sides: Sequence[_Side],
    changes: Mapping[str, Any] | None,
    progress: Progress | None,
    timed: Callable[[float], None] | None,
    scratch: Path,
) -> Iterator[CasePrediction]:
    """Each side's cases by its own network, of which one is in memory at a time."""
    done, total = 0, sum(len(side.cases) for side in sides)
    for number, side in enumerate(sides):
        predictor = predict.Predictor.load(side.run, changes) if number else first
        for modality, case in side.cases:
            if progress is not None:
                progress(done, total)
            began = time.monotonic()
            predicted = predictor.predict_case(case, modality, scratch)
            if timed is not None:
                timed(time.monotonic() - began)
            yield predicted
            done += 1
    if progress is not None:
        progress(total, total)
