"""A recipe for volumes, made from any recipe: `planner` chooses, the network's own memory is counted."""

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from oncoseg import hardware
from oncoseg.errors import RecipeError
from oncoseg.fingerprint import Fingerprint, Grid
from oncoseg.footprint import footprint
from oncoseg.limits import GIB
from oncoseg.models import MODELS, build
from oncoseg.models.comparators import TooLargeError
from oncoseg.planner import UNKNOWN_STRIDES, Choice, Shape, is_too_small, median_grid, plan
from oncoseg.processes import LARGEST_SHARE_GIB, free_memory_gib
from oncoseg.recipe import VOLUME_SCALINGS, Modality, Recipe

FIELDS = {
    "spacing_mm": "preparation.spacing_mm",
    "patch": "preparation.patch",
    "strides": "network.arguments.strides",
    "features": "network.arguments.features",
    "batch_size": "training.batch_size",
}
"""What the planner chooses → the recipe's field."""

CAUTION = 1.3
"""What training takes, against its bare steps: checkpoints, validation and the allocator's leftovers are
beside them (on one real data set `train` took 4.7 GiB where 3.7 were counted)."""

IMG_SIZE = "network.arguments.img_size"
"""Of networks with a position embedding: the largest image that they take."""

HELPS = (
    "Give a smaller network (--network.name, --network.arguments.…), a smaller --preparation.patch or "
    "--training.batch-size, or, where there is more memory, --memory-gib."
)
"""Said where the memory is too small."""

WINDOW_OF_RECIPE = (
    "the recipe's, as no voxel is read: it must fit your organ (in Hounsfield units about -1000 to 400 for "
    "the lung, -160 to 240 for the abdomen)"
)
"""Why a window is what it is."""

GPU_SHARE = 0.9
"""Of a GPU's free memory, what is planned with."""


class Planned(NamedTuple):
    """A planned recipe.

    Attributes:
        recipe: complete, for `train`.
        choices: each field that was chosen: its dotted name, its value and why.
        obstacle: why training cannot work with it, and what helps; None where nothing speaks against it.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]
    obstacle: str | None = None


def plan_recipe(
    recipe: Recipe, fingerprint: Fingerprint, memory_gib: float, changes: Mapping[str, Any]
) -> Planned:
    """Fill in what a recipe needs in 3D.

    Args:
        recipe: of slices or volumes; what it says of them is planned anew.
        fingerprint: of all its modalities' data.
        memory_gib: for a training step.
        changes: of its fields, which are kept; see `Recipe.with_changes`.

    Raises:
        RecipeError: an unknown field or an unfit value.
    """
    kept = {name: value for name, value in _leaves(changes) if str(value).lower() != "none"}
    if str(kept.get("preparation.spatial_dims", 3)) != "3":
        raise RecipeError("Plans are for 3D; leave --preparation.spatial-dims out, or give 3.")
    converted = [choice for choice in _for_volumes(recipe) if _spelt(choice.name) not in kept]
    volumes = recipe.with_changes({choice.name: choice.value for choice in converted} | dict(changes))
    given = _given(volumes, kept)
    takes = inspect.signature(MODELS[volumes.network.name]).parameters
    if "strides" not in takes:
        given.setdefault("strides", UNKNOWN_STRIDES)
    of_patch = frozenset(takes) - {"img_size"} if IMG_SIZE in kept else frozenset(takes)
    memory = _memory_of(volumes, of_patch)
    found = plan(fingerprint, memory, memory_gib * GIB, given, len(volumes.modalities))
    chosen = [
        choice._replace(name=FIELDS[choice.name])
        for choice in found
        if choice.name in takes or choice.name not in ("strides", "features")
    ]
    values = {choice.name: choice.value for choice in found}
    if "img_size" in of_patch:
        why = "the patch, as its position embedding is for one size"
        chosen.append(Choice(IMG_SIZE, values["patch"], why))
    planned = volumes.with_changes({one.name: _plain(one.value) for one in chosen if one.name not in kept})
    shape = Shape(values["patch"], values["strides"], values["features"])
    median = median_grid(fingerprint, values["spacing_mm"])
    obstacle = _obstacle(planned, memory(shape, values["batch_size"]), memory_gib, median, "patch" in given)
    return Planned(planned, (*converted, *_windows(planned, kept), *chosen), obstacle)


def _obstacle(recipe: Recipe, taken: float, gib: float, median: Grid, given_patch: bool) -> str | None:
    """See `Planned.obstacle`.

    Args:
        recipe: as planned.
        taken: bytes of a step; infinite where the network takes no such patch.
        gib: there is.
        median: voxels of the median image.
        given_patch: by the user, who may want a small one.
    """
    patch = recipe.example_size
    size, name, batch = "×".join(map(str, patch)), recipe.network.name, recipe.training.batch_size
    if math.isinf(taken):
        return (
            f"{name} takes no patch of {size} voxels: its {IMG_SIZE} is smaller. Leave that out, or expected "
            "a smaller --preparation.patch."
        )
    if taken > gib * GIB:
        return (
            f"A training step of {name} takes about {taken / GIB:.1f} GiB with {batch} patches of {size} "
            f"voxels, but there are {gib:.1f} GiB, so that it cannot be trained. {HELPS}"
        )
    if not given_patch and is_too_small(patch, median):
        return (
            f"In {gib:.1f} GiB, {name} has room for patches of {size} voxels only, which see too little "
            f"around a lesion to learn from. {HELPS}"
        )
    return None


def _windows(recipe: Recipe, kept: Mapping[str, Any]) -> list[Choice]:
    """The windows of Hounsfield units, which nothing in the headers says anything of."""
    choices = []
    for name, modality in recipe.modalities.items():
        field = f"modalities.{name}.window"
        if modality.scaling == "window" and set(modality.channels) == {"CT"}:
            why = "your choice" if field in kept else WINDOW_OF_RECIPE
            choices.append(Choice(field, modality.window, why))
    return choices


def _leaves(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The single fields that changes set, by dotted names, also where they come as an object or its JSON."""
    for field, value in changes.items():
        name = above + _spelt(field)
        part = _part(value)
        if part is None:
            yield name, value
        else:
            yield from _leaves(part, f"{name}.")


def _spelt(field: str) -> str:
    """A field's name in one of its two spellings."""
    return field.replace("-", "_")


def _part(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    return value if isinstance(value, Mapping) else None


def _plain(value: Any) -> Any:
    """As JSON has it, in which a recipe is kept."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def memory_at_hand_gib(device: str) -> float:
    """What training may take here: of a GPU most that is free, else half of what is free, at most 8 GiB."""
    import torch

    if hardware.choose_device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return GPU_SHARE * free / 2**30
    return min(LARGEST_SHARE_GIB, free_memory_gib() / 2)


def _for_volumes(recipe: Recipe) -> list[Choice]:
    """What must change for volumes besides what is planned."""
    choices = [Choice("preparation.spatial_dims", 3, "volumes in place of slices")]
    if recipe.preparation.neighbours:
        choices.append(Choice("preparation.neighbours", 0, "a volume holds them already"))
    if recipe.augmentation.crop is not None:
        choices.append(
            Choice("augmentation.crop", None, "it is for slices; preparation.patch takes its place")
        )
    if recipe.training.tumour_share is not None:
        why = "it is for slices; training.foreground_share takes its place"
        choices.append(Choice("training.tumour_share", None, why))
    for name, modality in recipe.modalities.items():
        if modality.scaling not in VOLUME_SCALINGS:
            choices.append(_scaling(name, modality))
    return choices


def _scaling(name: str, modality: Modality) -> Choice:
    if set(modality.channels) == {"CT"}:
        low, high = modality.window
        why = f"Hounsfield units mean the same in every image; its window, {low:g} to {high:g}"
        return Choice(f"modalities.{name}.scaling", "window", why)
    why = f"{modality.scaling} would change from slice to slice; by percentiles of the whole volume instead"
    return Choice(f"modalities.{name}.scaling", "volume-percentile", why)


def _given(recipe: Recipe, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The user's choices among what is planned."""
    values = {
        "spacing_mm": recipe.preparation.spacing_mm,
        "patch": recipe.preparation.patch,
        "strides": recipe.network.arguments.get("strides"),
        "features": recipe.network.arguments.get("features"),
        "batch_size": recipe.training.batch_size,
    }
    return {name: value for name, value in values.items() if FIELDS[name] in kept and value is not None}


def _memory_of(recipe: Recipe, takes: frozenset[str]) -> Any:
    """Bytes of a step, by shape and batch, of a network to which the shape gives those arguments."""
    precision = hardware.choose_precision(
        recipe.training.precision, hardware.choose_device(recipe.training.device)
    )

    @cache
    def counted(shape: Shape) -> Any:
        planned = {
            "features": list(shape.features),
            "strides": [list(step) for step in shape.strides],
            "img_size": list(shape.patch),
        }
        arguments = {**recipe.network_arguments, **{k: v for k, v in planned.items() if k in takes}}
        name, classes = recipe.network.name, len(recipe.classes)
        return footprint(
            lambda: build(name, recipe.in_channels, classes, arguments), recipe.in_channels, shape.patch
        )

    def of_step(shape: Shape, batch: int) -> float:
        try:
            asked = shape if "features" in takes else shape._replace(features=())
            return CAUTION * float(counted(asked).step_bytes(batch, precision))
        except TooLargeError:  # no memory is enough
            return math.inf

    return of_step
