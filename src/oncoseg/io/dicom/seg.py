"""DICOM SEG: segments on planes of their own → masks on a series' grid (PS3.3, A.51, C.7.6.16 and C.8.20).

Every frame is put where its position and orientation say, whatever their order. The frames' grid must be the
series' own, up to flipped or exchanged axes and another extent: nothing is interpolated. Bit-packed BINARY,
FRACTIONAL and LABELMAP segmentations are read; pydicom decodes the pixels.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oncoseg.errors import DataError, GeometryError, OncosegError
from oncoseg.io.dicom.decoder import Decoder, Frame
from oncoseg.io.dicom.headers import numbers_of, quiet
from oncoseg.io.dicom.pixel_format import LARGEST_COMPRESSION, LARGEST_SLICE_PIXELS
from oncoseg.io.dicom.series import PixelFormat, Pixels, Series
from oncoseg.io.structures import (
    Drawing,
    Structure,
    StructureSet,
    check_frame_of_reference,
    distinct,
    empty,
    lps_to_voxels,
)

ALIGNMENT_TOLERANCE_VOXELS = 0.1
"""No pixel of a frame may lie further from a voxel's centre, along any axis of the series' grid."""

BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}
"""SegmentationType → bits that a pixel may take."""


class _Segmentation(NamedTuple):
    """What was read of a file; `segments` has the number of each frame's segment, or None in a label map."""

    path: Path
    dataset: Any
    kind: str
    segments: list[int | None]
    labels: dict[int, str]
    series_uids: tuple[str, ...]


class _Frame(NamedTuple):
    """A frame on the grid: the voxel of its first pixel, and the steps to the next in its row and column."""

    origin: np.ndarray
    across: np.ndarray
    down: np.ndarray


def open_seg(path: Path, fraction: float = 0.5) -> StructureSet:
    """Open a DICOM SEG.

    Args:
        path: the file.
        fraction: a voxel of a FRACTIONAL segment is inside from this share of MaximumFractionalValue on; in
            (0, 1].

    Raises:
        DataError: it cannot be read, is damaged, or places its frames on a slide rather than in a patient.
    """
    try:
        with quiet():
            parsed = _parse(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except DataError:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise DataError(f"{path} is a damaged DICOM SEG. Export or copy it again.") from error
    counts = Counter(parsed.segments)
    structures = [
        Structure(label, number, counts[number] + counts[None], "frames")
        for number, label in parsed.labels.items()
    ]

    def draw(structure: Structure, series: Series) -> Drawing:
        try:
            with quiet():
                frame = str(parsed.dataset.get("FrameOfReferenceUID") or "")
                check_frame_of_reference(frame, series, series.uid in parsed.series_uids)
                return _draw(parsed, structure.number, fraction, series)
        except (OncosegError, MemoryError):
            raise
        except Exception as error:  # values are taken apart only now
            raise DataError(f"{path} is a damaged DICOM SEG. Export or copy it again.") from error

    return StructureSet("SEG", distinct(structures), parsed.series_uids, draw)


def _parse(path: Path) -> _Segmentation:
    from pydicom import dcmread

    dataset = dcmread(path, force=True)
    kind = str(dataset.SegmentationType)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    _check_size(path, dataset, kind, len(groups))
    segments = [None if kind == "LABELMAP" else _segment(dataset, group) for group in groups]
    labels = {
        int(item.SegmentNumber): str(item.get("SegmentLabel") or f"segment {item.SegmentNumber}")
        for item in dataset.SegmentSequence
        if int(item.SegmentNumber) != 0  # a label map's background
    }
    series_uids = [str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or ()]
    return _Segmentation(path, dataset, kind, segments, labels, tuple(series_uids))


def _segment(dataset: Any, group: Any) -> int:
    return int(_functional_group(dataset, group, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _functional_group(dataset: Any, own: Any, name: str) -> Any:
    """A frame's functional group, or the one that all frames share.

    Raises:
        KeyError: there is none.
    """
    shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
    found = own.get(name) or shared[0].get(name)
    if not found:
        raise KeyError(name)
    return found[0]


def _check_size(path: Path, dataset: Any, kind: str, described: int) -> None:
    """Check what a file declares against what it holds, before memory is taken for it."""
    bits, rows, columns = (int(dataset[name].value) for name in ("BitsAllocated", "Rows", "Columns"))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if kind not in BITS or bits not in BITS[kind]:
        raise DataError(
            f"{path} is a segmentation of type {kind!r} with {bits} bits per pixel; expected BINARY with 1, "
            "FRACTIONAL with 8, or LABELMAP with 8 or 16."
        )
    if frames != described or not 0 < rows * columns <= LARGEST_SLICE_PIXELS:
        raise DataError(
            f"{path} declares {frames} frames of {columns}×{rows} pixels and describes {described}; expected "
            "each to be described. Export or copy it again."
        )
    there, needed = len(dataset.PixelData), math.ceil(frames * rows * columns * bits / 8)
    if there * (LARGEST_COMPRESSION if dataset.file_meta.TransferSyntaxUID.is_encapsulated else 1) < needed:
        raise DataError(
            f"{path} is truncated: {there} of {needed} bytes of its pixels are there. Copy it again."
        )


def _draw(parsed: _Segmentation, number: int, fraction: float, series: Series) -> Drawing:
    wanted = [index for index, segment in enumerate(parsed.segments) if segment in (number, None)]
    frames = [_place(parsed, index, series) for index in wanted]
    inside = empty(series)
    marked = outside = lost = 0
    for frame, plane in zip(frames, _planes(parsed, wanted, number, fraction), strict=True):
        if not plane.any():
            continue
        marked += 1
        cut = _put(inside, plane, frame)
        outside += cut == np.count_nonzero(plane)
        lost += cut
    if marked and outside == marked:
        raise GeometryError(
            f"None of the {marked} frames that mark something lies in the series; expected the series that "
            "the segmentation was made on."
        )
    remarks = []
    if not marked:
        remarks.append("no frame marks anything: nothing is inside")
    if lost:
        remarks.append(
            f"{lost} marked pixel(s) lie outside the series, {outside} of {marked} frames wholly: left out"
        )
    return Drawing(inside, tuple(remarks))


def _planes(
    parsed: _Segmentation, wanted: Sequence[int], number: int, fraction: float
) -> Iterator[np.ndarray]:
    """What the frames mark, each as bool with axes column, row."""
    least = 1.0
    if parsed.kind == "FRACTIONAL":
        least = fraction * int(parsed.dataset.get("MaximumFractionalValue") or 255)
    encapsulated = parsed.dataset.file_meta.TransferSyntaxUID.is_encapsulated
    for plane in (_decoded if encapsulated else _native)(parsed, wanted):
        yield (plane == number if parsed.kind == "LABELMAP" else plane >= least).T


def _native(parsed: _Segmentation, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """Uncompressed frames, axes row, column. One of single bits may begin within a byte (PS3.5, 8.1.1)."""
    data = np.frombuffer(parsed.dataset.PixelData, np.uint8)
    shape = int(parsed.dataset.Rows), int(parsed.dataset.Columns)
    pixels, bits = math.prod(shape), int(parsed.dataset.BitsAllocated)
    for index in wanted:
        start, stop = index * pixels * bits, (index + 1) * pixels * bits
        part = data[start // 8 : -(-stop // 8)]
        if bits == 1:
            part = np.unpackbits(part, bitorder="little")[start % 8 :][:pixels]
        yield part.view("u1" if bits <= 8 else "<u2").reshape(shape)


def _decoded(parsed: _Segmentation, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """Compressed frames, axes row, column; in a process of its own, as decoders may crash."""
    dataset = parsed.dataset
    bits = int(dataset.BitsAllocated)
    stored = PixelFormat(
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        little_endian=True,
        encapsulated=True,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=len(parsed.segments),
        bits_allocated=bits,
        bits_stored=bits,
        high_bit=bits - 1,
        signed=False,
    )
    pixels = Pixels(stored, int(dataset["PixelData"].file_tell), 1.0, 0.0)
    with closing(Decoder()) as decoder:
        for index in wanted:
            yield from decoder.numbers([Frame(parsed.path, index, pixels)])


def _place(parsed: _Segmentation, index: int, series: Series) -> _Frame:
    """Where a frame lies on the series' grid.

    Raises:
        DataError: it does not say where it lies.
        GeometryError: it lies on another grid.
    """
    position, orientation, spacing = _geometry(parsed, index)
    matrix = lps_to_voxels(series)
    steps = matrix[:3, :3] @ np.stack([orientation[:3] * spacing[1], orientation[3:] * spacing[0]], axis=1)
    origin = matrix[:3, :3] @ position + matrix[:3, 3]
    whole_steps, whole_origin = np.rint(steps), np.rint(origin)
    size = np.array([int(parsed.dataset.Columns), int(parsed.dataset.Rows)])
    off = np.abs(origin - whole_origin) + np.abs(steps - whole_steps) @ (size - 1)
    axes = np.abs(whole_steps)
    straight = (axes.sum(axis=0) == 1).all() and axes.sum(axis=1).max() == 1
    if not straight or off.max() > ALIGNMENT_TOLERANCE_VOXELS:
        raise GeometryError(_another_grid(position, orientation, spacing, size, series))
    return _Frame(whole_origin.astype(int), whole_steps[:, 0].astype(int), whole_steps[:, 1].astype(int))


def _geometry(parsed: _Segmentation, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position of the first pixel (LPS, mm), directions of row and column, distance of rows, of columns."""
    dataset = parsed.dataset
    own = dataset.PerFrameFunctionalGroupsSequence[index]
    found = []
    for group, keyword, count in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        try:
            numbers = numbers_of(_functional_group(dataset, own, group)[keyword].value, keyword, count)
        except (KeyError, DataError):
            numbers = None
        if numbers is None:
            raise DataError(
                f"{parsed.path} does not say where its frame {index + 1} lies in the patient: {keyword} is "
                "missing or damaged. Export it again."
            )
        found.append(np.array(numbers))
    return found[0], found[1], found[2]


def _another_grid(
    position: np.ndarray,
    orientation: np.ndarray,
    spacing: np.ndarray,
    size: np.ndarray,
    series: Series,
) -> str:
    def shown(numbers: Any) -> str:
        return ", ".join(f"{each:.4g}" for each in numbers)

    distances = series.spacing_mm
    directions = series.affine_ras[:3, :3].T / np.array(distances)[:, None] * [-1, -1, 1] + 0.0  # no −0
    first = series.affine_ras[:3, 3] * [-1, -1, 1] + 0.0
    return (
        "The segmentation lies on another grid than the series: its frames have "
        f"{size[0]}×{size[1]} pixels of {spacing[1]:.4g}×{spacing[0]:.4g} mm along "
        f"({shown(orientation[:3])}) and ({shown(orientation[3:])}), one with its first pixel at "
        f"({shown(position)}) mm; the series has {'×'.join(map(str, series.grid))} voxels of "
        f"{'×'.join(f'{each:.4g}' for each in distances)} mm along "
        f"{', '.join(f'({shown(each)})' for each in directions)}, from ({shown(first)}) mm on (LPS). "
        "Expected the series that it was made on, or one resampled onto its grid; nothing is interpolated."
    )


def _put(inside: np.ndarray, plane: np.ndarray, frame: _Frame) -> int:
    """Mark what a frame marks; returns how many of its marked pixels lie outside the grid."""
    axes = [int(np.flatnonzero(step)[0]) for step in (frame.across, frame.down)]
    through = 3 - sum(axes)
    marked = int(np.count_nonzero(plane))
    k = frame.origin[through]
    if not 0 <= k < inside.shape[through]:
        return marked
    target = np.moveaxis(inside, (*axes, through), (0, 1, 2))[:, :, k]
    source, parts = plane, []
    for number, (axis, step) in enumerate(zip(axes, (frame.across, frame.down), strict=True)):
        start, length = frame.origin[axis], plane.shape[number]
        if step[axis] < 0:
            source, start = np.flip(source, number), start - length + 1
        parts.append((slice(max(0, start), max(0, start + length)), slice(max(0, -start), None)))
    (to_u, from_u), (to_v, from_v) = parts
    target = target[to_u, to_v]
    source = source[from_u, from_v][: target.shape[0], : target.shape[1]]
    target |= source
    return marked - int(np.count_nonzero(source))
