"""What every loss promises: logits `n classes …`, indices `n …`, one finite number, better is lower."""

import pytest
import torch
from torch import Tensor

from oncoseg.losses import LOSSES

SHAPE = (3, 6, 5)
pytestmark = pytest.mark.parametrize("name", LOSSES)


def blob() -> Tensor:
    target = torch.zeros(SHAPE, dtype=torch.uint8)
    target[0, 1:4, 1:4] = 1
    target[1, 2:5, 0:2] = 1
    return target


def confident(target: Tensor, strength: float = 30.0) -> Tensor:
    return strength * (2.0 * target[:, None].float() - 1)


def test_perfect_is_nearly_zero_and_worse_is_higher(name: str) -> None:
    target = blob()
    shifted, unsure = torch.roll(target, 1, dims=2), torch.zeros(SHAPE)[:, None]
    perfect, near, opposite = (
        LOSSES[name](logits, target).item()
        for logits in (confident(target), confident(shifted), -confident(target))
    )
    assert 0 <= perfect < 1e-3
    assert perfect < near < opposite
    assert perfect < LOSSES[name](unsure, target).item() < opposite


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("logit", [-60.0, 0.0, 60.0])
def test_gradients_are_finite_on_empty_and_full_masks(name: str, value: int, logit: float) -> None:
    logits = torch.full((2, 1, 4, 4), logit, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 4, 4), value))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_an_undecided_network_is_pulled_towards_the_truth(name: str) -> None:
    target = blob()
    logits = torch.zeros(SHAPE[0], 1, *SHAPE[1:], requires_grad=True)
    LOSSES[name](logits, target).backward()
    inside, outside = logits.grad[target[:, None] == 1], logits.grad[target[:, None] == 0]
    assert (inside <= 0).all()
    assert (outside >= 0).all()
    assert inside.sum() < 0 < outside.sum()


def test_the_order_of_slices_does_not_matter(name: str) -> None:
    target = blob()
    logits = torch.randn(SHAPE[0], 1, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(LOSSES[name](logits[order], target[order]), LOSSES[name](logits, target))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_half_precision_logits_lose_nothing_but_their_own_rounding(name: str, dtype: torch.dtype) -> None:
    target = blob().to(dtype)
    logits = torch.randn(SHAPE[0], 1, *SHAPE[1:], generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = LOSSES[name](logits, target)
    assert loss.dtype == torch.float32
    assert loss == LOSSES[name](logits.float(), target)


def test_several_classes(name: str) -> None:
    target = blob()
    target[2, 0, 0] = 2
    perfect = 60.0 * torch.nn.functional.one_hot(target.long(), 3)[..., 1:].movedim(-1, 1) - 30
    assert LOSSES[name](perfect, target) < LOSSES[name](perfect.flip(1), target)
    assert LOSSES[name](perfect, target).ndim == 0
