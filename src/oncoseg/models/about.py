"""What a network is and which arguments it takes, from its function's signature and docstring."""

import inspect
from typing import Any, NamedTuple, get_type_hints

from docstring_parser import DocstringStyle, parse

from oncoseg.errors import RecipeError, nearest
from oncoseg.models import MODELS

OF_PREPARATION = "spatial_dims"
"""An argument that a recipe gives itself, by `preparation.spatial_dims`."""


class Argument(NamedTuple):
    """One that `network.arguments` may hold.

    Attributes:
        name: in a recipe.
        kind: its type, as annotated.
        default: its value where a recipe does not give it.
        meaning: in a line.
    """

    name: str
    kind: Any
    default: Any
    meaning: str


class About(NamedTuple):
    """A network in words.

    Attributes:
        title: what it is, in a line.
        more: its source, and what else is to be known of it; may be empty.
        arguments: in the order of its signature.
    """

    title: str
    more: str
    arguments: tuple[Argument, ...]


def about(name: str) -> About:
    """Describe a network of MODELS; what it needs besides need not be installed.

    Raises:
        RecipeError: an unknown name.
    """
    if name not in MODELS:
        raise RecipeError(f"Unknown network {name!r}; {nearest(name, MODELS)}")
    function = MODELS[name]
    text = parse(function.__doc__ or "", DocstringStyle.GOOGLE)
    meanings = {one.arg_name: _in_a_line(one.description) for one in text.params}
    kinds = get_type_hints(function)
    arguments = (
        Argument(one.name, kinds[one.name], one.default, meanings[one.name])
        for one in inspect.signature(function).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name != OF_PREPARATION
    )
    title = _in_a_line(text.short_description).removesuffix(".")
    return About(title, _in_a_line(text.long_description), tuple(arguments))


def _in_a_line(text: str | None) -> str:
    return " ".join((text or "").split())
