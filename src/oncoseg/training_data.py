"""What a run trains on: data sets opened, split by patient and prepared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg import split as splitting
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError
from oncoseg.files import sha256_of_json
from oncoseg.prepare import Progress, Settings, prepare
from oncoseg.recipe import Recipe
from oncoseg.store import PreparedCase


class TrainingData(NamedTuple):
    """Prepared cases of both sides that training sees, and the records for the run folder."""

    train: dict[str, list[PreparedCase]]
    validation: dict[str, list[PreparedCase]]
    split: dict[str, Any]
    data: dict[str, Any]


def default_store() -> Path:
    """The prepared store when none is named: in the user's cache folder."""
    import os

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "oncoseg" / "prepared"


def load(
    recipe: Recipe,
    data: Mapping[str, Path],
    store: Path,
    *,
    split: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TrainingData:
    """Open, split and prepare every modality of a recipe.

    Only the training and validation cases are prepared; the test set is read from its own files
    when it is evaluated.

    Args:
        recipe: which modalities, how they are split and prepared.
        data: modality → folder of its data set.
        store: folder of the prepared store.
        split: modality → part → patient → case ids, to use a split made before.
        workers: see `prepare`.
        progress: called with (cases done, cases in all), for each modality anew.

    Raises:
        DataError: data for other modalities than the recipe's, or cases that cannot be used.
    """
    check_modalities(recipe, data)
    train: dict[str, list[PreparedCase]] = {}
    validation: dict[str, list[PreparedCase]] = {}
    splits, records = {}, {}
    for name, modality in recipe.modalities.items():
        scan = open_dataset(data[name])
        parts = _split(recipe, scan, name, split)
        settings = Settings.of(modality, recipe.classes, recipe.preparation)
        used = [*parts["train"], *parts["validation"]]
        try:
            prepared = prepare(used, settings, store, workers=workers, progress=progress)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        train[name] = prepared[: len(parts["train"])]
        validation[name] = prepared[len(parts["train"]) :]
        splits[name] = splitting.to_json(parts)
        records[name] = _record(data[name], scan, prepared, settings)
    return TrainingData(train, validation, splits, records)


def read_split(path: Path) -> dict[str, Any]:
    """Read a split file such as a run folder's `split.json`.

    Raises:
        DataError: not readable, or not of that form.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["modalities"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Cannot read the split {path} ({error}); expected a file like a run folder's split.json: "
            '{"modalities": {"mri": {"train": {"PATIENT": ["CASE"]}, "validation": …, "test": …}}}.'
        ) from error


def check_modalities(recipe: Recipe, data: Mapping[str, Path]) -> None:
    """Check that there is one folder for each of the recipe's modalities.

    Raises:
        DataError: one is missing or one too many.
    """
    expected = " ".join(f"--data {name}=PATH" for name in recipe.modalities)
    if set(data) != set(recipe.modalities):
        raise DataError(
            f"Recipe {recipe.name} needs data for {' and '.join(recipe.modalities)}; got "
            f"{' and '.join(data) or 'none'}. Give {expected}."
        )


def _split(recipe: Recipe, scan: Scan, name: str, given: Mapping[str, Any] | None) -> dict[str, list[Case]]:
    if given is None:
        shares = recipe.split
        return splitting.split_patients(scan.cases, shares.train, shares.validation, recipe.training.seed)
    parts = splitting.from_json(given.get(name) or {}, scan.cases)
    for part in ("train", "validation"):
        if not parts[part]:
            raise DataError(
                f"The split has no case under {part} for {name}; expected at least one patient to train "
                "on and one to choose the checkpoint. Add some, or let the split be drawn."
            )
    return parts


def _record(path: Path, scan: Scan, prepared: list[PreparedCase], settings: Settings) -> dict[str, Any]:
    substituted = {
        wanted: used
        for case in scan.cases
        for wanted, used in zip(settings.wanted, settings.channels_of(case), strict=True)
        if wanted != used
    }
    return {
        "path": str(path.resolve()),
        "layout": scan.layout,
        "cases": len(scan.cases),
        "patients": len({case.patient for case in scan.cases}),
        "substituted_channels": substituted,
        "problems": len(scan.problems),
        "fingerprint": sha256_of_json(sorted(case.folder.name for case in prepared))[:16],
    }
