"""The conversion of a whole data set: resumable, in several processes within a memory bound."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncoseg import __version__, io
from oncoseg.convert.folds import folds_of, parts_of
from oncoseg.convert.formats import FORMATS
from oncoseg.convert.names import pseudonyms, safe_patients, write_key
from oncoseg.convert.plan import Item, Names, Plan, choose, join_labels
from oncoseg.convert.write import Writer
from oncoseg.datasets import DATASETS, open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError, failed_cases, nearest
from oncoseg.files import (
    SYNTHETIC_NOTE,
    SYNTHETIC_SENTENCE,
    new_folder,
    remove_leftovers,
    write_json,
    write_text,
)
from oncoseg.io.dicom.patients import user_salt
from oncoseg.processes import processes_within, run_each

RECORD = "conversion.json"
"""In the output folder: the settings, and a fingerprint of each case's files; no name or path of them."""

MEMORY_PER_WORKER_GIB = 0.4
"""Python and its libraries in a worker process."""

SOURCE_COPIES = 3.0
"""Voxels of one channel or of all masks held at the peak, in copies."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        scan: the source.
        cases: how many.
        patients: how many.
        plan: channels and labels.
        left_out: cases without the channels asked for, or that the split does not list.
        names: what became of the names.
        folds: how many `splits_final.json` has; 0 where there is none.
    """

    scan: Scan
    cases: int
    patients: int
    plan: Plan
    left_out: tuple[str, ...]
    names: Names
    folds: int


def convert(
    path: Path,
    to: str,
    out: Path,
    *,
    layout: str | None = None,
    channels: Sequence[str] | None = None,
    consensus: float = 0.5,
    all_readers: bool = False,
    split: Mapping[str, Any] | None = None,
    names: Names | None = None,
    salt: bytes | None = None,
    key_file: Path | None = None,
    workers: int | None = None,
    memory_gib: float | None = None,
    progress: Progress | None = None,
    scanning: Progress | None = None,
) -> Converted:
    """Write a data set in another layout.

    What an earlier, interrupted call with the same settings has written is kept. A case that cannot be used
    does not keep the others from being written.

    Args:
        path: the data set; see `open_dataset`.
        to: a name in FORMATS.
        out: the folder to write.
        layout: of the source; None recognises it.
        channels: only these, in this order; cases that lack one are left out. None for all.
        consensus: share of the readers, in (0, 1], that must mark a voxel.
        all_readers: write every reader's mask instead of their consensus, where the format can.
        split: modality → part → patient → case ids, such as of a run, where the format says who trains (see
            `folds.py`); cases with a mask that it does not list are left out.
        names: `keep` or `pseudonyms`; None keeps those that tell nothing of a patient by the layout (see
            `Layout.anonymous`), unless a salt or a key is given, and replaces all others.
        salt: of the pseudonyms; None takes this user's own.
        key_file: where to write which pseudonym is whose; None for nowhere.
        workers: processes; None for one per processor, 0 for none besides this one.
        memory_gib: bound on the memory of all of them; see `processes_within`.
        progress: called with (cases done, cases in all).
        scanning: before, called with (files done, files in all); see `open_dataset`.

    Raises:
        DataError: a data set or settings that cannot be used, before anything is written; or some cases,
            after all others are written.
        RunError: `out` holds something else, or cannot be written.
    """
    form = _checked_format(to, consensus, all_readers, split is not None)
    _check_apart(path, out)
    scan = open_dataset(path, layout, progress=scanning)
    parts = {} if split is None else parts_of(split, scan.cases)
    used = [case for case in scan.cases if split is None or case.id in parts or not case.masks]
    chosen, wanted = choose(used, channels, form.alike)
    names, salt = _names(scan.layout, names, salt, key_file)
    renamed = pseudonyms(chosen, salt) if salt else safe_patients(chosen)
    items = [
        Item(old, new.id, new.patient, new.site, parts.get(old.id, ""))
        for old, new in zip(chosen, renamed, strict=True)
    ]
    items.sort(key=lambda item: item.name)
    most = max(len(case.masks) for case in chosen)
    plan = Plan(wanted, join_labels(chosen), consensus, most if all_readers else min(most, 1))
    writer = Writer(out, to, plan)
    _check_distinct(writer, items)
    todo = _claim(writer, items, scan.layout, names, salt)
    if key_file is not None:
        write_key(key_file, out, chosen, renamed)
    failures = _write_all(writer, todo, len(items), workers, memory_gib, progress)
    written = [item for item in items if item.name not in failures]
    if scan.synthetic:
        write_text(out / SYNTHETIC_NOTE, f"{SYNTHETIC_SENTENCE}\n")
    if written:
        form.describe(out, plan, written)
    if failures:
        raise failed_cases(list(failures.values()), len(items), f"converted; the others are in {out}")
    left_out = sorted({case.id for case in scan.cases} - {case.id for case in chosen})
    folds = len(folds_of(written)) if form.folds else 0
    patients = len({item.patient for item in written})
    return Converted(scan, len(written), patients, plan, tuple(left_out), names, folds)


def _check_apart(path: Path, out: Path) -> None:
    """Check that what is written is not found again as part of the source.

    Raises:
        DataError: one folder lies in the other.
    """
    here, there = out.resolve(), path.resolve()
    if path.is_dir() and (here == there or here in there.parents or there in here.parents):
        raise DataError(f"{out} and {path} overlap; expected a folder of its own. Choose another with --out.")


def _check_distinct(writer: Writer, items: Sequence[Item]) -> None:
    """Check that every file has a name of its own.

    Raises:
        DataError: two have one.
    """
    counts = Counter(path for item in items for path in writer.paths(item))
    path, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} images would be written as {path}. Rename the cases, or use --pseudonyms.")


def _names(
    layout: str, names: Names | None, salt: bytes | None, key_file: Path | None
) -> tuple[Names, bytes]:
    """What becomes of the names, and the salt; empty where they are kept."""
    asked = salt is not None or key_file is not None
    names = names or ("keep" if DATASETS[layout].anonymous and not asked else "pseudonyms")
    if names == "keep" and asked:
        raise DataError(
            "A salt or a key is for pseudonyms, but names are to be kept. Ask for one of the two."
        )
    return names, (salt or user_salt()) if names == "pseudonyms" else b""


def _checked_format(to: str, consensus: float, all_readers: bool, split: bool) -> Any:
    if to not in FORMATS:
        raise DataError(f"Unknown format {to!r}; {nearest(to, FORMATS)}")
    if not 0 < consensus <= 1:
        raise DataError(f"Expected a consensus above 0 and up to 1, got {consensus}.")
    if all_readers and not FORMATS[to].several_readers:
        raise DataError(
            f"The format {to} has one mask a case; every reader's can be written with --to nifti."
        )
    if split and not FORMATS[to].folds:
        raise DataError(f"The format {to} does not say who trains; a split can be written with --to nnunet.")
    return FORMATS[to]


def _claim(writer: Writer, items: Sequence[Item], layout: str, names: Names, salt: bytes) -> list[Item]:
    """Make the folder, or take one that an interrupted call left; the items that are not complete.

    Raises:
        RunError: it holds something else.
    """
    plan = writer.plan
    settings: dict[str, Any] = {
        "oncoseg": __version__,
        "source_layout": layout,
        "format": writer.to,
        "channels": list(plan.channels),
        "labels": dict(plan.labels),
        "consensus": plan.consensus,
        "readers": plan.readers,
        "names": names,
        "salt": _fingerprint(salt, "salt") if salt else None,
        "split": _fingerprint(salt, *(f"{item.part} {item.name}" for item in items if item.part)),
    }
    record = _read_record(writer.out / RECORD)
    before: dict[str, str] = record.pop("cases", {})
    if record != settings:
        new_folder(writer.out, "The output folder")
        before = {}
    now = {item.name: _fingerprint(salt, *_state(item.source)) for item in items}
    for item in items:
        for path in writer.paths(item):
            remove_leftovers(path.parent)
            if before.get(item.name) != now[item.name]:
                path.unlink(missing_ok=True)
    write_json(writer.out / RECORD, settings | {"cases": now})
    return [item for item in items if not all(path.is_file() for path in writer.paths(item))]


def _write_all(
    writer: Writer,
    todo: Sequence[Item],
    total: int,
    workers: int | None,
    memory_gib: float | None,
    progress: Progress | None,
) -> dict[str, str]:
    """Write the items; what was wrong with those that could not be written, by name."""
    failures: dict[str, str] = {}
    done = total - len(todo)
    if progress:
        progress(done, total)
    if not todo:
        return {}
    each_gib = (
        MEMORY_PER_WORKER_GIB + SOURCE_COPIES * max(_largest_bytes(item.source) for item in todo) / 2**30
    )
    count = processes_within(workers, memory_gib, each_gib, len(todo))
    for name, failure in run_each(writer, todo, count, "converting"):
        done += 1
        if failure is not None:
            failures[name] = failure
        if progress:
            progress(done, total)
    return failures


def _largest_bytes(case: Case) -> int:
    """Bytes of the largest channel or of all masks; 0 if they cannot be read, which writing will say."""
    try:
        images = max(io.voxel_bytes(ref) for ref in case.images.values())
        return max(images, sum(io.voxel_bytes(ref) for ref in case.masks))
    except DataError:
        return 0


def _state(case: Case) -> list[str]:
    """Where a case's files lie, how large they are and when they changed."""
    refs = [*case.images.values(), *case.masks]
    described = []
    for file in sorted({file for ref in refs for file in (*ref.files, *ref.grid_of)}):
        try:
            state = file.stat()
            described.append(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            described.append(str(file))
    return [
        *described,
        repr([(ref.component, ref.structures) for ref in refs]),
        repr(sorted(case.labels.items())),
    ]


def _fingerprint(salt: bytes, *what: str) -> str:
    return hmac.new(salt or b"oncoseg", json.dumps(what).encode(), hashlib.sha256).hexdigest()[:16]


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
