"""Prediction: from source files to masks and probabilities on the source's own grid.

Slices are read, prepared, computed and put back a slab at a time, with the preparation that training
used, so that memory does not grow with the length of a scan.
"""

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from oncoseg import __version__, display, hardware, io, limits, plausibility, predict2d, predict3d
from oncoseg.batches import Batches
from oncoseg.cascade_folder import CascadeFolder, is_cascade
from oncoseg.case_prediction import CasePrediction, ClassMaps
from oncoseg.cluster import Spread
from oncoseg.datasets.base import Case
from oncoseg.ensemble import Ensemble
from oncoseg.errors import DataError, RunError, failed_cases
from oncoseg.files import new_folder, write_json
from oncoseg.inputs import Job, Opened, find_jobs
from oncoseg.io import masks
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.networks import load_networks
from oncoseg.predict_cascade import Finder, Slabs, cascaded_slabs, nothing_found
from oncoseg.prediction_record import RECORD_FILE, add_remarks, read_record
from oncoseg.prepare import SLAB, Settings, read_truth
from oncoseg.recipe import Recipe
from oncoseg.regions import Box
from oncoseg.run_folder import RunFolder
from oncoseg.scratch import scratch_array
from oncoseg.shares import foreground, rule_of, to_labels
from oncoseg.slabs import Place, Seen, SlabSource, open_source
from oncoseg.transforms import ZEROS
from oncoseg.volume import Volume, to_canonical

LOOKED_AT = 9
"""Slices by which an image is judged before it is predicted."""

Progress = Callable[[int, int], None]


class Predictor:
    """A trained network, or several as an ensemble, with everything needed to be used on new images."""

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module | Sequence[nn.Module],
        weights_sha256: str = "",
        looks: Mapping[str, Mapping[str, Sequence[float]]] = MappingProxyType({}),
        first: "Predictor | None" = None,
    ) -> None:
        """Take one or more networks that fit the recipe; `load` is the usual way.

        Of several the probabilities are averaged, each network counting the same. `first` is the first stage
        of a cascade, in whose box these work.
        """
        hardware.tune_allocator()
        self.recipe = recipe
        # what was trained on a GPU can be used without one
        self.device = hardware.choose_device("cpu" if recipe.training.device == "cpu" else "auto")
        self.precision = hardware.choose_precision(recipe.training.precision, self.device)
        self._network = Ensemble(
            [network] if isinstance(network, nn.Module) else network,
            self.device,
            self.precision,
            spatial_dims=recipe.preparation.spatial_dims,
            flips=recipe.prediction.flips,
        )
        self.networks = self._network.networks
        self._windows = predict3d.Windows.of(recipe)
        self.weights_sha256, self.looks, self._first = weights_sha256, looks, first
        self.batches = Batches(recipe.prediction.batch_size, self.device)
        self.settings = {
            name: Settings.of(modality, recipe.classes, recipe.preparation)
            for name, modality in recipe.modalities.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy that is sent to another machine chooses the best device there."""
        networks = [copy.deepcopy(network).cpu() for network in self.networks]
        return Predictor, (self.recipe, networks, self.weights_sha256, dict(self.looks), self._first)

    @classmethod
    def load(cls, run: Path, changes: Mapping[str, Any] | None = None) -> "Predictor":
        """Read a run folder, that of a cross-validation, whose folds are an ensemble, or of a cascade.

        Args:
            run: the folder.
            changes: of the recipe's fields, such as `prediction.threshold`; see `Recipe.with_changes`. The
                first stage of a cascade keeps to its own.

        Raises:
            RunError: not a run folder, of another version, without weights that fit, or a fold that is not
                finished.
            RecipeError: an unknown field or an unfit value in `changes`.
        """
        folder = RunFolder(Path(run))
        recipe = folder.recipe().with_changes(changes or {})
        networks, weights_sha256 = load_networks(folder.path, recipe)
        first = cls.load(CascadeFolder(folder.path).first) if is_cascade(folder.path) else None
        return cls(recipe, networks, weights_sha256, folder.looks(), first)

    def predict_slices(self, slices: Tensor) -> Tensor:
        """Probabilities `n classes h w` (float32, on the CPU) of prepared slices `n c h w` in [0, 1].

        A slice without any contrast, such as one beyond the head, holds no information: it is not
        computed and its probability is 0.

        Raises:
            RunError: the network's output is not finite.
        """
        return predict2d.predict_slices(slices, self._network, len(self.recipe.classes), self.batches)

    def predict_case(self, case: Case, modality: str, scratch: Path | None = None) -> CasePrediction:
        """Predict one case that has a truth, on its source grid, for comparing both.

        Args:
            case: the case.
            modality: a name in the recipe's modalities.
            scratch: folder on whose disk image and probabilities lie, in files without a name; None for the
                system's temporary folder, which may be in memory.

        Raises:
            DataError: images or masks that cannot be used; names the case.
            RunError: the network's output is not finite, or the disk has no room.
        """
        settings, folder = self.settings[modality], scratch or Path(tempfile.gettempdir())
        channels = settings.channels_of(case)
        channel = display.shown_channel([name for name in channels if name != ZEROS])
        try:
            with open_source(case, channels) as source:
                probability = scratch_array(folder, (1, *source.like.grid), np.float32)
                image = scratch_array(folder, (1, *source.like.grid), np.float32)
                each, lost = self._room_for_classes(source.like.grid, folder), list[str]()

                def keep(place: Place, voxels: np.ndarray) -> None:
                    image[place] = voxels[channels.index(channel)]

                for place, of_classes in self._slabs(source, modality, folder, keep, lost.append):
                    probability[place] = foreground(of_classes)
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
            image=display.brightened(shown.array[0], window),
            truth=marks,
            probability=to_canonical(like.with_array(probability))[0].array[0],
            spacing_mm=spacing_mm,
            substituted=settings.substituted(case),
            letters=display.letters(shown.affine_ras) if io.orientation_known(like) else None,
            ground=f"{channel}, {window.words}",
            classes=None if each is None else self._class_maps(truth, like.with_array(each)),
            axes_mm=shown.sheared_axes_mm,
            organ_found=not lost,
        )

    def _room_for_classes(self, grid: tuple[int, int, int], folder: Path) -> np.ndarray | None:
        """Where several classes' probabilities go, in a file that the system may page out; else None."""
        classes = len(self.recipe.classes)
        return scratch_array(folder, (classes, *grid), np.float32) if classes > 1 else None

    def _class_maps(self, truth: np.ndarray, probability: Volume) -> ClassMaps:
        return ClassMaps(tuple(self.recipe.classes), truth, to_canonical(probability)[0].array)

    def predict(
        self,
        inputs: Sequence[Path],
        out: Path,
        *,
        modality: str | None = None,
        channels: Mapping[str, str] | None = None,
        formats: Sequence[str] = ("nifti",),
        probabilities: bool = False,
        accept_implausible: bool = False,
        progress: Progress | None = None,
        opened: Opened | None = None,
        foretell: Callable[[str], None] | None = None,
        spread: Spread | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> list[Path]:
        """Write a mask for every input on the input's own grid.

        What an earlier, interrupted call with the same weights has written is kept and not computed
        again. An image that cannot be used does not keep the others from being predicted.

        Args:
            inputs: images, folders of images, cases or data sets.
            out: folder for the masks and `prediction.json`.
            modality: a name in the recipe's modalities; None decides by the channels.
            channels: of DICOM folders, channel → what its series are called; see `open_dataset`.
            formats: of each mask, among `MASK_FORMATS`: `nifti` is `CASE.nii.gz`, class indices as uint8;
                `seg` and `rtstruct` are `CASE_seg.dcm` and `CASE_rtstruct.dcm`, for DICOM images.
            probabilities: also write `CASE_probability.nii.gz` (float32), one per class if several.
            accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
            progress: called with (slices done, slices in all).
            opened: called with each data set's folder and what was found in it, guesses and problems, before
                anything is predicted.
            foretell: told first, in a line, what memory, disk and time it will take; None to do without. Not
                with `spread`.
            spread: where the images are predicted, such as on a cluster; None for this process.
            warn: told when fewer slices are computed at a time than the recipe says, for want of memory.

        Returns:
            The masks' paths, in the order of the inputs and of the formats.

        Raises:
            DataError: inputs that are unclear or of one name, before anything is predicted; or images
                that cannot be used, after all others were.
            RunError: `out` holds other files, masks of other images among them, cannot be written or has
                no room; memory will not do; or the network's output is not finite.
        """
        self.batches.warn = warn
        for name in formats:
            masks.check_mask_format(name)
        failures: dict[str, str] = {}
        jobs = find_jobs(inputs, self.recipe, modality, channels=channels, opened=opened, failures=failures)
        asked = len(jobs) + len(failures)
        files = {job.case.id: self._outputs(job, out, formats, probabilities) for job in jobs}
        masks.check_distinct(files.values())
        self._claim(out, jobs, failures)
        todo: dict[str, tuple[Job, int]] = {}
        for job in jobs:
            with _kept_for_later(job, failures):
                if job.case.id not in failures and files[job.case.id].missing():
                    todo[job.case.id] = job, job.slices() * (2 if self._first else 1)
        total = sum(slices for _, slices in todo.values())
        if todo and foretell is not None and spread is None:  # of a cluster nothing is known beforehand
            with suppress(DataError):  # an image that cannot be used is told of below
                foretell(
                    self._foresee(max(todo.values(), key=lambda one: one[1])[0], total, out, probabilities)
                )
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
                for done in self._predict_job(job, files[name], remarks[name]):
                    notify(before + done, total)
                add_remarks(out, {name: remarks[name]})
            before += slices
        add_remarks(out, remarks)
        if failures:
            raise failed_cases(list(failures.values()), asked, f"predicted; the others are in {out}")
        return [path for outputs in files.values() for path in outputs.masks.values()]

    def _foresee(self, job: Job, slices: int, out: Path, probabilities: bool) -> str:
        """What predicting will take, from a trial on the beginning of the longest image; in words.

        The disk is what the longest image's mask (and probabilities) take before they are compressed.

        Raises:
            RunError: `out` has no room for it.
            DataError: the image cannot be used.
        """
        settings = self.settings[job.modality]
        with open_source(job.case, settings.channels_of(job.case)) as source:
            seconds = self._foretell_seconds(source, job.modality) * slices / source.slices
            voxels, classes = math.prod(source.like.grid), len(self.recipe.classes)
            disk = voxels * (1 + (torch.float32.itemsize * classes if probabilities else 0))
            layer = 0.0
            if self._windows is not None:
                disk += predict3d.scratch_bytes(source)
                layer = predict3d.layer_bytes(source, settings, classes, self._windows)
        limits.check_disk(disk, out, "The longest image")
        return limits.in_words((limits.resident_bytes() or 0) + disk + layer, disk, seconds)

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

    def _predict_job(self, job: Job, outputs: masks.Outputs, remarks: list[str]) -> Iterator[int]:
        """Predict one input into those of its files that are missing; gives the slices done so far.

        What is to be said of the result is added to the remarks.
        """
        settings, classes, folder = self.settings[job.modality], len(self.recipe.classes), outputs.folder
        with open_source(job.case, settings.channels_of(job.case)) as source:
            for name in outputs.masks:
                masks.check_mask_format(name, source.like)
            labels = scratch_array(folder, (1, *source.like.grid), np.uint8)
            scalars = None
            if outputs.scalars:
                scalars = scratch_array(folder, (classes, *source.like.grid), np.float32)
            done = 0
            for place, of_classes in self._slabs(source, job.modality, folder, _unseen, remarks.append):
                labels[place] = to_labels(of_classes, self.recipe.prediction.threshold)
                if scalars is not None:
                    scalars[place] = of_classes
                done += of_classes.shape[source.axis + 1]
                yield done
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
        self,
        source: SlabSource,
        modality: str,
        folder: Path,
        seen: Seen,
        remark: Callable[[str], None] = lambda text: None,
    ) -> Slabs:
        """Each slab's place in `c i j k` and its probabilities, on the source's axes; the last ones count."""
        if self._first is None:
            return self._own_slabs(source, modality, folder, seen)
        return cascaded_slabs(
            source,
            self._first.finder(source, self.recipe.cascade.margin_mm),
            self._first._own_slabs(source, modality, folder, seen),
            lambda part: self._own_slabs(part, modality, folder, _unseen),
            len(self.recipe.classes),
            lambda: remark(nothing_found(", ".join(self._first.recipe.classes) if self._first else "")),
        )

    def finder(self, source: SlabSource, margin_mm: float) -> Finder:
        """What takes in this network's probabilities as the first stage of a cascade."""
        return Finder(source, self.recipe.prediction.threshold, margin_mm)

    def find(self, case: Case, modality: str, margin_mm: float) -> tuple[Box | None, Volume]:
        """The box around all that this network marks in a case, on its canonical grid, and the case's grid.

        Raises:
            DataError: images that cannot be used.
            RunError: the network's output is not finite.
        """
        with open_source(case, self.settings[modality].channels_of(case)) as source:
            finder = self.finder(source, margin_mm)
            for _ in finder.watched(self._own_slabs(source, modality, Path(tempfile.gettempdir()), _unseen)):
                pass
            return finder.box(), source.like

    def _own_slabs(self, source: SlabSource, modality: str, folder: Path, seen: Seen) -> Slabs:
        settings, classes = self.settings[modality], len(self.recipe.classes)
        if self._windows is not None:
            return predict3d.predict_slabs(
                source, settings, self._network, classes, self._windows, folder, seen
            )
        return predict2d.predict_slabs(source, settings, self._network, classes, self.batches, seen)

    def _foretell_seconds(self, source: SlabSource, modality: str) -> float:
        if self._first is not None:  # a pass of either stage, the second over the whole image at most
            return (self._first._foretell_seconds(source, modality) + self._own_seconds(source, modality)) / 2
        return self._own_seconds(source, modality)

    def _own_seconds(self, source: SlabSource, modality: str) -> float:
        recipe, settings = self.recipe, self.settings[modality]
        channels, classes = recipe.in_channels, len(recipe.classes)
        if self._windows is not None:
            return predict3d.foretell_seconds(source, settings, self._network, channels, self._windows)
        count = min(SLAB, source.slices)
        self.batches.check_slab(count, math.prod(source.like.grid) // source.slices * channels)
        self.batches.fit(self.predict_slices, channels, settings.size)
        return predict2d.foretell_seconds(source, settings, self._network, classes, self.batches)

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
                **{name: str(number) for name, number in self._members().items()},
            },
        )

    def _members(self) -> dict[str, int]:
        """Of how many networks the probabilities are averages; nothing for one."""
        return {"networks": len(self.networks)} if len(self.networks) > 1 else {}

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
            **rule_of(len(self.recipe.classes)),
            **self._members(),
        }
        present = read_record(out / RECORD_FILE)
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
        for _ in predictor._predict_job(job, outputs, found.remarks[job.case.id]):
            pass
    return found


def _unseen(place: Place, voxels: np.ndarray) -> None:
    """For slabs that nobody wants to see."""


@contextmanager
def _kept_for_later(job: Job, failures: dict[str, str]) -> Iterator[None]:
    """Keep an image's error, so that the other images are predicted first."""
    try:
        yield
    except DataError as error:
        failures[job.case.id] = f"Case {job.case.id}: {error}"
