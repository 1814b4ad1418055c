"""A cohort is prepared and predicted on a Ray cluster of two workers as on this machine alone."""

import os
import socket
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from oncoseg.cluster import cluster
from oncoseg.datasets import open_dataset
from oncoseg.errors import RunError
from oncoseg.predict import Predictor
from oncoseg.prepare import Settings, prepare
from oncoseg.run_folder import RunFolder
from tiny import tiny_recipe

TWO = 2


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """Its programs find the tests' modules and this package where the tests do."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    import sys

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with cluster("local", processors=TWO) as spread:
            yield spread


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As Ray gives each task: with more, sums are added in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def failing_once(folder: Path, item: str) -> str:
    """Each item fails at first: one by its process's end, one by a disk error."""
    mark = folder / item
    if mark.exists():
        return item.upper()
    mark.touch()
    if item == "killed":
        os._exit(1)
    raise OSError("the network disk is away")


def failing_always(item: int) -> int:
    if item == 2:
        raise RunError("the disk is full")
    return 10 * item


@pytest.mark.slow
def test_tasks_that_fail_are_tried_again(two_workers: Any, tmp_path: Path) -> None:
    found = two_workers(partial(failing_once, tmp_path), ["killed", "unread"])
    assert sorted(found) == ["KILLED", "UNREAD"]


@pytest.mark.slow
def test_one_that_always_fails_costs_no_other(two_workers: Any) -> None:
    results = []
    with pytest.raises(RunError, match=r"1 of 4 tasks failed on the cluster, each 4 times.*disk is full"):
        for result in two_workers(failing_always, [1, 2, 3, 4]):
            results.append(result)
    assert sorted(results) == [10, 30, 40]


@pytest.mark.slow
def test_preparing_on_a_cluster_gives_the_same_store_and_goes_on(
    two_workers: Any, data: Mapping[str, Path], tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    settings = Settings.of(recipe.modalities["mri"], recipe.classes, recipe.preparation)
    cases = open_dataset(data["mri"]).cases
    here = prepare(cases, settings, tmp_path / "here", workers=0)
    prepare(cases[:1], settings, tmp_path / "there", workers=0)
    sent: list[int] = []

    def counted(function: Any, items: Collection[Any], each_gib: float = 0.0) -> Iterator[Any]:
        sent.append(len(items))
        assert 0.8 < each_gib < 1
        return two_workers(function, items, each_gib)

    there = prepare(cases, settings, tmp_path / "there", spread=counted)
    assert sent == [len(cases) - 1], "the first lay in the store already"
    for one, other in zip(here, there, strict=True):
        assert one.folder.name == other.folder.name
        for ours, theirs in zip(one.read(0, len(one)), other.read(0, len(other)), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_predicting_on_a_cluster_gives_the_same_masks_and_goes_on(
    one_thread: None, two_workers: Any, whole: RunFolder, data: Mapping[str, Path], tmp_path: Path
) -> None:
    predictor = Predictor.load(whole.path, {"prediction.threshold": 0.4})
    here = predictor.predict([data["mri"]], tmp_path / "here", probabilities=True)
    seen: list[tuple[int, int]] = []
    there = predictor.predict(
        [data["mri"]],
        tmp_path / "there",
        probabilities=True,
        spread=two_workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (16, 16)
    files = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == files
    for name in files:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
    there[1].unlink()
    before = {path: path.stat().st_mtime_ns for path in there if path.exists()}
    assert (
        predictor.predict([data["mri"]], tmp_path / "there", probabilities=True, spread=two_workers) == there
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert there[1].read_bytes() == here[1].read_bytes()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_said_at_once() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(RunError, match=f"There is no Ray cluster at {address}"), cluster(address):
            pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'oncoseg\[ray\]'"), cluster("local"):
        pass
