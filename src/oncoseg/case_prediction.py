"""`CasePrediction`: truth and prediction of one case, ready to be compared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from oncoseg import display


class ClassMaps(NamedTuple):
    """Truth and prediction of a case, class by class, of a recipe with several.

    Attributes:
        names: of the classes; the first has index 1.
        truth: class indices, uint8, axes `i j k`.
        probability: of each class, float32 in [0, 1], axes `classes i j k`; may lie in a file.
    """

    names: tuple[str, ...]
    truth: np.ndarray
    probability: np.ndarray


class CasePrediction(NamedTuple):
    """One case with its truth and its prediction, ready to be compared.

    Attributes:
        case_id: the data set's own public id of the case.
        patient: cases of one patient are counted together.
        modality: a name in the recipe's modalities.
        image: what people look at, float32 in [0, 1], axes `i j k` with axial slices along k; may lie in a
            file.
        truth: bool, axes `i j k`; of several classes, any of them.
        probability: of tumour, float32 in [0, 1], axes `i j k`; of several classes, of all together. May lie
            in a file.
        spacing_mm: voxel size along i, j, k in millimetres; None when the source holds none.
        substituted: missing channel → the one that the network got in its place.
        letters: of the sides of an axial slice as it is shown; None where the orientation is unknown.
        ground: what `image` is and how bright it is shown, in words.
        classes: where the recipe has several.
        axes_mm: of a grid that is sheared; see `Volume.sheared_axes_mm`.
        organ_found: whether the first stage of a cascade found its organ; where not, nothing is predicted.
    """

    case_id: str
    patient: str
    modality: str
    image: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    spacing_mm: tuple[float, float, float] | None
    substituted: Mapping[str, str] = MappingProxyType({})
    letters: display.Letters | None = None
    ground: str = "image"
    classes: ClassMaps | None = None
    axes_mm: np.ndarray | None = None
    organ_found: bool = True
