"""What a recipe says about training is what is done: its losses, weights, optimiser, batches, precision."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from oncoseg import train as training
from oncoseg.augment import Strengths
from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import SliceId
from oncoseg.training import choices, feed, loop
from oncoseg.training.ranks import Ranks
from test_train import log_of
from tiny import tiny_data, tiny_recipe

UNCHANGED = {
    f"augmentation__{what}_chance": 0.0 for what in ("flip", "rotation", "elastic", "brightness", "dropout")
}
"""Augmentation that does nothing."""


class Level(nn.Module):
    """One logit for every pixel: its only parameter. Keeps what it saw in training."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.in_bf16: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images)
            self.in_bf16.append(torch.is_autocast_enabled("cpu"))
        return self.level + 0 * images[:, :1]


class Steps(list[dict[str, float]]):
    """Of every step of an optimiser: the gradient of `Level.level`, the learning rate, the weight decay."""

    def __call__(self, optimiser: Any, *_: Any) -> None:
        (group,) = optimiser.param_groups
        (level,) = group["params"]
        self.append({"gradient": level.grad.item(), "lr": group["lr"], "decay": group["weight_decay"]})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_data(tmp_path_factory.mktemp("data"), 3, 3)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Level:
    """Stands for the recipe's network."""
    level = Level()
    monkeypatch.setattr(choices.models, "build", lambda *_: level)
    monkeypatch.setattr(training.models, "describe", lambda *_: None)
    return level


@pytest.fixture
def steps() -> Iterator[Steps]:
    found = Steps()
    handle = register_optimizer_step_pre_hook(found)
    yield found
    handle.remove()


def joint(**changes: Any) -> Recipe:
    """Joint training only, one epoch."""
    return tiny_recipe(**{"training__pretrain_epochs": 0, "training__max_epochs": 1} | changes)


def run(recipe: Recipe, data: Mapping[str, Path], store: Path, out: Path) -> RunFolder:
    return RunFolder(training.train(recipe, data, out, store=store, workers=0).run)


@pytest.mark.parametrize(("clip_norm", "gradient"), [(None, -17 / 36), (1.0, -17 / 36), (0.25, -0.25)])
def test_a_step_follows_each_modalitys_own_loss_and_weight(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: Level,
    steps: Steps,
    clip_norm: float | None,
    gradient: float,
) -> None:
    # four pixels with tumour in one of them, at p = 1/2: TP = p, FN = 1 − p, FP = 3p, and with γ = 1
    # loss = 1 − p/D for D = p + α(1 − p) + 3βp, whose slope in p is −α/D²
    slices = torch.rand(1, 4, 2, 2), torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    both = tuple(torch.cat([part, part]) for part in slices)
    one = {"mri": [SliceId(0, 0)], "ct": [SliceId(0, 0)]}
    monkeypatch.setattr(feed, "batches_of", lambda *_: [one])
    monkeypatch.setattr(feed, "read_ahead", lambda *_, **__: iter([both]))
    recipe = joint(
        **UNCHANGED,
        modalities__mri__loss={
            "arguments": {"alpha": 0.8, "beta": 0.2, "gamma": 1, "smooth": 0},
            "weight": 3,
        },
        modalities__ct__loss={"arguments": {"alpha": 0.5, "beta": 0.5, "gamma": 1, "smooth": 0}},
        training__clip_norm=clip_norm,
        training__weight_decay=0.125,
    )
    rows = log_of(run(recipe, data, store, tmp_path / "run"))
    # MRI: D = 1.2, loss = 7/12, slope −5/9, three times; CT: D = 1.5, loss = 2/3, slope −2/9
    losses = {row["modality"]: float(row["train_loss"]) for row in rows}
    assert losses == pytest.approx({"mri": 7 / 12, "ct": 2 / 3})
    # in all −17/9 by p, and p grows by p(1 − p) = 1/4 with the logit
    (step,) = steps
    assert step["gradient"] == pytest.approx(gradient, rel=1e-4)
    assert step["decay"] == 0.125


@pytest.mark.parametrize(("warmup_share", "peak"), [(1 / 3, 2), (2 / 3, 5)])
def test_the_learning_rate_rises_for_the_share_asked_for(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    network: Level,
    steps: Steps,
    warmup_share: float,
    peak: int,
) -> None:
    # MRI: one patient of 4 slices in batches of 2 + 2, four epochs; a share of 9 rates, the last unused
    recipe = joint(
        training__max_epochs=4,
        training__learning_rate=0.5,
        training__schedule__arguments__warmup_share=warmup_share,
    )
    run(recipe, data, store, tmp_path / "run")
    rates = [step["lr"] for step in steps]
    assert len(rates) == 8
    assert rates[peak] == pytest.approx(0.5)
    assert rates == pytest.approx(sorted(rates[:peak]) + sorted(rates[peak:], reverse=True))


def test_batches_are_augmented_as_the_recipe_says_and_hold_the_share_of_tumour(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Level
) -> None:
    given: list[tuple[Tensor, Strengths]] = []

    def augment(
        images: Tensor, masks: Tensor, classes: int, strengths: Strengths, _: Any, **more: Any
    ) -> Any:
        given.append((masks, strengths))
        return torch.full_like(images, 0.25), masks

    monkeypatch.setattr(feed, "augment", augment)
    recipe = joint(
        augmentation__rotation_degrees=33.0, augmentation__crop=[8, 12], training__tumour_share=1.0
    )
    run(recipe, data, store, tmp_path / "run")
    assert len(given) == len(network.seen) == 2
    for (masks, strengths), seen in zip(given, network.seen, strict=True):
        assert (strengths.rotation_degrees, strengths.crop) == (33.0, (8, 12))
        assert masks.flatten(1).any(dim=1).all()
        assert (seen == 0.25).all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_precision_recorded_is_the_one_computed_in(
    data: Mapping[str, Path], store: Path, tmp_path: Path, network: Level, precision: str
) -> None:
    done = run(joint(training__precision=precision), data, store, tmp_path / "run")
    assert done.metrics()["precision"] == precision
    assert set(network.in_bf16) == {precision == "bf16-mixed"}


def test_the_allocator_is_tuned_for_training(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Level
) -> None:
    tuned: list[bool] = []
    monkeypatch.setattr(loop.hardware, "tune_allocator", lambda: tuned.append(True))
    run(joint(), data, store, tmp_path / "run")
    assert tuned == [True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")  # PyTorch's own compiler still uses it
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_the_same_under_the_same_names(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    changes = {"training__optimiser__name": "sgd", "network__arguments__dropout": 0.0}
    plain = run(joint(**changes), data, store, tmp_path / "plain")
    compiled = run(joint(training__compiled=True, **changes), data, store, tmp_path / "compiled")
    weights, others = (safetensors.torch.load_file(one.model) for one in (plain, compiled))
    assert list(weights) == list(others)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)


def test_fabric_does_not_tell_its_settings(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("lightning_fabric").setLevel(logging.INFO)  # as it sets itself
    Ranks("cpu", "bf16-mixed")
    assert not caplog.records
