"""Prediction: from source files to masks and probabilities on the source's own grid.

Slices are read, prepared, computed and put back a slab at a time, with the preparation that training
used, so that memory does not grow with the length of a scan.
"""

import copy
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from oncoseg import __version__, display, hardware, io, plausibility
from oncoseg.cluster import Spread
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RunError, failed_cases
from oncoseg.files import disk_errors, new_folder, sha256_of_file, write_json
from oncoseg.inputs import Job, find_jobs
from oncoseg.io import masks
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.logits import probabilities
from oncoseg.models import build
from oncoseg.prepare import SLAB, Settings, read_truth
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.slabs import SlabSource, open_source
from oncoseg.transforms import ZEROS, prepare_slices, restore_slices
from oncoseg.volume import Volume, from_canonical, to_canonical

RECORD_FILE = "prediction.json"
"""In an output folder: which weights made its masks, of which images, with which substitutes."""

LOOKED_AT = 9
"""Slices by which an image is judged before it is predicted."""

Progress = Callable[[int, int], None]


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
        image: what people look at, float32 in [0, 1], axes `i j k` with axial slices along k.
        truth: bool, axes `i j k`; of several classes, any of them.
        probability: of tumour, float32 in [0, 1], axes `i j k`; of several classes, the greatest.
        spacing_mm: voxel size along i, j, k in millimetres; None when the source holds none.
        substituted: missing channel → the one that the network got in its place.
        letters: of the sides of an axial slice as it is shown; None where the orientation is unknown.
        ground: what `image` is and how bright it is shown, in words.
        classes: where the recipe has several.
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


class Predictor:
    """A trained network with everything that it needs to be used on new images."""

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        weights_sha256: str = "",
        looks: Mapping[str, Mapping[str, Sequence[float]]] = MappingProxyType({}),
    ) -> None:
        """Take a network that fits the recipe; `load` is the usual way."""
        hardware.tune_allocator()
        self.recipe = recipe
        # what was trained on a GPU can be used without one
        self.device = hardware.choose_device("cpu" if recipe.training.device == "cpu" else "auto")
        self.precision = hardware.choose_precision(recipe.training.precision, self.device)
        self.network = hardware.in_layout(network.to(self.device), torch.channels_last).eval()
        self.weights_sha256 = weights_sha256
        self.looks = looks
        self.settings = {
            name: Settings.of(modality, recipe.classes, recipe.preparation)
            for name, modality in recipe.modalities.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy that is sent to another machine chooses the best device there."""
        network = copy.deepcopy(self.network).cpu()
        return Predictor, (self.recipe, network, self.weights_sha256, dict(self.looks))

    @classmethod
    def load(cls, run: Path, changes: Mapping[str, Any] | None = None) -> "Predictor":
        """Read a run folder.

        Args:
            run: the run folder.
            changes: of the recipe's fields, such as `prediction.threshold`; see `Recipe.with_changes`.

        Raises:
            RunError: not a run folder, of another version, or without weights that fit.
            RecipeError: an unknown field or an unfit value in `changes`.
        """
        folder = RunFolder(Path(run))
        recipe = folder.recipe().with_changes(changes or {})
        model = folder.need_model()
        network = build(
            recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments
        )
        try:
            network.load_state_dict(safetensors.torch.load_file(model))
        except Exception as error:
            raise RunError(
                f"{model} is damaged or does not fit its recipe ({type(error).__name__}); expected weights "
                f"of {recipe.network.name}. Copy the whole run folder again, or train again."
            ) from error
        return cls(recipe, network, sha256_of_file(model), folder.looks())

    @torch.inference_mode()
    def predict_slices(self, slices: Tensor) -> Tensor:
        """Probabilities `n classes h w` (float32, on the CPU) of prepared slices `n c h w` in [0, 1].

        A slice without any contrast, such as one beyond the head, holds no information: it is not
        computed and its probability is 0.

        Raises:
            RunError: the network's output is not finite.
        """
        probability = torch.zeros(len(slices), len(self.recipe.classes), *slices.shape[-2:])
        filled = slices.flatten(1).any(dim=1).nonzero().flatten()
        for chosen in filled.split(self.recipe.prediction.batch_size):
            images = slices[chosen].to(self.device)
            probability[chosen] = self._average_over_flips(images).cpu()
        return probability

    def predict_case(self, case: Case, modality: str) -> CasePrediction:
        """Predict one case that has a truth, on its source grid, for comparing both.

        Raises:
            DataError: images or masks that cannot be used; names the case.
            RunError: the network's output is not finite.
        """
        settings = self.settings[modality]
        channels = settings.channels_of(case)
        channel = display.shown_channel([name for name in channels if name != ZEROS])
        try:
            with open_source(case, channels) as source:
                probability = np.zeros((1, *source.like.grid), np.float32)
                image = np.zeros((1, *source.like.grid), np.float32)
                each = self._room_for_classes(source.like.grid)
                for place, voxels, of_classes in self._slabs(source, settings):
                    probability[place] = of_classes.max(axis=0)
                    image[place] = voxels[channels.index(channel)]
                    if each is not None:
                        each[place] = of_classes
            like = source.like.with_array(image)
            truth = read_truth(case, settings, like)
        except DataError as error:
            raise DataError(f"Case {case.id}: {error}") from error
        shown, marks = to_canonical(like)[0], truth > 0
        spacing_mm = shown.spacing_mm if like.spacing_known else None
        window = display.choose_window(shown.array[0], marks, spacing_mm, channel)
        return CasePrediction(
            case_id=case.id,
            patient=case.patient,
            modality=modality,
            image=display.brightness(shown.array[0], window),
            truth=marks,
            probability=to_canonical(like.with_array(probability))[0].array[0],
            spacing_mm=spacing_mm,
            substituted=settings.substituted(case),
            letters=display.letters(shown.affine_ras) if io.orientation_known(like) else None,
            ground=f"{channel}, {window.words}",
            classes=None if each is None else self._class_maps(truth, like.with_array(each)),
        )

    def _room_for_classes(self, grid: tuple[int, int, int]) -> np.ndarray | None:
        """Where several classes' probabilities go, in a file that the system may page out; else None."""
        classes = len(self.recipe.classes)
        return _scratch(Path(tempfile.gettempdir()), (classes, *grid), np.float32) if classes > 1 else None

    def _class_maps(self, truth: np.ndarray, probability: Volume) -> ClassMaps:
        return ClassMaps(tuple(self.recipe.classes), truth, to_canonical(probability)[0].array)

    def predict(
        self,
        inputs: Sequence[Path],
        out: Path,
        *,
        modality: str | None = None,
        formats: Sequence[str] = ("nifti",),
        probabilities: bool = False,
        accept_implausible: bool = False,
        progress: Progress | None = None,
        spread: Spread | None = None,
    ) -> list[Path]:
        """Write a mask for every input on the input's own grid.

        What an earlier, interrupted call with the same weights has written is kept and not computed
        again. An image that cannot be used does not keep the others from being predicted.

        Args:
            inputs: images, folders of images, cases or data sets.
            out: folder for the masks and `prediction.json`.
            modality: a name in the recipe's modalities; None decides by the channels.
            formats: of each mask, among `MASK_FORMATS`: `nifti` is `CASE.nii.gz`, class indices as uint8;
                `seg` and `rtstruct` are `CASE_seg.dcm` and `CASE_rtstruct.dcm`, for DICOM images.
            probabilities: also write `CASE_probability.nii.gz` (float32), one per class if several.
            accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
            progress: called with (slices done, slices in all).
            spread: where the images are predicted, such as on a cluster; None for this process.

        Returns:
            The masks' paths, in the order of the inputs and of the formats.

        Raises:
            DataError: inputs that are unclear or of one name, before anything is predicted; or images
                that cannot be used, after all others were.
            RunError: `out` holds other files, masks of other images among them, or cannot be written; or
                the network's output is not finite.
        """
        for name in formats:
            masks.check_mask_format(name)
        jobs = find_jobs(inputs, self.recipe, modality)
        files = {job.case.id: self._outputs(job, out, formats, probabilities) for job in jobs}
        _check_distinct(files.values())
        failures: dict[str, str] = {}
        self._claim(out, jobs, failures)
        todo: dict[str, tuple[Job, int]] = {}
        for job in jobs:
            with _kept_for_later(job, failures):
                if job.case.id not in failures and files[job.case.id].missing():
                    todo[job.case.id] = job, job.slices()
        total = sum(slices for _, slices in todo.values())
        before = 0
        notify = progress or (lambda done, total: None)
        remarks: dict[str, list[str]] = {}
        if spread is not None:
            items = [(job, slices, files[name]) for name, (job, slices) in todo.items()]
            for found in spread(partial(_predict_elsewhere, self, accept_implausible), items):
                before += found.slices
                notify(before, total)
                remarks |= found.remarks
                failures |= found.failures
        for name, (job, slices) in todo.items() if spread is None else ():
            with _kept_for_later(job, failures):
                remarks[name] = self._remarks(job, accept_implausible)
                for done in self._predict_job(job, files[name]):
                    notify(before + done, total)
            before += slices
        _add_remarks(out, remarks)
        if failures:
            raise failed_cases(list(failures.values()), len(jobs), f"predicted; the others are in {out}")
        return [path for outputs in files.values() for path in outputs.masks.values()]

    def _outputs(self, job: Job, out: Path, formats: Iterable[str], probabilities: bool) -> masks.Outputs:
        """The paths of one case's masks and, if wanted, one path for each class's probability."""
        classes = list(self.recipe.classes) if probabilities else []
        return masks.outputs(out, job.case.id, formats, classes)

    def _remarks(self, job: Job, accept_implausible: bool) -> list[str]:
        """What is odd in an image's header, and what is doubtful about it.

        Raises:
            DataError: it cannot be what it is said to be, and that is not accepted.
        """
        settings = replace(self.settings[job.modality], accept_implausible=accept_implausible)
        with open_source(job.case, settings.channels_of(job.case)) as source:
            found, odd = plausibility.look(source.like, source.sample(LOOKED_AT)), source.remarks
        settings.check_plausible(found)
        doubts = plausibility.doubts(found, settings.scaling == "window")
        doubts += plausibility.unlike(found, self.looks.get(job.modality, {}))
        return [*odd, *(doubt.text for doubt in doubts)]

    def _predict_job(self, job: Job, outputs: masks.Outputs) -> Iterator[int]:
        """Predict one input into those of its files that are missing; gives the slices done so far."""
        settings, classes, folder = self.settings[job.modality], len(self.recipe.classes), outputs.folder
        with open_source(job.case, settings.channels_of(job.case)) as source:
            for name in outputs.masks:
                masks.check_mask_format(name, source.like)
            labels = _scratch(folder, (1, *source.like.grid), np.uint8)
            scalars = None
            if outputs.scalars:
                scalars = _scratch(folder, (classes, *source.like.grid), np.float32)
            for place, _, of_classes in self._slabs(source, settings):
                labels[place] = to_labels(of_classes, self.recipe.prediction.threshold)
                if scalars is not None:
                    scalars[place] = of_classes
                yield place[source.axis + 1].stop
            missing = outputs.missing()
            if scalars is not None:
                for path, values in zip(outputs.scalars, scalars, strict=True):
                    if path in missing:
                        io.write_scalars(path, values, source.like)
            named, algorithm = dict(enumerate(self.recipe.classes, start=1)), self._algorithm(job.modality)
            for name, path in outputs.masks.items():
                if path in missing:
                    masks.write_mask(path, name, labels[0], source.like, named, algorithm)

    def _slabs(
        self, source: SlabSource, settings: Settings
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray, np.ndarray]]:
        """Each slab's place in `c i j k`, its voxels and its probabilities, all on the source's axes."""
        for start in range(0, source.slices, SLAB):
            stop = min(start + SLAB, source.slices)
            voxels = source.slab(start, stop)
            canonical, orientation = to_canonical(Volume(voxels, source.like.affine_ras))
            slices = prepare_slices(
                canonical.array, settings.size, settings.scaling, settings.percentiles, settings.window
            )
            restored = restore_slices(self.predict_slices(slices), canonical.grid[:2])
            probability = from_canonical(np.moveaxis(restored.numpy(), 0, -1), orientation)
            place = [slice(None)] * 4
            place[source.axis + 1] = slice(start, stop)
            yield tuple(place), voxels, probability
        source.check_contrast()

    def _average_over_flips(self, images: Tensor) -> Tensor:
        mirrors: list[tuple[int, ...]]
        mirrors = [(), (-1,), (-2,), (-2, -1)] if self.recipe.prediction.flips else [()]
        total = torch.zeros(())
        for axes in mirrors:
            flipped = images.flip(axes).contiguous(memory_format=torch.channels_last)
            with hardware.computing_in(self.precision, self.device):
                logits = self.network(flipped)
            if not logits.isfinite().all():
                raise RunError(
                    "The network's output is NaN or infinite for a usual image; expected finite numbers. "
                    "Its weights are damaged or their training has diverged: copy the run again, or train "
                    "again."
                )
            total = total.to(self.device) + probabilities(logits).flip(axes)
        return total / len(mirrors)

    def _algorithm(self, modality: str) -> Algorithm:
        """What a mask of DICOM says about where it comes from."""
        chosen = self.recipe.prediction
        return Algorithm(
            __version__,
            {
                "recipe": self.recipe.name,
                "modality": modality,
                "weights_sha256": self.weights_sha256,
                "threshold": str(chosen.threshold),
                "flips": str(chosen.flips),
            },
        )

    def _claim(self, out: Path, jobs: Sequence[Job], failures: dict[str, str]) -> None:
        """Make the output folder, or take one that an interrupted call with the same weights left.

        Writes the record; images that cannot be used are added to `failures`.

        Raises:
            RunError: it holds other files, or the mask of another image with the same name.
        """
        record = {
            "weights_sha256": self.weights_sha256,
            "recipe": self.recipe.name,
            "prediction": self.recipe.prediction.model_dump(mode="json"),
            "classes": {name: index for index, name in enumerate(self.recipe.classes, start=1)},
        }
        present = _read_record(out / RECORD_FILE)
        inputs: dict[str, str] = present.pop("inputs", {})
        substituted: dict[str, dict[str, str]] = present.pop("substituted", {})
        remarks: dict[str, list[str]] = present.pop("remarks", {})
        if present != record:
            new_folder(out, "The output folder")
        for job in jobs:
            name = job.case.id
            try:
                fingerprint, used = job.fingerprint(), self.settings[job.modality].substituted(job.case)
            except DataError as error:
                failures[name] = str(error)
                continue
            changed = inputs.get(name, fingerprint) != fingerprint
            there = [path for path in self._outputs(job, out, masks.MASK_FORMATS, True).all if path.exists()]
            if changed and there:
                raise RunError(
                    f"{there[0]} belongs to another image of that name, or the image has changed since. "
                    "Predict into another folder, or delete this one first."
                )
            inputs[name] = fingerprint
            substituted.pop(name, None)
            if used:
                substituted[name] = used
        kept = {"inputs": inputs, "substituted": substituted, "remarks": remarks}
        write_json(out / RECORD_FILE, record | kept)


class _Found(NamedTuple):
    """What came of one image elsewhere, besides its files."""

    slices: int
    remarks: dict[str, list[str]]
    failures: dict[str, str]


def _predict_elsewhere(
    predictor: Predictor, accept_implausible: bool, item: tuple[Job, int, masks.Outputs]
) -> _Found:
    job, slices, outputs = item
    found = _Found(slices, {}, {})
    with _kept_for_later(job, found.failures):
        found.remarks[job.case.id] = predictor._remarks(job, accept_implausible)
        for _ in predictor._predict_job(job, outputs):
            pass
    return found


def to_labels(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Class indices, uint8, from probabilities `classes …`: the likeliest that reaches the threshold."""
    best = probability.argmax(axis=0) + 1
    return np.where(probability.max(axis=0) >= threshold, best, 0).astype(np.uint8)


def substitutions(out: Path) -> dict[str, dict[str, str]]:
    """Case → its missing channels → those used in their place, of all cases predicted into a folder."""
    return dict(_read_record(out / RECORD_FILE).get("substituted", {}))


def remarks(out: Path) -> dict[str, list[str]]:
    """Case → what is odd or doubtful about its images, of all cases predicted into a folder."""
    return dict(_read_record(out / RECORD_FILE).get("remarks", {}))


def _add_remarks(out: Path, found: Mapping[str, list[str]]) -> None:
    record = _read_record(out / RECORD_FILE)
    kept = {name: texts for name, texts in (record["remarks"] | found).items() if texts}
    write_json(out / RECORD_FILE, record | {"remarks": kept})


@contextmanager
def _kept_for_later(job: Job, failures: dict[str, str]) -> Iterator[None]:
    """Keep an image's error, so that the other images are predicted first."""
    try:
        yield
    except DataError as error:
        failures[job.case.id] = f"Case {job.case.id}: {error}"


def _check_distinct(files: Iterable[masks.Outputs]) -> None:
    counts = Counter(path for outputs in files for path in outputs.all)
    path, count = counts.most_common(1)[0] if counts else (None, 0)
    if count > 1:
        raise DataError(
            f"{count} results would be written as {path}; expected a name of its own for each. Rename the "
            "inputs, or predict them into different folders."
        )


def _read_record(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; nothing if there was none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _scratch(folder: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A volume-sized array that the system may keep on disk instead of in memory.

    Raises:
        RunError: the disk has no room for it.
    """
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        # without its space taken beforehand, a full disk would end the process at the first write
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=shape, order="F")
