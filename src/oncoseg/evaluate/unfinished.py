"""Scores of cases that were done when a command was stopped, so that the same command goes on from there."""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Case
from oncoseg.evaluate.scoring import CaseScores
from oncoseg.files import existing_folder, new_folder, sha256_of_json, write_text
from oncoseg.metrics.overlap import Confusion

UNFINISHED = ".unfinished"
"""A folder within the one that is being filled; it goes when the tables are written."""

VERSION = 1
"""Of what a kept file holds, and of what is computed: older ones are not taken."""


class Unfinished:
    """What is done of a folder of tables.

    Args:
        out: the folder; new, empty, or left by the same kind of command that was stopped.
        what: names the folder in the error.
        settings: what decides a score besides the case's files, as JSON can hold it.

    Raises:
        RunError: the folder holds something else, or cannot be written.
    """

    def __init__(self, out: Path, what: str, settings: Any) -> None:
        """Look at the folder, and make it where it is not there."""
        self._folder, self._settings = out / UNFINISHED, settings
        stopped = self._folder.is_dir() and len(list(out.iterdir())) == 1
        (existing_folder(out) if stopped else new_folder(out, what))

    def recall(self, case: Case) -> list[CaseScores] | None:
        """A case's scores; None where they are not there, or files or settings have changed."""
        place = self._place(case)
        try:
            if place is None:
                return None
            rows = json.loads(place.read_text(encoding="utf-8"))
            return [CaseScores(**row | {"counts": Confusion(*row["counts"])}) for row in rows]
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, case: Case, rows: Sequence[CaseScores]) -> None:
        """Keep a case's scores; those without curves only."""
        if (place := self._place(case)) is not None:
            write_text(place, json.dumps([row._asdict() for row in rows]))

    def finish(self) -> None:
        """Everything is written."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)

    def _place(self, case: Case) -> Path | None:
        try:
            masks = [
                [
                    [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
                    for files in (ref.files, ref.grid_of)
                ]
                + [ref.structures, ref.component]
                for ref in case.masks
            ]
        except OSError:
            return None  # reading it will say what is wrong
        labels = sorted(case.labels.items())
        name = sha256_of_json([VERSION, self._settings, case.id, case.patient, labels, masks])
        return self._folder / f"{name}.json"
