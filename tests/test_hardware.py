import ctypes
import platform
import sys

import pytest
import torch

from oncoseg import hardware
from oncoseg.errors import RecipeError
from oncoseg.hardware import choose_device, choose_precision, computing_in, training_layout

CPU = torch.device("cpu")


def test_the_device_follows_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("gpu").type == "cuda"
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(RecipeError, match="no GPU"):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse avx512f avx512_bf16", "bf16-mixed"),
        ("amx_bf16", "bf16-mixed"),
        ("avx2 avx512f", "32-true"),
        ("", "32-true"),
    ],
)
def test_bf16_is_chosen_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: set(flags.split()))
    assert choose_precision("auto", CPU) == expected
    assert choose_precision("32-true", CPU) == "32-true"
    assert choose_precision("bf16-mixed", CPU) == "bf16-mixed"


def test_the_layout_is_channels_last_but_for_fp32_on_old_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: {"avx2"})
    assert training_layout("32-true", CPU) == torch.contiguous_format
    assert training_layout("bf16-mixed", CPU) == torch.channels_last
    assert training_layout("bf16-mixed", CPU, spatial_dims=3) == torch.channels_last_3d
    assert training_layout("32-true", torch.device("cuda")) == torch.channels_last
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: {"avx512f"})
    assert training_layout("32-true", CPU) == torch.channels_last


def test_autocast_follows_the_precision() -> None:
    left, right = torch.rand(2, 2), torch.rand(2, 2)
    with computing_in("bf16-mixed", CPU):
        assert (left @ right).dtype == torch.bfloat16
    with computing_in("32-true", CPU):
        assert (left @ right).dtype == torch.float32


def test_the_record_names_versions_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "ward-seven")
    monkeypatch.setattr(hardware, "_cpu_info", lambda field: {"model name": "Abacus 9"}[field])
    record = hardware.describe()
    assert record["processor"] == "Abacus 9"
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    assert "ward-seven" not in str(record)


class Libc:
    """Stands for glibc: keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked.append((parameter, value))
        return 1


def test_glibcs_allocator_is_told_to_keep_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Libc()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(sys, "platform", "linux")
    hardware.tune_allocator()
    # M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD in glibc's malloc.h
    assert libc.asked == [(-4, 0), (-1, -1), (-2, 268435456)]


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Libc()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(sys, "platform", "darwin")
    hardware.tune_allocator()
    assert libc.asked == []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(sys, "platform", "linux")
    hardware.tune_allocator()  # musl has no mallopt
