"""What lies where in each format, and the files that describe the whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg import __version__, io
from oncoseg.convert.folds import folds_of
from oncoseg.convert.plan import BACKGROUND, Item, Plan
from oncoseg.datasets.dataset_json import INDEX, PATIENTS
from oncoseg.datasets.nnunet_raw import SPLITS
from oncoseg.datasets.table import INDEX as TABLE
from oncoseg.datasets.table import LABELS
from oncoseg.files import write_json, write_text
from oncoseg.volume import is_sheared

Images = list[tuple[str, tuple[str, ...]]]
"""Path below the folder → the channels that the file holds, one volume each."""


@dataclass(frozen=True)
class Format:
    """One way to write a data set.

    Attributes:
        title: one line for people.
        alike: whether every case must have the same channels.
        several_readers: whether a case may have several masks.
        images: which files a case's images make.
        mask: where a case's mask lies; of several readers, the one with this number.
        describe: writes the files that describe the whole, when every case is there.
        folds: whether it says who trains and who validates.
    """

    title: str
    alike: bool
    several_readers: bool
    images: Callable[[Item, Sequence[str]], Images]
    mask: Callable[[Item, int], str]
    describe: Callable[[Path, Plan, Sequence[Item]], None]
    folds: bool = False


def _part(item: Item) -> str:
    return "Tr" if item.source.masks and item.part != "test" else "Ts"


def _nnunet_images(item: Item, channels: Sequence[str]) -> Images:
    return [
        (f"images{_part(item)}/{item.name}_{number:04d}.nii.gz", (channel,))
        for number, channel in enumerate(channels)
    ]


def _decathlon_images(item: Item, channels: Sequence[str]) -> Images:
    return [(f"images{_part(item)}/{item.name}.nii.gz", tuple(channels))]


def _nifti_images(item: Item, channels: Sequence[str]) -> Images:
    return [
        (f"images/{item.name}_{channel}.nii.gz", (channel,))
        for channel in channels
        if channel in item.source.images
    ]


def _indexed_mask(item: Item, reader: int) -> str:
    return f"labels{_part(item)}/{item.name}.nii.gz"


def _nifti_mask(item: Item, reader: int) -> str:
    return f"labels/{item.name}{f'_{reader + 1}' if reader else ''}.nii.gz"


def _describe_nnunet(out: Path, plan: Plan, items: Sequence[Item]) -> None:
    trained = [item for item in items if _part(item) == "Tr"]
    index: dict[str, Any] = {
        "channel_names": {str(number): channel for number, channel in enumerate(plan.channels)},
        "labels": {BACKGROUND: 0, **plan.labels},
        "numTraining": len(trained),
        "file_ending": ".nii.gz",
        "name": out.resolve().name,
        "description": _origin(),
    }
    first = (out / path for item in items for path, _ in _nnunet_images(item, plan.channels)[:1])
    if any(is_sheared(io.read_grid(io.ImageRef((path,)))) for path in first):
        # nnU-Net's usual reader, SimpleITK, refuses axes that are not perpendicular
        index["overwrite_image_reader_writer"] = "NibabelIO"
    _write_patients(out, items)
    if folds := folds_of(items):
        write_json(out / SPLITS, folds)
    else:
        (out / SPLITS).unlink(missing_ok=True)
    write_json(out / INDEX, index)


def _describe_decathlon(out: Path, plan: Plan, items: Sequence[Item]) -> None:
    trained = [item for item in items if item.source.masks]
    others = [item for item in items if not item.source.masks]
    index = {
        "name": out.resolve().name,
        "description": _origin(),
        "tensorImageSize": "3D" if len(plan.channels) == 1 else "4D",
        "modality": {str(number): channel for number, channel in enumerate(plan.channels)},
        "labels": {"0": BACKGROUND, **{str(value): name for name, value in plan.labels.items()}},
        "numTraining": len(trained),
        "numTest": len(others),
        "training": [
            {"image": f"./{_decathlon_images(item, ())[0][0]}", "label": f"./{_indexed_mask(item, 0)}"}
            for item in trained
        ],
        "test": [f"./{_decathlon_images(item, ())[0][0]}" for item in others],
    }
    _write_patients(out, items)
    write_json(out / INDEX, index)


def _describe_nifti(out: Path, plan: Plan, items: Sequence[Item]) -> None:
    readers = ["label"] if plan.readers == 1 else [f"label.{number + 1}" for number in range(plan.readers)]
    lines = [("case", "patient", *plan.channels, *readers, "class", "site")]
    for item in items:
        paths = {channels[0]: path for path, channels in _nifti_images(item, plan.channels)}
        masks = min(len(item.source.masks), plan.readers)
        labels = [_nifti_mask(item, reader) if reader < masks else "" for reader in range(plan.readers)]
        images = [paths.get(channel, "") for channel in plan.channels]
        lines.append((item.name, item.patient, *images, *labels, item.source.target or "", item.site or ""))
    write_json(out / LABELS, {BACKGROUND: 0, **plan.labels})
    write_text(out / TABLE, _table(lines))


def _write_patients(out: Path, items: Sequence[Item]) -> None:
    lines = [("case", "patient", "class", "site")]
    lines += [(item.name, item.patient, item.source.target or "", item.site or "") for item in items]
    write_text(out / PATIENTS, _table(lines))


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines)


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',;"\t\r\n') else text


def _origin() -> str:
    return f"Converted by oncoseg {__version__}"


FORMATS: dict[str, Format] = {
    "nnunet": Format(
        title="nnU-Net raw data: imagesTr/CASE_0000.nii.gz, labelsTr, imagesTs, dataset.json, folds",
        alike=True,
        several_readers=False,
        images=_nnunet_images,
        mask=_indexed_mask,
        describe=_describe_nnunet,
        folds=True,
    ),
    "decathlon": Format(
        title="Medical Segmentation Decathlon: imagesTr/CASE.nii.gz (4D for several channels), dataset.json",
        alike=True,
        several_readers=False,
        images=_decathlon_images,
        mask=_indexed_mask,
        describe=_describe_decathlon,
    ),
    "nifti": Format(
        title="NIfTI with a table: images/CASE_CHANNEL.nii.gz, labels/CASE.nii.gz, cases.csv, labels.json",
        alike=False,
        several_readers=True,
        images=_nifti_images,
        mask=_nifti_mask,
        describe=_describe_nifti,
    ),
}
"""Every format by its name on the command line."""
