"""The command `oncoseg plan`: what a recipe needs in 3D, from the data's headers and the memory there is."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncoseg.cli import terminal
from oncoseg.cli.data import Chosen, parse_channels, parse_data
from oncoseg.cli.recipes import Fields, open_recipe

if TYPE_CHECKING:
    from oncoseg.fingerprint import Fingerprint
    from oncoseg.recipe import Recipe

PLAN_FLAGS = (
    *("data", "only", "channel", "memory-gib", "out"),
    *("help", "debug"),
)
"""The flags of `plan` besides a recipe's fields."""


def plan(
    recipe: str,
    /,
    *,
    data: list[str],
    only: list[str] | None = None,
    channel: Chosen = None,
    memory_gib: float | None = None,
    out: Path | None = None,
    **fields: Fields,
) -> None:
    """Plan a recipe in 3D: voxel size, patch, depth, width and batch, each with its reason.

    Only headers are read. A field that you give is kept, and the others follow from it. A plan that the
    memory does not hold is shown and refused.

    Args:
        recipe: A recipe's name, or the path of a recipe's JSON file.
        data: Once per modality: its name and the folder of its data set, as in mri=data/lgg.
        only: A modality to plan for without the others; may be repeated.
        channel: Of a DICOM folder, once per channel: its name and what its series are called, as in
            T1="t1 mprage": part of the description, a pattern (*flair*), or a SeriesInstanceUID.
        memory_gib: For a training step; when left out nine tenths of what a GPU has free or, without one,
            half of the free memory, at most 8.
        out: Write the planned recipe to this JSON file, which `train` takes.
        **fields: Fields of the recipe, such as --preparation.spacing-mm [1,1,2].
    """
    from oncoseg.cli import fields as of_recipe
    from oncoseg.errors import RecipeError
    from oncoseg.files import write_json
    from oncoseg.recipe_plan import memory_at_hand_gib, plan_recipe

    start = open_recipe(recipe)
    changes = of_recipe.from_tokens(fields)
    of_recipe.check_flags(start, changes, PLAN_FLAGS)
    part = start.with_only(only) if only else start
    if memory_gib is not None and not memory_gib > 0:
        raise RecipeError(f"Expected --memory-gib above 0, got {memory_gib:g}.")
    fingerprint = _fingerprint(part, parse_data(data), parse_channels(channel))
    gib = memory_at_hand_gib(part.training.device) if memory_gib is None else memory_gib
    planned = plan_recipe(part, fingerprint, gib, changes)
    rows = [(choice.name, _shown(choice.value), choice.why) for choice in planned.choices]
    terminal.print_table(None, ("field", "value", "why"), rows, unbroken=2)
    if planned.obstacle:
        raise RecipeError(planned.obstacle + (" Nothing was written." if out else ""))
    if out is None:
        terminal.say("Add --out FILE.json to keep it, for oncoseg train FILE.json")
        return
    write_json(out, planned.recipe.model_dump(mode="json"))
    terminal.say(f"Planned: {out}")
    terminal.say(f"Next: oncoseg train {out} {' '.join(f'--data {one}' for one in data)} --out RUN")


def _fingerprint(recipe: "Recipe", folders: Mapping[str, Path], channels: Mapping[str, str]) -> "Fingerprint":
    """Of all modalities' data together."""
    from oncoseg.datasets import open_dataset
    from oncoseg.errors import DataError
    from oncoseg.fingerprint import Fingerprint, read_fingerprint
    from oncoseg.training.sources import channels_by_modality, check_modalities

    check_modalities(recipe, folders)
    chosen = channels_by_modality(recipe, channels)
    found = Fingerprint((), ())
    for name, folder in folders.items():
        with terminal.progress(f"looking through {name}") as scanning:
            scan = open_dataset(folder, channels=chosen.get(name), progress=scanning)
        terminal.note_found(name, scan)
        wanted = recipe.modalities[name].channels
        cases = [case for case in scan.cases if case.masks and set(wanted) & set(case.images)]
        if not cases:
            raise DataError(
                f"No case of {name} has a mask and one of the channels {', '.join(dict.fromkeys(wanted))}; "
                "expected some to train on. Add their masks."
            )
        with terminal.progress(f"reading headers of {name}") as progress:
            found += read_fingerprint(cases, progress)
    return found


def _shown(value: Any) -> str:
    import json

    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
