"""A recipe's fields as flags, generated from the recipe's own types. Nothing is listed by hand."""

import difflib
import json
from collections import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from oncoseg.errors import RecipeError
from oncoseg.recipe import Recipe

DESCRIPTIVE = {"name", "title", "source", "format_version", "published", "deviations"}
"""Fields that decide no result and so are no flags."""

ANY_KEY = "NAME"
"""Stands for a key that the recipe's writer chooses, such as a modality's name."""

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


class FieldFlag(NamedTuple):
    """One field of a recipe as a flag.

    Attributes:
        flag: without the leading dashes, for example `training.max-epochs`.
        values: what it takes, in words.
        default: in the recipe at hand, or of the type; None when it has none.
        meaning: the field's docstring.
    """

    flag: str
    values: str
    default: str | None
    meaning: str


def recipe_flags(recipe: Recipe | None = None) -> list[FieldFlag]:
    """Every field that decides a result.

    Args:
        recipe: gives the defaults and the modalities' names; None lists the types' own defaults.
    """
    return list(_of_model(Recipe, recipe, ()))


def check_flags(recipe: Recipe | None, given: Iterable[str], others: Sequence[str] = ()) -> None:
    """Check that every flag is a field of the recipe or one of the command's other flags.

    A dictionary with free keys is a field as a whole, too: `network.arguments`.

    Args:
        recipe: whose fields; None for those of any recipe.
        given: flags without their dashes.
        others: the command's other flags.

    Raises:
        RecipeError: an unknown one; the nearest is suggested.
    """
    known = [*others, *(flag.flag for flag in recipe_flags(recipe))]
    open_ended = tuple(flag.removesuffix(ANY_KEY) for flag in known if flag.endswith(f".{ANY_KEY}"))
    for flag in given:
        name = flag.replace("_", "-")
        if name in known or flag in known or f"{name}.".startswith(open_ended):
            continue
        last = [one for one in known if one.split(".")[-1] == name]
        near = last or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{near[0]}?" if near else "see --help for those there are."
        raise RecipeError(f"Unknown option --{flag}; {hint}")


def from_tokens(tree: Mapping[str, Any]) -> dict[str, str]:
    """Flatten what the command line parsed as tokens to `dotted.flag` → text."""
    changes: dict[str, str] = {}
    for branch in tree.values():
        if isinstance(branch, Mapping):
            changes |= from_tokens(branch)
        else:
            changes |= {".".join(token.keys): token.value for token in branch}
    return changes


def _of_model(model: type[BaseModel], values: BaseModel | None, path: tuple[str, ...]) -> Iterator[FieldFlag]:
    for name, info in model.model_fields.items():
        if not path and name in DESCRIPTIVE:
            continue
        value = getattr(values, name) if values is not None else info.get_default(call_default_factory=True)
        yield from _of_field(info, value, (*path, name.replace("_", "-")))


def _of_field(info: FieldInfo, value: Any, path: tuple[str, ...]) -> Iterator[FieldFlag]:
    kind, meaning = info.annotation, " ".join((info.description or "").split())
    if _is_model(kind):
        yield from _of_model(kind, value if isinstance(value, BaseModel) else None, path)
    elif get_origin(kind) is dict:
        yield from _of_dictionary(get_args(kind)[1], value, path, meaning)
    else:
        yield FieldFlag(".".join(path), type_in_words(kind, info.metadata), shown(value), meaning)


def _of_dictionary(kind: Any, value: Any, path: tuple[str, ...], meaning: str) -> Iterator[FieldFlag]:
    entries = value if isinstance(value, Mapping) else {}
    if _is_model(kind):
        for key, entry in (entries or {ANY_KEY: None}).items():
            yield from _of_model(kind, entry, (*path, key))
        return
    for key, entry in entries.items():
        yield FieldFlag(".".join((*path, key)), type_in_words(kind), shown(entry), meaning)
    yield FieldFlag(".".join((*path, ANY_KEY)), type_in_words(kind), None, meaning)


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def type_in_words(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words that someone who types a flag understands."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner = [bound for item in arguments[1:] for bound in getattr(item, "metadata", [item])]
        return type_in_words(arguments[0], [*metadata, *inner])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join(type_in_words(argument, metadata) for argument in arguments)
    if origin is tuple:
        return "[" + ", ".join("…" if item is Ellipsis else type_in_words(item) for item in arguments) + "]"
    if origin is abc.Sequence:
        return f"[{type_in_words(arguments[0])}, …]"
    if kind is bool:
        return "true | false"
    if kind in (int, float):
        return f"{kind.__name__} {', '.join(_bounds(metadata))}".rstrip()
    return {str: "text", type(None): "none"}.get(kind, "JSON")


def _bounds(metadata: Sequence[Any]) -> list[str]:
    return [
        f"{sign} {getattr(item, bound):g}"
        for item in metadata
        for bound, sign in _BOUNDS.items()
        if hasattr(item, bound)
    ]


def shown(value: Any) -> str | None:
    """A value as it is given to a flag; None where there is none."""
    if value is PydanticUndefined:
        return None
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value)
