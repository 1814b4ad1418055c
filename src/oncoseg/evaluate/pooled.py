"""Curves and rates over the voxels and lesions of all patients, for any weights of the patients.

Each function takes weights `samples patients` and gives `samples columns`, so that drawing patients anew
(`statistics.estimate`, `statistics.band`) costs a product of matrices; NaN where nothing is defined.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.evaluate.curve_sums import CurveSums
from oncoseg.metrics.froc import LUNA16_FALSE_POSITIVES
from oncoseg.metrics.overlap import Confusion
from oncoseg.statistics import ROUNDING

FALSE_POSITIVE_RATES = np.unique([0, *np.geomspace(1e-5, 1, 61), *np.linspace(0, 1, 101)])
"""Where a ROC curve is kept: finer near 0, where it rises wherever background is plenty."""

RECALLS = np.linspace(0, 1, 201)[1:]
"""Where a precision–recall curve is kept."""

FROC_RATES = np.geomspace(LUNA16_FALSE_POSITIVES[0], LUNA16_FALSE_POSITIVES[-1], 73)
"""Where a FROC curve is kept, in false positives per case."""


class Patients(NamedTuple):
    """Sums of patients, one row each.

    Attributes:
        background: background voxels by probability, `patients CURVE_BINS`.
        tumour: tumour voxels, likewise.
        missing_voxels: tumour voxels that no map has found, per patient.
        voxels: in each bin of the reliability curve, `patients CALIBRATION_BINS`.
        probability: their sum, likewise.
        positives: tumour voxels among them, likewise.
        squared_error: per patient.
        cases: in which false positive lesions can be, per patient.
        lesions: true lesions in them, per patient.
        missing_lesions: true lesions that no map has found, per patient.
        found: true lesions by score, `patients CURVE_BINS`.
        false: false positive candidates by score, likewise.
    """

    background: np.ndarray
    tumour: np.ndarray
    missing_voxels: np.ndarray
    voxels: np.ndarray
    probability: np.ndarray
    positives: np.ndarray
    squared_error: np.ndarray
    cases: np.ndarray
    lesions: np.ndarray
    missing_lesions: np.ndarray
    found: np.ndarray
    false: np.ndarray


def stack(sums: Iterable[CurveSums]) -> Patients:
    """The sums of patients as one array each."""
    rows = [
        (
            *one.voxels,
            one.missing_voxels,
            *one.calibration,
            one.froc_cases,
            one.lesions,
            one.missing_lesions,
            one.found,
            one.false,
        )
        for one in sums
    ]
    columns = [np.array(column, float) for column in zip(*rows, strict=True)]
    return Patients(*columns)


def recall_at(patients: Patients, rates: Sequence[float] | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The ROC curve: share of tumour voxels found at rates of false positives among background voxels.

    Linear between thresholds. Missing tumour is found at none.
    """
    false, true, positives = _by_threshold(patients, weights)
    with np.errstate(invalid="ignore"):
        x, y = false / false[:, -1:], true / positives
    return _read(rates, x, y)


def precision_at(
    patients: Patients, recalls: Sequence[float] | np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The precision–recall curve: precision at the strictest threshold that reaches a recall above 0.

    Nothing is interpolated. 0 where no threshold reaches it, as where tumour is missing.
    """
    false, true, positives = _by_threshold(patients, weights)
    precision = _precision(false, true)
    reached = [
        np.searchsorted(row, (np.asarray(recalls) - ROUNDING) * total)
        for row, total in zip(true, positives[:, 0], strict=True)
    ]
    padded = np.concatenate([precision, np.zeros((len(weights), 1))], axis=1)
    found = np.take_along_axis(padded, np.array(reached), axis=1)
    return np.where(_both(false, positives), found, np.nan)


def areas(patients: Patients, weights: np.ndarray) -> np.ndarray:
    """Columns: area under the ROC curve, and average precision."""
    false, true, positives = _by_threshold(patients, weights)
    with np.errstate(invalid="ignore"):
        x, recall = false / false[:, -1:], true / positives
        auc = (np.diff(x) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1)
        average = (np.diff(recall) * _precision(false, true)[:, 1:]).sum(axis=1)
    return np.where(_both(false, positives), np.stack([auc, average], axis=1), np.nan)


def sensitivity_at(
    patients: Patients, rates: Sequence[float] | np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The FROC curve: share of true lesions found at numbers of false positives per case.

    As `froc_sensitivity` reads it. Missing lesions are found at none.
    """
    cases = (weights @ patients.cases)[:, None]
    lesions = (weights @ (patients.lesions + patients.missing_lesions))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = _cumulated(weights, patients.false) / cases, _cumulated(weights, patients.found) / lesions
    return _read(rates, x, y)


def froc_score(patients: Patients, weights: np.ndarray) -> np.ndarray:
    """One column: the mean of the sensitivities at LUNA16's false positives."""
    mean: np.ndarray = sensitivity_at(patients, LUNA16_FALSE_POSITIVES, weights).mean(axis=1, keepdims=True)
    return mean


def observed_share(patients: Patients, weights: np.ndarray) -> np.ndarray:
    """The reliability curve: share of tumour among the voxels of each bin of probability."""
    with np.errstate(invalid="ignore"):
        share: np.ndarray = (weights @ patients.positives) / (weights @ patients.voxels)
    return share


def calibration_scores(patients: Patients, weights: np.ndarray) -> np.ndarray:
    """Columns: Brier score and expected calibration error, of all voxels together."""
    voxels = (weights @ patients.voxels).sum(axis=1)
    gaps = np.abs(weights @ (patients.probability - patients.positives)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.stack([weights @ patients.squared_error / voxels, gaps / voxels], axis=1)


def voxel_rates(counts: Sequence[Confusion], weights: np.ndarray) -> np.ndarray:
    """Columns: recall, specificity and precision of masks, of all patients' voxels together."""
    tp, fp, fn, tn = (weights @ np.array(counts, float)).T
    with np.errstate(invalid="ignore"):
        return np.stack([tp / (tp + fn), tn / (tn + fp), tp / (tp + fp)], axis=1)


def _by_threshold(patients: Patients, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positives from the strictest threshold to the loosest, and all tumour voxels."""
    false, true = (_cumulated(weights, each) for each in (patients.background, patients.tumour))
    return false, true, true[:, -1:] + (weights @ patients.missing_voxels)[:, None]


def _cumulated(weights: np.ndarray, by_bin: np.ndarray) -> np.ndarray:
    """How many lie from each bin on, `samples bins + 1`, from none to all."""
    falling = (weights @ by_bin)[:, ::-1]
    return np.concatenate([np.zeros((len(weights), 1)), falling.cumsum(axis=1)], axis=1)


def _precision(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    positive = true + false
    precision: np.ndarray = np.divide(true, positive, out=np.zeros_like(true), where=positive > 0)
    return precision


def _both(false: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Whether a sample has background and tumour."""
    both: np.ndarray = (false[:, -1:] > 0) & (positives > 0)
    return both


def _read(at: Sequence[float] | np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read curves, one per row; where several points share an x the last counts."""
    defined = ~np.isnan(x[:, -1] + y[:, -1])
    values = np.full((len(x), len(at)), np.nan)
    for row in np.flatnonzero(defined):
        values[row] = np.interp(at, x[row], y[row])
    return values
