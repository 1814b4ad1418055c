"""Loss functions and the LOSSES dictionary.

Every loss takes logits `n classes …` and a target `n …` of class indices (0 background), plus named
floats, and returns one number. With one class the logits are independent (sigmoid).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.errors import RecipeError, check_arguments, nearest

POWER_FLOOR = 1e-6
"""Smallest 1 − TI before the power γ < 1, whose slope is infinite at 0."""


def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 0.75,
    smooth: float = 1.0,
) -> Tensor:
    """Focal Tversky loss, L = (1 − TI)^γ with TI = TP / (TP + α·FN + β·FP).

    TP, FN and FP are sums of probabilities over all pixels of all slices given, so that slices
    without tumour count through their false positives; classes are averaged.

    Args:
        logits: network output before the sigmoid, `n classes …`.
        target: class indices 0 … classes, `n …`.
        alpha: weight of false negatives, ≥ 0.
        beta: weight of false positives, ≥ 0; α = β = 0.5 makes TI the soft Dice.
        gamma: focusing exponent, > 0; 1 is the plain Tversky loss.
        smooth: added to numerator and denominator, in pixels; keeps empty batches defined.

    Source: Abraham and Khan, ISBI 2019, eq. 3–4 (there 1/γ); Rai and Dahal 2025, eq. 3–5.
    """
    classes = logits.shape[1]
    truth = functional.one_hot(target.long(), classes + 1)[..., 1:].movedim(-1, 1).float()
    probability = logits.float().sigmoid()
    pixels = [axis for axis in range(logits.ndim) if axis != 1]
    true_positive = (probability * truth).sum(pixels)
    false_negative = ((1 - probability) * truth).sum(pixels)
    false_positive = (probability * (1 - truth)).sum(pixels)
    index = (true_positive + smooth) / (
        true_positive + alpha * false_negative + beta * false_positive + smooth
    )
    return (1 - index).clamp_min(POWER_FLOOR).pow(gamma).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "focal-tversky": focal_tversky,
}
"""Name in a recipe → loss. A new loss is a function above and a line here."""


def build(name: str, arguments: Mapping[str, float]) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a loss of logits and target by its name in LOSSES.

    Raises:
        RecipeError: an unknown name, or arguments that the loss does not take.
    """
    if name not in LOSSES:
        raise RecipeError(f"Unknown loss {name!r}; {nearest(name, LOSSES)}")
    function = LOSSES[name]
    check_arguments(f"Loss {name!r}", function, arguments)
    try:
        function(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), **arguments)
    except TypeError as error:
        raise RecipeError(f"Loss {name!r} does not take the arguments {dict(arguments)}: {error}.") from error
    return lambda logits, target: function(logits, target, **arguments)
