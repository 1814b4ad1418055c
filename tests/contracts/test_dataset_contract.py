"""What every layout promises about voxels: image and mask belong together and can be prepared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oncoseg import io
from oncoseg.datasets import DATASETS, open_dataset
from oncoseg.datasets.base import Case
from oncoseg.inspect import inspect_dataset
from oncoseg.phantom import PHANTOMS
from oncoseg.prepare import Settings, prepare
from oncoseg.recipe import Modality, Preparation
from oncoseg.transforms import merge_labels
from oncoseg.volume import check_same_grid
from tiny import brats_case, lidc_nodule

TUMOUR_FROM = 0.6
"""The tiny data's tumours are brighter than this share of the range, and nothing else is."""


def make_brats(root: Path) -> None:
    for number in range(3):
        brats_case(root, number)


def make_lidc(root: Path) -> None:
    for patient, nodule in [(1, 0), (1, 1), (2, 0)]:
        lidc_nodule(root, patient, nodule, slices=12)  # slice-10 must come after slice-2


def make_lgg(root: Path) -> None:
    rng = np.random.default_rng(0)
    for patient, date in [
        ("TCGA_CS_0001", "19990101"),
        ("TCGA_CS_0001", "20000101"),
        ("TCGA_HT_0002", "19990101"),
    ]:
        name = f"{patient}_{date}"
        (root / name).mkdir(parents=True)
        for number in range(1, 13):
            mask = np.zeros((16, 16), np.uint8)
            row, column = rng.integers(0, 12, 2)
            mask[row : row + 4, column : column + 4] = 255 * (number > 2)
            image = (rng.integers(0, 60, (16, 16, 3)) + 180 * (mask > 0)[..., None]).astype(np.uint8)
            Image.fromarray(image).save(root / name / f"{name}_{number}.tif")
            Image.fromarray(mask).save(root / name / f"{name}_{number}_mask.tif")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "brats": make_brats,
    "lidc_slices": make_lidc,
    "lgg": make_lgg,
}
"""A new layout needs a line here, with tumours brighter than everything else."""

PHANTOM_LAYOUTS = {"brain-mri": "brats", "lung-ct": "lidc_slices"}


@pytest.fixture(scope="module", params=DATASETS)
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    root = tmp_path_factory.mktemp(request.param)
    BUILDERS[request.param](root)
    scan = open_dataset(root)
    assert scan.layout == request.param
    return scan.cases


def test_ids_are_unique_and_safe_and_patients_group(cases: tuple[Case, ...]) -> None:
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids) == 3
    assert ids == sorted(ids)
    assert all(
        set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for one in ids
    )
    assert all(case.id.startswith(case.patient) for case in cases)
    assert len({case.patient for case in cases}) in (2, 3)


def test_images_and_masks_share_a_grid_and_belong_together(cases: tuple[Case, ...]) -> None:
    for case in cases:
        images = io.read_channels(case.images)
        for ref in case.masks:
            check_same_grid({"images": images, "mask": io.read(ref)})
        mask = merge_labels(io.read(case.masks[0]).array[0], case.labels, {"tumour": ("*",)})
        for channel in images.array:
            bright = channel > TUMOUR_FROM * channel.max()
            np.testing.assert_array_equal(bright, mask > 0)


def test_reading_twice_gives_the_same(cases: tuple[Case, ...]) -> None:
    case = cases[0]
    for ref in (*case.images.values(), *case.masks):
        np.testing.assert_array_equal(io.read(ref).array, io.read(ref).array)


def test_every_case_can_be_prepared(cases: tuple[Case, ...], tmp_path: Path) -> None:
    modality = Modality(channels=tuple(cases[0].images))
    settings = Settings.of(modality, {"tumour": ("*",)}, Preparation(slice_size=(16, 16)))
    for prepared in prepare(cases, settings, tmp_path, workers=0):
        images, masks = prepared.read(0, len(prepared))
        assert images.shape == (len(prepared), len(modality.channels), 16, 16)
        assert 0 < prepared.tumour_pixels.sum() == (masks > 0).sum()
        filled = (masks > 0).flatten(1).any(1)
        inside = (images[:, 0] * masks).flatten(1).sum(1)[filled] / masks.flatten(1).sum(1)[filled]
        outside = (images[:, 0] * (1 - masks)).flatten(1).mean(1)[filled]
        assert (inside > outside + 0.3).all()


@pytest.mark.parametrize("name", DATASETS)
def test_inspecting_finds_tumour_and_nothing_wrong(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    found = inspect_dataset(tmp_path, workers=1)
    assert (found.layout, found.case_count) == (name, 3)
    # the last reader of the tiny LIDC set saw nothing, which is told and is no error
    assert {problem.kind for problem in found.problems} <= {"fewer-readers", "empty-mask"}


@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms_are_read_in_their_own_layout(kind: str, tmp_path: Path) -> None:
    PHANTOMS[kind](tmp_path / "out", 1, 0)
    scan = open_dataset(tmp_path / "out")
    assert scan.layout == PHANTOM_LAYOUTS[kind]
    assert not scan.problems
    for case in scan.cases:
        volume = io.read_channels(case.images)
        assert np.isfinite(volume.array).all()
        masks = [merge_labels(io.read(ref).array[0], case.labels, {"tumour": ("*",)}) for ref in case.masks]
        assert any(mask.any() for mask in masks)
        assert all(mask.shape == volume.grid for mask in masks)
