"""Evaluating a run on one side of its split, with the leakage check before anything is computed."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oncoseg import datasets, predict
from oncoseg import split as splits
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate.renewal import check_place
from oncoseg.evaluate.result import FORMAT_VERSION, evaluate_predictions
from oncoseg.evaluate.scoring import Scoring, as_json
from oncoseg.files import sha256_of_file, sha256_of_json
from oncoseg.predict import CasePrediction
from oncoseg.run_folder import RunFolder

SCORING = Scoring()
"""How the table of all metrics is made beside the paper's own."""

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all) before the first case and after each."""


def evaluate_run(
    run: Path,
    split: str = "test",
    data: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    changes: Mapping[str, Any] | None = None,
    out: Path | None = None,
    replace: bool = False,
) -> Path:
    """Predict and score one side of a run's split.

    The same evaluation, made again, takes the earlier one's place.

    Args:
        run: a run folder with recipe, split, data and weights.
        split: `test`, `validation` or `train`.
        data: modality → folder, where a data set has moved since training.
        progress: told after every case.
        changes: of the recipe's fields, such as `prediction.threshold`.
        out: the folder for the tables; None for RUN/evaluation/SPLIT.
        replace: put it also in the place of an evaluation of other weights, data or settings.

    Returns:
        The folder that was written.

    Raises:
        RunError: the run is incomplete, the side unknown or empty, or another evaluation in the way.
        DataError: a case is gone or has no truth, or a patient is also on another side.
    """
    folder = RunFolder(run)
    cases, synthetic = _cases(folder.split(), folder.data(), split, dict(data or {}))
    predictor = predict.Predictor.load(run, changes)
    recipe = predictor.recipe
    threshold = recipe.prediction.threshold
    made: dict[str, Any] = {
        "split": split,
        "weights": predictor.weights_sha256,
        "prediction": recipe.prediction.model_dump(mode="json")
        | {"precision": predictor.precision, "device": predictor.device.type},
        "data": _fingerprints(cases),
        "synthetic": synthetic,
    }
    in_run = run / "evaluation" / split
    if not replace:
        settings = {"threshold": threshold, "scoring": as_json(SCORING)}
        summary = {"format_version": FORMAT_VERSION, **settings, **made}
        check_place(out or in_run, summary, in_run=out is None)
    predictions = _predictions(predictor, cases, progress)
    evaluation = evaluate_predictions(predictions, threshold, recipe.published, scoring=SCORING)
    return dataclasses.replace(evaluation, **made).write(out or in_run)


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
    for other in splits.PARTS:
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
    return {modality: sha256_of_json(listed)[:16] for modality, listed in contents.items()}


def _predictions(
    predictor: "predict.Predictor", cases: list[tuple[str, Case]], progress: Progress | None
) -> Iterator[CasePrediction]:
    for done, (modality, case) in enumerate(cases):
        if progress is not None:
            progress(done, len(cases))
        yield predictor.predict_case(case, modality)
    if progress is not None:
        progress(len(cases), len(cases))
