"""The folder of a cross-validation, which is also the model folder of its ensemble.

recipe.json     the recipe of every fold        folds.json     the split of every fold
data.json       the data sets, of all cases     evaluation/    made by `evaluate`, out of fold
fold-1 …        ordinary run folders

`folds.json` is written last, so that a folder with it is complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg.errors import RunError
from oncoseg.files import write_json
from oncoseg.run_folder import RunFolder

FOLDS_FILE = "folds.json"
"""Its presence tells a cross-validation from a run."""


def is_cross_validation(path: Path) -> bool:
    """Whether a folder is one of a cross-validation."""
    return (path / FOLDS_FILE).is_file()


@dataclass(frozen=True)
class FoldsFolder:
    """Paths and contents of the folder; `RunFolder` of the same path reads its recipe and data."""

    path: Path

    def splits(self) -> list[dict[str, Any]]:
        """Of every fold: modality → part → patient → case ids.

        Raises:
            RunError: no cross-validation, or its folds are damaged.
        """
        try:
            folds = json.loads((self.path / FOLDS_FILE).read_text(encoding="utf-8"))["folds"]
            return [dict(fold["modalities"]) for fold in folds]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path / FOLDS_FILE} cannot be read ({type(error).__name__}); expected the folds that "
                "`oncoseg train --folds` wrote. Restore the file, or train again."
            ) from error

    def write_splits(self, seed: int, splits: Sequence[Mapping[str, Any]]) -> None:
        """Keep the folds."""
        write_json(
            self.path / FOLDS_FILE, {"seed": seed, "folds": [{"modalities": split} for split in splits]}
        )

    def run(self, number: int) -> RunFolder:
        """Fold `number`, from 1."""
        return RunFolder(self.path / f"fold-{number}")

    def runs(self) -> list[RunFolder]:
        """All folds, in order."""
        return [self.run(number) for number in range(1, len(self.splits()) + 1)]

    def finished_runs(self) -> list[RunFolder]:
        """All folds, in order.

        Raises:
            RunError: one is not finished; says which, and how to go on.
        """
        runs = self.runs()
        left = [run.path.name for run in runs if not run.is_finished()]
        if left:
            raise RunError(
                f"{len(left)} of the {len(runs)} folds in {self.path} are not trained to the end: "
                f"{', '.join(left)}; expected all. Go on with `oncoseg train --resume --out {self.path}`."
            )
        return runs


def split_of_model(path: Path) -> dict[str, Any]:
    """Modality → part → patient → case ids of a run folder's network, or of an ensemble of folds.

    Of an ensemble everybody stands under train, as some fold was trained on them.

    Raises:
        RunError: neither of both, or damaged.
    """
    if not is_cross_validation(path):
        return RunFolder(path).split()
    sides: dict[str, Any] = {}
    for split in FoldsFolder(path).splits():
        for modality, parts in split.items():
            train = sides.setdefault(modality, {"train": {}, "validation": {}, "test": {}})["train"]
            train |= parts["test"]
    return sides
