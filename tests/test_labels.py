"""Label maps small enough to check by hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oncoseg.errors import DataError
from oncoseg.labels import consensus, has_label, merge_labels, resample_labels
from oncoseg.volume import Volume


@pytest.mark.parametrize(
    ("votes", "share", "expected"),
    [
        ([1, 1, 0, 0], 0.5, 1),  # a tie is kept
        ([1, 0, 0, 0], 0.5, 0),
        ([1, 0, 0], 0.5, 0),
        ([1, 1, 0], 0.5, 1),
        ([1, 0, 0, 0], 0.25, 1),
        ([1, 1, 1, 0], 1.0, 0),
        ([1, 1, 1, 1], 1.0, 1),
        ([1, 1, 2, 2], 0.5, 1),  # both reach the share: the smaller label
        ([2, 2, 0, 1], 0.5, 2),
        ([3], 1.0, 3),
    ],
)
def test_consensus_of_one_voxel(votes: list[int], share: float, expected: int) -> None:
    masks = [np.full((1, 1, 1), vote, np.uint8) for vote in votes]
    assert consensus(masks, share).item() == expected


def test_consensus_keeps_shape_type_and_its_inputs() -> None:
    masks = [np.eye(3, dtype=np.uint8)[..., None] for _ in range(2)]
    agreed = consensus(masks, 0.5)
    np.testing.assert_array_equal(agreed, masks[0])
    assert agreed.dtype == np.uint8


BRATS = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour", 4: "enhancing tumour"}


def test_labels_become_class_indices() -> None:
    mask = np.array([0, 1, 2, 3, 4])
    assert merge_labels(mask, BRATS, {"tumour": ("*",)}).tolist() == [0, 1, 1, 1, 1]
    nested = {"whole": ("*",), "core": ("necrotic core", "enhancing tumour"), "rim": ("enhancing tumour",)}
    assert merge_labels(mask, BRATS, nested).tolist() == [0, 2, 1, 3, 3]
    assert merge_labels(mask, BRATS, {"oedema": ("oedema",)}).tolist() == [0, 0, 1, 0, 0]
    assert merge_labels(mask.astype(np.float32), BRATS, {"t": ("*",)}).dtype == np.uint8


def test_unknown_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"label values \[5\]; expected only 0 and \[1, 2, 3, 4\]"):
        merge_labels(np.array([0, 5, 1]), BRATS, {"tumour": ("*",)})
    with pytest.raises(DataError, match=r"label values \[0\.5\]"):
        merge_labels(np.array([0, 0.5, 1]), BRATS, {"tumour": ("*",)})
    with pytest.raises(DataError, match="Class liver joins"):
        merge_labels(np.array([0, 1]), BRATS, {"liver": ("liver",)})


def test_labels_move_to_the_nearest_voxel_of_another_grid() -> None:
    labels = np.zeros((1, 4, 4, 4), np.uint8)
    labels[0, 2, 1, 3] = 7
    coarse = Volume(labels, np.diag([2.0, 2, 2, 1]))
    fine = Volume(np.zeros((1, 8, 8, 8), np.uint8), np.diag([1.0, 1, 1, 1]))
    moved = resample_labels(coarse, fine).array[0]
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) == {0, 7}
    # the voxel's centre lies at (4, 2, 6) mm; ties between two voxels go to one of them
    assert moved[4, 2, 6] == 7
    assert 8 <= np.count_nonzero(moved) <= 27


def test_labels_outside_the_other_grid_are_background() -> None:
    labels = Volume(np.ones((1, 2, 2, 2), np.uint8), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 1
    like = Volume(np.zeros((1, 2, 2, 2), np.uint8), shifted)
    assert resample_labels(labels, like).array[0, :, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_no_label_at_the_edge_is_lost_to_rounding(seed: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * [0.7, 1.3, 2.1]
    affine[:3, 3] = (-120.3, 85.1, 1034.7)
    labels = Volume(np.ones((1, 5, 6, 7), np.uint8), affine.astype(np.float32).astype(float))
    assert resample_labels(labels, Volume(np.zeros((1, 5, 6, 7), np.uint8), affine)).array.all()


def test_a_voxel_reaches_to_its_edge() -> None:
    labels = Volume(np.ones((1, 2, 1, 1), np.uint8), np.eye(4))
    tenths = np.diag([0.1, 1, 1, 1])
    tenths[0, 3] = -1.05
    moved = resample_labels(labels, Volume(np.zeros((1, 40, 1, 1), np.uint8), tenths)).array[0, :, 0, 0]
    # centres at -1.05, -0.95, ... mm: the two voxels take from -0.5 to 1.5 mm
    assert np.flatnonzero(moved).tolist() == list(range(6, 26))


def test_mirrored_axes_are_followed() -> None:
    labels = np.zeros((1, 3, 1, 1), np.uint8)
    labels[0, 0] = 5
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 2
    like = Volume(np.zeros((1, 3, 1, 1), np.uint8), mirrored)
    assert resample_labels(Volume(labels, np.eye(4)), like).array[0, :, 0, 0].tolist() == [0, 0, 5]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64, bool])
def test_where_a_mask_holds_one_of_several_labels(dtype: type) -> None:
    mask = np.asfortranarray(np.array([[0, 1], [2, 1]]).astype(dtype))
    assert has_label(mask, (1,)).tolist() == [[False, True], [dtype is bool, True]]
    assert has_label(mask, (2, 7)).tolist() == [[False, False], [dtype is not bool, False]]
    assert has_label(mask, ()).dtype == bool
    assert has_label(mask, (1,)).flags.f_contiguous or mask.dtype.kind != "u"
