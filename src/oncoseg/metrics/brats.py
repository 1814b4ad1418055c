"""Lesion-wise Dice and HD95 of the BraTS 2023 challenges.

Defined by the organisers' evaluation code, https://github.com/rachitsaluja/BraTS-2023-Metrics
(`brats_2023_metrics/surface_distance/brats_metrics.py` at commit 0c603fc).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from oncoseg.metrics.lesions import Box, Lesions, find_lesions, lesion_overlaps, part_of, regions
from oncoseg.metrics.overlap import confusion, dice

Hd95 = Callable[[np.ndarray, np.ndarray, Sequence[float]], float]
"""(truth, prediction, spacing_mm) → 95th percentile of surface distances in mm; both masks have voxels."""

PENALTY_HD95_MM = 374.0
"""HD95 of a lesion missed or made up, about the diagonal of BraTS images."""


class BratsRules(NamedTuple):
    """What differs between the challenges.

    Attributes:
        dilations: times that the truth is dilated by the 18 neighbours before its lesions are told apart.
        ignored_mm3: true lesions of this volume or less are not scored.
    """

    dilations: int
    ignored_mm3: float


BRATS_2023 = {
    "GLI": BratsRules(3, 50.0),
    "SSA": BratsRules(3, 50.0),
    "MEN": BratsRules(1, 50.0),
    "PED": BratsRules(3, 50.0),
    "MET": BratsRules(1, 2.0),
}
"""Challenge → rules: adult glioma, sub-Saharan Africa, meningioma, paediatric glioma, metastases."""


class BratsLesion(NamedTuple):
    """A scored true lesion.

    Attributes:
        volume_mm3: of the true lesion.
        predictions: predicted components that match it; 0 if it is missed.
        dice: with all of them together; 0 if it is missed.
        hd95_mm: likewise; PENALTY_HD95_MM if it is missed.
    """

    volume_mm3: float
    predictions: int
    dice: float
    hd95_mm: float


class BratsScores(NamedTuple):
    """Lesion-wise result of one region of one case.

    Attributes:
        lesions: the true lesions that are scored.
        ignored: true lesions that are too small to be.
        false_positives: predicted components that match no true lesion, not even an ignored one.
    """

    lesions: list[BratsLesion]
    ignored: int
    false_positives: int

    @property
    def dice(self) -> float:
        """Mean over scored lesions and false positives, these with 0; 1 if there is neither."""
        return math.fsum(lesion.dice for lesion in self.lesions) / self._total if self._total else 1.0

    @property
    def hd95_mm(self) -> float:
        """Mean over scored lesions and false positives, these with PENALTY_HD95_MM; 0 if there is neither."""
        distances = [lesion.hd95_mm for lesion in self.lesions] + [PENALTY_HD95_MM] * self.false_positives
        return math.fsum(distances) / self._total if self._total else 0.0

    @property
    def _total(self) -> int:
        return len(self.lesions) + self.false_positives


def brats_scores(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], rules: BratsRules, hd95: Hd95
) -> BratsScores:
    """Score a region (whole tumour, core, …) lesion by lesion.

    True lesions that touch once dilated are one. A predicted component matches every lesion whose
    dilation it overlaps, and counts in full for each of them.

    With neither a lesion to score nor a false positive, Dice is 1 and HD95 0: so it is with both masks
    empty, and also with an empty prediction where all true lesions are ignored. In every other case an
    empty truth or prediction gives Dice 0 and HD95 374.

    Args:
        truth: bool, 3D.
        prediction: likewise.
        spacing_mm: voxel size along every axis; the challenges' images have 1 mm.
        rules: of BRATS_2023.
        hd95: called for every lesion that is matched, with masks cut to the two; the challenges weigh by
            surface area.

    Raises:
        ValueError: masks that are not bool, 3D and of one shape; no dilation.
    """
    if truth.ndim != 3 or rules.dilations < 1:
        raise ValueError(
            f"Expected masks of three axes and one dilation or more, got {truth.shape} and {rules.dilations}."
        )
    dilated = _dilated(truth, rules.dilations)
    merged, predicted = find_lesions(dilated, spacing_mm), find_lesions(prediction, spacing_mm)
    overlaps = lesion_overlaps(merged, predicted)
    lesions = []
    for label, (box, extent) in enumerate(zip(merged.boxes, merged.masks, strict=True), 1):
        lesion = truth[box] & extent
        volume_mm3 = int(np.count_nonzero(lesion)) * merged.voxel_mm3
        matching = overlaps.prediction[overlaps.truth == label]
        if volume_mm3 <= rules.ignored_mm3:
            continue
        scored = (0.0, PENALTY_HD95_MM)
        if len(matching):
            pair = _on_one_grid(box, lesion, predicted, matching)
            scored = dice(confusion(*pair)), hd95(*pair, spacing_mm)
        lesions.append(BratsLesion(volume_mm3, len(matching), *scored))
    false_positives = len(predicted.boxes) - len(np.unique(overlaps.prediction))
    return BratsScores(lesions, len(merged.boxes) - len(lesions), false_positives)


def _dilated(mask: np.ndarray, times: int) -> np.ndarray:
    """Dilate within the surroundings of each region; the whole image at once takes far longer."""
    structure = ndimage.generate_binary_structure(3, 2)
    dilated = np.zeros_like(mask)
    for box, _ in regions(mask):
        around = tuple(slice(max(side.start - times, 0), side.stop + times) for side in box)
        dilated[around] |= ndimage.binary_dilation(mask[around], structure, iterations=times)
    return dilated


def _on_one_grid(
    box: Box, lesion: np.ndarray, predicted: Lesions, matching: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A true lesion, and the union of the predicted components that match it, in a box that holds both."""
    boxes = [predicted.boxes[label - 1] for label in matching]
    sides = zip(box, *boxes, strict=True)
    outer = tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)
    truth, prediction = np.zeros((2, *(side.stop - side.start for side in outer)), bool)
    truth[part_of(box, outer)] = lesion
    for label, predicted_box in zip(matching, boxes, strict=True):
        prediction[part_of(predicted_box, outer)] |= predicted.masks[label - 1]
    return truth, prediction
