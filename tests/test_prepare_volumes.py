"""Preparing volumes: on the wanted grid, scaled as one, and never twice."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from oncoseg import prepare as preparing
from oncoseg.batches import Batches
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RecipeError
from oncoseg.io import ImageRef
from oncoseg.predict2d import predict_slabs
from oncoseg.prepare import Settings, prepare
from oncoseg.recipe import Modality, Preparation
from oncoseg.resampling import resample_labels, resample_volume
from oncoseg.slabs import open_source
from oncoseg.store import Prepared, PreparedCase
from oncoseg.volume_store import PreparedVolume
from tiny import MRI_GRID, brats_case, lidc_nodule

HALF = 2**-11
"""Relative rounding of float16."""

WINDOW = Settings.of(
    Modality(channels=("CT",), scaling="window", window=(0.0, 1000.0)),
    {"tumour": ("*",)},
    Preparation(spatial_dims=3, spacing_mm=(1.5, 1.0, 2.0), patch=(4, 4, 4)),
    accept_implausible=True,
)


def case_of(
    folder: Path, affine: np.ndarray, grid: tuple[int, int, int] = (12, 10, 40)
) -> tuple[Case, np.ndarray, np.ndarray]:
    """One image with a block of tumour."""
    folder.mkdir(exist_ok=True)
    voxels = np.random.default_rng(0).integers(0, 1200, grid).astype(np.int16)
    labels = np.zeros(grid, np.uint8)
    labels[2:8, 3:7, 10:20] = 1
    for name, array in (("image", voxels), ("mask", labels)):
        nib.Nifti1Image(array, affine).to_filename(folder / f"{name}.nii.gz")
    images = {"CT": ImageRef((folder / "image.nii.gz",))}
    case = Case("a", "A", images, (ImageRef((folder / "mask.nii.gz",)),), {1: "tumour"})
    return case, voxels, labels


def whole(case: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """All of a volume as one window."""
    assert isinstance(case, PreparedVolume)
    images, masks = replace(case, patch=case.shape).example((0, 0, 0))
    return images[0].numpy(), masks[0].numpy()


def test_a_volume_is_scaled_and_resampled_on_canonical_axes(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    case, voxels, labels = case_of(tmp_path / "ras", affine)
    [prepared] = prepare([case], WINDOW, tmp_path / "store", workers=0)
    image, mask = whole(prepared)
    scaled = np.clip(voxels / 1000, 0, 1)[None].astype(np.float32)
    np.testing.assert_allclose(image, resample_volume(scaled, (8, 10, 20)), rtol=HALF, atol=1e-6)
    assert np.array_equal(mask, resample_labels(labels, 1, (8, 10, 20)))
    assert prepared.tumour_pixels.tolist() == np.count_nonzero(mask, axis=(0, 1)).tolist()
    # the same patient stored from head to feet and from left to right, as a DICOM series is
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    turned[:3, 3] = [11, 0, 39]
    other, *_ = case_of(tmp_path / "lps", turned)
    for name, array in (("image", voxels), ("mask", labels)):
        flipped = np.flip(array, (0, 2))
        nib.Nifti1Image(flipped, turned).to_filename(tmp_path / "lps" / f"{name}.nii.gz")
    [again] = prepare([other], WINDOW, tmp_path / "store", workers=0)
    assert again.folder != prepared.folder
    for one, two in zip(whole(again), (image, mask), strict=True):
        assert np.array_equal(one, two)


def test_slabs_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, *_ = case_of(tmp_path / "data", np.diag([1.0, 1.0, 1.7, 1.0]))
    [one] = prepare([case], WINDOW, tmp_path / "one", workers=0)
    monkeypatch.setattr(preparing, "SLAB", 3)
    [other] = prepare([case], WINDOW, tmp_path / "other", workers=0)
    for ours, theirs in zip(whole(one), whole(other), strict=True):
        assert np.array_equal(ours, theirs)


def test_each_channel_has_a_range_of_its_own_and_zeros_stay(tmp_path: Path) -> None:
    for number in range(2):
        brats_case(tmp_path / "data", number)
    settings = Settings.of(
        Modality(
            channels=("T1", "T2", "T1"),
            scaling="volume-percentile",
            percentiles=(0, 100),
            missing="substitute",
            substitutes={"T2": "zeros"},
        ),
        {"tumour": ("*",)},
        Preparation(spatial_dims=3, spacing_mm=(1.0, 1.0, 1.0), patch=(4, 4, 4)),
    )
    case = open_dataset(tmp_path / "data").cases[0]
    without = replace(case, images={name: ref for name, ref in case.images.items() if name != "T2"})
    [prepared] = prepare([without], settings, tmp_path / "store", workers=0)
    image, _ = whole(prepared)
    voxels = np.asarray(nib.load(next((tmp_path / "data").glob("*/*0_t1.nii.gz"))).dataobj).astype(float)
    low, high = voxels[voxels > 0].min(), voxels.max()
    expected = np.where(voxels == 0, 0, (voxels - low) / (high - low))
    assert image.shape == (3, *MRI_GRID)
    np.testing.assert_allclose(image[0], expected, rtol=HALF, atol=1e-6)
    assert np.array_equal(image[2], image[0])
    assert not image[1].any()


def test_all_that_decides_the_content_decides_the_key(tmp_path: Path) -> None:
    case, *_ = case_of(tmp_path / "data", np.eye(4))
    percentile = replace(WINDOW, scaling="volume-percentile")
    different = [
        WINDOW,
        replace(WINDOW, spacing_mm=(1.5, 1.0, 2.5)),
        replace(WINDOW, window=(0.0, 900.0)),
        percentile,
        replace(percentile, percentiles=(1.0, 99.0)),
        replace(percentile, scaling_over="all"),
        replace(WINDOW, scaling="volume-zscore"),
        replace(WINDOW, spacing_mm=None),
    ]
    same = [
        replace(WINDOW, patch=(8, 8, 8)),
        replace(WINDOW, size=(64, 64)),
        replace(WINDOW, percentiles=(1, 2)),
    ]
    hashes = preparing.FileHashes(tmp_path)
    keys = [settings.key(case, hashes) for settings in different]
    assert len(set(keys)) == len(different)
    assert {settings.key(case, hashes) for settings in same} == {keys[0]}


def test_what_is_done_is_not_done_again_and_damage_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, *_ = case_of(tmp_path / "data", np.eye(4))
    [prepared] = prepare([case], WINDOW, tmp_path / "store", workers=0)
    before = whole(prepared)
    file = prepared.folder / "mask.b2nd"
    file.write_bytes(file.read_bytes()[:-3])
    [mended] = prepare([case], WINDOW, tmp_path / "store", workers=0)
    assert all(np.array_equal(*pair) for pair in zip(before, whole(mended), strict=True))
    monkeypatch.setattr(preparing, "build_case", None)
    prepare([case], WINDOW, tmp_path / "store", workers=0)


def test_images_without_a_voxel_size_are_refused(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "data", 0)
    cases = open_dataset(tmp_path / "data").cases
    with pytest.raises(DataError, match="hold no voxel size"):
        prepare(cases, WINDOW, tmp_path / "store", workers=0)


def test_voxels_must_be_planned() -> None:
    with pytest.raises(RecipeError, match=r"needs preparation\.spacing_mm"):
        Settings.of(Modality(channels=("CT",)), {"tumour": ("*",)}, Preparation(spatial_dims=3))


@pytest.mark.parametrize("scaling", ["volume-percentile", "volume-zscore"])
def test_slices_may_be_scaled_by_their_volume(tmp_path: Path, scaling: str) -> None:
    """What training and prediction see is the same; of a reversed, rotated grid, too."""
    affine = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    case, voxels, _ = case_of(tmp_path / "data", affine)
    settings = replace(WINDOW, spacing_mm=None, size=(40, 40), scaling=scaling)
    [prepared] = prepare([case], settings, tmp_path / "store", workers=0)
    assert isinstance(prepared, PreparedCase)
    images, _ = prepared.read(0, len(prepared))
    values = voxels[voxels != 0].astype(float)
    low, high = np.percentile(values, settings.percentiles)
    if scaling == "volume-zscore":
        low, high = values.mean() - 5 * values.std(), values.mean() + 5 * values.std()
    scaled = np.clip((voxels - low) / (high - low), 0, 1) * (voxels != 0)
    # 40 along i, 12 along j, which is padded to a square, 10 from head to feet
    expected = np.flip(scaled.transpose(2, 0, 1), (1, 2))
    np.testing.assert_allclose(images[:, 0, :, 14:26].permute(1, 2, 0), expected, rtol=HALF, atol=1e-6)
    seen: list[torch.Tensor] = []

    def network(slices: torch.Tensor) -> torch.Tensor:
        seen.append(slices)
        return torch.zeros(len(slices), 1, 40, 40)

    with open_source(case, ["CT"]) as source:
        for _ in predict_slabs(
            source, settings, network, 1, Batches(4, torch.device("cpu")), lambda *_: None
        ):
            pass
    assert torch.equal(torch.cat(seen).half().float(), images)


def test_over_which_voxels_a_volume_of_slices_is_scaled_decides_its_key(tmp_path: Path) -> None:
    case, *_ = case_of(tmp_path / "data", np.eye(4))
    hashes = preparing.FileHashes(tmp_path)
    slices = replace(WINDOW, spacing_mm=None)
    zscore = replace(slices, scaling="volume-zscore")
    assert zscore.key(case, hashes) != replace(zscore, scaling_over="all").key(case, hashes)
    assert slices.key(case, hashes) == replace(slices, scaling_over="all").key(case, hashes)
