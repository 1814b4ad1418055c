"""Prediction in 3D with networks that mark what is bright: where it lands, and what is computed."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dicom_files import OBLIQUE
from marker import ROTATIONS, TENTH, Grid
from oncoseg import predict, predict3d, prepare, scratch
from oncoseg.datasets import open_dataset
from oncoseg.ensemble import mirrors
from oncoseg.errors import DataError, RunError
from oncoseg.inputs import find_jobs
from oncoseg.predict import Predictor
from oncoseg.recipe import Recipe
from oncoseg.slabs import open_source
from oncoseg.store import PreparedCase
from test_predict import AIR, METAL, Broken, oriented, write_marked
from test_predict_for_evaluation import TwoClasses
from test_slabs import asked_of_readers
from test_volume import affines
from tiny import brats_case, lidc_nodule, tiny_recipe

TWENTIETH = 0.05
"""Of a voxel: how far resampling there and back may move a centroid."""


def volumes(modality: str = "ct", **changes: Any) -> Recipe:
    """A recipe in 3D for one modality."""
    chosen = {
        "preparation.spatial_dims": 3,
        "preparation.spacing_mm": [1, 1, 1],
        "preparation.patch": [12, 12, 12],
        f"modalities.{modality}.scaling": "window",
        f"modalities.{modality}.window": [AIR, METAL],
    }
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return tiny_recipe().with_only([modality]).with_changes(chosen | fields)


class Bright3d(nn.Module):
    """Logit 100 · (last channel − 0.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.ndim == 5
        self.windows += [tuple(images.shape[2:])] * len(images)
        return 100 * (images[:, -1:] - 0.5)


class Brightness(nn.Module):
    """Probability = last channel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.logit(images[:, -1:].double(), eps=1e-6).float()


def bright(network: nn.Module | None = None, **changes: Any) -> Predictor:
    return Predictor(volumes(**changes), network or Bright3d(), "weights")


def spacing_along_ras(affine: np.ndarray) -> list[float]:
    """Voxel size along the axes nearest to right, anterior, superior."""
    found = nib.as_closest_canonical(nib.Nifti1Image(np.zeros((2, 2, 2), np.int8), affine))
    return [float(size) for size in found.header.get_zooms()]


@pytest.mark.parametrize("number", range(48))
def test_a_mask_is_the_very_marker(tmp_path: Path, number: int) -> None:
    affine = oriented(number)
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    predictor = bright(preparation__spacing_mm=spacing_along_ras(affine))
    (written,) = predictor.predict([source], tmp_path / "out", modality="ct")
    result = nib.load(written)
    assert np.abs(result.affine - nib.load(source).affine).max() < 1e-6
    assert np.array_equal(np.asarray(result.dataobj) == 1, block)
    assert len(set(predictor.networks[0].windows)) == 1


@pytest.mark.parametrize("number", range(48))
def test_a_mask_lies_where_the_marker_is_after_resampling(tmp_path: Path, number: int) -> None:
    affine = oriented(number)
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    (written,) = bright(preparation__spacing_mm=[0.45, 0.7, 0.6]).predict(
        [source], tmp_path / "out", modality="ct"
    )
    mask = np.asarray(nib.load(written).dataobj) == 1
    assert mask.shape == block.shape
    assert np.abs(np.argwhere(mask).mean(axis=0) - np.argwhere(block).mean(axis=0)).max() < TENTH


@pytest.mark.parametrize("number", range(48))
def test_coarser_voxels_move_no_probability(tmp_path: Path, number: int) -> None:
    affine = oriented(number)
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    bright(Brightness(), preparation__spacing_mm=[1.3, 0.7, 1.7]).predict(
        [source], tmp_path / "out", modality="ct", probabilities=True
    )
    probability = nib.load(tmp_path / "out" / "ct_probability.nii.gz").get_fdata()
    probability[probability < 1e-4] = 0
    found = np.average(np.argwhere(probability), axis=0, weights=probability[probability > 0])
    assert np.abs(found - np.argwhere(block).mean(axis=0)).max() < TWENTIETH
    assert probability.sum() == pytest.approx(block.sum(), rel=0.05)


@given(affines, st.tuples(*[st.integers(6, 26)] * 3), st.sampled_from([".nii", ".nii.gz"]), st.data())
@settings(max_examples=25)
def test_a_marker_is_found_on_any_oblique_grid(
    affine: np.ndarray, grid: tuple[int, int, int], suffix: str, data: st.DataObject
) -> None:
    corner = [data.draw(st.integers(0, n - 5)) for n in grid]
    marker = np.zeros(grid, bool)
    marker[tuple(slice(c, c + 5) for c in corner)] = True
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"ct{suffix}"
        nib.Nifti1Image(np.where(marker, METAL, AIR).astype(np.int16), affine).to_filename(source)
        predictor = bright(preparation__spacing_mm=_exact_spacing(source))
        (written,) = predictor.predict([source], Path(folder) / "out", modality="ct")
        result, original = nib.load(written), nib.load(source)
        assert np.abs(result.affine - original.affine).max() < 1e-6
        assert np.array_equal(np.asarray(result.dataobj) == 1, marker)


def _exact_spacing(source: Path) -> list[float]:
    """Of the source's canonical grid, which is then not resampled."""
    from oncoseg import io
    from oncoseg.io import image_ref
    from oncoseg.volume import to_canonical

    return list(to_canonical(io.read_grid(image_ref(source)))[0].spacing_mm)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.1, 2.7, 3.9), (0.9, 0.8, 5.2)])
@pytest.mark.parametrize(
    "cosines",
    [ROTATIONS[0], ROTATIONS[13], ROTATIONS[22], OBLIQUE],
    ids=["axial", "coronal", "sagittal", "oblique"],
)
def test_resampling_moves_nothing(
    tmp_path: Path, cosines: tuple[float, ...], spacing_mm: tuple[float, ...]
) -> None:
    grid = Grid(cosines)
    recipe = volumes(preparation__spacing_mm=list(spacing_mm), preparation__patch=[14, 11, 13])
    Predictor(recipe, Brightness()).predict(
        [grid.write(tmp_path / "ct")],
        tmp_path / "out",
        modality="ct",
        probabilities=True,
        accept_implausible=True,
    )
    (path,) = (tmp_path / "out").glob("*_probability.nii.gz")
    image = nib.load(path)
    probability = np.where(image.get_fdata() > 1e-4, image.get_fdata(), 0)
    places = nib.affines.apply_affine(image.affine, np.argwhere(probability)) * [-1, -1, 1]
    centroid = np.average(places, axis=0, weights=probability[probability > 0])
    away = np.linalg.solve(grid.steps_lps, centroid - grid.marked_mm.mean(axis=0))
    assert np.abs(away).max() < TWENTIETH
    assert probability.sum() == pytest.approx(grid.marked.sum(), rel=0.03)


def test_windows_see_what_training_sees(tmp_path: Path) -> None:
    """What is computed is the store's volume, here of turned, anisotropic images scaled by percentiles."""
    brats_case(tmp_path / "mri", 4, affine=oriented(37), grid=(14, 10, 9))
    case = open_dataset(tmp_path / "mri").cases[0]
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.clone())
            return images[:, :1]

    recipe = volumes(
        "mri",
        modalities__mri__scaling="volume-percentile",
        preparation__spacing_mm=[0.9, 1.4, 2],
        preparation__patch=[64, 64, 64],
    )
    predictor = Predictor(recipe, Watching())
    predictor.predict_case(case, "mri")
    (prepared,) = prepare.prepare([case], predictor.settings["mri"], tmp_path / "store", workers=0)
    assert not isinstance(prepared, PreparedCase)
    image, _ = prepared.example((0, 0, 0))
    (window,) = seen
    assert window.shape == (1, 4, 64, 64, 64)
    edges = [(64 - size) // 2 for size in prepared.shape]
    inner = tuple(slice(edge, edge + size) for edge, size in zip(edges, prepared.shape, strict=True))
    stored = tuple(slice(0, size) for size in prepared.shape)
    assert torch.equal(window[(..., *inner)], image[(..., *stored)])
    assert window.sum().item() == pytest.approx(image.sum().item(), rel=1e-5)


def test_prediction_does_not_depend_on_the_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marked(tmp_path / "a.nii.gz", oriented(21))
    changes = {"preparation__spacing_mm": [1.3, 0.7, 1.7]}
    whole = bright(**changes).predict([tmp_path / "a.nii.gz"], tmp_path / "whole", modality="ct")
    monkeypatch.setattr(predict3d, "SLAB", 3)
    parts = bright(**changes).predict([tmp_path / "a.nii.gz"], tmp_path / "parts", modality="ct")
    assert whole[0].read_bytes() == parts[0].read_bytes()


@pytest.mark.parametrize("number", [0, 5])
def test_every_slice_is_read_once_and_forwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A gzip file is unpacked once, also where it runs from head to feet."""
    affine = np.diag([1, 1, 1 if number else -1, 1])
    write_marked(tmp_path / "a.nii.gz", affine, shape=(20, 24, 50))
    monkeypatch.setattr(predict3d, "SLAB", 10)
    asked = asked_of_readers(monkeypatch)
    bright().predict([tmp_path / "a.nii.gz"], tmp_path / "out", modality="ct")
    reading = [one for one in asked if one[-1] - one[-2] > 1]
    assert reading == sorted(reading)
    assert sum(one[-1] - one[-2] for one in reading) == 50


def test_flips_change_nothing_for_a_network_without_direction(tmp_path: Path) -> None:
    write_marked(tmp_path / "a.nii", oriented(2))
    plain, flipped = bright(), bright(prediction__flips=True)
    one = plain.predict([tmp_path / "a.nii"], tmp_path / "one", modality="ct", probabilities=True)
    eight = flipped.predict([tmp_path / "a.nii"], tmp_path / "eight", modality="ct", probabilities=True)
    assert one[0].read_bytes() == eight[0].read_bytes()
    assert len(flipped.networks[0].windows) == 8 * len(plain.networks[0].windows)
    values = [nib.load(tmp_path / name / "a_probability.nii.gz").get_fdata() for name in ("one", "eight")]
    np.testing.assert_allclose(*values, atol=1e-6)


def test_overlap_and_patch_are_the_recipes(tmp_path: Path) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    counts = {}
    for overlap in (0, 0.5, 0.75):
        predictor = bright(prediction__overlap=overlap, modalities__ct__window=[AIR - 100, METAL])
        predictor.predict([tmp_path / "a.nii"], tmp_path / f"{overlap}", modality="ct")
        counts[overlap] = len(predictor.networks[0].windows)
        assert set(predictor.networks[0].windows) == {(12, 12, 12)}
    # 20 × 24 × 16 voxels: 2 × 2 × 2 windows side by side; 8 voxels in steps of 6 are two, of 3 three
    assert counts == {0: 2 * 2 * 2, 0.5: 3 * 3 * 2, 0.75: 4 * 5 * 3}


def test_each_class_of_several_lies_on_the_truths_grid(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4, affine=oriented(37))
    case = open_dataset(tmp_path / "mri").cases[0]
    recipe = volumes(
        "mri",
        classes={"rest": ["oedema", "necrotic core"], "enhancing": ["enhancing tumour"]},
        modalities__mri__window=[0, 1000],
        preparation__spacing_mm=spacing_along_ras(oriented(37)),
    )
    found = Predictor(recipe, TwoClasses(), "weights").predict_case(case, "mri")
    assert found.classes is not None
    assert found.classes.probability.shape == (2, *found.truth.shape)
    np.testing.assert_array_equal(found.classes.probability.max(axis=0), found.probability)
    first, second = found.classes.probability
    assert first[found.truth].mean() > 0.7 > 0.3 > second[found.truth].mean()
    assert (found.image.min(), found.image.max()) == (0, 1)


class Certain(nn.Module):
    """Probability 1 everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, -1:], 100)


def test_certainty_is_one_and_no_more(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 1, grid=(37, 41, 45))
    fine = {"preparation__spacing_mm": [0.7, 1.3, 0.9], "prediction__overlap": 0.3}
    case = open_dataset(tmp_path / "mri").cases[0]
    found = bright(Certain(), modality="mri", **fine).predict_case(case, "mri")
    assert found.probability.max() == 1
    assert found.probability.min() > 0.999


def test_what_an_evaluation_needs_lies_beside_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brats_case(tmp_path / "mri", 1)
    folders = []

    def watched(folder: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        folders.append(folder)
        return scratch.scratch_array(folder, shape, dtype)

    for module in (predict, predict3d):
        monkeypatch.setattr(module, "scratch_array", watched)
    case = open_dataset(tmp_path / "mri").cases[0]
    found = bright(modality="mri").predict_case(case, "mri", tmp_path)
    # image and probability here, and the source's copy in `predict3d`
    assert folders == [tmp_path] * 3
    for held in (found.image, found.probability):
        while not isinstance(held, np.memmap):
            assert held.base is not None
            held = held.base


def test_probabilities_are_written(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    predictor = Predictor(volumes("mri", modalities__mri__window=[0, 1000]), Bright3d(), "weights")
    masks = predictor.predict([folder], tmp_path / "out", probabilities=True)
    probability = nib.load(tmp_path / "out" / "BraTS2021_00001_probability.nii.gz").get_fdata()
    mask = np.asarray(nib.load(masks[0]).dataobj)
    truth = np.asarray(nib.load(folder / "BraTS2021_00001_seg.nii.gz").dataobj) > 0
    assert ((probability >= 0.5) == (mask == 1)).all()
    assert np.array_equal(mask == 1, truth)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["prediction"]["overlap"] == 0.5


def test_progress_counts_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marked(tmp_path / "a.nii.gz", np.eye(4))
    monkeypatch.setattr(predict3d, "SLAB", 5)
    seen: list[tuple[int, int]] = []
    bright().predict(
        [tmp_path / "a.nii.gz"], tmp_path / "out", modality="ct", progress=lambda *at: seen.append(at)
    )
    assert seen == [(5, 16), (10, 16), (15, 16), (16, 16)]


def test_a_constant_channel_leaves_no_mask(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    flat = np.full((14, 10, 4), 7, np.int16)
    nib.Nifti1Image(flat, np.eye(4)).to_filename(folder / "BraTS2021_00001_t2.nii.gz")
    predictor = Predictor(volumes("mri"), Bright3d())
    with pytest.raises(DataError, match="Channel T2 is constant"):
        predictor.predict([folder], tmp_path / "out", probabilities=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]
    assert not predictor.networks[0].windows, "nothing was computed for it"


def test_images_without_a_voxel_size_are_refused(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 3)
    with pytest.raises(DataError, match="hold no voxel size"):
        bright().predict([tmp_path / "ct"], tmp_path / "out", accept_implausible=True)


def test_a_network_that_gives_no_numbers_leaves_no_mask(tmp_path: Path) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    with pytest.raises(RunError, match="output is NaN or infinite"):
        bright(Broken(torch.nan)).predict([tmp_path / "a.nii"], tmp_path / "out", modality="ct")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


def test_mirrors_are_all_combinations_of_axes() -> None:
    assert sorted(mirrors(2), key=len) == [(), (-1,), (-2,), (-1, -2)]
    assert len(set(mirrors(3))) == 8
    assert mirrors(3)[0] == ()


def test_a_disk_without_room_for_the_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    write_marked(tmp_path / "ct.nii", np.eye(4))  # 20 × 24 × 16 voxels: a byte of the mask, two of the copy
    inputs, needed = [tmp_path / "ct.nii"], 20 * 24 * 16 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed))
    assert bright().predict(inputs, tmp_path / "out", modality="ct", foretell=str)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed - 1))
    with pytest.raises(RunError, match="The longest image will take"):
        bright().predict(inputs, tmp_path / "none", modality="ct", foretell=str)


def test_what_is_foretold_holds_a_layer_of_windows(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", np.eye(4))
    predictor, covered = bright(), predict3d.Windows((12, 12, 12), 0.5, 1)
    (job,) = find_jobs([tmp_path / "ct.nii"], predictor.recipe, "ct")
    with open_source(job.case, ["CT"] * 4) as source:
        taken = predict3d.layer_bytes(source, predictor.settings["ct"], 2, covered)
        assert predict3d.scratch_bytes(source) == 20 * 24 * 16 * 2
    layer, slab = 20 * 24 * 12, 20 * 24 * 32
    assert taken == 4 * ((2 * 3 + 4) * layer + 2 * 3 * slab)


def test_a_line_says_beforehand_what_predicting_will_take(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", np.eye(4))
    said: list[str] = []
    bright().predict([tmp_path / "ct.nii"], tmp_path / "out", modality="ct", foretell=said.append)
    (line,) = said
    assert "GiB of memory" in line
