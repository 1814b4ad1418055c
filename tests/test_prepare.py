"""Preparing: never twice, noticing every change, keeping what is done."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from oncoseg import files, processes
from oncoseg import prepare as preparing
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, GeometryError, RunError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.io import ImageRef
from oncoseg.prepare import Settings, build_case, prepare
from oncoseg.recipe import Modality, Preparation
from oncoseg.store import HASHES_FILE, SLICES_FILE, FileHashes, PreparedCase
from oncoseg.transforms import prepare_slices
from test_files import dead_process, largest_file
from tiny import MRI_GRID, brats_case, lidc_nodule

MRI = Settings.of(
    Modality(channels=("T1", "T1ce", "T2", "FLAIR")),
    {"tumour": ("*",)},
    Preparation(slice_size=(16, 16)),
)
CT = replace(MRI, wanted=("CT",) * 4)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that were really built, in order."""
    ids: list[str] = []
    real = preparing.build_case

    def counted(case: Case, settings: Settings, folder: Path) -> None:
        ids.append(case.id)
        real(case, settings, folder)

    monkeypatch.setattr(preparing, "build_case", counted)
    return ids


def brats(root: Path, count: int = 3, **kwargs: Any) -> tuple[Case, ...]:
    for number in range(count):
        brats_case(root, number, **kwargs)
    return open_dataset(root).cases


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> ImageRef:
    nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine).to_filename(path)
    return ImageRef((path,))


def folders(store: Path) -> set[Path]:
    return {path for path in store.glob("*/*") if path.is_dir()}


def run(cases: Any, settings: Settings, store: Path, **kwargs: Any) -> list[PreparedCase]:
    return prepare(cases, settings, store, **({"workers": 0} | kwargs))


# what is prepared


def test_a_case_holds_what_the_transforms_make(tmp_path: Path) -> None:
    (case,) = brats(tmp_path / "data", 1)
    (prepared,) = run([case], MRI, tmp_path / "store")
    assert (prepared.id, prepared.patient, len(prepared)) == (case.id, case.patient, MRI_GRID[2])
    voxels = np.stack([nib.load(ref.files[0]).get_fdata() for ref in case.images.values()])
    expected = prepare_slices(voxels, (16, 16), "slice-minmax", MRI.percentiles, MRI.window)
    images, masks = prepared.read(0, MRI_GRID[2])
    torch.testing.assert_close(images, expected, rtol=2**-10, atol=1e-4)
    assert masks.flatten(1).any(1).tolist() == [False, True, True, False]
    assert prepared.tumour_pixels.tolist() == masks.flatten(1).sum(1).tolist()
    bright = images[:, 0] > 0.7
    overlap = (bright & (masks > 0))[1:3].sum() / (masks > 0).sum()
    assert overlap > 0.6, "the mask lies on the tumour"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_orientation_on_disk_does_not_matter(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    (case,) = brats(tmp_path / "data", 1)
    images = {}
    for name, ref in {**case.images, "mask": case.masks[0]}.items():
        source = nib.load(ref.files[0])
        axes = np.stack([order, signs], axis=1)
        turned = source.as_reoriented(nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], axes))
        images[name] = nifti(tmp_path / f"{name}.nii", np.asarray(turned.dataobj), turned.affine)
    mask = images.pop("mask")
    turned_case = replace(case, images=images, masks=(mask,))
    prepared = run([case, turned_case], MRI, tmp_path / "store")
    assert torch.equal(prepared[0].read(0, 9)[0], prepared[1].read(0, 9)[0])
    assert torch.equal(prepared[0].read(0, 9)[1], prepared[1].read(0, 9)[1])


def test_the_slab_is_only_a_matter_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = brats(tmp_path / "data", 1, grid=(14, 10, 7))
    (whole,) = run([case], MRI, tmp_path / "whole")
    monkeypatch.setattr(preparing, "SLAB", 3)
    (pieces,) = run([case], MRI, tmp_path / "pieces")
    for one, other in zip(whole.read(0, 7), pieces.read(0, 7), strict=True):
        assert torch.equal(one, other)


def test_repeated_channels_are_stored_once_and_readers_agree(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    (prepared,) = run(open_dataset(tmp_path / "ct").cases, CT, tmp_path / "store")
    assert prepared.description["channels"] == ["CT"]
    assert prepared.order == (0, 0, 0, 0)
    images, masks = prepared.read(0, 3)
    assert images.shape == (3, 4, 16, 16)
    # three of four readers drew a 5×5 square on the last two slices
    assert prepared.tumour_pixels.tolist() == [0, 25, 25]
    assert masks.max() == 1


def test_consensus_decides_which_readers_count(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    cases = open_dataset(tmp_path / "ct").cases
    (unanimous,) = run(cases, replace(CT, consensus=1.0), tmp_path / "store")
    assert unanimous.tumour_pixels.sum() == 0


# never twice


def test_the_same_is_never_prepared_twice(tmp_path: Path, built: list[str]) -> None:
    cases = brats(tmp_path / "data")
    first = run(cases, MRI, tmp_path / "store")
    assert built == [case.id for case in cases]
    again = run(cases[::-1], MRI, tmp_path / "store")
    assert len(built) == 3
    assert [one.folder for one in again] == [one.folder for one in first[::-1]]


def test_equal_files_elsewhere_and_equal_cases_are_prepared_once(tmp_path: Path, built: list[str]) -> None:
    brats_case(tmp_path / "a", 0)
    (tmp_path / "b").mkdir()
    brats_case(tmp_path / "tmp", 0).rename(tmp_path / "b" / "BraTS2021_00000")
    (one,) = run(open_dataset(tmp_path / "a").cases, MRI, tmp_path / "store")
    case = open_dataset(tmp_path / "b").cases[0]
    two, three = run([case, replace(case, id="x", patient="y")], MRI, tmp_path / "store")
    assert built == ["BraTS2021_00000"]
    assert one.folder == two.folder == three.folder
    assert (three.id, three.patient) == ("x", "y")


@pytest.mark.parametrize("which", ["t2.nii.gz", "seg.nii.gz"])
def test_a_changed_file_is_noticed(tmp_path: Path, built: list[str], which: str) -> None:
    cases = brats(tmp_path / "data")
    before = run(cases, MRI, tmp_path / "store")
    path = next((tmp_path / "data" / cases[1].id).glob(f"*{which}"))
    voxels = np.asarray(nib.load(path).dataobj).copy()
    voxels[0, 0, 0] = 0 if voxels[0, 0, 0] else 1
    nifti(path, voxels)
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))  # however coarse the clock of the disk
    after = run(cases, MRI, tmp_path / "store")
    assert built[3:] == [cases[1].id]
    assert [a.folder == b.folder for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_a_touched_file_is_not_a_change(tmp_path: Path, built: list[str]) -> None:
    cases = brats(tmp_path / "data", 1)
    run(cases, MRI, tmp_path / "store")
    for path in (tmp_path / "data").rglob("*.nii.gz"):
        os.utime(path, ns=(1, 1))
    run(cases, MRI, tmp_path / "store")
    (tmp_path / "store" / HASHES_FILE).unlink()
    run(cases, MRI, tmp_path / "store")
    assert len(built) == 1


CHANGED: dict[str, dict[str, Any]] = {
    "channels": {"wanted": ("T1", "T1ce")},
    "channel order": {"wanted": ("T1ce", "T1", "T2", "FLAIR")},
    "scaling": {"scaling": "slice-percentile"},
    "window": {"scaling": "window", "window": (0.0, 10.0)},
    "classes": {"classes": {"core": ("necrotic core", "enhancing tumour")}},
    "size": {"size": (16, 8)},
}
UNUSED: dict[str, dict[str, Any]] = {
    "window": {"window": (0.0, 10.0)},
    "percentiles": {"percentiles": (1.0, 99.0)},
    "consensus of one reader": {"consensus": 1.0},
    "substitutes": {"missing": "substitute", "substitutes": {"T1": "T2"}},
    "repeated channels": {"wanted": ("T1", "T1ce", "T2", "FLAIR", "T1")},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_setting_is_another_case(tmp_path: Path, built: list[str], name: str) -> None:
    cases = brats(tmp_path / "data", 1)
    (before,) = run(cases, MRI, tmp_path / "store")
    (after,) = run(cases, replace(MRI, **CHANGED[name]), tmp_path / "store")
    assert after.folder != before.folder
    assert len(built) == 2


@pytest.mark.parametrize("name", UNUSED)
def test_a_setting_that_decides_nothing_is_not(tmp_path: Path, built: list[str], name: str) -> None:
    cases = brats(tmp_path / "data", 1)
    (before,) = run(cases, MRI, tmp_path / "store")
    (after,) = run(cases, replace(MRI, **UNUSED[name]), tmp_path / "store")
    assert after.folder == before.folder
    assert len(built) == 1


def test_used_percentiles_and_several_readers_are_part_of_the_key(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 1)
    cases = open_dataset(tmp_path / "ct").cases
    percentile = replace(CT, scaling="slice-percentile")
    variants = [CT, replace(CT, consensus=1.0), percentile, replace(percentile, percentiles=(5.0, 95.0))]
    for settings in variants:
        run(cases, settings, tmp_path / "store")
    assert len(folders(tmp_path / "store")) == len(variants)


# interrupted, failing


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_keeps_whole_cases_and_going_on_makes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[str], interruption: type[BaseException]
) -> None:
    cases = brats(tmp_path / "data")
    real = preparing.SliceWriter.finish

    def interrupted(self: Any, **description: Any) -> None:
        if len(built) == 2:
            raise interruption
        real(self, **description)

    monkeypatch.setattr(preparing.SliceWriter, "finish", interrupted)
    with pytest.raises(interruption):
        run(cases, MRI, tmp_path / "store")
    assert len(folders(tmp_path / "store")) == 1
    assert not [path for path in (tmp_path / "store").rglob("*") if TEMPORARY_MARK in path.name]
    monkeypatch.setattr(preparing.SliceWriter, "finish", real)
    run(cases, MRI, tmp_path / "store")
    assert built[2:] == [cases[1].id, cases[2].id]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def wipe(path: Path) -> None:
    path.write_bytes(b"")


def flatten(path: Path) -> None:
    nifti(path, np.full(MRI_GRID, 7, np.int16))


def poison(path: Path) -> None:
    voxels = np.ones(MRI_GRID, np.float32)
    voxels[3, 3, 3] = np.nan
    nifti(path, voxels)


def shift(path: Path) -> None:
    voxels = np.asarray(nib.load(path).dataobj)
    nifti(path, voxels, np.diag([1, 1, 1.5, 1]))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "truncated or damaged"),
        (wipe, "is empty"),
        (flatten, "T2 is constant"),
        (poison, "NaN"),
        (shift, "must lie on one grid"),
        (Path.unlink, "Cannot read"),
    ],
)
def test_a_bad_case_is_named_and_the_others_are_kept(
    tmp_path: Path, built: list[str], spoil: Callable[[Path], None], message: str, workers: int
) -> None:
    cases = brats(tmp_path / "data", suffix=".nii.gz")
    spoil(tmp_path / "data" / cases[1].id / f"{cases[1].id}_t2.nii.gz")
    with pytest.raises(DataError, match=rf"(?s)1 of 3 cases cannot be prepared.*{message}") as caught:
        run(cases, MRI, tmp_path / "store", workers=workers)
    assert cases[0].id not in str(caught.value)
    assert len(folders(tmp_path / "store")) == 2
    assert len(run([cases[0], cases[2]], MRI, tmp_path / "store")) == 2
    assert len(built) <= 3


def test_many_bad_cases_are_counted_and_some_named(tmp_path: Path) -> None:
    cases = [replace(case, masks=()) for case in brats(tmp_path / "data", 7)]
    with pytest.raises(DataError, match=r"(?s)7 of 7 cases .*BraTS2021_00000 has no mask.*… and 2 more"):
        run(cases, MRI, tmp_path / "store")


def test_masks_are_checked(tmp_path: Path) -> None:
    (case,) = brats(tmp_path / "data", 1)
    foreign = nifti(tmp_path / "five.nii", np.full(MRI_GRID, 5, np.uint8))
    with pytest.raises(DataError, match=r"label values \[5\]"):
        build_case(replace(case, masks=(foreign,)), MRI, tmp_path / "a")
    elsewhere = nifti(tmp_path / "far.nii", np.zeros(MRI_GRID, np.uint8), np.diag([1, 1, 2, 1]))
    with pytest.raises(GeometryError, match="image and mask 0 must lie on one grid"):
        build_case(replace(case, masks=(elsewhere,)), MRI, tmp_path / "b")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_missing_channel_is_refused_or_substituted(tmp_path: Path) -> None:
    (case,) = brats(tmp_path / "data", 1)
    lacking = replace(case, images={name: ref for name, ref in case.images.items() if name != "T2"})
    with pytest.raises(DataError, match=r"BraTS2021_00000: Channel T2 is missing"):
        run([lacking], MRI, tmp_path / "store")
    with_flair = replace(MRI, missing="substitute", substitutes={"T2": "FLAIR"})
    (prepared,) = run([lacking], with_flair, tmp_path / "store")
    images, _ = prepared.read(0, 4)
    assert torch.equal(images[:, 2], images[:, 3])
    assert prepared.description["channels"] == ["T1", "T1ce", "FLAIR"]
    with_zeros = replace(MRI, missing="substitute", substitutes={"T2": "zeros"})
    (prepared,) = run([lacking], with_zeros, tmp_path / "store")
    images, _ = prepared.read(0, 4)
    assert not images[:, 2].any()
    assert images[:, 3].any()


def test_a_truncated_entry_of_the_store_is_prepared_anew(tmp_path: Path, built: list[str]) -> None:
    cases = brats(tmp_path / "data")
    before = run(cases, MRI, tmp_path / "store")
    slices = before[1].folder / SLICES_FILE
    content = slices.read_bytes()
    slices.write_bytes(content[: len(content) // 2])
    after = run(cases, MRI, tmp_path / "store")
    assert built[3:] == [cases[1].id]
    assert after[1].folder == before[1].folder
    assert slices.read_bytes() == content


def test_what_a_killed_worker_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = brats(tmp_path / "data", 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", dead_process)
        folder = tmp_path / "store" / MRI.key(case, FileHashes(tmp_path))[:2]
        files._temporary_name(folder / "case").mkdir(parents=True)
    (prepared,) = run([case], MRI, tmp_path / "store")
    assert list(folder.iterdir()) == [prepared.folder]


def test_a_full_disk_stops_with_a_sentence_and_keeps_what_is_whole(tmp_path: Path) -> None:
    cases = brats(tmp_path / "data")
    run(cases[:1], MRI, tmp_path / "store")
    with largest_file(2000), pytest.raises(RunError, match="Could not write"):
        run(cases, MRI, tmp_path / "store")
    assert len(folders(tmp_path / "store")) == 1
    assert not [path for path in (tmp_path / "store").rglob("*") if TEMPORARY_MARK in path.name]
    assert len(run(cases, MRI, tmp_path / "store")) == 3


def test_a_file_in_place_of_the_store_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(RunError, match="Could not write"):
        run(brats(tmp_path / "data", 1), MRI, tmp_path / "store")


# workers


def test_memory_bounds_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "available_processors", lambda: 16)
    monkeypatch.setattr(preparing, "source_bytes", lambda case: case)
    monkeypatch.setattr(preparing, "MEMORY_PER_WORKER_GIB", 0.5)
    monkeypatch.setattr(preparing, "SOURCE_COPIES", 2.5)
    gib = 2**30

    def count(workers: int | None, memory_gib: float | None, *sizes: float) -> int:
        return preparing._workers_within(workers, memory_gib, sizes)

    # 0.5 GiB a worker, and two and a half times the largest case
    assert count(None, 8.0, *[0] * 50) == 16
    assert count(None, 8.0, *[0.2 * gib] * 50) == 8
    assert count(None, 8.0, *[0.01 * gib] * 49, 1.4 * gib) == 2
    assert count(None, 8.0, *[40 * gib] * 50) == 1
    assert count(3, 8.0, *[0] * 50) == 3
    assert count(None, 8.0, 0, 0) == 2
    assert count(0, 8.0, 0, 0) == 0
    # half of what is free, at most 8 GiB
    monkeypatch.setattr(processes, "free_memory_gib", lambda: 6.0)
    assert count(None, None, *[0.2 * gib] * 50) == 3
    monkeypatch.setattr(processes, "free_memory_gib", lambda: 100.0)
    assert count(None, None, *[0.2 * gib] * 50) == 8


def test_the_size_of_a_case_is_that_of_its_voxels(tmp_path: Path) -> None:
    (mri,) = brats(tmp_path / "mri", 1)
    assert preparing.source_bytes(mri) == 4 * np.prod(MRI_GRID) * 2
    lidc_nodule(tmp_path / "ct", 1)
    (ct,) = open_dataset(tmp_path / "ct").cases
    assert preparing.source_bytes(ct) == 3 * 16 * 16


def test_progress_counts_what_is_there_already(tmp_path: Path) -> None:
    cases = brats(tmp_path / "data")
    seen: list[tuple[int, int]] = []
    run(cases[:1], MRI, tmp_path / "store")
    run(cases, MRI, tmp_path / "store", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_processes_make_the_same_as_none_and_name_what_fails(tmp_path: Path, built: list[str]) -> None:
    cases = brats(tmp_path / "data", 4)
    alone = run(cases, MRI, tmp_path / "alone")
    built.clear()
    program = sys.modules["__main__"]
    seen: list[tuple[int, int]] = []
    fails = replace(cases[0], id="fails", masks=(nifti(tmp_path / "far.nii", np.zeros((2, 2, 2), np.uint8)),))
    with pytest.raises(DataError, match=r"(?s)1 of 5 cases cannot be prepared.*Case fails: .*one grid"):
        run(
            [fails, *cases],
            MRI,
            tmp_path / "together",
            workers=2,
            memory_gib=16,
            progress=lambda *at: seen.append(at),
        )
    assert built == [], "nothing was built in this process"
    assert sys.modules["__main__"] is program
    assert seen == [(done, 5) for done in range(6)]
    together = run(cases, MRI, tmp_path / "together")
    assert built == [], "everything else was"
    for one, other in zip(alone, together, strict=True):
        assert one.folder.name == other.folder.name
        for mine, theirs in zip(one.read(0, 4), other.read(0, 4), strict=True):
            assert torch.equal(mine, theirs)


def test_a_class_whose_labels_exist_nowhere_is_told_once(tmp_path: Path) -> None:
    for number in range(3):
        brats_case(tmp_path / "data", number)
    cases = open_dataset(tmp_path / "data").cases
    settings = replace(MRI, classes={"cyst": ("cyst",)})
    with pytest.raises(
        DataError, match=r"^Class cyst joins the labels \['cyst'\], of which no case has any; "
    ):
        prepare(cases, settings, tmp_path / "store", workers=0)
    assert not (tmp_path / "store").exists()
