"""Scaling whole volumes: by hand, and the same in whatever slabs they come."""

import numpy as np
import pytest

from oncoseg import scaling
from oncoseg.errors import DataError
from oncoseg.scaling import Intensities, Range, scale_voxels

PERCENTILES, WINDOW = (10.0, 90.0), (-100.0, 300.0)


def ranges(voxels: np.ndarray, kind: str, over: str = "all") -> list[Range]:
    seen = Intensities(voxels.shape[1:])
    seen.add(voxels)
    return seen.ranges(kind, PERCENTILES, WINDOW, over)


def test_ranges_by_hand() -> None:
    counting = np.arange(-1, 10, dtype=np.int16).reshape(1, 11, 1, 1)  # -1 … 9
    assert ranges(counting, "volume-percentile") == [Range(0, 8)]
    assert ranges(counting, "window") == [Range(-100, 300)]
    low, high, _ = ranges(counting, "volume-zscore")[0]
    assert (low, high) == pytest.approx((4 - 5 * 10**0.5, 4 + 5 * 10**0.5))
    # without the 0: -1, 1 … 9
    [found] = ranges(counting, "volume-percentile", "nonzero")
    assert found == Range(pytest.approx(0.8), pytest.approx(8.1), True)


def test_voxels_are_laid_onto_0_to_1() -> None:
    voxels = np.array([[0, 100, 200, 500], [0, 0, 0, 0]], np.int16).reshape(2, 4, 1, 1)
    scaled = scale_voxels(voxels, [Range(-100, 300), Range(0, 0)])
    assert scaled[0].flatten().tolist() == [0.25, 0.5, 0.75, 1]
    assert not scaled[1].any()
    stays = scale_voxels(voxels[:1], [Range(-100, 300, True)])
    assert stays.flatten().tolist() == [0, 0.5, 0.75, 1]


@pytest.mark.parametrize("kind", ["volume-percentile", "volume-zscore"])
def test_slabs_in_any_order_give_the_very_ranges(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SAMPLED_VOXELS", 500)
    voxels = np.random.default_rng(0).normal(size=(2, 20, 30, 9)).astype(np.float32)
    backwards = Intensities((20, 30, 9))
    for start in (6, 3, 0):
        backwards.add(voxels[..., start : start + 3])
    assert backwards.ranges(kind, PERCENTILES, WINDOW, "nonzero") == ranges(voxels, kind, "nonzero")


def test_a_sample_tells_the_percentiles_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SAMPLED_VOXELS", 20_000)
    voxels = np.random.default_rng(0).normal(size=(1, 80, 90, 40)).astype(np.float32)
    [found] = ranges(voxels, "volume-percentile")
    np.testing.assert_allclose(found[:2], np.percentile(voxels, PERCENTILES), atol=0.03)


def test_a_slice_thinner_than_the_step_is_still_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SAMPLED_VOXELS", 10)
    assert ranges(np.ones((1, 2, 100, 30)), "volume-percentile") == [Range(1, 1)]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(DataError, match="Unknown scaling 'slice-minmax'; expected volume-percentile"):
        ranges(np.ones((1, 2, 2, 2)), "slice-minmax")
