"""The run folder, which is also the model folder: what each file in it is called and holds.

recipe.json        the resolved recipe        split.json     who was trained on and who was not
data.json          the data sets used         log.csv        one row per epoch and modality
model.safetensors  the kept (best) weights    metrics.json   when they were reached, on what
checkpoint.pt      the last state, to resume  tensorboard/   the log, for TensorBoard
checkpoint-before.pt, model-before.safetensors   the ones before, for where the last checkpoint is damaged
record.json        every call that trained    nan.json       which step ended in NaN, if any did
rerun.json         made by `rerun`: whether its numbers are those of the run that was repeated
evaluation/        made by `evaluate`         report/        made by `report`
training.lock      while a process trains it, so that no other one does

`predict` and `evaluate` use the best weights only, which are there once a joint epoch is finished. Until
then, as after a stop in the pretraining, they say so and name `oncoseg train --resume`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg.errors import FailedRun, RecipeError, RunError
from oncoseg.files import read_json, sha256_of_file, write_json, write_text
from oncoseg.recipe import FORMAT_VERSION, Recipe


@dataclass(frozen=True)
class RunFolder:
    """Paths and contents of a run folder."""

    path: Path

    @property
    def model(self) -> Path:
        """The kept weights."""
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """All that resuming needs."""
        return self.path / "checkpoint.pt"

    @property
    def lock(self) -> Path:
        """Held by the process that trains; see `locks`."""
        return self.path / "training.lock"

    @property
    def log(self) -> Path:
        """One row per epoch and modality."""
        return self.path / "log.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            RunError: not a run folder, or one of another version of oncoseg.
        """
        values = self._json("recipe.json")
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise RunError(
                f"The run folder {self.path} has format version {version}; this oncoseg reads version "
                f"{FORMAT_VERSION}. Use the oncoseg that made it, or train again."
            )
        try:
            return Recipe.from_json(json.dumps(values))
        except RecipeError as error:
            raise RunError(f"The run folder {self.path} holds a recipe that does not fit: {error}") from error

    def split(self) -> dict[str, Any]:
        """Modality → part → patient → case ids; a part besides the sides is `split.UNLABELLED`."""
        values = self._json("split.json").get("modalities")
        if not isinstance(values, dict):
            raise RunError(
                f"{self.path / 'split.json'} is damaged (it lists no modalities). Restore it, or train again."
            )
        return values

    def split_seed(self) -> int | None:
        """The seed by which the split was drawn, or would have been had none been given."""
        seed = self._json("split.json").get("seed")
        return seed if isinstance(seed, int) else None

    def data(self) -> dict[str, Any]:
        """Modality → what is known of its data set when the run was started.

        `path` and `layout` say where it lay and how; `licence` and `origin` are as the user stated
        them; `synthetic` whether its images show no patient;
        `cases` and `patients` how many it held, without those left out for their size, and of which
        `without_truth` cases have no mask;
        `substituted_channels` which missing channel was replaced by which, on any side; `problems` what
        was wrong with it, each with its kind, case and message; `doubts` likewise what is doubtful about
        its images, and `accept_implausible` whether they were to be taken all the same; `looks` the
        smallest and largest of what `plausibility.summarise` measures, with which new images are
        compared; and `fingerprint` is a hash of the prepared training and validation cases (not of the
        test cases), with their ids, patients, sites and classes, which resuming compares;
        `images_fingerprint` is that of images and masks only, as the first versions' `fingerprint` was.
        `labels_by`, of several classes, is the rule by which masks and validation tell them apart.
        `boxes`, of the second stage of a cascade, is the part of each case that was seen.
        Where scans are learnt from without a mask, `unlabelled` says how many `cases` and `patients`, their
        `fingerprint`, and the `path` of a folder of their own, if any.
        """
        return self._json("data.json")

    def looks(self) -> dict[str, dict[str, list[float]]]:
        """Modality → what its training images look like; nothing where the folder does not say."""
        try:
            return {name: record.get("looks", {}) for name, record in self.data().items()}
        except RunError:
            return {}

    def metrics(self) -> dict[str, Any]:
        """How the kept weights came about."""
        return self._json("metrics.json")

    def record(self) -> dict[str, Any]:
        """What `training.record` keeps of every call that trained.

        `calls` has an entry for each: `from` and `to` (stage, epoch from 1, and steps of it that were
        done), `ended` (why; null where it was killed or failed), `remarks`, `packages`, git `revision`,
        `hardware`, `precision`, `minutes`, `processor_seconds` and `energy_joules` (null with a reason in
        `energy_note`). `in_all` sums them up, `seeds` and `data` say what decided the result.
        """
        return self._json("record.json")

    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        try:
            return self.metrics().get("finished") is True
        except RunError:
            return False

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the resolved recipe."""
        write_text(self.path / "recipe.json", recipe.to_json() + "\n")

    def write_split(self, seed: int, modalities: dict[str, Any]) -> None:
        """Keep the split."""
        write_json(self.path / "split.json", {"seed": seed, "modalities": modalities})

    def write_data(self, data: dict[str, Any]) -> None:
        """Keep the description of the data sets."""
        write_json(self.path / "data.json", data)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Keep how the weights came about; NaN becomes null."""
        write_json(self.path / "metrics.json", metrics)

    def write_record(self, record: dict[str, Any]) -> None:
        """Keep what every call did."""
        write_json(self.path / "record.json", record)

    def write_divergence(self, report: dict[str, Any]) -> None:
        """Keep what is known of a step that came to NaN or infinity; see `training.divergence`."""
        write_json(self.path / "nan.json", report)

    def need_model(self) -> Path:
        """The kept weights' path.

        Raises:
            RunError: no epoch has been finished yet, or they are gone.
        """
        best = self._best()
        if not self.model.is_file():
            self.recipe()
            raise FailedRun(
                f"The run folder {self.path} has no model.safetensors: {_why_no_model(best)} "
                f"`oncoseg train --resume --out {self.path}`."
            )
        return self.model

    def check_model(self) -> None:
        """Check that the kept weights are those that `metrics.json` names; older runs name none.

        Raises:
            RunError: they are others.
        """
        if self._best().get("sha256") not in (None, sha256_of_file(self.model)):
            raise FailedRun(
                f"{self.model} does not hold the weights that metrics.json names by their hash; expected "
                "those. It is damaged, was replaced, or the training was killed at that moment. Restore the "
                "file from a copy; or see whether they can be had from the last checkpoint, with "
                f"`oncoseg train --resume --out {self.path}`."
            )

    def _best(self) -> dict[str, Any]:
        """What `metrics.json` says of the kept weights; nothing where it says nothing."""
        try:
            return dict(self.metrics().get("best") or {})
        except RunError:
            return {}

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not self.path.exists():
            raise RunError(
                f"{self.path} does not exist; expected a run folder. Give the one that `oncoseg train --out` "
                "wrote."
            )
        if not path.is_file():
            raise RunError(
                f"{self.path} is not a complete run folder: expected {name} in it. Give the folder that "
                "`oncoseg train --out` wrote."
            )
        try:
            return dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}). Restore it, or train again.") from error


def _why_no_model(best: Mapping[str, Any]) -> str:
    """Also what to do, but for the command."""
    if not best:
        return "no joint epoch was finished yet. Go on with"
    place = f"{best.get('stage', 'joint')} epoch {best['epoch']}"
    return (
        f"the weights of {place}, which it kept, are gone. Restore the file from a copy; or see whether "
        "they can be had from the last checkpoint, with"
    )
