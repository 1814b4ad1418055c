"""Enhanced and legacy-converted images: many slices in one file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from dicom_files import CORONAL, OBLIQUE, multi_frame, numbered, positions, write
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import open_series, read_series

SALT = b"x" * 32
GRID = (4, 5, 6)


def one(folder: Path, **arguments: Any) -> Series:
    write([multi_frame(numbered(GRID), **arguments)], folder)
    (series,) = find_series(folder, salt=SALT)
    return series


def group(**tags: Any) -> Items:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Items([item])


def test_an_enhanced_ct(tmp_path: Path) -> None:
    series = one(tmp_path)
    assert (series.grid, series.modality, series.remarks) == (GRID, "CT", ())
    assert [each.frame for each in series.slices] == [0, 1, 2, 3, 4, 5]
    assert len(series.files) == 1
    expected = [[-0.5, 0, 0, 10], [0, -0.8, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(series.affine_ras, expected, atol=1e-12)
    np.testing.assert_array_equal(read_series(series).array[0], numbered(GRID).astype(int) - 1024)


def test_frames_are_ordered_by_place(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    places = positions(6, 2.0, OBLIQUE)
    series = one(tmp_path, cosines=OBLIQUE, at=[places[k] for k in order])
    assert [each.frame for each in series.slices] == [order.index(k) for k in range(6)]
    expected = numbered(GRID)[..., [order.index(k) for k in range(6)]].astype(int) - 1024
    np.testing.assert_array_equal(read_series(series).array[0], expected)


def test_a_slab_reads_only_its_frames(tmp_path: Path) -> None:
    with open_series(one(tmp_path)) as slabs:
        np.testing.assert_array_equal(slabs.slab(2, 2, 4), numbered(GRID)[..., 2:4].astype(int) - 1024)
        np.testing.assert_array_equal(slabs.slab(0, 1, 3), numbered(GRID)[1:3].astype(int) - 1024)


def test_every_frame_can_have_its_own_rescale(tmp_path: Path) -> None:
    def rescaled(frame: Dataset, k: int) -> None:
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=k + 1, RescaleIntercept=0, RescaleType="US"
        )

    volume = read_series(one(tmp_path, modality="MR", frame=rescaled))
    np.testing.assert_array_equal(volume.array[0], numbered(GRID) * np.arange(1, 7))


def test_a_frame_s_own_group_beats_the_shared_one(tmp_path: Path) -> None:
    def turned(frame: Dataset, k: int) -> None:
        frame.PlaneOrientationSequence = group(ImageOrientationPatient=list(CORONAL))

    series = one(tmp_path, at=positions(6, 2.0, CORONAL), frame=turned)
    np.testing.assert_allclose(series.affine_ras[:3, 1], [0, 0, -0.8], atol=1e-12)


@pytest.mark.parametrize(
    ("sequence", "keyword", "values", "labels"),
    [
        ("MREchoSequence", "EffectiveEchoTime", (10.0, 90.0), ["echo time 10 ms", "echo time 90 ms"]),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 800.0), ["b-value 0", "b-value 800"]),
        (
            "FrameContentSequence",
            "TemporalPositionIndex",
            (1, 2),
            ["temporal position 1", "temporal position 2"],
        ),
        ("FrameContentSequence", "StackID", ("A", "B"), ["stack A", "stack B"]),
        ("MRImageFrameTypeSequence", "FrameType", (["M"], ["P"]), ["image type 1", "image type 2"]),
    ],
)
def test_several_volumes_in_one_file(
    tmp_path: Path, sequence: str, keyword: str, values: tuple[Any, Any], labels: list[str]
) -> None:
    def told_apart(frame: Dataset, k: int) -> None:
        setattr(frame, sequence, group(**{keyword: values[k % 2]}))

    places = [place for place in positions(3, 2.0) for _ in range(2)]
    write([multi_frame(numbered(GRID), modality="MR", at=places, frame=told_apart)], tmp_path)
    parts = find_series(tmp_path, salt=SALT)
    assert [part.part for part in parts] == labels
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(read_series(part).array[0], numbered(GRID)[..., number::2])


def test_what_describes_the_contrast_comes_from_the_frames(tmp_path: Path) -> None:
    def described(frame: Dataset, k: int) -> None:
        frame.MREchoSequence = group(EffectiveEchoTime=90.0)
        frame.MRTimingAndRelatedParametersSequence = group(RepetitionTime=9000.0)
        frame.MRModifierSequence = group(InversionTimes=[2500.0])

    protocol = one(tmp_path, modality="MR", frame=described).protocol
    assert {key: protocol[key] for key in ("EchoTime", "RepetitionTime", "InversionTime")} == {
        "EchoTime": "90.0",
        "RepetitionTime": "9000.0",
        "InversionTime": "2500.0",
    }


def test_legacy_converted_images(tmp_path: Path) -> None:
    series = one(tmp_path, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.2")
    np.testing.assert_array_equal(read_series(series).array[0], numbered(GRID).astype(int) - 1024)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PerFrameFunctionalGroupsSequence": None}, "a multi-frame image that does not describe its frames"),
        ({"NumberOfFrames": 5}, "it declares 5 frames and describes 6"),
        ({"NumberOfFrames": 7}, "its pixels are truncated: 240 of 280 bytes are there"),
        ({"NumberOfFrames": 2_000_000_000}, "it declares 2000000000 frames of 4×5 pixels, more than its"),
        ({"SharedFunctionalGroupsSequence": None}, "ImageOrientationPatient is missing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "several frames without saying where each lies"),
    ],
)
def test_what_cannot_be_read_safely_is_refused(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    write([multi_frame(numbered(GRID), **tags)], tmp_path)
    found = survey(tmp_path, salt=SALT)
    assert found.series == []
    assert words in found.left_out[0].reason


def test_a_frame_without_a_position_is_refused(tmp_path: Path) -> None:
    def lost(frame: Dataset, k: int) -> None:
        if k == 3:
            del frame.PlanePositionSequence

    write([multi_frame(numbered(GRID), frame=lost)], tmp_path)
    assert "ImagePositionPatient is missing" in survey(tmp_path, salt=SALT).left_out[0].reason


def test_frames_that_cover_each_other_and_are_equal_are_dropped(tmp_path: Path) -> None:
    stored = numbered(GRID)
    stored[..., 5] = stored[..., 4]
    places = positions(6, 2.0)
    places[5] = places[4]
    write([multi_frame(stored, at=places)], tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    assert series.grid == (4, 5, 5)
    assert series.remarks == ("1 duplicate(s) of slices, equal in every pixel, left out",)
