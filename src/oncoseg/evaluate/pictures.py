"""Pictures of an evaluation of masks: chosen after scoring, and only the chosen cases are read again."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from statistics import fmean
from typing import NamedTuple

import numpy as np

from oncoseg import display, io
from oncoseg.errors import OncosegError
from oncoseg.evaluate.choosing import FALSE_ALARM, Candidate, choose, error_of
from oncoseg.evaluate.images import UNNAMED
from oncoseg.evaluate.pairs import Loaded, Pair, load, load_image
from oncoseg.evaluate.panels import Panel, View, telling_slice, view_at
from oncoseg.evaluate.scoring import CaseScores
from oncoseg.labels import has_label
from oncoseg.processes import run_each
from oncoseg.volume import Volume, to_canonical

MOST_CLASSES = 12
"""With more classes, only those with the lowest mean Dice are shown, so that a page stays readable."""

NO_PREDICTION = "There is no prediction of this case: only the truth is drawn."
"""Said under a picture."""

Classes = Mapping[str, Sequence[int]]
"""Name → the label values that it joins."""


class _Job(NamedTuple):
    """A case to read again: its classes that are shown, and why its prediction is left out, if it is."""

    pair: Pair
    classes: Classes
    failure: str


def draw(
    pairs: Sequence[Pair],
    cases: Sequence[CaseScores],
    patients: Sequence[CaseScores],
    classes: Classes,
    failures: Mapping[str, str],
    share: float = 0.5,
    resample: bool = False,
    count: int = 0,
) -> list[Panel]:
    """Choose patients and cases by their scores, and take a slice of each.

    What keeps an image from being shown stands under its picture, which then has a grey ground.

    Args:
        pairs: the files.
        cases: scores of every case and class.
        patients: likewise of every patient.
        classes: name → the label values that it joins.
        failures: case → why its prediction could not be used.
        share: of several readers that must mark a voxel.
        resample: bring predictions from other grids onto the truth's.
        count: processes.
    """
    shown = _shown_classes(patients)
    cases = [row for row in cases if row.label in shown]
    choices = choose(_candidates(patients, cases), _errors(patients, cases))
    labels: dict[str, set[str]] = {}
    for _, one in choices:
        labels.setdefault(str(one.shown), set()).add(one.label)
    jobs = [
        _Job(pair, {name: classes[name] for name in sorted(labels[pair.case])}, failures.get(pair.case, ""))
        for pair in pairs
        if pair.case in labels
    ]
    views = dict(run_each(partial(_views, share, resample), jobs, count, "drawing"))
    return [
        Panel(one.group, one.label, roles, one.patient, one.dice, views[str(one.shown)][one.label])
        for roles, one in choices
    ]


def _shown_classes(patients: Sequence[CaseScores]) -> set[str]:
    dice: dict[str, list[float]] = {row.label: [] for row in patients}
    for row in patients:
        if not math.isnan(row.values["dice"]):
            dice[row.label].append(row.values["dice"])
    means = {label: fmean(values) if values else math.inf for label, values in dice.items()}
    return set(sorted(means, key=means.__getitem__)[:MOST_CLASSES])


def _candidates(patients: Sequence[CaseScores], cases: Sequence[CaseScores]) -> list[Candidate]:
    """Every patient with tumour or a prediction, shown by the case with the most of them."""
    largest: dict[tuple[str, str, str], CaseScores] = {}
    for row in cases:
        key = row.group, row.label, row.patient
        if key not in largest or _extent(row) > _extent(largest[key]):
            largest[key] = row
    return [
        Candidate(
            row.group,
            row.label,
            row.patient,
            row.values["dice"],
            _size(row, _extent(row)[0]),
            largest[key].case,
        )
        for row in patients
        if (key := (row.group, row.label, row.patient)) in largest and any(_extent(row))
    ]


def _errors(patients: Sequence[CaseScores], cases: Sequence[CaseScores]) -> list[tuple[str, Candidate]]:
    dice = {(row.group, row.label, row.patient): row.values["dice"] for row in patients}
    found = []
    for row in cases:
        if kind := error_of(row.counts):
            size = _size(row, _extent(row)[kind == FALSE_ALARM])
            of_patient = dice[row.group, row.label, row.patient]
            found.append((kind, Candidate(row.group, row.label, row.patient, of_patient, size, row.case)))
    return found


def _extent(row: CaseScores) -> tuple[int, int]:
    """True and predicted voxels."""
    return row.counts.tp + row.counts.fn, row.counts.tp + row.counts.fp


def _size(row: CaseScores, voxels: int) -> float:
    """Volume in ml; voxels where their size is unknown."""
    return voxels * (1.0 if math.isnan(row.voxel_ml) else row.voxel_ml)


def _views(share: float, resample: bool, job: _Job) -> tuple[str, dict[str, View]]:
    """The case, and its slice for each class."""
    pair = job.pair._replace(maps=())
    loaded = load(pair._replace(prediction=None) if job.failure else pair, share, resample)
    images = dict(pair.images or {})
    # several classes may be shown on one channel
    read = cache(lambda channel: load_image(images[channel], loaded.like))
    return pair.case, {label: _view(job, loaded, label, list(images), read) for label in job.classes}


def _view(
    job: _Job, loaded: Loaded, label: str, channels: Sequence[str], read: Callable[[str], Volume]
) -> View:
    masks = (loaded.truth, loaded.prediction)
    truth, prediction = (
        np.zeros(loaded.like.grid, bool) if mask is None else has_label(mask, job.classes[label])
        for mask in masks
    )
    truth, prediction = _canonical(truth, loaded.like), _canonical(prediction, loaded.like)
    grid = to_canonical(loaded.like)[0]
    view = view_at(
        telling_slice(truth, prediction),
        job.pair.case,
        truth,
        prediction,
        grid.spacing_mm if grid.spacing_known else None,
        display.letters(grid.affine_ras) if io.orientation_known(loaded.like) else None,
    )
    notes = [_why_missing(job.failure)] if loaded.prediction is None else []
    if channels:
        try:
            view = _over_image(view, grid, display.shown_channel(channels, label), read)
        except OncosegError as error:
            notes.append(f"Its image is not shown: {error}")
    return view._replace(note=" ".join(notes))


def _over_image(view: View, grid: Volume, channel: str, read: Callable[[str], Volume]) -> View:
    voxels = to_canonical(read(channel))[0].array[0]
    marks = np.zeros(voxels.shape, bool)
    marks[..., view.slice_index] = view.outcome > 0
    # a channel that only got a name for want of a better one may be CT
    named = "" if channel.startswith(UNNAMED) else channel
    window = display.choose_window(voxels, marks, grid.spacing_mm, named)
    shown = display.brightness(voxels[..., view.slice_index], window)
    return view.over(shown, f"{channel}, {window.words}")


def _canonical(mask: np.ndarray, like: Volume) -> np.ndarray:
    turned: np.ndarray = to_canonical(like.with_array(mask[None]))[0].array[0]
    return turned


def _why_missing(failure: str) -> str:
    return f"Its prediction is not shown and counts as missing: {failure}" if failure else NO_PREDICTION
