"""RTSTRUCT: hand-drawn contours with the voxels they must give; plastimatch and a publisher's masks."""

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.annotations import open_structures, read_structures, series_of_files
from oncoseg.io.dicom import rtstruct
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series
from oncoseg.io.structures import Drawing
from tiny_dicom import AXIAL, Drawn, Geometry, image_uid, write_ct, write_rtstruct

GRID = (9, 7, 5)

SQRT = math.sqrt(0.5)
GEOMETRIES = {
    "axial": AXIAL,
    "axial, feet first": Geometry(step_mm=(0, 0, -2.5)),
    "sagittal": Geometry(row=(0, 1, 0), column=(0, 0, -1), step_mm=(-3, 0, 0)),
    "oblique": Geometry(row=(SQRT, SQRT, 0), column=(0.5, -0.5, -SQRT), step_mm=(-1.5, 1.5, -1.5 * 2 * SQRT)),
    "tilted gantry": Geometry(step_mm=(0, 0.5, 2.5)),
}


def box(k: float, low: tuple[float, float], high: tuple[float, float]) -> list[tuple[float, float, float]]:
    """Corners in voxel coordinates."""
    (i, j), (to_i, to_j) = low, high
    return [(i, j, k), (to_i, j, k), (to_i, to_j, k), (i, to_j, k)]


Draw = Callable[..., Drawing]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes contours (in voxel coordinates) as an RTSTRUCT and reads them on a CT of their geometry."""
    made = 0

    def read(*contours: Any, geometry: Geometry = AXIAL, name: str = "GTV", **options: Any) -> Drawing:
        nonlocal made
        made += 1
        files = write_ct(tmp_path / f"ct{made}", np.zeros(GRID), geometry)
        in_mm = [
            each._replace(points_mm=geometry.points(each.points_mm))
            if isinstance(each, Drawn)
            else Drawn(geometry.points(each))
            for each in contours
        ]
        path = write_rtstruct(tmp_path / f"rs{made}.dcm", {name: in_mm}, **options)
        return read_structures(path, series_of_files(files))[name]

    return read


def voxels(drawing: Drawing) -> set[tuple[int, ...]]:
    return {tuple(index) for index in np.argwhere(drawing.inside).tolist()}


def block(i: range, j: range, *k: int) -> set[tuple[int, ...]]:
    return {(x, y, z) for x in i for y in j for z in k}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_voxels_whose_centre_is_inside_on_any_orientation(draw: Draw, geometry: Geometry) -> None:
    # the series is sorted along its normal, which for some of these runs against the files
    backwards = np.dot(np.cross(geometry.row, geometry.column), geometry.step_mm) < 0
    found = draw(
        Drawn(box(1, (1.5, 0.6), (4.4, 3.4)), [image_uid(1)]),
        Drawn(box(3, (5.5, 3.5), (8.2, 4.5)), [image_uid(3)]),
        Drawn(box(2, (2.5, 2.5), (3.5, 3.5)), [image_uid(2)]),
        geometry=geometry,
    )
    k = {1: 3, 3: 1, 2: 2} if backwards else {1: 1, 3: 3, 2: 2}
    expected = block(range(2, 5), range(1, 4), k[1]) | block(range(6, 9), range(4, 5), k[3])
    assert voxels(found) == expected | {(3, 3, k[2])}
    assert found.remarks == ()


def test_edges_through_voxel_centres_are_half_open_in_either_direction(draw: Draw) -> None:
    square = box(2, (1, 2), (4, 5))
    assert voxels(draw(square)) == voxels(draw(square[::-1])) == block(range(1, 4), range(2, 5), 2)


def test_contours_within_contours_are_holes_and_are_remarked_on(draw: Draw) -> None:
    ring = draw(box(2, (0.5, 0.5), (6.5, 5.5)), box(2, (2.5, 1.5), (4.5, 4.5)))
    assert voxels(ring) == block(range(1, 7), range(1, 6), 2) - block(range(3, 5), range(2, 5), 2)
    assert any("in 1 slice(s) contours overlap" in remark for remark in ring.remarks)
    kind = "CLOSEDPLANAR_XOR"
    meant = draw(
        Drawn(box(2, (0.5, 0.5), (6.5, 5.5)), kind=kind), Drawn(box(2, (2.5, 1.5), (4.5, 4.5)), kind=kind)
    )
    assert voxels(meant) == voxels(ring)
    assert not any("overlap" in remark for remark in meant.remarks)
    keyhole = box(2, (0.5, 0.5), (6.5, 5.5))
    keyhole += [keyhole[0], *box(2, (2.5, 1.5), (4.5, 4.5)), (2.5, 1.5, 2)]
    assert voxels(draw(keyhole)) == voxels(ring)


def test_two_contours_beside_each_other_are_both_drawn(draw: Draw) -> None:
    found = draw(box(2, (0.5, 0.5), (2.5, 2.5)), box(2, (4.5, 0.5), (6.5, 2.5)))
    assert voxels(found) == block(range(1, 3), range(1, 3), 2) | block(range(5, 7), range(1, 3), 2)
    assert not any("overlap" in remark for remark in found.remarks)


def test_a_contour_that_is_there_twice_does_not_cancel_itself(draw: Draw) -> None:
    square = box(2, (1, 2), (4, 5))
    found = draw(square, square)
    assert voxels(found) == block(range(1, 4), range(2, 5), 2)
    assert "1 contour(s) are there twice: taken once" in found.remarks
    xor = Drawn(square, kind="CLOSEDPLANAR_XOR")
    assert voxels(draw(xor, xor)) == set()


def test_points_and_open_lines_enclose_nothing(draw: Draw) -> None:
    found = draw(
        box(2, (1, 2), (4, 5)),
        Drawn([(1, 1, 1)], kind="POINT"),
        Drawn(box(1, (1, 1), (5, 5)), kind="OPEN_PLANAR"),
        Drawn(box(1, (1, 1), (5, 5)), kind="OPEN_PLANAR"),
        Drawn([(1, 1, 2), (5, 5, 2)]),
    )
    assert voxels(found) == block(range(1, 4), range(2, 5), 2)
    assert "1 contour(s) of type POINT enclose nothing: ignored" in found.remarks
    assert "2 contour(s) of type OPEN_PLANAR enclose nothing: ignored" in found.remarks
    assert "1 contour(s) of fewer than 3 points: ignored" in found.remarks


def test_position_decides_whatever_a_contour_refers_to(draw: Draw) -> None:
    at = box(2, (1, 2), (4, 5))
    expected = block(range(1, 4), range(2, 5), 2)
    for images, words in (
        ([], "refer to no image"),
        ([image_uid(3)], "refer to another slice than the one they lie in"),
        (["9.9.9"], "refer to images that are not in the series"),
    ):
        found = draw(Drawn(at, images))
        assert voxels(found) == expected
        assert f"1 contour(s) {words}: placed by their position" in found.remarks
    assert draw(Drawn(at, ["9.9.9", image_uid(2)])).remarks == ()


def test_contours_beyond_the_series_are_counted_with_their_distance(draw: Draw) -> None:
    found = draw(*(box(k, (1, 2), (4, 5)) for k in (-3, 0, 1, 5, 6)))
    assert voxels(found) == block(range(1, 4), range(2, 5), 0, 1)
    assert (
        "3 contour(s) lie before the first or after the last slice, up to 7.5 mm away: they are left out"
        in (found.remarks)
    )


def test_a_structure_wholly_elsewhere_is_refused(draw: Draw) -> None:
    with pytest.raises(GeometryError, match="None of its 2 contours lies in the series"):
        draw(box(9, (1, 2), (4, 5)), box(10, (1, 2), (4, 5)))


def test_nothing_is_drawn_between_slices(draw: Draw) -> None:
    found = draw(*(Drawn(box(k, (1, 2), (4, 5)), [image_uid(k)]) for k in (0, 2, 4)))
    assert voxels(found) == block(range(1, 4), range(2, 5), 0, 2, 4)
    assert found.remarks == (
        "2 of the 5 slices from its first to its last have no contour: they stay empty, as nothing is drawn "
        "between slices",
    )


def test_contours_between_slices_or_across_them_are_refused(draw: Draw) -> None:
    assert voxels(draw(box(2.19, (1, 2), (4, 5)))) == block(range(1, 4), range(2, 5), 2)
    with pytest.raises(GeometryError, match=r"1 of 2 contours have points up to 0\.55 mm .* at most 0\.5 mm"):
        draw(box(2, (1, 2), (4, 5)), box(2.22, (1, 2), (4, 5)))
    with pytest.raises(GeometryError, match=r"up to 5 mm from the plane"):
        draw([(3, 1, 0), (3, 5, 0), (3, 5, 4), (3, 1, 4)])  # drawn on sagittal planes


def test_what_leaves_the_image_is_cut(draw: Draw) -> None:
    found = draw(box(2, (-3, 2), (2.5, 20)))
    assert voxels(found) == block(range(3), range(2, 7), 2)
    assert "1 contour(s) reach beyond the edge of the images: cut there" in found.remarks


def test_a_structure_without_contours_is_empty_and_says_so(draw: Draw) -> None:
    found = draw()
    assert voxels(found) == set()
    assert found.remarks == ("it has no contour that encloses anything: nothing is inside",)


def test_another_frame_of_reference_is_refused_unless_the_series_is_named(draw: Draw) -> None:
    square = box(2, (1, 2), (4, 5))
    with pytest.raises(GeometryError, match="different frames of reference"):
        draw(square, frame="1.1", series="9.9")
    assert voxels(draw(square, frame="1.1"))  # names the series
    assert voxels(draw(Drawn(square, [image_uid(2)]), frame="1.1", series="9.9"))  # names its images
    assert voxels(draw(square, series="9.9"))  # shares the frame of reference


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1\\2\\3\\4\\5\\6\\7\\8\\9\\10", "got 10 numbers"),
        (b"1\\2\\3\\4\\nan\\6\\7\\8\\9", "triples of finite coordinates"),
        (b"1\\2\\3\\4\\1e300\\6\\7\\8\\9", "triples of finite coordinates"),
        (b"1\\2\\3\\4\\five\\6\\7\\8\\9", "cannot be read"),
        (b"1\\2\\3\\4\\\\6\\7\\8\\9 ", "cannot be read"),
    ],
)
def test_damaged_coordinates_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    series = series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID)))
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [Drawn(AXIAL.points(box(2, (1, 2), (4, 5))))]})
    good = dcmread(path).ROIContourSequence[0].ContourSequence[0].get_item("ContourData")
    assert isinstance(good, RawDataElement)
    stored = path.read_bytes()
    assert stored.count(good.value) == 1
    # same length, so that nothing else of the file changes
    path.write_bytes(stored.replace(good.value, data + b" " * (len(good.value) - len(data))))
    with pytest.raises(DataError, match=words):
        read_structures(path, series)


def test_a_contour_of_endless_points_and_numbers_used_twice_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID)))
    square = Drawn(AXIAL.points(box(2, (1, 2), (4, 5))))
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [square], "PTV": [square]})
    monkeypatch.setattr(rtstruct, "LARGEST_CONTOUR_BYTES", 20)
    with pytest.raises(DataError, match="has a contour that cannot be read"):
        read_structures(path, series)
    dataset = dcmread(path)
    dataset.StructureSetROISequence[1].ROINumber = dataset.StructureSetROISequence[0].ROINumber
    dataset.save_as(path)
    with pytest.raises(DataError, match="is a damaged RTSTRUCT"):
        read_structures(path, series)


def test_truncated_and_scrambled_files_are_data_errors(tmp_path: Path) -> None:
    series = series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID)))
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [Drawn(AXIAL.points(box(2, (1, 2), (4, 5))))]})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole[: rng.integers(200, len(whole))])
        for at in rng.integers(150, len(damaged), rng.integers(0, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_structures(path, series)
        except DataError:  # anything else fails the test
            refused += 1
    assert refused > 100


def test_structures_are_listed_with_their_contours(tmp_path: Path) -> None:
    square = Drawn(AXIAL.points(box(2, (1, 2), (4, 5))))
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV-1": [square] * 3, "Lung, left": [square], "empty": []})
    opened = open_structures(path)
    assert [(each.name, each.parts, each.unit) for each in opened.structures] == [
        ("GTV-1", 3, "contours"),
        ("Lung, left", 1, "contours"),
        ("empty", 0, "contours"),
    ]
    assert (opened.kind, opened.series_uids) == ("RTSTRUCT", ("1.2.3.1",))


REAL = {
    "nsclc": ("nsclc_rtstruct/LUNG1-001/image", "nsclc_rtstruct/LUNG1-001/mask_rtstruct/1-1.dcm"),
    "sarcoma CT": ("sts_ct_mr/dicom/STS_002/CT/image", "sts_ct_mr/dicom/STS_002/CT/mask/RS.dcm"),
    "sarcoma MR": ("sts_ct_mr/dicom/STS_002/MR_T1/image", "sts_ct_mr/dicom/STS_002/MR_T1/mask/RS.dcm"),
}


def real(shared_data: Path, name: str) -> tuple[Series, Path]:
    images, path = REAL[name]
    (series,) = find_series(shared_data / images, salt=b"not kept")
    return series, shared_data / path


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_structures_are_those_of_plastimatch_up_to_its_holes(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    series, path = real(shared_data, name)
    images = shared_data / REAL[name][0]
    convert = ["plastimatch", "convert", "--input", path, "--referenced-ct", images]
    subprocess.run(
        [*convert, "--output-prefix", tmp_path, "--prefix-format", "nii.gz"], check=True, capture_output=True
    )
    for structure, drawing in read_structures(path, series).items():
        image = nib.load(tmp_path / f"{structure}.nii.gz")
        np.testing.assert_allclose(image.affine, series.affine_ras, atol=1e-3)
        theirs = np.asarray(image.dataobj) > 0
        # where a contour lies within another, plastimatch fills both: up to 509 voxels of a lung
        holes = any("overlap" in remark for remark in drawing.remarks)
        assert holes == structure.startswith("Lung")
        assert dice(drawing.inside, theirs) > (0.9994 if holes else 0.9999)


@pytest.mark.real_data
@pytest.mark.parametrize("sequence", ["CT", "MR_T1"])
def test_a_real_tumour_is_its_publishers_mask_voxel_by_voxel(shared_data: Path, sequence: str) -> None:
    series, path = real(shared_data, f"sarcoma {sequence[:2]}")
    image = nib.load(shared_data / f"sts_ct_mr/nifti/STS_002/{sequence}_mask.nii.gz")
    onto = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.io_orientation(series.affine_ras)
    )
    expected = image.as_reoriented(onto)
    np.testing.assert_allclose(expected.affine, series.affine_ras, atol=1e-3)
    (drawing,) = read_structures(path, series).values()
    np.testing.assert_array_equal(drawing.inside, np.asarray(expected.dataobj) > 0)
    assert drawing.inside.sum() == 17090
    assert drawing.remarks == (
        "16 contour(s) refer to images that are not in the series: placed by their position",
    )


@pytest.mark.real_data
def test_real_contours_on_missing_slices_are_reported(shared_data: Path) -> None:
    series, path = real(shared_data, "nsclc")
    drawings = read_structures(path, series)
    assert {name: each.inside.sum() for name, each in drawings.items()} == {
        "GTV-1": 54636,
        "Spinal-Cord": 4902,
        "Lung-Left": 384598,
        "Lung-Right": 489597,
    }
    assert drawings["GTV-1"].remarks == ()
    left_out = "contour(s) lie before the first or after the last slice, up to"
    assert drawings["Spinal-Cord"].remarks == (f"51 {left_out} 96 mm away: they are left out",)
    assert f"67 {left_out} 105 mm away: they are left out" in drawings["Lung-Left"].remarks


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["invalid_reference_rt", "non_existent_reference_rt"])
def test_real_files_with_broken_references_are_read_by_position(shared_data: Path, name: str) -> None:
    folder = shared_data / "dicom_seg_rtstruct_small/rt_utils"
    (series,) = find_series(folder, salt=b"not kept")
    drawings = read_structures(folder / f"{name}.dcm", series)
    assert [each.inside.sum() for each in drawings.values()] == [4976, 3697, 4519, 6954]
    for drawing in drawings.values():
        assert (
            "1 contour(s) lie before the first or after the last slice, up to 5 mm away: they are left out"
            in (drawing.remarks)
        )


def test_a_structure_of_far_too_many_points_is_refused(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [box(k, (1, 1), (4, 4)) for k in (1, 2)]
    monkeypatch.setattr(rtstruct, "MOST_POINTS", 8)
    assert draw(*boxes).inside.any()
    monkeypatch.setattr(rtstruct, "MOST_POINTS", 7)
    with pytest.raises(DataError, match="has a structure of more than 7 points"):
        draw(*boxes)


def test_overlaps_of_very_many_contours_are_not_looked_for(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [box(1, (1, 1), (4, 4)), box(1, (3, 3), (6, 5)), box(2, (1, 1), (4, 4))]
    assert any("overlap or lie within others" in remark for remark in draw(*boxes).remarks)
    monkeypatch.setattr(rtstruct, "MOST_COMPARED", 1)
    found = draw(*boxes)
    assert "its 2 contours are too many to look for overlaps" in found.remarks
    assert not any("overlap or lie within others" in remark for remark in found.remarks)
