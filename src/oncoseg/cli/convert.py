"""The command `oncoseg convert`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.errors import DataError

if TYPE_CHECKING:
    from oncoseg.convert import Converted


def convert(
    dataset: Path,
    /,
    *,
    out: Path,
    to: str | None = None,
    deidentify: bool = False,
    layout: str | None = None,
    channels: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    consensus: float = 0.5,
    all_readers: bool = False,
    split_file: Annotated[Path | None, Parameter(name="--split")] = None,
    pseudonyms: bool = False,
    keep_names: bool = False,
    salt_file: Path | None = None,
    key_file: Path | None = None,
    workers: int | None = None,
    memory_gib: float | None = None,
) -> None:
    """Write a data set in another layout, or DICOM files without what could identify their patients.

    A layout gets the same voxels on the same grids, and nothing else of their files.

    Stopped, the same command goes on. Names that a public data set's publishers gave are kept, and so are the
    salted keys under which DICOM is read. Names in tables, in nnU-Net's folders and of pairs may be of
    patients: they become salted pseudonyms.

    Args:
        dataset: The data set's folder, or a table of cases.
        out: The folder to write; for nnU-Net, name it DatasetNNN_NAME in its folder of raw data.
        to: nnunet, decathlon, or nifti (NIfTI with a table of cases).
        deidentify: Write DICOM files again, de-identified; of the other flags only --salt-file has a meaning.
        layout: How the data set lies on disk; recognised by itself when left out.
        channels: Only these, in this order; cases that lack one are left out.
        consensus: Share of the readers that must mark a voxel, where there are several.
        all_readers: Write every reader's mask instead of their consensus (only --to nifti).
        split_file: A run's split.json, so that nnU-Net trains on the same cases (only --to nnunet): they
            become one fold, and the test patients lie apart in imagesTs and labelsTs.
        pseudonyms: Replace the names of cases, patients and sites, whatever they are.
        keep_names: Keep them, whatever they are.
        salt_file: Secret of the pseudonyms, made if it is not there; your own one when left out.
        key_file: Use pseudonyms, and write which is whose to this file, which must not go with the data.
        workers: Processes; one per processor when left out, or fewer if memory is short.
        memory_gib: Memory for all of them together; half of what is free, at most 8, when left out.
    """
    from oncoseg.convert import convert as convert_dataset
    from oncoseg.convert.names import read_salt
    from oncoseg.split import read_split

    others = (layout, channels, split_file, key_file, workers, memory_gib, to)
    plain = not (any(other is not None for other in others) or all_readers or pseudonyms or keep_names)
    _check_flags(to, deidentify, plain, pseudonyms and keep_names)
    salt = None if salt_file is None else read_salt(salt_file)
    if to is None:
        return _deidentify(dataset, out, salt)
    with terminal.progress_in_steps("looking through files", "converting") as (scanning, progress):
        done = convert_dataset(
            dataset,
            to,
            out,
            layout=layout,
            channels=channels,
            consensus=consensus,
            all_readers=all_readers,
            split=None if split_file is None else read_split(split_file, ("its",)),
            names="pseudonyms" if pseudonyms else "keep" if keep_names else None,
            salt=salt,
            key_file=key_file,
            workers=workers,
            memory_gib=memory_gib,
            progress=progress,
            scanning=scanning,
        )
    _print(done, dataset, out, to, split_file is not None)
    return None


def _check_flags(to: str | None, deidentify: bool, plain: bool, both: bool) -> None:
    if deidentify and not plain:
        raise DataError("Of --deidentify, which writes DICOM, only --out and --salt-file have a meaning.")
    if to is None and not deidentify:
        raise DataError(
            "Expected --to nnunet, --to decathlon or --to nifti; or --deidentify, to write DICOM."
        )
    if both:
        raise DataError("Expected --pseudonyms or --keep-names, got both.")


def _print(done: "Converted", dataset: Path, out: Path, to: str, split: bool) -> None:
    for remark in done.scan.remarks:
        terminal.note(remark)
    terminal.note_problems(str(dataset), done.scan.problems)
    if done.left_out:
        unlisted = "the split does not list them or " if split else ""
        some = f"{', '.join(done.left_out[:3])}{' …' if len(done.left_out) > 3 else ''}"
        terminal.note(
            f"{len(done.left_out)} cases are left out, because {unlisted}"
            f"they lack a channel that was asked for: {some}"
        )
    labels = ", ".join(f"{value} {name}" for name, value in done.plan.labels.items()) or "none"
    terminal.say(f"{done.cases} cases of {done.patients} patients ({done.scan.layout}) in {out}")
    terminal.say(f"Channels: {', '.join(done.plan.channels)}. Labels: {labels}.")
    if to == "nnunet" and not re.fullmatch(r"Dataset\d{3}_.+", out.resolve().name):
        terminal.note(
            f"nnU-Net finds data sets by names such as Dataset501_{out.resolve().name} alone. Rename the "
            "folder."
        )
    if done.folds:
        terminal.say(
            f"Folds, by patient: {done.folds}, in splits_final.json. Copy it to "
            f"nnUNet_preprocessed/{out.resolve().name} before nnU-Net trains, as it looks for it there alone."
        )
    kept = "kept" if done.names == "keep" else "replaced by salted pseudonyms"
    terminal.say(f"Names of cases and patients are {kept}.")


def _deidentify(folder: Path, out: Path, salt: bytes | None) -> None:
    from oncoseg.io.dicom.deidentify import deidentify_folder

    with terminal.progress("de-identifying") as progress:
        done = deidentify_folder(folder, out, salt, progress)
    for reason, count in sorted(done.left_out.items()):
        terminal.note(f"{count} files are left out: {reason}")
    for warning in done.warnings:
        terminal.note(warning)
    terminal.say(f"{len(done.written)} DICOM files of {done.patients} patients in {out}")
    terminal.say("Look at them before you share them: text in pixels and faces cannot be found for certain.")
