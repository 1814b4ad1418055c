"""In which fields two recipes differ, in words."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from oncoseg.recipe import Recipe

MOST_NAMED = 5
"""So many fields are named."""


def changes_in_words(kept: Recipe, wanted: Recipe) -> str:
    """The fields that differ, with both values; empty where only the time budget does.

    Args:
        kept: the run's.
        wanted: as it is asked for now.
    """
    one, other = kept.model_dump(mode="json"), wanted.model_dump(mode="json")
    for values in (one, other):
        values["training"]["max_minutes"] = None
    found = [
        f"`{name}` ({_shown(before)} there, {_shown(now)} now)"
        for name, before, now in _differing(one, other, "")
    ]
    more = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


class _Absent:
    """Stands for a field that one of the recipes has not."""


def _differing(one: Any, other: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        if one != other:
            yield name, one, other
        return
    for key in dict.fromkeys((*one, *other)):
        below = f"{name}.{key}" if name else key
        yield from _differing(one.get(key, _Absent), other.get(key, _Absent), below)


def _shown(value: Any) -> str:
    return "not set" if value is _Absent else json.dumps(value, ensure_ascii=False)
