"""What each network costs at its published size, beside MONAI's at the same; and attention by image side.

    python benchmarks/networks.py [--quick] [--rounds N] [--group NAME] [--attention]

Plain fp32 and one image for inference, two for a training step (forwards, backwards, Adam), each network in a
process of its own; networks of a group take turns. Times are the processor's, of all threads. Ratios are to
MONAI's U-Net of the same widths in the same round. Memory is the process's peak beyond what it holds before
the network is made.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from _common import Child, peak_mib, print_hardware, print_table, run_python, spread

REFERENCE = "MONAI UNet"
"""To which ratios are given; first in each group."""

BATCH = 2
"""Images of a training step."""

QUICK_SIDE = 32
"""Pixels along each axis with `--quick`."""

MONAI_ATTENTION = "monai.AttentionUnet"
"""Not among our networks, as it is no comparator of any system; measured all the same."""


class Group(NamedTuple):
    """Networks of one size: images, classes, and name → (network, its arguments)."""

    size: tuple[int, ...]
    in_channels: int
    classes: int
    networks: dict[str, tuple[str, dict[str, Any]]]


S1, S4 = [64, 128, 256], [64, 128, 256, 512, 1024]
LIVER, VESSEL = [8, 16, 32, 64, 128], [16, 32, 64, 128, 256]
DEEP_3D = {"spatial_dims": 3, "features": LIVER}
PLAIN = {"dropout": 0.0}

GROUPS = {
    "S1": Group(
        (128, 128),
        4,
        1,
        {
            REFERENCE: ("monai-unet", {"features": S1}),
            "MONAI AttentionUnet": (MONAI_ATTENTION, {"features": S1}),
            "Attention U-Net (S1)": ("attention-unet", {"features": S1}),
        },
    ),
    "S4": Group(
        (240, 240),
        1,
        1,
        {
            REFERENCE: ("monai-unet", {"features": S4}),
            "MONAI AttentionUnet": (MONAI_ATTENTION, {"features": S4}),
            "U-Net": ("attention-unet", {"features": S4, "attention": False, **PLAIN}),
            "Attention U-Net": ("attention-unet", {"features": S4, **PLAIN}),
            "Attention U-Net, SPP": ("attention-unet", {"features": S4, "context": "spp", **PLAIN}),
            "Attention U-Net, ASPP (S4)": ("attention-unet", {"features": S4, "context": "aspp", **PLAIN}),
            "MONAI DynUNet, same widths": ("dynunet", {"features": S4}),
            "MONAI SegResNet": ("segresnet", {}),
            "MONAI UNETR": ("unetr", {"img_size": 240}),
            "MONAI SwinUNETR": ("swin-unetr", {}),
        },
    ),
    "S5": Group(
        (512, 512),
        1,
        2,
        {
            REFERENCE: ("monai-unet", {"features": LIVER}),
            "MONAI UNet, residual": ("monai-unet", {"features": LIVER, "residual_units": 2}),
            "residual, ungated": ("residual-attention-unet", {"features": LIVER, "attention": None}),
            "residual, additive gates": (
                "residual-attention-unet",
                {"features": LIVER, "attention": "additive"},
            ),
            "residual, dot product (S5, liver)": ("residual-attention-unet", {"features": LIVER}),
            "residual, dot product (S5, vessels)": ("residual-attention-unet", {"features": VESSEL}),
        },
    ),
    "S5-3D": Group(
        (96, 96, 96),
        1,
        2,
        {
            REFERENCE: ("monai-unet", DEEP_3D),
            "residual, additive gates": ("residual-attention-unet", {**DEEP_3D, "attention": "additive"}),
            "residual, dot product": ("residual-attention-unet", DEEP_3D),
            "Attention U-Net, same widths": ("attention-unet", {**DEEP_3D, **PLAIN}),
        },
    ),
}

SIDES, QUICK_SIDES = (64, 128, 256, 512), (16, 32)
"""Of the square maps on which attention is measured."""

GATES = {
    "dot product": {},
    "dot product, every pixel a key": {"most_tokens": 10**9},
    "additive": {},
}

WHOLE_SIDE = 128
"""Larger maps are not asked for every pixel as a key: at 256 that is four thousand million products."""

GATE_CHANNELS = 8


def main() -> None:
    """Measure and print, or be one of the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--group", choices=GROUPS, action="append", help="only these; may be repeated")
    parser.add_argument("--attention", action="store_true", help="only attention by image side")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--gate", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(**json.loads(chosen.one))))
        return
    if chosen.gate:
        print(json.dumps(measure_gate(**json.loads(chosen.gate))))
        return
    print_hardware()
    rounds = 1 if chosen.quick else chosen.rounds
    groups = () if chosen.attention else chosen.group or (("S1",) if chosen.quick else tuple(GROUPS))
    for name in groups:
        report_group(name, rounds, chosen.quick)
    if chosen.attention or not chosen.group:
        report_attention(QUICK_SIDES if chosen.quick else SIDES, rounds)


def report_group(name: str, rounds: int, quick: bool) -> None:
    """Print what each network of a group costs."""
    group = GROUPS[name]
    size = (QUICK_SIDE,) * len(group.size) if quick else group.size
    found: dict[str, list[dict[str, float]]] = {network: [] for network in group.networks}
    for _ in range(rounds):
        for label, (network, arguments) in group.networks.items():
            asked = {
                "network": network,
                "arguments": arguments,
                "channels": (group.in_channels, group.classes),
                "size": size,
            }
            found[label].append(run_python(__file__, "--one", json.dumps(asked)).result())
    rows = [_row(label, of_one, found[REFERENCE]) for label, of_one in found.items()]
    shape = "×".join(map(str, (group.in_channels, *size)))
    header = [
        f"{name}: {shape}, {rounds} each",
        "parameters",
        "multiply–adds, G",
        "inference, processor s",
        "/ UNet's",
    ]
    print_table(
        [*header, f"step of {BATCH}, processor s", "/ UNet's", "MiB", "MiB in a step", "/ UNet's"], rows
    )


def _row(
    label: str, found: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]]
) -> list[str]:
    """Medians, and their ratios to the reference's of the same round."""

    def ratio(key: str) -> str:
        of_rounds = [one[key] / other[key] for one, other in zip(found, reference, strict=True)]
        return spread(of_rounds, 1) if len(of_rounds) > 1 else f"{of_rounds[0]:.1f}"

    middle = {key: median(one[key] for one in found) for key in found[0]}
    return [
        label,
        f"{middle['parameters'] / 1e6:.2f} M",
        f"{middle['multiply_adds'] / 1e9:.2f}",
        f"{middle['inference']:.2f}",
        ratio("inference"),
        f"{middle['training']:.2f}",
        ratio("training"),
        f"{middle['inference_mib']:.0f}",
        f"{middle['training_mib']:.0f}",
        ratio("training_mib"),
    ]


def measure(
    network: str, arguments: dict[str, Any], channels: tuple[int, int], size: Sequence[int]
) -> dict[str, float]:
    """Cost, times and memory of one network, in this process."""
    in_channels, classes = channels
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        counted = make(network, in_channels, classes, arguments).eval()
        counted(torch.empty(1, in_channels, *size))
    images, target = torch.rand(BATCH, in_channels, *size), torch.rand(BATCH, classes, *size)
    before = held_mib()
    made = make(network, in_channels, classes, arguments)
    with torch.inference_mode():
        inference = shortest(lambda: made.eval()(images[:1]))
    after_inference = held_mib() - before
    training = shortest(stepping(made.train(), images, target))
    return {
        "parameters": sum(parameter.numel() for parameter in counted.parameters()),
        "multiply_adds": counter.get_total_flops() / 2,
        "inference": inference,
        "training": training,
        "inference_mib": after_inference,
        "training_mib": held_mib() - before,
    }


def make(network: str, in_channels: int, classes: int, arguments: dict[str, Any]) -> nn.Module:
    """One of our networks by its name, or MONAI's with attention."""
    from oncoseg import models

    if network != MONAI_ATTENTION:
        return models.build(network, in_channels, classes, arguments)
    from monai.networks.nets.attentionunet import AttentionUnet

    features = arguments["features"]
    return AttentionUnet(2, in_channels, classes, features, [2] * (len(features) - 1))


def stepping(network: nn.Module, images: Tensor, target: Tensor) -> Callable[[], None]:
    """A training step of the plainest kind."""
    optimiser = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.binary_cross_entropy_with_logits(network(images), target).backward()
        optimiser.step()

    return step


def shortest(function: Callable[[], object], repetitions: int = 2) -> float:
    """The shortest processor time in seconds, after a turn that warms up."""
    times = []
    for _ in range(1 + repetitions):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times[1:])


def held_mib() -> float:
    """The most memory that this process has held so far."""
    return peak_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def report_attention(sides: Sequence[int], rounds: int) -> None:
    """Print what attention costs per pixel, which must not grow with the image."""
    rows = []
    for name in GATES:
        for side in sides:
            if "every" in name and side > WHOLE_SIDE:
                continue
            asked = json.dumps({"name": name, "side": side})
            children: list[Child] = [run_python(__file__, "--gate", asked) for _ in range(rounds)]
            found = [child.result() for child in children]
            pixels = side * side
            rows.append(
                [
                    name,
                    f"{side}×{side}",
                    *(spread([1e3 * one[key] for one in found]) for key in ("forwards", "both")),
                    spread([1e6 * one["both"] / pixels * 1e3 for one in found], 0),
                    f"{median(one['mib'] for one in found):.0f}",
                    f"{median(one['mib'] for one in found) * 2**20 / pixels:.0f}",
                ]
            )
    header = [
        f"gate on {GATE_CHANNELS} channels, {rounds} each",
        "map",
        "forwards, processor ms",
        "and back, processor ms",
    ]
    print_table([*header, "and back, ns per pixel", "memory, MiB", "bytes per pixel"], rows)


def measure_gate(name: str, side: int) -> dict[str, float]:
    """Times and memory of one gate on a map of `side`×`side`, in this process."""
    from oncoseg.models.blocks import AttentionGate
    from oncoseg.models.dot_product import DotProductGate

    gate = (
        AttentionGate(2, GATE_CHANNELS)
        if name == "additive"
        else DotProductGate(2, GATE_CHANNELS, **GATES[name])
    )
    skip, signal = (torch.rand(1, GATE_CHANNELS, side, side, requires_grad=True) for _ in range(2))
    gate(skip[..., :8, :8], signal[..., :8, :8]).sum().backward()  # what is made once, whatever the size
    before = held_mib()

    def forwards() -> None:
        with torch.inference_mode():
            gate(skip, signal)

    found = {"forwards": shortest(forwards), "both": shortest(lambda: gate(skip, signal).sum().backward())}
    return {**found, "mib": held_mib() - before}


if __name__ == "__main__":
    main()
