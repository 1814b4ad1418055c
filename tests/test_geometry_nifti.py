"""NIfTI as it may come, through prediction and scoring: masks lie on their images in every program."""

import gzip
from collections.abc import Callable
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import OBLIQUE
from marker import Grid, assert_is_marker
from oncoseg.errors import DataError
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.prediction_record import remarks
from predicted import SIDE
from reloaded import by_nibabel, by_simpleitk
from test_predict import bright

GRID = Grid(OBLIQUE, (36, 33, 26), (1.4, 1.6, 2.1))
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = GRID.steps_lps, GRID.first_lps_mm
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
"""Voxel index to RAS+ millimetres."""


def image(low: float = -1000, high: float = 1000, dtype: type = np.int16) -> nib.Nifti1Image:
    """The marker in Hounsfield units, or in other numbers, with one place in both forms."""
    made = nib.Nifti1Image(np.where(GRID.marked, high, low).astype(dtype), AFFINE)
    made.set_qform(AFFINE, 1)
    made.set_sform(AFFINE, 1)
    return made


def predict(path: Path, out: Path) -> Path:
    (mask,) = bright(preparation__slice_size=[SIDE, SIDE]).predict(
        [path], out, modality="ct", accept_implausible=True
    )
    return mask


@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3))[1:])
def test_left_handed_axes(tmp_path: Path, flips: tuple[int, ...]) -> None:
    image().as_reoriented(list(enumerate(flips))).to_filename(tmp_path / "ct.nii.gz")
    mask = predict(tmp_path / "ct.nii.gz", tmp_path / "out")
    for found in (by_nibabel(mask), by_simpleitk(mask)):
        assert_is_marker(found, GRID, exact=False)


def test_where_both_forms_disagree_a_mask_lies_on_its_image_by_either(tmp_path: Path) -> None:
    source = image()
    moved = AFFINE.copy()
    moved[:3, 3] += (30, -20, 10)
    source.set_qform(moved, 1)  # of the scanner
    source.set_sform(AFFINE, 2)  # aligned to something else
    source.to_filename(tmp_path / "ct.nii.gz")
    mask = predict(tmp_path / "ct.nii.gz", tmp_path / "out")
    for read in (by_nibabel, by_simpleitk):
        here, there = read(mask), read(tmp_path / "ct.nii.gz", 1000)
        assert np.abs(here.centroid_mm - there.centroid_mm).max() < 0.1
    # nibabel goes by the sform, as we do, and ITK by the form that says it is the scanner's
    apart = by_simpleitk(mask).centroid_mm - by_nibabel(mask).centroid_mm
    np.testing.assert_allclose(apart, (-30, 20, 10), atol=1e-3)
    assert_is_marker(by_nibabel(mask), GRID, exact=False)
    ((told,),) = remarks(tmp_path / "out").values()
    assert told.startswith("CT: its sform and qform place the image up to 37.4 mm apart; the sform is used.")


def test_stored_numbers_are_scaled(tmp_path: Path) -> None:
    write_stored(tmp_path / "ct.nii", np.where(GRID.marked, 1000, 0).astype(np.int16), 2, -1000)
    assert sorted(np.unique(nib.load(tmp_path / "ct.nii").get_fdata())) == [-1000, 1000]
    mask = predict(tmp_path / "ct.nii", tmp_path / "out")
    assert_is_marker(by_simpleitk(mask), GRID, exact=False)
    assert nib.load(mask).dataobj.slope == 1


def write_stored(path: Path, stored: np.ndarray, slope: float, intercept: float) -> None:
    """Write numbers as they are under a header that scales them."""
    plain = nib.Nifti1Image(stored, AFFINE)
    plain.to_filename(path)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(data)


def four(path: Path) -> None:
    voxels = np.stack([GRID.marked, GRID.marked], axis=-1).astype(np.uint8)
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)


def colour(path: Path) -> None:
    voxels = np.zeros(GRID.size, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["R"] = GRID.marked
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)


def packed(path: Path) -> None:
    path.write_bytes(gzip.compress(image(0, 1, np.uint8).to_bytes()))


def unpacked(path: Path) -> None:
    path.write_bytes(image(0, 1, np.uint8).to_bytes())


REFUSED = [
    ("scan.nii.gz", four, "is 4D and holds 2 volumes.*FILE#0"),
    ("scan.nii", colour, "holds colour voxels"),
    ("scan.nii", packed, r"is gzip-compressed but not named so; rename it to scan\.nii\.gz"),
    ("scan.nii.gz", unpacked, r"is named \.gz but is not gzip-compressed"),
]


@pytest.mark.parametrize(("name", "write", "reason"), REFUSED)
def test_what_is_no_image_of_one_number_per_voxel_is_not_predicted(
    tmp_path: Path, name: str, write: Callable[[Path], None], reason: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=reason):
        predict(tmp_path / name, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


@pytest.mark.parametrize(("name", "write", "reason"), REFUSED)
def test_nor_scored_and_the_others_are(
    tmp_path: Path, name: str, write: Callable[[Path], None], reason: str
) -> None:
    for folder, names in {"truth": ("scan", "other"), "ours": ("other",)}.items():
        (tmp_path / folder).mkdir()
        for each in names:
            image(0, 1, np.uint8).to_filename(tmp_path / folder / f"{each}.nii.gz")
    write(tmp_path / "ours" / name)
    result = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "scores", workers=0)
    assert {row.case: row.values["dice"] for row in result.cases} == {"other": 1, "scan": 0}
    with pytest.raises(DataError, match=reason):
        raise DataError(result.failures["scan"])


def test_scaled_labels_are_labels_and_axes_may_differ_where_resampling_is_allowed(tmp_path: Path) -> None:
    for folder in ("truth", "ours"):
        (tmp_path / folder).mkdir()
    image(0, 1, np.uint8).to_filename(tmp_path / "truth" / "a.nii.gz")
    write_stored(tmp_path / "ours" / "a.nii", 255 * GRID.marked.astype(np.uint8), 1 / 255, 0)
    (row,) = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "one", workers=0).cases
    assert row.values["dice"] == 1
    turned = nib.as_closest_canonical(image(0, 1, np.uint8))
    assert turned.shape != GRID.size or not np.allclose(turned.affine, AFFINE)
    (tmp_path / "ours" / "a.nii").unlink()
    turned.to_filename(tmp_path / "ours" / "a.nii.gz")
    result = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "two", resample=True, workers=0)
    assert result.failures == {}
    assert result.cases[0].values["dice"] == 1
