"""Which scans are learnt from without a mask: never one of a patient who validates or is tested.

They are the cases without a mask of the data set itself, the patients whose masks `split.labelled` hides, and
those of another folder. What is prepared of them never sees a mask, even where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem, Progress, Scan
from oncoseg.datasets.folders import shortened
from oncoseg.datasets.left_out import without_large
from oncoseg.errors import DataError, nearest
from oncoseg.recipe import Recipe
from oncoseg.split import UNLABELLED, hide_labels
from oncoseg.training.sources import Sources

Sides = Mapping[str, dict[str, list[Case]]]
"""Modality → part → cases; a part besides the sides may be `UNLABELLED`."""

NONE_AT_ALL = (
    "training.unlabelled.weight is above 0, but there is no scan without a mask to learn from; expected "
    "some. Add cases without a mask to the data, give a folder of them (--unlabelled MODALITY=PATH), hide "
    "masks (--split.labelled 0.5), or set the weight to 0."
)
"""Said where the recipe wants what there is not."""


class Bare(NamedTuple):
    """The cases of a modality that are learnt from without a mask.

    Attributes:
        cases: without masks and labels.
        path: the folder of those that are not of the data set itself; None for no such folder.
        synthetic: whether that folder says that its images show no patient.
    """

    cases: list[Case]
    path: Path | None = None
    synthetic: bool = False

    def record(self, fingerprint: str, synthetic: bool) -> dict[str, Any]:
        """What `RunFolder.data` says of them.

        Args:
            fingerprint: a hash of the prepared cases.
            synthetic: whether the data set's own images show no patient.
        """
        return {
            "synthetic": synthetic or self.synthetic,
            "unlabelled": {
                "path": None if self.path is None else str(self.path.resolve()),
                "cases": len(self.cases),
                "patients": len({case.patient for case in self.cases}),
                "fingerprint": fingerprint,
            },
        }


def add_to(recipe: Recipe, scans: Mapping[str, Scan], sides: Sides) -> None:
    """List, beside the sides, the cases of the data sets themselves that have no mask or lose it.

    A split that was listed with such cases keeps its own. Cases without a mask of patients who validate or
    are tested are left out.

    Args:
        recipe: says whether scans without a mask are learnt from, and which share of masks is hidden.
        scans: modality → its data set.
        sides: of all modalities; they are changed.
    """
    share = recipe.split.labelled
    if share == 1 and recipe.training.unlabelled.weight == 0:
        return
    kept_away = _kept_away(sides)
    for name, parts in sides.items():
        if UNLABELLED in parts:
            continue
        parts["train"], hidden = hide_labels(parts["train"], share, recipe.training.seed)
        without = [case for case in scans[name].cases if not case.masks and case.patient not in kept_away]
        parts[UNLABELLED] = sorted([*hidden, *without], key=lambda case: case.id)


def cases_of(
    recipe: Recipe,
    sources: Sources,
    scans: Mapping[str, Scan],
    sides: Sides,
    progress: Progress | None = None,
) -> dict[str, Bare]:
    """Modality → the cases that are learnt from without a mask; none where the recipe does not.

    Args:
        recipe: says whether it does.
        sources: may name folders of them.
        scans: modality → its data set.
        sides: of all modalities, after `add_to`.
        progress: see `open_dataset`.

    Raises:
        DataError: a folder for a modality that there is not or that nothing is learnt from, a patient of it
            who validates or is tested, or no case at all.
    """
    for name in sorted(set(sources.unlabelled) - set(recipe.modalities)):
        raise DataError(f"Unknown modality {name!r} of --unlabelled; {nearest(name, recipe.modalities)}")
    if recipe.training.unlabelled.weight == 0:
        if sources.unlabelled:
            raise DataError(
                "A folder of scans without masks was given, but training.unlabelled.weight is 0, so that "
                "nothing is learnt from them; expected a weight above 0 with it: begin with "
                "--training.unlabelled.weight 0.1, as too large a one stops learning."
            )
        return {name: Bare([]) for name in recipe.modalities}
    found = {}
    for name, modality in recipe.modalities.items():
        own, folder = sides[name].get(UNLABELLED, []), sources.unlabelled.get(name)
        if folder is None:
            found[name] = Bare(_bare(own))
            continue
        scan = open_dataset(folder, channels=sources.channels.get(name), progress=progress)
        scan = without_large(scan, modality.max_slices)
        _check_apart(name, scan.cases, _kept_away(sides))
        found[name] = Bare(_bare([*own, *scan.cases]), folder, scan.synthetic)
    if not any(bare.cases for bare in found.values()):
        raise DataError(NONE_AT_ALL)
    _tell(sources, scans, sides, found)
    return found


def _tell(sources: Sources, scans: Mapping[str, Scan], sides: Sides, found: Mapping[str, Bare]) -> None:
    if sources.remark is None:
        return
    for name, bare in found.items():
        patients = len({case.patient for case in bare.cases})
        scans_are = "scan is" if len(bare.cases) == 1 else "scans are"
        of = "1 patient" if patients == 1 else f"{patients} patients"
        text = f"{len(bare.cases)} {scans_are} learnt from without a mask, of {of}"
        sources.remark(name, [Problem("unlabelled", None, f"{text}.")])
        taken = {case.id for case in sides[name].get(UNLABELLED, [])}
        left = sum(not case.masks and case.id not in taken for case in scans[name].cases)
        if left:
            why = "as such patients validate or are tested, or the split does not list such scans"
            many = "scan without a mask is" if left == 1 else "scans without a mask are"
            text = f"{left} {many} not learnt from, {why}."
            sources.remark(name, [Problem("unlabelled-left-out", None, text)])


def _kept_away(sides: Sides) -> set[str]:
    """Patients who validate or are tested, with any modality."""
    return {
        case.patient for parts in sides.values() for part in ("validation", "test") for case in parts[part]
    }


def _check_apart(modality: str, cases: Sequence[Case], kept_away: set[str]) -> None:
    shared = [case for case in cases if case.patient in kept_away]
    if shared:
        patients = len({case.patient for case in shared})
        judge = "patient of {} validates or is" if patients == 1 else "patients of {} validate or are"
        raise DataError(
            f"{modality}: {patients} {judge.format('the folder of scans without masks')} tested, going by "
            f"names ({shortened(sorted(case.id for case in shared))}); expected none, as no network may "
            "learn from who judges it. Take these scans out of that folder, or, if they are of others, give "
            "them names of their own."
        )


def _bare(cases: Sequence[Case]) -> list[Case]:
    return [replace(case, masks=(), labels={}) for case in cases]
