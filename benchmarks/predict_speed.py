"""Prediction of one case of 240×240×155 voxels with four sequences, from files to a file.

    python benchmarks/predict_speed.py [--rounds 3] [--quick]

`oncoseg predict` and a plain script with the same network and weights (nibabel, fp32, the whole volume
in memory, slice after slice) take turns in fresh processes: wall time with start and imports, and peak
of resident memory. Targets on two cores with bf16: 6 s and 2 GiB. A third process measures the network
alone and the processor's peak in matrix products, to tell how near the network comes to it.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from _common import Child, make_phantoms, print_hardware, print_table, run_python, scratch_folder, spread

SEQUENCES = ("t1", "t1ce", "t2", "flair")
SLICE_SIZE = (128, 128)
MATRIX = 2048
"""Rows of the square matrices whose product is timed."""

TIMES, QUICK_TIMES = 5, 1
"""Repetitions of each measurement of the network alone."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--rounds", type=int, default=3, help="predictions each way")
    parser.add_argument("--plain", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--network", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        predict_plainly(*options.plain)
        return
    if options.network:
        print(json.dumps(measure_network(options.network, options.quick)))
        return
    print_hardware()
    quick = ["--quick"] if options.quick else []
    with scratch_folder() as scratch:
        run = make_run(scratch / "run")
        case = next(make_phantoms(scratch / "phantoms", 1, options.quick).glob("BraTS*"))
        ours, plain, network = [], [], []
        for number in range(1 if options.quick else options.rounds):
            out = scratch / f"ours-{number}"
            ours.append(run_python("-m", "oncoseg", "predict", run, case, "--modality", "mri", "--out", out))
            plain.append(run_python(__file__, "--plain", run, case, scratch / "plain.nii.gz"))
            network.append(run_python(__file__, "--network", run, *quick))
        agreement = share_of_equal_voxels(out / f"{case.name}.nii.gz", scratch / "plain.nii.gz")
        computed, depth = filled_slices(case)
    report_cases(ours, plain)
    print(f"The masks agree in {100 * agreement:.2f} % of the voxels.")
    print(f"{computed} of the {depth} slices hold signal; oncoseg computes only these.\n", flush=True)
    report_network([child.result() for child in network])


def make_run(folder: Path) -> Path:
    """A run folder of system S1 with seeded, untrained weights: speed does not depend on them."""
    import safetensors.torch
    import torch

    from oncoseg.models import build
    from oncoseg.recipes import get_recipe
    from oncoseg.run_folder import RunFolder

    recipe = get_recipe("unified-mri-ct").with_changes({"training.device": "cpu"})
    torch.manual_seed(0)
    network = build(recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments)
    folder.mkdir()
    run = RunFolder(folder)
    run.write_recipe(recipe)
    safetensors.torch.save_file(network.state_dict(), run.model)
    return folder


def predict_plainly(run: Path, case: Path, target: Path) -> None:
    """The plain way, as a script that does just this."""
    import nibabel
    import torch
    from torch.nn import functional

    files = [nibabel.load(case / f"{case.name}_{sequence}.nii.gz") for sequence in SEQUENCES]
    volume = np.stack([file.get_fdata() for file in files])
    network = _plain_network(run)
    masks = []
    with torch.no_grad():
        for index in range(volume.shape[-1]):
            image = volume[..., index]
            low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
            scaled = (image - low) / np.where(high > low, high - low, 1)
            batch = torch.from_numpy(scaled.astype(np.float32))[None]
            batch = functional.interpolate(batch, SLICE_SIZE, mode="bilinear")
            probability = functional.interpolate(network(batch).sigmoid(), image.shape[1:], mode="bilinear")
            masks.append(probability[0, 0].numpy() >= 0.5)
    labels = np.stack(masks, axis=-1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, files[0].affine), target)


def measure_network(run: Path, quick: bool) -> dict[str, float]:
    """Seconds per slice of both ways' networks, and FLOP per second of a matrix product."""
    import torch

    from oncoseg.models import describe
    from oncoseg.predict import Predictor

    predictor = Predictor.load(run)
    recipe = predictor.recipe
    times, matrix = (QUICK_TIMES, MATRIX // 8) if quick else (TIMES, MATRIX)
    batch = torch.rand(2 if quick else recipe.prediction.batch_size, recipe.in_channels, *SLICE_SIZE)
    plain = _plain_network(run)
    number_format = torch.bfloat16 if predictor.precision == "bf16-mixed" else torch.float32
    square = torch.rand(matrix, matrix).to(number_format)
    cost = describe(
        recipe.network.name, recipe.network.arguments, recipe.in_channels, len(recipe.classes), SLICE_SIZE
    )
    ways = (lambda: predictor.predict_slices(batch), lambda: plain(batch[:1]), lambda: square @ square)
    with torch.inference_mode():
        ours, theirs, product = fastest_in_turn(ways, times)
    return {
        "ours": ours / len(batch),
        "plain": theirs,
        "peak": 2 * matrix**3 / product,
        "slice_flop": 2.0 * cost.multiply_adds,
    }


def fastest_in_turn(functions: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
    """Each function's shortest time in seconds; they take turns, after a turn that warms up."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(1 + repetitions):
        for function, of_one in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            of_one.append(time.perf_counter() - started)
    return [min(of_one[1:]) for of_one in times]


def _plain_network(run: Path) -> Callable[..., object]:
    import safetensors.torch

    from oncoseg.models.attention_unet import attention_unet

    network = attention_unet(len(SEQUENCES), 1).eval()
    network.load_state_dict(safetensors.torch.load_file(run / "model.safetensors"))
    return network


def share_of_equal_voxels(first: Path, second: Path) -> float:
    """How far two masks agree, 0 to 1."""
    import nibabel

    one, other = (np.asarray(nibabel.load(path).dataobj) for path in (first, second))
    return float((one == other).mean())


def filled_slices(case: Path) -> tuple[int, int]:
    """Axial slices with any signal, and all of them."""
    import nibabel

    images = [np.asarray(nibabel.load(case / f"{case.name}_{name}.nii.gz").dataobj) for name in SEQUENCES]
    filled = np.any([image.any(axis=(0, 1)) for image in images], axis=0)
    return int(filled.sum()), len(filled)


def report_cases(ours: list[Child], plain: list[Child]) -> None:
    """Print time and memory of both ways."""
    rows = [
        [
            name,
            spread([child.seconds for child in way], 1),
            spread([child.processor_seconds for child in way], 1),
            spread([child.peak_mib for child in way], 0),
        ]
        for name, way in (("oncoseg predict", ours), ("plain script", plain))
    ]
    pairs = zip(ours, plain, strict=True)
    ratios = [[theirs[field] / mine[field] for field in range(3)] for mine, theirs in pairs]
    rows.append(["plain / oncoseg", *(spread(values) for values in zip(*ratios, strict=True))])
    print_table([f"file to file, {len(ours)} each", "s", "processor s", "peak memory, MiB"], rows)


def report_network(found: list[dict[str, float]]) -> None:
    """Print the networks' speed as a share of the processor's peak."""
    flop = found[0]["slice_flop"]
    rows = [
        [
            name,
            spread([1000 * one[key] for one in found], 0),
            spread([flop / one[key] / 1e9 for one in found], 0),
            spread([100 * flop / one[key] / one["peak"] for one in found], 0),
        ]
        for name, key in (("oncoseg, batches of 16", "ours"), ("plain, slice after slice", "plain"))
    ]
    rows.append(["matrix product", "", spread([one["peak"] / 1e9 for one in found], 0), "100"])
    print_table(
        [f"network alone, {flop / 1e9:.2f} GFLOP a slice", "ms per slice", "GFLOP/s", "% of the peak"], rows
    )


if __name__ == "__main__":
    main()
