"""What is told before a training: a line, refusals with what would do, and a training that is not changed."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oncoseg import files, processes
from oncoseg.cli import main
from oncoseg.errors import RunError
from oncoseg.limits import GIB, check_disk, is_out_of_memory
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import data as training_data
from oncoseg.training import limits, loop
from oncoseg.training.limits import Needs
from runs import assert_same, stopping_at
from tiny import tiny_recipe

NEEDS = Needs(1.9 * GIB, False, 0.4e9, 2.0, 0.5)


def test_the_line_sums_up_steps_and_validation() -> None:
    # 1500 steps of 2 s and 240 slices of half a second are 52 minutes
    assert NEEDS.in_words(1500, 240) == "about 1.9 GiB of memory, 0.4 GB of disk, 52 minutes"
    gpu = NEEDS._replace(on_gpu=True, disk_bytes=12e6)
    assert gpu.in_words(0, 60) == "about 1.9 GiB of GPU memory, 12 MB of disk, less than a minute"
    assert NEEDS.in_words(5400, 0).endswith("3.0 hours")


def test_a_rehearsed_training_is_the_same_and_leaves_nothing_else(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    out = tmp_path / "run"
    both: dict[str, Any] = {"foretell": said.append, "warn": said.append}
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(3), **both)
    resume(out, store=store, workers=0, **both)
    assert_same(RunFolder(out), whole)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.path.iterdir()}
    assert len(said) == 4
    assert all(line.startswith("Measuring a few steps") for line in said[::2]), "else it would be silent"
    assert all(re.match(r"about \d+\.\d GiB of memory, ", line) for line in said[1::2])
    resume(out, store=store, workers=0, **both)
    assert len(said) == 4, "a finished run takes nothing"


def test_what_is_left_is_counted(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[int, int]] = []
    counted = limits.left

    def left(training: Any) -> tuple[int, int]:
        found.append(counted(training))
        return found[-1]

    monkeypatch.setattr(limits, "left", left)
    out = tmp_path / "run"
    recipe = tiny_recipe(training__accumulate=2)
    # CT alone: 2 batches are one step of two; then two epochs of 4 batches; one patient each to validate,
    # of 3 slices of CT and 4 of MRI
    train(recipe, data, out, store=store, workers=0, foretell=lambda _: None, monitor=stopping_at(3))
    assert found == [(2 + 4 + 4, 3 + 7 + 7)]
    resume(out, store=store, workers=0, foretell=lambda _: None)
    # stopped after the second of the first joint epoch's two steps, before its validation
    assert found[1] == (4, 14)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose memory is 100 MB and 10 MB for each slice of a batch, on a machine of 200 MB."""

    def tried(recipe: Any, cases: Any, validation: Any, bare: Any, batch: int, steps: int) -> limits._Tried:
        assert batch <= 4, "what does not fit is not tried"
        return limits._Tried(100e6 + 10e6 * batch, 1.0, 1.0, 1000, 1000, False)

    monkeypatch.setattr(limits, "_try", tried)
    monkeypatch.setattr(limits, "resident_bytes", lambda: 100e6)
    monkeypatch.setattr(limits, "free_memory_gib", lambda: 100e6 / GIB)


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__batch_size=32)
    # of 200 MB 140 are used at 4 slices; 60 MB are room for 4.8 more at 12.5 MB each: 4 of two modalities
    with pytest.raises(
        RunError,
        match=r"batches of 32 slices .* --training.batch-size 8 --training.accumulate 4 takes as many",
    ):
        train(recipe, data, tmp_path / "run", store=store, workers=0, foretell=lambda _: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("little_memory")
def test_where_no_batch_fits_other_advice_is_given(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_memory_gib", lambda: 1e6 / GIB)
    with pytest.raises(RunError, match=r"take a smaller network, preparation.slice_size or"):
        train(
            tiny_recipe(training__batch_size=32),
            data,
            tmp_path / "run",
            store=store,
            workers=0,
            foretell=lambda _: None,
        )


def test_a_disk_without_room_is_refused(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100_000))
    (tmp_path / "recipe.json").write_text(tiny_recipe().to_json())
    flags = [text for name, folder in data.items() for text in ("--data", f"{name}={folder}")]
    out = tmp_path / "run"
    code = main(["train", str(tmp_path / "recipe.json"), *flags, "--out", str(out), "--store", str(store)])
    assert code == 2
    assert "run folder will take about 1 MB, but nothing is free" in capsys.readouterr().err
    assert not out.exists()


def test_a_system_that_tells_no_memory_is_no_obstacle(
    whole: RunFolder, data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "resident_bytes", lambda: None)
    said: list[str] = []
    train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, foretell=said.append)
    assert said == []
    assert_same(RunFolder(tmp_path / "run"), whole)


def test_steps_that_fail_leave_the_word_to_training(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__learning_rate=1e30, training__batch_size=2)
    with pytest.raises(RunError, match=r"became NaN .* nothing was kept before, and nan.json in .*run"):
        train(recipe, data, tmp_path / "run", store=store, workers=0, foretell=lambda _: None)
    assert (tmp_path / "run" / "nan.json").is_file()


def test_a_containers_own_bound_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text(f"{3 * GIB}\n")
    (group.parent / "memory.current").write_text(f"{2 * GIB}\n")
    (group.parent / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    assert processes.free_in_group(group, tmp_path) == 1.5 * GIB
    assert processes.free_in_group(tmp_path, tmp_path) is None


def test_the_disk_is_foretold_within_a_quarter(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # large enough that a megabyte for the logs does not matter; the weights are improved in some epoch
    recipe = tiny_recipe(network__arguments__features=[48, 96, 192])
    loaded = training_data.load(recipe, data, store, workers=0)
    needs = limits.foresee(recipe, loaded.train, loaded.validation)
    assert needs is not None
    sizes: list[int] = []
    flush = files._flush_to_disk

    def look(path: Path) -> None:
        flush(path)
        if path.parent == tmp_path / "run":  # every file is whole, but has its temporary name yet
            sizes.append(sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file()))

    monkeypatch.setattr(files, "_flush_to_disk", look)
    train(recipe, data, tmp_path / "run", store=store, workers=0)
    assert max(sizes) <= needs.disk_bytes
    assert needs.disk_bytes == pytest.approx(max(sizes), rel=0.25)


def test_a_full_disk_has_nothing_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 400_000))
    with pytest.raises(RunError, match=r"will take about 0.4 GB, but nothing is free where"):
        check_disk(0.4e9, tmp_path, "The run folder")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 7e6))
    with pytest.raises(RunError, match="but only 7 MB are free where"):
        check_disk(0.4e9, tmp_path, "The run folder")


@pytest.mark.parametrize(
    ("first", "expected"), [(2, "take a smaller network"), (4, "--training.batch-size 2 ")]
)
def test_memory_that_is_refused_to_a_trial_is_a_refusal(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    expected: str,
) -> None:
    def refused(recipe: Any, cases: Any, validation: Any, bare: Any, batch: int, steps: int) -> Any:
        if batch >= first:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(recipe, cases, validation, bare, batch, steps)

    real = limits._try
    monkeypatch.setattr(limits, "_try", refused)
    with pytest.raises(
        RunError, match=rf"in batches of 4 slices takes more memory than there is.*{expected}"
    ):
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0, foretell=lambda _: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [RuntimeError("[enforce fail] can't allocate memory"), MemoryError()])
def test_memory_that_is_refused_to_a_training_is_a_sentence(
    data: Mapping[str, Path],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def refused(self: Any, group: Any) -> Any:
        raise error

    monkeypatch.setattr(loop.Training, "_gradients_at_once", refused)
    with pytest.raises(RunError, match="The memory did not suffice; expected more"):
        train(tiny_recipe(), data, tmp_path / "run", store=store, workers=0)


def test_words_that_may_mean_memory_mean_it_where_little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("could not create a primitive")
    for free, expected in ((0.1, True), (8.0, False)):
        monkeypatch.setattr("oncoseg.limits.free_memory_gib", lambda free=free: free)
        assert is_out_of_memory(error) is expected
