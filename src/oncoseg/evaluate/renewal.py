"""Whether an evaluation may take the place of the one that lies in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncoseg.errors import RunError
from oncoseg.files import new_folder

OF_PREDICTION = ("flips", "precision", "labels_by")
"""What decides the probabilities besides weights and images; not how many slices are computed at a time."""


def check_place(folder: Path, summary: Mapping[str, Any], in_run: bool) -> None:
    """Check that nothing but the same evaluation, made earlier, would be lost.

    Args:
        folder: where the new evaluation is to lie.
        summary: what its summary.json will say besides the scores.
        in_run: whether it is the run's own folder, which holds nothing else; otherwise it has to be new
            or empty, or to hold the same evaluation.

    Raises:
        RunError: there lies one of other weights, data or settings, or something else.
    """
    earlier = _summary(folder)
    if earlier is None:
        if not in_run:
            new_folder(folder, "The evaluation folder")
        return
    if differences := _differences(earlier, summary):
        raise RunError(
            f"{folder} holds another evaluation: {'; '.join(differences)}. To keep both, give this one a "
            "folder of its own with --out FOLDER; to put it in the other's place, add --replace."
        )


def _summary(folder: Path) -> dict[str, Any] | None:
    """What lies there; None where nothing whole does."""
    try:
        return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if "weights" not in earlier:
        return ["it is one of masks"]
    if earlier.get("format_version") != now["format_version"]:
        return ["it was made by another version of oncoseg"]
    found = [
        f"{name} was {before}, is now {after}"
        for name, after in _settings(now).items()
        if (before := _settings(earlier).get(name)) != after
    ]
    if earlier.get("weights") != now["weights"]:
        found.append("the weights have changed")
    images = earlier.get("data", {})
    changed = [name for name, content in now["data"].items() if images.get(name) != content]
    return found + [f"the images or masks of {name} have changed" for name in changed]


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    of_prediction = {name: summary.get("prediction", {}).get(name) for name in OF_PREDICTION}
    of_scoring: dict[str, Any] = dict(summary.get("scoring", {}))
    return {name: summary.get(name) for name in ("split", "threshold")} | of_prediction | of_scoring
