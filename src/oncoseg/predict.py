"""Prediction: from a case to probabilities on its own voxels."""

from typing import NamedTuple

import numpy as np


class CasePrediction(NamedTuple):
    """One case with its truth and its prediction, ready to be compared.

    Attributes:
        case_id: the data set's own public id of the case.
        patient: cases of one patient are counted together.
        modality: a name in the recipe's modalities.
        image: what people look at, float32 in [0, 1], axes `i j k`, canonical (see
            `volume.to_canonical`): i to the Right, j to Anterior, axial slices along k.
        truth: bool, on the same axes `i j k`.
        probability: of tumour, float32 in [0, 1], on the same axes `i j k`.
        spacing_mm: voxel size along i, j, k in millimetres; None when the source holds none.
    """

    case_id: str
    patient: str
    modality: str
    image: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    spacing_mm: tuple[float, float, float] | None
