from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from PIL import Image

from oncoseg import io
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, GeometryError
from oncoseg.evaluate.pairs import (
    ONLY_CLASS,
    check_labels,
    find_pairs,
    label_values,
    load,
    load_map,
    read_patients,
)
from oncoseg.io import ImageRef
from tiny import brats_case, lidc_nodule

GRID = (4, 5, 3)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def write(path: Path, mask: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


def marked(value: float = 1, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros(GRID, dtype)
    mask[1, 2, 1] = value
    return mask


def test_masks_are_paired_by_name_whatever_ends_it(tmp_path: Path) -> None:
    for name in ("a_seg.nii.gz", "b_seg.nii", "b_scan.nii"):
        write(tmp_path / "truth" / name, marked())
    for name in ("a.nii.gz", "a_probability.nii.gz", "c.nii.gz"):
        write(tmp_path / "ours" / name, marked())
    pairs, without_truth, _ = find_pairs(tmp_path / "truth", tmp_path / "ours")
    assert [(pair.case, pair.patient) for pair in pairs] == [("a", "a"), ("b", "b")]
    assert pairs[0].prediction.files[0].name == "a.nii.gz"
    ((name, probability),) = pairs[0].maps
    assert (name, probability.files[0].name) == (ONLY_CLASS, "a_probability.nii.gz")
    assert (pairs[1].prediction, pairs[1].maps) == (None, ())
    assert without_truth == ["c"]


def test_a_map_of_a_class_is_of_the_longest_case_that_its_name_fits(tmp_path: Path) -> None:
    names = ("a", "a_b")
    for name in names:
        write(tmp_path / "truth" / f"{name}.nii.gz", marked())
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
    for name in ("a_core", "a_b", "a_b_core", "x_core"):
        write(tmp_path / "ours" / f"{name}_probability.nii.gz", marked(0.5, np.float32))
    pairs, *_ = find_pairs(tmp_path / "truth", tmp_path / "ours")
    assert {pair.case: sorted(name for name, _ in pair.maps) for pair in pairs} == {
        "a": ["core"],
        "a_b": [ONLY_CLASS, "core"],
    }


def test_a_data_set_gives_patients_labels_and_readers(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 1)
    write(tmp_path / "ours" / "BraTS2021_00001.nii.gz", marked())
    ((pair,), *_) = find_pairs(tmp_path / "mri", tmp_path / "ours")
    assert pair.labels[4] == "enhancing tumour"
    lidc_nodule(tmp_path / "ct", 7)
    write(tmp_path / "ours" / "LIDC-IDRI-0007_nodule-0.nii.gz", marked())
    ((pair,), without, _) = find_pairs(tmp_path / "ct", tmp_path / "ours")
    assert (pair.patient, len(pair.truth)) == ("LIDC-IDRI-0007", 4)
    assert without == ["BraTS2021_00001"]
    consensus = load(pair._replace(prediction=None), 0.5, False)
    assert np.count_nonzero(consensus.truth) == 2 * 25
    assert consensus.spacing_mm is None


def test_masks_of_pictures_without_a_place_are_compared_voxel_by_voxel(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 7)
    (case,) = open_dataset(tmp_path / "ct").cases
    truth = io.read(case.masks[0])
    io.write_labels(tmp_path / "ours" / f"{case.id}.nii.gz", (truth.array[0] > 0).astype(np.uint8), truth)
    ((pair,), *_) = find_pairs(tmp_path / "ct", tmp_path / "ours")
    found = load(pair, 0.5, False)
    assert np.array_equal(found.truth > 0, found.prediction > 0)
    write(tmp_path / "ours" / f"{case.id}.nii.gz", marked())
    with pytest.raises(GeometryError, match="Expected voxels on the grid"):
        load(pair, 0.5, False)


def picture(path: Path, mask: np.ndarray) -> None:
    """Write the one slice of a mask `i j` as rows (j) of columns (i)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.T).save(path)


@pytest.mark.parametrize("truth", ["png", "tif", "nii.gz"])
@pytest.mark.parametrize("ours", ["png", "tif", "nii.gz"])
def test_2d_masks_of_any_format_are_compared_pixel_by_pixel(tmp_path: Path, truth: str, ours: str) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2:] = 255
    for folder, suffix in (("truth", truth), ("ours", ours)):
        put = write if suffix == "nii.gz" else picture
        put(tmp_path / folder / f"a.{suffix}", mask)
        put(tmp_path / folder / f"b_c.{suffix}", mask)
    pairs, without, _ = find_pairs(tmp_path / "truth", tmp_path / "ours")
    assert ([pair.case for pair in pairs], without) == (["a", "b_c"], [])
    for pair in pairs:
        found = load(pair, 0.5, False)
        assert np.array_equal(found.truth[..., 0], mask)
        assert np.array_equal(found.prediction[..., 0], mask)
        assert (found.spacing_mm is None) == (truth != "nii.gz")


def test_pictures_beside_volumes_are_no_masks(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", marked())
    picture(tmp_path / "truth" / "a.png", marked()[..., 1])
    picture(tmp_path / "truth" / "b.png", marked()[..., 1])
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "truth")
    assert pair.truth[0].files[0].name == "a.nii.gz"


def test_2d_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", np.ones((4, 5), np.uint8))
    picture(tmp_path / "ours" / "a.png", np.ones((5, 4), np.uint8))
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "ours")
    with pytest.raises(GeometryError, match=r"on the grid \(4, 5, 1\), got \(5, 4, 1\)"):
        load(pair, 0.5, False)


def test_tables_of_masks_need_no_images(tmp_path: Path) -> None:
    for folder in ("truth", "ours"):
        write(tmp_path / folder / "x1.nii.gz", marked())
        write(tmp_path / folder / "x2.nii.gz", marked())
        lines = "case,patient,label\na,P,x1.nii.gz\nb,P,x2.nii.gz\n"
        (tmp_path / folder / "cases.csv").write_text(lines)
    pairs, without, _ = find_pairs(tmp_path / "truth", tmp_path / "ours" / "cases.csv")
    assert [(pair.case, pair.patient, pair.images) for pair in pairs] == [("a", "P", None), ("b", "P", None)]
    assert without == []
    assert np.array_equal(load(pairs[1], 0.5, False).prediction, marked())
    with pytest.raises(DataError, match="no column of images"):
        open_dataset(tmp_path / "truth")
    (tmp_path / "truth" / "cases.csv").write_text("case,patient,CT,label\na,P,gone.nii.gz,x1.nii.gz\n")
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "ours")
    assert pair.case == "a"


def test_a_data_set_may_be_the_prediction(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 1)
    ((pair,), *_) = find_pairs(tmp_path / "mri", tmp_path / "mri")
    loaded = load(pair, 0.5, False)
    assert np.array_equal(loaded.truth, loaded.prediction)


def test_what_cannot_be_paired_is_explained(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", marked())
    write(tmp_path / "ours" / "b.nii.gz", marked())
    with pytest.raises(DataError, match=r"truth has a \(1 in all\), the predictions have b \(1 in all\)"):
        find_pairs(tmp_path / "truth", tmp_path / "ours")
    with pytest.raises(DataError, match="does not exist"):
        find_pairs(tmp_path / "nowhere", tmp_path / "ours")
    write(tmp_path / "ours" / "b.nii", marked())
    with pytest.raises(DataError, match=r"two masks of case b: b.nii and b.nii.gz"):
        find_pairs(tmp_path / "truth", tmp_path / "ours")


def test_patients_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\na,1\nb,1\nc,2\n")
    assert read_patients(table) == {"a": "1", "b": "1", "c": "2"}
    write(tmp_path / "truth" / "a.nii.gz", marked())
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "truth", read_patients(table))
    assert pair.patient == "1"
    table.write_text("case,patient\na,1\na,2\n")
    with pytest.raises(DataError, match="case 'a' 2 patients"):
        read_patients(table)
    for text, message in {
        "name\na\n": "its first line is 'name'",
        "case;patient\na;1\n": "its first line is 'case;patient'",
        "case,patient\na,1\nb, \n": "gives case 'b' no patient",
        "case,patient\na\n": "gives case 'a' no patient",
    }.items():
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            read_patients(table)
    table.write_text("\ufeffcase,patient\n a , 1 \n", encoding="utf-8")  # as Excel writes it
    assert read_patients(table) == {"a": "1"}


def test_masks_are_named_in_one_way(tmp_path: Path) -> None:
    for name in ("a", "b", "c_seg"):
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
        write(tmp_path / "truth" / f"{name.removesuffix('_seg')}.nii.gz", marked())
    with pytest.raises(DataError, match=r"named in two ways.*2 do not, the first is 'a'"):
        find_pairs(tmp_path / "truth", tmp_path / "ours")
    for name in ("a_seg", "b_seg"):  # now the others are the images of these
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
    pairs, *_ = find_pairs(tmp_path / "truth", tmp_path / "ours")
    assert [pair.prediction.files[0].name for pair in pairs] == [f"{name}_seg.nii.gz" for name in "abc"]


# reading


def loaded(
    tmp_path: Path, prediction: np.ndarray, affine: np.ndarray = AFFINE, resample: bool = False
) -> object:
    write(tmp_path / "truth" / "a.nii.gz", marked())
    write(tmp_path / "ours" / "a.nii.gz", prediction, affine)
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "ours")
    return load(pair, 0.5, resample)


def test_labels_stored_as_floating_point_are_labels(tmp_path: Path) -> None:
    found = loaded(tmp_path, marked(2, np.float32))
    assert found.prediction.dtype == np.uint8
    assert label_values(found.prediction) == [2]
    assert found.spacing_mm == (1, 1, 2)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (marked(0.4, np.float32), "not whole numbers"),
        (marked(-1, np.int16), "from -1 to 0; expected labels"),
        (marked(70_000, np.int32), "expected labels"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path: Path, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, prediction)


def test_probabilities_beyond_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "ours" / "a_probability.nii.gz", marked(1.5, np.float32))
    with pytest.raises(DataError, match=r"from 0.0 to 1.5; expected 0 to 1"):
        load_map(ImageRef((path,)), loaded(tmp_path, marked()).like, False)


def test_a_probability_map_on_another_grid_is_refused_or_resampled_where_allowed(tmp_path: Path) -> None:
    fine = np.diag([0.5, 1.0, 2.0, 1.0])
    fine[0, 3] = -0.25
    chance = marked(0.5, np.float32)
    path = write(tmp_path / "map.nii.gz", np.repeat(chance, 2, axis=0), fine)
    like = loaded(tmp_path, marked()).like
    with pytest.raises(GeometryError, match="truth and probability must lie on one grid"):
        load_map(ImageRef((path,)), like, False)
    assert np.array_equal(load_map(ImageRef((path,)), like, True), chance)


def test_another_grid_is_refused_or_resampled_where_allowed(tmp_path: Path) -> None:
    fine = np.diag([0.5, 1.0, 2.0, 1.0])
    fine[0, 3] = -0.25
    prediction = np.repeat(marked(), 2, axis=0)
    with pytest.raises(GeometryError, match="truth and prediction must lie on one grid"):
        loaded(tmp_path, prediction, fine)
    found = loaded(tmp_path, prediction, fine, resample=True)
    assert np.array_equal(found.prediction, found.truth)


@pytest.mark.parametrize("ends", ["RAS", "LPI", "SAR", "IPL", "ASL"])
def test_a_prediction_with_its_axes_in_another_order_is_brought_onto_the_truths(
    tmp_path: Path, ends: str
) -> None:
    truth = np.arange(np.prod(GRID)).reshape(GRID).astype(np.uint8)
    tilted = AFFINE @ np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(truth, tilted)
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(ends))
    )
    turned = image.as_reoriented(turn)
    assert turned.shape == tuple(GRID["RAS".index(end) if end in "RAS" else "LPI".index(end)] for end in ends)
    write(tmp_path / "truth" / "a.nii.gz", truth, tilted)
    write(tmp_path / "ours" / "a.nii.gz", np.asarray(turned.dataobj), turned.affine)
    write(tmp_path / "ours" / "a_probability.nii.gz", np.asarray(turned.dataobj) / 255, turned.affine)
    ((pair,), *_) = find_pairs(tmp_path / "truth", tmp_path / "ours")
    found = load(pair, 0.5, False)
    assert np.array_equal(found.prediction, truth)
    ((_, ref),) = pair.maps
    np.testing.assert_allclose(load_map(ref, found.like, False), truth / 255, rtol=1e-6)


def test_a_flipped_prediction_half_a_voxel_off_is_still_refused(tmp_path: Path) -> None:
    flipped = np.diag([-1.0, 1.0, 2.0, 1.0])
    flipped[0, 3] = GRID[0] - 1
    assert np.array_equal(loaded(tmp_path, marked()[::-1], flipped).prediction, marked())
    flipped[0, 3] += 0.5
    with pytest.raises(GeometryError, match=r"must lie on one grid.*Or add --resample"):
        loaded(tmp_path, marked()[::-1], flipped)


def test_undeclared_labels_are_named(tmp_path: Path) -> None:
    found = loaded(tmp_path, marked(3))
    check_labels(found, {"all": (1, 3)})
    with pytest.raises(
        DataError, match=r"The prediction holds the label values \[3\]; expected only 0 and \[1, 2\]"
    ):
        check_labels(found, {"all": (1, 2)})
    with pytest.raises(DataError, match=r"The truth holds the label values \[1\]"):
        check_labels(found, {"all": (3,)})
