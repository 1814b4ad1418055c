"""The published systems, each a function that returns its complete `Recipe`."""

from collections.abc import Callable

from oncoseg.errors import RecipeError, nearest
from oncoseg.recipe import Recipe
from oncoseg.recipes.unified_mri_ct import unified_mri_ct

RECIPES: dict[str, Callable[[], Recipe]] = {
    "unified-mri-ct": unified_mri_ct,
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
