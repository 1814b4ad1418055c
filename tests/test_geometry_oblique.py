"""Oblique series of any pixel size, slice distance and size: every format holds the marker where it is.

Slices are padded and turned on their way to the network and back, and not resized, so that every format
must hold the very voxels of the marker. What resizing does is in `test_geometry_resizing`.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dicom_files import OBLIQUE
from marker import Found, Grid, assert_is_marker
from oncoseg.datasets import open_dataset
from oncoseg.io import read
from oncoseg.volume import to_canonical
from predicted import predict
from reloaded import (
    by_contours,
    by_dcmqi,
    by_frames,
    by_highdicom,
    by_nibabel,
    by_plastimatch,
    by_simpleitk,
)

NOTHING_MM = 1e-3
"""What decimal numbers in DICOM and NIfTI's 32 bits may add."""


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    turn = Rotation.from_rotvec(
        draw(st.floats(0, np.pi)) * _unit(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    ).as_matrix()
    cosines = [round(each, 6) for each in (*turn[:, 0], *turn[:, 1])]
    spacing = draw(st.tuples(st.floats(0.9, 1.6), st.floats(0.9, 1.6), st.floats(0.9, 3.2)))
    # half a metre of air would only take time: just so much that the marker has room
    size = tuple(int(np.ceil(52 / each)) + draw(st.integers(0, 3)) for each in spacing)
    return Grid(cosines, size, tuple(round(each, 4) for each in spacing), offset_mm=(5.5, 2.5, 3.5))


def _unit(vector: tuple[float, float, float]) -> np.ndarray:
    length = np.linalg.norm(vector)
    return np.array(vector) / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])


def assert_same(found: Found, other: Found) -> None:
    assert np.abs(found.centroid_mm - other.centroid_mm).max() < NOTHING_MM
    assert found.voxels == other.voxels or np.isnan(found.voxels)


def axial_side(images: Path) -> int:
    """Of the square that an axial slice is padded to: at this size nothing is resized.

    Which axis is axial is left to the reader: on a diagonal it is a matter of rounding.
    """
    (image,) = open_dataset(images).cases[0].images.values()
    return max(to_canonical(read(image))[0].grid[:2])


def check(grid: Grid, folder: Path, programs: bool) -> None:
    images = grid.write(folder / "ct")
    masks = predict(images, folder / "out", side=axial_side(images))
    nifti = by_nibabel(masks.nifti)
    assert_is_marker(nifti, grid)
    for found in (
        by_simpleitk(masks.nifti),
        by_highdicom(masks.seg),
        by_frames(masks.seg),
        by_contours(masks.rtstruct),
    ):
        assert_same(found, nifti)
    if programs:
        assert_same(by_dcmqi(masks.seg), nifti)
        assert_same(by_plastimatch(masks.rtstruct, images), nifti)


@given(grids())
@settings(max_examples=4, phases=[Phase.generate])
def test_any_oblique_series(grid: Grid) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(grid, Path(folder), programs=False)


def test_an_oblique_series_on_the_diagonal(tmp_path: Path) -> None:
    """Rows and columns are as near to one axis as to the other: rounding decides which is which."""
    cosines = [0.6521, 0.3479, -0.673596, 0.3479, 0.6521, 0.673596]
    check(Grid(cosines, (54, 52, 17), (0.975, 1.0, 3.2), offset_mm=(5.5, 2.5, 3.5)), tmp_path, programs=False)


@pytest.mark.slow
@given(grids())
@settings(max_examples=60, phases=[Phase.generate])  # none is simpler than another
def test_many_oblique_series(grid: Grid) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(grid, Path(folder), programs=False)


@pytest.mark.parametrize("sign", [1, -1])
def test_programs_of_others_find_it_in_an_oblique_series(tmp_path: Path, sign: int) -> None:
    check(Grid([sign * each for each in OBLIQUE], (36, 33, 26), (1.4, 1.6, 2.1)), tmp_path, programs=True)
