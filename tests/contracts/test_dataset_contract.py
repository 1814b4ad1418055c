"""What every entry of DATASETS promises, on a tiny data set in each layout."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oncoseg import io
from oncoseg.datasets import DATASETS, Scan, open_dataset
from oncoseg.inspect import inspect_dataset
from oncoseg.volume import check_same_grid
from tiny import brats_case, lidc_nodule


def _brats(root: Path) -> None:
    for number in range(2):
        brats_case(root, number)


def _lidc_slices(root: Path) -> None:
    lidc_nodule(root, 1, 0)
    lidc_nodule(root, 1, 1)
    lidc_nodule(root, 2, 0)


def _lgg(root: Path) -> None:
    rng = np.random.default_rng(0)
    for case in ("TCGA_DU_0001_19990101", "TCGA_FG_0002_20000202"):
        folder = root / "kaggle_3m" / case
        folder.mkdir(parents=True)
        for k in (1, 2, 3):
            mask = np.zeros((12, 12), np.uint8)
            mask[2:5, 6:9] = 255 * (k > 1)
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / f"{case}_{k}.tif")
            Image.fromarray(mask).save(folder / f"{case}_{k}_mask.tif")


MAKERS: dict[str, Callable[[Path], None]] = {"brats": _brats, "lidc_slices": _lidc_slices, "lgg": _lgg}
"""Layout → writes a few cases of it. A new layout adds its maker here."""


@pytest.fixture(params=DATASETS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scan(layout: str, tmp_path: Path) -> Scan:
    MAKERS[layout](tmp_path)
    return open_dataset(tmp_path)


def test_it_is_recognised_by_itself(scan: Scan, layout: str) -> None:
    assert scan.layout == layout
    assert not scan.problems


def test_ids_are_unique_sorted_and_safe_as_file_names(scan: Scan) -> None:
    ids = [case.id for case in scan.cases]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"[\w.-]+", name) for name in ids)


def test_cases_are_grouped_by_patient(scan: Scan) -> None:
    assert len({case.patient for case in scan.cases}) == 2


def test_images_and_masks_share_a_grid_and_labels_are_declared(scan: Scan, layout: str) -> None:
    for case in scan.cases:
        assert set(case.images) <= set(DATASETS[layout].channels)
        image = io.read_channels(case.images)
        assert image.array.shape[0] == len(case.images)
        assert case.masks
        for ref in case.masks:
            mask = io.read(ref)
            check_same_grid({"image": image, "mask": mask})
            assert set(np.unique(mask.array)) <= {0, *case.labels}


def test_inspecting_it_finds_tumour_and_nothing_wrong(scan: Scan, layout: str, tmp_path: Path) -> None:
    found = inspect_dataset(tmp_path, workers=1)
    assert (found.layout, found.case_count, found.patient_count) == (layout, len(scan.cases), 2)
    # the last reader of the tiny LIDC set saw nothing, which is told and is no error
    assert {problem.kind for problem in found.problems} <= {"fewer-readers", "empty-mask"}
