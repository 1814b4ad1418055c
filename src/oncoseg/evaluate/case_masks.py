"""`CaseMasks`: what a case's probabilities mark, of every class alone and of all of them together."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from oncoseg.case_prediction import CasePrediction
from oncoseg.evaluate.scoring import ALL_CLASSES, TUMOUR
from oncoseg.shares import to_labels


class ClassMask(NamedTuple):
    """One class of a case; all arrays have the axes `i j k`.

    Attributes:
        label: its name, or ALL_CLASSES.
        truth: bool.
        predicted: bool.
        probability: float32 in [0, 1].
    """

    label: str
    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class CaseMasks:
    """A case whose masks are made once, when they are first asked for.

    Attributes:
        case: its truth and probabilities.
        threshold: probability from which a voxel is marked.
    """

    case: CasePrediction
    threshold: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes where there are several; the first has index 1."""
        return self.case.classes.names if self.case.classes else ()

    @property
    def truth(self) -> np.ndarray:
        """Class indices, uint8, axes `i j k`; of one class bool."""
        return self.case.classes.truth if self.case.classes else self.case.truth

    @cached_property
    def predicted(self) -> np.ndarray:
        """Likewise."""
        if self.case.classes is None:
            marked: np.ndarray = self.case.probability >= self.threshold
            return marked
        labels: np.ndarray = np.zeros(self.truth.shape, np.uint8)
        for k in range(labels.shape[2]):  # slice by slice to spare memory
            labels[..., k] = to_labels(self.case.classes.probability[..., k], self.threshold)
        return labels

    def each(self) -> Iterator[ClassMask]:
        """Every class, then all of them together; or the only one."""
        if (classes := self.case.classes) is None:
            yield ClassMask(TUMOUR, self.truth, self.predicted, self.case.probability)
            return
        for index, name in enumerate(classes.names, 1):
            of_class: np.ndarray = classes.probability[index - 1]
            yield ClassMask(name, self.truth == index, self.predicted == index, of_class)
        yield ClassMask(ALL_CLASSES, self.case.truth, self.predicted > 0, self.case.probability)
