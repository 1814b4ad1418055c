"""`Panel`: one slice that a report shows, with truth and prediction, and its files."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oncoseg import metrics
from oncoseg.display import Letters
from oncoseg.files import atomic_file
from oncoseg.volume import MM3_PER_ML

PANELS_FILE = "panels.npz"
"""The pictures' pixels; the words about them are in summary.json."""

PICTURES = ("image", "truth", "prediction")
"""The arrays of a panel."""

GREY = 110
"""The ground where there is no image."""

IN_TRUTH, IN_PREDICTION = 1, 2
"""Bits of `View.outcome`."""


class View(NamedTuple):
    """A case's axial slice, two bytes per pixel, axes `i j` to the patient's right and anterior.

    Attributes:
        case_id: the case it comes from.
        slice_index: along k, from 0 at the feet.
        slices: how many there are.
        volumes_ml: true and predicted volume of the case; NaN where the voxel size is unknown.
        pixel_mm: size of a pixel along i and j; None where unknown.
        letters: of the sides of the picture as it is shown; None where the orientation is unknown.
        ground: what the image is and how bright it is shown; empty where there is none.
        note: what is lacking and why, for the reader; else empty.
        image: uint8.
        outcome: uint8, IN_TRUTH and IN_PREDICTION added up.
    """

    case_id: str
    slice_index: int
    slices: int
    volumes_ml: tuple[float, float]
    pixel_mm: tuple[float, float] | None
    letters: Letters | None
    ground: str
    note: str
    image: np.ndarray
    outcome: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """Bool, axes `i j`."""
        return (self.outcome & IN_TRUTH) > 0

    @property
    def prediction(self) -> np.ndarray:
        """Bool, axes `i j`."""
        return (self.outcome & IN_PREDICTION) > 0

    def over(self, image: np.ndarray, ground: str) -> "View":
        """The same slice over an image.

        Args:
            image: 0 black, 1 white, axes `i j`.
            ground: what it is and how bright it is shown.
        """
        grey = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
        return self._replace(image=grey, ground=ground)

    @property
    def dice(self) -> float:
        """Dice of this slice; NaN where both are empty."""
        return metrics.score("dice", metrics.confusion(self.truth, self.prediction))


class Panel(NamedTuple):
    """A chosen slice.

    Attributes:
        group: the modality, where there are several; else empty.
        label: name of the class.
        roles: why it was chosen, see `choosing.Choice`.
        patient: the data set's own public id.
        patient_dice: Dice of the whole patient; NaN where undefined.
        view: what is drawn.
    """

    group: str
    label: str
    roles: tuple[str, ...]
    patient: str
    patient_dice: float
    view: View


def telling_slice(truth: np.ndarray, prediction: np.ndarray) -> int:
    """Index of the slice with the most tumour; of several, the one with the most predicted.

    Args:
        truth: bool, axes `i j k`.
        prediction: likewise.
    """
    return int(np.lexsort((prediction.sum(axis=(0, 1)), truth.sum(axis=(0, 1))))[-1])


def view_at(
    index: int,
    case_id: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | None,
    letters: Letters | None = None,
) -> View:
    """One slice of a case, on a grey ground.

    Args:
        index: along k.
        case_id: the case's id.
        truth: bool, canonical axes `i j k`.
        prediction: likewise.
        spacing_mm: voxel size along i, j, k; None where unknown.
        letters: of the sides, where they are known.
    """
    voxel_ml = math.nan if spacing_mm is None else math.prod(spacing_mm) / MM3_PER_ML
    here, there = truth[..., index], prediction[..., index]
    return View(
        case_id,
        index,
        truth.shape[2],
        (np.count_nonzero(truth) * voxel_ml, np.count_nonzero(prediction) * voxel_ml),
        None if spacing_mm is None else (spacing_mm[0], spacing_mm[1]),
        letters,
        ground="",
        note="",
        image=np.full(here.shape, GREY, np.uint8),
        outcome=(IN_TRUTH * here + IN_PREDICTION * there).astype(np.uint8),
    )


def write_panels(folder: Path, panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Write FOLDER/panels.npz and give the words about each panel, for summary.json."""
    arrays = {
        f"{name}_{index}": getattr(panel.view, name).astype(np.uint8)
        for index, panel in enumerate(panels)
        for name in PICTURES
    }
    with atomic_file(folder / PANELS_FILE) as temporary:
        np.savez_compressed(temporary, **arrays)
    return [_words(panel) for panel in panels]


def read_panels(folder: Path, words: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Read what `write_panels` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError, BadZipFile: a damaged file.
    """
    if not words:
        return []
    # opened here, as np.load leaves a damaged file open
    with (folder / PANELS_FILE).open("rb") as packed, np.load(packed, allow_pickle=False) as arrays:
        return [
            _panel(each, *(arrays[f"{name}_{index}"] for name in PICTURES))
            for index, each in enumerate(words)
        ]


def _words(panel: Panel) -> dict[str, Any]:
    view = panel.view
    described = {name: value for name, value in view._asdict().items() if name not in ("image", "outcome")}
    return {
        **{name: value for name, value in panel._asdict().items() if name != "view"},
        "patient_dice": _known(panel.patient_dice),
        "slice_dice": _known(view.dice),
        **described,
        "volumes_ml": [_known(volume) for volume in view.volumes_ml],
    }


def _panel(words: Mapping[str, Any], image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> Panel:
    true_ml, predicted_ml = (_number(volume) for volume in words["volumes_ml"])
    width_mm, height_mm = words["pixel_mm"] or (None, None)
    view = View(
        words["case_id"],
        words["slice_index"],
        words["slices"],
        (true_ml, predicted_ml),
        None if width_mm is None or height_mm is None else (width_mm, height_mm),
        None if words["letters"] is None else Letters(*words["letters"]),
        words["ground"],
        words["note"],
        image,
        IN_TRUTH * truth + IN_PREDICTION * prediction,
    )
    roles = tuple(words["roles"])
    dice = _number(words["patient_dice"])
    return Panel(words["group"], words["label"], roles, words["patient"], dice, view)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
