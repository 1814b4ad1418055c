"""Inspection counts what is there and lists what is wrong, on data sets of a few voxels."""

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Event

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from oncoseg import inspect
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError
from oncoseg.inspect import CaseRow, Inspection, LabelCount, inspect_dataset
from oncoseg.io import ImageRef, read_channels
from oncoseg.volume import Volume

SEQUENCES = ("t1", "t1ce", "t2", "flair")
SPACING_MM = (1.0, 2.0, 5.0)
"""A voxel of 10 mm³."""

GRID = (4, 3, 2)


def brats(root: Path, case: str = "BraTS2021_00000", seed: int = 0, mask: np.ndarray | None = None) -> Path:
    """A case whose images are noise and whose mask marks 2 voxels with 1 and 3 with 4 on one slice."""
    folder = root / case
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name in SEQUENCES:
        save(folder / f"{case}_{name}.nii.gz", random.integers(1, 9999, GRID).astype(np.int16))
    if mask is None:
        mask = np.zeros(GRID, np.uint8)
        mask[:2, 0, 1], mask[:3, 1, 1] = 1, 4
    save(folder / f"{case}_seg.nii.gz", mask)
    return folder


def save(path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING_MM) -> None:
    nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0])).to_filename(path)


def png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(path)


def nodule(root: Path, name: str, readers: list[np.ndarray], seed: int = 0) -> None:
    folder = root / "LIDC-IDRI-0001" / name
    png(folder / "images" / "slice-0.png", np.random.default_rng(seed).integers(0, 255, (2, 3)))
    for number, mask in enumerate(readers):
        png(folder / f"mask-{number}" / "slice-0.png", mask * 255)


def kinds(found: Inspection) -> list[str]:
    return [problem.kind for problem in found.problems]


def test_a_sound_case_is_counted_by_hand(tmp_path: Path) -> None:
    brats(tmp_path)
    steps: list[tuple[int, int]] = []
    found = inspect_dataset(tmp_path, progress=lambda done, total: steps.append((done, total)), workers=1)
    assert (found.layout, found.case_count, found.patient_count, found.problems) == ("brats", 1, 1, ())
    assert steps == [(0, 1), (1, 1)]
    assert found.cases == (
        CaseRow(
            id="BraTS2021_00000",
            patient="BraTS2021_00000",
            site=None,
            channels=("T1", "T1ce", "T2", "FLAIR"),
            grid=GRID,
            spacing_mm=SPACING_MM,
            readers=1,
            readers_marking=1,
            labels=(
                LabelCount(1, "necrotic core", 2, pytest.approx(0.02)),
                LabelCount(4, "enhancing tumour", 3, pytest.approx(0.03)),
            ),
            union_voxels=5,
            majority_voxels=5,
            foreground_slices=1,
        ),
    )


def test_the_result_is_plain_data(tmp_path: Path) -> None:
    brats(tmp_path)
    data = json.loads(json.dumps(inspect_dataset(tmp_path).as_dict()))
    assert data["cases"][0]["labels"][1] == {
        "value": 4,
        "name": "enhancing tumour",
        "voxels": 3,
        "volume_ml": pytest.approx(0.03),
    }
    assert data["problems"] == []


def test_axial_slices_are_counted_along_the_patient(tmp_path: Path) -> None:
    folder = brats(tmp_path)
    # i runs towards Superior: the marked voxels lie at i = 0, 1 and 2
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    for file in folder.iterdir():
        image = nib.load(file)
        nib.Nifti1Image(np.asanyarray(image.dataobj), affine).to_filename(file)
    assert inspect_dataset(tmp_path).cases[0].foreground_slices == 3


def test_readers_are_counted_one_by_one(tmp_path: Path) -> None:
    readers = [np.zeros((2, 3)) for _ in range(4)]
    readers[0][0] = 1  # marks three voxels
    readers[1][0, :2] = 1  # two of them
    readers[2][1, 0] = 1  # another one
    nodule(tmp_path, "nodule-0", readers)
    nodule(tmp_path, "nodule-1", [readers[2], *[readers[3]] * 3], seed=1)
    nodule(tmp_path, "nodule-2", [readers[0]], seed=2)
    found = inspect_dataset(tmp_path)
    rows = found.cases
    assert [(row.readers, row.readers_marking) for row in rows] == [(4, 3), (4, 1), (1, 1)]
    assert [(row.union_voxels, row.majority_voxels) for row in rows] == [(4, 2), (1, 0), (3, 3)]
    assert rows[0].labels == (LabelCount(255, "nodule", 2, None),)
    assert (found.case_count, found.patient_count, rows[0].spacing_mm) == (3, 1, None)
    assert kinds(found) == ["fewer-readers", "empty-majority"]
    assert "LIDC-IDRI-0001_nodule-1" in found.problems[1].message


def test_an_image_in_two_cases_or_two_channels_is_found(tmp_path: Path) -> None:
    brats(tmp_path, "BraTS2021_00000", seed=0)
    other = brats(tmp_path, "BraTS2021_00001", seed=1)
    image = np.asanyarray(nib.load(tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz").dataobj)
    # content counts, not bytes: the copy is not compressed and its voxels lie in another order in memory
    (other / "BraTS2021_00001_t1.nii.gz").unlink()
    save(other / "BraTS2021_00001_t1.nii", image)
    save(other / "BraTS2021_00001_t2.nii.gz", np.ones(GRID, np.int16))
    save(other / "BraTS2021_00001_flair.nii.gz", np.ones(GRID, np.int16))
    found = inspect_dataset(tmp_path)
    assert sorted(kinds(found)) == ["constant-image", "constant-image", "duplicate-image"]
    assert "BraTS2021_00000 T2, BraTS2021_00001 T1" in found.problems[-1].message


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0, "empty-mask"), (5, "unexpected-label"), (-1, "unexpected-label"), (0.5, "fractional-mask")],
)
def test_labels_outside_the_declared_ones(tmp_path: Path, value: float, kind: str) -> None:
    brats(tmp_path, mask=np.full(GRID, value, np.float32))
    found = inspect_dataset(tmp_path)
    assert kinds(found) == [kind]
    if kind == "unexpected-label":
        assert found.cases[0].labels == (LabelCount(int(value), None, 24, pytest.approx(0.24)),)


def test_grids_that_differ(tmp_path: Path) -> None:
    folder = brats(tmp_path)
    save(folder / "BraTS2021_00000_t2.nii.gz", np.arange(24, dtype=np.int16).reshape(GRID), (1.0, 2.0, 4.0))
    save(folder / "BraTS2021_00000_seg.nii.gz", np.ones((4, 3, 3), np.uint8))
    found = inspect_dataset(tmp_path)
    assert kinds(found) == ["grid-mismatch", "grid-mismatch"]
    assert "T1 and T2" in found.problems[0].message
    assert "T1 and mask 0" in found.problems[1].message


def test_broken_files_are_problems_and_never_a_crash(tmp_path: Path) -> None:
    folder = brats(tmp_path)
    for name in ("t1", "seg"):
        file = folder / f"BraTS2021_00000_{name}.nii.gz"
        file.write_bytes(file.read_bytes()[:-20])
    save(folder / "BraTS2021_00000_flair.nii.gz", np.full(GRID, np.nan, np.float32))
    (folder / "BraTS2021_00000_t2.nii.gz").unlink()
    found = inspect_dataset(tmp_path)
    assert kinds(found) == ["missing-channel", "unreadable", "not-finite", "unreadable"]
    (row,) = found.cases
    assert row.channels == ("T1ce",)
    assert (row.readers, row.labels, row.union_voxels) == (0, (), None)


def test_nothing_readable_still_gives_a_row(tmp_path: Path) -> None:
    for file in brats(tmp_path).iterdir():
        file.write_bytes(b"")
    (row,) = inspect_dataset(tmp_path).cases
    assert (row.channels, row.grid, row.spacing_mm, row.readers) == ((), None, None, 0)


def test_slices_of_unequal_size_are_a_grid_problem(tmp_path: Path) -> None:
    nodule(tmp_path, "nodule-0", [np.ones((2, 3))])
    folder = tmp_path / "LIDC-IDRI-0001" / "nodule-0"
    png(folder / "images" / "slice-1.png", np.ones((4, 4)))
    png(folder / "mask-0" / "slice-1.png", np.ones((2, 3)) * 255)
    assert kinds(inspect_dataset(tmp_path)) == ["grid-mismatch"]


def test_a_folder_that_is_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        inspect_dataset(tmp_path)


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    for number in range(3):
        brats(tmp_path, f"BraTS2021_0000{number}", seed=number)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_dataset(tmp_path, progress=interrupt)


def test_after_an_interrupt_no_further_file_of_a_case_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        brats(tmp_path, f"BraTS2021_0000{number}", seed=number)
    told, read = Event(), []

    def slow(refs: Mapping[str, ImageRef]) -> Volume:
        (name,) = refs
        read.append(name)
        if len(read) > len(SEQUENCES):  # the first file of the second case, while the first case is told of
            told.wait(60)
        return read_channels(refs)

    class Stopping(Event):
        def set(self) -> None:
            super().set()
            told.set()

    monkeypatch.setattr(inspect, "read_channels", slow)
    monkeypatch.setattr(inspect, "Event", Stopping)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_dataset(tmp_path, progress=interrupt, workers=1)
    assert len(read) <= len(SEQUENCES) + 1


def test_no_more_cases_are_looked_at_together_than_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brats(tmp_path)
    cases = open_dataset(tmp_path).cases
    monkeypatch.setattr("oncoseg.processes.available_processors", lambda: 8)
    monkeypatch.setattr("oncoseg.processes.free_memory_gib", lambda: 8.0)
    assert inspect._threads(cases) == 8
    monkeypatch.setattr(inspect, "voxel_bytes", lambda ref: 1 << 28)  # 1.25 GiB of five files, three times
    assert inspect._threads(cases) == 1


def test_values_are_counted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "COUNTED_AT_A_TIME", 3)
    assert inspect._count_values(np.array([[0, 1, 1, 7], [0, 0, 65535, 7]])) == {0: 3, 1: 2, 7: 2, 65535: 1}


@pytest.mark.real_data
@pytest.mark.slow
def test_real_lgg_repeats_flair_where_a_sequence_is_missing(shared_data: Path) -> None:
    if not (shared_data / "lgg").is_dir():
        pytest.skip("no lgg among the real data")
    found = inspect_dataset(shared_data / "lgg")
    assert kinds(found) == ["duplicate-image", "duplicate-image"]
    assert all("T1ce" in problem.message and "FLAIR" in problem.message for problem in found.problems)
    assert sum(row.foreground_slices or 0 for row in found.cases) == 315
