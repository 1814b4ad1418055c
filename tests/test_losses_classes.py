"""Losses with several classes, against plain references: every class counts, background where it should."""

import math

import monai.losses
import pytest
import torch

from oncoseg.losses import (
    LOSSES,
    bce_dice,
    boundary,
    build,
    cross_entropy,
    dice,
    dice_cross_entropy,
    focal,
    focal_tversky,
    generalised_dice,
    lovasz,
    tversky,
)

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


PROBABILITIES = shares(LOGITS)
TRUTH = TARGET.flatten().tolist()
CLASSES, PIXELS = (1, 2), range(12)


def overlaps(index: int) -> tuple[float, float, float]:
    """TP, FN and FP of a class, as sums of probabilities."""
    p = PROBABILITIES[index]
    hit = sum(p[at] for at in PIXELS if TRUTH[at] == index)
    return hit, TRUTH.count(index) - hit, sum(p) - hit


def mean_dice(weights: tuple[float, float] = (1.0, 1.0)) -> float:
    terms = []
    for index in CLASSES:
        hit, missed, false = overlaps(index)
        terms.append(1 - (2 * hit + 1) / (2 * hit + missed + false + 1))
    return sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)


def mean_entropy(weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> float:
    every = [-weights[of] * math.log(PROBABILITIES[of][at]) for at, of in enumerate(TRUTH)]
    return sum(every) / sum(weights[of] for of in TRUTH)


def one_against_all(power: float = 0.0, alpha: float = 0.5) -> float:
    """Mean over pixels and classes of 2 α_t (1 − p_t)^power (−log p_t)."""
    terms = []
    for index in CLASSES:
        for at in PIXELS:
            right = TRUTH[at] == index
            p = PROBABILITIES[index][at] if right else 1 - PROBABILITIES[index][at]
            terms.append(-2 * (alpha if right else 1 - alpha) * (1 - p) ** power * math.log(p))
    return sum(terms) / len(terms)


def mean_tversky(alpha: float, beta: float, power: float = 1.0) -> float:
    terms = []
    for index in CLASSES:
        hit, missed, false = overlaps(index)
        terms.append((1 - (hit + 1) / (hit + alpha * missed + beta * false + 1)) ** power)
    return sum(terms) / 2


def away_from_boundary() -> float:
    """Mean of (p − truth) times the distance to the nearest pixel of the other side in the same row."""
    total = 0.0
    for index in CLASSES:
        for at in PIXELS:
            row = range(6) if at < 6 else range(6, 12)
            inside = TRUTH[at] == index
            step = min(abs(at - other) for other in row if (TRUTH[other] == index) != inside)
            total += (PROBABILITIES[index][at] - inside) * (1 - step if inside else step)
    return total / 24


def test_each_loss_of_two_classes_is_what_plain_sums_give() -> None:
    found = {
        "bce-dice": bce_dice(LOGITS, TARGET, dice_weight=0.3),
        "boundary": boundary(LOGITS, TARGET, boundary_weight=0.7),
        "cross-entropy": cross_entropy(LOGITS, TARGET, class_weights=[2.0, 5.0]),
        "dice": dice(LOGITS, TARGET, class_weights=[2.0, 5.0]),
        "dice-cross-entropy": dice_cross_entropy(LOGITS, TARGET, dice_weight=0.3),
        "focal": focal(LOGITS, TARGET, gamma=1.5, alpha=0.3),
        "focal-tversky": focal_tversky(LOGITS, TARGET, alpha=0.8, beta=0.2, gamma=0.5),
        "generalised-dice": generalised_dice(LOGITS, TARGET),
        "lovasz": lovasz(LOGITS, TARGET),
        "tversky": tversky(LOGITS, TARGET, alpha=0.8, beta=0.2),
    }
    weights = [min(map(TRUTH.count, range(3))) ** 2 / TRUTH.count(index) ** 2 for index in range(3)]
    three = [overlaps(index) for index in range(3)]
    hits = sum(weight * 2 * hit for weight, (hit, _, _) in zip(weights, three, strict=True))
    sizes = hits + sum(weight * (fn + fp) for weight, (_, fn, fp) in zip(weights, three, strict=True))
    expected = {
        "bce-dice": one_against_all() + 0.3 * mean_dice(),
        "boundary": mean_dice() + 0.7 * away_from_boundary(),
        "cross-entropy": mean_entropy((1.0, 2.0, 5.0)),
        "dice": mean_dice((2.0, 5.0)),
        "dice-cross-entropy": 0.3 * mean_dice() + mean_entropy(),
        "focal": one_against_all(1.5, 0.3) / 2,
        "focal-tversky": mean_tversky(0.8, 0.2, 0.5),
        "generalised-dice": 1 - (hits + 1) / (sizes + 1),
        "lovasz": lovasz_by_sets(LOGITS, TARGET),
        "tversky": mean_tversky(0.8, 0.2),
    }
    assert set(found) == set(LOSSES), "a new loss needs its line here"
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("swapped", [False, True])
def test_every_class_is_learnt_from(name: str, swapped: bool) -> None:
    """A step down the slope makes each class likelier where it is, and less so elsewhere."""
    target = torch.tensor([[[0, 1, 1, 2, 2, 0]]])
    target = (3 - target) % 3 if swapped else target
    logits = torch.zeros(1, 2, 1, 6, requires_grad=True)
    build(name, {}, classes=2)(logits, target).backward()
    for index in CLASSES:
        slope = logits.grad[0, index - 1, 0]
        assert (slope[target[0, 0] == index] < 0).all()
        assert (slope[target[0, 0] == 0] > 0).all()


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
