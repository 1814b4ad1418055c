"""Every network, of volumes and of slices with their neighbours: trained, evaluated and predicting."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from oncoseg.evaluate.run import evaluate_run
from oncoseg.predict import Predictor
from oncoseg.recipes import get_recipe
from oncoseg.train import train
from tiny import brats_case

GRID = (20, 16, 18)

PATCH = [16, 16, 16]
"""In 3D; the slices are as large."""

TRANSFORMER = {"hidden_size": 8, "mlp_dim": 8, "heads": 2}

NETWORKS: dict[str, dict[str, Any]] = {
    "attention-unet": {"features": [4, 8]},
    "attention-unet, no gates": {"features": [4, 8], "attention": False},
    "attention-unet, aspp": {"features": [4, 8], "context": "aspp"},
    "attention-unet, spp": {"features": [4, 8], "context": "spp"},
    "residual-attention-unet": {"features": [4, 8]},
    "residual-attention-unet, additive": {"features": [4, 8], "attention": "additive"},
    "residual-attention-unet, none": {"features": [4, 8], "attention": None},
    "monai-unet": {"features": [4, 8]},
    "dynunet": {"features": [4, 8, 8]},
    "segresnet": {"first_features": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "unetr": TRANSFORMER | {"img_size": 16, "first_features": 4},
    "swin-unetr": {"features": 12, "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 2], "window_size": 2},
}
"""Name in MODELS, and what is special → its arguments."""

SEEN: dict[str, dict[str, Any]] = {
    "3D": {
        "preparation.spatial_dims": 3,
        "preparation.spacing_mm": [1, 1, 1],
        "preparation.patch": PATCH,
        "modalities.mri.scaling": "volume-percentile",
        "training.patches_per_case": 1,
        "prediction.overlap": 0.0,
    },
    "2.5D": {"preparation.neighbours": 1, "preparation.slice_size": PATCH[:2]},
}

FEW: dict[str, Any] = {
    "modalities.mri.channels": ["FLAIR"],
    "training.pretrain_on": None,
    "training.max_epochs": 1,
    "training.batch_size": 2,
    "training.device": "cpu",
    "training.precision": "32-true",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Computations are so small that a second thread only waits for the first.

    On a busy machine it takes the processor meanwhile: Swin UNETR took 40 s of it with two threads, and 4 s
    with one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks") / "mri"
    for number in range(4):
        brats_case(root, number, grid=GRID)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_from_files_to_masks(
    name: str, seen: str, data: Path, store: Path, tmp_path: Path
) -> None:
    for package in ("monai", "einops"):
        pytest.importorskip(package, reason="pip install 'oncoseg[comparators]'")
    network = {"network.name": name.split(",")[0], "network.arguments": NETWORKS[name]}
    recipe = get_recipe("unified-mri-ct").with_only(["mri"]).with_changes(FEW | SEEN[seen] | network)
    run = tmp_path / "run"
    assert train(recipe, {"mri": data}, run, store=store, workers=0).finished
    assert (evaluate_run(run) / "summary.json").is_file()
    out = tmp_path / "masks"
    case = sorted(data.iterdir())[0]
    (mask,) = Predictor.load(run).predict([case], out, probabilities=True)
    assert nib.load(mask).shape == GRID
    (path,) = out.glob("*_probability.nii.gz")
    probability = np.asarray(nib.load(path).dataobj)
    assert 0 <= probability.min() < probability.max() <= 1
    marked = np.asarray(nib.load(mask).dataobj) > 0
    np.testing.assert_array_equal(marked, probability >= recipe.prediction.threshold)
