"""nnU-Net's raw data: `DatasetNNN_Name/dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr`, `imagesTs`.

Version 1 (`TaskNNN_Name`) as well. Isensee et al., 2021, https://doi.org/10.1038/s41592-020-01008-z; format:
https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Case, Layout, Problem, Scan
from oncoseg.datasets.channels import channel_names
from oncoseg.datasets.dataset_json import (
    INDEX,
    Listing,
    checked_path,
    entries_of,
    find_roots,
    numbered_names,
    read_index,
    the_root,
    with_patients,
)
from oncoseg.datasets.folders import collect, safe_id, shortened
from oncoseg.errors import DataError
from oncoseg.files import read_json
from oncoseg.io import IMAGE_SUFFIXES, VOLUME_SUFFIXES, ImageRef, image_ref

SPLITS = "splits_final.json"
"""nnU-Net's folds: a list of maps with the cases to train and to validate on."""

TEST_LABELS = "labelsTs"
"""Masks of the cases in `imagesTs`, where somebody kept them; nnU-Net does not read them, either."""

COLOURS = 3
"""Channels that one colour image holds."""

Files = Mapping[str, Mapping[int, Path]]
"""Case → number of the channel → file."""

Described = tuple[Case | None, list[Problem]]


def recognise(path: Path) -> bool:
    """True when the folder, or one below it, holds an index of nnU-Net's."""
    return bool(find_roots(path, is_nnunet))


def is_nnunet(root: Path, index: Mapping[str, Any]) -> bool:
    """Whether an index is nnU-Net's.

    Version 2 says `channel_names`. Version 1 looks like the Decathlon's, but the files that it lists are
    there with the number of a channel at the end of their names.
    """
    if "channel_names" in index:
        return True
    try:
        first = next(iter(entries_of(index, "training")), None)
    except DataError:
        return False
    image = checked_path(root, first[0]) if first else None
    if image is None or image.is_file() or "modality" not in index:
        return False
    ending = _ending(index)
    return image.with_name(image.name.removesuffix(ending) + f"_0000{ending}").is_file()


def scan(path: Path) -> Scan:
    """Describe every case in `imagesTr` and `imagesTs`, or those that the index lists with their files.

    Raises:
        DataError: no index, one that cannot be used, or several data sets.
    """
    root = the_root(path, find_roots(path, is_nnunet))
    index = read_index(root)
    channels = channel_names(numbered_names(index, "channel_names", "modality"))
    labels, problems = read_labels(index)
    ending = _ending(index)
    described = [
        _describe(case, files, mask, channels, labels, needs_mask)
        for case, files, mask, needs_mask in _found(root, index, ending, len(channels))
    ]
    cases, of_patients = with_patients(root, (case for case, _ in described if case))
    found = collect("nnunet_raw", [(case, []) for case in cases])
    problems += [*of_patients, *(problem for _, of_case in described for problem in of_case)]
    problems += [*_misnamed(root, index, ending, len(channels)), *_without_image(root, found.cases, ending)]
    problems += _miscounted(index, found.cases)
    folds, remarks = _read_splits(root)
    problems += _leaking(folds, found.cases)
    return Scan("nnunet_raw", found.cases, (*problems, *found.problems), remarks=(*remarks, *_withheld(root)))


def read_labels(index: Mapping[str, Any]) -> tuple[dict[int, str], list[Problem]]:
    """Label value → name, without the background, and what cannot be used of the labels.

    Where the index names regions, which are unions of values, a value is named after all of its regions,
    such as `whole tumour + tumour core`. The value to be ignored is not declared: a mask that
    holds it is refused, as nothing here can leave voxels out.

    Raises:
        DataError: there is no such map, or a value is no whole number.
    """
    given = index.get("labels")
    if not isinstance(given, dict) or not given:
        raise DataError(f'{INDEX} lacks labels; expected a map such as {{"background": 0, "liver": 1}}.')
    names: dict[int, list[str]] = {}
    for key, value in given.items():
        of_version_1 = key.isdigit() and isinstance(value, str)  # value → name rather than name → value
        name, values = (
            (value, [key]) if of_version_1 else (key, value if isinstance(value, list) else [value])
        )
        for number in map(_whole, values):
            names.setdefault(number, []).append(name)
    ignored = [value for value, of in names.items() if "ignore" in of]
    labels = {value: " + ".join(of) for value, of in sorted(names.items()) if value not in {0, *ignored}}
    if not ignored:
        return labels, []
    text = (
        f"{INDEX} declares {ignored[0]} as the label to be ignored. oncoseg cannot leave voxels out: a mask "
    )
    text += "that holds it is refused. Relabel those voxels, or leave such cases out."
    return labels, [Problem("ignore-label", None, text)]


def _whole(number: Any) -> int:
    try:
        return int(number)
    except (TypeError, ValueError) as error:
        raise DataError(f"labels of {INDEX} has the value {number!r}; expected whole numbers.") from error


def _ending(index: Mapping[str, Any]) -> str:
    return str(index.get("file_ending", ".nii.gz"))


def _found(
    root: Path, index: Mapping[str, Any], ending: str, channels: int
) -> Iterable[tuple[str, Mapping[int, Path], Path | None, bool]]:
    """Case, its images by number, its mask if there is one, and whether it should have one."""
    if not ending.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)):
        known = ", ".join((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
        raise DataError(f"file_ending of {INDEX} is {ending}, which cannot be read; expected one of {known}.")
    listing = Listing()
    if isinstance(index.get("dataset"), dict):
        for case, entry in index["dataset"].items():
            yield case, *_listed(root, case, entry, listing), True
    else:
        for case, files in _numbered(root, "imagesTr", ending, listing, channels).items():
            mask = root / "labelsTr" / f"{case}{ending}"
            yield case, files, mask if mask in listing else None, True
    for case, files in _numbered(root, "imagesTs", ending, listing, channels).items():
        yield case, files, None, False


def _numbered(
    root: Path, folder: str, ending: str, listing: Listing, channels: int
) -> dict[str, dict[int, Path]]:
    cases: dict[str, dict[int, Path]] = {}
    for name in sorted(listing.names(root / folder)):
        if found := _case_and_number(root, name, ending, listing, channels):
            cases.setdefault(found[0], {})[found[1]] = root / folder / name
    return cases


def _case_and_number(
    root: Path, name: str, ending: str, listing: Listing, channels: int
) -> tuple[str, int] | None:
    """What the name of an image says; None where it lacks the channel's number.

    A case may end in four digits itself: `liver_9001.nii.gz` beside a label of the very name is no channel.
    """
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", name)
    if match is None or (int(match[2]) >= channels and name in listing.names(root / "labelsTr")):
        return None
    return match[1], int(match[2])


def _misnamed(root: Path, index: Mapping[str, Any], ending: str, channels: int) -> list[Problem]:
    """Files that look like images or labels and are not read, because of their names."""
    listing, problems = Listing(), []
    images = () if isinstance(index.get("dataset"), dict) else ("imagesTr",)
    for folder, form in {**dict.fromkeys((*images, "imagesTs"), "CASE_0000"), "labelsTr": "CASE"}.items():
        names = [
            name
            for name in sorted(listing.names(root / folder))
            if name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
            and not (
                name.endswith(ending)
                and (form == "CASE" or _case_and_number(root, name, ending, listing, channels))
            )
        ]
        if names:
            number = ", where 0000 is the number of the channel" if form != "CASE" else ""
            text = f"{len(names)} files in {folder} are not read: {shortened(names)}. Expected {form}{ending}"
            text += f"{number}. Rename or convert them, or mend file_ending of {INDEX}."
            problems.append(Problem("misnamed", None, text))
    return problems


def _listed(root: Path, case: str, entry: Any, listing: Listing) -> tuple[dict[int, Path], Path | None]:
    """The files that an index names itself; they may lie anywhere."""
    images = entry.get("images") if isinstance(entry, dict) else None
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise DataError(
            f'The case {case} of {INDEX} lists no images; expected {{"images": […], "label": …}}.'
        )
    files = {number: root / name for number, name in enumerate(images)}
    mask = root / entry["label"] if isinstance(entry.get("label"), str) else None
    found = {number: file for number, file in files.items() if file in listing}
    return found, mask if mask and mask in listing else None


def _describe(
    name: str,
    files: Mapping[int, Path],
    mask: Path | None,
    channels: Sequence[str],
    labels: Mapping[int, str],
    needs_mask: bool,
) -> Described:
    case_id = safe_id(name)
    try:
        images = _images(files, channels)
        masks = (image_ref(mask),) if mask else ()
    except DataError as error:
        return None, [Problem("unreadable", case_id, f"{case_id}: {error}")]
    problems = []
    if absent := [channel for channel in channels if channel not in images]:
        text = f"{case_id}: expected the channels {', '.join(channels)}, but {', '.join(absent)} is missing."
        problems.append(Problem("missing-channel", case_id, f"{text} Restore it."))
    if surplus := sorted(number for number in files if number >= len(channels)):
        text = f"{case_id}: {INDEX} names {len(channels)} channels, but there is a file with the number "
        text += f"{shortened(surplus)}, which is not read. Name it there."
        problems.append(Problem("unknown-channel", case_id, text))
    if needs_mask and not masks:
        text = f"{case_id}: no label of that name in labelsTr, so the case has no truth and can only be "
        problems.append(Problem("missing-mask", case_id, f"{text}predicted. Restore it."))
    return (Case(case_id, case_id, images, masks, labels) if images else None), problems


def _images(files: Mapping[int, Path], channels: Sequence[str]) -> dict[str, ImageRef]:
    colour = len(files) == 1 and len(channels) == COLOURS and 0 in files
    if colour and files[0].name.lower().endswith(IMAGE_SUFFIXES):
        return {name: ImageRef((files[0],), number) for number, name in enumerate(channels)}
    return {name: image_ref(files[number]) for number, name in enumerate(channels) if number in files}


def _without_image(root: Path, cases: Sequence[Case], ending: str) -> list[Problem]:
    known = {file for case in cases for ref in case.masks for file in ref.files}
    folder = root / "labelsTr"
    files = [name for name in sorted(Listing().names(folder)) if name.endswith(ending)]
    surplus = [name for name in files if folder / name not in known]
    if not surplus:
        return []
    text = f"{len(surplus)} labels have no image and are not read: {shortened(surplus)}. Restore the images."
    return [Problem("missing-image", None, text)]


def _miscounted(index: Mapping[str, Any], cases: Sequence[Case]) -> list[Problem]:
    stated, found = index.get("numTraining"), sum(bool(case.masks) for case in cases)
    if not isinstance(stated, int) or stated == found:
        return []
    text = f"{INDEX} states {stated} training cases, but {found} with a label are there. Restore the others."
    return [Problem("miscounted", None, text)]


def _read_splits(root: Path) -> tuple[list[Mapping[str, Any]], tuple[str, ...]]:
    """Folds, from beside the index or from nnU-Net's preprocessed data, and a sentence about them."""
    preprocessed = root.parent.parent / "nnUNet_preprocessed" / root.name / SPLITS
    path = next((path for path in (root / SPLITS, preprocessed) if path.is_file()), None)
    if path is None:
        return [], ()
    try:
        folds = list(read_json(path))
        sizes = {(len(fold["train"]), len(fold["val"])) for fold in folds}
    except (OSError, ValueError, TypeError, KeyError):
        sizes = set()
    if not sizes:
        return [], (f"{path} is no list of folds of nnU-Net's and is not used.",)
    each = ", ".join(f"{train} to train and {val} to validate on" for train, val in sorted(sizes))
    return folds, (f"{SPLITS}: {len(folds)} folds, each of {each}.",)


def _withheld(root: Path) -> tuple[str, ...]:
    """A sentence about the test cases' masks, which are not read, so that nobody trains on them."""
    count = len(Listing().names(root / TEST_LABELS))
    if not count:
        return ()
    text = f"{TEST_LABELS}: {count} masks of test cases are not read, so that none of them is trained on. "
    return (f"{text}Give {root / TEST_LABELS} as --truth of oncoseg evaluate to score predictions of them.",)


def _leaking(folds: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> list[Problem]:
    patients = {case.id: case.patient for case in cases}
    on_both = sorted(
        {
            patient
            for fold in folds
            for patient in {patients.get(str(case)) for case in fold["train"]}
            & {patients.get(str(case)) for case in fold["val"]}
            if patient
        }
    )
    if not on_both:
        return []
    text = (
        f"{SPLITS} has {len(on_both)} patients on both sides of a fold: {shortened(on_both)}. Scores on it "
    )
    text += "are too good; let nnU-Net split by patient."
    return [Problem("leaking-split", None, text)]


LAYOUT = Layout(
    title="nnU-Net raw data: DatasetNNN_Name/dataset.json with imagesTr/CASE_0000.nii.gz, labelsTr, imagesTs",
    channels=(),
    recognise=recognise,
    scan=scan,
    index=INDEX,
)
