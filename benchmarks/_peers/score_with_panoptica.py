"""panoptica's evaluation of two folders of masks; run by the Python of its own environment.

With its defaults: the components of each label are instances, matched at an IoU of 0.5; Dice, IoU, average
distance and volume difference of what is matched, and the Dice of the whole label. Writes JSON: case → label
→ the names and values of its result.
"""

import argparse
import json
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from panoptica import (
    ConnectedComponentsInstanceApproximator,
    InputType,
    NaiveThresholdMatching,
    Panoptica_Evaluator,
)
from panoptica.metrics import Metric
from panoptica.utils.citation_reminder import disable_citation_reminder
from panoptica.utils.segmentation_class import SegmentationClassGroups

WHOLE = ("DSC", "IOU", "ASSD", "HD", "HD95")
"""What it can say of a whole label."""

Scores = dict[str, dict[str, float | str]]
"""Label → name → value; or `error` → what went wrong."""


def score(chosen: argparse.Namespace, name: str) -> Scores:
    """Score one case, label by label."""
    warnings.simplefilter("ignore")
    disable_citation_reminder()
    evaluator = Panoptica_Evaluator(
        InputType.SEMANTIC,
        ConnectedComponentsInstanceApproximator(),
        NaiveThresholdMatching(),
        segmentation_class_groups=SegmentationClassGroups(
            {str(label): (label, False) for label in chosen.labels}
        ),
        global_metrics=chosen.whole and [Metric[metric] for metric in chosen.whole],
    )
    files = [chosen.prediction / name, chosen.truth / name]
    try:
        results = evaluator.evaluate(**(in_numpys_order(*files) if chosen.reorder else from_files(*files)))
    except (NotImplementedError, ValueError) as error:
        return {str(label): {"error": f"{type(error).__name__}: {error}"} for label in chosen.labels}
    return {
        label: {key: float(value) for key, value in result.to_dict().items()}
        for label, result in results.items()
    }


def from_files(prediction: Path, truth: Path) -> dict[str, Any]:
    """As its users call it."""
    return {"prediction_arr": str(prediction), "reference_arr": str(truth)}


def in_numpys_order(prediction: Path, truth: Path) -> dict[str, Any]:
    """The same voxels, the last axis varying fastest."""
    images = [nibabel.load(file) for file in (prediction, truth)]
    predicted, true = (np.ascontiguousarray(image.dataobj) for image in images)
    return {
        "prediction_arr": predicted,
        "reference_arr": true,
        "voxelspacing": images[1].header.get_zooms(),
    }


def main() -> None:
    """Score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="folder of .nii.gz masks")
    parser.add_argument("prediction", type=Path, help="likewise, with the same names")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--labels", type=int, nargs="+", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--whole", nargs="+", choices=WHOLE, help="of the whole label, in place of Dice alone"
    )
    parser.add_argument("--reorder", action="store_true", help="copy voxels into NumPy's order first")
    chosen = parser.parse_args()
    names = sorted(file.name for file in chosen.truth.glob("*.nii.gz"))
    with ProcessPoolExecutor(chosen.processes, get_context("spawn")) as pool:
        scores = pool.map(partial(score, chosen), names)
        found = {name.removesuffix(".nii.gz"): scored for name, scored in zip(names, scores, strict=True)}
    chosen.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
