"""DICOM of real scanners, voxel by voxel against SimpleITK."""

from pathlib import Path

import numpy as np
import pytest

from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import Survey, survey
from oncoseg.io.dicom.values import LOWEST_HU
from oncoseg.io.dicom.voxels import open_series, read_series

pytestmark = pytest.mark.real_data
SALT = b"x" * 32


def found(folder: Path, gaps: str = "refuse") -> Survey:
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return survey(folder, gaps=gaps, salt=SALT)  # type: ignore[arg-type]


def check_against_simpleitk(series: Series) -> None:
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series.files])
    image = reader.Execute() if len(series.files) > 1 else sitk.ReadImage(str(series.files[0]))
    volume = read_series(series)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.affine_ras, affine, atol=1e-6)
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64)
    if series.modality == "CT":
        values = np.maximum(values, LOWEST_HU)
    # theirs are float32 in steps of 2⁻²³ of the value; ours are rounded once
    np.testing.assert_allclose(volume.array[0], values, rtol=1e-6)


def test_lidc_ct(shared_data: Path) -> None:
    nothing_else = found(shared_data / "lidc_dicom_xml")
    (series,) = nothing_else.series
    assert (series.modality, series.grid, series.remarks) == ("CT", (512, 512, 43), ())
    assert series.spacing_mm == pytest.approx((0.78125, 0.78125, 1.0))
    assert nothing_else.left_out == []
    check_against_simpleitk(series)


def test_sts_ct_and_mr(shared_data: Path) -> None:
    study = found(shared_data / "sts_ct_mr" / "dicom")
    assert [(each.modality, each.grid) for each in study.series] == [
        ("CT", (161, 143, 48)),
        ("MR", (115, 90, 35)),
    ]
    assert len({each.patient for each in (*study.series, *study.annotations)}) == 1
    assert [each.kind for each in study.annotations] == ["RTSTRUCT", "RTSTRUCT"]
    for series in study.series:
        check_against_simpleitk(series)


def test_nsclc_ct(shared_data: Path) -> None:
    study = found(shared_data / "nsclc_rtstruct")
    (series,) = study.series
    assert (series.grid, series.remarks) == ((512, 512, 33), ())
    assert [each.kind for each in study.annotations] == ["RTSTRUCT"]
    check_against_simpleitk(series)


def test_pet_with_missing_slices(shared_data: Path) -> None:
    folder = shared_data / "pet_dicom_seg"
    refused = found(folder)
    assert refused.series == []
    assert refused.left_out[0].reason.startswith("5 of 71 slices are missing (between slice 19 at")
    study = found(folder, "split")
    assert [series.grid for series in study.series] == [(168, 168, 19), (168, 168, 47)]
    assert [each.kind for each in study.annotations] == ["SEG"]
    for series in study.series:
        check_against_simpleitk(series)


def test_small_ct_with_padding(shared_data: Path) -> None:
    study = found(shared_data / "dicom_seg_rtstruct_small")
    plain = [series for series in study.series if len(series.files) > 1]
    assert [series.grid for series in plain] == [(512, 512, 3), (24, 38, 3), (512, 512, 2)]
    for series in plain:
        check_against_simpleitk(series)
        assert read_series(series).array.min() >= LOWEST_HU


def test_a_legacy_converted_image_is_the_series_it_was_made_of(shared_data: Path) -> None:
    folder = shared_data / "dicom_seg_rtstruct_small" / "dcmqi" / "24x38x3"
    (one,) = found(folder / "multiframe").series
    (many,) = found(folder / "image").series
    assert len(one.files) == 1
    np.testing.assert_allclose(one.affine_ras, many.affine_ras, atol=1e-6)
    np.testing.assert_array_equal(read_series(one).array, read_series(many).array)


def test_slabs_are_parts_of_the_whole(shared_data: Path) -> None:
    (series,) = found(shared_data / "lidc_dicom_xml").series
    whole = read_series(series).array[0]
    with open_series(series) as slabs:
        for start in range(0, 43, 16):
            stop = min(start + 16, 43)
            np.testing.assert_array_equal(slabs.slab(2, start, stop), whole[..., start:stop])
