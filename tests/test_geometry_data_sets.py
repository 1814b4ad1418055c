"""DICOM with a drawn marker as a data set: prepared, scored and converted, it stays where it is."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from pydicom.sr.codedict import codes

from dicom_files import OBLIQUE, uid, write
from marker import ROTATIONS, Grid, assert_is_marker
from oncoseg.convert import convert
from oncoseg.datasets import open_dataset
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.prepare import Settings, prepare
from oncoseg.recipe import Modality, Preparation
from predicted import predict
from reloaded import by_nibabel, by_simpleitk
from tiny_dicom import Drawn, write_rtstruct

Annotated = Callable[[Grid, Path], Path]

WAYS = [ROTATIONS[number] for number in (0, 6, 11, 13, 18, 23)]
"""Of the 24, some with each kind of axis along the slices and with each sign."""

LPS = np.diag([-1.0, -1.0, 1.0])


EMPTY = (
    *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    "ReferringPhysicianName",
)
"""What highdicom expects in every image."""


def outlined(grid: Grid, folder: Path) -> Path:
    """The series and an RTSTRUCT with a rectangle round each run of marked voxels in each row of pixels."""
    grid.write(folder)
    drawn = []
    for j, k in np.argwhere(grid.marked.any(axis=0)):
        row = np.flatnonzero(grid.marked[:, j, k])
        assert np.ptp(row) == len(row) - 1, "the marker has no gap along any line"
        left, right = row[0] - 0.5, row[-1] + 0.5
        corners = [(left, j - 0.5, k), (right, j - 0.5, k), (right, j + 0.5, k), (left, j + 0.5, k)]
        drawn.append(Drawn(grid.places_mm(np.array(corners))))
    write_rtstruct(
        folder / "outlines", {"tumour": drawn}, series=uid("series"), frame=uid("frame of reference")
    )
    return folder


def segmented(grid: Grid, folder: Path) -> Path:
    """The series and a segmentation by highdicom."""
    images = grid.images()
    for image, keyword in product(images, EMPTY):
        setattr(image, keyword, "")
    write(images, folder)
    highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=grid.marked.transpose(2, 1, 0),
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                1, "tumour", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"
            )
        ],
        series_instance_uid=uid("segmentation"),
        series_number=9,
        sop_instance_uid=uid("segmentation", 1),
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
    ).save_as(folder / "segments")
    return folder


@pytest.mark.parametrize("cosines", WAYS)
def test_prepared_slices_run_to_superior_rows_to_right_and_columns_to_anterior(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    # of equal sides, so that no slice is resized
    grid = Grid(cosines, (24, 24, 24))
    cases = open_dataset(outlined(grid, tmp_path / "data")).cases
    modality = Modality(channels=("CT",), scaling="window", window=(-1000, 1000))
    settings = Settings.of(modality, {"tumour": ("*",)}, Preparation(slice_size=(24, 24)), True)
    (prepared,) = prepare(cases, settings, tmp_path / "store", workers=0)
    images, masks = prepared.read(0, 24)
    # which voxel is the how-manieth from the patient's left, back and feet
    places_ras = grid.places_mm(np.argwhere(np.ones(grid.size, bool))) @ LPS
    r, a, s = (np.unique(along.round(3), return_inverse=True)[1] for along in places_ras.T)
    expected = np.zeros((24, 24, 24))
    expected[s, r, a] = grid.marked.ravel()
    np.testing.assert_array_equal(images[:, 0], expected)
    np.testing.assert_array_equal(masks, expected)


@pytest.mark.parametrize(
    ("annotated", "cosines"), [(outlined, ROTATIONS[11]), (segmented, OBLIQUE)], ids=["outlined", "segmented"]
)
def test_a_prediction_is_scored_where_it_lies(
    tmp_path: Path, annotated: Annotated, cosines: tuple[float, ...]
) -> None:
    grid = Grid(cosines)
    data = annotated(grid, tmp_path / "data")
    mask = predict(data, tmp_path / "out", side=75).nifti
    (row,) = evaluate_masks(data, tmp_path / "out", tmp_path / "scores", workers=0).cases
    assert row.values["dice"] > 0.97
    moved = np.roll(grid.marked, 1, axis=2).astype(np.uint8)  # one slice of 3 mm further
    nib.Nifti1Image(moved, nib.load(mask).affine).to_filename(mask)
    (row,) = evaluate_masks(data, tmp_path / "out", tmp_path / "moved", workers=0).cases
    assert row.values["hausdorff_mm"] == pytest.approx(3.0)
    assert row.volumes_ml == pytest.approx((grid.marked.sum() * 9 / 1000,) * 2)


@pytest.mark.parametrize("annotated", [outlined, segmented])
@pytest.mark.parametrize("cosines", [ROTATIONS[6], OBLIQUE], ids=["turned", "oblique"])
def test_converted_and_converted_back_it_stays_where_it_is(
    tmp_path: Path, annotated: Annotated, cosines: tuple[float, ...]
) -> None:
    grid = Grid(cosines)
    annotated(grid, tmp_path / "data")
    convert(tmp_path / "data", "nifti", tmp_path / "nifti", workers=0)
    convert(tmp_path / "nifti", "nnunet", tmp_path / "nnunet", workers=0)
    convert(tmp_path / "nnunet", "nifti", tmp_path / "again", workers=0)
    for name in ("nifti", "nnunet", "again"):
        for kind, value in (("labels", 1), ("images", 1000)):
            (path,) = (tmp_path / name).glob(f"{kind}*/*.nii.gz")
            assert_is_marker(by_simpleitk(path, value), grid)
            assert_is_marker(by_nibabel(path, value), grid)
