"""Where the voxels of a DICOM series lie: hand-made series, SimpleITK as an independent reader."""

from pathlib import Path

import numpy as np
import pytest

from dicom_files import AXIAL, CORONAL, OBLIQUE, SAGITTAL, normal, numbered, positions, slices, uid, write
from oncoseg.io.dicom.headers import DEFLATED
from oncoseg.io.dicom.survey import Survey, find_series, survey
from oncoseg.io.dicom.voxels import read_series
from oncoseg.volume import Volume

SALT = b"x" * 32
GRID = (4, 5, 6)


def found(folder: Path, gaps: str = "refuse") -> Survey:
    return survey(folder, gaps=gaps, salt=SALT)  # type: ignore[arg-type]


def read(folder: Path) -> Volume:
    (series,) = find_series(folder, salt=SALT)
    return read_series(series)


def refusal(folder: Path) -> str:
    nothing = found(folder)
    assert nothing.series == []
    (left_out,) = nothing.left_out
    assert left_out.kind == "refused"
    return left_out.reason


def flat(cosines: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(-each for each in cosines)


def test_an_axial_series_by_hand(tmp_path: Path) -> None:
    write(slices(numbered(GRID), spacing_mm=(0.5, 0.8, 2.0)), tmp_path)
    volume = read(tmp_path)
    # a row runs to the Left in steps of 0.5 mm, a column to Posterior in steps of 0.8 mm, slices to Superior
    expected = [[-0.5, 0, 0, 10], [0, -0.8, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine_ras, expected, atol=1e-12)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array[0], numbered(GRID).astype(int) - 1024)
    assert volume.spacing_known


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "cosines",
    [
        AXIAL,
        SAGITTAL,
        CORONAL,
        OBLIQUE,
        flat(AXIAL),
        flat(OBLIQUE),
        (*AXIAL[3:], *AXIAL[:3]),
        (-1, 0, 0, 0, 1, 0),
    ],
    ids=["axial", "sagittal", "coronal", "oblique", "axial-", "oblique-", "transposed", "mirrored"],
)
def test_simpleitk_sees_the_same(tmp_path: Path, cosines: tuple[float, ...], reverse: bool) -> None:
    sitk = pytest.importorskip("SimpleITK")
    at = positions(6, 1.7, cosines)
    stored = numbered(GRID)
    datasets = slices(stored, modality="MR", cosines=cosines, spacing_mm=(0.5, 0.8, 1.7), at=at)
    order = range(5, -1, -1) if reverse else range(6)
    write([datasets[k] for k in order], tmp_path)
    volume = read(tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.affine_ras, affine, atol=1e-9)
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    # every voxel lies where its own file says, however the files are ordered
    k_of = {each.sop_instance_uid: k for k, each in enumerate(volume.header.slices)}
    for k, place in enumerate(at):
        index = k_of[datasets[k].SOPInstanceUID]
        np.testing.assert_array_equal(volume.array[0, ..., index], stored[..., k])
        world = volume.affine_ras @ [0, 0, index, 1]
        np.testing.assert_allclose(world[:3], np.array(place) * [-1, -1, 1], atol=1e-9)


def test_files_are_ordered_by_place_not_by_name_or_instance_number(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    for k, dataset in enumerate(datasets):
        dataset.InstanceNumber = (k * 5) % 6
    write(datasets, tmp_path, ["c", "a", "f", "e", "b", "d"])
    (series,) = find_series(tmp_path, salt=SALT)
    assert [file.name for file in series.files] == ["c", "a", "f", "e", "b", "d"]
    assert [each.position_lps_mm[2] for each in series.slices] == [30, 32, 34, 36, 38, 40]


def test_positions_decide_not_thickness_nor_stated_spacing(tmp_path: Path) -> None:
    write(slices(numbered(GRID), SliceThickness=5, SpacingBetweenSlices=-7), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_allclose(series.spacing_mm, (0.5, 0.8, 2.0))
    assert series.remarks == ()


def test_a_tilted_gantry_gives_a_sheared_grid(tmp_path: Path) -> None:
    at = [[0, -0.5 * k, 2 * k] for k in range(6)]
    write(slices(numbered(GRID), at=at), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_allclose(series.affine_ras[:3, 2], [0, 0.5, 2], atol=1e-12)
    assert series.remarks == (
        "the gantry was tilted by 14.0°: the grid is sheared, each voxel stays where it was",
    )


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([0, 2, 4, 8, 10, 12], "1 of 7 slices are missing (between slice 3 at 4 mm and the next at 8 mm"),
        (
            [0, 2, 8, 10, 16, 18],
            "4 of 10 slices are missing (between slice 2 at 2 mm and the next at 8 mm, betw",
        ),
        ([0, 2, 4, 6, 9, 12], "distance of its slices varies from 2 to 3 mm"),
        ([0, 2, 4.3, 6.3, 8.3, 10], "distance of its slices varies from 1.7 to 2.3 mm"),
    ],
)
def test_gaps_and_uneven_spacing_are_refused(tmp_path: Path, places: list[float], words: str) -> None:
    write(slices(numbered(GRID), at=[[0, 0, z] for z in places]), tmp_path)
    assert words in refusal(tmp_path)


def test_rounded_positions_are_taken_as_even(tmp_path: Path) -> None:
    at = [[0, 0, round(1.25 * k, 1)] for k in range(6)]  # 0, 1.2, 2.5, 3.8, 5.0, 6.2
    write(slices(numbered(GRID), at=at), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    assert series.spacing_mm[2] == pytest.approx(6.2 / 5)
    assert series.remarks == ("slices lie up to 0.08 mm from even spacing; taken as evenly spaced",)


def test_a_gap_can_part_a_series(tmp_path: Path) -> None:
    places = [0, 2, 4, 8, 10, 12]
    write(slices(numbered(GRID), at=[[0, 0, z] for z in places]), tmp_path)
    below, above = found(tmp_path, "split").series
    assert (below.grid, above.grid) == ((4, 5, 3), (4, 5, 3))
    assert (below.part, above.part) == ("stretch 1 of 2 without a gap", "stretch 2 of 2 without a gap")
    assert below.remarks == above.remarks == ("cut where slices are missing",)
    assert above.affine_ras[2, 3] == 8
    np.testing.assert_array_equal(read_series(above).array[0], numbered(GRID)[..., 3:].astype(int) - 1024)


def test_slices_shifted_sideways_are_refused(tmp_path: Path) -> None:
    at = [[0, 0, 2 * k] for k in range(6)]
    at[3][0] = 1
    write(slices(numbered(GRID), at=at), tmp_path)
    assert "shifted sideways by up to 1 mm" in refusal(tmp_path)


def test_slices_side_by_side_are_refused(tmp_path: Path) -> None:
    write(slices(numbered((4, 5, 3)), at=[[0, 0, 0], [50, 0, 0], [100, 0, 0]]), tmp_path)
    assert "side by side" in refusal(tmp_path)


def test_slices_stacked_steeply_are_refused(tmp_path: Path) -> None:
    write(slices(numbered(GRID), at=[[0, 3 * k, 2 * k] for k in range(6)]), tmp_path)
    assert "stacked at 56° to their normal" in refusal(tmp_path)


def test_equal_duplicates_are_dropped(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    write(datasets, tmp_path / "a")
    write(datasets[1:3], tmp_path / "b")
    volume = read(tmp_path)
    assert volume.grid == GRID
    assert volume.header.remarks == ("2 duplicate(s) of slices, equal in every pixel, left out",)
    assert {file.parent.name for file in volume.header.files} == {"a"}


def test_deflated_duplicates_are_dropped(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = DEFLATED
    write(datasets, tmp_path / "a")
    write(datasets[1:2], tmp_path / "b")
    assert read(tmp_path).header.remarks == ("1 duplicate(s) of slices, equal in every pixel, left out",)


def test_different_images_at_one_place_are_refused(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "a")
    write(slices(numbered(GRID) + 1)[:2], tmp_path / "b")
    assert "at 2 of 6 places there are several different images" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "values", "labels"),
    [
        ("EchoTime", (10, 90), ["echo time 10 ms", "echo time 90 ms"]),
        ("DiffusionBValue", (0.0, 1000.0), ["b-value 0", "b-value 1000"]),
        ("TemporalPositionIdentifier", (1, 2), ["temporal position 1", "temporal position 2"]),
        ("AcquisitionNumber", (4, 5), ["acquisition 4", "acquisition 5"]),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
            ["image type 1", "image type 2"],
        ),
    ],
)
def test_several_images_at_each_place_become_parts(
    tmp_path: Path, keyword: str, values: tuple[object, object], labels: list[str]
) -> None:
    for number, value in enumerate(values):
        datasets = slices(numbered(GRID) + 1000 * number, modality="MR", **{keyword: value})
        write(datasets, tmp_path / str(number))
    parts = find_series(tmp_path, salt=SALT)
    assert [part.part for part in parts] == labels
    assert len({part.uid for part in parts}) == 1
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(read_series(part).array[0], numbered(GRID) + 1000 * number)


def test_values_that_differ_from_slice_to_slice_do_not_part_a_series(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID), modality="MR")
    for k, dataset in enumerate(datasets):
        dataset.AcquisitionNumber, dataset.TriggerTime = k, 10.0 * k
    write(datasets, tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    assert (series.grid, series.part) == (GRID, "")


def test_echoes_are_told_apart_though_every_slice_has_a_time_of_its_own(tmp_path: Path) -> None:
    for echo in (10, 90):
        datasets = slices(numbered(GRID) + echo, modality="MR", EchoTime=echo)
        for k, dataset in enumerate(datasets):
            dataset.TriggerTime = 10.0 * k + echo
        write(datasets, tmp_path / str(echo))
    assert [part.part for part in find_series(tmp_path, salt=SALT)] == ["echo time 10 ms", "echo time 90 ms"]


def test_frames_of_reference_and_sizes_are_kept_apart(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "a")
    write(slices(numbered(GRID), FrameOfReferenceUID=uid("another")), tmp_path / "b")
    write(slices(numbered((3, 5, 6))), tmp_path / "c")
    parts = find_series(tmp_path, salt=SALT)
    assert [part.part for part in parts] == [
        "frame of reference 1, size 3×5",
        "frame of reference 1, size 4×5",
        "frame of reference 2",
    ]


def test_two_orientations_in_one_series_become_two_volumes(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "a")
    write(slices(numbered(GRID), cosines=CORONAL), tmp_path / "b")
    assert [part.part for part in find_series(tmp_path, salt=SALT)] == ["orientation 1", "orientation 2"]


def test_few_slices_of_several_orientations_are_a_localiser(tmp_path: Path) -> None:
    for name, cosines in {"a": AXIAL, "b": CORONAL, "c": SAGITTAL}.items():
        write(slices(numbered((4, 5, 1)), cosines=cosines), tmp_path / name)
    nothing = found(tmp_path)
    assert nothing.series == []
    (localiser,) = nothing.left_out
    assert (localiser.kind, len(localiser.files)) == ("localiser", 3)
    assert localiser.reason == "3 orientation(s) of fewer than 3 slices each, no volume"


def test_a_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    write(slices(numbered((4, 5, 1)), SliceThickness=3), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    assert series.grid == (4, 5, 1)
    assert series.spacing_mm == pytest.approx((0.5, 0.8, 3))
    assert series.remarks == ("a single slice: its thickness is taken as the spacing",)
    write(slices(numbered((4, 5, 1)), SliceThickness=None), tmp_path)
    assert "does not say how thick it is" in refusal(tmp_path)


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 0.9, 0), (1, 0, 0, 0.1, 1, 0), (1, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 0)]
)
def test_directions_that_are_none_are_refused(tmp_path: Path, cosines: tuple[float, ...]) -> None:
    write(slices(numbered(GRID), at=positions(6, 2.0), cosines=cosines), tmp_path)
    assert "expected two perpendicular directions of length 1" in refusal(tmp_path)


def test_directions_that_are_rounded_are_made_unit_vectors(tmp_path: Path) -> None:
    cosines = (0.7071, 0.7071, 0, -0.7071, 0.7071, 0)
    write(slices(numbered(GRID), at=positions(6, 2.0), cosines=cosines), tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_allclose(series.spacing_mm, (0.5, 0.8, 2.0), atol=1e-12)


def test_pixels_without_a_size_are_refused(tmp_path: Path) -> None:
    write(slices(numbered(GRID), PixelSpacing=[0.5, 0]), tmp_path)
    assert "expected two lengths above 0" in refusal(tmp_path)


def test_the_normal_is_that_of_rows_and_columns() -> None:
    np.testing.assert_allclose(normal(OBLIQUE), [0.48, -0.64, 0.6], atol=1e-12)
    np.testing.assert_allclose(normal(SAGITTAL), [-1, 0, 0])
