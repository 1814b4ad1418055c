"""What a run remembers of how it came about: `record.json`, with an entry for every call that trained.

An entry is begun with the call and renewed with every checkpoint, so that a kill leaves what came before it.
"""

import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import oncoseg
from oncoseg import hardware
from oncoseg.errors import RunError
from oncoseg.files import disk_errors
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.training.meter import Meter

NAME = "record.json"
"""Of the record in a run folder."""

DAMAGED = "record-damaged.json"
"""Where one lies that could not be read."""

NOT_STATED = "not stated"
"""Licence and origin of data of which the user said nothing."""

PACKAGES = (
    *("blosc2", "lightning-fabric", "monai", "nibabel", "numpy", "pillow", "pydantic", "pydicom"),
    *("safetensors", "scipy", "torch"),
)
"""Packages besides oncoseg that a result can depend on; those that are not installed are left out."""

GIT_SECONDS = 10.0
"""How long git may take to answer."""

SUMS = ("minutes", "waiting_seconds", "processor_seconds", "energy_joules")
"""Figures of the calls that are also given in all."""


DECIDING = ("precision", "processor", "threads", "gpu", "torch")
"""What rounding depends on, of the precision and what `hardware.describe` says."""

CHANGED = (
    "This run goes on otherwise than it was trained so far: {facts}. Its result will not be bit for bit that "
    "of a run that was never stopped."
)
"""Said where it does."""


class Record:
    """The record of one run, while a call trains."""

    def __init__(
        self, run: RunFolder, recipe: Recipe, meter: Meter, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self._run, self._recipe, self._meter, self._warn = run, recipe, meter, warn
        self._damaged = ""
        try:
            self._earlier: list[dict[str, Any]] = list(run.record().get("calls", []))
        except RunError as error:
            self._earlier = []
            if (run.path / NAME).exists():  # else the run has not begun, or is of before there were records
                self._damaged = str(error)
        self._call: dict[str, Any] = {"remarks": []}

    def begin(self, place: Mapping[str, Any], precision: str) -> str | None:
        """Add an entry for this call, which starts at a place of the training.

        Returns:
            A sentence where it computes otherwise than the call before it, which is also a remark.
        """
        self._set_damaged_aside()
        self._call = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "from": dict(place),
            "to": dict(place),
            "ended": None,
            "remarks": [],
            "packages": package_versions(),
            "revision": revision(),
            "hardware": hardware.describe(),
            "precision": precision,
        }
        changed = _changed(self._earlier[-1], self._call) if self._earlier else None
        if changed is not None:
            self.remark(changed)
        self.keep(place)
        return changed

    def remark(self, text: str) -> None:
        """Note something that was changed on the way."""
        self._call["remarks"].append(text)

    def keep(self, place: Mapping[str, Any], ended: str | None = None) -> None:
        """Write how far the call has come, and how it ended if it has."""
        self._call |= {"to": dict(place), "ended": ended} | self._meter.read()
        self._run.write_record(self._content())

    def _set_damaged_aside(self) -> None:
        """Keep what is left of a record that cannot be read, and say that the calls in it are missing."""
        if self._damaged:
            path = self._run.path / NAME
            with disk_errors(path):
                path.replace(path.with_name(DAMAGED))
            text = f"the calls before this one are not in the record. What is left of it is now {DAMAGED}."
            self._warn(f"{path} is damaged: {text}")
            self._damaged = ""

    def _content(self) -> dict[str, Any]:
        calls = [*self._earlier, self._call]
        seed = self._recipe.training.seed
        return {
            "recipe": self._recipe.name,
            "extensions": list(self._recipe.training.extensions),
            "seeds": {"split": self._run.split_seed(), "training": seed},
            "data": {name: _of_data(data) for name, data in self._run.data().items()},
            "in_all": {name: _sum_if_all(calls, name) for name in SUMS},
            "calls": calls,
        }


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What rounds otherwise than in the call before, in a sentence; what that did not note is equal."""
    old, new = (call.get("hardware", {}) | {"precision": call.get("precision")} for call in (before, now))
    other = [
        f"{name} {new[name]} (before: {old[name]})"
        for name in DECIDING
        if name in old and old[name] != new[name]
    ]
    return CHANGED.format(facts=", ".join(other)) if other else None


def package_versions() -> dict[str, str]:
    """Package → version, of oncoseg and all that a result can depend on."""
    found = {"oncoseg": oncoseg.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(folder: Path | None = None) -> dict[str, Any] | None:
    """The git commit of oncoseg's code and whether it was changed since; None where it is no checkout.

    Args:
        folder: of the code; None for this package's own.
    """
    where = folder or Path(oncoseg.__file__).parent
    if _git(where, "ls-files", "--error-unmatch", "__init__.py") is None:  # also another repository's venv
        return None
    commit, changes = _git(where, "rev-parse", "HEAD"), _git(where, "status", "--porcelain", "--", ".")
    return None if commit is None else {"commit": commit, "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _of_data(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: data.get(name) for name in ("layout", "synthetic", "patients", "cases", "fingerprint")}
    if "unlabelled" in data:
        kept["unlabelled"] = {name: value for name, value in data["unlabelled"].items() if name != "path"}
    return kept | {name: data.get(name, NOT_STATED) for name in ("licence", "origin")}


def _sum_if_all(calls: list[dict[str, Any]], name: str) -> float | None:
    values = [call.get(name) for call in calls]
    return None if None in values else round(sum(value for value in values if value is not None), 3)
