import numpy as np
import pytest

from oncoseg.metrics.boxes import bounding_box


def test_the_box_holds_every_voxel_and_is_never_empty() -> None:
    mask = np.zeros((5, 6), bool)
    assert bounding_box(mask) == (slice(0, 1), slice(0, 1))
    mask[1, 4] = mask[3, 2] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 5))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_of_several_masks_holds_the_voxels_of_each(order: str) -> None:
    one, other = (np.zeros((7, 8, 9), np.uint8, order) for _ in range(2))
    one[2, 3, 4] = 200
    assert bounding_box(one, other) == (slice(2, 3), slice(3, 4), slice(4, 5))
    other[5, 1, 4] = 1
    assert bounding_box(one, other) == bounding_box(other, one) == (slice(2, 6), slice(1, 4), slice(4, 5))
