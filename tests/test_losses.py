"""Losses against numbers computed by hand, and against MONAI's where the definitions coincide."""

import math

import monai.losses
import pytest
import scipy.ndimage
import torch

from oncoseg.errors import RecipeError
from oncoseg.logits import margins, probabilities
from oncoseg.losses import (
    POWER_FLOOR,
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

LOG_3 = 1.0986122886681098
"""The logit of probability 3/4; its negative is that of 1/4."""

LOGITS = torch.tensor([[[[LOG_3, -LOG_3, 0.0, 0.0]]]])
TARGET = torch.tensor([[[1, 1, 0, 0]]])
# TP = 3/4 + 1/4 = 1,  FN = 1/4 + 3/4 = 1,  FP = 1/2 + 1/2 = 1


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "smooth", "expected"),
    [
        (0.5, 0.5, 1.0, 0.0, 1 / 2),  # 1 − 1 / (1 + 0.5 + 0.5), the soft Dice
        (0.8, 0.2, 1.0, 0.0, 1 / 2),
        (1.0, 1.0, 1.0, 0.0, 2 / 3),  # 1 − 1/3, the soft Jaccard
        (2.0, 0.0, 1.0, 0.0, 2 / 3),
        (0.5, 0.5, 1.0, 1.0, 1 / 3),  # 1 − 2/3
        (0.5, 0.5, 2.0, 0.0, 1 / 4),
        (0.5, 0.5, 0.75, 0.0, 0.5946035575),  # 2^(−3/4)
        (0.5, 0.5, 0.75, 1.0, 0.4386913377),  # 3^(−3/4)
    ],
)
def test_hand_computed_values(
    alpha: float, beta: float, gamma: float, smooth: float, expected: float
) -> None:
    loss = focal_tversky(LOGITS, TARGET, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_alpha_weighs_misses_and_beta_false_alarms() -> None:
    missed, alarmed = torch.full((1, 1, 2, 2), -9.0), torch.full((1, 1, 2, 2), 9.0)
    half = torch.tensor([[[1, 1], [0, 0]]])

    def loss(logits: torch.Tensor, alpha: float, beta: float) -> float:
        return focal_tversky(logits, half, alpha=alpha, beta=beta).item()

    assert loss(missed, 0.8, 0.2) > loss(missed, 0.2, 0.8)
    assert loss(alarmed, 0.8, 0.2) < loss(alarmed, 0.2, 0.8)


def test_a_slice_without_tumour_counts_through_its_false_positives() -> None:
    wrong_there = torch.cat([LOGITS, torch.full_like(LOGITS, 2.0)])
    right_there = torch.cat([LOGITS, torch.full_like(LOGITS, -20.0)])
    target = torch.cat([TARGET, torch.zeros_like(TARGET)])
    assert focal_tversky(right_there, target) == pytest.approx(focal_tversky(LOGITS, TARGET).item())
    assert focal_tversky(wrong_there, target) > focal_tversky(right_there, target)


def test_classes_are_averaged_and_background_is_not_one() -> None:
    target = torch.tensor([[[1, 2, 0, 0]]])
    logits = torch.full((1, 2, 1, 4), -20.0)
    logits[0, 0, 0, 0] = 20.0  # class 1 perfect, class 2 missed: TI = smooth / (α + smooth) = 2/3
    loss = focal_tversky(logits, target, gamma=1.0)
    assert loss.item() == pytest.approx((1 / 3) / 2, abs=1e-5)


def test_the_power_below_one_has_a_finite_slope_at_the_optimum() -> None:
    logits = torch.full((1, 1, 4, 4), 40.0, requires_grad=True)
    loss = focal_tversky(logits, torch.ones(1, 4, 4), gamma=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(POWER_FLOOR**0.5)
    assert torch.isfinite(logits.grad).all()


def test_three_dimensions_are_summed_like_two() -> None:
    volume = focal_tversky(LOGITS[:, :, None], TARGET[:, None])
    assert volume == focal_tversky(LOGITS, TARGET)


def test_a_loss_is_built_with_its_arguments() -> None:
    loss = build("focal-tversky", {"alpha": 0.8, "beta": 0.2, "gamma": 1.0, "smooth": 0.0})
    assert loss(LOGITS, TARGET).item() == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("focal-tverski", {}, "did you mean 'focal-tversky'"),
        ("xyz", {}, "expected one of bce-dice, boundary, "),
        ("focal-tversky", {"gama": 1.0}, "takes no argument 'gama'; did you mean 'gamma'"),
        ("focal-tversky", {"xyz": 1.0}, "expected one of alpha, beta, gamma, smooth"),
        ("dice", {"class_weights": [1.0, 2.0]}, "expected 1 class_weights"),
        ("focal-tversky", {"gamma": "much"}, "does not take the arguments {'gamma': 'much'}"),
    ],
)
def test_a_loss_that_is_not_there_is_explained(name: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(name, arguments)


def noisy(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(3, classes, 7, 5, generator=generator)
    return logits, torch.randint(0, classes + 1, (3, 7, 5), generator=generator)


def with_zeros(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_probabilities_are_a_softmax_beside_a_background_of_0(classes: int) -> None:
    logits, _ = noisy(classes)
    expected = with_zeros(logits).softmax(1)[:, 1:]
    torch.testing.assert_close(probabilities(logits), expected)
    torch.testing.assert_close(margins(logits).sigmoid(), expected)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_dice_and_tversky_are_monais(classes: int) -> None:
    logits, target = noisy(classes)
    settings = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    small = {"smooth_nr": 2.0, "smooth_dr": 2.0}
    given = with_zeros(logits), target[:, None]
    torch.testing.assert_close(
        dice(logits, target, smooth=2.0), monai.losses.DiceLoss(**settings, **small)(*given)
    )
    theirs = monai.losses.TverskyLoss(**settings, **small, alpha=0.3, beta=0.7)  # theirs: alpha weighs FP
    torch.testing.assert_close(tversky(logits, target, alpha=0.7, beta=0.3, smooth=2.0), theirs(*given))


@pytest.mark.parametrize("classes", [2, 3])
def test_weighted_dice_is_monais_over_the_sum_of_weights(classes: int) -> None:
    logits, target = noisy(classes)
    weights = [1.0, 4.0, 2.0][:classes]
    theirs = monai.losses.DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weights, reduction="sum"
    )
    expected = theirs(with_zeros(logits), target[:, None]) / sum(weights)
    torch.testing.assert_close(dice(logits, target, smooth=1e-5, class_weights=weights), expected)


def test_focal_is_monais() -> None:
    logits, target = noisy(1)
    theirs = monai.losses.FocalLoss(include_background=True, gamma=1.5, alpha=0.3)
    expected = theirs(logits, target[:, None].float())
    torch.testing.assert_close(focal(logits, target, gamma=1.5, alpha=0.3), expected)


@pytest.mark.parametrize("logit", [-150.0, -100.0, 40.0, 95.0, 120.0, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_focal_has_a_finite_slope_however_certain_a_pixel(logit: float, gamma: float) -> None:
    logits = torch.full((1, 1, 2, 2), logit, requires_grad=True)
    focal(logits, torch.ones(1, 2, 2), gamma=gamma, alpha=1.0).backward()
    # certain and right: nothing to learn; certain and wrong: the slope of −log p, 1 per pixel
    expected = torch.full_like(logits, 0.0 if logit > 0 else -1 / 4)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-8)


def test_entropies_of_four_pixels() -> None:
    # p of the truth: 3/4, 1/4, 1/2, 1/2
    expected = -math.log(3 / 4 * 1 / 4 * 1 / 2 * 1 / 2) / 4
    assert cross_entropy(LOGITS, TARGET).item() == pytest.approx(expected)
    assert bce_dice(LOGITS, TARGET, dice_weight=0.0).item() == pytest.approx(expected)
    region = dice(LOGITS, TARGET).item()  # 1 − (2·1 + 1) / (2 + 2 + 1)
    assert region == pytest.approx(2 / 5)
    assert bce_dice(LOGITS, TARGET, dice_weight=2.0).item() == pytest.approx(expected + 2 * region)
    both = dice_cross_entropy(LOGITS, TARGET, dice_weight=0.5, cross_entropy_weight=3.0)
    assert both.item() == pytest.approx(0.5 * region + 3 * expected)
    # weights 2 for tumour: (2·(−ln 3/4 − ln 1/4) + 2 ln 2) / 6
    weighted = (2 * -math.log(3 / 16) + 2 * math.log(2)) / 6
    assert cross_entropy(LOGITS, TARGET, class_weights=[2.0]).item() == pytest.approx(weighted)


def test_generalised_dice_by_hand() -> None:
    target = torch.tensor([[[1, 0, 0, 0]]])  # sizes 1 and 3: weights 1 and 1/9
    logits = torch.tensor([[[[LOG_3, -LOG_3, 0.0, 0.0]]]])
    overlap = 3 / 4 + (3 / 4 + 1 / 2 + 1 / 2) / 9
    sizes = (2 + 1) + (2 + 3) / 9
    loss = generalised_dice(logits, target, smooth=0.0)
    assert loss.item() == pytest.approx(1 - 2 * overlap / sizes)


def test_lovasz_of_a_certain_mask_is_one_minus_its_iou() -> None:
    target = torch.tensor([[[1, 1, 1, 0, 0, 0]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 1, 0]]])  # IoU 2/5
    loss = lovasz(60.0 * (2 * predicted[:, None].float() - 1), target)
    assert loss.item() == pytest.approx(3 / 5)
    # errors 1/4, 3/4, 1/2, 1/2 in falling order: (missed) 3/4, then two false 1/2, then 1/4
    # IoU losses: 1/2, 2/3, 3/4, 1: weighted by what each adds
    by_hand = 3 / 4 * 1 / 2 + 1 / 2 * (2 / 3 - 1 / 2) + 1 / 2 * (3 / 4 - 2 / 3) + 1 / 4 * (1 - 3 / 4)
    assert lovasz(LOGITS, TARGET).item() == pytest.approx(by_hand)


def test_boundary_counts_how_far_a_pixel_lies_from_the_truth() -> None:
    target = torch.tensor([[[1, 1, 0, 0, 0]]])
    for column, distance in ((2, 1.0), (3, 2.0), (4, 3.0)):
        predicted = target.clone()
        predicted[0, 0, column] = 1
        logits = 60.0 * (2 * predicted[:, None].float() - 1)
        more = boundary(logits, target, boundary_weight=1.0) - dice(logits, target)
        assert more.item() == pytest.approx(distance / 5)
    nothing = torch.zeros(1, 1, 5)
    assert boundary(LOGITS, nothing[..., :4]) == dice(LOGITS, nothing[..., :4])


def test_boundary_measures_the_same_truth_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, real = [], scipy.ndimage.distance_transform_edt
    monkeypatch.setattr(
        scipy.ndimage, "distance_transform_edt", lambda mask: (measured.append(1), real(mask))[1]
    )
    target = torch.tensor([[[0, 1, 1, 0, 0, 0, 0]]])
    logits = torch.zeros(1, 1, 1, 7)
    first = [boundary(logits + head, target).item() for head in range(3)]
    assert len(measured) == 2, "the inside and the outside"
    moved = [boundary(logits + head, target.roll(1)).item() for head in range(3)]
    assert len(measured) == 4
    # Σ ½ of the distances 1 0 0 1 2 3 4 and 2 1 0 0 1 2 3, over 7 pixels
    assert first[0] - moved[0] == pytest.approx(0.1 * (11 / 2 - 9 / 2) / 7, rel=1e-5)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], [-1.0, 2.0], [0.0, 0.0]])
def test_class_weights_must_fit(weights: list[float]) -> None:
    logits, target = noisy(2)
    with pytest.raises(ValueError, match="expected 2 class_weights of at least 0"):
        dice(logits, target, class_weights=weights)
