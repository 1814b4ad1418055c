"""The folder of a study: several networks, trained on the same sides of the same data.

study.json      the study, with all changes     runs/GROUP/VARIANT   ordinary run folders; of several
                                                                     trainings, in seed-N below
split.json      the sides of all runs           comparisons/GROUP    paired tests, by `oncoseg compare`
data.json       where the data sets lie         figure/              the slices of the figure
table1.csv, table2.csv, tests.csv, figure3.png, index.html           made when runs are evaluated

`study.json` is written last, so that a folder with it is complete.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg.datasets.folders import safe_id
from oncoseg.errors import RecipeError, RunError
from oncoseg.files import read_json, write_json, write_text
from oncoseg.run_folder import RunFolder
from oncoseg.studies.study import Run, Study

STUDY_FILE = "study.json"
"""Its presence tells a study's folder."""

SIDE = "test"
"""On which all runs are evaluated."""

FAILURE_FILE = "failure.json"
"""In the run folder of a training that failed: why, until it is done all the same."""

TIMING_FILE = "timing.json"
"""Beside an evaluation: how long its predictions took."""


def is_study(path: Path) -> bool:
    """Whether a folder is one of a study."""
    return (path / STUDY_FILE).is_file()


@dataclass(frozen=True)
class StudyFolder:
    """Paths and contents of the folder."""

    path: Path

    @property
    def split_file(self) -> Path:
        """The sides of all runs, as a run folder's `split.json`."""
        return self.path / "split.json"

    @property
    def runs(self) -> Path:
        """Where the run folders are."""
        return self.path / "runs"

    def study(self) -> Study:
        """The study as it was begun.

        Raises:
            RunError: no such folder, no study, or damaged.
        """
        if not (self.path / STUDY_FILE).exists():
            what = "holds no study" if self.path.exists() else "does not exist"
            raise RunError(
                f"{self.path} {what}; expected the folder of a study, as `oncoseg study NAME --out "
                f"{self.path}` writes it."
            )
        try:
            return Study.from_json(json.dumps(read_json(self.path / STUDY_FILE)))
        except (OSError, ValueError, RecipeError) as error:
            raise RunError(
                f"{self.path / STUDY_FILE} cannot be read ({error}); expected what `oncoseg study` wrote. "
                "Restore or mend the file, or begin the study again."
            ) from error

    def write_study(self, study: Study) -> None:
        """Keep the study."""
        write_text(self.path / STUDY_FILE, study.to_json() + "\n")

    def split(self) -> dict[str, Any]:
        """Modality → part → patient → case ids."""
        return RunFolder(self.path).split()

    def data(self) -> dict[str, Any]:
        """Modality → `path`, `channels`, `accept_implausible`, and `licence` and `origin` as stated."""
        return RunFolder(self.path).data()

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Keep where the data sets lie."""
        write_json(self.path / "data.json", data)

    def run(self, run: Run) -> RunFolder:
        """The run folder of a training."""
        where = self.runs / safe_id(run.group) / safe_id(run.variant)
        return RunFolder(where if run.seed is None else where / f"seed-{run.seed}")

    def note_failure(self, run: Run, why: str) -> None:
        """Keep why a training failed; nothing for one that is done now."""
        place = self.run(run).path / FAILURE_FILE
        if why:
            write_json(place, {"error": why})
        else:
            place.unlink(missing_ok=True)

    def failure(self, run: Run) -> str:
        """Why a training failed; empty where none did."""
        try:
            return str(read_json(self.run(run).path / FAILURE_FILE)["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def left(self, run: Run) -> str:
        """A training that is not done, in words."""
        why = self.failure(run)
        return f"{run.name} (failed: {why})" if why else run.name

    def comparison(self, group: str) -> Path:
        """Where a group's paired tests are written."""
        return self.path / "comparisons" / safe_id(group)


def minutes_spent(run: RunFolder) -> float:
    """Minutes of all calls that trained a run so far; 0 where none has."""
    try:
        return float(run.record()["in_all"]["minutes"] or 0.0)
    except (RunError, KeyError, TypeError):
        return 0.0


MINUTES_ROUNDING = 0.002
"""A budget counts as spent where so much of it is left: records are rounded."""


def is_done(run: RunFolder, minutes_each: float | None) -> bool:
    """Whether a run has had all its epochs, or its share of time."""
    if run.is_finished():
        return True
    return minutes_each is not None and minutes_spent(run) >= minutes_each - MINUTES_ROUNDING


def is_complete(folder: StudyFolder, study: Study, run: Run) -> bool:
    """Whether a run is trained and evaluated, and how long its predictions took is known."""
    where = folder.run(run)
    timed = (where.path / "evaluation" / SIDE / TIMING_FILE).is_file()
    scored = (where.path / "evaluation" / SIDE / "summary.json").is_file()
    return is_done(where, study.minutes_each) and timed and scored
