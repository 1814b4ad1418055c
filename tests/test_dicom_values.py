"""What the stored numbers of DICOM files become: bits, rescale, padding, inversion, types."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from dicom_files import numbered, slices, write
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import read_series
from oncoseg.volume import Volume

SALT = b"x" * 32
GRID = (2, 2, 3)


def read(folder: Path, stored: np.ndarray, modality: str = "CT", **tags: Any) -> Volume:
    write(slices(stored, modality=modality, **tags), folder)
    (series,) = find_series(folder, salt=SALT)
    return read_series(series)


def refusal(folder: Path, stored: np.ndarray, **tags: Any) -> str:
    write(slices(stored, **tags), folder)
    nothing = survey(folder, salt=SALT)
    assert nothing.series == []
    (left_out,) = nothing.left_out
    assert left_out.kind == "refused"
    return left_out.reason


def stored(*numbers: int, kind: str = "u2") -> np.ndarray:
    """Three slices of 2×2 pixels that are all alike."""
    return np.repeat(np.array(numbers).astype(kind).reshape(2, 2, 1), 3, axis=2)


def pixels(volume: Volume) -> list[float]:
    assert (volume.array == volume.array[..., :1]).all()
    values: list[float] = volume.array[0, ..., 0].ravel().tolist()
    return values


def test_ct_becomes_hounsfield_units_in_16_bits(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0, 1000, 1024, 4095))
    assert volume.array.dtype == np.int16
    assert pixels(volume) == [-1024, -24, 0, 3071]


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [
        (2, -1000, [-1000, -998, -996, 7000]),  # as whole numbers would do, but a slope makes fractions
        (0.5, 0.25, [0.25, 0.75, 1.25, 2000.25]),
        (1, -0.5, [-0.5, 0.5, 1.5, 3999.5]),
    ],
)
def test_a_slope_makes_floating_point(
    tmp_path: Path, slope: float, intercept: float, expected: list[float]
) -> None:
    volume = read(tmp_path, stored(0, 1, 2, 4000), RescaleSlope=slope, RescaleIntercept=intercept)
    assert volume.array.dtype == np.float32
    assert pixels(volume) == expected


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    datasets = slices(numbered((2, 2, 3)), modality="PT")
    for k, dataset in enumerate(datasets):
        dataset.RescaleSlope = k + 0.5
    write(datasets, tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    volume = read_series(series)
    np.testing.assert_array_equal(volume.array[0], numbered((2, 2, 3)) * np.array([0.5, 1.5, 2.5]))
    assert series.remarks == ("PET values in BQML: no uptake value (SUV) is computed",)


def test_padding_of_ct_becomes_air(tmp_path: Path) -> None:
    volume = read(
        tmp_path, stored(-2000, -1024, 0, 3071, kind="i2"), RescaleIntercept=0, PixelPaddingValue=-2000
    )
    assert pixels(volume) == [-1024, -1024, 0, 3071]
    assert volume.header.remarks == (
        "pixels outside the scanned area are marked (PixelPaddingValue); they become -1024 HU",
        "3 voxel(s) below -1024 HU became -1024 HU",
    )


def test_padding_above_all_tissue_becomes_air(tmp_path: Path) -> None:
    volume = read(
        tmp_path, stored(0, 1024, 60000, 60010), PixelPaddingValue=60000, PixelPaddingRangeLimit=60005
    )
    assert pixels(volume) == [-1024, 0, -1024, 32767]


def test_padding_with_more_bits_than_count_is_not_taken_for_tissue(tmp_path: Path) -> None:
    # 63536 has bits beyond the twelve that count; without those it would be 2096, which is bone
    volume = read(tmp_path, stored(63536, 0, 1024, 4095), BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert pixels(volume) == [-1024, -1024, 0, 3071]


def test_a_padding_value_among_tissue_is_a_mistake(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(-1000, 0, 40, 300, kind="i2"), RescaleIntercept=0, PixelPaddingValue=0)
    assert pixels(volume) == [-1000, 0, 40, 300]


def test_padding_of_mr_becomes_0(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(-5, 1, 2, 3, kind="i2"), "MR", PixelPaddingValue=-5)
    assert pixels(volume) == [0, 1, 2, 3]
    assert "they become 0" in volume.header.remarks[0]


@pytest.mark.parametrize(
    ("kind", "bits", "numbers", "expected", "becomes"),
    [
        ("u2", 16, (0, 1, 32768, 65535), [0, 1, 32768, 65535], np.uint16),
        ("u2", 15, (0, 1, 2, 32767), [0, 1, 2, 32767], np.int16),
        ("i2", 16, (-32768, -1, 0, 32767), [-32768, -1, 0, 32767], np.int16),
        ("u1", 8, (0, 1, 128, 255), [0, 1, 128, 255], np.int16),
        ("i1", 8, (-128, -1, 0, 127), [-128, -1, 0, 127], np.int16),
        ("u4", 20, (0, 1, 70000, 2**20 - 1), [0, 1, 70000, 2**20 - 1], np.int32),
        ("i4", 32, (-(2**31), -1, 0, 2**31 - 1), [-(2**31), -1, 0, 2**31 - 1], np.int32),
        ("u4", 32, (0, 1, 2, 2**32 - 256), [0, 1, 2, 2**32 - 256], np.float32),
    ],
)
def test_every_width_and_sign(
    tmp_path: Path, kind: str, bits: int, numbers: tuple[int, ...], expected: list[int], becomes: type
) -> None:
    volume = read(tmp_path, stored(*numbers, kind=kind), "MR", BitsStored=bits, HighBit=bits - 1)
    assert volume.array.dtype == becomes
    assert pixels(volume) == expected


def test_bits_that_do_not_count_are_dropped_and_the_sign_is_extended(tmp_path: Path) -> None:
    # twelve bits count; the four above hold an overlay, as files of old do
    overlay = stored(0xF000 | 5, 0x1000 | 0x7FF, 0x0800, 0xFFFF)
    tags = {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    assert pixels(read(tmp_path / "unsigned", overlay, **tags)) == [5, 0x7FF, 0x800, 0xFFF]
    signed = read(tmp_path / "signed", overlay.astype("i2"), "MR", BitsStored=12, HighBit=11)
    assert pixels(signed) == [5, 2047, -2048, -1]


def test_bits_in_the_middle(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0x0FF0, 0x1000, 0x000F, 0xFFFF), "MR", BitsStored=8, HighBit=11)
    assert pixels(volume) == [0xFF, 0, 0, 0xFF]


def test_inverted_mr_is_turned_over(tmp_path: Path) -> None:
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    volume = read(tmp_path, stored(0, 1, 4094, 4095), "MR", **tags)
    assert pixels(volume) == [4095, 4094, 1, 0]
    assert volume.header.remarks == ("stored with low numbers bright (MONOCHROME1): turned over",)


def test_inverted_ct_keeps_its_hounsfield_units(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0, 24, 1024, 4095), PhotometricInterpretation="MONOCHROME1")
    assert pixels(volume) == [-1024, -1000, 0, 3071]
    assert "the values have a unit and are kept" in volume.header.remarks[0]


def test_a_missing_rescale_is_remarked_on(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0, 1, 2, 3), RescaleSlope=None, RescaleIntercept=None)
    assert pixels(volume) == [0, 1, 2, 3]
    assert "no rescale to Hounsfield units is given" in volume.header.remarks[0]


def test_a_real_world_value_mapping_stands_in_for_the_rescale(tmp_path: Path) -> None:
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, 1.0
    volume = read(tmp_path / "a", stored(0, 1, 2, 3), "MR", RealWorldValueMappingSequence=[mapping])
    assert pixels(volume) == [1, 1.5, 2, 2.5]
    assert volume.header.remarks == (
        "values are those of its real-world value mapping, as there is no rescale",
    )
    both = read(tmp_path / "b", stored(0, 1, 2, 3), "PT", RealWorldValueMappingSequence=[mapping])
    assert pixels(both) == [0, 1, 2, 3]
    assert "mapping is given and not applied" in both.header.remarks[1]


def test_ct_beyond_16_bits_stays_at_its_ends(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0, 40000, 65535, 1024))
    assert pixels(volume) == [-1024, 32767, 32767, 0]


def test_loss_is_remarked_on(tmp_path: Path) -> None:
    volume = read(tmp_path, stored(0, 1, 2, 3), LossyImageCompression="01")
    assert volume.header.remarks == (
        "the images were compressed with loss: small structures may have changed",
    )


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "it is a colour image; expected grey"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "it is a colour image; expected grey"),
        ({"ModalityLUTSequence": [Dataset()]}, "translated by a modality table"),
        ({"RescaleSlope": 0}, "its rescale slope is 0"),
        ({"BitsAllocated": 12}, "it stores 16 of 12 bits"),
        ({"BitsStored": 17}, "it stores 17 of 16 bits"),
        ({"HighBit": 3}, "it stores 16 of 16 bits up to bit 3"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"PixelRepresentation": None}, "PixelRepresentation is missing"),
        ({"Rows": None}, "Rows is missing"),
        ({"Rows": 0}, "it declares 1 frames of 2×0 pixels"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing, so that its place"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
    ],
)
def test_what_cannot_be_read_safely_is_refused(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    assert words in refusal(tmp_path, stored(0, 1, 2, 3), **tags)


def test_one_unfit_slice_spoils_the_series_and_is_counted(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    del datasets[1].ImagePositionPatient
    write(datasets, tmp_path)
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert left_out.reason.startswith("1 of 3 file(s): ImagePositionPatient is missing")
    assert len(left_out.files) == 3
