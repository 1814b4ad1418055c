"""Loss functions and the LOSSES dictionary.

Every loss takes logits `n classes …` (see `oncoseg.logits`) and a target `n …` of class indices (0
background), plus named numbers, and returns one number. Sums are over all pixels of all slices given, so
that slices without tumour count through their false positives; classes are averaged. They are written here,
not taken from MONAI, because its losses know no background that is implied; where the definitions coincide
the tests compare with it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from oncoseg.errors import RecipeError, check_arguments, nearest
from oncoseg.logits import margins, probabilities, with_background

POWER_FLOOR = 1e-6
"""Smallest 1 − TI before the power γ < 1, whose slope is infinite at 0."""

SMALLEST_MISS = torch.finfo(torch.float32).tiny
"""Smallest 1 − p_t before the power γ of the focal loss, whose slope is infinite at 0 where γ < 1."""


def tversky(
    logits: Tensor, target: Tensor, *, alpha: float = 0.5, beta: float = 0.5, smooth: float = 1.0
) -> Tensor:
    """Tversky loss, L = 1 − TI with TI = TP / (TP + α·FN + β·FP); TP, FN, FP are sums of probabilities.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        alpha: weight of false negatives, ≥ 0.
        beta: weight of false positives, ≥ 0; α = β = 0.5 makes TI the soft Dice.
        smooth: added to numerator and denominator, in pixels; keeps empty batches defined.

    Source: Salehi, Erdogmus and Gholipour 2017, eq. 3 (there α weighs false positives).
    """
    return (1 - _tversky_index(logits, target, alpha, beta, smooth)).mean()


def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 0.75,
    smooth: float = 1.0,
) -> Tensor:
    """Focal Tversky loss, L = (1 − TI)^γ; see `tversky`.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        alpha: weight of false negatives, ≥ 0.
        beta: weight of false positives, ≥ 0.
        gamma: focusing exponent, > 0; 1 is the plain Tversky loss.
        smooth: added to numerator and denominator, in pixels.

    Source: Abraham and Khan, ISBI 2019, eq. 3–4 (there 1/γ); Rai and Dahal 2025, eq. 3–5.
    """
    index = _tversky_index(logits, target, alpha, beta, smooth)
    return (1 - index).clamp_min(POWER_FLOOR).pow(gamma).mean()


def dice(
    logits: Tensor, target: Tensor, *, smooth: float = 1.0, class_weights: Sequence[float] = ()
) -> Tensor:
    """Soft Dice loss, 1 − 2·Σpg / (Σp + Σg), weighted over classes.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        smooth: added to numerator and denominator, in pixels.
        class_weights: of each class without background; none for equal ones.

    Source: Milletari, Navab and Ahmadi 2016, with plain sums in the denominator.
    """
    probability, truth = probabilities(logits), _one_hot(logits, target)
    axes = _pixel_axes(logits)
    overlap, sizes = (probability * truth).sum(axes), (probability + truth).sum(axes)
    weights = _class_weights(logits, class_weights)
    return (weights * (1 - (2 * overlap + smooth) / (sizes + smooth))).sum() / weights.sum()


def generalised_dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Generalised Dice loss: each class and the background weighted by 1 / (its size in the truth)².

    What is absent weighs as much as the smallest that is present, so that its false positives count and
    the others keep their weights.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        smooth: added to numerator and denominator after weighting.

    Source: Sudre et al. 2017, eq. 2, which leaves absent classes open; MONAI's rule for them.
    """
    probability = _beside_background(probabilities(logits))
    truth = _beside_background(_one_hot(logits, target))
    axes = _pixel_axes(logits)
    volumes = truth.sum(axes)
    smallest = torch.where(volumes > 0, volumes, torch.inf).min()
    # relative to the largest, so that `smooth` means the same whatever the sizes
    weights = (smallest / volumes.clamp_min(smallest)).pow(2)
    overlap, sizes = (probability * truth).sum(axes), (probability + truth).sum(axes)
    return 1 - (2 * (weights * overlap).sum() + smooth) / ((weights * sizes).sum() + smooth)


def cross_entropy(logits: Tensor, target: Tensor, *, class_weights: Sequence[float] = ()) -> Tensor:
    """Cross-entropy over background and classes, mean over pixels.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        class_weights: of each class; background weighs 1, and the mean is the weighted one.
    """
    weights = _class_weights(logits, class_weights)
    with_one = torch.cat([torch.ones_like(weights[:1]), weights])
    return functional.cross_entropy(with_background(logits.float()), target.long(), with_one)


def dice_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    smooth: float = 1.0,
    class_weights: Sequence[float] = (),
) -> Tensor:
    """Weighted sum of `dice` and `cross_entropy`; the class weights hold for both.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        dice_weight: of the Dice term, ≥ 0.
        cross_entropy_weight: of the other term, ≥ 0.
        smooth: see `dice`.
        class_weights: see `dice`.
    """
    region = dice(logits, target, smooth=smooth, class_weights=class_weights)
    pixels = cross_entropy(logits, target, class_weights=class_weights)
    return dice_weight * region + cross_entropy_weight * pixels


def bce_dice(logits: Tensor, target: Tensor, *, dice_weight: float = 1.0, smooth: float = 1.0) -> Tensor:
    """Binary cross-entropy of each class against all else, plus λ times the soft Dice loss.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        dice_weight: λ, ≥ 0.
        smooth: see `dice`.
    """
    pixels = functional.binary_cross_entropy_with_logits(margins(logits.float()), _one_hot(logits, target))
    return pixels + dice_weight * dice(logits, target, smooth=smooth)


def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss of each class against all else, −α_t (1 − p_t)^γ log p_t, mean over pixels.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        gamma: focusing exponent, ≥ 0.
        alpha: weight of pixels of the class; others weigh 1 − α. In [0, 1].

    Source: Lin et al. 2017, eq. 5.
    """
    odds, truth = margins(logits.float()), _one_hot(logits, target)
    entropy = functional.binary_cross_entropy_with_logits(odds, truth, reduction="none")
    # 1 − p_t by its own sigmoid, whose slope is finite where p_t is 1
    missed = torch.sigmoid(odds * (1 - 2 * truth)).clamp_min(SMALLEST_MISS)
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    return (weight * missed.pow(gamma) * entropy).mean()


def lovasz(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-softmax loss: the piecewise linear extension of 1 − IoU, over the classes that are present.

    Beside several classes the background is one of them, so that a class that is absent counts by what it
    takes from others. One class alone is compared with all else by itself; where it is absent, its mean
    probability stands in for it.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.

    Source: Berman, Triki and Blaschko 2018, eq. 9 and 13.
    """
    probability, truth = probabilities(logits), _one_hot(logits, target)
    if logits.shape[1] > 1:
        probability, truth = _beside_background(probability), _beside_background(truth)
    present = [index for index in range(truth.shape[1]) if bool(truth[:, index].any())]
    if not present:
        return probability.mean()
    return torch.stack([_lovasz_class(probability[:, i], truth[:, i]) for i in present]).mean()


def boundary(logits: Tensor, target: Tensor, *, boundary_weight: float = 0.1, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss plus the boundary loss: probability times signed distance from the truth's boundary.

    The distance is in pixels, negative inside; slices and classes without truth have no boundary and
    count 0. What the truth itself would score is taken off, which makes a perfect mask 0 and changes no
    slope. The Dice term leads there from far away.

    Args:
        logits: network output, `n classes …`.
        target: class indices 0 … classes, `n …`.
        boundary_weight: of the boundary term, ≥ 0.
        smooth: see `dice`.

    Source: Kervadec et al. 2019, eq. 5 and 6.
    """
    truth = _one_hot(logits, target)
    away = ((probabilities(logits) - truth) * _signed_distance(truth)).mean()
    return dice(logits, target, smooth=smooth) + boundary_weight * away


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce-dice": bce_dice,
    "boundary": boundary,
    "cross-entropy": cross_entropy,
    "dice": dice,
    "dice-cross-entropy": dice_cross_entropy,
    "focal": focal,
    "focal-tversky": focal_tversky,
    "generalised-dice": generalised_dice,
    "lovasz": lovasz,
    "tversky": tversky,
}
"""Name in a recipe → loss. A new loss is a function above and a line here."""


def build(
    name: str, arguments: Mapping[str, float | Sequence[float]], classes: int = 1
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a loss of logits and target by its name in LOSSES.

    Args:
        name: in LOSSES.
        arguments: what it takes by name.
        classes: how many there are besides background.

    Raises:
        RecipeError: an unknown name, or arguments that the loss does not take.
    """
    if name not in LOSSES:
        raise RecipeError(f"Unknown loss {name!r}; {nearest(name, LOSSES)}")
    function = LOSSES[name]
    check_arguments(f"Loss {name!r}", function, arguments)
    try:
        function(torch.zeros(1, classes, 2, 2), torch.zeros(1, 2, 2), **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"Loss {name!r} does not take the arguments {dict(arguments)}: {error}.") from error
    return lambda logits, target: function(logits, target, **arguments)


def _tversky_index(logits: Tensor, target: Tensor, alpha: float, beta: float, smooth: float) -> Tensor:
    """One index per class."""
    probability, truth = probabilities(logits), _one_hot(logits, target)
    axes = _pixel_axes(logits)
    true_positive = (probability * truth).sum(axes)
    false_negative = ((1 - probability) * truth).sum(axes)
    false_positive = (probability * (1 - truth)).sum(axes)
    return (true_positive + smooth) / (
        true_positive + alpha * false_negative + beta * false_positive + smooth
    )


def _lovasz_class(probability: Tensor, truth: Tensor) -> Tensor:
    """Errors in falling order, weighted by what each adds to 1 − IoU."""
    truth = truth.flatten()
    errors, order = (truth - probability.flatten()).abs().sort(descending=True)
    truth = truth[order]
    # IoU loss were the first n pixels wrong: 1 − (tumour left) / (tumour + others among them)
    jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
    return errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def _signed_distance(truth: Tensor) -> Tensor:
    """Distance in pixels to the boundary, negative inside; 0 where a slice and class has no truth."""
    masks = truth.cpu().numpy() > 0
    return torch.from_numpy(_signed_distance_of(masks.shape, masks.tobytes())).to(truth.device)


@functools.lru_cache(maxsize=1)  # the heads of deep supervision ask for the same truth one after the other
def _signed_distance_of(shape: tuple[int, ...], content: bytes) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    masks = np.frombuffer(content, bool).reshape(shape)
    signed = np.zeros(shape, np.float32)
    for place in np.ndindex(shape[:2]):
        mask = masks[place]
        if mask.any() and not mask.all():
            # a pixel inside is one step from the outside, so that both sides meet at 0 and 1
            signed[place] = distance_transform_edt(~mask) - np.where(
                mask, distance_transform_edt(mask) - 1, 0
            )
    return signed


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    """The truth as `n classes …` of 0 and 1, without background."""
    return functional.one_hot(target.long(), logits.shape[1] + 1)[..., 1:].movedim(-1, 1).float()


def _beside_background(shares: Tensor) -> Tensor:
    """Probabilities or truths of the classes behind what they leave to the background, `n classes+1 …`."""
    return torch.cat([1 - shares.sum(1, keepdim=True), shares], dim=1)


def _pixel_axes(logits: Tensor) -> list[int]:
    return [axis for axis in range(logits.ndim) if axis != 1]


def _class_weights(logits: Tensor, weights: Sequence[float]) -> Tensor:
    """One weight per class.

    Raises:
        ValueError: another number of them, a negative one, or all 0.
    """
    classes = logits.shape[1]
    if weights and (len(weights) != classes or min(weights) < 0 or not sum(weights)):
        raise ValueError(f"expected {classes} class_weights of at least 0, not all 0, got {list(weights)}")
    return torch.tensor(weights or [1.0] * classes, device=logits.device)
