"""The prepared store: what it holds, that nothing is done twice, and what failures leave behind."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oncoseg import prepare as preparing
from oncoseg import store as storing
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RunError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.prepare import Settings, prepare
from oncoseg.store import PreparedCase
from tiny import brats_case, lidc_nodule, tiny_data, tiny_recipe


def settings_of(modality: str, **changes: Any) -> Settings:
    recipe = tiny_recipe(**changes)
    return Settings.of(recipe.modalities[modality], recipe.classes, recipe.preparation)


def cases_of(folder: Path) -> list[Case]:
    return list(open_dataset(folder).cases)


def prepared(
    root: Path, modality: str = "mri", settings: Settings | None = None, workers: int = 0
) -> list[PreparedCase]:
    return prepare(
        cases_of(root / modality), settings or settings_of(modality), root / "store", workers=workers
    )


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that are really prepared, in order."""
    ids: list[str] = []
    build = preparing.build_case

    def counted(case: Case, settings: Settings, folder: Path) -> None:
        ids.append(case.id)
        build(case, settings, folder)

    monkeypatch.setattr(preparing, "build_case", counted)
    return ids


def leftovers(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if TEMPORARY_MARK in path.name]


def test_slices_and_masks_are_those_of_the_source(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 7)
    (case,) = prepared(tmp_path, "ct")
    images, masks = case.read(0, len(case))
    assert images.shape == (3, 4, 16, 16)
    assert masks.shape == (3, 16, 16)
    # the one channel stands four times
    assert all(torch.equal(images[:, 0], images[:, number]) for number in (1, 2, 3))
    source = cases_of(tmp_path / "ct")[0]
    for k, (image, mask) in enumerate(zip(source.images["CT"].files, source.masks[0].files, strict=True)):
        pixels = np.asarray(Image.open(image)).astype(float)
        scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        # columns run to the Left and rows to Posterior, so both are turned about for Right, Anterior
        assert images[k, 0].numpy() == pytest.approx(scaled.T[::-1, ::-1], abs=1e-3)
        assert (masks[k].numpy() == (np.asarray(Image.open(mask)) > 0).T[::-1, ::-1]).all()
    assert case.tumour_pixels.tolist() == [0, 25, 25]


def test_nothing_is_prepared_twice(tmp_path: Path, built: list[str]) -> None:
    tiny_data(tmp_path, mri=2, ct=0)
    first = prepared(tmp_path)
    assert len(built) == 2
    assert prepared(tmp_path) == first
    assert len(built) == 2
    # neither when the same files lie elsewhere under another name
    (tmp_path / "mri").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "mri")
    storing.FileHashes(tmp_path / "store")
    (tmp_path / "store" / "hashes.json").unlink()
    assert prepared(tmp_path) == first
    assert len(built) == 2


def test_changed_input_is_noticed(tmp_path: Path, built: list[str]) -> None:
    folder = lidc_nodule(tmp_path / "ct", 1)
    (before,) = prepared(tmp_path, "ct")
    (folder / "images" / "slice-0.png").write_bytes((folder / "images" / "slice-1.png").read_bytes())
    (after,) = prepared(tmp_path, "ct")
    assert before.folder != after.folder
    assert len(built) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"preparation__slice_size": [8, 8]},
        {"modalities__ct__scaling": "window"},
        {"modalities__ct__consensus": 1.0},
        {"classes": {"nodule": ["nodule"], "other": ["nodule"]}},
    ],
)
def test_a_setting_that_matters_gives_another_entry(tmp_path: Path, change: dict[str, Any]) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    (before,) = prepared(tmp_path, "ct")
    (after,) = prepared(tmp_path, "ct", settings_of("ct", **change))
    assert before.folder != after.folder


def test_a_setting_that_does_not_matter_gives_the_same_entry(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    (before,) = prepared(tmp_path, "ct")
    # the window plays no part in slice-minmax
    assert prepared(tmp_path, "ct", settings_of("ct", modalities__ct__window=[0, 9])) == [before]


def test_consensus_is_at_least_half_of_the_readers(tmp_path: Path) -> None:
    folder = lidc_nodule(tmp_path / "ct", 1)
    empty = np.zeros((16, 16), np.uint8)
    for k in range(3):
        Image.fromarray(empty).save(folder / "mask-2" / f"slice-{k}.png")
    (two_of_four,) = prepared(tmp_path, "ct")
    assert two_of_four.tumour_pixels.tolist() == [0, 25, 25]
    (three_of_four,) = prepared(tmp_path, "ct", settings_of("ct", modalities__ct__consensus=0.75))
    assert three_of_four.tumour_pixels.tolist() == [0, 0, 0]


def test_an_interrupted_preparation_goes_on(
    tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_data(tmp_path, mri=3, ct=0)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(
            cases_of(tmp_path / "mri"),
            settings_of("mri"),
            tmp_path / "store",
            workers=0,
            progress=interrupt,
        )
    assert len(built) == 2
    assert not leftovers(tmp_path / "store")
    assert len(prepared(tmp_path)) == 3
    assert len(built) == 3


def test_cases_that_fail_are_named_and_the_others_kept(tmp_path: Path, built: list[str]) -> None:
    tiny_data(tmp_path, mri=3, ct=0)
    broken = tmp_path / "mri" / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"(?s)1 of 3 cases.*BraTS2021_00001"):
        prepared(tmp_path)
    assert not leftovers(tmp_path / "store")
    broken.write_bytes(whole)
    built.clear()
    assert len(prepared(tmp_path)) == 3
    assert built == ["BraTS2021_00001"]


def test_worker_processes_make_the_same_entries(tmp_path: Path) -> None:
    tiny_data(tmp_path, mri=2, ct=0)
    here = prepared(tmp_path)
    there = prepare(cases_of(tmp_path / "mri"), settings_of("mri"), tmp_path / "other", workers=2)
    for one, other in zip(here, there, strict=True):
        assert one.folder.name == other.folder.name
        assert all(torch.equal(a, b) for a, b in zip(one.read(0, 4), other.read(0, 4), strict=True))


def test_a_missing_sequence_is_an_error_or_its_substitute(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    (folder / "BraTS2021_00001_t2.nii.gz").unlink()
    with pytest.raises(DataError, match="Channel T2 is missing"):
        prepared(tmp_path)
    (case,) = prepared(tmp_path, settings=settings_of("mri", modalities__mri__missing="substitute"))
    images, _ = case.read(0, len(case))
    assert torch.equal(images[:, 2], images[:, 3])
    zeros = {"modalities__mri__missing": "substitute", "modalities__mri__substitutes": {"T2": "zeros"}}
    (case,) = prepared(tmp_path, settings=settings_of("mri", **zeros))
    assert case.read(0, len(case))[0][:, 2].eq(0).all()


def test_a_case_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    (folder / "BraTS2021_00001_seg.nii.gz").unlink()
    with pytest.raises(DataError, match="no mask"):
        prepared(tmp_path)


def test_a_constant_channel_is_refused(tmp_path: Path) -> None:
    folder = lidc_nodule(tmp_path / "ct", 1)
    for k in range(3):
        Image.fromarray(np.full((16, 16), 9, np.uint8)).save(folder / "images" / f"slice-{k}.png")
    with pytest.raises(DataError, match="constant"):
        prepared(tmp_path, "ct")


def test_label_values_outside_the_declared_set_are_refused(tmp_path: Path) -> None:
    folder = lidc_nodule(tmp_path / "ct", 1)
    Image.fromarray(np.full((16, 16), 128, np.uint8)).save(folder / "mask-0" / "slice-0.png")
    with pytest.raises(DataError, match=r"\[128\]"):
        prepared(tmp_path, "ct")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_data(tmp_path, mri=1, ct=0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storing.SliceWriter, "append", full)
    with pytest.raises(RunError, match="No space left"):
        prepared(tmp_path)
    assert not leftovers(tmp_path / "store")


def test_workers_stay_within_the_memory_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "source_bytes", lambda case: 2**30)
    each = preparing.MEMORY_PER_WORKER_GIB + preparing.SOURCE_COPIES
    cases = [None] * 100
    assert preparing._workers_within(8, 3 * each + 0.1, cases) == 3
    assert preparing._workers_within(8, 0.1, cases) == 1
    assert preparing._workers_within(0, 100, cases) == 0
    assert preparing._workers_within(8, 1000, cases[:2]) == 2
