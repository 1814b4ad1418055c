"""Scores of cases sorted into classes, such as benign and malignant, from one matrix of counts.

Every class is scored against all others together; means over classes follow two rules. A class without
an example has no say in any mean: nothing was there to be found. A class with examples that is never
predicted has an undefined precision of its own, but counts as 0 in the means, so that never predicting
it is not rewarded. scikit-learn puts 0 for both, with a warning, and lets the first into macro means.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oncoseg.metrics.overlap import Confusion, f1, precision, recall
from oncoseg.metrics.ranking import roc_auc_exact


class ClassScores(NamedTuple):
    """How well one class is told from all others, each score in [0, 1] or NaN where undefined.

    Attributes:
        sensitivity: share of the class's examples found (recall); NaN without an example.
        specificity: share of the others' examples not called this class; NaN without others.
        precision: share of what is called this class that is; NaN when nothing is called so.
        f1: harmonic mean of precision and sensitivity, 2·TP / (2·TP + FP + FN); 0 when nothing is
            called rightly, NaN only with neither an example nor a prediction.
        support: examples of the class.
    """

    sensitivity: float
    specificity: float
    precision: float
    f1: float
    support: int

    @property
    def recall(self) -> float:
        """Another name of sensitivity."""
        return self.sensitivity


class MeanScores(NamedTuple):
    """Means over the classes that have examples; NaN where no class defines the score."""

    sensitivity: float
    specificity: float
    precision: float
    f1: float


class Report(NamedTuple):
    """Everything that follows from one confusion matrix.

    Attributes:
        classes: scores of each class, by index.
        macro: plain means, every class with examples counting alike.
        weighted: means weighted with support; its sensitivity is the accuracy.
        accuracy: share of cases called rightly; NaN without cases.
        balanced_accuracy: mean sensitivity, that of `macro`; chance is 1 / number of classes.
        without_examples: classes left out of every mean because they have no example.
        never_predicted: classes with examples whose undefined precision counts as 0 in the means.
    """

    classes: tuple[ClassScores, ...]
    macro: MeanScores
    weighted: MeanScores
    accuracy: float
    balanced_accuracy: float
    without_examples: int
    never_predicted: int


class OneVsRestAuc(NamedTuple):
    """ROC-AUC of each class against all others together.

    Attributes:
        classes: by index; NaN for a class without examples or without others.
        macro: mean of the defined ones; NaN where none is.
        undefined: classes left out of the mean.
    """

    classes: tuple[float, ...]
    macro: float
    undefined: int


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count cases by class of truth and prediction; matrices of parts add up.

    Args:
        truth: class indices 0 … classes − 1, integer or bool, any shape.
        predicted: likewise, of the same shape.
        classes: number of classes, those that do not occur included.

    Returns:
        int64 `classes × classes`; row truth, column prediction.

    Raises:
        ValueError: the arrays differ in shape, are not of integers, or hold an index out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"Expected class indices of one shape, got {truth.shape} and {predicted.shape}.")
    rows, columns = _indices(truth, classes), _indices(predicted, classes)
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def one_vs_rest(matrix: np.ndarray, index: int) -> Confusion:
    """Counts of one class against all others together, from a `confusion_matrix`."""
    tp = int(matrix[index, index])
    fp = int(matrix[:, index].sum()) - tp
    fn = int(matrix[index].sum()) - tp
    return Confusion(tp, fp, fn, int(matrix.sum()) - tp - fp - fn)


def report(matrix: np.ndarray) -> Report:
    """Scores per class, their means, and what the means left out, from a `confusion_matrix`.

    Raises:
        ValueError: the matrix is not a square one of whole numbers from 0.
    """
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not square or matrix.dtype.kind not in "iu" or (matrix < 0).any():
        raise ValueError(f"Expected a square matrix of counts, got {matrix.dtype} {matrix.shape}.")
    classes = tuple(_class_scores(one_vs_rest(matrix, index)) for index in range(len(matrix)))
    macro = _means(classes, [int(scores.support > 0) for scores in classes])
    return Report(
        classes=classes,
        macro=macro,
        weighted=_means(classes, [scores.support for scores in classes]),
        accuracy=_ratio(int(np.trace(matrix)), int(matrix.sum())),
        balanced_accuracy=macro.sensitivity,
        without_examples=sum(scores.support == 0 for scores in classes),
        never_predicted=sum(scores.support > 0 and math.isnan(scores.precision) for scores in classes),
    )


def one_vs_rest_auc(probability: np.ndarray, truth: np.ndarray) -> OneVsRestAuc:
    """ROC-AUC of each class's probability for its examples against all others, and their mean.

    Exact, ties counting half. For two classes use `ranking.roc_auc_exact` with the probability of the
    positive one. Source: Provost and Domingos 2001 (in Fawcett, Pattern Recognition Letters 2006), who
    weight with the classes' shares; here every class counts alike, as in scikit-learn's macro mean.

    Args:
        probability: in [0, 1], `n × classes`; rows need not add up to 1.
        truth: class indices 0 … classes − 1, `n`, integer or bool.

    Raises:
        ValueError: shapes that do not match, or a probability or an index out of range.
    """
    if probability.ndim != 2 or truth.shape != probability.shape[:1]:
        raise ValueError(
            "Expected probabilities `n × classes` and `n` class indices, got "
            f"{probability.shape} and {truth.shape}."
        )
    indices = _indices(truth, probability.shape[1])
    areas = [roc_auc_exact(column, indices == index) for index, column in enumerate(probability.T)]
    undefined = sum(map(math.isnan, areas))
    return OneVsRestAuc(tuple(areas), _weighted_mean(areas, [1] * len(areas)), undefined)


def _indices(labels: np.ndarray, classes: int) -> np.ndarray:
    if labels.dtype.kind not in "biu":
        raise ValueError(f"Expected class indices as integers, got {labels.dtype}.")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"Expected class indices from 0 to {classes - 1}, got {labels.min()} to {labels.max()}."
        )
    return labels.ravel().astype(np.intp)


def _class_scores(counts: Confusion) -> ClassScores:
    return ClassScores(
        sensitivity=recall(counts),
        specificity=_ratio(counts.tn, counts.tn + counts.fp),
        precision=precision(counts),
        f1=f1(counts),
        support=counts.tp + counts.fn,
    )


def _means(classes: Sequence[ClassScores], weights: Sequence[int]) -> MeanScores:
    return MeanScores(
        sensitivity=_weighted_mean([scores.sensitivity for scores in classes], weights),
        specificity=_weighted_mean([scores.specificity for scores in classes], weights),
        precision=_weighted_mean([_precision_or_zero(scores) for scores in classes], weights),
        f1=_weighted_mean([scores.f1 for scores in classes], weights),
    )


def _precision_or_zero(scores: ClassScores) -> float:
    return 0.0 if math.isnan(scores.precision) else scores.precision


def _weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Mean over defined values; NaN when they weigh nothing."""
    defined = [
        (value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)
    ]
    total = sum(weight for _, weight in defined)
    return sum(value * weight for value, weight in defined) / total if total else math.nan


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
