"""The commands about data: `oncoseg inspect`, `phantom`, `prepare`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.cli.recipes import Fields, changed, open_recipe
from oncoseg.errors import DataError, nearest

if TYPE_CHECKING:
    from oncoseg.cluster import Spread
    from oncoseg.inspect import CaseRow

Chosen = Annotated[list[str] | None, Parameter(name="--channel", negative="")]
"""The flags `--channel NAME=SERIES`, for `parse_channels`."""

PREPARE_FLAGS = (
    *("data", "only", "channel", "store", "workers", "memory-gib", "ray", "accept-implausible"),
    *("help", "debug"),
)
"""The flags of `prepare` besides a recipe's fields."""


MOST_LABELS = 8
"""Label values of a case that its row shows; an image that is given as a mask has thousands."""


def inspect(
    path: Path,
    /,
    *,
    layout: str | None = None,
    channel: Chosen = None,
    key_file: Path | None = None,
    max_slices: int | None = None,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Look at every image of a data set: what it holds, and every problem.

    Args:
        path: The data set's folder, as it was downloaded, or a table of cases (CSV, TSV).
        layout: How it lies on disk, such as brats; recognised by itself when left out.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage": part of the description, a pattern (*flair*), or a SeriesInstanceUID.
            Then nothing is guessed. See docs/dicom.md.
        key_file: Of a DICOM folder, write which PatientID and files are behind each case's name to this
            file, which must not go with any data.
        max_slices: Leave out cases of more axial slices, as a recipe's max-slices does, and list them.
        json: Also write everything found to this file.
    """
    from oncoseg.files import write_json
    from oncoseg.inspect import inspect_dataset

    if key_file is not None:
        _write_key(key_file, path, layout, parse_channels(channel))
    with terminal.progress_in_steps("looking through files", "reading") as (scanning, progress):
        found = inspect_dataset(
            path,
            layout,
            channels=parse_channels(channel),
            progress=progress,
            scanning=scanning,
            max_slices=max_slices,
        )
    terminal.say(f"{path}: {found.title} (layout {found.layout})")
    terminal.say(f"{found.case_count} cases of {found.patient_count} patients")
    for remark in found.remarks:
        terminal.say(remark)
    columns = ("case", "patient", "channels", "voxels", "spacing mm", "readers", "labels", "marked slices")
    classes = ("class",) if any(row.target for row in found.cases) else ()
    cells = [[*_case_cells(row), *([row.target] if classes else [])] for row in found.cases]
    terminal.print_table(None, (*columns, *classes), cells)
    terminal.say(f"{len(found.problems) or 'No'} problem{'' if len(found.problems) == 1 else 's'} found")
    for problem in found.problems:
        terminal.say(f"  [{problem.kind}] {problem.message}")
    if json is not None:
        write_json(json, found.as_dict())
        terminal.note(f"Written: {json}")


def phantom(
    kind: str, out: Path, /, *, cases: int = 12, seed: int = 0, size: tuple[int, int, int] | None = None
) -> None:
    """Make synthetic studies: patterns that look like tumours in scans and are of no patient.

    Args:
        kind: brain-mri, lung-ct, liver-ct, vessel-ct, lung-ct-dicom or hospital-dicom.
        out: The folder to make.
        cases: How many patients.
        seed: The same seed gives the same studies.
        size: Voxels along the three axes, such as 512 512 300 for a real CT's; small when left out.
    """
    from oncoseg.phantom import PHANTOMS, SIZED

    if kind not in PHANTOMS:
        raise DataError(f"Unknown kind of phantom {kind!r}; {nearest(kind, PHANTOMS)}")
    if size is not None and kind not in SIZED:
        raise DataError(f"The phantom {kind} has one size; --size is for {', '.join(SIZED)}.")
    with terminal.progress(f"making {kind} phantoms") as progress:
        if size is None:
            PHANTOMS[kind](out, cases, seed, progress)
        else:
            SIZED[kind](out, cases, seed, progress, size)
    terminal.say(f"{cases} {kind} phantoms in {out} (synthetic, no patient's data)")


def prepare(
    recipe: str,
    /,
    *,
    data: list[str],
    only: list[str] | None = None,
    channel: Chosen = None,
    store: Path | None = None,
    workers: int | None = None,
    memory_gib: float | None = None,
    ray: str | None = None,
    accept_implausible: bool = False,
    **fields: Fields,
) -> None:
    """Prepare a recipe's slices ahead of training; what the store holds already is not done again.

    Every field of the recipe is a flag too; they are listed below.

    Args:
        recipe: A recipe's name, or the path of a recipe's JSON file.
        data: Once per modality: its name and the folder of its data set, as in mri=data/lgg.
        only: A modality to prepare without the others; may be repeated.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage": part of the description, a pattern (*flair*), or a SeriesInstanceUID.
        store: The prepared store; in your cache folder when left out.
        workers: Processes; one per processor when left out, or fewer if memory is short.
        memory_gib: Memory for all of them together; half of what is free, at most 8, when left out.
        ray: A Ray cluster to spread the cases over: its address, `auto`, or `local` for one on this machine.
        accept_implausible: Take images that cannot be what they are said to be, such as a CT without
            Hounsfield units.
        **fields: Fields of the recipe, such as --preparation.slice-size [96,96].
    """
    from oncoseg.datasets import open_dataset
    from oncoseg.datasets.left_out import without_large
    from oncoseg.prepare import Settings
    from oncoseg.prepare import prepare as prepare_cases
    from oncoseg.training import sources
    from oncoseg.training.data import default_store

    chosen = changed(open_recipe(recipe), fields, PREPARE_FLAGS, only)
    folders = parse_data(data)
    channels = sources.channels_by_modality(chosen, parse_channels(channel))
    store = store or default_store()
    rows = []
    for name, folder in folders.items():
        if name not in chosen.modalities:
            sources.check_modalities(chosen, folders)
        modality = chosen.modalities[name]
        settings = Settings.of(modality, chosen.classes, chosen.preparation, accept_implausible)
        with terminal.progress(f"looking through {name}") as scanning:
            scan = open_dataset(folder, channels=channels.get(name), progress=scanning)
            scan = without_large(scan, modality.max_slices)
        terminal.note_found(name, scan)
        cases = [case for case in scan.cases if case.masks]
        if without := len(scan.cases) - len(cases):
            terminal.note(f"{name}: {without} cases without a mask are left out")
        with terminal.progress(f"preparing {name}") as progress, spread_over(ray, workers) as spread:
            prepared = prepare_cases(
                cases,
                settings,
                store,
                workers=workers,
                memory_gib=memory_gib,
                progress=progress,
                spread=spread,
            )
        rows.append((name, len(prepared), sum(len(case.tumour_pixels) for case in prepared)))
    terminal.print_table(None, ("modality", "cases", "slices"), rows, right=2)
    terminal.say(f"Prepared store: {store}")


def parse_channels(given: Sequence[str] | None) -> dict[str, str]:
    """Read `--channel NAME=SERIES` flags.

    Raises:
        DataError: one without a name or a series, or a channel given twice.
    """
    chosen: dict[str, str] = {}
    for text in given or []:
        name, equals, series = (part.strip() for part in text.partition("="))
        if not (name and equals and series):
            raise DataError(
                f'Expected --channel NAME=SERIES, for example --channel T1="t1 mprage"; got --channel {text}.'
            )
        if name in chosen:
            raise DataError(f"--channel {name}= is given twice; expected one series for each channel.")
        chosen[name] = series
    return chosen


def spread_over(
    address: str | None, processors: int | None = None, *, gpus: bool = False
) -> AbstractContextManager["Spread | None"]:
    """The cluster that a flag names; nothing without one."""
    if address is None:
        return nullcontext()
    from oncoseg.cluster import cluster

    return cluster(address, processors=processors, gpus=gpus)


def parse_data(given: Sequence[str], flag: str = "--data") -> dict[str, Path]:
    """Read `--data NAME=PATH` flags, or others like them.

    Raises:
        DataError: one without a name, or a name given twice.
    """
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise DataError(f"Expected {flag} NAME=PATH, for example {flag} mri=data/lgg; got {flag} {text}.")
        if name in folders:
            raise DataError(f"{flag} {name}= is given twice; expected one folder for each name.")
        folders[name] = Path(folder).expanduser()
    return folders


def _write_key(key_file: Path, path: Path, layout: str | None, channels: dict[str, str]) -> None:
    from oncoseg.datasets import dicom_key, open_dataset

    dicom_key.check_new(key_file, path)
    scan = open_dataset(path, layout, channels=channels)
    if scan.layout != "dicom_folder":
        raise DataError(
            f"{path} has the layout {scan.layout}, whose cases have the names of its files; expected a DICOM "
            "folder for --key-file."
        )
    dicom_key.write_key(key_file, scan.cases)
    terminal.note(f"Written: {key_file}, which names patients; keep it apart from images and masks")


def parse_stated(given: Sequence[str], flag: str) -> dict[str, str]:
    """Read flags such as `--licence NAME=TEXT`.

    Raises:
        DataError: one without a name or a text, or a name given twice.
    """
    stated: dict[str, str] = {}
    for text in given:
        name, equals, words = text.partition("=")
        if not (name and equals and words.strip()):
            raise DataError(f'Expected {flag} NAME=TEXT, for example {flag} mri="..."; got {flag} {text}.')
        if name in stated:
            raise DataError(f"{flag} {name}= is given twice; expected one text for each name.")
        stated[name] = words.strip()
    return stated


def _case_cells(row: "CaseRow") -> list[Any]:
    labels = [
        f"{label.value} {label.name or 'unexpected'} {_amount(label.voxels, label.volume_ml)}"
        for label in row.labels[:MOST_LABELS]
    ]
    if len(row.labels) > MOST_LABELS:
        labels.append(f"and {len(row.labels) - MOST_LABELS} other values")
    return [
        row.id,
        row.patient,
        " ".join(row.channels),
        "×".join(map(str, row.grid)) if row.grid else None,
        " × ".join(f"{size:.3g}" for size in row.spacing_mm) if row.spacing_mm else "unknown",
        row.readers,
        ", ".join(labels) or ("empty" if row.readers else "no mask"),
        row.foreground_slices,
    ]


def _amount(voxels: int, volume_ml: float | None) -> str:
    return f"{voxels} voxels" if volume_ml is None else f"{volume_ml:.3g} ml"
