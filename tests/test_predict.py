"""Prediction with a network that marks what is bright, so that where the mask lands can be checked."""

import json
import re
import shutil
import tempfile
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from oncoseg import predict, predict2d, prediction_record
from oncoseg import prepare as preparing
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RunError
from oncoseg.predict import Predictor
from oncoseg.run_folder import RunFolder
from oncoseg.shares import RULE
from oncoseg.train import train
from runs import replace_weights
from test_slabs import asked_of_readers
from test_volume import affines
from tiny import brats_case, lidc_nodule, tiny_data, tiny_recipe

AIR, METAL = -1000, 1000
"""Hounsfield units of a marked image's ground and block."""


class Bright(nn.Module):
    """Logit 100 · (last channel − 0.5): tumour is what is brighter than the middle of the range."""

    def __init__(self) -> None:
        super().__init__()
        self.slices_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.slices_seen += len(images)
        return 100 * (images[:, -1:] - 0.5)


def bright(**changes: object) -> Predictor:
    fixed = {"preparation__slice_size": [32, 32], "modalities__ct__scaling": "window"}
    window = {"modalities__ct__window": [AIR, METAL]}
    return Predictor(tiny_recipe(**fixed | window | changes), Bright(), "weights")


def oriented(number: int) -> np.ndarray:
    """One of the 48 ways to lay axes along the patient, with uneven spacing and an offset."""
    order = list(permutations(range(3)))[number // 8]
    signs = list(product((1, -1), repeat=3))[number % 8]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign * (0.8, 1.1, 2.5)[axis]
    affine[:3, 3] = (-12.5, 31.25, 7.75)
    return affine


def write_marked(path: Path, affine: np.ndarray, shape: tuple[int, int, int] = (20, 24, 16)) -> np.ndarray:
    """A dark image with a bright block off centre. Gives the block."""
    block = np.zeros(shape, bool)
    block[4:10, 13:19, 3:9] = True
    voxels = np.where(block, METAL, AIR).astype(np.int16)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_qform(affine, code=1)
    image.header.set_sform(affine, code=4)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    return block


def centroid_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask).mean(axis=0))


@pytest.mark.parametrize("number", range(48))
def test_a_mask_lies_where_the_marker_is(tmp_path: Path, number: int) -> None:
    affine = oriented(number)
    source = tmp_path / "ct.nii"
    block = write_marked(source, affine)
    (written,) = bright().predict([source], tmp_path / "out", modality="ct")
    result, original = nib.load(written), nib.load(source)
    assert result.shape == original.shape
    assert np.abs(result.affine - original.affine).max() < 1e-6
    mask = np.asarray(result.dataobj) == 1
    # a tenth of the finest voxel
    assert np.abs(centroid_mm(mask, affine) - centroid_mm(block, affine)).max() < 0.25
    assert 0.6 < mask.sum() / block.sum() < 1.5


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
        (written,) = bright().predict([source], Path(folder) / "out", modality="ct")
        result, original = nib.load(written), nib.load(source)
        assert result.shape == grid
        assert np.abs(result.affine - original.affine).max() < 1e-6
        mask = np.asarray(result.dataobj) == 1
    # to within half of a voxel, along each of the source's axes
    assert np.abs(np.argwhere(mask).mean(axis=0) - np.argwhere(marker).mean(axis=0)).max() < 0.5


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_header_codes_are_kept(tmp_path: Path, suffix: str) -> None:
    angle = np.radians(17)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    source = tmp_path / f"scan{suffix}"
    block = write_marked(source, oblique)
    (written,) = bright().predict([source], tmp_path / "out", modality="ct")
    header = nib.load(written).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header.get_data_dtype() == np.uint8
    assert centroid_mm(np.asarray(nib.load(written).dataobj), oblique) == pytest.approx(
        centroid_mm(block, oblique), abs=0.2
    )


def test_a_case_of_four_sequences_and_its_probabilities(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    masks = bright().predict([folder], tmp_path / "out", probabilities=True)
    assert [path.name for path in masks] == ["BraTS2021_00001.nii.gz"]
    probability = nib.load(tmp_path / "out" / "BraTS2021_00001_probability.nii.gz").get_fdata()
    mask = np.asarray(nib.load(masks[0]).dataobj)
    assert ((probability >= 0.5) == (mask == 1)).all()
    truth = np.asarray(nib.load(folder / "BraTS2021_00001_seg.nii.gz").dataobj) > 0
    assert (mask[truth] == 1).mean() > 0.7


def test_a_stack_of_images_is_predicted_on_its_pixels(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 3)
    predictor = bright(preparation__slice_size=[16, 16], modalities__ct__window=[0, 255])
    (written,) = predictor.predict([tmp_path / "ct"], tmp_path / "out", accept_implausible=True)
    case = open_dataset(tmp_path / "ct").cases[0]
    mask = np.asarray(nib.load(written).dataobj)
    for k, path in enumerate(case.masks[0].files):
        # array axes are column, row
        assert ((np.asarray(Image.open(path)) > 0) == mask[..., k].T).mean() == 1


def test_prediction_does_not_depend_on_the_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marked(tmp_path / "a.nii.gz", oriented(21))
    whole = bright().predict([tmp_path / "a.nii.gz"], tmp_path / "whole", modality="ct")
    monkeypatch.setattr(predict2d, "SLAB", 3)
    parts = bright().predict([tmp_path / "a.nii.gz"], tmp_path / "parts", modality="ct")
    assert whole[0].read_bytes() == parts[0].read_bytes()


class Middle(nn.Module):
    """Sees a slice between its neighbours: bright where the one below is, in its first channel."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 5
        return 100 * (images[:, self.channel : self.channel + 1] - 0.5)


@pytest.mark.parametrize("slab", [1, 3, 32])
@pytest.mark.parametrize("number", [0, 8, 21, 22, 47])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_neighbouring_slices_are_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, suffix: str, slab: int
) -> None:
    """2.5D: a network that looks at the slice two above, or below, gives the marker two slices further."""
    monkeypatch.setattr(predict2d, "SLAB", slab)
    source = tmp_path / f"ct{suffix}"
    affine = oriented(number)
    block = write_marked(source, affine, shape=(16, 16, 16))
    up = nib.as_closest_canonical(nib.Nifti1Image(block.astype(np.uint8), affine)).get_fdata()
    recipe = tiny_recipe(
        preparation__slice_size=[16, 16],
        modalities__ct__scaling="window",
        modalities__ct__window=[AIR, METAL],
    ).with_only(["ct"])
    recipe = recipe.with_changes({"modalities.ct.channels": ["CT"], "preparation.neighbours": 2})
    for channel, steps in ((0, 2), (2, 0), (3, -1), (4, -2)):
        (written,) = Predictor(recipe, Middle(channel), "weights").predict(
            [source], tmp_path / f"{channel}", modality="ct"
        )
        mask = nib.as_closest_canonical(nib.load(written)).get_fdata()
        assert np.array_equal(mask, _moved(up, steps))


def _moved(mask: np.ndarray, steps: int) -> np.ndarray:
    """Up by so many axial slices; the first or last repeats."""
    return mask[..., np.clip(np.arange(mask.shape[2]) - steps, 0, mask.shape[2] - 1)]


def test_flips_change_nothing_for_a_network_without_direction(tmp_path: Path) -> None:
    slices = torch.rand(3, 4, 32, 32)
    plain, flipped = bright(), bright(prediction__flips=True)
    assert torch.allclose(plain.predict_slices(slices), flipped.predict_slices(slices), atol=1e-6)
    assert flipped.networks[0].slices_seen == 4 * plain.networks[0].slices_seen


def test_blank_slices_are_not_computed() -> None:
    predictor = bright()
    slices = torch.zeros(5, 4, 32, 32)
    slices[2] = torch.rand(4, 32, 32)
    probability = predictor.predict_slices(slices)
    assert predictor.networks[0].slices_seen == 1
    assert probability[[0, 1, 3, 4]].eq(0).all()
    assert probability[2].gt(0).any()


class Two(nn.Module):
    """Class 1 grows with the image, class 2 is 0.7 everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        first = torch.logit(images[:, -1:].clamp(1e-4, 1 - 1e-4))
        return torch.cat([first, torch.full_like(first, 0.8473)], dim=1)


def test_a_voxel_gets_the_likeliest_class_from_the_threshold_on(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        classes={"one": ["*"], "two": ["*"]},
        prediction__threshold=0.55,
        preparation__slice_size=[4, 4],
        modalities__ct__scaling="window",
        modalities__ct__window=[AIR, METAL],
    )
    voxels = np.full((4, 4, 2), -200, np.int16)  # 0.4 of the window
    voxels[:2] = 800  # 0.9
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "ct.nii")
    (written,) = Predictor(recipe, Two()).predict(
        [tmp_path / "ct.nii"], tmp_path / "out", probabilities=True, modality="ct"
    )
    mask = np.asarray(nib.load(written).dataobj)
    assert (mask[:2] == 1).all()
    assert (mask[2:] == 2).all()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["ct.nii.gz", "ct_one_probability.nii.gz", "ct_two_probability.nii.gz", "prediction.json"]
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record.pop("labels_by") == RULE
    (tmp_path / "out" / "prediction.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="exists already"):  # begun by another rule
        Predictor(recipe, Two()).predict([tmp_path / "ct.nii"], tmp_path / "out", modality="ct")
    one = nib.load(tmp_path / "out" / "ct_one_probability.nii.gz").get_fdata()
    # odds against background: of the second class 7 to 3, of the first 9 to 1 above and 2 to 3 below
    assert one[:2] == pytest.approx(9 / (1 + 9 + 7 / 3), abs=1e-3)
    assert one[2:] == pytest.approx(2 / 3 / (1 + 2 / 3 + 7 / 3), abs=1e-3)


def test_progress_counts_slices_of_all_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict2d, "SLAB", 3)
    tiny_data(tmp_path, mri=2, ct=0)
    seen: list[tuple[int, int]] = []
    bright().predict([tmp_path / "mri"], tmp_path / "out", progress=lambda *at: seen.append(at))
    assert seen == [(3, 8), (4, 8), (7, 8), (8, 8)]


def test_slices_are_read_a_slab_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by a slab, not by the volume."""
    write_marked(tmp_path / "a.nii.gz", np.eye(4), shape=(20, 24, 50))
    asked = asked_of_readers(monkeypatch)
    largest: list[int] = []
    real = preparing.prepare_slices
    monkeypatch.setattr(
        preparing,
        "prepare_slices",
        lambda voxels, *rest: (largest.append(voxels.nbytes), real(voxels, *rest))[1],
    )
    bright().predict([tmp_path / "a.nii.gz"], tmp_path / "out", modality="ct")
    looked_at, predicted = asked[: predict.LOOKED_AT], asked[predict.LOOKED_AT :]
    assert all(stop - start == 1 for _, _, start, stop in looked_at)
    assert predicted == [("a.nii.gz", 2, 0, 32), ("a.nii.gz", 2, 32, 50)]
    assert largest == [4 * 20 * 24 * 32 * 2, 4 * 20 * 24 * 18 * 2]


def test_the_allocator_is_tuned_for_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[bool] = []
    monkeypatch.setattr(predict.hardware, "tune_allocator", lambda: tuned.append(True))
    bright()
    assert tuned == [True]


def test_what_was_trained_on_a_gpu_can_be_used_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bright(training__device="gpu").device.type == "cpu"


def test_a_constant_channel_leaves_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict2d, "SLAB", 3)
    folder = brats_case(tmp_path / "mri", 1)
    nib.Nifti1Image(np.full((14, 10, 4), 7, np.int16), np.eye(4)).to_filename(
        folder / "BraTS2021_00001_t2.nii.gz"
    )
    with pytest.raises(DataError, match="Case BraTS2021_00001: Channel T2 is constant"):
        bright().predict([folder], tmp_path / "out", probabilities=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]
    (case,) = open_dataset(folder).cases
    with pytest.raises(DataError, match="Case BraTS2021_00001: Channel T2 is constant"):
        bright().predict_case(case, "mri")


class Broken(nn.Module):
    """What becomes of weights whose training diverged."""

    def __init__(self, output: float) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, :1], self.output)


@pytest.mark.parametrize("output", [torch.nan, torch.inf])
def test_a_network_that_gives_no_numbers_leaves_no_mask(tmp_path: Path, output: float) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    with pytest.raises(RunError, match="output is NaN or infinite"):
        Predictor(tiny_recipe(), Broken(output)).predict([folder], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


def test_a_failing_input_keeps_no_other_from_being_predicted(tmp_path: Path) -> None:
    folders = [brats_case(tmp_path / "mri", number) for number in range(5)]
    damaged = folders[1] / "BraTS2021_00001_flair.nii.gz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-40])
    (folders[2] / "BraTS2021_00002_t1.nii.gz").write_bytes(b"no header")
    (folders[3] / "BraTS2021_00003_t2.nii.gz").unlink()
    seen: list[tuple[int, int]] = []
    with pytest.raises(
        DataError, match=r"3 of 5 cases cannot be predicted; the others are in .*out"
    ) as caught:
        bright().predict(
            [tmp_path / "mri"], tmp_path / "out", modality="mri", progress=lambda *at: seen.append(at)
        )
    lines = str(caught.value).splitlines()[1:]
    assert sorted(line.split(":")[0] for line in lines) == [f"  Case BraTS2021_0000{n}" for n in (1, 2, 3)]
    names = {"prediction.json", "BraTS2021_00000.nii.gz", "BraTS2021_00004.nii.gz"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert seen[-1] == (12, 12)
    # once mended, it is computed, and it alone
    damaged.write_bytes(content)
    again = bright()
    again.predict([*folders[:2], folders[4]], tmp_path / "out", modality="mri")
    assert 0 < again.networks[0].slices_seen <= 4


def test_a_failing_input_leaves_no_mask(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    flair = folder / "BraTS2021_00001_flair.nii.gz"
    flair.write_bytes(flair.read_bytes()[:-40])
    with pytest.raises(DataError, match="BraTS2021_00001"):
        bright().predict([folder], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    nib.Nifti1Image(np.ones((5, 5, 5), np.int16), np.eye(4)).to_filename(folder / "BraTS2021_00001_t2.nii.gz")
    with pytest.raises(DataError, match="one grid"):
        bright().predict([folder], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.nii.gz", "does not exist"), ("notes.txt", "suffix"), ("empty", "empty")],
)
def test_unusable_inputs(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        bright().predict([tmp_path / name], tmp_path / "out")


def test_one_image_for_several_channels_is_refused(tmp_path: Path) -> None:
    write_marked(tmp_path / "t1.nii.gz", np.eye(4))
    with pytest.raises(DataError, match="T1, T1ce, T2, FLAIR"):
        bright().predict([tmp_path / "t1.nii.gz"], tmp_path / "out", modality="mri")


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_marked(tmp_path / folder / "ct.nii.gz", np.eye(4))
    with pytest.raises(DataError, match=r"ct\.nii\.gz"):
        bright().predict([tmp_path / "a", tmp_path / "b"], tmp_path / "out", modality="ct")


def test_a_missing_sequence_names_the_way_out(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    (folder / "BraTS2021_00001_t2.nii.gz").unlink()
    with pytest.raises(DataError, match="--modality"):
        bright().predict([folder], tmp_path / "out")
    with pytest.raises(DataError, match="Channel T2 is missing"):
        bright().predict([folder], tmp_path / "out", modality="mri")


def test_substitutes_are_recorded(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    brats_case(tmp_path / "mri", 2)
    (folder / "BraTS2021_00001_t2.nii.gz").unlink()
    predictor = bright(modalities__mri__missing="substitute")
    predictor.predict([tmp_path / "mri"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["substituted"] == {"BraTS2021_00001": {"T2": "FLAIR"}}
    assert prediction_record.substitutions(tmp_path / "out") == record["substituted"]
    cases = open_dataset(tmp_path / "mri").cases
    assert [predictor.predict_case(case, "mri").substituted for case in cases] == [{"T2": "FLAIR"}, {}]
    assert predictor.predict([tmp_path / "mri"], tmp_path / "out")


def test_a_trained_run_predicts_after_loading(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    run = train(tiny_recipe(), data, tmp_path / "run", store=tmp_path / "store", workers=0).run
    masks = Predictor.load(run).predict([data["mri"], data["ct"]], tmp_path / "out")
    assert len(masks) == 8
    assert all(path.is_file() for path in masks)


def test_a_recipe_of_an_immense_network_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    run = train(tiny_recipe(), data, tmp_path / "run", store=tmp_path / "store", workers=0).run
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["network"]["arguments"]["features"] = [1 << 20, 1 << 20]  # 40 TB
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(RunError, match=r"does not fit its recipe \(ValueError\)"):
        Predictor.load(run)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    run = train(tiny_recipe(), data, tmp_path / "run", store=tmp_path / "store", workers=0).run
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="does not hold the weights that metrics"):
        Predictor.load(run)
    replace_weights(RunFolder(run), b"nothing of the kind")
    with pytest.raises(RunError, match="damaged or does not fit"):
        Predictor.load(run)
    with pytest.raises(RunError, match="not a complete run folder"):
        Predictor.load(tmp_path)
    with pytest.raises(RunError, match="nowhere does not exist; expected a run folder"):
        Predictor.load(tmp_path / "nowhere")


def test_a_line_says_beforehand_what_predicting_will_take(tmp_path: Path) -> None:
    write_marked(tmp_path / "ct.nii", np.eye(4))
    said: list[str] = []
    plain = bright().predict([tmp_path / "ct.nii"], tmp_path / "plain", modality="ct")
    told = bright().predict([tmp_path / "ct.nii"], tmp_path / "told", modality="ct", foretell=said.append)
    (line,) = said
    assert re.fullmatch(r"about \d+\.\d GiB of memory, 0 MB of disk, less than a minute", line)
    assert told[0].read_bytes() == plain[0].read_bytes()
    bright().predict([tmp_path / "ct.nii"], tmp_path / "told", modality="ct", foretell=said.append)
    assert len(said) == 1, "all is there already"


def test_a_disk_without_room_for_the_longest_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    write_marked(tmp_path / "ct.nii", np.eye(4))  # 20 × 24 × 16 voxels, a byte and a float each
    predictor = bright()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(20 * 24 * 16 * 5))
    for name, probabilities in (("mask", False), ("both", True)):
        predictor.predict(
            [tmp_path / "ct.nii"], tmp_path / name, modality="ct", probabilities=probabilities, foretell=str
        )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(20 * 24 * 16 * 5 - 1))
    with pytest.raises(RunError, match="The longest image will take about 0 MB, but nothing is free"):
        predictor.predict(
            [tmp_path / "ct.nii"], tmp_path / "none", modality="ct", probabilities=True, foretell=str
        )
