"""From what a user names to cases and their modality."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError
from oncoseg.inputs import NOT_IMAGES, Job, find_jobs
from oncoseg.io import image_ref
from tiny import brats_case, lidc_nodule, tiny_recipe


def image(path: Path, grid: tuple[int, int, int] = (4, 5, 6), affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.zeros(grid, np.int16), np.eye(4) if affine is None else affine).to_filename(path)
    return path


def found(*paths: Path, modality: str | None = None, **changes: Any) -> list[tuple[str, str]]:
    jobs = find_jobs(paths, tiny_recipe(**changes), modality)
    return [(job.case.id, job.modality) for job in jobs]


def test_a_data_set_a_case_and_an_image_are_recognised(tmp_path: Path) -> None:
    case = brats_case(tmp_path / "mri", 1)
    brats_case(tmp_path / "mri", 2)
    lidc_nodule(tmp_path / "ct", 1)
    assert found(tmp_path / "mri") == [("BraTS2021_00001", "mri"), ("BraTS2021_00002", "mri")]
    assert found(case) == [("BraTS2021_00001", "mri")]
    assert found(tmp_path / "ct") == [("LIDC-IDRI-0001_nodule-0", "ct")]
    single = image(tmp_path / "scan.nii.gz")
    assert found(single, modality="ct") == [("scan", "ct")]
    (tmp_path / "mine.csv").write_text("case,patient,CT\na,A,scan.nii.gz\n")
    assert found(tmp_path / "mine.csv") == [("a", "ct")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Scan 1.NII.GZ", "Scan_1"), ("a.b.nii", "a.b"), ("x.png", "x"), ("y.TIFF", "y"), ("z.tif", "z")],
)
def test_an_images_name_becomes_a_safe_id(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).touch()
    assert found(tmp_path / name, modality="ct") == [(expected, "ct")]


def test_a_plain_folder_gives_its_images_but_not_its_leftovers(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii", "._a.nii", "notes.txt"):
        image(tmp_path / name) if name.endswith((".nii", ".gz")) else (tmp_path / name).touch()
    assert found(tmp_path, modality="ct") == [("a", "ct"), ("b", "ct")]


def test_masks_in_a_plain_folder_are_no_images(tmp_path: Path) -> None:
    for end in NOT_IMAGES:
        image(tmp_path / f"scan{end.upper()}.nii.gz")
    with pytest.raises(DataError, match=r"holds masks only, by their names \(scan.*expected images"):
        found(tmp_path, modality="ct")
    image(tmp_path / "scan.nii.gz")
    assert found(tmp_path, modality="ct") == [("scan", "ct")]
    assert found(tmp_path / "scan_SEG.nii.gz", modality="ct") == [("scan_SEG", "ct")]


def test_one_image_does_not_say_what_it_shows(tmp_path: Path) -> None:
    path = image(tmp_path / "flair.nii.gz")
    with pytest.raises(DataError, match=r"can only be ct\. If it is, add --modality ct\. .*CASE_t1\.nii\.gz"):
        found(path)
    with pytest.raises(DataError, match="--modality ct"):
        found(tmp_path)


def test_one_image_needs_no_word_in_a_run_of_one_modality(tmp_path: Path) -> None:
    recipe = tiny_recipe(training__pretrain_on=None)
    only = recipe.model_copy(update={"modalities": {"ct": recipe.modalities["ct"]}})
    (job,) = find_jobs([image(tmp_path / "a.nii")], only, None)
    assert job.modality == "ct"


def test_a_folder_without_images_says_which_layouts_there_are(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="no known layout"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.nii", "does not exist"), ("scan.jpg", r"suffix that cannot be read")]
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "scan.jpg").touch()
    with pytest.raises(DataError, match=message):
        found(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("study.zip", "is a zip; expected a folder. Unpack it"),
        ("IM0001", "is one DICOM file of a series; expected a folder"),
        ("DICOMDIR", "is a DICOMDIR; expected a folder"),
    ],
)
def test_a_file_that_belongs_to_a_folder_says_so(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DataError, match=hint):
        found(tmp_path / name)
    with pytest.raises(DataError, match=hint):
        open_dataset(tmp_path / name)


def test_an_unknown_modality_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown modality 'pet'; this run has mri, ct"):
        found(image(tmp_path / "a.nii"), modality="pet")


def test_one_image_for_two_modalities_of_one_channel_needs_to_be_told(tmp_path: Path) -> None:
    path = image(tmp_path / "a.nii")
    single = {"modalities__mri__channels": ["FLAIR"] * 4, "modalities__mri__substitutes": {}}
    with pytest.raises(DataError, match=r"one image can only be mri or ct\. .*--modality mri"):
        found(path, **single)
    assert found(path, modality="mri", **single) == [("a", "mri")]


def test_an_image_for_a_modality_of_several_channels_needs_a_case(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="mri takes several channels; expected the folder of a case with T1, T1ce"
    ):
        found(image(tmp_path / "a.nii"), modality="mri")


def test_a_case_that_fits_no_modality_or_several_needs_to_be_told(tmp_path: Path) -> None:
    folder = brats_case(tmp_path, 1)
    next(folder.glob("*_t2.nii.gz")).unlink()
    with pytest.raises(DataError, match=r"which fit no modality of this run .*--modality"):
        found(folder)
    assert found(folder, modality="mri") == [("BraTS2021_00001", "mri")]
    assert found(folder, modalities__mri__missing="substitute") == [("BraTS2021_00001", "mri")]
    several = {"modalities__ct__channels": ["FLAIR", "T1", "T1", "T1"], "training__pretrain_on": None}
    brats_case(tmp_path / "whole", 1)
    with pytest.raises(DataError, match="which fit several modalities"):
        found(tmp_path / "whole", **several)


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [image(tmp_path / "a" / "scan.nii"), image(tmp_path / "b" / "scan.nii.gz")]
    with pytest.raises(DataError, match=r"Several inputs would be written as scan\.nii\.gz"):
        found(*paths, modality="ct")
    with pytest.raises(DataError, match="Several inputs"):
        found(paths[0], paths[0], modality="ct")


@pytest.mark.parametrize(("axis", "slices"), [(0, 4), (1, 5), (2, 6)])
def test_slices_are_counted_along_the_patient(tmp_path: Path, axis: int, slices: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.roll(np.eye(3), axis - 2, axis=1)
    path = image(tmp_path / "a.nii.gz", affine=affine)
    (job,) = find_jobs([path], tiny_recipe(), "ct")
    assert job.slices() == slices
    lidc_nodule(tmp_path / "ct", 1, slices=7)
    (job,) = find_jobs([tmp_path / "ct"], tiny_recipe(), None)
    assert job.slices() == 7


def test_a_fingerprint_follows_the_files_and_the_modality(tmp_path: Path) -> None:
    path = image(tmp_path / "a.nii")
    (job,) = find_jobs([path], tiny_recipe(), "ct")
    before = job.fingerprint()
    assert find_jobs([path], tiny_recipe(), "ct")[0].fingerprint() == before
    image(path, grid=(4, 5, 7))
    assert job.fingerprint() != before
    path.unlink()
    with pytest.raises(DataError, match=r"a: .*a\.nii cannot be read"):
        job.fingerprint()


def test_a_fingerprint_follows_which_image_is_which_channel(tmp_path: Path) -> None:
    one, other = image_ref(image(tmp_path / "a.nii")), image_ref(image(tmp_path / "b.nii"))
    said = Job(Case("c", "c", {"T1": one, "T2": other}), "mri").fingerprint()
    assert said != Job(Case("c", "c", {"T1": other, "T2": one}), "mri").fingerprint()
    assert said == Job(Case("c", "c", {"T2": other, "T1": one}), "mri").fingerprint()


def mixed(tmp_path: Path) -> Path:
    """A table of an MRI with all sequences, one that lacks T2, and an image of something else."""
    for name in ("t1", "t1ce", "t2", "flair", "adc"):
        image(tmp_path / f"{name}.nii")
    (tmp_path / "cases.csv").write_text(
        "case,patient,T1,T1ce,T2,FLAIR,ADC\n"
        "whole,A,t1.nii,t1ce.nii,t2.nii,flair.nii,\n"
        "lacking,B,t1.nii,t1ce.nii,,flair.nii,\n"
        "other,C,,,,,adc.nii\n"
    )
    return tmp_path


def test_cases_that_fit_nothing_do_not_keep_the_others_from_being_predicted(tmp_path: Path) -> None:
    failures: dict[str, str] = {}
    told: list[tuple[Path, Scan]] = []
    jobs = find_jobs(
        [mixed(tmp_path)], tiny_recipe(), None, failures=failures, opened=lambda *found: told.append(found)
    )
    assert [job.case.id for job in jobs] == ["whole"]
    assert list(failures) == ["lacking"]
    assert "which fit no modality" in failures["lacking"]
    ((path, scan),) = told
    assert path == tmp_path
    (problem,) = [each for each in scan.problems if each.kind == "other-modality"]
    assert problem.message.startswith("1 case(s) show ADC, which this run does not know")


def test_a_case_that_fits_nothing_is_an_error_where_it_is_the_only_one(tmp_path: Path) -> None:
    image(tmp_path / "t1.nii")
    (tmp_path / "cases.csv").write_text("case,patient,T1\nlacking,B,t1.nii\n")
    with pytest.raises(DataError, match="which fit no modality"):
        find_jobs([tmp_path], tiny_recipe(), None, failures={})
