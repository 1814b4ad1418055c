"""The kept weights are those of the epoch that is said to be the best, whatever was killed or damaged."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import kept, loop
from oncoseg.training.sums import Validated
from runs import stopping_at
from tiny import tiny_recipe

TWO_EPOCHS: dict[str, Any] = {"training__pretrain_epochs": 0, "training__max_epochs": 2}


class Killed(BaseException):
    pass


def scores(patch: pytest.MonkeyPatch, *dice: float) -> None:
    """What validation finds from now on: of each epoch, the same for both modalities."""
    found = iter([one for one in dice for _ in ("mri", "ct")])
    patch.setattr(loop, "validate", lambda *given, **more: Validated(1.0, next(found)))


def assert_best(run: RunFolder, epoch: int) -> None:
    best = run.metrics()["best"]
    assert best["epoch"] == epoch
    assert best["sha256"] == sha256(run.model.read_bytes()).hexdigest()


def test_a_lost_epoch_that_comes_out_worse_leaves_the_best_weights(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: loop.Training) -> None:
        if self.epoch == 2:
            raise Killed
        save(self)

    run, save = RunFolder(tmp_path / "run"), loop.Training._save_checkpoint
    scores(monkeypatch, 0.5, 0.9)
    monkeypatch.setattr(loop.Training, "_save_checkpoint", killed)
    with pytest.raises(Killed):
        train(tiny_recipe(**TWO_EPOCHS), data, run.path, store=store, workers=0)
    assert_best(run, 1)
    monkeypatch.setattr(loop.Training, "_save_checkpoint", save)
    scores(monkeypatch, 0.1)  # another number of processes, a GPU
    assert resume(run.path, store=store, workers=0).finished
    assert_best(run, 1)


def test_the_weights_before_come_back_with_the_checkpoint_before(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: loop.Training, stage: object, macro: float) -> None:
        if self.epoch == 3:
            raise Killed
        keep(self, stage, macro)

    run, keep, said = RunFolder(tmp_path / "run"), loop.Training._keep_if_best, []
    scores(monkeypatch, 0.5, 0.9, 0.9)
    monkeypatch.setattr(loop.Training, "_keep_if_best", killed)
    recipe = tiny_recipe(**TWO_EPOCHS | {"training__max_epochs": 3})
    with pytest.raises(Killed):
        train(recipe, data, run.path, store=store, workers=0)
    assert_best(run, 2)
    run.checkpoint.write_bytes(b"damaged")
    monkeypatch.setattr(loop.Training, "_keep_if_best", keep)
    scores(monkeypatch, 0.1, 0.2)
    assert resume(run.path, store=store, workers=0, warn=said.append).finished
    assert "checkpoint.pt is damaged" in " ".join(said)
    assert_best(run, 1)


def test_weights_that_were_replaced_are_told_and_chosen_anew(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    run, said = RunFolder(tmp_path / "run"), []
    recipe = tiny_recipe(**TWO_EPOCHS)
    assert not train(recipe, data, run.path, store=store, workers=0, monitor=stopping_at(5)).finished
    run.model.write_bytes(b"others")
    assert resume(run.path, store=store, workers=0, warn=said.append).finished
    assert "does not hold the weights of joint epoch 1" in said[0]
    assert_best(run, 2)


def test_a_run_of_before_there_were_hashes_keeps_its_weights(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"old")
    assert kept.settle(model, None)
    assert model.read_bytes() == b"old"


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_between_the_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    def replace(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return real(self, target)

    model, real, left = tmp_path / "model.safetensors", Path.replace, renames
    old, new = (b"old", b"new")
    assert kept.settle(model, kept.offer(model, old))
    named = kept.offer(model, new)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            kept.settle(model, named)
    assert kept.settle(model, named)
    assert model.read_bytes() == new
    assert kept.settle(model, sha256(old).hexdigest())
    assert model.read_bytes() == old


def finished(
    data: Mapping[str, Path], store: Path, out: Path, patch: pytest.MonkeyPatch, best: int
) -> RunFolder:
    scores(patch, *((0.9, 0.5) if best == 1 else (0.5, 0.9)))
    assert train(tiny_recipe(**TWO_EPOCHS), data, out, store=store, workers=0).finished
    assert_best(RunFolder(out), best)
    return RunFolder(out)


def test_lost_weights_of_a_finished_run_are_an_error_with_a_way_out(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = finished(data, store, tmp_path / "run", monkeypatch, best=1), []
    run.model.unlink()
    with pytest.raises(RunError, match=r"the weights of joint epoch 1, which it kept, are gone.*--resume"):
        run.need_model()
    with pytest.raises(RunError, match=r"weights of joint epoch 1, .* no epoch is left .*--extend 10"):
        resume(run.path, store=store, workers=0)
    scores(monkeypatch, 0.2)
    assert resume(run.path, store=store, workers=0, extend=1, warn=said.append).finished
    assert "They are lost: what is kept from now on" in said[0]
    assert run.metrics()["best"]["validation_dice"] == {"mri": 0.2, "ct": 0.2}
    assert run.need_model().is_file()


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_lost_weights_of_the_last_epoch_are_written_again(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    run, said = finished(data, store, tmp_path / "run", monkeypatch, best=2), []
    before = run.model.read_bytes()
    run.model.unlink() if content is None else run.model.write_bytes(content)
    (run.path / kept.BEFORE).unlink(missing_ok=True)
    assert resume(run.path, store=store, workers=0, warn=said.append).finished
    assert "the file was written again from it" in said[0]
    assert run.model.read_bytes() == before
    assert_best(run, 2)


def test_lost_weights_of_an_older_run_are_noticed(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert kept.are_there(model, {})
    assert not kept.are_there(model, {"epoch": 3})
