"""Prediction in 3D of CTs of 512×512×200 and 512×512×800 voxels, from a file to a file, three classes.

    python benchmarks/predict_volume.py [--quick]

The first two rows keep the scan's own voxels (0.8×0.8×1 mm) and take a network of one layer, so that the
pipeline itself is seen: its peak of resident memory must not grow with the scan by more than what lies in
files that the system may page out (the source's 2 bytes a voxel, the mask's 1). The third resamples to 1.5 mm
and takes an untrained attention U-Net. All with one thread, windows of 96×96×96 and an overlap of a half.
Target: below 4 GiB.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from _common import print_hardware, print_table, run_python, scratch_folder

SPACING_MM = (0.8, 0.8, 1.0)
FEATURES = (8, 16, 32, 64)
"""Of the attention U-Net."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--predict", nargs=4, metavar=("CT", "OUT", "SIDE", "MM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        scan, out, side, spacing_mm = options.predict
        predict(Path(scan), Path(out), int(side), [float(mm) for mm in spacing_mm.split(",")])
        return
    print_hardware()
    grids = [(40, 40, 30), (40, 40, 60)] if options.quick else [(512, 512, 200), (512, 512, 800)]
    side = 16 if options.quick else 96
    rows = []
    with scratch_folder() as folder:
        scans = [make_scan(folder / f"{grid[2]}.nii", grid) for grid in grids]
        for scan, grid, spacing in [
            (scans[0], grids[0], SPACING_MM),
            (scans[1], grids[1], SPACING_MM),
            (scans[1], grids[1], (1.5, 1.5, 1.5)),
        ]:
            in_words = ",".join(map(str, spacing))
            out = folder / f"{grid[2]}-{in_words}"
            done = run_python(__file__, "--predict", scan, out, side, in_words)
            found = done.result()
            rows.append(
                (
                    "×".join(map(str, grid)),
                    "×".join(map(str, spacing)),
                    found["network"],
                    f"{found['windows']}",
                    f"{found['seconds']:.0f}",
                    f"{done.peak_mib / 1024:.2f}",
                )
            )
            print_table(("voxels", "mm", "network", "windows", "s", "peak GiB"), rows[-1:])
    print_table(("voxels", "mm", "network", "windows", "s", "peak GiB"), rows)


def make_scan(path: Path, grid: tuple[int, int, int]) -> Path:
    """Noise and ellipsoids in Hounsfield units, int16, written slice by slice."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    header = nib.Nifti1Header()
    header.set_data_shape(grid)
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([*SPACING_MM, 1.0]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    i, j = np.meshgrid(np.linspace(-1, 1, grid[0]), np.linspace(-1, 1, grid[1]), indexing="ij")
    with path.open("wb") as file:
        header.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        for k in np.linspace(-1, 1, grid[2]):
            body = i**2 / 0.8 + j**2 / 0.5 + k**2 / 4 < 1
            lesion = (i - 0.2) ** 2 / 0.02 + (j + 0.1) ** 2 / 0.01 + (k % 0.5 - 0.25) ** 2 / 0.03 < 1
            values = np.where(body, 40, -1000) + 60 * lesion + rng.normal(0, 15, grid[:2])
            file.write(values.astype(np.int16).tobytes(order="F"))
    return path


def predict(scan: Path, out: Path, side: int, spacing_mm: list[float]) -> None:
    """Predict one scan with an untrained network, and say how long it took."""
    import torch
    from torch import Tensor, nn

    from oncoseg.models import build
    from oncoseg.predict import Predictor
    from oncoseg.recipes import get_recipe

    torch.set_num_threads(1)
    recipe = (
        get_recipe("unified-mri-ct")
        .with_only(["ct"])
        .with_changes(
            {
                "classes": {"liver": ["*"], "tumour": ["*"], "vessel": ["*"]},
                "modalities.ct.channels": ["CT"],
                "modalities.ct.scaling": "window",
                "modalities.ct.window": [-200, 300],
                "preparation.spatial_dims": 3,
                "preparation.spacing_mm": spacing_mm,
                "preparation.patch": [side] * 3,
                "network.arguments": {"features": FEATURES},
                "training.device": "cpu",
            }
        )
    )
    torch.manual_seed(0)
    network: nn.Module = nn.Conv3d(1, 3, 1)
    name = "one layer"
    if spacing_mm != list(SPACING_MM):
        network, name = build("attention-unet", 1, 3, recipe.network_arguments), f"U-Net {FEATURES}"
    windows = 0

    def count(module: nn.Module, images: tuple[Tensor], output: Tensor) -> None:
        nonlocal windows
        windows += len(images[0])

    network.register_forward_hook(count)
    began = time.perf_counter()
    Predictor(recipe, network).predict([scan], out, modality="ct")
    seconds = time.perf_counter() - began
    print(json.dumps({"network": name, "windows": windows, "seconds": seconds}))


if __name__ == "__main__":
    main()
