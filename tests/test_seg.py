"""DICOM SEG: frames packed by hand and by highdicom, read back exactly; dcmqi as an independent reader."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless
from scipy.spatial import KDTree

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.annotations import open_structures, read_structures, series_of_files
from oncoseg.io.dicom.seg import open_seg
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series
from test_rtstruct import GEOMETRIES
from tiny_dicom import AXIAL, Geometry, write_ct, write_seg

GRID = (5, 3, 4)

FRAME_A = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 0, 1]])
FRAME_B = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
"""Pixels j i of 3×5: 15 bits, so that the second frame begins within a byte."""


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID)))


def at(k: float, i: float = 0, j: float = 0) -> list[float]:
    position: list[float] = AXIAL.points([(i, j, k)])[0].tolist()
    return position


def test_frames_are_unpacked_bit_by_bit_and_placed_by_their_position(tmp_path: Path, series: Series) -> None:
    frames = [(2, FRAME_B, at(3)), (1, FRAME_A, at(2)), (1, FRAME_B, at(0)), (2, FRAME_A, at(2))]
    path = write_seg(tmp_path / "seg.dcm", frames, ["tumour", "oedema"])
    found = read_structures(path, series)
    expected = {name: np.zeros(GRID, bool) for name in ("tumour", "oedema")}
    expected["tumour"][..., 2], expected["tumour"][..., 0] = FRAME_A.T, FRAME_B.T
    expected["oedema"][..., 3], expected["oedema"][..., 2] = FRAME_B.T, FRAME_A.T  # they overlap in slice 2
    assert list(found) == ["tumour", "oedema"]
    for name, drawing in found.items():
        np.testing.assert_array_equal(drawing.inside, expected[name])
        assert drawing.remarks == ()


def test_nine_pixels_per_frame(tmp_path: Path) -> None:
    series = series_of_files(write_ct(tmp_path / "ct", np.zeros((3, 3, 16))))
    rng = np.random.default_rng(3)
    truth = rng.random((3, 3, 16)) < 0.4
    frames = [(1, truth[..., k].T, at(k)) for k in rng.permutation(16)]
    found = read_structures(write_seg(tmp_path / "seg.dcm", frames, ["dots"]), series)
    np.testing.assert_array_equal(found["dots"].inside, truth)


@pytest.mark.parametrize(("fraction", "least"), [(0.5, 100), (0.25, 50), (1.0, 200)])
def test_a_fraction_is_inside_from_half_of_the_largest_value_on(
    tmp_path: Path, series: Series, fraction: float, least: int
) -> None:
    values = np.array([[0, 1, 49, 50, 51], [99, 100, 101, 199, 200], [0, 200, 0, 100, 0]])
    path = write_seg(tmp_path / "seg.dcm", [(1, values, at(1))], ["tumour"], kind="FRACTIONAL")
    opened = open_seg(path, fraction)
    inside = opened.draw(opened.structures[0], series).inside
    np.testing.assert_array_equal(inside[..., 1], least <= values.T)
    assert not inside[..., [0, 2, 3]].any()


def test_a_label_map_holds_the_numbers_of_its_segments(tmp_path: Path, series: Series) -> None:
    numbers = np.array([[0, 1, 1, 2, 2], [0, 0, 0, 0, 2], [1, 0, 0, 0, 0]])
    frames = [(0, numbers, at(1)), (0, numbers == 1, at(3))]
    path = write_seg(tmp_path / "seg.dcm", frames, ["liver", "tumour", "vein"], kind="LABELMAP")
    found = read_structures(path, series)
    np.testing.assert_array_equal(found["liver"].inside[..., 1], numbers.T == 1)
    np.testing.assert_array_equal(found["liver"].inside[..., 3], numbers.T == 1)
    np.testing.assert_array_equal(found["tumour"].inside[..., 1], numbers.T == 2)
    assert not found["vein"].inside.any()
    assert found["vein"].remarks == ("no frame marks anything: nothing is inside",)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_any_orientation_of_series_and_frames(tmp_path: Path, name: str) -> None:
    geometry = GEOMETRIES[name]
    series = series_of_files(write_ct(tmp_path / "ct", np.zeros(GRID), geometry))
    frames = [(1, FRAME_A, geometry.points([(0, 0, k)])[0]) for k in (1, 2)]
    found = read_structures(write_seg(tmp_path / "seg.dcm", frames, ["GTV"], geometry), series)["GTV"]
    backwards = np.dot(np.cross(geometry.row, geometry.column), geometry.step_mm) < 0
    for k in (1, 2):
        np.testing.assert_array_equal(found.inside[..., GRID[2] - 1 - k if backwards else k], FRAME_A.T)
    assert found.inside.sum() == 2 * FRAME_A.sum()


def test_flipped_and_exchanged_axes_are_undone_exactly(tmp_path: Path, series: Series) -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(GRID) < 0.5
    # rows run backwards along j, columns forwards along k, and there is a frame for each i
    geometry = Geometry(row=(0, -1, 0), column=(0, 0, 1), pixel_mm=(2.5, 0.75))
    frames = [(1, truth[i, ::-1, :].T, at(0, i, GRID[1] - 1)) for i in range(GRID[0])]
    found = read_structures(write_seg(tmp_path / "seg.dcm", frames, ["GTV"], geometry), series)["GTV"]
    np.testing.assert_array_equal(found.inside, truth)
    assert found.remarks == ()


def test_frames_of_another_extent_are_placed_and_cut(tmp_path: Path, series: Series) -> None:
    within = np.ones((2, 2), int)
    found = read_structures(write_seg(tmp_path / "a.dcm", [(1, within, at(1, 3, 1))], ["GTV"]), series)["GTV"]
    assert {tuple(v) for v in np.argwhere(found.inside).tolist()} == {
        (i, j, 1) for i in (3, 4) for j in (1, 2)
    }
    beyond = np.ones((5, 8), int)  # from (−2, −1) to (5, 3): 40 pixels, of which 15 lie in the image
    frames = [(1, beyond, at(1, -2, -1)), (1, within, at(9)), (1, within * 0, at(11))]
    found = read_structures(write_seg(tmp_path / "b.dcm", _padded(frames), ["GTV"]), series)["GTV"]
    assert found.inside[..., 1].all()
    assert found.inside.sum() == 15
    assert found.remarks == ("29 marked pixel(s) lie outside the series, 1 of 2 frames wholly: left out",)


def _padded(frames: list[tuple[int, np.ndarray, list[float]]]) -> list[tuple[int, np.ndarray, list[float]]]:
    """All frames of one size, the smaller ones filled with 0 at their ends."""
    rows, columns = np.max([each.shape for _, each, _ in frames], axis=0)
    return [
        (number, np.pad(each, ((0, rows - each.shape[0]), (0, columns - each.shape[1]))), position)
        for number, each, position in frames
    ]


def test_a_segmentation_of_other_slices_is_refused(tmp_path: Path, series: Series) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, at(9)), (1, FRAME_A, at(10))], ["GTV"])
    with pytest.raises(GeometryError, match="None of the 2 frames that mark something lies in the series"):
        read_structures(path, series)


@pytest.mark.parametrize(
    ("geometry", "position"),
    [
        (AXIAL._replace(pixel_mm=(0.8, 0.5)), at(1)),
        (AXIAL._replace(pixel_mm=(1.5, 1.0)), at(1)),
        (AXIAL, at(1.5)),
        (AXIAL, at(1, 0.5)),
        (AXIAL._replace(row=(0.6, 0.8, 0), column=(-0.8, 0.6, 0)), at(1)),
    ],
    ids=["other spacing", "every second pixel", "between slices", "half a pixel off", "turned"],
)
def test_another_grid_is_refused_with_both(
    tmp_path: Path, series: Series, geometry: Geometry, position: list[float]
) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, position)], ["GTV"], geometry)
    with pytest.raises(GeometryError, match="another grid") as caught:
        read_structures(path, series)
    across = "×".join(f"{each:.4g}" for each in geometry.pixel_mm[::-1])
    assert f"its frames have 5×3 pixels of {across} mm" in str(caught.value)
    assert "the series has 5×3×4 voxels of 0.5×0.75×2.5 mm along (1, 0, 0), (0, 1, 0), (0, 0, 1)" in str(
        caught.value
    )


def test_rounded_positions_are_on_the_grid(tmp_path: Path, series: Series) -> None:
    off = np.add(at(1), (0.04, -0.07, 0.2))  # less than a tenth of a voxel along each axis
    found = read_structures(write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, off)], ["GTV"]), series)["GTV"]
    np.testing.assert_array_equal(found.inside[..., 1], FRAME_A.T)


def test_another_frame_of_reference_is_refused_unless_the_series_is_named(
    tmp_path: Path, series: Series
) -> None:
    frames = [(1, FRAME_A, at(1))]
    named = write_seg(tmp_path / "a.dcm", frames, ["GTV"], frame="1.1")
    assert read_structures(named, series)["GTV"].inside.any()
    other = write_seg(tmp_path / "b.dcm", frames, ["GTV"], frame="1.1", series="9.9")
    with pytest.raises(GeometryError, match="different frames of reference"):
        read_structures(other, series)


def change(path: Path, **values: Any) -> None:
    """Overwrite or, with None, delete attributes."""
    dataset = dcmread(path)
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"NumberOfFrames": 1_000_000_000}, "declares 1000000000 frames"),
        ({"NumberOfFrames": 2}, "declares 2 frames of 5×3 pixels and describes 1"),
        ({"Rows": 65535, "Columns": 65535}, "declares 1 frames of 65535×65535 pixels"),
        ({"Rows": 0}, "declares 1 frames of 5×0"),
        ({"Rows": 300}, "is truncated: 2 of 188 bytes"),
        ({"BitsAllocated": 8}, "'BINARY' with 8 bits"),
        ({"SegmentationType": "SPLINE"}, "'SPLINE' with 1 bits"),
        ({"SegmentationType": None}, "damaged DICOM SEG"),
        ({"SegmentSequence": None}, "damaged DICOM SEG"),
        ({"PixelData": None}, "damaged DICOM SEG"),
        ({"SharedFunctionalGroupsSequence": None}, "frame 1 lies in the patient: ImageOrientationPatient"),
    ],
)
def test_what_a_file_declares_is_checked_first(
    tmp_path: Path, series: Series, values: Mapping[str, Any], words: str
) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, at(1))], ["GTV"])
    change(path, **values)
    with pytest.raises(DataError, match=words):
        read_structures(path, series)


def test_damaged_places_of_frames_are_refused(tmp_path: Path, series: Series) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, at(1))], ["GTV"])
    dataset = dcmread(path)
    place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient = place.ImagePositionPatient[:2]
    dataset.save_as(path)
    with pytest.raises(DataError, match="frame 1 lies in the patient: ImagePositionPatient"):
        read_structures(path, series)


def test_truncated_and_scrambled_files_are_data_errors(tmp_path: Path, series: Series) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, FRAME_A, at(1)), (1, FRAME_B, at(2))], ["GTV"])
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole[: rng.integers(200, len(whole))])
        for place in rng.integers(150, len(damaged), rng.integers(0, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_structures(path, series)
        except DataError:  # anything else fails the test
            refused += 1
    assert refused > 100


LARGE = np.kron(FRAME_A, np.ones((8, 8), int))
"""24×40 pixels: compressing a few takes more room than they do."""


@pytest.fixture
def large_series(tmp_path: Path) -> Series:
    return series_of_files(write_ct(tmp_path / "large", np.zeros((40, 24, 4))))


def compressed(path: Path, syntax: str) -> Path:
    dataset = dcmread(path)
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, encoding_plugin="pyjpegls" if syntax == JPEGLSLossless else "pydicom")
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("syntax", "kind"),
    [
        (DeflatedExplicitVRLittleEndian, "BINARY"),
        (RLELossless, "FRACTIONAL"),
        (RLELossless, "LABELMAP"),
        (JPEGLSLossless, "LABELMAP"),
    ],
)
def test_compressed_segmentations(tmp_path: Path, large_series: Series, syntax: str, kind: str) -> None:
    pixels = LARGE * (200 if kind == "FRACTIONAL" else 1)
    frames = [(1, pixels, at(3)), (1, pixels[::-1], at(1))]
    path = compressed(write_seg(tmp_path / "seg.dcm", frames, ["GTV"], kind=kind), syntax)
    inside = read_structures(path, large_series)["GTV"].inside
    np.testing.assert_array_equal(inside[..., 3], LARGE.T)
    np.testing.assert_array_equal(inside[..., 1], LARGE[::-1].T)
    assert inside.sum() == 2 * LARGE.sum()


def test_damaged_compressed_pixels_are_a_data_error(tmp_path: Path, large_series: Series) -> None:
    path = write_seg(tmp_path / "seg.dcm", [(1, LARGE, at(1))], ["GTV"], kind="LABELMAP")
    stored = compressed(path, JPEGLSLossless).read_bytes()
    begin, end = stored.index(b"\xff\xd8\xff") + 4, stored.rindex(b"\xff\xd9")  # of the image
    path.write_bytes(stored[:begin] + bytes(end - begin) + stored[end:])
    with pytest.raises(DataError, match="compressed pixels"):
        read_structures(path, large_series)


def described(numbers: range) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return [
        hd.seg.SegmentDescription(
            number,
            f"lesion {number}",
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Neoplasm,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in numbers
    ]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("geometry", ["axial", "sagittal", "oblique"])
def test_what_highdicom_writes_is_read_back_exactly(tmp_path: Path, kind: str, geometry: str) -> None:
    import highdicom as hd

    files = write_ct(tmp_path / "ct", np.zeros((7, 5, 6)), GEOMETRIES[geometry])
    series = series_of_files(files)
    rng = np.random.default_rng(7)
    truth = rng.random((6, 5, 7, 3)) < 0.3  # slice, row, column, segment: all overlap
    truth[..., 2, :] = False
    pixels = truth.astype(np.float64 if kind == "FRACTIONAL" else np.uint8)
    if kind == "LABELMAP":
        pixels = (truth * (1, 2, 3)).max(axis=-1).astype(np.uint8)
        truth = pixels[..., None] == (1, 2, 3)
    images = [_completed(dcmread(file)) for file in files]
    seg = hd.seg.Segmentation(
        images, pixels, kind, described(range(1, 4)), "1.2.3.8", 1, "1.2.3.8.1", 1, "maker", "model", "1", "1"
    )
    seg.save_as(tmp_path / "seg.dcm")
    found = read_structures(tmp_path / "seg.dcm", series)
    k_of = {each.file: k for k, each in enumerate(series.slices)}
    for number, name in enumerate(["lesion 1", "lesion 2", "lesion 3"]):
        for slice_, file in enumerate(files):
            np.testing.assert_array_equal(found[name].inside[..., k_of[file]], truth[slice_, ..., number].T)


def _completed(image: Dataset) -> Dataset:
    """With what highdicom wants of a source image."""
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(image, keyword, "")
    image.ReferringPhysicianName = ""
    return image


REAL = {
    "liver": ("dicom_seg_rtstruct_small/dcmqi/ct-3slice", "dicom_seg_rtstruct_small/dcmqi/liver.dcm"),
    "overlaps": (
        "dicom_seg_rtstruct_small/dcmqi/ct-3slice",
        "dicom_seg_rtstruct_small/dcmqi/partial_overlaps.dcm",
    ),
    "bits": (
        "dicom_seg_rtstruct_small/dcmqi/24x38x3/image",
        "dicom_seg_rtstruct_small/dcmqi/24x38x3/seg/label.seg",
    ),
    "bits on a multi-frame image": (
        "dicom_seg_rtstruct_small/dcmqi/24x38x3/multiframe",
        "dicom_seg_rtstruct_small/dcmqi/24x38x3/seg/label.seg",
    ),
}

VOXELS = {
    "liver": [107098],
    "overlaps": [9602, 11888, 10743, 6693, 4713],
    "bits": [315],
    "bits on a multi-frame image": [315],
}
"""Of each segment, counted in dcmqi's output and, for the first and third, in the publishers' NRRD files."""


def of_dcmqi(path: Path, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every segment as dcmqi writes it: voxels and affine."""
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or shutil.which(
        "segimage2itkimage"
    )
    if program is None:
        pytest.skip("dcmqi is not installed")
    folder.mkdir()
    command = [program, "-t", "nifti", "--inputDICOM", path, "--outputDirectory", folder, "-p", "of"]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for meta in folder.glob("of*meta.json"):
        for group in json.loads(meta.read_text())["segmentAttributes"]:
            for segment in group:
                number = segment["labelID"]
                image = nib.load(folder / f"of-{number}.nii.gz")
                found[number] = np.asarray(image.dataobj) == number, image.affine
    return [found[number] for number in sorted(found)]


def same_places(
    inside: np.ndarray, affine: np.ndarray, other: np.ndarray, other_affine: np.ndarray, within_mm: float
) -> None:
    """Check that the marked voxels lie at the same places, whatever the extent and order of the grids."""
    places = [
        np.argwhere(each) @ a[:3, :3].T + a[:3, 3] for each, a in ((inside, affine), (other, other_affine))
    ]
    assert len(places[0]) == len(places[1])
    away_mm, nearest = KDTree(places[0]).query(places[1])
    assert away_mm.max() < within_mm
    assert len(set(nearest.tolist())) == len(nearest)


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_segments_lie_where_dcmqi_puts_them(shared_data: Path, tmp_path: Path, name: str) -> None:
    images, path = (shared_data / each for each in REAL[name])
    (series,) = find_series(images, salt=b"not kept")
    drawings = list(read_structures(path, series).values())
    assert [each.inside.sum() for each in drawings] == VOXELS[name]
    for drawing, (theirs, affine) in zip(drawings, of_dcmqi(path, tmp_path / "out"), strict=True):
        same_places(drawing.inside, series.affine_ras, theirs, affine, 2e-3)
        assert drawing.remarks == ()


@pytest.mark.real_data
def test_eleven_lesions_in_pet_are_those_of_dcmqi(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "pet_dicom_seg"
    opened = open_structures(folder / "mask/mask.dcm")
    assert [each.name for each in opened.structures] == [
        "Neoplasm, Primary",
        *(f"Neoplasm, Secondary #{number}" for number in range(2, 12)),
    ]
    assert sum(each.parts for each in opened.structures) == 171
    stretches = find_series(folder / "image", gaps="split", salt=b"not kept")  # slices between are not here
    assert [series.grid[2] for series in stretches] == [19, 47]
    expected = [1697, 113, 457, 4230, 211, 375, 922, 950, 222, 43, 62]
    theirs = of_dcmqi(folder / "mask/mask.dcm", tmp_path / "out")
    for structure, voxels, (other, affine) in zip(opened.structures, expected, theirs, strict=True):
        series = stretches[0 if structure.number == 7 else 1]
        drawing = opened.draw(structure, series)
        assert drawing.inside.sum() == voxels
        # the file's positions are up to 0.04 mm off the slices': 2 % of their distance
        same_places(drawing.inside, series.affine_ras, other, affine, 0.05)
        with pytest.raises(GeometryError, match="lies in the series"):
            opened.draw(structure, stretches[1 if structure.number == 7 else 0])


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "nrrd"), [("liver", "liver_seg.nrrd"), ("bits", "24x38x3/nrrd/label.nrrd")])
def test_real_segments_are_the_publishers_masks(shared_data: Path, name: str, nrrd: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    images, path = (shared_data / each for each in REAL[name])
    (series,) = find_series(images, salt=b"not kept")
    (drawing,) = read_structures(path, series).values()
    expected = sitk.GetArrayFromImage(sitk.ReadImage(shared_data / "dicom_seg_rtstruct_small/dcmqi" / nrrd))
    np.testing.assert_array_equal(drawing.inside, expected.T > 0)
