"""What this machine is best used with: device, number format, memory layout, allocator."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from oncoseg.allocator import keep_memory
from oncoseg.errors import RecipeError

ALLOCATOR_PAD_BYTES = 256 << 20
"""What the allocator takes at a time. Unless it keeps its memory, each training step pays for fresh zeroed
pages again (a third of the time of fp32 training on two cores, at 0.5 GB more memory)."""


def tune_allocator() -> None:
    """Keep glibc's allocator from returning memory between steps; does nothing elsewhere."""
    keep_memory(ALLOCATOR_PAD_BYTES)


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` is the first GPU if there is one.

    Raises:
        RecipeError: a GPU is wanted and there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "gpu" and not there:
        raise RecipeError(
            "The recipe's field training.device is gpu, but there is no GPU that this PyTorch can use. "
            "Set it to auto or cpu, or install PyTorch for your GPU."
        )
    return torch.device("cuda", 0) if there and wanted != "cpu" else torch.device("cpu")


def choose_precision(wanted: str, device: torch.device) -> str:
    """A Fabric precision: `bf16-mixed` where the processor computes in it, else `32-true`."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags() else "32-true"


def tune_gpu(deterministic: bool) -> None:
    """Let a GPU try which convolutions are fastest, or keep it to those that give the same bits each time.

    Where PyTorch knows no such way of computing something, it warns and computes it all the same.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as CUDA's documentation asks


def training_layout(precision: str, device: torch.device, spatial_dims: int = 2) -> torch.memory_format:
    """The memory layout in which a training step is fastest.

    Channels-last (of volumes, a step in bf16 takes 16 % less with it; measured on two AVX-512 cores),
    except for fp32 on processors without AVX-512: there its backward convolutions take a quarter longer
    (measured with slices on two AVX2 cores), while inference is still faster with it.
    """
    slow = device.type == "cpu" and precision == "32-true" and "avx512f" not in _cpu_flags()
    if slow:
        return torch.contiguous_format
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d


def in_layout(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The network with its weights in a memory layout."""
    # torch's type stubs do not know Module.to's memory_format
    network = cast(nn.Module, cast(Any, network).to(memory_format=layout))
    for weight in network.parameters():
        if weight.dim() == 5 and weight[0, 0].numel() == 1:
            # the same memory in either layout, but several processes compare strides with the gradient's
            weight.data = torch.empty_like(weight, memory_format=torch.contiguous_format).copy_(weight)
    return network


@contextlib.contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Autocast for a Fabric precision."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        yield


def describe() -> dict[str, Any]:
    """Processor, threads, GPU and versions, for a run's record; nothing that names the machine."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _cpu_model(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(field: str) -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            for line in info:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""
