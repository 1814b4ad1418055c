"""Prediction in fewer slices at a time, where memory is short, gives the same results or a sentence."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from measured_prediction import PREDICTIONS, data_in
from oncoseg import batches, models
from oncoseg.batches import Batches
from oncoseg.errors import RunError
from oncoseg.predict import Predictor
from test_limits_measured import WITHIN, environment
from test_predict import Bright, bright, write_marked
from tiny import tiny_recipe

CLOSE = 1e-6
"""Of probabilities: other batches may be added up in another order."""

CPU = torch.device("cpu")

GIB = 2**30


class Machine:
    """A process that holds 1 GiB, and `each` GiB more for every slice of the largest batch yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total_gib: float, each_gib: float) -> None:
        self.each, self.held, self.tried = each_gib, 1.0, []
        monkeypatch.setattr(batches, "resident_bytes", lambda: int(self.held * GIB))
        monkeypatch.setattr(batches, "free_memory_gib", lambda: total_gib - self.held)

    def compute(self, slices: Tensor) -> None:
        load = slices.shape[0] * slices.shape[2] * slices.shape[3] / (32 * 32)
        self.tried.append(load)
        self.held = max(self.held, 1 + load * self.each)


def fitted(machine: Machine, size: int) -> tuple[int, list[str]]:
    said: list[str] = []
    batch = Batches(size, CPU, said.append)
    batch.fit(machine.compute, 4, (32, 32))
    return batch.size, said


def test_a_batch_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 + 2 · 0.1, and 14 more slices with a quarter for caution: 2.95 GiB
    assert fitted(Machine(monkeypatch, 2.96, 0.1), 16) == (16, [])
    assert fitted(Machine(monkeypatch, 2.94, 0.1), 16)[0] == 15


def test_a_batch_that_does_not_fit_is_lowered_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 4.0, 1.0)  # after two slices, 1 GiB is left
    size, (line,) = fitted(machine, 16)
    assert size == 2
    assert machine.tried == [1 / 16, 1 / 4, 1, 2]
    assert line.startswith("Batches of 16 slices will not fit into the 4.0 GiB of memory: 2 are computed")
    machine = Machine(monkeypatch, 2.5, 1.0)
    assert fitted(machine, 16)[0] == 1
    assert max(machine.tried) == 1


def test_where_one_slice_does_not_fit_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 4.0, 8.0)
    with pytest.raises(
        RunError, match=r"slices of 32×32 one by one will take about 10\.5 GiB .* are 4\.0 GiB"
    ):
        fitted(machine, 16)
    assert max(machine.tried) == 1 / 4


def test_a_slab_that_does_not_fit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, 2.0, 0)
    batch = Batches(16, CPU)
    batch.check_slab(32, 2**21)  # 4 copies of 32 · 2 Mi voxels of 4 bytes are 1 GiB
    with pytest.raises(RunError, match=r"32 slices of the longest image will take about 2\.5 GiB"):
        batch.check_slab(32, 2**21 + 2**20)


class Small(Bright):
    """On a GPU whose memory holds so many slices."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.computed: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.computed.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def predictor(most: int) -> Predictor:
    return Predictor(bright().recipe, Small(most))


def test_a_full_gpu_halves_the_batch_and_says_so() -> None:
    slices, said = torch.rand(20, 4, 32, 32), []
    small, large = predictor(5), predictor(100)
    small.batches.warn = said.append
    assert torch.equal(small.predict_slices(slices), large.predict_slices(slices))
    assert small.networks[0].computed == [16, 8, 4, 4, 4, 4, 4]
    assert large.networks[0].computed == [16, 4]
    assert [line.split(":")[0] for line in said] == [
        "The GPU's memory does not hold 16 slices",
        "The GPU's memory does not hold 8 slices",
    ]


def test_a_gpu_that_does_not_hold_one_slice_is_said() -> None:
    with pytest.raises(RunError, match="does not hold the network and one slice"):
        predictor(0).predict_slices(torch.rand(3, 4, 32, 32))


@pytest.mark.parametrize("size", [1, 3])
def test_results_are_the_same_whatever_the_batch(size: int) -> None:
    recipe = tiny_recipe()
    torch.manual_seed(0)
    one = Predictor(recipe, models.build("attention-unet", 4, 1, recipe.network.arguments))
    slices = torch.rand(20, 4, 16, 16)
    expected = one.predict_slices(slices)
    one.batches.size = size
    assert expected.std() > 100 * CLOSE
    torch.testing.assert_close(one.predict_slices(slices), expected, atol=CLOSE, rtol=0)


def test_predicting_with_little_memory_says_so_and_gives_the_same_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marked(tmp_path / "ct.nii", np.eye(4))
    (plain,) = bright().predict([tmp_path / "ct.nii"], tmp_path / "plain", modality="ct")
    machine, said, small = Machine(monkeypatch, 4.0, 1.0), [], bright()
    real = small.predict_slices

    def predict_slices(slices: Tensor) -> Tensor:
        machine.compute(slices[: small.batches.size])
        return real(slices)

    monkeypatch.setattr(small, "predict_slices", predict_slices)
    (careful,) = small.predict(
        [tmp_path / "ct.nii"], tmp_path / "small", modality="ct", foretell=str, warn=said.append
    )
    assert small.batches.size == 2
    assert len(said) == 1
    assert (nib.load(careful).get_fdata() == nib.load(plain).get_fdata()).all()
    machine.held, machine.each, small.batches.size = 1.0, 8.0, 16
    with pytest.raises(RunError, match="one by one will take"):
        small.predict([tmp_path / "ct.nii"], tmp_path / "none", modality="ct", foretell=str)


def memory(how: str, name: str, folder: Path) -> float:
    script = Path(__file__).with_name("measured_prediction.py")
    command = [sys.executable, str(script), how, name, str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, env=environment()).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_memory_is_foretold_within_a_quarter(name: str, tmp_path: Path) -> None:
    data_in(tmp_path, name)
    assert memory("foretold", name, tmp_path) == pytest.approx(memory("measured", name, tmp_path), rel=WITHIN)
