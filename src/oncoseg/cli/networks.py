"""The commands about networks: `oncoseg networks` and `networks show`."""

import difflib
from typing import Annotated

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.errors import RecipeError


def list_all(*words: Annotated[str, Parameter(show=False)]) -> None:
    """List the networks that a recipe may name."""
    from oncoseg.models import MODELS
    from oncoseg.models.about import about

    if words:
        near = difflib.get_close_matches(words[0], ("show", *MODELS), n=1) or ["show"]
        meant = near[0] if near[0] == "show" else f"show {near[0]}"
        raise RecipeError(f"Unknown command `networks {words[0]}`; did you mean `networks {meant}`?")
    terminal.print_table(None, ("network", "what it is"), [(name, about(name).title) for name in MODELS])


def show(name: str, /) -> None:
    """Print a network's arguments with their values and meanings; beside them its source.

    Args:
        name: The network's name.
    """
    from oncoseg.cli.fields import shown, type_in_words
    from oncoseg.models.about import about

    found = about(name)
    terminal.note(". ".join(filter(None, (found.title, found.more))))
    rows = [(one.name, type_in_words(one.kind), shown(one.default), one.meaning) for one in found.arguments]
    terminal.print_table(None, ("argument", "takes", "default", "meaning"), rows)
    terminal.say(f"Give them as --network.name {name} --network.arguments.{found.arguments[0].name} VALUE")
