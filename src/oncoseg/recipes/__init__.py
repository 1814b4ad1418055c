"""The published systems, each a function that returns its complete `Recipe`."""

import difflib
from collections.abc import Callable

from oncoseg.errors import RecipeError
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
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `oncoseg recipes` for those there are."
        raise RecipeError(f"Unknown recipe {name!r}; {hint}")
    return RECIPES[name]()
