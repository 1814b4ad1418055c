"""Synthetic studies: the same for the same seed, in the right layout, with the anatomy they promise."""

from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from oncoseg.errors import RecipeError, RunError
from oncoseg.phantom import PHANTOMS, brain_mri, lung_ct, make_brain_mri, make_lung_ct
from oncoseg.phantom.brain_anatomy import grow_brain
from oncoseg.phantom.brain_mri import CONTRASTS, brats_affine
from oncoseg.phantom.nodule import READERS
from oncoseg.phantom.shapes import SmoothField, ellipsoid, inside, mesh, tube

SMALL = (48, 48, 32)


@cache
def brain_patient(number: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return brain_mri.synthesise(rng(number), SMALL)


@pytest.fixture(scope="module")
def crops() -> list[lung_ct.NoduleCrop]:
    return [crop for number in range(5) for crop in lung_ct.synthesise(rng(number))]


def rng(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("brains")
    make_brain_mri(out, cases=2, seed=5, size=SMALL)
    return out


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lungs")
    make_lung_ct(out, cases=2, seed=5)
    return out


def test_brain_has_the_files_of_brats(brains: Path) -> None:
    names = [
        f"BraTS2021_90000/BraTS2021_90000_{kind}.nii.gz" for kind in ("flair", "seg", "t1", "t1ce", "t2")
    ]
    assert [name for name in files_below(brains) if "90000" in name] == names
    assert sorted(path.name for path in brains.iterdir()) == [
        "BraTS2021_90000",
        "BraTS2021_90001",
        "SYNTHETIC.txt",
    ]


def test_brain_has_the_types_and_grid_of_brats(brains: Path) -> None:
    folder = brains / "BraTS2021_90000"
    for kind in ("t1", "t1ce", "t2", "flair", "seg"):
        image = nibabel.load(folder / f"BraTS2021_90000_{kind}.nii.gz")
        assert image.shape == SMALL
        assert image.get_data_dtype() == (np.uint8 if kind == "seg" else np.int16)
        np.testing.assert_allclose(image.affine, brats_affine(SMALL))


def test_full_size_has_the_affine_of_brats() -> None:
    expected = [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(brats_affine((240, 240, 155)), expected)


def test_smaller_size_keeps_the_field_of_view() -> None:
    assert np.diag(brats_affine((96, 96, 31))).tolist() == [-2.5, -2.5, 5.0, 1.0]


def test_brain_note_says_that_it_is_synthetic(brains: Path) -> None:
    note = (brains / "SYNTHETIC.txt").read_text()
    assert "Synthetic" in note
    assert "not results about patients" in note
    assert "--seed 5" in note


@pytest.mark.parametrize("number", range(4))
def test_tumour_labels_are_nested(number: int) -> None:
    images, labels = brain_patient(number)
    brain = images["t1"] > 0
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    necrosis, core = labels == 1, (labels == 1) | (labels == 4)
    around_necrosis = ndimage.binary_dilation(necrosis) & ~necrosis & brain
    around_core = ndimage.binary_dilation(core) & ~core & brain
    assert (labels[around_necrosis] == 4).all()
    assert (labels[around_core] == 2).all()


@pytest.mark.parametrize("number", range(4))
def test_tumour_lies_in_the_brain_on_some_slices(number: int) -> None:
    images, labels = brain_patient(number)
    with_tumour = (labels > 0).any(axis=(0, 1))
    assert 3 <= with_tumour.sum() < SMALL[2]
    for image in images.values():
        assert (image[labels > 0] > 0).all()


def test_background_is_zero_in_every_sequence() -> None:
    images, _ = brain_patient(0)
    masks = [image > 0 for image in images.values()]
    assert all((mask == masks[0]).all() for mask in masks)
    assert not masks[0][0].any()
    assert 0.08 < masks[0].mean() < 0.25


def test_healthy_tissues_have_each_sequences_order() -> None:
    for name in ("t1", "t1ce"):
        assert CONTRASTS[name].white > CONTRASTS[name].grey > CONTRASTS[name].fluid
    assert CONTRASTS["t2"].fluid > CONTRASTS["t2"].grey > CONTRASTS["t2"].white
    assert CONTRASTS["flair"].fluid < CONTRASTS["flair"].white < CONTRASTS["flair"].grey


@pytest.mark.parametrize("number", range(3))
def test_tumour_shows_in_the_sequences_that_show_it(number: int) -> None:
    images, labels = brain_patient(number)
    healthy = (labels == 0) & (images["t1"] > 0)
    median = {
        (name, label): np.median(image[labels == label if label else healthy])
        for name, image in images.items()
        for label in (0, 2, 4)
    }
    assert median["flair", 2] > 1.1 * median["flair", 0]
    assert median["t2", 2] > median["t2", 0]
    assert median["t1ce", 4] > 1.1 * median["t1ce", 0]
    assert median["t1", 4] < median["t1", 0]


def test_a_voxel_holds_no_more_than_itself() -> None:
    axes = tuple(np.linspace(-half, half, n) for half, n in zip((110, 110, 70), SMALL, strict=True))
    brain = grow_brain(rng(0), axes, 5.0, [])
    assert brain.fluid.min() >= 0
    assert (brain.fluid + brain.grey).max() <= 1 + 1e-6


def test_lung_has_the_files_of_lidc_slices(lungs: Path) -> None:
    for nodule in lungs.glob("LIDC-IDRI-9*/nodule-*"):
        kinds = {folder.name: sorted(file.name for file in folder.iterdir()) for folder in nodule.iterdir()}
        assert sorted(kinds) == ["images", "mask-0", "mask-1", "mask-2", "mask-3"]
        count = len(kinds["images"])
        assert all(names == sorted(f"slice-{k}.png" for k in range(count)) for names in kinds.values())
    assert sorted(path.name for path in lungs.iterdir()) == [
        "LIDC-IDRI-9000",
        "LIDC-IDRI-9001",
        "SYNTHETIC.txt",
    ]


def test_lung_files_are_8_bit_crops(lungs: Path) -> None:
    for file in lungs.rglob("slice-*.png"):
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (128, 128))
            values = np.asarray(image)
        if file.parent.name == "images":
            assert (values.min(), values.max()) == (0, 255)
        else:
            assert set(np.unique(values)) <= {0, 255}


def test_readers_differ_but_overlap(crops: list[lung_ct.NoduleCrop]) -> None:
    pairs = [
        (crop.masks[a], crop.masks[b])
        for crop in crops
        for a in range(4)
        for b in range(a)
        if crop.masks[a].any() and crop.masks[b].any()
    ]
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]
    assert 0.6 < np.mean(dice) < 0.95
    assert max(dice) < 1


def test_a_reader_with_larger_bias_draws_larger(crops: list[lung_ct.NoduleCrop]) -> None:
    larger, smaller = 2, 3
    assert READERS[larger].bias_mm > READERS[smaller].bias_mm
    both = [crop.masks for crop in crops if crop.masks[larger].any() and crop.masks[smaller].any()]
    assert both
    assert sum(m[larger].sum() for m in both) > sum(m[smaller].sum() for m in both)


def test_readers_miss_some_nodules_but_never_all_of_them(crops: list[lung_ct.NoduleCrop]) -> None:
    marked = np.array([crop.masks.any(axis=(1, 2, 3)) for crop in crops])
    assert marked.any(axis=1).all()
    assert not marked.all()


def test_lung_is_in_hounsfield_units_and_more_than_nodules_is_bright(crops: list[lung_ct.NoduleCrop]) -> None:
    crop = next(crop for crop in crops if crop.kind == "solid")
    unmarked = ~crop.masks.any(axis=0)
    assert -950 < np.median(crop.hu[unmarked & (crop.hu < -500) & (crop.hu > -980)]) < -750
    inner = np.median(crop.hu[crop.masks.sum(axis=0) >= crop.masks.any(axis=(1, 2, 3)).sum()])
    assert (crop.hu[unmarked] > inner).sum() > crop.masks.any(axis=0).sum()


def test_seed_and_number_decide_a_case_however_many_there_are(
    tmp_path: Path, brains: Path, lungs: Path
) -> None:
    make_brain_mri(tmp_path / "brains", cases=1, seed=5, size=SMALL)
    make_lung_ct(tmp_path / "lungs", cases=1, seed=5)
    for kind in ("t1", "seg"):
        file = f"BraTS2021_90000/BraTS2021_90000_{kind}.nii.gz"
        np.testing.assert_array_equal(voxels(tmp_path / "brains" / file), voxels(brains / file))
    assert files_below(tmp_path / "lungs" / "LIDC-IDRI-9000") == files_below(lungs / "LIDC-IDRI-9000")


def test_seeds_and_cases_differ(brains: Path, tmp_path: Path) -> None:
    make_brain_mri(tmp_path / "other", cases=1, seed=6, size=SMALL)
    first = voxels(brains / "BraTS2021_90000" / "BraTS2021_90000_seg.nii.gz")
    second = voxels(brains / "BraTS2021_90001" / "BraTS2021_90001_seg.nii.gz")
    other = voxels(tmp_path / "other" / "BraTS2021_90000" / "BraTS2021_90000_seg.nii.gz")
    assert (first != second).any()
    assert (first != other).any()


@pytest.mark.parametrize("name", PHANTOMS)
def test_progress_counts_the_cases(name: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    PHANTOMS[name](tmp_path / "out", 2, 0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_full_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="not empty"):
        PHANTOMS[name](tmp_path, 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize(("cases", "seed"), [(0, 0), (100_000, 0), (1, -1)])
def test_numbers_out_of_range_are_refused(name: str, cases: int, seed: int, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Expected"):
        PHANTOMS[name](tmp_path / "out", cases, seed)
    assert not (tmp_path / "out").exists()


def test_a_size_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="16 voxels"):
        make_brain_mri(tmp_path / "out", cases=1, seed=0, size=(96, 96, 8))


def test_an_interruption_leaves_only_whole_cases(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_brain_mri(tmp_path / "out", cases=3, seed=0, size=(16, 16, 16), progress=stop)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["BraTS2021_90000", "SYNTHETIC.txt"]


def test_a_failure_while_writing_leaves_no_half_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(brain_mri, "_write_nifti", fail)
    with pytest.raises(RunError, match="No space left"):
        make_brain_mri(tmp_path / "out", cases=1, seed=0, size=(16, 16, 16))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["SYNTHETIC.txt"]


def test_a_field_is_the_same_function_on_every_grid() -> None:
    field = SmoothField.draw(rng(0), (-10, -10, -10), (10, 10, 10), 4.0)
    fine = np.linspace(-8, 8, 9)
    coarse = fine[::2]
    np.testing.assert_allclose(
        field.on((fine, fine, fine))[::2, ::2, ::2], field.on((coarse, coarse, coarse)), atol=1e-5
    )


def test_a_field_has_mean_zero_and_deviation_one() -> None:
    axis = np.linspace(0, 200, 60)
    values = SmoothField.draw(rng(0), (0, 0, 0), (200, 200, 200), 5.0).on((axis, axis, axis))
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(1, abs=0.05)


def test_distances_along_an_axis() -> None:
    line = mesh((np.array([0.0, 4.0, 5.0, 7.0]), np.zeros(1), np.zeros(1)))
    ball = ellipsoid(*line, centre=(0, 0, 0), radii=(5, 5, 5)).ravel()
    np.testing.assert_allclose(ball, [-5, -1, 0, 2], atol=1e-4)
    pipe = tube(*line, start=(0, 0, 0), end=(5, 0, 0), radii=(2.0, 1.0)).ravel()
    np.testing.assert_allclose(pipe, [-2, -1.2, -1, 1], atol=1e-4)


def test_partial_volume_is_half_at_the_surface() -> None:
    np.testing.assert_allclose(inside(np.array([-2.0, -0.5, 0.0, 0.5, 2.0]), 2.0), [1, 0.75, 0.5, 0.25, 0])
