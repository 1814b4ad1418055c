"""nnU-Net's evaluation of two folders of masks; run by the Python of its own environment.

What `nnUNetv2_evaluate_simple` does: finds the kind of the files by itself, and writes `metric_per_case`,
`mean` and `foreground_mean`.
"""

import argparse
import warnings
from pathlib import Path

from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple


def main() -> None:
    """Score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="folder of .nii.gz masks")
    parser.add_argument("prediction", type=Path, help="likewise, with the same names")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--labels", type=int, nargs="+", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ignore", type=int, help="label of voxels that are not counted")
    parser.add_argument("--chill", action="store_true", help="leave out a truth without a prediction")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # where no case has a value
    compute_metrics_on_folder_simple(
        str(chosen.truth),
        str(chosen.prediction),
        chosen.labels,
        str(chosen.out),
        num_processes=chosen.processes,
        ignore_label=chosen.ignore,
        chill=chosen.chill,
    )


if __name__ == "__main__":
    main()
