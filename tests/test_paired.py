"""Folders of patients with CT and MRI."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg import io
from oncoseg.datasets import open_dataset
from oncoseg.datasets.paired import list_pairs
from oncoseg.errors import DataError
from oncoseg.volume import check_same_grid
from test_indexed_layouts import kinds, touch


def patient(root: Path, name: str, *files: str) -> Path:
    return touch(root, *(f"{name}/{file}.nii.gz" for file in files))


def test_each_image_is_a_case_with_its_own_mask_and_they_share_patient_and_class(tmp_path: Path) -> None:
    patient(tmp_path, "STS_002", "CT_image", "CT_mask", "MR_T1_image", "MR_T1_mask")
    patient(tmp_path, "STS_008", "CT", "CT_seg", "MRI")
    (tmp_path / "classes.csv").write_text("patient,class\nSTS_002,benign\nSTS_008,malignant\n")
    scan = open_dataset(tmp_path)
    assert scan.layout == "paired"
    found = {case.id: (case.patient, *case.images, len(case.masks), case.target) for case in scan.cases}
    assert found == {
        "STS_002_CT": ("STS_002", "CT", 1, "benign"),
        "STS_002_MR_T1": ("STS_002", "T1", 1, "benign"),
        "STS_008_CT": ("STS_008", "CT", 1, "malignant"),
        "STS_008_MRI": ("STS_008", "MR", 0, "malignant"),
    }
    assert kinds(scan) == ["missing-mask"]
    assert [(pair.patient, pair.ct.id, pair.mr.id) for pair in list_pairs(scan.cases)] == [
        ("STS_002", "STS_002_CT", "STS_002_MR_T1"),
        ("STS_008", "STS_008_CT", "STS_008_MRI"),
    ]


def test_who_has_no_pair_is_said(tmp_path: Path) -> None:
    patient(tmp_path, "A", "CT_image", "CT_mask", "MR_image", "MR_mask")
    patient(tmp_path, "B", "CT_image", "CT_mask")
    scan = open_dataset(tmp_path)
    assert scan.remarks == ("No pair, as CT or MRI is missing: B.",)
    assert [pair.patient for pair in list_pairs(scan.cases)] == ["A"]
    assert not scan.problems


def test_one_patients_folder_and_several_sequences(tmp_path: Path) -> None:
    patient(tmp_path, "A", "CT", "MR_T1", "MR_T2", "report")
    scan = open_dataset(tmp_path / "A")
    assert [case.id for case in scan.cases] == ["A_CT", "A_MR_T1", "A_MR_T2"]
    assert [pair.mr.id for pair in list_pairs(scan.cases)] == ["A_MR_T1", "A_MR_T2"]


@pytest.mark.parametrize(("shift", "masks"), [(0.0, [1, 1]), (9.0, [1, 0])])
def test_a_mask_that_does_not_say_whose_it_is_belongs_to_the_images_on_its_grid(
    tmp_path: Path, shift: float, masks: list[int]
) -> None:
    (tmp_path / "A").mkdir()
    for name, moved in (("CT", 0.0), ("MR", shift), ("mask", 0.0)):
        affine = np.eye(4)
        affine[0, 3] = moved
        nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), affine).to_filename(tmp_path / "A" / f"{name}.nii.gz")
    assert [len(case.masks) for case in open_dataset(tmp_path).cases] == masks


def test_classes_that_are_missing_or_contradict(tmp_path: Path) -> None:
    patient(tmp_path, "A", "CT_image", "CT_mask", "MR_image", "MR_mask")
    patient(tmp_path, "B", "CT_image", "CT_mask", "MR_image", "MR_mask")
    (tmp_path / "classes.csv").write_text("patient,class\nA,benign\n")
    assert kinds(open_dataset(tmp_path)) == ["missing-class"]
    (tmp_path / "classes.csv").write_text("patient,class\nA,benign\nA,malignant\n")
    with pytest.raises(DataError, match="gives A the classes benign and malignant"):
        open_dataset(tmp_path)


@pytest.mark.real_data
def test_real_pairs_are_found_with_their_masks(shared_data: Path) -> None:
    folder = shared_data / "sts_ct_mr" / "nifti"
    if not folder.is_dir():
        pytest.skip("no CT and MRI pairs among the real data")
    scan = open_dataset(folder)
    pairs = list_pairs(scan.cases)
    assert (scan.layout, len(scan.cases), len(pairs), scan.problems) == ("paired", 20, 10, ())
    for case in (pairs[0].ct, pairs[0].mr):
        image, mask = io.read_channels(case.images), io.read(case.masks[0])
        check_same_grid({"image": image, "mask": mask})
        assert set(np.unique(mask.array)) == {0, 1}
