"""Losses with several classes, against plain references: every class counts, background where it should."""

import monai.losses
import pytest
import torch

from oncoseg.losses import generalised_dice, lovasz

LOGITS = torch.tensor(
    [
        [[2.0, -1.0, 0.5, 0.0, -2.0, 1.0], [-1.0, 3.0, 0.5, -1.0, -1.5, 1.5]],
        [[-3.0, 0.2, 1.1, 2.2, -0.4, -1.0], [0.3, -2.0, 2.5, -0.7, 0.9, 0.1]],
    ]
)[:, :, None]
"""Two slices of two classes and six pixels."""

TARGET = torch.tensor([[0, 2, 1, 0, 0, 2], [0, 0, 2, 1, 2, 0]])[:, None]
"""Their truth, with both classes."""


def shares(logits: torch.Tensor) -> list[list[float]]:
    """Probabilities of background and each class, of every pixel of every slice."""
    odds = logits.double().exp()
    whole = 1 + odds.sum(1, keepdim=True)
    return torch.cat([1 / whole, odds / whole], 1).movedim(1, 0).flatten(1).tolist()


def lovasz_by_sets(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Berman et al. 2018, eq. 8 and 9 word by word: 1 − IoU as a function of the set of wrong pixels."""
    truth, losses = target.flatten().tolist(), []
    for index, probability in enumerate(shares(logits)):
        inside = {place for place, found in enumerate(truth) if found == index}
        if not inside:
            continue
        errors = [1 - p if place in inside else p for place, p in enumerate(probability)]
        order = sorted(range(len(truth)), key=lambda place: -errors[place])
        loss, before, wrong = 0.0, 0.0, set[int]()
        for place in order:
            wrong.add(place)
            now = len(wrong) / len(inside | wrong)
            loss, before = loss + errors[place] * (now - before), now
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("absent", [None, 0, 1, 2])
def test_lovasz_is_the_mean_over_all_present_classes_and_background(absent: int | None) -> None:
    target = TARGET.clone()
    if absent is not None:
        target[target == absent] = (absent + 1) % 3
    expected = lovasz_by_sets(LOGITS, target)
    assert lovasz(LOGITS, target).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_sees_an_absent_class_over_the_background() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[0, :2, :2] = 2
    logits = torch.full((1, 2, 8, 8), -20.0)
    logits[:, 1, :2, :2] = 20.0
    assert lovasz(logits, target).item() == pytest.approx(0, abs=1e-6)
    logits[:, 0][target == 0] = 2.0
    logits.requires_grad_()
    loss = lovasz(logits, target)
    loss.backward()
    probability = torch.sigmoid(torch.tensor(2.0)).item()
    # all 60 pixels of background are wrong alike, by p; class 2 is perfect
    assert loss.item() == pytest.approx(probability / 2, rel=1e-5)
    slope = probability * (1 - probability) / 2 / 60
    assert logits.grad[:, 0][target == 0].tolist() == pytest.approx([slope] * 60, rel=1e-4)


def test_lovasz_without_any_class_is_the_mean_probability_of_all() -> None:
    target = torch.zeros_like(TARGET)
    expected = sum(1 - p for p in shares(LOGITS)[0]) / target.numel()
    assert lovasz(LOGITS, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("absent", [None, 0, 1, 2])
def test_generalised_dice_is_monais_also_where_a_class_is_absent(absent: int | None) -> None:
    target = TARGET.clone()
    if absent is not None:
        target[target == absent] = (absent + 1) % 3
    # theirs adds its constants before the weights are made relative to the largest
    theirs = monai.losses.GeneralizedDiceLoss(
        to_onehot_y=True, softmax=True, batch=True, smooth_nr=0.0, smooth_dr=0.0
    )
    expected = theirs(torch.cat([torch.zeros_like(LOGITS[:, :1]), LOGITS], 1), target[:, None])
    torch.testing.assert_close(generalised_dice(LOGITS, target, smooth=0.0), expected)


def test_an_absent_class_takes_no_weight_from_the_others_in_generalised_dice() -> None:
    target = torch.zeros(1, 64, 64, dtype=torch.long)
    target[0, :20, :20] = 2  # 400 of 4,096 pixels
    nothing = torch.full((1, 2, 64, 64), -20.0)
    perfect = nothing.clone()
    perfect[:, 1][target == 2] = 20.0
    assert generalised_dice(perfect, target).item() == pytest.approx(0, abs=1e-6)
    # by weights (400/3,696)² of the background, 1 of class 2 and of the absent one
    light = (400 / 3696) ** 2
    expected = 1 - (2 * light * 3696 + 1) / (light * (3696 + 4096) + 400 + 1)
    assert generalised_dice(nothing, target).item() == pytest.approx(expected, rel=1e-5)


def test_generalised_dice_of_a_batch_without_any_class_counts_false_positives() -> None:
    target, half = torch.zeros(1, 4, 4, dtype=torch.long), torch.full((1, 1, 4, 4), -20.0)
    assert generalised_dice(half, target).item() == pytest.approx(0, abs=1e-6)
    half[..., :2] = 20.0  # background and tumour weigh alike: 1 − (2·8 + 1) / (8 + 16 + 8 + 1)
    assert generalised_dice(half, target).item() == pytest.approx(1 - 17 / 33)
