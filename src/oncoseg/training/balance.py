"""Whether slices can be drawn equally often from each group and at the same time with a share of tumour.

They cannot where a group has no slice with tumour, or none without: the slices with tumour are drawn in turn
from those groups that have any, and so are the others.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from oncoseg.recipe import Recipe
from oncoseg.store import Prepared, PreparedCase
from oncoseg.training.choices import GROUPS, tumour_index

UNEVEN = (
    "training.balance {balance} does not hold beside training.tumour_share {share:g}, as not every {balance} "
    "has slices both with tumour and without: of all slices drawn, {drawn} (where nothing is known: "
    "unknown). Leave one of the two fields out, or add such cases."
)
"""Said where they cannot."""


def uneven(recipe: Recipe, cases: Sequence[Prepared]) -> str | None:
    """A sentence where the recipe's balance will not hold for a modality's cases; None where it will."""
    balance, share = recipe.training.balance, recipe.training.tumour_share
    if balance is None or share is None:
        return None
    # only slices have a share
    drawn = _drawn(cast(Sequence[PreparedCase], cases), balance, share, tumour_index(recipe))
    if len({round(one, 6) for one in drawn.values()}) < 2:
        return None
    words = ", ".join(f"{name or 'unknown'} {one:.0%}" for name, one in drawn.items())
    return UNEVEN.format(balance=balance, share=share, drawn=words)


def _drawn(
    cases: Sequence[PreparedCase], balance: str, share: float, tumour: int | None
) -> Mapping[str | None, float]:
    """Group → its share of all slices drawn, as `sampler.epoch_batches` draws them."""
    named = [(GROUPS[balance](case), case.slices_with(tumour)) for case in cases]
    groups = dict.fromkeys(name for name, _ in named)
    with_tumour = {name for name, marked in named if marked.any()}
    without = {name for name, marked in named if not marked.all()}
    if not with_tumour or not without:  # then the share is left aside
        return dict.fromkeys(groups, 1 / len(groups))
    return {
        name: share * (name in with_tumour) / len(with_tumour)
        + (1 - share) * (name in without) / len(without)
        for name in groups
    }
