"""Synthetic abdomens: the same for the same seed, in the Decathlon's layout, with the anatomy promised."""

import json
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from oncoseg.cli import main
from oncoseg.errors import RecipeError
from oncoseg.phantom import make_liver_ct, make_vessel_ct
from oncoseg.phantom.abdomen import PHASES, draw_abdomen, liver_distance
from oncoseg.phantom.liver_ct import LIVER, VESSEL, Task, synthesise
from oncoseg.phantom.liver_lesion import draw_lesions
from oncoseg.phantom.vessels import Tree, Vessels, grow, join, vessel_distance

SMALL = (64, 64, 24)
ORGAN, TUMOUR = 1, 2


@cache
def patient(task: Task, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return synthesise(np.random.default_rng(number), task, SMALL)


def millilitres(labels: np.ndarray, affine: np.ndarray, value: int) -> float:
    return float((labels == value).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)


@pytest.fixture(scope="module")
def livers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("livers")
    make_liver_ct(out, cases=2, seed=5, size=SMALL)
    return out


def test_files_are_those_of_the_decathlon(livers: Path) -> None:
    description = json.loads((livers / "dataset.json").read_text())
    assert description["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert description["modality"] == {"0": "CT"}
    assert [pair["image"] for pair in description["training"]] == [
        "./imagesTr/liver_9000.nii.gz",
        "./imagesTr/liver_9001.nii.gz",
    ]
    for pair in description["training"]:
        image, label = nibabel.load(livers / pair["image"]), nibabel.load(livers / pair["label"])
        assert image.shape == label.shape == SMALL
        np.testing.assert_array_equal(image.affine, label.affine)
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    assert "SYNTHETIC.txt" in {path.name for path in livers.iterdir()}


def test_equal_seeds_give_equal_voxels_whatever_the_number_of_cases(livers: Path, tmp_path: Path) -> None:
    make_liver_ct(tmp_path / "again", cases=1, seed=5, size=SMALL)
    name = "imagesTr/liver_9000.nii.gz"
    first, again = (np.asarray(nibabel.load(root / name).dataobj) for root in (livers, tmp_path / "again"))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("number", range(3))
def test_liver_is_as_large_and_lies_where_a_liver_does(number: int) -> None:
    hu, labels, affine = patient(LIVER, number)
    assert 900 < millilitres(labels, affine, ORGAN) < 2600
    middle = nibabel.affines.apply_affine(affine, ndimage.center_of_mass(labels > 0))
    body = nibabel.affines.apply_affine(affine, ndimage.center_of_mass(hu > -300))
    assert middle[0] > body[0] + 20, "the liver lies on the patient's right"
    bright = nibabel.affines.apply_affine(affine, np.argwhere(hu > 180))
    spine = bright[np.abs(bright[:, 0] - body[0]) < 25]
    assert middle[1] > spine[:, 1].mean() + 20, "and in front of the spine"


@pytest.mark.parametrize("number", range(3))
def test_tissues_have_the_hounsfield_units_of_their_phase(number: int) -> None:
    abdomen = draw_abdomen(np.random.default_rng(number), LIVER.phase)
    hu, labels, _ = patient(LIVER, number)
    inner = ndimage.binary_erosion(labels == ORGAN, iterations=2)
    expected = abdomen.phase.liver - abdomen.steatosis_hu
    assert np.median(hu[inner]) == pytest.approx(expected, abs=12)
    assert hu.min() >= -1024
    assert np.median(hu[0, 0]) == pytest.approx(-1000, abs=15), "air around the body"


def test_vessels_are_brighter_than_the_liver_and_within_it() -> None:
    hu, labels, affine = patient(VESSEL, 0)
    assert 5 < millilitres(labels, affine, ORGAN) < 200
    around = ndimage.binary_dilation(labels == ORGAN, iterations=2) & (labels == 0)
    assert hu[labels == ORGAN].mean() > hu[around].mean() + 15


def test_every_patient_of_the_vessel_task_has_a_tumour() -> None:
    # a tumour that is smaller than a voxel of this coarse grid may not show
    rng = np.random.default_rng(3)
    for _ in range(20):
        abdomen = draw_abdomen(rng, VESSEL.phase)
        assert abdomen.phase is PHASES["portal venous"]
        assert any(lesion.kind != "cyst" for lesion in draw_lesions(rng, abdomen, VESSEL.least))


def test_lesions_lie_within_the_liver_and_some_patients_have_none() -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(40):
        abdomen = draw_abdomen(rng)
        found = draw_lesions(rng, abdomen)
        counts.append(sum(lesion.kind != "cyst" for lesion in found))
    assert min(counts) == 0
    assert 1 <= max(counts) <= 6


def test_cysts_are_no_tumours() -> None:
    """A patient with cysts only has no tumour label."""
    for number in range(200):
        rng = np.random.default_rng(number)
        abdomen = draw_abdomen(rng)
        kinds = [lesion.kind for lesion in draw_lesions(rng, abdomen)]
        if kinds and set(kinds) == {"cyst"}:
            _, labels, _ = patient(LIVER, number)
            assert set(np.unique(labels)) == {0, ORGAN}
            return
    pytest.fail("no patient with cysts only among 200")


def test_more_voxels_show_the_same_patient() -> None:
    _, coarse, coarse_affine = patient(LIVER, 1)
    _, fine, fine_affine = synthesise(np.random.default_rng(1), LIVER, (96, 96, 36))
    assert millilitres(fine, fine_affine, ORGAN) == pytest.approx(
        millilitres(coarse, coarse_affine, ORGAN), rel=0.03
    )


def test_slabs_join_without_a_seam() -> None:
    """The labels of a volume do not depend on how many slices are made at a time."""
    from oncoseg.phantom import liver_ct

    _, labels, _ = patient(LIVER, 2)
    old, liver_ct.SLAB = liver_ct.SLAB, 5
    try:
        _, other, _ = synthesise(np.random.default_rng(2), LIVER, SMALL)
    finally:
        liver_ct.SLAB = old
    np.testing.assert_array_equal(labels, other)


def test_liver_distance_is_negative_in_both_lobes_and_not_at_the_spleen() -> None:
    points = np.array([(-76, 0, 20), (-6, -50, 40), (108, 40, 40), (0, 66, 0)], np.float32)
    assert (liver_distance(*points.T) < 0).tolist() == [True, True, False, False]


def test_vessel_distance_of_one_straight_piece() -> None:
    piece = Vessels(np.array([[0.0, 0, 0]]), np.array([[10.0, 0, 0]]), np.array([[2.0, 2.0]]))
    axes = np.array([-3.0, 5.0]), np.array([0.0, 3.0]), np.array([0.0])
    distance = vessel_distance(join(piece), axes)
    np.testing.assert_allclose(distance[..., 0], [[1, np.sqrt(18) - 2], [-2, 1]], atol=1e-5)
    assert len(piece.thicker_than(2.5).starts) == 0


def test_trees_double_with_every_generation_and_end_outside() -> None:
    tree = Tree(generations=3, root_length_mm=10, root_radius_mm=2, least_radius_mm=0.5)
    starts, up = np.zeros((1, 3)), np.array([[0, 0, 1.0]])
    endless = grow(np.random.default_rng(0), tree, starts, up, lambda points: np.ones(len(points), bool))
    assert len(endless.starts) == 1 + 2 + 4 + 8
    ended = grow(np.random.default_rng(0), tree, starts, up, lambda points: np.zeros(len(points), bool))
    assert len(ended.starts) == 1


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="1 to 1000 cases"):
        make_vessel_ct(tmp_path / "a", 0, 0)
    with pytest.raises(RecipeError, match="at least 16 voxels"):
        make_vessel_ct(tmp_path / "b", 1, 0, size=(64, 64, 8))
    assert not list(tmp_path.iterdir())


def test_command_takes_a_size_where_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--cases", "1", "--size", "32", "32", "16"]
    assert main(["phantom", "vessel-ct", str(tmp_path / "v"), *small]) == 0
    assert nibabel.load(tmp_path / "v/imagesTr/hepaticvessel_9000.nii.gz").shape == (32, 32, 16)
    assert main(["phantom", "lung-ct", str(tmp_path / "l"), *small]) == 2
    assert "--size is for brain-mri, liver-ct, vessel-ct, hospital-dicom" in " ".join(
        capsys.readouterr().err.split()
    )
