"""The folder of a cascade, which is also the model folder of both its stages.

recipe.json    of the whole, with `cascade`    split.json     who was trained on, in either stage, and who not
data.json      the data sets                   cascade.json   the box of every case that stage 2 is trained on
stage-1        a cross-validation              stage-2        an ordinary run, on what is in the boxes
evaluation/    made by `evaluate`              report/        made by `report`

`cascade.json` is there from the beginning, and gets a box at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg.errors import RunError
from oncoseg.files import read_json, write_json
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.regions import Box, read_box
from oncoseg.run_folder import RunFolder

CASCADE_FILE, FIRST_STAGE = "cascade.json", "stage-1"
"""The presence of either tells a cascade from a run."""

FORMAT_VERSION = 1
"""Of that file."""


def is_cascade(path: Path) -> bool:
    """Whether a folder is one of a cascade."""
    return (path / CASCADE_FILE).is_file() or (path / FIRST_STAGE).is_dir()


@dataclass(frozen=True)
class Found:
    """What stage 1 found in one case.

    Attributes:
        fold: the one whose network looked, from 1; it has not seen the patient.
        box: on the case's canonical grid; all of it where nothing was found.
        organ_found: whether anything was.
        truth_voxels: of all classes, on the source's grid.
        truth_outside: how many of these are not in the box, and so cannot be found.
    """

    fold: int
    box: Box
    organ_found: bool
    truth_voxels: int
    truth_outside: int


@dataclass(frozen=True)
class CascadeFolder:
    """Paths and contents of the folder; `RunFolder` of the same path reads its recipe, split and data."""

    path: Path

    @property
    def first(self) -> Path:
        """The cross-validation that finds the organ."""
        return self.path / FIRST_STAGE

    @property
    def second(self) -> RunFolder:
        """The run in the boxes."""
        return RunFolder(self.path / "stage-2")

    def found(self) -> dict[str, dict[str, Found]]:
        """Modality → case id → what stage 1 found, of the cases that it was computed on so far.

        Raises:
            RunError: no cascade, or a damaged file.
        """
        path = self.path / CASCADE_FILE
        try:
            listed = read_json(path)["found"]
            return {
                name: {case: Found(**one | {"box": read_box(one["box"])}) for case, one in of.items()}
                for name, of in listed.items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} cannot be read ({type(error).__name__}); expected what `oncoseg train "
                "--cascade.organ` wrote. Restore the file, or train again."
            ) from error

    def write_found(self, found: Mapping[str, Mapping[str, Found]]) -> None:
        """Keep what stage 1 found so far."""
        listed: dict[str, Any] = {
            name: {case: vars(one) for case, one in of.items()} for name, of in found.items()
        }
        write_json(self.path / CASCADE_FILE, {"format_version": FORMAT_VERSION, "found": listed})

    def is_finished(self) -> bool:
        """Whether both stages are trained to the end."""
        if not (self.second.is_finished() and is_cross_validation(self.first)):
            return False
        return all(run.is_finished() for run in FoldsFolder(self.first).runs())


def missed_in_words(found: Mapping[str, Mapping[str, Found]], organ: str) -> str:
    """What follows where stage 1 did not find the organ in some cases; empty where it always did."""
    every = [one for of in found.values() for one in of.values()]
    if not (missed := sum(not one.organ_found for one in every)):
        return ""
    return (
        f"Stage 1 found no {organ} in {missed} of {len(every)} training and validation cases, of which "
        f"stage 2 saw the whole image; in new images where it finds no {organ} nothing is marked. Train "
        "stage 1 for longer (--cascade.first), in a new folder."
    )


def last_run(path: Path) -> RunFolder:
    """The run that makes the masks: of a cascade its second stage, else the folder itself."""
    return CascadeFolder(path).second if is_cascade(path) else RunFolder(path)
