"""One prediction in a process of its own, for the tests of what is told in advance: foretold, or measured.

    python tests/measured_prediction.py foretold|measured NAME FOLDER

Prints the memory in bytes.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from measured import S1, peak_bytes
from oncoseg import models
from oncoseg.predict import Predictor
from tiny import brats_case, tiny_recipe


class Prediction(NamedTuple):
    """A network, and the grid of an image of four sequences.

    Attributes:
        grid: voxels along i, j, k.
        side: of the slices that the network gets.
        features: of its stages.
        batch: slices at a time.
        flips: average over mirror images.
        probabilities: write them, too.
    """

    grid: tuple[int, int, int]
    side: int
    features: list[int]
    batch: int = 16
    flips: bool = False
    probabilities: bool = False


PREDICTIONS = {
    "tiny, one slab": Prediction((20, 20, 20), 16, [4, 8]),
    "S1 at 128×128, 240×240×40": Prediction((240, 240, 40), 128, S1, batch=8, flips=True),
    "features 16, 32, 64 at 240×240, 240×240×155, probabilities": Prediction(
        (240, 240, 155), 240, [16, 32, 64], probabilities=True
    ),
    "features 16, 32, 64 at 256×256, 512×512×40, batch 4": Prediction(
        (512, 512, 40), 256, [16, 32, 64], batch=4
    ),
}


def data_in(root: Path, name: str) -> Path:
    return brats_case(root, 1, grid=PREDICTIONS[name].grid)


class Enough(Exception):
    """The line was said."""


def work(how: str, name: str, folder: Path) -> float:
    """Bytes: those of the line that is said beforehand, or of the process's peak."""
    chosen, said = PREDICTIONS[name], []
    recipe = tiny_recipe(
        preparation__slice_size=[chosen.side, chosen.side],
        network__arguments__features=chosen.features,
        prediction__batch_size=chosen.batch,
        prediction__flips=chosen.flips,
    )
    torch.manual_seed(0)
    network = models.build("attention-unet", recipe.in_channels, 1, recipe.network.arguments)

    def foretell(line: str) -> None:
        said.append(line)
        raise Enough

    try:
        Predictor(recipe, network).predict(
            [folder / "BraTS2021_00001"],
            folder / how,
            modality="mri",
            probabilities=chosen.probabilities,
            accept_implausible=True,
            foretell=foretell if how == "foretold" else None,
        )
    except Enough:
        (gib,) = re.findall(r"about ([\d.]+) GiB of memory", said[0])
        return float(gib) * 2**30
    return peak_bytes()


if __name__ == "__main__":
    sys.stdout.write(str(work(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
