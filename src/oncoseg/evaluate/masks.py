"""Scoring predictions of any origin against their truth, case by case in several processes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oncoseg import io
from oncoseg.datasets import has_synthetic_note
from oncoseg.errors import DataError, OncosegError
from oncoseg.evaluate import pictures, summary_tables
from oncoseg.evaluate.images import with_images
from oncoseg.evaluate.pairs import ONLY_CLASS, Pair, check_labels, find_pairs, label_values, load, load_map
from oncoseg.evaluate.panels import write_panels
from oncoseg.evaluate.scoring import CaseScores, Scoring, of_patients, score_case
from oncoseg.evaluate.summary import describe, summarise, write
from oncoseg.evaluate.truths import fingerprints, in_canonical
from oncoseg.files import filled, new_folder, write_json
from oncoseg.folds_folder import split_of_model
from oncoseg.io import ImageRef
from oncoseg.labels import check_share
from oncoseg.processes import processes_within, run_each
from oncoseg.split import UNLABELLED
from oncoseg.volume import Volume

FORMAT_VERSION = 2
"""Version of summary.json, of masks of any origin."""

MEMORY_PER_PROCESS_GIB = 0.3
"""Python, NumPy and SciPy in a process, besides the voxels."""

BYTES_PER_VOXEL = 12
"""At the peak: both masks as read and as labels, one class of each as bool, and its boundary."""

MAP_COPIES = 2.5
"""A probability map as read and, at the peak, the search for candidate lesions in it; one map at a time."""

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


class Result(NamedTuple):
    """What was found.

    Attributes:
        folder: where it was written.
        cases: scores of every case and class.
        patients: likewise of every patient.
        summary: as in summary.json.
        failures: case → why its prediction could not be used; it is scored as missing.
        without_truth: predictions that were left out.
        map_failures: case → why its probability map could not be used; what needs it is scored as missing.
    """

    folder: Path
    cases: list[CaseScores]
    patients: list[CaseScores]
    summary: dict[str, Any]
    failures: dict[str, str]
    without_truth: list[str]
    map_failures: dict[str, str]


class _Scored(NamedTuple):
    scores: list[CaseScores]
    failure: str
    map_failure: str


def evaluate_masks(
    truth: Path,
    prediction: Path,
    out: Path,
    *,
    images: Path | None = None,
    classes: Mapping[str, Sequence[int]] | None = None,
    patients: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    scoring: Scoring | None = None,
    share: float = 0.5,
    resample: bool = False,
    trained_on: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score a folder of predicted masks against a folder of true ones.

    A prediction that is missing or cannot be used counts as missing under the policy's rule, and never
    keeps the other cases from being scored.

    Args:
        truth: a data set of a known layout, or a folder of masks; see `find_pairs`.
        prediction: likewise; `CASE_probability` beside a mask (of several classes `CASE_CLASS_probability`)
            gives the metrics of ranking and calibration, and the curves.
        out: a new folder for the tables.
        images: a data set, or a folder of images named as the cases, for the pictures; None takes those of
            the truth's data set. They decide no score.
        classes: name → the label values that it joins; None for each of the truth's labels alone.
        patients: case → patient, for folders that do not say.
        names: what files are called → the case; see `find_pairs`.
        scoring: what there is to choose about the metrics.
        share: of several readers that must mark a voxel.
        resample: allow predictions on other grids, brought to the truth's by nearest neighbour.
        trained_on: the run folder of the network that made the predictions, or the folder of the
            cross-validation whose ensemble did; a patient that it has seen is refused.
        workers: processes; None for one per processor, 0 for none besides this one.
        progress: called after every case.

    Raises:
        DataError: no case that is in both folders, a truth that cannot be used, no label in it, a
            patient that the network was trained on, or `images` without one of any case.
        RunError: `out` holds something or cannot be written.
    """
    chosen = scoring or Scoring()
    check_share(share)
    pairs, without_truth, synthetic = find_pairs(truth, prediction, patients, names)
    if trained_on is not None:
        check_unseen(pairs, split_of_model(trained_on))
    if images is not None:
        pairs, synthetic = with_images(pairs, images), synthetic or has_synthetic_note(images)
    count = processes_within(workers, None, _gib_of(pairs), len(pairs))
    out = new_folder(out, "The evaluation folder")
    with filled(out):
        classes = classes or _labels_of(pairs, share, count)
        pairs, without_class = _maps_of_classes(pairs, list(classes))
        mapped = frozenset(name for pair in pairs for name, _ in pair.maps)
        score = partial(_score_pair, dict(classes), chosen, share, resample, mapped)
        scored = _score_all(score, pairs, count, progress)
    cases = [row for pair in pairs for row in scored[pair.case].scores]
    failures = {name: result.failure for name, result in sorted(scored.items()) if result.failure}
    of_maps = {name: result.map_failure for name, result in sorted(scored.items()) if result.map_failure}
    of_each = of_patients(cases, chosen)
    summary = summarise(of_each, chosen) | {
        "format_version": FORMAT_VERSION,
        "classes": {name: list(values) for name, values in classes.items()},
        "compared": {
            "prediction": prediction.resolve().name,
            "truth": truth.resolve().name,
            "resampled": resample,
        },
        "cases": len(pairs),
        "failures": failures,
        "map_failures": of_maps,
        "missing": [pair.case for pair in pairs if pair.prediction is None],
        "without_truth": without_truth,
        "unlisted": [] if patients is None else [pair.case for pair in pairs if pair.case not in patients],
        "synthetic": synthetic,
        "maps_without_class": without_class,
    }
    write(out, cases, of_each, describe(of_each, chosen), summary, summary_tables.of_masks(summary))
    # after the scores are safe, which do not depend on it
    shown = pictures.draw(pairs, cases, of_each, classes, failures, share, resample, count)
    summary |= {"panels": write_panels(out, shown)}
    write_json(out / "summary.json", summary)
    return Result(out, cases, of_each, summary, failures, without_truth, of_maps)


def _score_all(
    score: Callable[[Pair], tuple[str, _Scored]],
    pairs: Sequence[Pair],
    count: int,
    progress: Progress | None,
) -> dict[str, _Scored]:
    """Case → its scores, in order of arrival."""
    scored = {}
    if progress is not None:
        progress(0, len(pairs))
    for done, (name, result) in enumerate(run_each(score, pairs, count, "scoring"), 1):
        scored[name] = result
        if progress is not None:
            progress(done, len(pairs))
    return scored


def check_unseen(pairs: Sequence[Pair], split: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Check that a network has not seen the patients that it is scored on.

    Args:
        pairs: the cases.
        split: modality → part → patient → cases, as in a run folder.

    Raises:
        DataError: says how many it has seen, and names the first.
    """
    seen = {
        patient
        for sides in split.values()
        for part in ("train", "validation", UNLABELLED)
        for patient in sides.get(part, {})
    }
    shared = sorted({pair.patient for pair in pairs} & seen)
    if shared:
        raise DataError(
            f"{len(shared)} patients were seen in training, the first is {shared[0]!r}; expected others. "
            "A score on them would not tell how the network does on new patients: take them out of the truth."
        )


def _score_pair(
    classes: Mapping[str, Sequence[int]],
    scoring: Scoring,
    share: float,
    resample: bool,
    mapped: Collection[str],
    pair: Pair,
) -> tuple[str, _Scored]:
    score = partial(_scores, classes, scoring, share, resample, mapped)
    try:
        scores, of_maps = score(pair)
        return pair.case, _Scored(scores, "", of_maps)
    except OncosegError as error:
        try:
            scores, _ = score(pair._replace(prediction=None, maps=()))
            return pair.case, _Scored(scores, str(error), "")
        except OncosegError:
            raise DataError(f"Case {pair.case}: {error}") from error


def _scores(
    classes: Mapping[str, Sequence[int]],
    scoring: Scoring,
    share: float,
    resample: bool,
    mapped: Collection[str],
    pair: Pair,
) -> tuple[list[CaseScores], str]:
    """Scores of a case, and why maps could not be used; `mapped` are the classes with a map in some case."""
    loaded = load(pair, share, resample)
    check_labels(loaded, classes)
    files = dict(pair.maps) if pair.prediction is not None else {}
    why: list[str] = []
    maps = {
        name: partial(_map_or_none, files[name], loaded.like, resample, why) if name in files else None
        for name in mapped
    }
    of_pair = pair.case, pair.patient, loaded.truth, loaded.prediction, loaded.spacing_mm
    found = fingerprints(in_canonical(loaded.truth, loaded.like), classes)
    scores = score_case(*of_pair, classes, scoring, maps, axes_mm=loaded.like.sheared_axes_mm)
    return [row._replace(truth=found[row.label]) for row in scores], " ".join(dict.fromkeys(why))


def _map_or_none(ref: ImageRef, like: Volume, resample: bool, why: list[str]) -> np.ndarray | None:
    """A probability map, or a reason: a bad one must not cost its mask."""
    try:
        return load_map(ref, like, resample)
    except OncosegError as error:
        why.append(str(error))
        return None


def _maps_of_classes(pairs: Sequence[Pair], classes: Sequence[str]) -> tuple[list[Pair], int]:
    """The pairs with the maps of these classes, and how many maps are of none of them."""
    only = classes[0] if len(classes) == 1 else ONLY_CLASS
    named, others = [], 0
    for pair in pairs:
        maps = [(only if name == ONLY_CLASS else name, ref) for name, ref in pair.maps]
        known = tuple((name, ref) for name, ref in maps if name in classes)
        named.append(pair._replace(maps=known))
        others += len(maps) - len(known)
    return named, others


def _labels_of(pairs: Sequence[Pair], share: float, count: int) -> dict[str, tuple[int, ...]]:
    """Every label of the truth as a class of its own: as declared, else as found."""
    declared = {value: name for pair in pairs for value, name in pair.labels.items()}
    if declared:  # a table's 1 and 255 are one class
        names = dict.fromkeys(name for _, name in sorted(declared.items()))
        return {name: tuple(sorted(v for v, called in declared.items() if called == name)) for name in names}
    found = {
        value for values in run_each(partial(_values_in, share), pairs, count, "scoring") for value in values
    }
    if not found:
        raise DataError("No truth holds any label; expected some tumour. Say what counts with --class.")
    return {f"label-{value}": (value,) for value in sorted(found)}


def _values_in(share: float, pair: Pair) -> list[int]:
    try:
        return label_values(load(pair._replace(prediction=None, maps=()), share, False).truth)
    except OncosegError as error:
        raise DataError(f"Case {pair.case}: {error}") from error


def _gib_of(pairs: Sequence[Pair]) -> float:
    """What a process needs for the largest case."""
    return MEMORY_PER_PROCESS_GIB + max(_bytes_of(pair) for pair in pairs) / 2**30


def _bytes_of(pair: Pair) -> float:
    largest_map = max((_voxels(ref) for _, ref in pair.maps), default=0)
    return BYTES_PER_VOXEL * _voxels(pair.truth[0]) + MAP_COPIES * largest_map


def _voxels(ref: ImageRef) -> int:
    try:
        return io.voxel_bytes(ref)
    except DataError:
        return 0  # reading it will say what is wrong
