"""The published systems, each a function that returns its complete `Recipe`."""

from collections.abc import Callable

from oncoseg.errors import RecipeError, nearest
from oncoseg.recipe import Recipe
from oncoseg.recipes.aspp_attention import aspp_attention_flair, aspp_attention_t1c, aspp_attention_t2w
from oncoseg.recipes.residual_attention import residual_attention_liver, residual_attention_vessel
from oncoseg.recipes.unified_mri_ct import unified_mri_ct

RECIPES: dict[str, Callable[[], Recipe]] = {
    "unified-mri-ct": unified_mri_ct,
    "aspp-attention-t1c": aspp_attention_t1c,
    "aspp-attention-flair": aspp_attention_flair,
    "aspp-attention-t2w": aspp_attention_t2w,
    "residual-attention-liver": residual_attention_liver,
    "residual-attention-vessel": residual_attention_vessel,
}
"""Name → recipe. A new system is one file beside this one and a line here."""


def get_recipe(name: str) -> Recipe:
    """The recipe of a published system.

    Raises:
        RecipeError: an unknown name; the nearest known one is suggested.
    """
    if name not in RECIPES:
        hint = nearest(name, RECIPES, "see `oncoseg recipes` for those there are.")
        raise RecipeError(f"Unknown recipe {name!r}; {hint}")
    return RECIPES[name]()
