"""A loss that is no number stops training at its step and names the slices; a full GPU halves the batch."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import SliceId, epoch_batches, parts_of
from oncoseg.store import PreparedCase
from oncoseg.train import resume, train
from oncoseg.training.divergence import MOST_WAITING, Arrival, Watch, WatchedStep
from oncoseg.training.loop import Training
from oncoseg.training.pieces import pieces_of
from runs import checkpoint_of, log_of, stopping_at
from tiny import tiny_recipe

# not a number


@pytest.mark.parametrize("monitor", [None, lambda status: None])
def test_a_loss_that_is_not_finite_ends_training_with_a_sentence_and_a_report(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monitor: Any
) -> None:
    recipe = tiny_recipe(training__learning_rate=1e30)
    with pytest.raises(
        RunError,
        match=r"at step 2 of pretrain epoch 1; .* lower training.learning_rate .*; nothing was kept before",
    ):
        train(recipe, data, tmp_path / "run", store=store, workers=0, monitor=monitor)
    run = RunFolder(tmp_path / "run")
    assert not run.checkpoint.exists(), "no spoilt checkpoint is kept"
    report = json.loads((run.path / "nan.json").read_text())
    assert (report["stage"], report["epoch"], report["step"]) == ("pretrain", 1, 2)
    assert report["losses"][0]["modality"] == "ct"
    assert report["losses"][0]["loss"] in ("nan", "inf", "-inf")
    assert report["learning_rate"] > 1e28
    assert report["images_finite"] is True
    (batch,) = report["batches"]
    cases = {case for sides in run.split()["ct"]["train"].values() for case in sides}
    assert len(batch["ct"]) == 4
    assert {one["case"] for one in batch["ct"]} <= cases
    assert run.record()["calls"][-1]["ended"] == "the loss or the weights became NaN or infinite"


def test_images_that_are_not_finite_are_named(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PreparedCase.read

    def spoilt(case: PreparedCase, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images, masks = read(case, start, stop)
        if case.id.startswith("BraTS") and start == 2:
            images[0, 0, 0, 0] = math.nan
        return images, masks

    monkeypatch.setattr(PreparedCase, "read", spoilt)
    recipe = tiny_recipe(training__pretrain_epochs=0)
    with pytest.raises(RunError, match=r"Slice 2 of the prepared case BraTS2021_0000\d is not finite: mend"):
        train(recipe, data, tmp_path / "run", store=store, workers=0)
    report = json.loads((tmp_path / "run" / "nan.json").read_text())
    bad = [one for batch in report["batches"] for slices in batch.values() for one in slices]
    assert {one["slice"] for one in bad if not one["finite"]} == {2}
    assert report["batch_statistics_finite"] is False, "they follow the images of the step itself"
    # noticed before the optimiser's step: the weights are still what they were
    assert report["weights_not_finite"]["count"] == 0
    assert report["gradient_norm"] == "nan"


def test_weights_that_overflow_in_the_last_step_are_not_kept(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(status: Any) -> None:
        if (status.stage, status.epoch, status.step) == ("joint", 1, 4) and not status.validated:
            next(training[0].network.parameters()).data.fill_(math.inf)

    training: list[Training] = []
    go = Training.go
    monkeypatch.setattr(Training, "go", lambda self: (training.append(self), go(self))[1])
    with pytest.raises(RunError, match=r"at step 4 of joint epoch 1.*; what was kept before stays in"):
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, monitor=spoil)
    report = json.loads((tmp_path / "run" / "nan.json").read_text())
    assert report["weights_not_finite"]["count"] == 1
    assert checkpoint_of(RunFolder(tmp_path / "run"))["place"] == [0, 1, 0]


def test_without_clipping_that_is_suggested(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(training__learning_rate=1e30, training__clip_norm=None)
    with pytest.raises(RunError, match=r"lower training.learning_rate than 1e\+30 or training.clip_norm 1"):
        train(recipe, data, tmp_path / "run", store=store, workers=0)
    report = json.loads((tmp_path / "run" / "nan.json").read_text())
    assert report["gradient_norm"] in ("nan", "inf")


class Late(Arrival):
    """Figures of a GPU that are there when told."""

    def __init__(self) -> None:
        self.there = self.waited = False

    def query(self) -> bool:
        return self.there

    def synchronize(self) -> None:
        self.waited = self.there = True


def watched(number: int) -> WatchedStep:
    return WatchedStep("joint", 1, number, 0.1, [{"ct": [SliceId(0, number)]}])


def test_figures_of_a_gpu_are_looked_at_once_they_are_there() -> None:
    sent: list[Late] = []

    def send(figures: Tensor) -> tuple[Tensor, Arrival]:
        sent.append(Late())
        return figures, sent[-1]

    watch = Watch(send)
    for number, loss in enumerate((0.5, math.inf, math.nan), 1):
        watch.add(watched(number), [("ct", torch.tensor(loss))], torch.tensor(1.0))
        assert watch.first_bad() is None
    sent[0].there = True
    assert watch.first_bad() is None
    sent[1].there = True
    found = watch.first_bad()
    assert found is not None
    assert (found.step.step, found.steps_later, found.losses) == (2, 1, [("ct", math.inf)])
    assert not any(one.waited for one in sent)
    last = watch.first_bad(wait=True)
    assert last is not None
    assert last.step.step == 3
    assert sent[2].waited


def test_the_program_does_not_run_away_from_a_slow_gpu() -> None:
    sent: list[Late] = []

    def send(figures: Tensor) -> tuple[Tensor, Arrival]:
        sent.append(Late())
        return figures, sent[-1]

    watch = Watch(send)
    for number in range(MOST_WAITING + 2):
        watch.add(watched(number), [("ct", torch.tensor(0.5))], torch.tensor(1.0))
        assert watch.first_bad() is None
    assert [one.waited for one in sent] == [True, True] + [False] * MOST_WAITING


def test_a_gradient_that_is_not_finite_is_enough() -> None:
    watch = Watch()
    watch.add(watched(1), [("ct", torch.tensor(0.5))], torch.tensor(math.inf))
    found = watch.first_bad()
    assert found is not None
    assert found.gradient_norm == math.inf


# a GPU that is full


def test_parts_of_a_batch_hold_every_row_once_and_weigh_as_much() -> None:
    parts = {"mri": slice(0, 4), "ct": slice(4, 5)}
    (whole,) = pieces_of(parts, 1)
    assert (whole.rows, whole.parts, whole.shares) == (None, parts, {"mri": 1.0, "ct": 1.0})
    one, two = pieces_of(parts, 2)
    assert (one.rows, one.parts, one.shares) == (
        [0, 2, 4],
        {"mri": slice(0, 2), "ct": slice(2, 3)},
        {"mri": 0.5, "ct": 1.0},
    )
    assert (two.rows, two.parts, two.shares) == ([1, 3], {"mri": slice(0, 2)}, {"mri": 0.5})
    assert [piece.rows for piece in pieces_of({"ct": slice(0, 2)}, 4)] == [[0], [1]]


@pytest.mark.parametrize(("each", "share", "count"), [(8, 0.5, 2), (8, 0.25, 2), (9, 1 / 3, 3), (6, 0.5, 4)])
def test_parts_of_a_batch_have_their_share_of_slices_with_tumour(each: int, share: float, count: int) -> None:
    case = PreparedCase("case", "case", Path("unused"), (0,))
    case.__dict__["description"] = {"tumour_pixels": [0, 1] * 8}
    cases = {"mri": [case], "ct": [case]}
    for batch in epoch_batches(cases, 2 * each, share, (0,)):
        marked = {
            name: [bool(cases[name][ref.case].tumour_pixels[ref.position]) for ref in refs]
            for name, refs in batch.items()
        }
        every = [mark for marks in marked.values() for mark in marks]
        pieces = pieces_of(parts_of(batch), count)
        assert sorted(row for piece in pieces for row in piece.rows or ()) == list(range(2 * each))
        for piece in pieces:
            for name, rows in piece.parts.items():
                found = sum(every[row] for row in (piece.rows or ())[rows])
                assert abs(found - sum(marked[name]) / count) < 1


@pytest.fixture
def full_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stands for a GPU whose memory holds the training of so many slices at once."""

    def hold(most: int) -> None:
        backward = Training._backward

        def limited(self: Training, images: Tensor, masks: Tensor, piece: Any, *more: Any) -> None:
            if len(images if piece.rows is None else piece.rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            backward(self, images, masks, piece, *more)

        monkeypatch.setattr(Training, "_backward", limited)

    return hold


def test_a_batch_that_does_not_fit_is_halved_and_that_is_said(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    whole: RunFolder,
    full_gpu: Callable[[int], None],
) -> None:
    full_gpu(2)
    said: list[str] = []
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, warn=said.append, monitor=stopping_at(3))
    assert len(said) == 1
    assert "did not hold a batch of 4 slices at step 1 of pretrain epoch 1" in said[0]
    assert "in 2 parts" in said[0]
    run = RunFolder(out)
    assert run.record()["calls"][0]["remarks"] == said
    assert checkpoint_of(run)["pieces"] == 2
    resume(out, store=store, workers=0, warn=said.append)
    assert len(said) == 1, "going on begins with the parts that fitted"
    assert [row["epoch"] for row in log_of(run)] == [row["epoch"] for row in log_of(whole)]


def test_not_even_one_slice_fits(
    data: Mapping[str, Path], store: Path, tmp_path: Path, full_gpu: Callable[[int], None]
) -> None:
    full_gpu(0)
    with pytest.raises(RunError, match="does not hold the training of one slice of each modality"):
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0)


def test_the_step_in_parts_is_the_step_of_the_whole_batch(
    data: Mapping[str, Path], store: Path, tmp_path: Path, full_gpu: Callable[[int], None]
) -> None:
    # without batch statistics and with a loss that is a mean over pixels, parts change nothing but rounding
    changes: dict[str, Any] = {"training__pretrain_epochs": 0, "training__max_epochs": 1}
    for name in ("mri", "ct"):
        changes |= {f"modalities__{name}__loss": {"name": "cross-entropy"}}
    recipe = tiny_recipe(**changes)
    first = whole_gradients(recipe, data, store, tmp_path / "one", 1)
    parts = whole_gradients(recipe, data, store, tmp_path / "two", 2)
    for one, two in zip(first, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def whole_gradients(
    recipe: Any, data: Mapping[str, Path], store: Path, out: Path, pieces: int
) -> list[Tensor]:
    """Gradients of the first step, with normalisation by fixed statistics."""
    found: list[Tensor] = []

    def look(self: Training, group: Any) -> Any:
        self.pieces = pieces
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.InstanceNorm2d):
                module.eval()
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.eval()
        sums = at_once(self, group)
        if not found:
            found.extend(one.grad.clone() for one in self.network.parameters() if one.grad is not None)
        return sums

    at_once = Training._gradients_at_once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_gradients_at_once", look)
        train(recipe, data, out, store=store, workers=0)
    return found
