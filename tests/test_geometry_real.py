"""Real patients' DICOM: converted, predicted and written back, other programs see everything where it was."""

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from marker import TENTH
from oncoseg.convert import convert
from oncoseg.errors import DataError
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.io.dicom.rtstruct_writer import write_rtstruct
from oncoseg.io.dicom.seg_writer import write_seg
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series
from oncoseg.io.dicom.values import LOWEST_HU
from oncoseg.io.dicom.voxels import read_series
from outside import run
from reloaded import by_contours, by_dcmqi, by_highdicom, by_nibabel, by_plastimatch, by_simpleitk
from test_predict import bright

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

SERIES = {
    "lidc": "lidc_dicom_xml/LIDC-IDRI-0314/CT",
    "nsclc": "nsclc_rtstruct/LUNG1-001/image",
    "sarcoma CT": "sts_ct_mr/dicom/STS_002/CT/image",
    "sarcoma MR": "sts_ct_mr/dicom/STS_002/MR_T1/image",
    "liver": "dicom_seg_rtstruct_small/dcmqi/ct-3slice",
    "bits": "dicom_seg_rtstruct_small/dcmqi/24x38x3/image",
    "two slices": "dicom_seg_rtstruct_small/rt_utils",
}

SALT = b"not kept"


def linked(shared_data: Path, folder: Path, *sources: str) -> Path:
    """A folder of links to real files, beside which a test may write."""
    folder.mkdir()
    for number, source in enumerate(sources):
        path = shared_data / source
        if not path.exists():
            pytest.skip(f"no {source} among the real data")
        for file in sorted(path.glob("*.dcm")) if path.is_dir() else [path]:
            (folder / f"{number}-{file.name}").symlink_to(file)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def voxel_mm(image: sitk.Image) -> float:
    return min(image.GetSpacing())


def assert_same_place(one: sitk.Image, other: sitk.Image) -> None:
    """Within a hundredth of a voxel at every corner."""
    assert one.GetSize() == other.GetSize()
    for corner in np.ndindex(2, 2, 2):
        index = [int(end * (n - 1)) for end, n in zip(corner, one.GetSize(), strict=True)]
        places = [np.array(each.TransformIndexToPhysicalPoint(index)) for each in (one, other)]
        assert np.abs(places[0] - places[1]).max() < 0.01 * voxel_mm(one)


@pytest.mark.parametrize("name", SERIES)
def test_a_series_converted_is_what_simpleitk_and_dcm2niix_make_of_it(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    data = linked(shared_data, tmp_path / "data", SERIES[name])
    convert(data, "nifti", tmp_path / "out", workers=0)
    path = only(tmp_path / "out" / "images", "*.nii.gz")
    ours, theirs = sitk.ReadImage(path), by_series_reader(find_series(data, salt=SALT))
    assert_same_place(ours, theirs)
    expected = sitk.GetArrayFromImage(theirs).astype(float)
    if name != "sarcoma MR":
        expected = np.maximum(expected, LOWEST_HU)
    np.testing.assert_allclose(sitk.GetArrayFromImage(ours), expected, rtol=1e-6)
    run("dcm2niix", "-o", tmp_path, "-f", "theirs", "-z", "n", data)
    one, other = (nib.as_closest_canonical(nib.load(each)) for each in (path, only(tmp_path, "theirs*.nii")))
    np.testing.assert_allclose(one.affine, other.affine, atol=0.01 * voxel_mm(ours))
    values = np.maximum(other.get_fdata(), LOWEST_HU) if name != "sarcoma MR" else other.get_fdata()
    np.testing.assert_allclose(one.get_fdata(), values, rtol=1e-5)


def by_series_reader(found: Sequence[Series]) -> sitk.Image:
    (series,) = found
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series.files])
    return reader.Execute()


def test_a_series_with_a_gap_is_refused_with_the_reason(shared_data: Path, tmp_path: Path) -> None:
    data = linked(shared_data, tmp_path / "data", "pet_dicom_seg/image", "pet_dicom_seg/mask")
    with pytest.raises(DataError, match="5 of 71 slices are missing"):
        convert(data, "nifti", tmp_path / "out", workers=0)
