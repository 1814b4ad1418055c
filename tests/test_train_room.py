"""A GPU that is full: validation goes on in smaller parts, and all else ends with a sentence."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import limits, loop, optimisers
from oncoseg.training.room import Room
from runs import assert_same, log_of
from tiny import tiny_recipe


def full(*given: Any, **more: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def holding(most: int) -> Callable[[Tensor], Tensor]:
    """A network in a memory that holds so many slices."""
    return lambda images: full() if len(images) > most else 2 * images


def test_a_batch_is_halved_until_it_fits_and_stays_so() -> None:
    said: list[str] = []
    room, images = Room(said.append), torch.rand(9, 1, 2, 2)
    assert torch.equal(room.computed(holding(3), images), 2 * images)
    assert room.parts == 4
    assert ["in 2 parts" in said[0], "in 4 parts" in said[1]] == [True, True]
    assert torch.equal(room.computed(holding(3), images[:2]), 2 * images[:2])
    assert len(said) == 2
    with pytest.raises(RunError, match="does not hold the validation of one slice"):
        room.computed(holding(0), images)


def test_validation_in_parts_finds_what_it_would_have(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    real = Room.computed
    monkeypatch.setattr(Room, "computed", lambda self, network, images: real(self, limited(network), images))

    def limited(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda images: full() if len(images) > 2 else network(images)

    run = RunFolder(
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, warn=said.append).run
    )
    assert len(said) == 1
    assert (
        "did not hold the validation of 3 slices at a time: from there on they are computed in 2 parts"
        in said[0]
    )
    assert run.record()["calls"][0]["remarks"] == said
    for ours, theirs in zip(log_of(run), log_of(whole), strict=True):
        for name in ("train_loss", "validation_loss", "validation_dice"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-5, nan_ok=True)


def test_a_loss_that_does_not_fit_is_computed_by_the_processor(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    real = loop.validate

    def once_full(*given: Any) -> Any:
        return real(*given) if said else full()

    monkeypatch.setattr(loop, "validate", once_full)
    run = RunFolder(
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, warn=said.append).run
    )
    assert ["the processor computes the loss" in text for text in said] == [True]
    assert_same(run, whole)


@pytest.mark.parametrize("foretell", [None, lambda text: None])
@pytest.mark.parametrize(
    ("owner", "name"), [(loop, "validate"), (optimisers, "clip"), (torch.optim.AdamW, "step")]
)
def test_a_memory_that_nothing_fits_into_is_one_sentence(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    foretell: Any,
) -> None:
    monkeypatch.setattr(owner, name, full)
    recipe = tiny_recipe(training__max_epochs=1, training__pretrain_epochs=0)
    with pytest.raises(RunError, match=r"The GPU's memory is full, .* training.device to cpu\."):
        train(recipe, data, tmp_path / "run", store=store, workers=0, foretell=foretell)
    monkeypatch.undo()
    if foretell is None:
        assert resume(tmp_path / "run", store=store, workers=0).finished
    else:
        assert not (tmp_path / "run").exists(), "refused before anything was written"


def test_the_longest_cases_loss_is_tried_beforehand(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []

    def losses_of(recipe: Any) -> Any:
        return {
            name: lambda logits, masks: (sizes.append(tuple(logits.shape)), logits.sum())[1] for name in data
        }

    monkeypatch.setattr(limits, "VALIDATION_BATCH", 2)  # so long is the beginning that is validated on trial
    monkeypatch.setattr(loop, "losses_of", losses_of)
    train(
        tiny_recipe(training__max_epochs=1, training__pretrain_epochs=0, training__learning_rate=1e-9),
        data,
        tmp_path / "run",
        store=store,
        workers=0,
        foretell=lambda text: sizes.append(()),
    )
    trial = sizes[: sizes.index(())]
    assert trial[-4:] == [(2, 1, 16, 16), (2, 1, 16, 16), (4, 1, 16, 16), (3, 1, 16, 16)]


@pytest.mark.parametrize(("batch_size", "epochs", "measured"), [(5, 1, 6), (5, 0, 4), (4, 1, 4), (1, 1, 2)])
def test_the_larger_of_both_stages_batches_is_measured(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, epochs: int, measured: int
) -> None:
    tried: list[int] = []

    def look(*given: Any, steps: int = limits.STEPS) -> limits._Tried:
        batch = given[4]
        tried.append(batch)
        return limits._Tried(1e6, 1.0, 1.0, 1, 1, False)

    monkeypatch.setattr(limits, "_try", look)
    limits.foresee(tiny_recipe(training__batch_size=batch_size, training__pretrain_epochs=epochs), {}, {})
    assert tried[-1] == measured
