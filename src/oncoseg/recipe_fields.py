"""Setting the fields of a recipe or study by their dotted names, as flags do; saying what does not fit."""

import difflib
import json
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from oncoseg.errors import RecipeError, nearest


def wholes_first(dotted: str) -> tuple[int, bool]:
    """Sorts a part before its own parts, and a name before the arguments that go with it."""
    return dotted.count("."), not dotted.endswith(".name")


def set_field(root: Any, values: Any, dotted: str, value: Any) -> None:
    """Put a field into a recipe's values; a part that gets another name loses its arguments.

    Args:
        root: the recipe's type.
        values: the recipe as a dictionary, which is changed.
        dotted: the field, such as `training.max_epochs`.
        value: text is read as JSON where the field is not itself text.

    Raises:
        RecipeError: an unknown field; the nearest is suggested.
    """
    *parents, last = dotted.split(".")
    kind = root
    for name in parents:
        key = _known(name, kind, values, dotted)
        # a part that was given as a whole need not name all that it has
        values, kind = values.setdefault(key, {}), _kind_below(kind, key)
    if parents and parents[-1] == "arguments":
        key = last.replace("-", "_")
    elif parents and parents[-1] in {"substitutes", "classes"}:
        key = last
    else:
        key = _known(last, kind, values, dotted)
    new = _from_text(value, _kind_below(kind, key)) if isinstance(value, str) else value
    if key == "name" and "arguments" in getattr(kind, "model_fields", {}) and new != values.get(key):
        values["arguments"] = {}
    values[key] = new


Kind = TypeVar("Kind", bound=BaseModel)


def validated(kind: type[Kind], values: Any) -> Kind:
    """Make a recipe or a study of its values.

    Raises:
        RecipeError: an unknown field (the nearest one is suggested), or a value out of its range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"]
        where = kind.__name__ + "".join(f"{'.' if n else ' field '}{part}" for n, part in enumerate(place))
        if first["type"] == "value_error":  # our own checks, which say what came
            raise RecipeError(f"{where}: {first['ctx']['error']}.") from error
        hint = _nearest_field(kind, place) if first["type"] == "extra_forbidden" else first["msg"]
        value = first.get("input")
        # a part may be pages long, and the field is named
        came = "" if isinstance(value, dict) else f"; got {value!r}"
        raise RecipeError(f"{where}: {hint}{came}.") from error


def _nearest_field(root: Any, place: Sequence[Any]) -> str:
    """What to say of an unknown field, whose place is the names of the parts that lead to it, and its own."""
    part = root
    for name in place[:-1]:
        part = _kind_below(part, name)
    names = list(part.model_fields) if hasattr(part, "model_fields") else []
    near = difflib.get_close_matches(str(place[-1]), names, n=1)
    return f"unknown field, did you mean {near[0]!r}?" if near else "unknown field"


def _kind_below(kind: Any, name: Any) -> Any:
    """The type of a part's field, or of what a dictionary or tuple holds; Any where there is none.

    Of a union it is the part that is named, or below the only part that it has.
    """
    if get_origin(kind) in (Union, UnionType):
        parts = [one for one in get_args(kind) if hasattr(one, "model_fields")]
        named = [one for one in parts if one.__name__ == name]
        return named[0] if named else _kind_below(parts[0], name) if len(parts) == 1 else Any
    if hasattr(kind, "model_fields"):
        field = kind.model_fields.get(name)
        return field.annotation if field else Any
    held: Any = {dict: 1, tuple: 0}.get(cast(Any, get_origin(kind)))
    return Any if held is None else get_args(kind)[held]


def _known(name: str, kind: Any, values: Any, dotted: str) -> str:
    names = (
        list(dict.fromkeys([*values, *getattr(kind, "model_fields", ())])) if isinstance(values, dict) else []
    )
    for spelling in (name, name.replace("-", "_")):
        if spelling in names:
            return spelling
    hint = nearest(name, names, None if names else "expected one of none here.")
    raise RecipeError(f"Unknown recipe field {dotted!r}: there is no {name!r}; {hint}")


def _from_text(text: str, kind: Any) -> Any:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if text.lower() == "none" and (NoneType in kinds or Any in kinds):
        return None
    if str in kinds:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
