"""The commands about recipes: `oncoseg recipes`, `recipes show`, `recipes describe`; and reading one."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from oncoseg.cli import terminal
from oncoseg.errors import RecipeError

if TYPE_CHECKING:
    from oncoseg.cli.fields import FieldFlag
    from oncoseg.recipe import Recipe


def _keep(kind: Any, tokens: Sequence[Any]) -> Sequence[Any]:
    """Leave a field's text to the recipe, which knows its type."""
    return tokens


Fields = Annotated[Any, Parameter(converter=_keep, show=False)]
"""Flags such as `--training.max-epochs 3`, kept as text for `changed`."""


def list_all(*words: Annotated[str, Parameter(show=False)]) -> None:
    """List the published systems."""
    from oncoseg.recipes import RECIPES

    if words:
        near = difflib.get_close_matches(words[0], ("show", "describe"), n=1) or ["show"]
        raise RecipeError(f"Unknown command `recipes {words[0]}`; did you mean `recipes {near[0]}`?")
    rows = [(name, make().title) for name, make in RECIPES.items()]
    terminal.print_table(None, ("recipe", "what it is"), rows)


def show(name: str, /) -> None:
    """Print a complete recipe as JSON; beside it its source, its published figures and our deviations.

    The JSON alone goes to stdout, so that it can be kept in a file, changed, and given to `train`.

    Args:
        name: A recipe's name, or the path of a recipe's JSON file.
    """
    recipe = open_recipe(name)
    terminal.note(f"{recipe.title}\nSource: {recipe.source}")
    for row in recipe.published:
        scores = ", ".join(f"{metric} {value}" for metric, value in row.scores.items())
        of = ", ".join(filter(None, (row.row, row.of_class)))
        terminal.note(f"Published ({of}): {scores}")
    for deviation in recipe.deviations:
        terminal.note(f"Deviation: {deviation}")
    terminal.say(recipe.to_json())


def describe(name: str, /) -> None:
    """Print how large a recipe's network is: parameters and multiply-adds.

    Args:
        name: A recipe's name, or the path of a recipe's JSON file.
    """
    from oncoseg import models

    recipe = open_recipe(name)
    network, volumes = recipe.network, recipe.preparation.spatial_dims == 3
    size = recipe.example_size if volumes else recipe.preparation.slice_size
    cost = models.describe(
        network.name, recipe.network_arguments, recipe.in_channels, len(recipe.classes), size
    )
    shape = "×".join(map(str, (recipe.in_channels, *size)))
    terminal.say(f"{recipe.name}: {network.name}")
    terminal.say(f"parameters: {cost.parameters:,}")
    what, count = recipe.examples.removesuffix("s"), cost.multiply_adds
    terminal.say(f"multiply-adds for one {shape} {what}: {count:,} ({count / 1e9:.1f} G)")


def open_recipe(name: str) -> "Recipe":
    """A published recipe by its name, or one from a JSON file.

    Raises:
        RecipeError: neither a known name nor a readable recipe.
    """
    from oncoseg.files import read_json
    from oncoseg.recipe import Recipe
    from oncoseg.recipes import get_recipe

    path = Path(name)
    if path.suffix != ".json":
        return get_recipe(name)
    if not path.is_file():
        raise RecipeError(f"The recipe file {path} does not exist; give a recipe's JSON file or its name.")
    try:
        return Recipe.from_json(json.dumps(read_json(path)))
    except (OSError, ValueError) as error:
        raise RecipeError(f"Expected a recipe as JSON in {path}, but {error}.") from error


def changed(
    recipe: "Recipe", tree: Mapping[str, Any], others: Sequence[str], only: Sequence[str] | None = None
) -> "Recipe":
    """The recipe with the command line's fields put in, or a part of it.

    Args:
        recipe: what to start from.
        tree: what the command line parsed as `Fields`.
        others: the command's other flags, to suggest them for a misspelt one.
        only: the modalities to keep; None for all.

    Raises:
        RecipeError: an unknown field or modality (the nearest is suggested) or an unfit value.
    """
    from oncoseg.cli import fields

    changes = fields.from_tokens(tree)
    fields.check_flags(recipe, changes, others)
    if not only:
        return recipe.with_changes(changes)
    # first, so that what is kept may change in a way that does not fit what is not
    part = recipe.with_only(only)
    left_out = tuple(f"modalities.{name}." for name in recipe.modalities if name not in part.modalities)
    return part.with_changes(
        {field: value for field, value in changes.items() if not field.startswith(left_out)}
    )


def print_fields(name: str | None) -> None:
    """Print every field of a recipe as a flag, below a command's help.

    Args:
        name: the recipe whose values are shown as defaults; None for the types' own.
    """
    print_recipe_fields(open_recipe(name) if name else None)


def print_recipe_fields(recipe: "Recipe | None") -> None:
    """The same of a recipe at hand."""
    from oncoseg.cli.fields import recipe_flags

    sections: dict[str, list[FieldFlag]] = {}
    for flag in recipe_flags(recipe):
        sections.setdefault(_section(flag.flag), []).append(flag)
    for section, flags in sections.items():
        _print_section(section, flags)
    if recipe is None:
        terminal.say(
            "NAME stands for a modality or a key of your own; put a recipe before --help for its values."
        )


def _section(flag: str) -> str:
    parts = flag.split(".")
    return " ".join(parts[:2]) if parts[0] == "modalities" else parts[0]


def _print_section(section: str, flags: "Sequence[FieldFlag]") -> None:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for flag in flags:
        meaning = Text(flag.meaning)
        meaning.append(f" {{{flag.values}}}", style="green")
        if flag.default is not None:
            meaning.append(f" [default: {flag.default}]", style="dim")
        table.add_row(Text(f"--{flag.flag}", style="cyan"), meaning)
    panel = Panel(table, title=f"Recipe fields: {section}", title_align="left", box=box.ROUNDED)
    terminal.stdout().print(panel)
