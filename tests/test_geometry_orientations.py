"""DICOM in every orientation → prepared → predicted → NIfTI, SEG, RTSTRUCT → read by other programs."""

from pathlib import Path

import pytest

from dicom_files import CORONAL, SAGITTAL
from marker import ROTATIONS, Grid, assert_is_marker
from predicted import Masks, predict
from reloaded import (
    by_contours,
    by_dcmqi,
    by_frames,
    by_highdicom,
    by_nibabel,
    by_plastimatch,
    by_simpleitk,
)


def assert_libraries_find_it(masks: Masks, grid: Grid) -> None:
    assert_is_marker(by_simpleitk(masks.nifti), grid)
    assert_is_marker(by_nibabel(masks.nifti), grid)
    assert_is_marker(by_highdicom(masks.seg), grid)
    assert_is_marker(by_frames(masks.seg), grid)
    assert_is_marker(by_contours(masks.rtstruct), grid)


def assert_programs_find_it(masks: Masks, images: Path, grid: Grid) -> None:
    assert_is_marker(by_dcmqi(masks.seg), grid)
    # plastimatch draws in axial planes first: with rows from head to feet it loses a third of the voxels,
    # with and without our contours' images
    if abs(grid.cosines[2]) < 1:
        assert_is_marker(by_plastimatch(masks.rtstruct, images), grid)


@pytest.mark.parametrize("number", range(24))
def test_every_way_to_lay_rows_and_columns(tmp_path: Path, number: int) -> None:
    grid = Grid(ROTATIONS[number])
    images = grid.write(tmp_path / "ct", order=1 if number % 2 else -1)
    assert_libraries_find_it(predict(images, tmp_path / "out"), grid)


@pytest.mark.parametrize("cosines", [SAGITTAL, CORONAL], ids=["sagittal", "coronal"])
def test_programs_of_others_find_it(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    grid = Grid(cosines)
    images = grid.write(tmp_path / "ct")
    assert_programs_find_it(predict(images, tmp_path / "out"), images, grid)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(24))
def test_every_way_with_slices_in_the_other_order(tmp_path: Path, number: int) -> None:
    grid = Grid(ROTATIONS[number])
    images = grid.write(tmp_path / "ct", order=-1 if number % 2 else 1)
    masks = predict(images, tmp_path / "out")
    assert_libraries_find_it(masks, grid)
    assert_programs_find_it(masks, images, grid)
