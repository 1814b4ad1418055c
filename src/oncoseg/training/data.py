"""What a run trains on: data sets opened, split by patient and prepared."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from oncoseg import plausibility
from oncoseg import split as splitting
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.errors import DataError
from oncoseg.files import sha256_of_json, user_cache
from oncoseg.prepare import Progress, Settings, prepare
from oncoseg.recipe import Recipe
from oncoseg.store import PreparedCase
from oncoseg.training import class_presence

Remark = Callable[[str, Sequence[Problem]], None]
"""Called with a modality and what is doubtful about its images."""


class TrainingData(NamedTuple):
    """Prepared cases of both sides that training sees, and the records for the run folder.

    Attributes:
        train: modality → cases.
        validation: modality → cases.
        split: for `RunFolder.write_split`.
        data: for `RunFolder.write_data`, which says what it holds.
    """

    train: dict[str, list[PreparedCase]]
    validation: dict[str, list[PreparedCase]]
    split: dict[str, Any]
    data: dict[str, Any]


NO_TEST_PATIENT = (
    "the split has no patient under test, so that the network cannot be evaluated on anybody whom it has not "
    "seen; expected at least one. Add some, unless other patients are kept for testing elsewhere."
)
"""Said where a given split lacks them; a drawn one has them always."""

Opened = Callable[[str, Scan], None]
"""Called with a modality and what was found in its data set."""

NOT_CHOSEN_BY = ", so that the kept weights are chosen without it."
"""Said where a class is not among those by which they are."""


def default_store() -> Path:
    """The prepared store when none is named: in the user's cache folder."""
    return user_cache() / "prepared"


def load(
    recipe: Recipe,
    data: Mapping[str, Path],
    store: Path,
    *,
    split: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    accept_implausible: bool = False,
    channels: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    remark: Remark | None = None,
    opened: Opened | None = None,
) -> TrainingData:
    """Open, split and prepare every modality of a recipe.

    Only the training and validation cases are prepared; the test set is read from its own files
    when it is evaluated. Cases without truth are left out of a drawn split. A patient with images of
    several modalities is on one side with all of them.

    Args:
        recipe: which modalities, how they are split and prepared.
        data: modality → folder of its data set.
        store: folder of the prepared store.
        split: modality → part → patient → case ids, to use a split made before.
        workers: see `prepare`.
        progress: called with (cases done, cases in all), for each modality anew; before, where a layout is of
            DICOM, with (files looked through, files in all).
        accept_implausible: take images that cannot be what they are said to be.
        channels: modality → channel → what its series are called, of data that are DICOM folders; see
            `open_dataset`.
        remark: called for each modality with what is doubtful about its labels, its split or its images.
        opened: called for each modality with what was found, guesses and problems, before it is prepared.

    Raises:
        DataError: data for other modalities than the recipe's, cases that cannot be used or are
            implausible, a patient on two sides, a side without any tumour, or a class of which no
            training case has any.
    """
    scans = _open(recipe, data, channels, progress, opened, remark)
    sides = _sides(recipe, scans, split)
    train: dict[str, list[PreparedCase]] = {}
    validation: dict[str, list[PreparedCase]] = {}
    records = {}
    for name in recipe.modalities:
        if remark is not None and not sides[name]["test"]:
            remark(name, [Problem("no-test-patient", None, NO_TEST_PATIENT)])
    for name, modality in recipe.modalities.items():
        parts = sides[name]
        settings = Settings.of(modality, recipe.classes, recipe.preparation, accept_implausible)
        with _naming(name):
            substituted = _substituted(parts, settings)
            used = [*parts["train"], *parts["validation"]]
            prepared = prepare(used, settings, store, workers=workers, progress=progress)
            train[name] = prepared[: len(parts["train"])]
            validation[name] = prepared[len(parts["train"]) :]
            _check_tumour(train[name], "train")
            _check_tumour(validation[name], "validation")
            _check_groups(train[name], recipe.training.balance)
        records[name] = _record(data[name], scans[name], prepared, settings, substituted)
        records[name]["channels"] = dict(channels.get(name, {}))
        _tell_doubts(remark, name, records[name])
    seen = class_presence.Seen(recipe.classes)
    class_presence.check(train, seen)
    unseen = seen.missing(validation)
    if remark is not None and unseen:
        text = class_presence.without(unseen, "validation") + NOT_CHOSEN_BY
        remark("validation", [Problem("empty-class", None, text)])
    return TrainingData(
        train, validation, {name: splitting.to_json(parts) for name, parts in sides.items()}, records
    )


def load_all(
    recipe: Recipe,
    data: Mapping[str, Path],
    store: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    accept_implausible: bool = False,
    channels: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    remark: Remark | None = None,
    opened: Opened | None = None,
) -> tuple[dict[str, list[PreparedCase]], dict[str, Any]]:
    """Open and prepare every case with a mask, for folds to be drawn.

    Args:
        recipe: which modalities, and how they are prepared.
        data: see `load`, as are all others.
        store: folder of the prepared store.
        workers: see `prepare`.
        progress: called with (cases done, cases in all), for each modality anew.
        accept_implausible: take images that cannot be what they are said to be.
        channels: modality → channel → what its series are called.
        remark: called for each modality with what is doubtful about its labels or its images.
        opened: called for each modality with what was found, before it is prepared.

    Returns:
        Modality → its cases, and the records as `RunFolder.data` describes them, but of all cases.

    Raises:
        DataError: as `load` does.
    """
    scans = _open(recipe, data, channels, progress, opened, remark)
    prepared: dict[str, list[PreparedCase]] = {}
    records: dict[str, Any] = {}
    for name, modality in recipe.modalities.items():
        cases = [case for case in scans[name].cases if case.masks]
        settings = Settings.of(modality, recipe.classes, recipe.preparation, accept_implausible)
        with _naming(name):
            substituted = _substituted({"all": cases}, settings)
            prepared[name] = prepare(cases, settings, store, workers=workers, progress=progress)
        records[name] = _record(data[name], scans[name], prepared[name], settings, substituted)
        records[name]["channels"] = dict(channels.get(name, {}))
        _tell_doubts(remark, name, records[name])
    return prepared, records


def record_of_part(record: Mapping[str, Any], cases: Sequence[PreparedCase]) -> dict[str, Any]:
    """A record of `load_all` as `load` would have made it for these training and validation cases."""
    order = {case.id: number for number, case in enumerate(cases)}
    doubts = [doubt for doubt in record["doubts"] if doubt["case"] in order]
    return dict(record) | {
        "fingerprint": _fingerprint(cases),
        "doubts": sorted(doubts, key=lambda doubt: order[doubt["case"]]),
        "looks": plausibility.summarise([case.look for case in cases]),
    }


def _tell_doubts(remark: Remark | None, modality: str, record: Mapping[str, Any]) -> None:
    if remark is not None and record["doubts"]:
        remark(modality, [Problem(**doubt) for doubt in record["doubts"]])


def _open(
    recipe: Recipe,
    data: Mapping[str, Path],
    channels: Mapping[str, Mapping[str, str]],
    progress: Progress | None,
    opened: Opened | None,
    remark: Remark | None,
) -> dict[str, Scan]:
    """Modality → what its data set holds, of which the callers are told."""
    check_modalities(recipe, data)
    scans = {
        name: open_dataset(data[name], channels=channels.get(name), progress=progress)
        for name in recipe.modalities
    }
    for name, scan in scans.items():
        if opened is not None:
            opened(name, scan)
        if remark is not None and (joined := _joined(scan, recipe)):
            remark(name, joined)
    return scans


def _joined(scan: Scan, recipe: Recipe) -> list[Problem]:
    """Which labels a class takes because it takes them all: of a liver with tumours, the liver, too."""
    names = dict.fromkeys(name for case in scan.cases if case.masks for name in case.labels.values())
    if len(names) < 2:
        return []
    return [
        Problem(
            "joined-labels",
            None,
            f"the class {name} takes every label: {', '.join(names)}. Choose some with "
            f"--classes.{name} '{json.dumps(list(names)[-1:], ensure_ascii=False)}' or the like.",
        )
        for name, of in recipe.classes.items()
        if "*" in of
    ]


def _doubts(looks: Mapping[str, plausibility.Look], settings: Settings) -> list[Problem]:
    return [
        Problem(doubt.kind, case, f"{case}: {doubt.text}")
        for case, found in looks.items()
        for doubt in plausibility.doubts(found, settings.scaling == "window")
    ]


def channels_by_modality(recipe: Recipe, channels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Part a choice of series among the modalities that take these channels or have them as substitutes.

    Args:
        recipe: its modalities.
        channels: channel → what its series are called.

    Raises:
        DataError: a channel that no modality takes.
    """
    parted: dict[str, dict[str, str]] = {}
    for channel, pattern in channels.items():
        name = channel_name(channel)
        taking = [
            modality
            for modality, of in recipe.modalities.items()
            if name in (*of.channels, *of.substitutes.values())
        ]
        if not taking:
            known = dict.fromkeys(name for of in recipe.modalities.values() for name in of.channels)
            raise DataError(
                f"No modality of {recipe.name} takes the channel {channel}; expected one of "
                f"{', '.join(known)}."
            )
        for modality in taking:
            parted.setdefault(modality, {})[name] = pattern
    return parted


def check_modalities(recipe: Recipe, data: Mapping[str, Path]) -> None:
    """Check that there is one folder for each of the recipe's modalities.

    Raises:
        DataError: one is missing or one too many.
    """
    if set(data) != set(recipe.modalities):
        expected = " ".join(f"--data {name}=PATH" for name in recipe.modalities)
        some = set() < set(data) < set(recipe.modalities)
        part = f", or use a part of it with {' '.join(f'--only {name}' for name in data)}" if some else ""
        raise DataError(
            f"Recipe {recipe.name} needs data for {' and '.join(recipe.modalities)}; got "
            f"{' and '.join(data) or 'none'}. Give {expected}{part}."
        )


def _sides(
    recipe: Recipe, scans: Mapping[str, Scan], given: Mapping[str, Any] | None
) -> dict[str, dict[str, list[Case]]]:
    """Modality → part → cases; no patient is on two sides, whatever the modality."""
    sides: dict[str, dict[str, list[Case]]] = {}
    known: dict[str, str] = {}
    for name, scan in scans.items():
        with _naming(name):
            sides[name] = _drawn(recipe, scan, known) if given is None else _given(given.get(name), scan)
        known |= {case.patient: part for part, cases in sides[name].items() for case in cases}
    splitting.check_disjoint(
        {part: [case for parts in sides.values() for case in parts[part]] for part in splitting.PARTS}
    )
    return sides


def _drawn(recipe: Recipe, scan: Scan, known: Mapping[str, str]) -> dict[str, list[Case]]:
    cases = [case for case in scan.cases if case.masks]
    shares = recipe.split
    return splitting.split_patients(cases, shares.train, shares.validation, recipe.training.seed, known)


def _given(listed: Mapping[str, Any] | None, scan: Scan) -> dict[str, list[Case]]:
    parts = splitting.from_json(listed or {}, scan.cases)
    for part in ("train", "validation"):
        if not parts[part]:
            raise DataError(
                f"The split has no case under {part}; expected at least one patient to train "
                "on and one to choose the checkpoint. Add some, or let the split be drawn."
            )
    return parts


def _substituted(parts: Mapping[str, list[Case]], settings: Settings) -> dict[str, str]:
    """Missing channel → the one used instead, over all sides: the test cases must be readable, too."""
    substituted: dict[str, str] = {}
    for cases in parts.values():
        for case in cases:
            substituted |= settings.substituted(case)
    return substituted


def _check_tumour(cases: list[PreparedCase], part: str) -> None:
    if not any(case.tumour_pixels.any() for case in cases):
        raise DataError(
            f"None of the {len(cases)} cases under {part} has a tumour pixel after preparation; expected "
            "some, to learn from and to choose the weights by. Choose another training.seed, or the sides "
            "yourself with --split FILE."
        )


def _check_groups(cases: list[PreparedCase], balance: str | None) -> None:
    kinds = {"class": {case.target for case in cases}, "site": {case.site for case in cases}}
    if balance is not None and kinds[balance] == {None}:
        raise DataError(
            f"The recipe's training.balance is {balance}, but the {balance} of no case is known. Set it to "
            f"none, or list the cases in a table with a column {balance}."
        )


def _record(
    path: Path, scan: Scan, prepared: list[PreparedCase], settings: Settings, substituted: dict[str, str]
) -> dict[str, Any]:
    """What `RunFolder.data` describes."""
    looks = {case.id: case.look for case in prepared}
    return {
        "path": str(path.resolve()),
        "layout": scan.layout,
        "synthetic": scan.synthetic,
        "cases": len(scan.cases),
        "patients": len({case.patient for case in scan.cases}),
        "without_truth": sum(not case.masks for case in scan.cases),
        "problems": [asdict(problem) for problem in scan.problems],
        "fingerprint": _fingerprint(prepared),
        "substituted_channels": substituted,
        "accept_implausible": settings.accept_implausible,
        "doubts": [asdict(doubt) for doubt in _doubts(looks, settings)],
        "looks": plausibility.summarise(looks.values()),
    }


def _fingerprint(prepared: Sequence[PreparedCase]) -> str:
    return sha256_of_json(sorted(case.folder.name for case in prepared))[:16]


@contextmanager
def _naming(modality: str) -> Iterator[None]:
    """Put the modality before an error about its data."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{modality}: {error}") from error
