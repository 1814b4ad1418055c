import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.metrics import NO_VOXELS, Confusion
from oncoseg.store import PreparedCase, SliceWriter
from oncoseg.training.sums import EpochSums, Validated, count_pixels, mean_of_known, validate

LOGITS = torch.tensor([[[[2.0, 1.0, -1.0, -2.0]]]])
MASKS = torch.tensor([[[1, 0, 1, 0]]], dtype=torch.uint8)


def test_pixels_are_counted_at_one_half() -> None:
    assert count_pixels(LOGITS, MASKS) == (Confusion(1, 1, 1, 1),)
    assert count_pixels(torch.zeros(1, 1, 1, 4), MASKS)[0].prediction_empty
    two_classes = torch.cat([LOGITS, -LOGITS], dim=1)  # found: 1 1 2 2
    assert count_pixels(two_classes, 2 * MASKS) == (Confusion(0, 2, 0, 2), Confusion(1, 1, 1, 1))
    # neither class has half of a pixel, but both together have more than the background
    assert count_pixels(torch.full((1, 2, 1, 4), -0.5), MASKS)[1].tp == 0
    assert count_pixels(torch.full((1, 2, 1, 4), -0.5), 2 * MASKS)[1] == Confusion(2, 2, 0, 0)


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


def test_a_state_of_the_first_versions_goes_on() -> None:
    sums = EpochSums({"mri": [[0.5, 0.25], [3, 1, 1]]})
    assert sums.dice("mri") == 2 * 3 / (2 * 3 + 1 + 1)
    sums.add("mri", torch.tensor(0.75), LOGITS, MASKS)
    assert sums.loss("mri") == 0.5
    assert sums.dice("mri") == 2 * 4 / (2 * 4 + 2 + 2)


def test_dice_of_an_epoch_is_the_mean_over_classes() -> None:
    sums = EpochSums()
    found = 2 * functional.one_hot(torch.tensor([[[1, 1, 2, 0]]]), 4)[..., 1:].movedim(-1, 1).float() - 1
    sums.add("ct", torch.tensor(0.5), found, torch.tensor([[[1, 1, 1, 2]]]))
    sums.add("ct", torch.tensor(0.5), found, torch.tensor([[[1, 1, 2, 0]]]))
    # of class 1 TP 4, FN 1; of class 2 TP 1, FP 1, FN 1; class 3 is nowhere in the truth
    assert sums.dice("ct") == pytest.approx((8 / 9 + 2 / 4) / 2)
    assert EpochSums(sums.state()).dice("ct") == sums.dice("ct")


def test_the_consistency_is_the_mean_over_batches_and_goes_on_from_a_checkpoint() -> None:
    sums, step = EpochSums(), EpochSums()
    assert sums.consistency() is None
    for value in (0.25, 0.5):
        step.add_consistency(torch.tensor(value))
    sums.join(step)
    assert sums.consistencies() == [0.25, 0.5]
    resumed = EpochSums({}, None, sums.consistencies())
    resumed.add_consistency(torch.tensor(1.5))
    assert resumed.consistency() == 0.75


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
    loss, score, of_classes = validate(cases, network, lambda logits, masks: torch.tensor(next(losses)))
    assert loss == 3
    assert score == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert of_classes == (), "of a single class there is nothing more to say"


LIVER = [1, 1, 2, 2]
"""A row of pixels: liver, and its tumour."""


def finding(*rows: list[int]) -> Callable[[Tensor], Tensor]:
    """A network of two classes that is sure of each next case's row."""
    left = iter(rows)

    def network(images: Tensor) -> Tensor:
        return 20 * functional.one_hot(torch.tensor([[next(left)]]), 3)[..., 1:].movedim(-1, 1).float() - 10

    return network


def nothing_lost(*_: Tensor) -> Tensor:
    return torch.zeros(())


@pytest.mark.parametrize(
    ("found", "liver", "tumour"),
    [
        (LIVER, 1, 1),
        ([1, 1, 1, 1], 2 * 2 / (2 * 2 + 2), 0),  # no tumour anywhere
        ([2, 2, 2, 2], 0, 2 * 2 / (2 * 2 + 2)),  # the whole liver is tumour
        ([1, 1, 0, 2], 1, 2 * 1 / (2 * 1 + 1)),
        ([0, 0, 0, 0], 0, 0),
    ],
)
def test_who_misses_a_class_scores_badly(
    tmp_path: Path, found: list[int], liver: float, tumour: float
) -> None:
    result = validate([prepared(tmp_path, "a", "P", LIVER)], finding(found), nothing_lost)
    assert result == Validated(0, pytest.approx((liver + tumour) / 2), pytest.approx((liver, tumour)))
    assert list(result.by_class(["liver", "tumour"])) == ["liver", "tumour"]


def test_each_patients_dice_is_the_mean_over_the_classes_that_there_are(tmp_path: Path) -> None:
    cases = [
        prepared(tmp_path, "a", "P", [1, 1, 2, 2]),
        prepared(tmp_path, "b", "P", [1, 1, 0, 0]),  # with a: liver 1; tumour TP 1, FN 1, 2/3
        prepared(tmp_path, "c", "Q", [1, 1, 0, 0]),  # liver 1, tumour nowhere: left out
        prepared(tmp_path, "d", "R", [1, 1, 0, 0]),  # liver 1, tumour where none is: 0
        prepared(tmp_path, "e", "S", [0, 0, 0, 0]),  # nothing, rightly
    ]
    network = finding([1, 1, 2, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 2, 0], [0, 0, 0, 0])
    found = validate(cases, network, nothing_lost)
    assert found.dice == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1 / 2) / 3)
    assert found.of_classes == pytest.approx((1, (2 / 3 + 0) / 2))


def test_a_class_of_which_no_patient_has_any_does_not_choose(tmp_path: Path) -> None:
    cases = [prepared(tmp_path, "a", "P", [1, 1, 0, 0]), prepared(tmp_path, "b", "Q", [1, 1, 0, 0])]
    found = validate(cases, finding([1, 1, 0, 0], [1, 1, 2, 0]), nothing_lost)
    assert (found.loss, found.dice, found.of_classes[0]) == (0, 1, 1)
    assert math.isnan(found.of_classes[1])


class _Process:
    """One of two processes: the first one is told what the second found."""

    count = 2

    def __init__(self, number: int, told: list[Any]) -> None:
        self.number, self.told = number, told

    def dealt(self, items: Any) -> Any:
        return items[self.number :: 2]

    def gathered(self, own: list[Any], total: int) -> list[Any]:
        if self.number == 1:
            self.told += pickle.loads(pickle.dumps(own))
            return [(0.0, (NO_VOXELS, NO_VOXELS))] * total
        return [(own, self.told)[number % 2][number // 2] for number in range(total)]


def test_processes_that_share_the_cases_find_the_same_of_each_class(tmp_path: Path) -> None:
    rows = [[1, 1, 2, 2], [1, 0, 0, 0], [2, 2, 2, 0]]
    found = [[1, 1, 2, 0], [1, 0, 0, 0], [1, 2, 2, 0]]
    cases = [
        prepared(tmp_path, name, "PQP"[n], row) for n, (name, row) in enumerate(zip("abc", rows, strict=True))
    ]
    alone = validate(cases, finding(*found), nothing_lost)
    told: list[Any] = []
    validate(cases, finding(*found[1::2]), nothing_lost, ranks=cast(Any, _Process(1, told)))
    assert validate(cases, finding(*found[::2]), nothing_lost, ranks=cast(Any, _Process(0, told))) == alone
    assert alone.of_classes == pytest.approx(((2 * 2 / (2 * 2 + 1) + 1) / 2, 2 * 3 / (2 * 3 + 2)))


def test_validation_can_be_left_between_cases(tmp_path: Path) -> None:
    def stop() -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        validate([prepared(tmp_path, "a", "P", [1, 1, 0, 0])], network, lambda *_: torch.zeros(()), stop)


def test_what_is_not_known_is_left_out_of_the_mean() -> None:
    assert mean_of_known([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(mean_of_known([math.nan, math.nan]))
