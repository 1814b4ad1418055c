"""Series as they may come: shuffled, tilted, in one file, of one slice, of several sequences, with gaps."""

import json
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk

from dicom_files import CORONAL, SAGITTAL, write
from marker import ROTATIONS, Found, Grid, assert_is_marker
from oncoseg.errors import DataError
from predicted import SIDE, predict
from reloaded import (
    by_contours,
    by_dcmqi,
    by_frames,
    by_highdicom,
    by_nibabel,
    by_simpleitk,
)
from test_predict import bright

SHUFFLED = [11, 3, 7, 0, 15, 9, 1, 16, 5, 13, 17, 2, 10, 6, 14, 4, 12, 8]


def test_neither_names_nor_instance_numbers_nor_stated_distances_decide(tmp_path: Path) -> None:
    grid = Grid()
    images = grid.images(SpacingBetweenSlices=-1.0, SliceThickness=5.0, SliceLocation=0.0)
    for number, image in zip(SHUFFLED, images, strict=True):
        image.InstanceNumber = number
    write([images[k] for k in SHUFFLED], tmp_path / "ct")
    masks = predict(tmp_path / "ct", tmp_path / "out")
    for found in (by_simpleitk(masks.nifti), by_highdicom(masks.seg), by_contours(masks.rtstruct)):
        assert_is_marker(found, grid)


@pytest.mark.parametrize("tilt_mm", [0.9, -1.4])
def test_a_tilted_gantry_moves_no_voxel(tmp_path: Path, tilt_mm: float) -> None:
    grid = Grid(shear_mm=tilt_mm)
    masks = predict(grid.write(tmp_path / "ct"), tmp_path / "out")
    assert_is_marker(by_nibabel(masks.nifti), grid)
    assert_is_marker(by_frames(masks.seg), grid)
    assert_is_marker(by_contours(masks.rtstruct), grid)
    # ITK's images cannot be sheared: it and highdicom's volumes say so rather than show it elsewhere
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(masks.nifti))
    with pytest.raises(RuntimeError, match="regularly-spaced"):
        highdicom.seg.segread(masks.seg).get_volume()


def test_axes_that_rounded_numbers_have_sheared_are_no_tilt(tmp_path: Path) -> None:
    # 0.1 mm from the first slice to the last, a fifteenth of a voxel: every program reads it
    grid = Grid(shear_mm=0.006)
    masks = predict(grid.write(tmp_path / "ct"), tmp_path / "out")
    for found in (by_nibabel(masks.nifti), by_simpleitk(masks.nifti), by_highdicom(masks.seg)):
        assert_is_marker(found, grid)


def test_positions_in_tenths_of_a_millimetre(tmp_path: Path) -> None:
    grid = Grid(spacing_mm=(1.5, 2.0, 1.25), size=(24, 22, 40))
    images = grid.images()
    for image in images:
        image.ImagePositionPatient = [round(float(each), 1) for each in image.ImagePositionPatient]
    write(images, tmp_path / "ct")
    masks = predict(tmp_path / "ct", tmp_path / "out")
    for found in (by_simpleitk(masks.nifti), by_frames(masks.seg), by_contours(masks.rtstruct)):
        assert_is_marker(found, grid)


def test_a_gap_is_refused_with_the_reason(tmp_path: Path) -> None:
    grid = Grid()
    images = grid.images()
    write(images[:9] + images[11:], tmp_path / "ct")
    with pytest.raises(
        DataError, match=r"2 of 18 slices are missing \(between slice 9 at .* mm and the next"
    ):
        predict(tmp_path / "ct", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_four_sequences_whose_files_are_in_different_orders(tmp_path: Path) -> None:
    seen, hidden = Grid(ROTATIONS[9]), Grid(ROTATIONS[9], dark=900, bright=100)
    described = {"T1": "plain", "T1ce": "with contrast", "T2": "slow", "FLAIR": "dark fluid"}
    for number, (name, words) in enumerate(described.items()):
        grid = seen if name == "FLAIR" else hidden
        order = 1 if number % 2 else -1
        grid.write(tmp_path / "mr" / name, order, modality="MR", name=name, SeriesDescription=words)
    (tmp_path / "mr" / "channels.json").write_text(json.dumps(described))
    (mask,) = bright(preparation__slice_size=[SIDE, SIDE]).predict(
        [tmp_path / "mr"], tmp_path / "out", modality="mri", accept_implausible=True
    )
    assert_is_marker(by_simpleitk(mask), seen)


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0, 1, 0), SAGITTAL], ids=["axial", "sagittal"])
def test_frames_of_one_file_in_any_order(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    grid = Grid(cosines)
    write([grid.enhanced(SHUFFLED)], tmp_path / "ct")
    masks = predict(tmp_path / "ct", tmp_path / "out")
    for found in (
        by_simpleitk(masks.nifti),
        by_highdicom(masks.seg),
        by_dcmqi(masks.seg),
        by_contours(masks.rtstruct),
    ):
        assert_is_marker(found, grid)


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 1, 0), CORONAL, SAGITTAL], ids=["axial", "coronal", "sagittal"]
)
def test_a_single_slice(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    # through the middle of the block, where at least two arms lie in it
    grid = Grid(
        cosines, (24, 22, 1), offset_mm=(6.5, 3.0, 4.5) * (1 - np.abs(np.cross(cosines[:3], cosines[3:])))
    )
    # of a coronal or sagittal slice, each axial slice is a line: it is not resized here, as it would fade
    masks = predict(grid.write(tmp_path / "ct"), tmp_path / "out", side=24)
    expected = Found.of(grid.marked_mm)
    for found in (
        by_simpleitk(masks.nifti),
        by_nibabel(masks.nifti),
        by_highdicom(masks.seg),
        by_frames(masks.seg),
    ):
        assert np.abs(found.centroid_mm - expected.centroid_mm).max() < 1e-3
        assert np.abs(found.low_mm - expected.low_mm).max() < 1e-3
        assert np.abs(found.high_mm - expected.high_mm).max() < 1e-3
        assert found.voxels == expected.voxels
    assert np.abs(by_contours(masks.rtstruct).centroid_mm - expected.centroid_mm).max() < 1e-3
