"""Looking at every voxel of a data set before anyone trains on it: what is there, and what is wrong.

A broken file is a problem in the list, never a crash. The result is plain data; printing it is the
command line's work.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from oncoseg import plausibility
from oncoseg.datasets import DATASETS, open_dataset
from oncoseg.datasets.base import Case, Problem
from oncoseg.datasets.left_out import without_large
from oncoseg.errors import DataError, GeometryError
from oncoseg.io import ImageRef, read, read_channels, remarks, voxel_bytes
from oncoseg.io.checks import NonFiniteError
from oncoseg.plausibility import Doubt
from oncoseg.processes import processes_within
from oncoseg.volume import MM3_PER_ML, Volume, check_same_grid, to_canonical

MAJORITY = 0.5
"""Share of the readers from which a voxel counts as marked by the majority; ties count."""

LARGEST_LABEL = 65535
"""Labels above it, or below 0, are counted the slow way."""

COUNTED_AT_A_TIME = 1 << 22
"""Voxels, as numpy takes eight bytes for each while it counts."""

COPIES = 3.0
"""Memory for looking at a case, in times of its voxels, images and masks together."""

SMALLEST_GIB = 0.01
"""What looking at any case takes."""

MOST_THREADS = 8
"""More do not help, as they wait for the disk, and each holds one case's volumes."""

SHOWN = 5
"""How many cases or values a message lists."""


@dataclass(frozen=True)
class LabelCount:
    """How much of a case one label marks.

    Attributes:
        value: in the mask; with several readers, marked by at least `MAJORITY` of them.
        name: what it marks, None for a value that the data set does not declare.
        voxels: number of voxels.
        volume_ml: None where the spacing is unknown.
    """

    value: int
    name: str | None
    voxels: int
    volume_ml: float | None


@dataclass(frozen=True)
class CaseRow:
    """One case as found on disk.

    Attributes:
        id: the case.
        patient: whose it is.
        site: where it was made, if known.
        channels: those that could be read, in the data set's order.
        grid: voxels along i, j, k of the first channel; None when none could be read.
        spacing_mm: voxel size along i, j, k; None when unknown.
        readers: masks that could be read.
        readers_marking: of those, the ones that mark anything.
        labels: one entry per value in the masks, without background.
        union_voxels: marked by any reader, whatever the label; None without a mask.
        majority_voxels: marked by at least `MAJORITY` of the readers; None without a mask.
        foreground_slices: axial slices that hold a voxel marked by any reader; None without a mask.
        target: the case's class, if known.
    """

    id: str
    patient: str
    site: str | None
    channels: tuple[str, ...]
    grid: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    readers: int
    readers_marking: int = 0
    labels: tuple[LabelCount, ...] = ()
    union_voxels: int | None = None
    majority_voxels: int | None = None
    foreground_slices: int | None = None
    target: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What a data set holds and what is wrong with it.

    Attributes:
        layout: name in DATASETS.
        title: the layout in one line.
        case_count: number of cases.
        patient_count: number of patients.
        cases: sorted by id.
        problems: those of the folders first, then those of the voxels.
        remarks: what is worth knowing and no problem.
    """

    layout: str
    title: str
    case_count: int
    patient_count: int
    cases: tuple[CaseRow, ...]
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, tuples, texts and numbers, ready for JSON."""
        return asdict(self)


MOST_LABELS = 255
"""A mask with more values is said to be an image."""


@dataclass(frozen=True)
class _Looked:
    """A row with its problems, the content hash of each channel, and what is doubtful about the images."""

    row: CaseRow
    problems: list[Problem]
    hashes: dict[str, str]
    doubts: list[Doubt]


def inspect_dataset(
    path: Path,
    layout: str | None = None,
    channels: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    scanning: Callable[[int, int], None] | None = None,
    max_slices: int | None = None,
) -> Inspection:
    """Read every voxel of a data set and report.

    Args:
        path: the data set's folder.
        layout: a name in DATASETS; None recognises it.
        channels: of a DICOM folder, channel → what its series are called; see `open_dataset`.
        progress: called with the cases done and their total after each case.
        workers: cases read at a time, each in a thread; None takes one per processor, at most
            `MOST_THREADS`, and no more than fit into memory, judged by the first case.
        scanning: before, called with the files looked through and their total; see `open_dataset`.
        max_slices: leave out cases of more axial slices, as a recipe's field does; each is a problem.

    Raises:
        DataError: the folder is missing, empty or of no known layout.
    """
    scan = without_large(open_dataset(path, layout, channels=channels, progress=scanning), max_slices)
    looked: list[_Looked] = []
    stopping = Event()
    if progress:
        progress(0, len(scan.cases))
    with ThreadPoolExecutor(workers or _threads(scan.cases)) as pool:
        try:
            for one in pool.map(lambda case: _look(case, stopping), scan.cases):
                looked.append(one)
                if progress:
                    progress(len(looked), len(scan.cases))
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    rows = tuple(one.row for one in looked)
    problems = [*scan.problems, *(problem for one in looked for problem in one.problems)]
    problems += [*_duplicates(looked), *_fewer_readers(rows), *_empty_majorities(rows)]
    patients = len({row.patient for row in rows})
    title = DATASETS[scan.layout].title
    remarks = (*scan.remarks, *_doubtful(looked))
    return Inspection(scan.layout, title, len(rows), patients, rows, tuple(problems), remarks)


def _threads(cases: Sequence[Case]) -> int:
    """How many cases to look at together, of such a size as the first."""
    refs = [*cases[0].images.values(), *cases[0].masks] if cases else []
    try:
        voxels_gib = sum(map(voxel_bytes, refs)) / 2**30
    except DataError:
        voxels_gib = 0.0  # it is told of when its turn comes
    return processes_within(None, None, max(COPIES * voxels_gib, SMALLEST_GIB), MOST_THREADS)


def _look(case: Case, stopping: Event) -> _Looked:
    images, image_problems = _read_images(case, stopping)
    masks, mask_problems = _read_masks(case, stopping)
    first = dict(list(images.items())[:1])
    constant = [channel for channel, volume in images.items() if volume.array.min() == volume.array.max()]
    usable = [mask for mask in masks.values() if mask.grid == next(iter(masks.values())).grid]
    _check_going_on(stopping)
    counted = [_count_values(mask.array) for mask in usable]
    _check_going_on(stopping)
    problems = [
        *(*image_problems, *mask_problems),
        *(*_grid_problems(case.id, images), *_grid_problems(case.id, first | masks)),
        *(_constant(case.id, channel, images[channel]) for channel in constant),
        *_label_problems(case, counted),
        *_odd_headers(case),
    ]
    doubts: list[Doubt] = []
    if first:
        voxels = {channel: volume.array for channel, volume in images.items() if channel not in constant}
        doubts = plausibility.doubts(plausibility.look(next(iter(first.values())), voxels), True)
    hashes = {channel: _content_hash(images[channel]) for channel in images if channel not in constant}
    return _Looked(_row(case, images, usable, counted), problems, hashes, doubts)


def _read_images(case: Case, stopping: Event) -> tuple[dict[str, Volume], list[Problem]]:
    """The channels that can be read; those that share files are read at once."""
    groups: dict[tuple[Path, ...], dict[str, ImageRef]] = {}
    for channel, ref in case.images.items():
        groups.setdefault(ref.files, {})[channel] = ref
    images: dict[str, Volume] = {}
    problems = []
    for refs in groups.values():
        _check_going_on(stopping)
        try:
            joined = read_channels(refs)
        except DataError as error:
            problems.append(_unreadable(case.id, " and ".join(refs), error))
            continue
        images |= {channel: joined.with_array(joined.array[n : n + 1]) for n, channel in enumerate(refs)}
    return {channel: images[channel] for channel in case.images if channel in images}, problems


def _read_masks(case: Case, stopping: Event) -> tuple[dict[str, Volume], list[Problem]]:
    masks: dict[str, Volume] = {}
    problems = []
    for number, ref in enumerate(case.masks):
        _check_going_on(stopping)
        try:
            mask = read(ref)
        except DataError as error:
            problems.append(_unreadable(case.id, f"mask {number}", error))
            continue
        if mask.array.dtype.kind == "f" and (mask.array != np.floor(mask.array)).any():
            text = f"{case.id}: mask {number} holds fractions; expected whole numbers. Threshold it first."
            problems.append(Problem("fractional-mask", case.id, text))
            continue
        masks[f"mask {number}"] = mask
    return masks, problems


def _check_going_on(stopping: Event) -> None:
    """Leave a case of which nobody waits for the result any more: the program ends only after its threads."""
    if stopping.is_set():
        raise CancelledError


def _unreadable(case_id: str, what: str, error: DataError) -> Problem:
    kinds = {NonFiniteError: "not-finite", GeometryError: "grid-mismatch"}
    return Problem(
        kinds.get(type(error), "unreadable"), case_id, f"{case_id}: {what} cannot be used. {error}"
    )


def _grid_problems(case_id: str, volumes: Mapping[str, Volume]) -> list[Problem]:
    if not volumes:
        return []
    try:
        check_same_grid(volumes)
    except GeometryError as error:
        return [Problem("grid-mismatch", case_id, f"{case_id}: {error}")]
    return []


def _constant(case_id: str, channel: str, volume: Volume) -> Problem:
    text = f"{case_id}: {channel} has the value {volume.array.flat[0]} everywhere; expected an image."
    return Problem("constant-image", case_id, f"{text} Export it again, or leave the case out.")


def _label_problems(case: Case, counted: list[dict[int, int]]) -> list[Problem]:
    if not counted:
        return []
    values = sorted(set().union(*counted) - {0})
    if not values:
        text = f"{case.id}: the mask is empty, no reader marked a voxel; check that it belongs to this case."
        return [Problem("empty-mask", case.id, text)]
    unexpected = [value for value in values if value not in case.labels]
    if not unexpected:
        return []
    declared = ", ".join(map(str, (0, *case.labels)))
    text = f"{case.id}: the mask holds the value {_shown(unexpected)}; expected only {declared}."
    if len(values) > MOST_LABELS:
        text += f" An image has so many values ({len(values)}): check that image and mask are not exchanged."
    else:
        text += " Relabel it, name the value where the data set names its labels (such as labels.json beside "
        text += "a table), or check that it is the right file."
    return [Problem("unexpected-label", case.id, text)]


def _odd_headers(case: Case) -> list[Problem]:
    found: dict[str, list[str]] = {}
    refs = dict(case.images) | {f"mask {number}": ref for number, ref in enumerate(case.masks)}
    for name, ref in refs.items():
        try:
            for remark in remarks(ref):
                found.setdefault(remark, []).append(name)
        except DataError:
            continue  # reading it has said so
    return [
        Problem("odd-header", case.id, f"{case.id}: {', '.join(names)}: {remark}.")
        for remark, names in found.items()
    ]


def _row(
    case: Case, images: Mapping[str, Volume], masks: list[Volume], counted: list[dict[int, int]]
) -> CaseRow:
    grid = next(iter(images.values()), None)
    row = CaseRow(
        id=case.id,
        patient=case.patient,
        site=case.site,
        target=case.target,
        channels=tuple(images),
        grid=grid.grid if grid else None,
        spacing_mm=grid.spacing_mm if grid and grid.spacing_known else None,
        readers=len(masks),
    )
    if not masks:
        return row
    votes = _votes(mask.array != 0 for mask in masks)
    axial, _ = to_canonical(masks[0].with_array(votes > 0))
    return replace(
        row,
        readers_marking=sum(bool(mask.array.any()) for mask in masks),
        labels=_labels(case, masks, counted),
        union_voxels=int(np.count_nonzero(votes)),
        majority_voxels=int(np.count_nonzero(votes >= MAJORITY * len(masks))),
        foreground_slices=int(axial.array.any(axis=(0, 1, 2)).sum()),
    )


def _labels(case: Case, masks: list[Volume], counted: list[dict[int, int]]) -> tuple[LabelCount, ...]:
    counts = dict(counted[0])
    if len(masks) > 1:
        counts = {value: _majority_count(masks, value) for value in set().union(*counted) - {0}}
    volume_ml = _voxel_ml(masks[0])
    return tuple(
        LabelCount(value, case.labels.get(value), voxels, None if volume_ml is None else voxels * volume_ml)
        for value, voxels in sorted(counts.items())
        if value != 0
    )


def _majority_count(masks: list[Volume], value: int) -> int:
    return int(np.count_nonzero(_votes(mask.array == value for mask in masks) >= MAJORITY * len(masks)))


def _votes(marked: Iterable[np.ndarray]) -> np.ndarray:
    """How many of the readers marked each voxel; summed one by one, in the memory of one more mask."""
    first, *others = marked
    votes = first.astype(np.uint8)
    for mask in others:
        votes += mask
    return votes


def _voxel_ml(volume: Volume) -> float | None:
    if not volume.spacing_known:
        return None
    return float(abs(np.linalg.det(volume.affine_ras[:3, :3]))) / MM3_PER_ML


def _count_values(array: np.ndarray) -> dict[int, int]:
    """Whole value → number of voxels."""
    if array.min() < 0 or array.max() > LARGEST_LABEL:
        values, counts = np.unique(array, return_counts=True)
        return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    flat = array.ravel(order="K")
    blocks = (flat[start : start + COUNTED_AT_A_TIME] for start in range(0, flat.size, COUNTED_AT_A_TIME))
    counts = np.zeros(LARGEST_LABEL + 1, np.int64)
    for block in blocks:
        counts += np.bincount(block.astype(np.uint16), minlength=LARGEST_LABEL + 1)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _content_hash(volume: Volume) -> str:
    """Hash of the voxels and their grid's shape, whatever their layout in memory."""
    digest = hashlib.blake2b(f"{volume.array.dtype}{volume.grid}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(volume.array.T).data)
    return digest.hexdigest()


def _duplicates(looked: list[_Looked]) -> list[Problem]:
    places: dict[str, list[tuple[str, str]]] = {}
    for one in looked:
        for channel, digest in one.hashes.items():
            places.setdefault(digest, []).append((one.row.id, channel))
    return [
        Problem(
            "duplicate-image",
            found[0][0],
            f"{_shown([f'{case} {channel}' for case, channel in found])} hold exactly the same voxels; "
            "expected different images. Check which is right: a copy adds no information, and between "
            "patients it leaks into the test set.",
        )
        for found in places.values()
        if len(found) > 1
    ]


def _doubtful(looked: list[_Looked]) -> list[str]:
    """What is doubtful about images: of each kind and channel the first case, and how many there are."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in looked:
        for doubt in one.doubts:
            kinds.setdefault((doubt.kind, doubt.text.partition(":")[0]), []).append(
                f"{one.row.id}: {doubt.text}"
            )
    return [
        found[0] + (f" (the first of {len(found)} such cases)" if len(found) > 1 else "")
        for found in kinds.values()
    ]


def _fewer_readers(rows: tuple[CaseRow, ...]) -> list[Problem]:
    most = max((row.readers for row in rows), default=0)
    return [
        Problem(
            "fewer-readers",
            row.id,
            f"{row.id}: {row.readers} readable mask(s), while other cases have {most}; the consensus is "
            "taken over fewer readers.",
        )
        for row in rows
        if 0 < row.readers < most
    ]


def _empty_majorities(rows: tuple[CaseRow, ...]) -> list[Problem]:
    empty = [row.id for row in rows if row.union_voxels and row.majority_voxels == 0]
    if not empty:
        return []
    text = f"In {len(empty)} of {len(rows)} cases some reader marks a voxel but the majority none; a "
    text += f"majority consensus takes them as healthy: {_shown(empty)}."
    return [Problem("empty-majority", None, text)]


def _shown(values: list[Any]) -> str:
    text = ", ".join(str(value) for value in values[:SHOWN])
    return text if len(values) <= SHOWN else f"{text} and {len(values) - SHOWN} more"
