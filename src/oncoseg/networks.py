"""The networks of a model folder: of a run one, of a cross-validation one per fold, of a cascade the last."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from oncoseg.cascade_folder import CascadeFolder, is_cascade, last_run
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
        weights_sha256: see `weights_sha256`.
    """

    members: list[nn.Module]
    weights_sha256: str


def load_networks(folder: Path, recipe: Recipe) -> Networks:
    """Read the kept weights of a run folder, of every fold of a cross-validation, or of a second stage.

    Raises:
        RunError: no weights yet, damaged or unfit ones, a fold that is not finished, or a second stage
            without its first.
    """
    if not is_cascade(folder):
        _check_whole_images(RunFolder(folder))
    models = _models(folder)
    for model in models:
        RunFolder(model.parent).check_model()
    return Networks([_network(recipe, model) for model in models], weights_sha256(folder))


def weights_sha256(folder: Path) -> str:
    """The hash of the kept weights' file; of several folds or stages, the hash of their hashes in order.

    Raises:
        RunError: no weights yet, or a fold that is not finished.
    """
    if is_cascade(folder):
        _check_trained(folder)
        cascade = CascadeFolder(folder)
        return sha256_of_json([weights_sha256(cascade.first), weights_sha256(cascade.second.path)])
    hashes = [sha256_of_file(model) for model in _models(folder)]
    return sha256_of_json(hashes) if is_cross_validation(folder) else hashes[0]


def _check_trained(cascade: Path) -> None:
    """Check that both stages of a cascade are there.

    Raises:
        RunError: one is not; says how to go on.
    """
    folder = CascadeFolder(cascade)
    if not folder.second.model.is_file() and not folder.second.is_finished():
        raise RunError(
            f"The cascade {cascade} has no weights of its second stage yet; expected both stages. Go on with "
            f"`oncoseg train --resume --out {cascade}`."
        )
    if not is_cross_validation(folder.first):
        raise RunError(
            f"The cascade {cascade} has lost its first stage, {folder.first}; expected both stages. Copy the "
            f"whole folder again; or, with nothing of that stage left, train it again with `oncoseg train "
            f"--resume --out {cascade}`."
        )


def _check_whole_images(run: RunFolder) -> None:
    if (run.path / "data.json").is_file() and any(one.get("boxes") for one in run.data().values()):
        raise RunError(
            f"{run.path} is the second stage of a cascade, which knows nothing of what lies outside its "
            f"boxes; expected the folder of both stages, such as {run.path.parent}."
        )


def _models(folder: Path) -> list[Path]:
    if is_cascade(folder):
        _check_trained(folder)
        folder = last_run(folder).path
    runs = FoldsFolder(folder).finished_runs() if is_cross_validation(folder) else [RunFolder(folder)]
    return [run.need_model() for run in runs]


def _network(recipe: Recipe, model: Path) -> nn.Module:
    makings = recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network_arguments
    with torch.device("meta"):  # takes no memory, whatever the recipe asks for
        expected = build(*makings).state_dict()
    try:
        kept = safetensors.torch.load_file(model)
        if _shapes(kept) != _shapes(expected):
            raise ValueError("its tensors have other names or sizes")
        network = build(*makings)
        network.load_state_dict(kept)
    except Exception as error:
        raise RunError(
            f"{model} is damaged or does not fit its recipe ({type(error).__name__}); expected weights "
            f"of {recipe.network.name}. Copy the whole run folder again, see whether `oncoseg train --resume "
            f"--out {model.parent}` can write them again, or train anew."
        ) from error
    return network


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
