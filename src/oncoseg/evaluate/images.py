"""Which images belong to which cases, for the pictures of an evaluation of masks."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError
from oncoseg.evaluate.pairs import Pair
from oncoseg.io import IMAGE_SUFFIXES, NIFTI_SUFFIXES, ImageRef

UNNAMED = "image"
"""What a channel is called whose file does not say what it is; a number may follow."""

CHANNEL_ENDS = dict.fromkeys(("image", "img", "scan"), UNNAMED) | {
    "ct": "CT",
    "mr": "MRI",
    "mri": "MRI",
    "pet": "PET",
    **dict.fromkeys(("t1", "t1n", "t1w"), "T1"),
    **dict.fromkeys(("t1ce", "t1c"), "T1ce"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
}
"""What may follow a case's id and `_` or `-` in the name of an image → what the channel is called."""

ENDED = re.compile(r"(?P<case>.+)[_-](?P<end>\d{4}|[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*)")
"""A case's id and what follows it; four digits number the channels in nnU-Net's folders."""

SUFFIXES = tuple(sorted(NIFTI_SUFFIXES + IMAGE_SUFFIXES, key=len, reverse=True))
"""Of files that are images."""

Images = dict[str, dict[str, ImageRef]]
"""Case → channel → image."""


def with_images(pairs: Sequence[Pair], folder: Path) -> list[Pair]:
    """The same cases with the images of a folder in place of the truth's own.

    Args:
        pairs: the cases.
        folder: a data set of a known layout, or a folder of images named as the cases: CASE, CASE_0000,
            CASE_ct, CASE_flair and the like (see CHANNEL_ENDS), or a folder CASE of 2D slices.

    Raises:
        DataError: not one image of any case.
    """
    cases = {pair.case for pair in pairs}
    found: Images = {}
    try:
        found = {case.id: dict(case.images) for case in open_dataset(folder).cases}
    except DataError:
        if not folder.is_dir():
            raise
    found |= _by_name(folder, cases - found.keys())
    if not cases & found.keys():
        raise DataError(
            f"No image in {folder} belongs to a case. Expected images named as the cases, such as "
            f"{pairs[0].case}.nii.gz or {pairs[0].case}_0000.nii.gz, or a data set that has these cases."
        )
    return [pair._replace(images=found.get(pair.case)) for pair in pairs]


def _by_name(folder: Path, cases: Collection[str]) -> Images:
    found: Images = {}
    for path in sorted(folder.iterdir()):
        stem, files = _image_at(path)
        case, channel = _named(stem, cases)
        if files and case:
            found.setdefault(case, {}).setdefault(channel, ImageRef(files))
    return found


def _image_at(path: Path) -> tuple[str, tuple[Path, ...]]:
    """An image's name without suffix, and its files: of a folder, 2D images in the order of their numbers."""
    if path.is_dir():
        slices = [each for each in path.iterdir() if each.name.lower().endswith(IMAGE_SUFFIXES)]
        return path.name, tuple(sorted(slices, key=_in_numeric_order))
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    return ("", ()) if suffix is None else (path.name[: -len(suffix)], (path,))


def _in_numeric_order(path: Path) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]


def _named(stem: str, cases: Collection[str]) -> tuple[str, str]:
    """Whose image a file is by its name, and of which channel; the first is empty where it is nobody's."""
    if stem in cases:
        return stem, UNNAMED
    match = ENDED.fullmatch(stem)
    if match is None or match["case"] not in cases:
        return "", ""
    if match["end"].isdecimal():
        return match["case"], f"{UNNAMED} {match['end']}"
    channel = CHANNEL_ENDS.get(match["end"].lower(), "")
    return (match["case"], channel) if channel else ("", "")
