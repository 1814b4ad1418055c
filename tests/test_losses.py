"""The focal Tversky loss against numbers computed by hand."""

import pytest
import torch

from oncoseg.errors import RecipeError
from oncoseg.losses import POWER_FLOOR, build, focal_tversky

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
        ("xyz", {}, "expected one of focal-tversky"),
        ("focal-tversky", {"gama": 1.0}, "takes no argument 'gama'; did you mean 'gamma'"),
        ("focal-tversky", {"xyz": 1.0}, "expected one of alpha, beta, gamma, smooth"),
        ("focal-tversky", {"gamma": "much"}, "does not take the arguments {'gamma': 'much'}"),
    ],
)
def test_a_loss_that_is_not_there_is_explained(name: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(name, arguments)
