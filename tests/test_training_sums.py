import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from oncoseg.store import PreparedCase, SliceWriter
from oncoseg.training.sums import EpochSums, count_pixels, mean_of_known, validate

LOGITS = torch.tensor([[[[2.0, 1.0, -1.0, -2.0]]]])
MASKS = torch.tensor([[[1, 0, 1, 0]]], dtype=torch.uint8)


def test_pixels_are_counted_at_one_half() -> None:
    assert tuple(count_pixels(LOGITS, MASKS)) == (1, 1, 1, 1)
    assert count_pixels(torch.zeros(1, 1, 1, 4), MASKS).prediction_empty
    two_classes = torch.cat([LOGITS, -LOGITS], dim=1)
    assert tuple(count_pixels(two_classes, 2 * MASKS)) == (2, 2, 0, 0)


def test_sums_are_means_of_losses_and_pooled_dice() -> None:
    sums = EpochSums()
    sums.add("mri", torch.tensor(0.5), LOGITS, MASKS)
    sums.add("ct", torch.tensor(0.1), LOGITS, torch.zeros_like(MASKS))
    sums.add("mri", torch.tensor(1.0), LOGITS, (LOGITS[:, 0] > 0).byte())
    assert sums.loss("mri") == pytest.approx(0.75)
    assert sums.dice("mri") == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert sums.dice("ct") == 0
    assert sums.latest_loss() == pytest.approx((1.0 + 0.1) / 2)


def test_nothing_found_where_nothing_is_has_no_dice() -> None:
    sums = EpochSums()
    sums.add("ct", torch.tensor(0.0), torch.full((1, 1, 2, 2), -9.0), torch.zeros(1, 2, 2))
    assert math.isnan(sums.dice("ct"))


def test_going_on_from_a_state_is_bit_identical() -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(0))
    whole, first = EpochSums(), EpochSums()
    for number, loss in enumerate(losses):
        whole.add("mri", loss, LOGITS, MASKS)
        if number < 9:
            first.add("mri", loss, LOGITS, MASKS)
    second = EpochSums(first.state())
    for loss in losses[9:]:
        second.add("mri", loss, LOGITS, MASKS)
    assert second.loss("mri") == whole.loss("mri")
    assert second.dice("mri") == whole.dice("mri")
    assert second.state() == whole.state()
    assert EpochSums(whole.state()).state() == whole.state()
    assert EpochSums({}).state() == {}


def test_a_state_goes_on_where_the_network_computes() -> None:
    sums = EpochSums()
    sums.add("mri", torch.tensor(0.5), LOGITS, MASKS)
    other = torch.device("meta")  # stands for a GPU: tensors of two devices cannot be joined
    resumed = EpochSums(sums.state(), other)
    resumed.add("mri", torch.tensor(0.5, device=other), LOGITS.to(other), MASKS.to(other))
    assert resumed._counts["mri"].device == other
    assert {loss.device for loss in resumed._losses["mri"]} == {other}


def test_sums_of_steps_join_to_those_of_the_epoch() -> None:
    whole, joined = EpochSums(), EpochSums()
    for loss in (0.5, 0.25):
        step = EpochSums()
        for sums in (whole, step):
            sums.add("mri", torch.tensor(loss), LOGITS, MASKS)
        step.add("ct", torch.tensor(1.0), LOGITS, MASKS)
        joined.join(step)
    assert joined.state()["mri"] == whole.state()["mri"]
    assert [(name, loss.item()) for name, loss in joined.losses()] == [
        *(("mri", 0.5), ("mri", 0.25), ("ct", 1.0), ("ct", 1.0))
    ]


def prepared(root: Path, name: str, patient: str, mask: list[int]) -> PreparedCase:
    """One row of pixels, brightest where the network below finds tumour."""
    (root / name).mkdir()
    writer = SliceWriter(root / name, 1, 1, (1, 4))
    writer.append(torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]), torch.tensor([[mask]]))
    writer.finish()
    return PreparedCase(name, patient, root / name, (0,))


def network(images: Tensor) -> Tensor:
    return 2 * images - 1


def test_validation_is_a_mean_over_patients(tmp_path: Path) -> None:
    cases = [
        prepared(tmp_path, "a", "P", [1, 1, 0, 0]),
        prepared(tmp_path, "b", "P", [0, 0, 0, 0]),  # with a: TP 2, FP 2, Dice 2/3
        prepared(tmp_path, "c", "Q", [1, 1, 1, 1]),  # TP 2, FN 2, Dice 2/3
        prepared(tmp_path, "d", "R", [1, 1, 0, 0]),  # Dice 1
    ]
    losses = iter([1.0, 2.0, 3.0, 6.0])
    loss, score = validate(cases, network, lambda logits, masks: torch.tensor(next(losses)))
    assert loss == 3
    assert score == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_validation_can_be_left_between_cases(tmp_path: Path) -> None:
    def stop() -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        validate([prepared(tmp_path, "a", "P", [1, 1, 0, 0])], network, lambda *_: torch.zeros(()), stop)


def test_what_is_not_known_is_left_out_of_the_mean() -> None:
    assert mean_of_known([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(mean_of_known([math.nan, math.nan]))
