import nibabel as nib
import numpy as np
import pytest

from oncoseg import io
from oncoseg.display import (
    LUNG,
    PERCENTILES,
    SOFT_TISSUE,
    Window,
    brightness,
    choose_window,
    letters,
    shown_channel,
)
from oncoseg.io.images import STACK_AFFINE_RAS
from oncoseg.volume import Volume


def turned(axis: int, degrees: float) -> np.ndarray:
    """A grid of 1 mm voxels along RAS+ that is turned about one of the patient's axes."""
    one, other = [each for each in range(3) if each != axis]
    affine, angle = np.eye(4), np.radians(degrees)
    affine[one, one] = affine[other, other] = np.cos(angle)
    affine[other, one], affine[one, other] = np.sin(angle), -np.sin(angle)
    return affine


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (np.eye(4), ("R", "L", "A", "P")),
        (np.diag([4, 0.9, 0.9, 1.0]), ("R", "L", "A", "P")),  # millimetres do not matter
        (turned(2, 10), ("R", "L", "A", "P")),
        # 20° about the axis from head to feet: sin 20° = 0.34 of i points to anterior, of j to the left
        (turned(2, 20), ("RA", "LP", "AL", "PR")),
        # a tilt of 30° about the axis from right to left: j also points to superior
        (turned(0, 30), ("R", "L", "AS", "PI")),
        (turned(0, -30), ("R", "L", "AI", "PS")),
    ],
)
def test_letters_name_what_lies_at_the_sides_of_the_picture(
    affine: np.ndarray, expected: tuple[str, str, str, str]
) -> None:
    assert letters(affine) == expected


@pytest.mark.parametrize(
    ("channels", "label", "expected"),
    [
        (["T1", "T1ce", "T2", "FLAIR"], "oedema", "FLAIR"),
        (["T1", "T1ce", "T2", "FLAIR"], "enhancing tumour", "T1ce"),
        (["T1", "T1ce", "T2", "FLAIR"], "TC", "T1ce"),
        (["T1", "FLAIR"], "ET", "FLAIR"),
        (["T1", "T2"], "tumour", "T2"),
        (["T1w", "t1gd", "T2w"], "core", "t1gd"),
        (["T1w", "t1gd", "T2w"], "tumour", "T2w"),
        (["image 0000", "image 0001"], "tumour", "image 0000"),
    ],
)
def test_the_channel_on_which_a_class_is_seen_best(channels: list[str], label: str, expected: str) -> None:
    assert shown_channel(channels, label) == expected


def chest(tissue: float = 40) -> tuple[np.ndarray, np.ndarray]:
    """CT of 60×40×3 voxels of 1 mm: air, 30 voxels of soft tissue, 20 of lung; and a mask of nothing."""
    voxels = np.full((60, 40, 3), -1000.0, np.float32)
    voxels[5:35], voxels[35:55] = tissue, -850
    return voxels, np.zeros(voxels.shape, bool)


def test_ct_is_windowed_by_what_lies_around_the_marks() -> None:
    voxels, marks = chest()
    in_tissue, in_lung = marks.copy(), marks.copy()
    in_tissue[10:12, 20, 1] = in_lung[50:52, 20, 1] = True
    assert choose_window(voxels, in_tissue, (1, 1, 1)) == SOFT_TISSUE
    assert choose_window(voxels, in_lung, (1, 1, 1)) == LUNG
    # 15 mm around i = 10 are 3 voxels of 5 mm, which end before the lung; 15 of 1 mm do as well
    near = marks.copy()
    near[30, 20, 1] = True
    assert choose_window(voxels, near, (5, 1, 1)) == SOFT_TISSUE
    assert choose_window(voxels, near, (1, 1, 1)) == LUNG  # 11 of 31 voxels along i are lung
    assert "level 40, width 400 HU" in SOFT_TISSUE.words
    assert (SOFT_TISSUE.low, SOFT_TISSUE.high) == (40 - 200, 40 + 200)
    assert (LUNG.low, LUNG.high) == (-600 - 750, -600 + 750)


def test_an_image_that_is_named_as_something_else_is_not_taken_for_ct() -> None:
    voxels, marks = chest()
    marks[10:12, 20, 1] = True
    assert choose_window(voxels, marks, (1, 1, 1), "CT") == SOFT_TISSUE
    assert choose_window(voxels, marks, (1, 1, 1), "T1").words.startswith("grey from")


def test_other_images_are_windowed_by_percentiles_without_the_background() -> None:
    voxels = np.zeros((10, 30, 10), np.int16)  # of 3000 voxels 2000 are background
    voxels[:, :10] = np.arange(1, 1001).reshape(10, 10, 10)
    voxels[0, 29, 0] = 30_000  # one hot voxel changes nothing
    found = choose_window(voxels, voxels > 500, None)
    low, high = np.percentile([*range(1, 1001), 30_000], PERCENTILES)
    assert found[:2] == pytest.approx((low, high))
    assert high < 1000
    assert found.words == f"grey from {low:.4g} to {high:.4g}"


def test_a_constant_image_is_black() -> None:
    voxels = np.full((4, 4, 4), 7, np.uint8)
    assert not brightness(voxels, choose_window(voxels, voxels > 9)).any()


def test_brightness_is_black_to_white_within_the_window() -> None:
    found = brightness(np.array([-500, -160, 40, 240, 3000], np.int16), SOFT_TISSUE)
    assert found.tolist() == [0, 0, 0.5, 1, 1]
    assert brightness(np.array([5]), Window(5, 5, "")).tolist() == [0]


@pytest.mark.parametrize(("codes", "known"), [((0, 0), False), ((1, 0), True), ((0, 2), True)])
def test_nifti_without_codes_does_not_say_how_the_patient_lies(
    tmp_path, codes: tuple[int, int], known: bool
) -> None:
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    image.set_qform(np.eye(4), codes[0])
    image.set_sform(np.eye(4), codes[1])
    image.to_filename(tmp_path / "a.nii")
    assert io.orientation_known(io.read(io.ImageRef((tmp_path / "a.nii",)))) is known


def test_pictures_do_not_say_how_the_patient_lies_and_other_formats_do() -> None:
    array = np.zeros((1, 2, 3, 4), np.uint8)
    assert not io.orientation_known(Volume(array, STACK_AFFINE_RAS, spacing_known=False))
    assert io.orientation_known(Volume(array, np.eye(4)))
