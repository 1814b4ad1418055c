"""One rule says which class a voxel is of, for truth and prediction."""

import numpy as np
import pytest
import torch

from oncoseg.augment import augment, slices
from oncoseg.logits import labels, likeliest, probabilities
from oncoseg.resampling import resample_labels
from oncoseg.shares import foreground, rule_of, to_labels
from oncoseg.transforms import resize_labels
from test_augment import NONE

MEETINGS = [
    ((1, 1, 2, 0), 1),
    ((1, 2, 2, 0), 2),
    ((1, 2, 3, 0), 3),  # a quarter each, but three quarters are no background: of equal ones the last
    ((1, 2, 0, 0), 2),  # half is enough
    ((3, 3, 0, 0), 3),
    ((2, 0, 0, 0), 0),
    ((0, 0, 0, 0), 0),
    ((2, 2, 2, 2), 2),
]
"""Four pixels that become one, and what it is."""


def test_what_is_mostly_foreground_is_of_the_likeliest_class() -> None:
    probability = np.array([[0.45, 0.6, 0.24, 0.2, 0.5, 0.25, 0.1], [0.40, 0.3, 0.25, 0.7, 0.5, 0.25, 0.0]])
    found = to_labels(probability, 0.5)
    # backgrounds 0.15, 0.1, 0.51, 0.1, 0, 0.5, 0.9
    assert found.tolist() == [1, 1, 0, 2, 2, 2, 0]
    assert found.dtype == np.uint8
    assert to_labels(probability, 0.8).tolist() == [1, 1, 0, 2, 2, 0, 0]


def test_one_class_is_compared_with_the_threshold_as_it_is() -> None:
    probability = np.random.default_rng(0).random((1, 4, 5, 6), np.float32)
    probability[0, 0, 0, 0] = 0.3
    assert np.array_equal(to_labels(probability, 0.3), (probability[0] >= 0.3).astype(np.uint8))
    assert np.shares_memory(foreground(probability), probability)


def test_all_classes_together_are_at_most_certain() -> None:
    thirds = np.full((3, 1), np.nextafter(np.float32(1 / 3), np.float32(1)), np.float32)
    assert thirds.sum() > 1
    assert foreground(thirds).tolist() == [1]


def test_logits_are_marked_as_their_probabilities_are() -> None:
    logits = 2 * torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    found = labels(logits)
    assert np.array_equal(found[0].numpy(), to_labels(probabilities(logits)[0].numpy(), 0.5))
    assert set(found.unique().tolist()) == {0, 1, 2, 3}
    alone = labels(logits[:, :1])
    assert torch.equal(alone, (logits[:, 0] > 0).byte())


def test_a_voxel_that_no_class_has_half_of_is_not_background() -> None:
    logits = torch.tensor([0.45, 0.40]).log() - torch.tensor(0.15).log()
    assert labels(logits.view(1, 2, 1, 1)).item() == 1
    torch.testing.assert_close(probabilities(logits.view(1, 2, 1, 1)).flatten(), torch.tensor([0.45, 0.40]))


@pytest.mark.parametrize(("four", "expected"), MEETINGS)
def test_four_pixels_become_the_same_wherever_they_meet(
    four: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.array(four, np.uint8).reshape(2, 2, 1)
    shares = np.array([[four.count(index) / 4] for index in (1, 2, 3)])
    assert to_labels(shares, 0.5).item() == expected, "predicted"
    assert likeliest(torch.tensor(shares.T), torch.tensor(shares.sum(0) >= 0.5)).item() == expected
    assert resize_labels(mask, 3, (1, 1)).item() == expected, "prepared as slices"
    assert resample_labels(mask, 3, (1, 1, 1)).item() == expected, "prepared as volumes"
    monkeypatch.setattr(slices, "sampling_grid", lambda *_: torch.zeros(1, 1, 1, 2))  # between all four
    image, truth = torch.zeros(1, 1, 2, 2), torch.from_numpy(mask[None, ..., 0])
    assert augment(image, truth, 3, NONE, torch.Generator())[1].item() == expected, "augmented"


def test_records_name_the_rule_where_there_is_one() -> None:
    assert rule_of(1) == {}
    assert "all together" in rule_of(2)["labels_by"]
