"""Real patients' DICOM: converted, predicted and written back, other programs see everything where it was."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from marker import TENTH, Found
from oncoseg.convert import convert
from oncoseg.errors import DataError
from oncoseg.io import write_labels
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


BRIGHTEST = 97
"""Percentile from which on voxels of a real image are marked: thousands of regions, with holes."""


def linked(shared_data: Path, folder: Path, *sources: str) -> Path:
    """A folder of links to real files, beside which a test may write."""
    folder.mkdir()
    for number, source in enumerate(sources):
        path = shared_data / source
        if not path.exists():
            pytest.skip(f"no {source} among the real data")
        linked_files(sorted(path.glob("*.dcm")) if path.is_dir() else [path], folder, f"{number}-")
    return folder


def linked_files(files: Iterable[Path], folder: Path, prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / f"{prefix}{file.name}").symlink_to(file.resolve())
    return folder


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def smallest_mm(image: sitk.Image) -> float:
    return min(image.GetSpacing())


def assert_same_place(one: sitk.Image, other: sitk.Image) -> None:
    """Within a hundredth of a voxel at every corner."""
    assert one.GetSize() == other.GetSize()
    for corner in np.ndindex(2, 2, 2):
        index = [int(end * (n - 1)) for end, n in zip(corner, one.GetSize(), strict=True)]
        places = [np.array(each.TransformIndexToPhysicalPoint(index)) for each in (one, other)]
        assert np.abs(places[0] - places[1]).max() < 0.01 * smallest_mm(one)


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
    np.testing.assert_allclose(one.affine, other.affine, atol=0.01 * smallest_mm(ours))
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


OUTLINED = {
    "lung tumour": (SERIES["nsclc"], "nsclc_rtstruct/LUNG1-001/mask_rtstruct/1-1.dcm", "GTV-1"),
    "sarcoma CT": (SERIES["sarcoma CT"], "sts_ct_mr/dicom/STS_002/CT/mask", "GTV_Mass_CT"),
    "sarcoma MR": (SERIES["sarcoma MR"], "sts_ct_mr/dicom/STS_002/MR_T1/mask", "GTV_Mass_MR_T1"),
}
"""Images, outlines, and the name of a structure."""


def assert_same_mask(one: Found, other: Found, spacing_mm: float) -> None:
    assert np.abs(one.centroid_mm - other.centroid_mm).max() < TENTH * spacing_mm
    if not np.isnan(other.voxels):  # polygons have none
        assert one.voxels == other.voxels


@pytest.mark.parametrize("name", OUTLINED)
def test_outlines_in_a_data_set_are_where_plastimatch_draws_them(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    images, outlines, structure = OUTLINED[name]
    data = linked(shared_data, tmp_path / "data", images, outlines)
    (data / "labels.json").write_text(json.dumps({"tumour": structure}))
    convert(data, "nnunet", tmp_path / "out", workers=0)
    mask = only(tmp_path / "out" / "labelsTr", "*.nii.gz")
    (tmp_path / "outlines.dcm").symlink_to(only(data, "1-*.dcm").resolve())
    alone = linked(shared_data, tmp_path / "alone", images)
    expected = by_plastimatch(tmp_path / "outlines.dcm", alone, structure)
    for found in (by_simpleitk(mask), by_nibabel(mask)):
        assert np.abs(found.centroid_mm - expected.centroid_mm).max() < TENTH * spacing_mm(mask)
        assert found.voxels == pytest.approx(expected.voxels, rel=1e-4)


def test_segments_in_a_data_set_are_where_dcmqi_puts_them(shared_data: Path, tmp_path: Path) -> None:
    segments = "dicom_seg_rtstruct_small/dcmqi/liver.dcm"
    data = linked(shared_data, tmp_path / "data", SERIES["liver"], segments)
    convert(data, "nnunet", tmp_path / "out", workers=0)
    mask = only(tmp_path / "out" / "labelsTr", "*.nii.gz")
    (tmp_path / "segments.dcm").symlink_to(shared_data / segments)
    expected = by_dcmqi(tmp_path / "segments.dcm")
    for found in (by_simpleitk(mask), by_nibabel(mask)):
        assert_same_mask(found, expected, spacing_mm(mask))


@pytest.mark.parametrize("name", SERIES)
def test_a_predicted_mask_lies_on_the_real_series_in_every_format(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    images = linked(shared_data, tmp_path / "images", SERIES[name])
    voxels = sitk.GetArrayViewFromImage(by_series_reader(find_series(images, salt=SALT)))
    bright_from = float(np.percentile(voxels, BRIGHTEST))
    window = [bright_from - 1, bright_from + 1]
    predictor = bright(
        preparation__slice_size=[512, 512],
        modalities__ct__window=window,
        modalities__mri__channels=["T1"] * 4,
        modalities__mri__scaling="window",
        modalities__mri__window=window,
    )
    nifti, seg, rtstruct = predictor.predict(
        [images], tmp_path / "out", formats=("nifti", "seg", "rtstruct"), accept_implausible=True
    )
    mask = by_simpleitk(nifti)
    assert mask.voxels > 100
    for found in (by_nibabel(nifti), *by_all(seg, rtstruct, images)):
        assert_same_mask(mask, found, spacing_mm(nifti))


def test_masks_on_both_sides_of_a_gap_in_pet(shared_data: Path, tmp_path: Path) -> None:
    images = linked(shared_data, tmp_path / "images", "pet_dicom_seg/image")
    for number, series in enumerate(find_series(images, gaps="split", salt=SALT)):
        folder = tmp_path / str(number)
        alone = linked_files(series.files, folder / "images")
        volume = read_series(series)
        labels = (volume.array[0] > np.percentile(volume.array, BRIGHTEST)).astype(np.uint8)
        write_labels(folder / "mask.nii.gz", labels, volume)
        write_seg(folder / "seg.dcm", labels, series, {1: "tumour"}, Algorithm("0"))
        write_rtstruct(folder / "rtstruct.dcm", labels, series, {1: "tumour"}, Algorithm("0"))
        mask = by_simpleitk(folder / "mask.nii.gz")
        for found in by_all(folder / "seg.dcm", folder / "rtstruct.dcm", alone):
            assert_same_mask(mask, found, min(series.spacing_mm))


def by_all(seg: Path, rtstruct: Path, images: Path) -> list[Found]:
    return [by_highdicom(seg), by_dcmqi(seg), by_contours(rtstruct), by_plastimatch(rtstruct, images)]


def spacing_mm(path: Path) -> float:
    return smallest_mm(sitk.ReadImage(path))
