"""What a run trains on: data sets opened, split by patient and prepared."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg import plausibility
from oncoseg import split as splitting
from oncoseg.augment import Strengths
from oncoseg.augment.volumes import margin_of
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem, Scan
from oncoseg.datasets.left_out import left_out, without_large
from oncoseg.errors import DataError, RunError
from oncoseg.files import sha256_of_json, user_cache
from oncoseg.prepare import Progress, Settings, prepare
from oncoseg.recipe import Recipe
from oncoseg.shares import rule_of
from oncoseg.store import Prepared
from oncoseg.training import balance, class_presence, unlabelled
from oncoseg.training.sources import Data, Remark, Sources, check_modalities


class TrainingData(NamedTuple):
    """Prepared cases of both sides that training sees, and the records for the run folder.

    Attributes:
        train: modality → cases.
        validation: modality → cases.
        split: for `RunFolder.write_split`.
        data: for `RunFolder.write_data`, which says what it holds.
        unlabelled: modality → cases that are learnt from without a mask; modalities without any are left out.
    """

    train: dict[str, list[Prepared]]
    validation: dict[str, list[Prepared]]
    split: dict[str, Any]
    data: dict[str, Any]
    unlabelled: dict[str, list[Prepared]]


NO_TEST_PATIENT = (
    "the split has no patient under test, so that the network cannot be evaluated on anybody whom it has not "
    "seen; expected at least one. Add some, unless other patients are kept for testing elsewhere."
)
"""Said where a given split lacks them; a drawn one has them always."""

OTHER_RULE = (
    "{out} was started by an oncoseg that told several classes apart by another rule, and kept the weights "
    "by the Dice of all classes together; expected a run of the present rules, which count class by class. "
    "{what} would mix both. Its weights can be evaluated and predicted with; to train, start a new run."
)
"""Said of a run of several classes whose records do not name the present rule."""

NOT_CHOSEN_BY = ", so that the kept weights are chosen without it."
"""Said where a class is not among those by which they are."""


def default_store() -> Path:
    """The prepared store when none is named: in the user's cache folder."""
    return user_cache() / "prepared"


def load(
    recipe: Recipe,
    data: Data,
    store: Path,
    *,
    split: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TrainingData:
    """Open, split and prepare every modality of a recipe.

    Only the training and validation cases are prepared; the test set is read from its own files
    when it is evaluated. Cases without truth are left out of a drawn split; where the recipe learns from
    scans without a mask, they and those of `Sources.unlabelled` are prepared, too. A patient with images of
    several modalities is on one side with all of them.

    Args:
        recipe: which modalities, how they are split and prepared.
        data: modality → folder of its data set, or `Sources` with more to say of them.
        store: folder of the prepared store.
        split: modality → part → patient → case ids, to use a split made before.
        workers: see `prepare`.
        progress: called with (cases done, cases in all), for each modality anew; before, where a layout is of
            DICOM, with (files looked through, files in all).

    Raises:
        DataError: data for other modalities than the recipe's, cases that cannot be used or are
            implausible, a patient on two sides, a side without any tumour, or a class of which no
            training case has any.
    """
    sources = Sources.of(data)
    scans, remark = _open(recipe, sources, progress), sources.remark
    sides = _sides(recipe, scans, split)
    bare = unlabelled.cases_of(recipe, sources, scans, sides, progress)
    extra: dict[str, list[Prepared]] = {}
    train: dict[str, list[Prepared]] = {}
    validation: dict[str, list[Prepared]] = {}
    records = {}
    for name in recipe.modalities:
        if remark is not None and not sides[name]["test"]:
            remark(name, [Problem("no-test-patient", None, NO_TEST_PATIENT)])
    for name in recipe.modalities:
        parts = sides[name]
        settings = _settings(recipe, name, sources)
        with _naming(name):
            substituted = _substituted({**parts, "bare": bare[name].cases}, settings)
            used = [*parts["train"], *parts["validation"]]
            prepared = prepare(used, settings, store, workers=workers, progress=progress)
            train[name] = prepared[: len(parts["train"])]
            validation[name] = prepared[len(parts["train"]) :]
            _check_tumour(train[name], "train")
            _check_tumour(validation[name], "validation")
            _check_groups(train[name], recipe.training.balance)
            if bare[name].cases:
                extra[name] = prepare(
                    bare[name].cases, settings, store, workers=workers, progress=progress, without_masks=True
                )
        records[name] = _record(sources, name, scans[name], prepared, settings, substituted)
        if name in extra:
            records[name] |= bare[name].record(_fingerprint(extra[name]), records[name]["synthetic"])
        _tell_doubts(remark, name, records[name])
        _tell_uneven(remark, name, recipe, train[name])
    seen = class_presence.Seen(recipe.classes)
    class_presence.check(train, seen)
    unseen = seen.missing(validation)
    if remark is not None and unseen:
        text = class_presence.without(unseen, "validation") + NOT_CHOSEN_BY
        remark("validation", [Problem("empty-class", None, text)])
    return TrainingData(
        train, validation, {name: splitting.to_json(parts) for name, parts in sides.items()}, records, extra
    )


def load_all(
    recipe: Recipe,
    data: Data,
    store: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, list[Prepared]], dict[str, Any]]:
    """Open and prepare every case with a mask, for folds to be drawn.

    Args:
        recipe: which modalities, and how they are prepared.
        data: see `load`, as are all others.
        store: folder of the prepared store.
        workers: see `prepare`.
        progress: called with (cases done, cases in all), for each modality anew.

    Returns:
        Modality → its cases, and the records as `RunFolder.data` describes them, but of all cases.

    Raises:
        DataError: as `load` does.
    """
    sources = Sources.of(data)
    scans = _open(recipe, sources, progress)
    prepared: dict[str, list[Prepared]] = {}
    records: dict[str, Any] = {}
    for name in recipe.modalities:
        cases = [case for case in scans[name].cases if case.masks]
        settings = _settings(recipe, name, sources)
        with _naming(name):
            substituted = _substituted({"all": cases}, settings)
            prepared[name] = prepare(cases, settings, store, workers=workers, progress=progress)
        records[name] = _record(sources, name, scans[name], prepared[name], settings, substituted)
        _tell_doubts(sources.remark, name, records[name])
        _tell_uneven(sources.remark, name, recipe, prepared[name])
    return prepared, records


def divide(
    recipe: Recipe, data: Data, *, split: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Open and split every modality as `load` does, but prepare nothing.

    Returns:
        The split, and records as `RunFolder.data` describes them, which know of no prepared case yet.

    Raises:
        DataError: data for other modalities than the recipe's, or a split that cannot be.
    """
    sources = Sources.of(data)
    scans = _open(recipe, sources, progress)
    sides = _sides(recipe, scans, split)
    records = {}
    for name in recipe.modalities:
        settings = _settings(recipe, name, sources)
        with _naming(name):
            substituted = _substituted(sides[name], settings)
        records[name] = _record(sources, name, scans[name], [], settings, substituted)
    return {name: splitting.to_json(parts) for name, parts in sides.items()}, records


def _settings(recipe: Recipe, name: str, sources: Sources) -> Settings:
    modality, boxes = recipe.modalities[name], dict(sources.boxes.get(name, {}))
    settings = Settings.of(modality, recipe.classes, recipe.preparation, sources.accept_implausible)
    settings = replace(settings, boxes=boxes)
    if settings.patch is None or settings.spacing_mm is None:
        return settings
    strengths = Strengths(**recipe.augmentation.model_dump())
    return replace(settings, margin=margin_of(settings.patch, settings.spacing_mm, strengths))


def record_of_part(record: Mapping[str, Any], cases: Sequence[Prepared]) -> dict[str, Any]:
    """A record of `load_all` as `load` would have made it for these training and validation cases."""
    order = {case.id: number for number, case in enumerate(cases)}
    doubts = [doubt for doubt in record["doubts"] if doubt["case"] in order]
    return dict(record) | {
        "fingerprint": _fingerprint(cases),
        "images_fingerprint": _images_fingerprint(cases),
        "doubts": sorted(doubts, key=lambda doubt: order[doubt["case"]]),
        "looks": plausibility.summarise([case.look for case in cases]),
    }


def _tell_doubts(remark: Remark | None, modality: str, record: Mapping[str, Any]) -> None:
    if remark is not None and record["doubts"]:
        remark(modality, [Problem(**doubt) for doubt in record["doubts"]])


def _tell_uneven(remark: Remark | None, modality: str, recipe: Recipe, cases: Sequence[Prepared]) -> None:
    if remark is not None and (text := balance.uneven(recipe, cases)):
        remark(modality, [Problem("uneven-balance", None, text)])


def _open(recipe: Recipe, sources: Sources, progress: Progress | None) -> dict[str, Scan]:
    """Modality → what its data set holds, of which the callers are told."""
    check_modalities(recipe, sources.folders)
    scans = {
        name: without_large(
            open_dataset(sources.folders[name], channels=sources.channels.get(name), progress=progress),
            modality.max_slices,
        )
        for name, modality in recipe.modalities.items()
    }
    if sources.cases is not None:
        scans = {name: _only(scan, sources.cases.get(name, ())) for name, scan in scans.items()}
    for name, scan in scans.items():
        if sources.opened is not None:
            sources.opened(name, scan)
        if sources.remark is not None and (joined := _joined(scan, recipe)):
            sources.remark(name, joined)
    return scans


def _only(scan: Scan, ids: Collection[str]) -> Scan:
    return replace(scan, cases=tuple(case for case in scan.cases if case.id in ids))


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


def _sides(
    recipe: Recipe, scans: Mapping[str, Scan], given: Mapping[str, Any] | None
) -> dict[str, dict[str, list[Case]]]:
    """Modality → part → cases; no patient is on two sides, whatever the modality."""
    sides: dict[str, dict[str, list[Case]]] = {}
    known: dict[str, str] = {}
    for name, scan in scans.items():
        with _naming(name):
            sides[name] = _drawn(recipe, scan, known) if given is None else _given(given.get(name), scan)
        known |= {case.patient: part for part in splitting.PARTS for case in sides[name][part]}
    unlabelled.add_to(recipe, scans, sides)
    splitting.check_disjoint(
        {
            part: [case for parts in sides.values() for case in parts.get(part, [])]
            for part in (*splitting.PARTS, splitting.UNLABELLED)
        }
    )
    return sides


def _drawn(recipe: Recipe, scan: Scan, known: Mapping[str, str]) -> dict[str, list[Case]]:
    cases = [case for case in scan.cases if case.masks]
    shares = recipe.split
    return splitting.split_patients(cases, shares.train, shares.validation, recipe.training.seed, known)


def _given(listed: Mapping[str, Any] | None, scan: Scan) -> dict[str, list[Case]]:
    parts = splitting.from_json(listed or {}, scan.cases, left_out(scan))
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


def _check_tumour(cases: list[Prepared], part: str) -> None:
    if not any(case.tumour_pixels.any() for case in cases):
        raise DataError(
            f"None of the {len(cases)} cases under {part} has a tumour pixel after preparation; expected "
            "some, to learn from and to choose the weights by. Choose another training.seed, or the sides "
            "yourself with --split FILE."
        )


def _check_groups(cases: list[Prepared], wanted: str | None) -> None:
    kinds = {"class": {case.target for case in cases}, "site": {case.site for case in cases}}
    if wanted is not None and kinds[wanted] == {None}:
        raise DataError(
            f"The recipe's training.balance is {wanted}, but the {wanted} of no case is known. Set it to "
            f"none, or list the cases in a table with a column {wanted}."
        )


def _record(
    sources: Sources,
    name: str,
    scan: Scan,
    prepared: list[Prepared],
    settings: Settings,
    substituted: dict[str, str],
) -> dict[str, Any]:
    """What `RunFolder.data` describes."""
    looks = {case.id: case.look for case in prepared}
    boxes = {"boxes": settings.boxes} if settings.boxes else {}
    return boxes | {
        "path": str(sources.folders[name].resolve()),
        "layout": scan.layout,
        "synthetic": scan.synthetic,
        "cases": len(scan.cases),
        "patients": len({case.patient for case in scan.cases}),
        "without_truth": sum(not case.masks for case in scan.cases),
        "problems": [asdict(problem) for problem in scan.problems],
        "fingerprint": _fingerprint(prepared),
        "images_fingerprint": _images_fingerprint(prepared),
        "substituted_channels": substituted,
        "accept_implausible": settings.accept_implausible,
        "doubts": [asdict(doubt) for doubt in _doubts(looks, settings)],
        "looks": plausibility.summarise(looks.values()),
        "channels": dict(sources.channels.get(name, {})),
        **rule_of(len(settings.classes)),
    }


def unchanged(record: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two records of a modality are of the same data, as far as the first one tells.

    Args:
        record: of a run folder; the first versions' fingerprint was that of the images only.
        found: as `load` makes it.
    """
    bare, now = (one.get("unlabelled", {}).get("fingerprint") for one in (record, found))
    return record["fingerprint"] in (found["fingerprint"], found["images_fingerprint"]) and bare == now


def check_unchanged(
    before: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], out: Path, what: str
) -> None:
    """Compare the cases with those that a run was started with.

    Args:
        before: the records of then.
        found: those of now.
        out: the run folder.
        what: must see the same data.

    Raises:
        RunError: some are others, or a run of several classes is of before the present `shares.RULE`.
    """
    for name, record in before.items():
        if record.get("labels_by") != found[name].get("labels_by"):
            raise RunError(OTHER_RULE.format(out=out, what=what[0].upper() + what[1:]))
        if unchanged(record, found[name]):
            continue
        where = found[name]["path"]
        moved = "" if where == record["path"] else ", or are others"
        raise RunError(
            f"The {name} data at {where} have changed since {out} was started{moved}; {what} must see the "
            "same data. Restore them, or start a new run."
        )


def _fingerprint(prepared: Sequence[Prepared]) -> str:
    """Of all that training takes from the cases: also whose they are, and what they are balanced by."""
    known = [[case.folder.name, case.id, case.patient, case.site, case.target] for case in prepared]
    return sha256_of_json(sorted(known, key=str))[:16]


def _images_fingerprint(prepared: Sequence[Prepared]) -> str:
    """Of images and masks only."""
    return sha256_of_json(sorted(case.folder.name for case in prepared))[:16]


@contextmanager
def _naming(modality: str) -> Iterator[None]:
    """Put the modality before an error about its data."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{modality}: {error}") from error
