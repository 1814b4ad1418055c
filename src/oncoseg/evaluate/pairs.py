"""Predictions of any origin and their truth: which file belongs to which, and reading both on one grid."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oncoseg import io
from oncoseg.datasets import has_synthetic_note, open_dataset
from oncoseg.errors import DataError, GeometryError
from oncoseg.io import IMAGE_SUFFIXES, VOLUME_SUFFIXES, ImageRef
from oncoseg.labels import consensus, resample_labels
from oncoseg.metrics.boxes import bounding_box
from oncoseg.volume import Volume, check_same_grid, onto_axes_of

TRUTH_ENDS = ("_seg", "-seg", "_mask", "_labels", "_label", "_segmentation", "_gt")
"""Ends of a mask's name that are not part of the case's id."""

PROBABILITY_END = "_probability"
"""End of the name of a probability map beside a mask, as `oncoseg predict --probabilities` writes: of a
single class `CASE_probability`, of several `CASE_CLASS_probability` each."""

ONLY_CLASS = ""
"""Stands for the class of a map whose name says none."""

LARGEST_LABEL = 65_535
"""Label values above it are no labels."""


class Pair(NamedTuple):
    """The files of one case.

    Attributes:
        case: its id.
        patient: cases of one patient share it.
        truth: one mask per reader.
        labels: label value → name, where the truth's data set declares them.
        prediction: None where there is none.
        maps: (class, its probability map) of those beside the prediction; see ONLY_CLASS.
        images: channel → image to show under the contours; None where there is none.
    """

    case: str
    patient: str
    truth: tuple[ImageRef, ...]
    labels: Mapping[int, str]
    prediction: ImageRef | None = None
    maps: tuple[tuple[str, ImageRef], ...] = ()
    images: Mapping[str, ImageRef] | None = None


class Pairs(NamedTuple):
    """What two folders hold.

    Attributes:
        pairs: one for every case of the truth.
        without_truth: predictions that no truth belongs to.
        synthetic: whether a note beside the truth or the predictions says that they show no patient.
    """

    pairs: list[Pair]
    without_truth: list[str]
    synthetic: bool


class Loaded(NamedTuple):
    """One case's voxels, on the truth's grid.

    Attributes:
        truth: label values, axes `i j k`.
        prediction: likewise; None where there is none.
        spacing_mm: None where the truth's file holds no voxel size.
        like: the truth's grid, with voxels that are all 0 and take no memory.
    """

    truth: np.ndarray
    prediction: np.ndarray | None
    spacing_mm: tuple[float, float, float] | None
    like: Volume


def find_pairs(
    truth: Path,
    prediction: Path,
    patients: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Pairs:
    """Pair the masks of two folders by their names.

    Args:
        truth: a data set of a known layout, or a folder of masks, each a volume (NIfTI and the like) or,
            where it holds none, a 2D image (PNG, TIFF); ends such as `_seg` are not part of a case's id.
        prediction: likewise.
        patients: case → patient, for plain folders; a case that is not listed is a patient of its own.
        names: what files are called → the case, where a conversion gave them pseudonyms; see `read_key`.

    Raises:
        DataError: a folder without masks, masks named in two ways or two of one case, or no case that is in
            both.
    """
    known = _truths(truth)
    predicted = _predictions(prediction)
    if not known.keys() & predicted.keys():
        raise DataError(
            f"No case is in both folders: the truth has {_some(known)}, the predictions have "
            f"{_some(predicted)}. Expected masks of the same names."
        )
    maps = _maps(prediction, known)
    pairs = [
        _named(name, case, names or {}, patients or {})._replace(
            prediction=predicted.get(name), maps=tuple(maps.get(name, ()))
        )
        for name, case in known.items()
    ]
    pairs.sort(key=lambda pair: pair.case)
    synthetic = has_synthetic_note(truth) or has_synthetic_note(prediction)
    return Pairs(pairs, sorted(predicted.keys() - known.keys()), synthetic)


def read_patients(path: Path) -> dict[str, str]:
    """Read case → patient from a CSV file with the columns `case` and `patient`.

    Raises:
        DataError: unreadable, without these columns, a case with two patients, or without any.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"case", "patient"} <= set(columns):
                raise ValueError(f"its first line is {','.join(columns)!r}")
            rows = [((row["case"] or "").strip(), (row["patient"] or "").strip()) for row in reader]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"Cannot read {path} ({reason}); expected a CSV file with the columns case and patient, with "
            "commas between."
        ) from error
    if nobody := [case for case, patient in rows if not patient]:
        raise DataError(f"{path} gives case {nobody[0]!r} no patient; expected one.")
    for case, count in Counter(case for case, _ in dict.fromkeys(rows)).items():
        if count > 1:
            raise DataError(f"{path} gives case {case!r} {count} patients; expected one.")
    return dict(rows)


def read_key(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read what `oncoseg convert --key-file` wrote: pseudonym → case, and case → patient.

    Raises:
        DataError: unreadable, or no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["pseudonym"]: row["case"] for row in rows}, {row["case"]: row["patient"] for row in rows}
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has other columns"
        raise DataError(
            f"Cannot read the key {path} ({reason}); expected a file that oncoseg convert --key-file has "
            "written, with the columns pseudonym, case and patient."
        ) from error


def load(pair: Pair, share: float, resample: bool) -> Loaded:
    """Read a case, its prediction on the truth's grid.

    Args:
        pair: the files.
        share: of the readers that must mark a voxel.
        resample: bring a prediction from another grid onto the truth's by nearest neighbour; False
            refuses it.

    Raises:
        DataError: a file that cannot be used, or values that are no labels.
        GeometryError: grids that differ.
    """
    readers = {f"truth {number}": io.read(ref) for number, ref in enumerate(pair.truth, 1)}
    check_same_grid(readers)
    first = next(iter(readers.values()))
    truth = consensus([_labels(volume, name) for name, volume in readers.items()], share)
    spacing = first.spacing_mm if first.spacing_known else None
    like = first.with_array(np.broadcast_to(np.uint8(0), first.array.shape))
    if pair.prediction is None:
        return Loaded(truth, None, spacing, like)
    predicted = _on_grid(pair.prediction, like, "prediction", resample)
    return Loaded(truth, _labels(predicted, "prediction"), spacing, like)


def load_map(ref: ImageRef, like: Volume, resample: bool) -> np.ndarray:
    """Read a probability map on the truth's grid.

    Args:
        ref: the file.
        like: see `Loaded`.
        resample: as in `load`.

    Returns:
        Probabilities, float32, axes `i j k`.

    Raises:
        DataError: a file that cannot be used, or values outside [0, 1].
        GeometryError: grids that differ.
    """
    return _probabilities(_on_grid(ref, like, "probability", resample))


def load_image(ref: ImageRef, like: Volume) -> Volume:
    """Read an image that shows what a case's masks mark.

    Args:
        ref: the image.
        like: the masks' grid.

    Raises:
        DataError: a file that cannot be used.
        GeometryError: another grid.
    """
    image = _placed(io.read(ref), like)
    check_same_grid({"truth": like, "image": image})
    return image


def check_labels(loaded: Loaded, classes: Mapping[str, Sequence[int]]) -> None:
    """Check that both masks hold declared labels only.

    Raises:
        DataError: names the others.
    """
    declared = {value for values in classes.values() for value in values}
    for name, mask in (("truth", loaded.truth), ("prediction", loaded.prediction)):
        values = set() if mask is None else set(label_values(mask))
        if others := sorted(values - declared):
            raise DataError(
                f"The {name} holds the label values {others}; expected only 0 and {sorted(declared)}. "
                "Declare them, such as --class tumour=1,2,4 (those that do not matter as a class of their "
                "own), or mend the mask."
            )


def label_values(mask: np.ndarray) -> list[int]:
    """The label values in a mask, without 0."""
    marked = mask[bounding_box(mask)]
    return [int(value) for value in np.unique(marked.ravel(order="K")) if value]


def _truths(folder: Path) -> dict[str, Pair]:
    try:
        cases = open_dataset(folder, need_images=False).cases
    except DataError:
        if not (files := _files(folder)):
            raise
        return {name: Pair(name, name, (ref,), {}) for name, ref in files.items()}
    found = {
        case.id: Pair(case.id, case.patient, case.masks, case.labels, images=case.images or None)
        for case in cases
        if case.masks
    }
    if not found:
        raise DataError(f"No case in {folder} has a mask; expected the truth there.")
    return found


def _named(name: str, pair: Pair, names: Mapping[str, str], patients: Mapping[str, str]) -> Pair:
    """A case under its own name, with the patient that was told."""
    case = names.get(name, name)
    own = case if pair.patient == name else pair.patient
    return pair._replace(case=case, patient=patients.get(case, own))


def _predictions(folder: Path) -> dict[str, ImageRef]:
    try:
        cases = open_dataset(folder, need_images=False, predicted=True).cases
    except DataError:
        if not (files := _files(folder)):
            raise
        return files
    several = next((case.id for case in cases if len(case.masks) > 1), None)
    if several is not None:
        raise DataError(f"Case {several} in {folder} has several masks; expected one prediction a case.")
    return {case.id: case.masks[0] for case in cases if case.masks}


def _files(folder: Path, only_probabilities: bool = False) -> dict[str, ImageRef]:
    """Case → mask in a plain folder; only those named as masks, where any is."""
    if not folder.is_dir():
        return {}
    stems = _stems(folder)
    if only_probabilities:
        return {
            stem.removesuffix(PROBABILITY_END): io.image_ref(file)
            for file, stem in stems.items()
            if stem.endswith(PROBABILITY_END)
        }
    stems = {file: stem for file, stem in stems.items() if not stem.endswith(PROBABILITY_END)}
    named = {file: stem for file, stem in stems.items() if stem.lower().endswith(TRUTH_ENDS)}
    pattern = re.compile(f"({'|'.join(map(re.escape, TRUTH_ENDS))})$", re.IGNORECASE)
    _check_named_alike(folder, [pattern.sub("", stem) for stem in named.values()], stems.values())
    found: dict[str, ImageRef] = {}
    for file, stem in (named or stems).items():
        case = pattern.sub("", stem)
        if case in found:
            raise DataError(
                f"{folder} holds two masks of case {case}: {found[case].files[0].name} and {file.name}. "
                "Remove one of them."
            )
        found[case] = io.image_ref(file)
    return found


def _stems(folder: Path) -> dict[Path, str]:
    """File → name without suffix; 2D images, which may be previews, only where no mask is a volume."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    volumes = {file: io.stem(file) for file in files if file.name.lower().endswith(VOLUME_SUFFIXES)}
    if any(not stem.endswith(PROBABILITY_END) for stem in volumes.values()):
        return volumes
    return volumes | {file: io.stem(file) for file in files if file.name.lower().endswith(IMAGE_SUFFIXES)}


def _maps(folder: Path, cases: Collection[str]) -> dict[str, list[tuple[str, ImageRef]]]:
    """Case → (class, map) of the maps in a folder; a name that fits two cases is of the longer one."""
    maps: dict[str, list[tuple[str, ImageRef]]] = {}
    for name, ref in _files(folder, only_probabilities=True).items():
        fitting = [case for case in cases if name == case or name.startswith(f"{case}_")]
        if fitting:
            case = max(fitting, key=len)
            maps.setdefault(case, []).append((name[len(case) + 1 :] or ONLY_CLASS, ref))
    return maps


def _on_grid(ref: ImageRef, like: Volume, name: str, resample: bool) -> Volume:
    volume = _placed(io.read(ref), like)
    if resample:
        volume = resample_labels(volume, like)
    try:
        check_same_grid({"truth": like, name: volume})
    except GeometryError as error:
        raise GeometryError(f"{error} Or add --resample (nearest neighbour).") from error
    return volume


def _check_named_alike(folder: Path, cases: Sequence[str], stems: Iterable[str]) -> None:
    """Where some masks have an end such as `_seg`, what has none must be an image of such a case."""
    others = [stem for stem in stems if not any(stem == case or _extends(stem, case) for case in cases)]
    if cases and others:
        raise DataError(
            f"{folder} holds masks that are named in two ways: some end in one of {', '.join(TRUTH_ENDS)}, "
            f"{len(others)} do not, the first is {others[0]!r}. Name all alike."
        )


def _extends(stem: str, case: str) -> bool:
    return stem.startswith((f"{case}_", f"{case}-"))


def _placed(volume: Volume, truth: Volume) -> Volume:
    """The volume on the truth's grid, where only the order or direction of their axes differs.

    Voxel by voxel where one of them (PNG, TIFF) says nothing of its place.

    Raises:
        GeometryError: one holds no place, and they have not the same number of voxels.
    """
    is_stack = not volume.spacing_known and volume.header is None
    if is_stack or not truth.spacing_known:
        return truth.with_array(volume.array)
    return onto_axes_of(volume, truth)


def _labels(volume: Volume, name: str) -> np.ndarray:
    voxels: np.ndarray = volume.array[0]
    if voxels.dtype.kind in "iub" and voxels.dtype.itemsize <= 2 and voxels.dtype.kind != "i":
        return voxels
    low, high = voxels.min(), voxels.max()
    if low < 0 or high > LARGEST_LABEL:
        raise DataError(f"The {name} holds values from {low} to {high}; expected labels, 0 for background.")
    whole = voxels.astype(np.uint16 if high > 255 else np.uint8)
    if voxels.dtype.kind == "f" and (whole != voxels).any():
        raise DataError(
            f"The {name} holds values that are not whole numbers; expected labels. It may be a probability "
            "map, or a mask that was interpolated: threshold it, or resample it by nearest neighbour."
        )
    return whole


def _probabilities(volume: Volume) -> np.ndarray:
    voxels: np.ndarray = volume.array[0].astype(np.float32, copy=False)
    low, high = voxels.min(), voxels.max()
    if low < 0 or high > 1:
        raise DataError(f"The probability map holds values from {low} to {high}; expected 0 to 1.")
    return voxels


def _some(names: Mapping[str, object]) -> str:
    first = sorted(names)[:3]
    return f"{', '.join(first)}{' …' if len(names) > len(first) else ''} ({len(names)} in all)"
