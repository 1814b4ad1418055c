"""A volume computed window by window, against the same sums over the whole volume at once."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from oncoseg import windows
from oncoseg.windows import count_windows, importance, predict_windows, starts

GRIDS = [
    ((20, 18, 25), (8, 8, 8)),
    ((21, 9, 33), (8, 6, 7)),
    ((7, 20, 5), (8, 8, 8)),  # smaller than a window along two axes
    ((3, 4, 2), (5, 5, 5)),
    ((8, 8, 8), (8, 8, 8)),
]


def image(shape: tuple[int, ...], channels: int = 1) -> Tensor:
    return torch.rand(channels, *shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.01


def gathered(
    volume: Tensor, patch: tuple[int, int, int], network: windows.Network, classes: int = 1, **more: object
) -> Tensor:
    """All slabs joined; checks that they follow each other."""
    parts, before = [], volume.clone()
    at = 0
    shape = volume.shape[1:]
    for start, slab in predict_windows(
        lambda start, stop: volume[..., start:stop], shape, patch, network, classes=classes, **more
    ):
        assert start == at
        assert slab.shape[:3] == (classes, *shape[:2])
        at += slab.shape[-1]
        parts.append(slab)
    assert at == shape[2]
    assert torch.equal(volume, before), "what is read is not written to"
    return torch.cat(parts, dim=-1)


def itself(batch: Tensor) -> Tensor:
    return batch


def lopsided(batch: Tensor) -> Tensor:
    """Differs with the place in the window, so that weights matter."""
    ramp = torch.linspace(0, 1, batch.shape[-1]) + torch.linspace(0, 2, batch.shape[2])[:, None, None]
    return torch.cat([batch * ramp, 1 - batch], dim=1)


def at_once(volume: Tensor, patch: tuple[int, int, int], network: windows.Network, overlap: float) -> Tensor:
    """The plain way, in float64: all sums of a whole padded volume are held, and a Gaussian of its own."""
    low = [max(0, p - n) // 2 for n, p in zip(volume.shape[1:], patch, strict=True)]
    size = [max(n, p) for n, p in zip(volume.shape[1:], patch, strict=True)]
    padded = np.zeros((len(volume), *size))
    inner = tuple(slice(a, a + n) for a, n in zip(low, volume.shape[1:], strict=True))
    padded[(slice(None), *inner)] = volume
    centre = (np.indices(patch).reshape(3, -1).T - (np.array(patch) - 1) / 2) / np.array(patch)
    weight = np.exp(-32 * (centre**2).sum(axis=1)).reshape(patch)  # ½ / (1/8)² = 32
    total, norm = 0.0, np.zeros(size)
    for place in product(*[starts(n, p, overlap) for n, p in zip(size, patch, strict=True)]):
        part = (slice(None), *[slice(s, s + p) for s, p in zip(place, patch, strict=True)])
        one = network(torch.from_numpy(padded[part]).float()[None])[0].numpy()
        if np.isscalar(total):
            total = np.zeros((len(one), *size))
        total[part] += weight * one
        norm[part[1:]] += weight
    return torch.from_numpy((total / norm)[(slice(None), *inner)]).float()


@pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
@pytest.mark.parametrize(("shape", "patch"), GRIDS)
def test_slab_by_slab_is_the_whole_volume_at_once(
    shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float
) -> None:
    volume = image(shape)
    expected = at_once(volume, patch, lopsided, overlap)
    found = gathered(volume, patch, lopsided, classes=2, overlap=overlap, batch_size=3)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
@pytest.mark.parametrize(("shape", "patch"), GRIDS)
def test_windows_leave_no_seams(
    shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float
) -> None:
    volume = image(shape, channels=2)
    assert torch.allclose(gathered(volume, patch, itself, classes=2, overlap=overlap), volume, atol=1e-6)


def test_the_size_of_the_batch_changes_nothing() -> None:
    volume = image((20, 18, 25))
    one, many = (gathered(volume, (8, 8, 8), lopsided, classes=2, batch_size=size) for size in (1, 7))
    assert torch.equal(one, many)


@pytest.mark.parametrize("at_a_time", [1, 3, 7])
def test_how_many_slices_are_given_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    volume = image((20, 18, 45))
    whole = gathered(volume, (8, 8, 11), lopsided, classes=2)
    monkeypatch.setattr(windows, "AT_A_TIME", at_a_time)
    assert torch.equal(gathered(volume, (8, 8, 11), lopsided, classes=2), whole)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.95))
def test_windows_cover_an_axis_and_overlap_as_asked(size: int, patch: int, overlap: float) -> None:
    size = max(size, patch)
    begins = starts(size, patch, overlap)
    assert begins[0] == 0
    assert begins[-1] + patch == size
    assert begins == sorted(set(begins))
    covered = np.zeros(size, int)
    for start in begins:
        covered[start : start + patch] += 1
    assert covered.min() == 1 or overlap > 0
    assert covered.min() >= 1
    steps = np.diff(begins)
    assert (steps <= max(1, np.floor(patch * (1 - overlap)))).all()


def test_known_starts() -> None:
    assert starts(10, 4, 0.5) == [0, 2, 4, 6]
    assert starts(11, 4, 0) == [0, 4, 7]  # 7 voxels in 2 steps, 3.5 rounded to the even number
    assert starts(4, 4, 0.75) == [0]
    assert count_windows((10, 3, 11), (4, 4, 4), 0.5) == 4 * 1 * 5


@pytest.mark.parametrize(("size", "patch", "overlap"), [(3, 4, 0.5), (4, 0, 0.5), (4, 2, 1), (4, 2, -0.1)])
def test_what_cannot_be_covered_is_refused(size: int, patch: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        starts(size, patch, overlap)


def test_importance_is_nnunets_gaussian() -> None:
    weight = importance(65)
    assert weight[32] == 1
    assert torch.equal(weight, weight.flip(0))
    assert weight[32 + 13] == pytest.approx(np.exp(-0.5 * (13 / (65 / 8)) ** 2), rel=1e-6)
    assert importance(128).min() > 0


def test_windows_of_zeros_are_not_computed() -> None:
    volume = torch.zeros(1, 8, 8, 24)
    volume[0, 3, 3, 2] = 1
    seen = []

    def ones(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return torch.ones_like(batch)

    found = gathered(volume, (8, 8, 8), ones, overlap=0)
    assert sum(seen) == 1
    assert torch.allclose(found[..., :8], torch.ones(1))
    assert found[..., 8:].eq(0).all()


def test_every_slice_is_read_once_and_in_order() -> None:
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return torch.ones(1, 6, 6, stop - start)

    for _ in predict_windows(read, (6, 6, 100), (4, 4, 8), itself, classes=1, overlap=0.75):
        pass
    assert [k for start, stop in asked for k in range(start, stop)] == list(range(100))
    assert max(stop - start for start, stop in asked) == 8


def test_what_is_held_does_not_grow_with_the_scan() -> None:
    longest = 0
    for _, slab in predict_windows(
        lambda start, stop: torch.ones(1, 6, 6, stop - start), (6, 6, 500), (4, 4, 8), itself, classes=1
    ):
        longest = max(longest, slab.untyped_storage().nbytes())
    assert longest <= 6 * 6 * 8 * 4


def test_windows_that_are_half_precision_are_summed_in_full() -> None:
    volume = image((8, 8, 8)).half()
    found = gathered(volume, (4, 4, 4), itself)
    assert found.dtype == torch.float32
    assert torch.allclose(found, volume.float(), atol=1e-6)


def test_the_documents_example_runs() -> None:
    page = Path(__file__).parents[1] / "docs" / "volumes.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert "assert torch.allclose" in example
    exec(compile(example, str(page), "exec"), {})
