"""The networks of a model folder: one of a run, one per fold of a cross-validation."""

from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from torch import nn

from oncoseg.errors import RunError
from oncoseg.files import sha256_of_file, sha256_of_json
from oncoseg.folds_folder import FoldsFolder, is_cross_validation
from oncoseg.models import build
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder


class Networks(NamedTuple):
    """Networks with their kept weights.

    Attributes:
        members: one, or those of all folds in order.
        weights_sha256: of the weights' file; of several, the hash of their hashes.
    """

    members: list[nn.Module]
    weights_sha256: str


def load_networks(folder: Path, recipe: Recipe) -> Networks:
    """Read the kept weights of a run folder, or of every fold of a cross-validation.

    Raises:
        RunError: no weights yet, damaged or unfit ones, or a fold that is not finished.
    """
    if not is_cross_validation(folder):
        model = RunFolder(folder).need_model()
        return Networks([_network(recipe, model)], sha256_of_file(model))
    models = [run.need_model() for run in FoldsFolder(folder).finished_runs()]
    members = [_network(recipe, model) for model in models]
    return Networks(members, sha256_of_json([sha256_of_file(model) for model in models]))


def _network(recipe: Recipe, model: Path) -> nn.Module:
    network = build(recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments)
    try:
        network.load_state_dict(safetensors.torch.load_file(model))
    except Exception as error:
        raise RunError(
            f"{model} is damaged or does not fit its recipe ({type(error).__name__}); expected weights "
            f"of {recipe.network.name}. Copy the whole run folder again, or train again."
        ) from error
    return network
