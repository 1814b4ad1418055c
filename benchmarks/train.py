"""How much of training is arithmetic: slices per second, waiting, utilisation and peak memory.

    python benchmarks/train.py [--steps 8] [--device gpu] [--quick]

`oncoseg.train` trains on phantoms of 240×240×155 voxels, each setting in a process of its own, until so many
steps are done and it is stopped. Its own record says how long it waited for slices. The same process then
measures what its arithmetic could take at best: a large matrix product in the number format that was trained
in, and every convolution of the network alone, forward and backward, on batches of the same size.
"""

import argparse
import itertools
import json
import os
import resource
import signal
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from _common import (
    make_phantoms,
    peak_mib,
    print_hardware,
    print_table,
    run_python,
    scratch_folder,
    spread,
)

CASES, COPIES = 2, 8
"""Phantoms, and how often each is found under another name: an epoch of large batches needs many slices."""

WARM_UP = 2
"""Steps that are not counted."""

PRODUCT_SIDE = 4096
"""Rows and columns of the matrices of the product that stands for what the machine can do."""

TRIES = 3
"""Of everything that is timed for its best: the fastest counts, which makes the utilisation smaller."""

LARGEST_SHARE = 0.5
"""The largest sensible batch is the usual one doubled while that should take at most this share of memory."""


class Setting(NamedTuple):
    """What is trained, in words and as changes of system S1 on MRI."""

    name: str
    batch: int
    changes: Mapping[str, Any]


VOLUMES = {
    "preparation.spatial_dims": 3,
    "preparation.spacing_mm": [1, 1, 1],
    "modalities.mri.scaling": "volume-zscore",
    "training.patches_per_case": 16,
}

SETTINGS = (
    Setting("S1, 4×128×128", 8, {}),
    Setting(
        "S1 in 3D, 4×64×64×64",
        2,
        VOLUMES | {"preparation.patch": [64, 64, 64], "network.arguments.features": [32, 64, 128, 256]},
    ),
)
QUICK_SETTINGS = (
    Setting("small", 8, {"preparation.slice_size": [32, 32], "network.arguments.features": [8, 16]}),
    Setting(
        "small in 3D",
        2,
        VOLUMES | {"preparation.patch": [16, 16, 16], "network.arguments.features": [4, 8]},
    ),
)


class Result(NamedTuple):
    """Of one setting and batch size; `steps` are seconds."""

    steps: list[float]
    waiting: float
    operations: float
    floor: float
    product: float
    peak_mib: float
    memory_share: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--steps", type=int, default=8, help="steps that are counted")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(**options.child)))
        return
    print_hardware()
    rows = []
    with scratch_folder() as scratch:
        data = copies(make_phantoms(scratch / "phantoms", CASES + 1, options.quick), scratch / "data")
        number = itertools.count()

        def of(setting: Setting, batch: int) -> Result:
            given = {"data": data, "store": scratch / "store", "run": scratch / f"run-{next(number)}"}
            child = {"changes": dict(setting.changes), "batch": batch, "steps": options.steps}
            child |= {"device": options.device} | {name: str(path) for name, path in given.items()}
            return Result(*run_python(__file__, "--child", json.dumps(child)).result())

        for setting in QUICK_SETTINGS if options.quick else SETTINGS:
            usual = large = setting.batch
            small = of(setting, usual)
            rows.append(row(setting, usual, small))
            while 2 * large / usual * small.memory_share <= LARGEST_SHARE:
                large *= 2
            if large > usual and not options.quick:
                rows.append(row(setting, large, of(setting, large)))
    speeds = ["slices or windows/s", "ms per step", "waiting, %"]
    utilisation = ["GFLOP/s", "of the matrix product, %", "of its convolutions alone, %"]
    print_table(["training", "batch", *speeds, *utilisation, "peak memory, MiB"], rows)


def row(setting: Setting, batch: int, of: Result) -> list[str]:
    """Of the table."""
    median = statistics.median(of.steps)
    return [
        setting.name,
        str(batch),
        spread([batch / seconds for seconds in of.steps], 1),
        spread([1000 * seconds for seconds in of.steps], 0),
        f"{100 * of.waiting:.2f}",
        f"{of.operations / median / 1e9:.0f}",
        f"{100 * of.operations / median / of.product:.0f}",
        f"{100 * of.floor / median:.0f}",
        f"{of.peak_mib:.0f}",
    ]


def copies(phantoms: Path, out: Path) -> Path:
    """The same cases under several names, by links: they are prepared once, as the store goes by content."""
    for folder in sorted(path for path in phantoms.iterdir() if path.is_dir()):
        for copy in range(COPIES):
            name = f"{folder.name}{copy}"
            (out / name).mkdir(parents=True)
            for file in folder.iterdir():
                (out / name / file.name.replace(folder.name, name)).symlink_to(file)
    return out


# in the process of one setting ----------------------------------------------------------------


def measure(
    changes: Mapping[str, Any], batch: int, steps: int, device: str, data: str, store: str, run: str
) -> Result:
    """Train, then find out what the arithmetic alone would have taken."""
    import torch

    from oncoseg.recipes import get_recipe

    fixed = {"training.pretrain_on": None, "training.batch_size": batch, "training.device": device}
    recipe = get_recipe("unified-mri-ct").with_only(["mri"]).with_changes({**fixed, **changes})
    seconds, waiting = trained(recipe, Path(data), Path(store), Path(run), steps)
    if device == "gpu":
        peak, whole = torch.cuda.max_memory_reserved() / 2**20, torch.cuda.mem_get_info()[1] / 2**20
    else:
        peak = peak_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return Result(seconds, waiting, *arithmetic(recipe), peak, peak / whole)


def trained(recipe: Any, data: Path, store: Path, run: Path, steps: int) -> tuple[list[float], float]:
    """Seconds of each counted step, and the share of all steps' time that was spent waiting for slices."""
    from oncoseg.run_folder import RunFolder
    from oncoseg.train import train

    times: list[float] = []

    def watch(status: object) -> None:
        times.append(time.perf_counter())
        if len(times) == WARM_UP + steps:
            os.kill(os.getpid(), signal.SIGINT)  # it stops after a checkpoint

    names = sorted(path.name for path in data.iterdir())
    taught, validation = names[:-COPIES], names[-1:]
    sides = {
        "train": {name: [name] for name in taught},
        "validation": {validation[0]: validation},
        "test": {},
    }
    split_file = run.with_suffix(".json")
    split_file.write_text(json.dumps({"modalities": {"mri": sides}}))
    train(recipe, {"mri": data}, run, store=store, split_file=split_file, monitor=watch)
    (call,) = RunFolder(run).record()["calls"]
    counted = times[WARM_UP - 1 : WARM_UP + steps]
    each = [later - earlier for earlier, later in itertools.pairwise(counted)]
    return each, call["waiting_seconds"] / (len(times) * statistics.fmean(each))


def arithmetic(recipe: Any) -> tuple[float, float, float]:
    """Operations of a step, seconds that they take alone, and operations per second of a matrix product.

    A multiply–add counts as two operations; backward counts as often as it is computed, to the weights and to
    the inputs, but not to the images.
    """
    import torch

    from oncoseg import hardware
    from oncoseg.training.choices import network_of

    chosen = hardware.choose_device(recipe.training.device)
    precision = hardware.choose_precision(recipe.training.precision, chosen)
    kind = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    network = network_of(recipe).to(chosen).train()
    size = (recipe.training.batch_size, recipe.in_channels, *recipe.example_size)
    layout = hardware.training_layout(precision, chosen, recipe.preparation.spatial_dims)
    operations = floor = 0.0
    for layer, inputs, outputs, of_images in convolutions(network, torch.zeros(size, device=chosen)):
        passes = alone(layer, inputs, outputs, kind, layout, of_images)
        floor += sum(best(one, chosen) for one in passes)
        positions = inputs[2:] if layer.transposed else outputs[2:]
        operations += len(passes) * 2 * layer.weight.numel() * inputs[0] * positions.numel()
    matrix = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE, device=chosen).to(kind)
    return operations, floor, 2 * PRODUCT_SIDE**3 / best(lambda: matrix @ matrix, chosen)


def convolutions(network: Any, images: Any) -> list[tuple[Any, Any, Any, bool]]:
    """Each convolution with the shapes of its input and output, and whether its input is the images."""
    import torch

    found: list[tuple[Any, Any, Any, bool]] = []
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)

    def note(layer: Any, inputs: Any, output: Any) -> None:
        found.append((layer, inputs[0].shape, output.shape, not found))

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def alone(
    layer: Any, inputs: Any, outputs: Any, kind: Any, layout: Any, of_images: bool
) -> list[Callable[[], object]]:
    """The convolution's passes: forward, backward to the weights, and backward to what it was given."""
    import torch

    def like(shape: Any) -> Any:
        values = torch.rand(shape, device=layer.weight.device).to(kind)
        return values.to(memory_format=layout)

    given, gradient, weight = like(inputs), like(outputs), like(layer.weight.shape)
    bias = None if layer.bias is None else layer.bias.detach().to(kind)
    how = (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding, layer.groups)
    sizes = None if bias is None else [len(bias)]

    def backward(to_given: bool) -> object:
        wanted = [to_given, not to_given, not to_given and bias is not None]
        return torch.ops.aten.convolution_backward(gradient, given, weight, sizes, *how, wanted)

    passes: list[Callable[[], object]] = [
        lambda: torch.ops.aten.convolution(given, weight, bias, *how),
        lambda: backward(to_given=False),
    ]
    return passes if of_images else [*passes, lambda: backward(to_given=True)]


def best(function: Callable[[], object], device: Any) -> float:
    """Seconds of the fastest of some calls."""
    import torch

    seconds = []
    for _ in range(TRIES + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
