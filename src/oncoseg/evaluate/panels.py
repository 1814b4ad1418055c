"""`Panel`: one slice that a report shows, with truth and prediction, and its files."""

import math
from collections.abc import Iterator, Mapping, Sequence
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
"""The arrays of a panel; truth and prediction are indices of classes."""

GREY = 110
"""The ground where there is no image."""


class View(NamedTuple):
    """A case's axial slice, two bytes per pixel, axes `i j` to the patient's right and anterior.

    Attributes:
        case_id: the case it comes from.
        slice_index: along k, from 0 at the feet.
        slices: how many there are.
        volumes_ml: true and predicted volume of `focus` in the case; NaN where the voxel size is unknown.
        pixel_mm: size of a pixel along i and j; None where unknown.
        letters: of the sides of the picture as it is shown; None where the orientation is unknown.
        ground: what the image is and how bright it is shown; empty where there is none.
        note: what is lacking and why, for the reader; else empty.
        image: uint8.
        outcome: uint8 (uint16 of more than 15 classes): the true class's index, and the predicted one's times
            one more than there are classes.
        classes: names of the classes that are drawn, where there are several; the first has index 1.
        focus: the one of them that is told of in numbers.
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
    classes: tuple[str, ...] = ()
    focus: str = ""

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the true and the predicted classes, axes `i j`."""
        predicted, true = np.divmod(self.outcome, _base(self.classes))
        return true, predicted

    @property
    def truth(self) -> np.ndarray:
        """Where `focus` (or the only class) truly is: bool, axes `i j`."""
        marked: np.ndarray = self.labels[0] == _index(self.classes, self.focus)
        return marked

    @property
    def prediction(self) -> np.ndarray:
        """Where it is predicted, likewise."""
        marked: np.ndarray = self.labels[1] == _index(self.classes, self.focus)
        return marked

    def masks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Truth and prediction of each class (or the only one) in order, as bool."""
        true, predicted = self.labels
        for index in range(1, _base(self.classes)):
            yield true == index, predicted == index

    def of_truth_alone(self) -> "View":
        """The same slice without the prediction."""
        return self._replace(outcome=self.labels[0])

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
        """Dice of `focus` (or the only class) on this slice; NaN where both are empty."""
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
    classes: tuple[str, ...] = (),
    focus: str = "",
) -> View:
    """One slice of a case, on a grey ground.

    Args:
        index: along k.
        case_id: the case's id.
        truth: bool, or indices of several classes, canonical axes `i j k`.
        prediction: likewise.
        spacing_mm: voxel size along i, j, k; None where unknown.
        letters: of the sides, where they are known.
        classes: names of several classes.
        focus: whose volumes are told.
    """
    voxel_ml = math.nan if spacing_mm is None else math.prod(spacing_mm) / MM3_PER_ML
    here, there = truth[..., index], prediction[..., index]
    true, predicted = (np.count_nonzero(each == _index(classes, focus)) for each in (truth, prediction))
    return View(
        case_id,
        index,
        truth.shape[2],
        (true * voxel_ml, predicted * voxel_ml),
        None if spacing_mm is None else (spacing_mm[0], spacing_mm[1]),
        letters,
        ground="",
        note="",
        image=np.full(here.shape, GREY, np.uint8),
        outcome=_outcome(here, there, classes),
        classes=classes,
        focus=focus,
    )


def _base(classes: Sequence[str]) -> int:
    """Of the two digits that are a pixel's outcome."""
    return max(len(classes), 1) + 1


def _index(classes: tuple[str, ...], focus: str) -> int:
    return classes.index(focus) + 1 if classes else 1


def _outcome(truth: np.ndarray, prediction: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Both indices of every pixel in one number."""
    base = _base(classes)
    wide = np.min_scalar_type(base * base - 1)
    both: np.ndarray = truth.astype(wide) + prediction.astype(wide) * wide.type(base)
    return both


def write_panels(folder: Path, panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Write FOLDER/panels.npz and give the words about each panel, for summary.json."""
    arrays: dict[str, Any] = {
        f"{name}_{index}": pixels.astype(np.uint8)
        for index, panel in enumerate(panels)
        for name, pixels in zip(PICTURES, (panel.view.image, *panel.view.labels), strict=True)
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
    left_out = ("image", "outcome") if view.classes else ("image", "outcome", "classes", "focus")
    described = {name: value for name, value in view._asdict().items() if name not in left_out}
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
    classes = tuple(words.get("classes", ()))
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
        _outcome(truth, prediction, classes),
        classes,
        words.get("focus", ""),
    )
    roles = tuple(words["roles"])
    dice = _number(words["patient_dice"])
    return Panel(words["group"], words["label"], roles, words["patient"], dice, view)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
