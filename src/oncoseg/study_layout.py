"""Beginning a study: one split for all runs, and for each a run folder that was not begun."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Problem, Scan
from oncoseg.datasets.left_out import without_large
from oncoseg.errors import DataError, RunError, nearest
from oncoseg.files import atomic_folder, filled, new_folder
from oncoseg.prepare import Progress
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.split import PARTS, from_json, read_split, split_patients, to_json
from oncoseg.studies.study import Run, Study
from oncoseg.study_folder import SIDE, StudyFolder
from oncoseg.training import data as training_data
from oncoseg.training import unlabelled
from oncoseg.training.sources import Sources


def _check_sources(study: Study, chosen: Sequence[Run], sources: Sources) -> None:
    """Check that what is said of data is about the study's modalities, and that the chosen runs have theirs.

    Raises:
        DataError: it is about another, or one is missing.
    """
    known = sorted(_modalities(study.runs()))
    for name in sorted({*sources.folders, *sources.licences, *sources.origins} - set(known)):
        raise DataError(f"No run of {study.name} has a modality {name!r}; {nearest(name, known)}")
    _check_given(_modalities(chosen), sources.folders)


def begin(
    study: Study,
    chosen: Sequence[Run],
    sources: Sources,
    out: Path,
    split_file: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw the sides and write the study's own files.

    Args:
        study: complete.
        chosen: the runs that are to be trained now, whose data must be there.
        sources: the data sets.
        out: the folder; new or empty.
        split_file: sides to use instead of drawing them; see `split.read_split`.
        progress: called with (files looked through, files in all) where a layout is of DICOM.

    Raises:
        RunError: `out` holds something.
        DataError: data or a split that cannot be used, or nobody to test.
    """
    given = read_split(split_file, sorted(_modalities(study.runs()))) if split_file else None
    _check_sources(study, chosen, sources)
    new_folder(out, "The study's folder")
    with filled(out):
        split = _draw(study, sources, given, progress)
        with atomic_folder(out) as unfinished:
            folder = StudyFolder(unfinished)
            first = study.runs()[0].recipe
            RunFolder(unfinished).write_split(first.training.seed, split)
            folder.write_data(sources.stated_in(_records(sources)))
            folder.write_study(study)


def _records(sources: Sources) -> dict[str, dict[str, Any]]:
    """What `StudyFolder.data` describes, but for what the user states."""
    return {
        name: {
            "path": str(Path(path).resolve()),
            "channels": dict(sources.channels.get(name, {})),
            "accept_implausible": sources.accept_implausible,
        }
        for name, path in sources.folders.items()
    }


def _draw(
    study: Study, sources: Sources, given: Mapping[str, Any] | None, progress: Progress | None
) -> dict[str, Any]:
    """One split for all runs, as `train` would draw it for the first; a patient keeps the side.

    It also lists who is learnt from without a mask, so that all runs have the masks of the same patients.
    """
    runs = study.runs()
    shares, seed = runs[0].recipe.split, runs[0].recipe.training.seed
    limits = {name: of.max_slices for run in runs for name, of in run.recipe.modalities.items()}
    scans: dict[str, Scan] = {}
    split: dict[str, dict[str, list[Case]]] = {}
    known: dict[str, str] = {}
    for name, path in sources.folders.items():
        scan = open_dataset(path, channels=sources.channels.get(name), progress=progress)
        scans[name] = without_large(scan, limits[name])
        if given is None:
            cases = [case for case in scans[name].cases if case.masks]
            split[name] = split_patients(cases, shares.train, shares.validation, seed, known)
        else:
            split[name] = from_json(given.get(name, {}), scans[name].cases)
        known |= {case.patient: part for part in PARTS for case in split[name][part]}
    unlabelled.add_to(_least_supervised(runs), scans, split)
    if not any(sides[SIDE] for sides in split.values()):
        raise DataError(
            "The split has no patient under test; expected at least one, to compare the networks on. Give "
            "another --split, or let it be drawn."
        )
    return {name: to_json(sides) for name, sides in split.items()}


def _least_supervised(runs: Sequence[Run]) -> Recipe:
    """The first run's recipe, but learning from scans without a mask where any run does."""
    teaching = max((run.recipe.training.unlabelled for run in runs), key=lambda one: one.weight)
    return _with_training(runs[0].recipe, unlabelled=teaching)


def check_same(folder: StudyFolder, study: Study, data: Mapping[str, Path]) -> None:
    """Check that what was asked for is what lies there.

    Raises:
        RunError: other runs, settings or data sets; names the first difference.
    """
    kept = folder.study()
    hint = f"Go on with it by `oncoseg study --resume --out {folder.path}`, or choose another folder."
    before, now = ({run.name: run.recipe for run in one.runs()} for one in (kept, study))
    if list(before) != list(now):
        raise RunError(
            f"{folder.path} holds a study of {'; '.join(before)}, not of {'; '.join(now)}; expected the "
            f"same. {hint}"
        )
    for name, recipe in now.items():
        if differs := _first_difference(before[name], recipe):
            raise RunError(f"{folder.path} was begun with other settings: {name}: {differs}. {hint}")
    if kept.minutes_each != study.minutes_each:
        raise RunError(
            f"{folder.path} was begun with other settings: minutes_each was {kept.minutes_each}, is now "
            f"{study.minutes_each}. {hint}"
        )
    for name, path in data.items():
        source = folder.data().get(name, {"path": "no data"})
        if source["path"] != str(path.resolve()):
            raise RunError(
                f"{folder.path} was begun on {source['path']} for {name}, not on {path}; expected the same. "
                f"{hint}"
            )


def take_over(folder: StudyFolder, study: Study) -> str:
    """Keep what is new in a study of the same runs, such as other tests: no training depends on it.

    Returns:
        What was changed, in a sentence; empty for nothing.
    """
    before, now = (one.model_dump(mode="json") for one in (folder.study(), study))
    changed = [name for name, value in now.items() if value != before[name]]
    if not changed:
        return ""
    folder.write_study(study)
    what = " and ".join(f"`{name}`" for name in changed)
    return (
        f"{what} of the study changed; its runs are the same. The tables and the page follow the new study."
    )


def _first_difference(before: Recipe, now: Recipe) -> str:
    one, other = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    for name in dict.fromkeys([*one, *other]):
        if not name.startswith(("title", "published", "deviations")) and one.get(name) != other.get(name):
            return f"`{name}` was {one.get(name)}, is now {other.get(name)}"
    return ""


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {path: values}
    return {
        name: value
        for key, of in values.items()
        for name, value in _flat(of, f"{path}.{key}" if path else key).items()
    }


def lay_out(
    folder: StudyFolder,
    runs: Sequence[Run],
    sources: Sources,
    store: Path,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Make a run folder that was not begun for every run; those that are there must be of the same data.

    Runs with the same preparation share it. So preparing does not count for any run's share of time.

    Raises:
        RunError: data that have changed.
    """
    split, seed = folder.split(), RunFolder(folder.path).split_seed()
    sources = _told_once(folder, sources)
    prepared: dict[str, _Laid] = {}
    for run in runs:
        # the seed that drew the study's split: a training's own hides nobody's mask
        drawn_by = run.recipe.training.seed if seed is None else seed
        recipe = _with_training(run.recipe, seed=drawn_by)
        key = _prepared_by(recipe).to_json()
        if key not in prepared:
            prepared[key] = _lay(recipe, sources, split, store, workers, progress)
        where, laid = folder.run(run), prepared[key]
        if not where.path.exists():
            with atomic_folder(where.path) as unfinished:
                written = RunFolder(unfinished)
                written.write_recipe(run.recipe)
                written.write_split(drawn_by, laid.split)
                written.write_data(laid.data)
        for name, now in laid.data.items():
            if not training_data.unchanged(where.data()[name], now):
                raise RunError(
                    f"The {name} data at {now['path']} have changed since {folder.path} was begun; all runs "
                    "of a study must see the same data. Restore them, or begin a new study."
                )


def _told_once(folder: StudyFolder, sources: Sources) -> Sources:
    """The study's own sources, of which the caller is told each thing once, though several runs open them."""
    said: set[str] = set()

    def remark(name: str, problems: Sequence[Problem]) -> None:
        new = [one for one in problems if f"{name} {one.message}" not in said]
        said.update(f"{name} {one.message}" for one in new)
        if new and sources.remark is not None:
            sources.remark(name, new)

    def opened(name: str, scan: Scan) -> None:
        if name not in said and sources.opened is not None:
            said.add(name)
            sources.opened(name, scan)

    return replace(Sources.of_records(folder.data()), remark=remark, opened=opened)


def _prepared_by(recipe: Recipe) -> Recipe:
    """The recipe with nothing of its own but what decides the prepared data, and the checks of them."""
    plain = {"title": "", "deviations": (), "published": (), "name": ""}
    network, own = type(recipe.network)(), recipe.training
    kept: dict[str, Any] = {"balance": own.balance, "seed": own.seed}
    if own.unlabelled.weight > 0:  # scans without a mask are prepared, too
        kept |= {"unlabelled": own.unlabelled, "average_decay": own.average_decay}
    return recipe.model_copy(update=plain | {"network": network, "training": type(own)(**kept)})


def _with_training(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=fields)})


def _check_given(modalities: Iterable[str], sources: Mapping[str, Any]) -> None:
    """Check that a study was begun with the data that a run needs.

    Raises:
        DataError: it was not.
    """
    if missing := sorted(set(modalities) - set(sources)):
        raise DataError(
            f"The study needs data for {' and '.join(missing)}; expected "
            f"{' '.join(f'--data {name}=PATH' for name in missing)} when it is begun. Begin a new study with "
            "it, or leave out the runs that need it with --only-group."
        )


class _Laid(NamedTuple):
    """What runs with the same preparation have in their folders: `split.json` and `data.json`."""

    split: dict[str, Any]
    data: dict[str, Any]


def _lay(
    recipe: Recipe,
    sources: Sources,
    split: Mapping[str, Any],
    store: Path,
    workers: int | None,
    progress: Progress | None,
) -> _Laid:
    """The split and the record of a recipe's data for its run folders; prepares them."""
    _check_given(recipe.modalities, sources.folders)
    used = replace(sources, folders={name: sources.folders[name] for name in recipe.modalities})
    loaded = training_data.load(
        recipe,
        used,
        store,
        split={name: split[name] for name in recipe.modalities},
        workers=workers,
        progress=progress,
    )
    return _Laid(loaded.split, used.stated_in(loaded.data))


def _modalities(runs: Sequence[Run]) -> set[str]:
    return {name for run in runs for name in run.recipe.modalities}
