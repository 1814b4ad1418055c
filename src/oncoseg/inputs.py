"""What a user names on the command line → cases to predict, each with its modality."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oncoseg import io
from oncoseg.datasets import open_dataset, single_file_hint
from oncoseg.datasets.base import Case, Problem, Scan
from oncoseg.datasets.tables import TABLE_SUFFIXES
from oncoseg.errors import DataError
from oncoseg.files import sha256_of_json
from oncoseg.io import IMAGE_SUFFIXES, VOLUME_SUFFIXES, image_ref, is_dicom, stem
from oncoseg.recipe import Modality, Recipe
from oncoseg.transforms import choose_channels
from oncoseg.volume import to_canonical

NOT_IMAGES = ("_mask", "_seg", "-seg", "_label", "_labels", "_segmentation", "_probability")
"""Ends of the names (without suffix, in any case of letters) of what lies beside images in plain folders."""

NAMING = (
    "Several sequences make one case when they lie in a folder of their own and are named after it: "
    "CASE/CASE_t1.nii.gz, CASE_t1ce.nii.gz, CASE_t2.nii.gz, CASE_flair.nii.gz."
)
"""How to name files that are not recognised as one case."""


Opened = Callable[[Path, Scan], None]
"""Called with a data set's folder and what was found in it, before anything is predicted."""


@dataclass(frozen=True)
class Job:
    """One case to predict."""

    case: Case
    modality: str

    def slices(self) -> int:
        """Number of axial slices, from the header."""
        ref = next(iter(self.case.images.values()))
        if is_dicom(ref.files[0]):
            from oncoseg.io.dicom.volumes import axial_slices

            return axial_slices(ref.files)
        if ref.files[0].name.lower().endswith(IMAGE_SUFFIXES):
            return len(ref.files)
        return to_canonical(io.read_grid(ref))[0].grid[2]

    def fingerprint(self) -> str:
        """A hash that changes with the modality, and with each channel's place, size or time of change.

        Raises:
            DataError: a file is missing; names the case.
        """
        try:
            states = [
                (name, ref.component, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
                for name, ref in sorted(self.case.images.items())
                for file in ref.files
            ]
        except OSError as error:
            raise DataError(
                f"Case {self.case.id}: {error.filename} cannot be read: {error.strerror}."
            ) from error
        return sha256_of_json([self.modality, states])[:16]


def find_jobs(
    inputs: Sequence[Path],
    recipe: Recipe,
    modality: str | None,
    *,
    channels: Mapping[str, str] | None = None,
    opened: Opened | None = None,
    failures: dict[str, str] | None = None,
) -> list[Job]:
    """Turn files, folders and data sets into jobs.

    A folder is a case or data set of a known layout, or a plain folder of one-channel images, where
    masks (see `NOT_IMAGES`) are passed over. Which modality a case is of follows from its channels where
    only one fits; a bare image does not say what it shows, and needs `modality` in a run of several.
    Cases that show nothing of what the run knows, such as the CT of a study of which the MRI is predicted,
    are passed over where others of their data set can be used; they are told as problems of it.

    Args:
        inputs: files, folders and data sets.
        recipe: of the run.
        modality: a name in the recipe's modalities; None decides by the channels.
        channels: see `open_dataset`.
        opened: called with each data set and what was found in it.
        failures: gets the other cases that fit no modality, by id, where others can be used; None raises.

    Raises:
        DataError: nothing usable, an unclear modality, or two inputs with one name.
    """
    if modality is not None and modality not in recipe.modalities:
        raise DataError(f"Unknown modality {modality!r}; this run has {', '.join(recipe.modalities)}.")
    jobs: list[Job] = []
    unfit: dict[str, str] = {} if failures is None else failures
    for path in inputs:
        for case in _cases(Path(path), recipe, modality, channels, opened):
            try:
                jobs.append(Job(case, modality or _modality_of(case, recipe)))
            except DataError as error:
                if failures is None:
                    raise
                unfit[case.id] = str(error)
    if unfit and not jobs:
        raise DataError(next(iter(unfit.values())))
    counts = Counter([*(job.case.id for job in jobs), *unfit])
    doubled = sorted(name for name, count in counts.items() if count > 1)
    if doubled:
        raise DataError(
            f"Several inputs would be written as {doubled[0]}.nii.gz; expected every input to have a name "
            "of its own. Predict them into different folders."
        )
    return jobs


def _cases(
    path: Path,
    recipe: Recipe,
    modality: str | None,
    channels: Mapping[str, str] | None,
    opened: Opened | None,
) -> list[Case]:
    if not path.exists():
        raise DataError(f"{path} does not exist; expected an image, a folder of images or a data set.")
    if path.is_file() and path.name.lower().endswith(TABLE_SUFFIXES):
        return list(open_dataset(path).cases)
    if path.is_file():
        if channels:
            raise DataError(
                f"{path} is one file; expected a DICOM folder where series are chosen for channels."
            )
        return [_single_image(path, recipe, modality)]
    volumes = sorted(
        file
        for file in path.iterdir()
        if file.name.lower().endswith(VOLUME_SUFFIXES) and not file.name.startswith(".")
    )
    try:
        scan = _without_others(open_dataset(path, channels=channels), recipe, modality)
    except DataError:
        if not volumes or channels:
            raise
    else:
        if opened is not None:
            opened(path, scan)
        return list(scan.cases)
    images = [file for file in volumes if not stem(file).lower().endswith(NOT_IMAGES)]
    if not images:
        raise DataError(
            f"{path} holds masks only, by their names ({volumes[0].name}); expected images. Name the folder "
            "of the images, or the file itself if it is one."
        )
    return [_single_image(file, recipe, modality) for file in images]


def _without_others(scan: Scan, recipe: Recipe, modality: str | None) -> Scan:
    """Leave out the cases that have no channel of the run's, where there are others, and say so."""
    asked = [recipe.modalities[modality]] if modality else recipe.modalities.values()
    known = {name for taken in asked for name in (*taken.channels, *taken.substitutes.values())}
    cases = tuple(case for case in scan.cases if known & set(case.images))
    others = [case for case in scan.cases if not known & set(case.images)]
    if not cases or not others:
        return scan
    shown = ", ".join(sorted({name for case in others for name in case.images}))
    text = f"{len(others)} case(s) show {shown}, which this run does not know; they are not predicted."
    return replace(scan, cases=cases, problems=(*scan.problems, Problem("other-modality", None, text)))


def _single_image(path: Path, recipe: Recipe, modality: str | None) -> Case:
    """A case of one image, for a modality that takes one channel."""
    if not path.name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)):
        if hint := single_file_hint(path):
            raise DataError(hint)
        known = ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
        raise DataError(f"{path} has a suffix that cannot be read; expected one of {known}.")
    fitting = [
        name
        for name, taken in recipe.modalities.items()
        if len(set(taken.channels)) == 1 and modality in (None, name)
    ]
    if fitting and modality is None and len(recipe.modalities) > 1:
        raise DataError(
            f"{path} is one image and does not say what it shows; in this run one image can only be "
            f"{' or '.join(fitting)}. If it is, add --modality {fitting[0]}. {NAMING}"
        )
    if not fitting:
        wanted = modality or " or ".join(recipe.modalities)
        channels = recipe.modalities[modality].channels if modality else ()
        needed = f" with {', '.join(dict.fromkeys(channels))}" if channels else ""
        raise DataError(
            f"{path} is one image, but {wanted} takes several channels; expected the folder of a case"
            f"{needed}. {NAMING}"
        )
    channel = recipe.modalities[fitting[0]].channels[0]
    safe = re.sub(r"[^\w.-]", "_", stem(path))
    return Case(safe, safe, {channel: image_ref(path)})


def _modality_of(case: Case, recipe: Recipe) -> str:
    complete = [name for name, taken in recipe.modalities.items() if set(taken.channels) <= set(case.images)]
    fitting = complete or [name for name, taken in recipe.modalities.items() if _usable(case, taken)]
    if len(fitting) == 1:
        return fitting[0]
    wanted = "; ".join(
        f"{name}: {', '.join(dict.fromkeys(taken.channels))}" for name, taken in recipe.modalities.items()
    )
    raise DataError(
        f"Case {case.id} has the channels {', '.join(case.images)}, which fit "
        f"{'several modalities' if fitting else 'no modality'} of this run ({wanted}). Say which it is with "
        "--modality, or add the missing channels."
    )


def _usable(case: Case, modality: Modality) -> bool:
    if not set(modality.channels) & set(case.images):
        return False
    try:
        choose_channels(list(case.images), modality.channels, modality.missing, modality.substitutes)
    except DataError:
        return False
    return True
