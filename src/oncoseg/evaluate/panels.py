"""Which slices a report shows: best, median and worst patient of each modality, and a false alarm."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.predict import CasePrediction


class Candidate(NamedTuple):
    """A slice that may be shown, two bytes per pixel.

    Attributes:
        size: (truth, predicted) pixels; the largest is kept.
        modality: a name in the recipe's modalities.
        patient: the data set's own public id.
        case_id: the case it comes from.
        slice_index: along k, from 0.
        aspect: height of a pixel over its width when i runs to the right.
        image: uint8, axes `i j`.
        outcome: uint8, axes `i j`; 1 truth, 2 prediction, 3 both.
    """

    size: tuple[int, int]
    modality: str
    patient: str
    case_id: str
    slice_index: int
    aspect: float
    image: np.ndarray
    outcome: np.ndarray


class Panel(NamedTuple):
    """One chosen slice and why it was chosen.

    Attributes:
        modality: a name in the recipe's modalities.
        role: `best`, `median`, `worst` or `false-alarm`.
        patient: the data set's own public id.
        case_id: the case.
        slice_index: along k, from 0.
        patient_dice: Dice of the whole patient; NaN for a false alarm.
        slice_dice: Dice of this slice.
        aspect: height of a pixel over its width when i runs to the right.
        image: uint8, axes `i j`.
        truth: uint8 0 or 1, axes `i j`.
        prediction: uint8 0 or 1, axes `i j`.
    """

    modality: str
    role: str
    patient: str
    case_id: str
    slice_index: int
    patient_dice: float
    slice_dice: float
    aspect: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def candidates(case: CasePrediction, predicted: np.ndarray) -> tuple[Candidate, Candidate | None]:
    """The slice with most tumour (then most predicted), and the largest false alarm if there is any.

    Args:
        case: image and truth.
        predicted: bool, axes `i j k`.
    """
    truth_pixels = case.truth.sum(axis=(0, 1))
    predicted_pixels = predicted.sum(axis=(0, 1))
    shown = int(np.lexsort((predicted_pixels, truth_pixels))[-1])
    false_pixels = np.where(truth_pixels == 0, predicted_pixels, 0)
    false_alarm = int(false_pixels.argmax())
    return (
        _candidate(case, predicted, shown),
        _candidate(case, predicted, false_alarm) if false_pixels[false_alarm] else None,
    )


def choose(patients: Iterable[tuple[Candidate, float]], false_alarms: Mapping[str, Candidate]) -> list[Panel]:
    """Best, median and worst patient by Dice, then a false alarm, modality by modality.

    Args:
        patients: a slice and the Dice of each patient; one without a Dice (NaN: nothing there, nothing
            predicted) is not shown, and nobody is shown twice.
        false_alarms: modality → slice.
    """
    by_modality: dict[str, list[tuple[Candidate, float]]] = {}
    for candidate, dice in patients:
        by_modality.setdefault(candidate.modality, []).append((candidate, dice))
    panels = []
    for modality, group in by_modality.items():
        ranked = sorted((pair for pair in group if not math.isnan(pair[1])), key=lambda pair: -pair[1])
        panels += [_panel(role, *ranked[place]) for role, place in _places(len(ranked)).items()]
        if modality in false_alarms:
            panels.append(_panel("false-alarm", false_alarms[modality], math.nan))
    return panels


def _places(n: int) -> dict[str, int]:
    if n < 3:
        return dict(zip(("best", "worst"), range(n), strict=False))
    return {"best": 0, "median": n // 2, "worst": n - 1}


def _candidate(case: CasePrediction, predicted: np.ndarray, index: int) -> Candidate:
    truth, prediction = case.truth[..., index], predicted[..., index]
    aspect = 1.0 if case.spacing_mm is None else case.spacing_mm[1] / case.spacing_mm[0]
    return Candidate(
        (int(truth.sum()), int(prediction.sum())),
        case.modality,
        case.patient,
        case.case_id,
        index,
        aspect,
        (np.clip(case.image[..., index], 0, 1) * 255).round().astype(np.uint8),
        truth.astype(np.uint8) + 2 * prediction.astype(np.uint8),
    )


def _panel(role: str, shown: Candidate, patient_dice: float) -> Panel:
    truth, prediction = (shown.outcome & 1).astype(bool), (shown.outcome & 2).astype(bool)
    return Panel(
        shown.modality,
        role,
        shown.patient,
        shown.case_id,
        shown.slice_index,
        patient_dice,
        metrics.score("dice", metrics.confusion(truth, prediction)),
        shown.aspect,
        shown.image,
        truth.astype(np.uint8),
        prediction.astype(np.uint8),
    )
