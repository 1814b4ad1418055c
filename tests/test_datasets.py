"""Data sets as they lie on disk, here with empty files: adapters describe and never read voxels."""

from pathlib import Path

import pytest

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def brats_2021(root: Path, case: str = "BraTS2021_00000", suffix: str = ".nii.gz") -> Path:
    return touch(root, *(f"{case}/{case}_{end}{suffix}" for end in ("t1", "t1ce", "t2", "flair", "seg")))


def brats_2023(root: Path, case: str = "BraTS-GLI-00005-000", suffix: str = ".nii.gz") -> Path:
    return touch(root, *(f"{case}/{case}-{end}{suffix}" for end in ("t1n", "t1c", "t2w", "t2f", "seg")))


def lidc(root: Path, nodule: str = "LIDC-IDRI-0517/nodule-0", slices: int = 11, readers: int = 4) -> Path:
    folders = ["images", *(f"mask-{reader}" for reader in range(readers))]
    return touch(root, *(f"{nodule}/{folder}/slice-{k}.png" for folder in folders for k in range(slices)))


def lgg(root: Path, case: str = "TCGA_CS_4942_19970222", slices: int = 11) -> Path:
    names = [f"{case}/{case}_{k}{end}.tif" for k in range(1, slices + 1) for end in ("", "_mask")]
    return touch(root, *names)


def kinds(scan: Scan) -> list[str]:
    return [problem.kind for problem in scan.problems]


def only_case(scan: Scan) -> Case:
    (case,) = scan.cases
    return case


def names(case: Case, channel: str) -> list[str]:
    return [file.name for file in case.images[channel].files]


# opening


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is empty"):
        open_dataset(tmp_path)
    touch(tmp_path, "file.txt")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "file.txt")
    with pytest.raises(DataError, match=r"(?s)no known layout.*brats: .*lidc_slices: .*lgg: "):
        open_dataset(tmp_path)
    touch(tmp_path, "study/series/image.dcm")
    with pytest.raises(DataError, match=r"No case was found .*dicom_folder"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="did you mean 'lidc_slices'"):
        open_dataset(tmp_path, "lidc-slices")
    with pytest.raises(DataError, match="expected one of brats"):
        open_dataset(tmp_path, "xyz")
    with pytest.raises(DataError, match="No case was found"):
        open_dataset(tmp_path, "brats")


def test_a_folder_of_several_data_sets_must_be_narrowed(tmp_path: Path) -> None:
    brats_2021(tmp_path / "a")
    lidc(tmp_path / "b")
    with pytest.raises(DataError, match=r"several data sets \(brats, lidc_slices\)"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, "lidc_slices").cases


def test_cases_are_sorted_and_counted_once(tmp_path: Path) -> None:
    for case in ("BraTS2021_00010", "BraTS2021_00002"):
        brats_2021(tmp_path, case)
    brats_2021(tmp_path / "copy", "BraTS2021_00002")
    scan = open_dataset(tmp_path)
    assert [case.id for case in scan.cases] == ["BraTS2021_00002", "BraTS2021_00010"]
    assert kinds(scan) == ["duplicate-case"]


@pytest.mark.parametrize(
    ("note", "synthetic"),
    [
        ("data/Training/SYNTHETIC.txt", True),
        ("data/SYNTHETIC.txt", True),
        ("SYNTHETIC.txt", True),
        ("data/Training/LIDC-IDRI-0517/SYNTHETIC.txt", True),
        ("data/Training/LIDC-IDRI-0517/nodule-0/mask-0/SYNTHETIC.txt", False),
        ("data/other/SYNTHETIC.txt", False),
        ("data/README.txt", False),
    ],
)
def test_a_note_from_the_parent_to_the_images_marks_them_as_synthetic(
    tmp_path: Path, note: str, synthetic: bool
) -> None:
    lidc(tmp_path / "data" / "Training")
    touch(tmp_path, note)
    assert open_dataset(tmp_path / "data").synthetic is synthetic


def test_a_note_two_folders_above_is_of_something_else(tmp_path: Path) -> None:
    touch(tmp_path, "SYNTHETIC.txt")
    brats_2021(tmp_path / "data" / "Training")
    assert not open_dataset(tmp_path / "data" / "Training").synthetic


# BraTS


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_names_of_2021_and_2023_give_the_same_channels(tmp_path: Path, suffix: str) -> None:
    brats_2021(tmp_path, suffix=suffix)
    brats_2023(tmp_path, suffix=suffix)
    scan = open_dataset(tmp_path)
    assert not scan.problems
    older, newer = sorted(scan.cases, key=lambda case: case.id, reverse=True)
    assert list(older.images) == list(newer.images) == ["T1", "T1ce", "T2", "FLAIR"]
    assert names(older, "T1ce") == [f"BraTS2021_00000_t1ce{suffix}"]
    assert names(newer, "FLAIR") == [f"BraTS-GLI-00005-000-t2f{suffix}"]
    assert (older.patient, newer.patient) == ("BraTS2021_00000", "BraTS-GLI-00005")
    assert older.labels[4] == newer.labels[3] == "enhancing tumour"


def test_timepoints_of_one_patient_are_grouped(tmp_path: Path) -> None:
    brats_2023(tmp_path, "BraTS-GLI-00005-000")
    brats_2023(tmp_path, "BraTS-GLI-00005-001")
    assert [case.patient for case in open_dataset(tmp_path).cases] == ["BraTS-GLI-00005"] * 2


def test_one_case_folder_is_a_data_set_of_one(tmp_path: Path) -> None:
    brats_2021(tmp_path, "BraTS2021_00000")
    brats_2021(tmp_path, "BraTS2021_00001")
    assert only_case(open_dataset(tmp_path / "BraTS2021_00001")).id == "BraTS2021_00001"


def test_a_missing_sequence_and_mask_are_problems_of_a_described_case(tmp_path: Path) -> None:
    brats_2021(tmp_path)
    for end in ("t2", "seg"):
        (tmp_path / "BraTS2021_00000" / f"BraTS2021_00000_{end}.nii.gz").unlink()
    scan = open_dataset(tmp_path)
    assert list(only_case(scan).images) == ["T1", "T1ce", "FLAIR"]
    assert only_case(scan).masks == ()
    assert kinds(scan) == ["missing-channel", "missing-mask"]
    assert "but T2 is missing" in scan.problems[0].message


def test_a_mask_that_is_not_the_experts_is_not_truth(tmp_path: Path) -> None:
    brats_2021(tmp_path)
    folder = tmp_path / "BraTS2021_00000"
    (folder / "BraTS2021_00000_seg.nii.gz").rename(folder / "BraTS2021_00000_seg_AUTOFUSED.nii.gz")
    scan = open_dataset(tmp_path)
    assert only_case(scan).masks == ()
    assert kinds(scan) == ["missing-mask", "unrecognised-mask"]
    assert "BraTS2021_00000_seg_AUTOFUSED.nii.gz" in scan.problems[1].message


def test_two_files_for_one_sequence_and_a_folder_without_a_case(tmp_path: Path) -> None:
    brats_2021(tmp_path)
    touch(tmp_path, "BraTS2021_00000/BraTS2021_00000_t1.nii", "empty/notes.txt", "masks/x_seg.nii.gz")
    scan = open_dataset(tmp_path)
    assert sorted(kinds(scan)) == ["duplicate-file", "no-case", "no-case"]
    assert only_case(scan)


# LIDC


def test_slices_are_in_numeric_order_and_readers_are_masks(tmp_path: Path) -> None:
    case = only_case(open_dataset(lidc(tmp_path)))
    assert (case.id, case.patient, case.labels) == (
        "LIDC-IDRI-0517_nodule-0",
        "LIDC-IDRI-0517",
        {255: "nodule"},
    )
    assert names(case, "CT") == [f"slice-{k}.png" for k in range(11)]
    assert [mask.files[10].parent.name for mask in case.masks] == ["mask-0", "mask-1", "mask-2", "mask-3"]
    assert [file.name for file in case.masks[3].files] == names(case, "CT")


def test_nodules_of_one_patient_share_it(tmp_path: Path) -> None:
    lidc(tmp_path)
    lidc(tmp_path, "LIDC-IDRI-0517/nodule-1")
    assert {case.patient for case in open_dataset(tmp_path).cases} == {"LIDC-IDRI-0517"}
    assert len(open_dataset(tmp_path / "LIDC-IDRI-0517").cases) == 2


def test_a_reader_without_a_slice_is_left_out(tmp_path: Path) -> None:
    lidc(tmp_path)
    (tmp_path / "LIDC-IDRI-0517/nodule-0/mask-2/slice-7.png").unlink()
    scan = open_dataset(tmp_path)
    assert kinds(scan) == ["missing-mask-slice"]
    assert "mask-2 has no slice 7" in scan.problems[0].message
    assert [mask.files[0].parent.name for mask in only_case(scan).masks] == ["mask-0", "mask-1", "mask-3"]


def test_a_slice_without_image_leaves_a_gap(tmp_path: Path) -> None:
    lidc(tmp_path, slices=4, readers=1)
    (tmp_path / "LIDC-IDRI-0517/nodule-0/images/slice-2.png").unlink()
    scan = open_dataset(tmp_path)
    assert kinds(scan) == ["slice-gap", "missing-image-slice"]
    assert [file.name for file in only_case(scan).masks[0].files] == [
        "slice-0.png",
        "slice-1.png",
        "slice-3.png",
    ]


def test_no_readers_and_no_images(tmp_path: Path) -> None:
    lidc(tmp_path, readers=0)
    (tmp_path / "LIDC-IDRI-0517/nodule-1").mkdir()
    scan = open_dataset(tmp_path)
    assert sorted(kinds(scan)) == ["missing-mask", "no-case"]
    assert only_case(scan).masks == ()


# LGG


def test_components_are_sequences(tmp_path: Path) -> None:
    case = only_case(open_dataset(lgg(tmp_path / "kaggle_3m").parent))
    assert {channel: ref.component for channel, ref in case.images.items()} == {
        "T1": 0,
        "T1ce": 2,
        "FLAIR": 1,
    }
    assert (case.id, case.patient, case.site) == ("TCGA_CS_4942_19970222", "TCGA_CS_4942", "CS")
    assert names(case, "T1") == [f"{case.id}_{k}.tif" for k in range(1, 12)]
    assert [file.name for file in case.masks[0].files] == [f"{case.id}_{k}_mask.tif" for k in range(1, 12)]
    assert case.masks[0].component is None


def test_one_missing_mask_takes_the_truth_of_the_case(tmp_path: Path) -> None:
    case = "TCGA_CS_4942_19970222"
    lgg(tmp_path)
    (tmp_path / case / f"{case}_3_mask.tif").unlink()
    scan = open_dataset(tmp_path)
    assert kinds(scan) == ["missing-mask-slice"]
    assert only_case(scan).masks == ()


def test_missing_masks_and_images(tmp_path: Path) -> None:
    first, second, third = (f"TCGA_DU_000{n}_20000101" for n in range(3))
    for case in (first, second):
        lgg(tmp_path, case, slices=3)
    for k in (1, 2, 3):
        (tmp_path / first / f"{first}_{k}_mask.tif").unlink()
    (tmp_path / second / f"{second}_2.tif").unlink()
    (tmp_path / third).mkdir()
    scan = open_dataset(tmp_path)
    assert kinds(scan) == ["missing-mask", "slice-gap", "missing-image-slice", "no-case"]
    assert len(scan.cases) == 2


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "layout", "cases", "patients"),
    [("lgg", "lgg", 32, 32), ("lidc_slices", "lidc_slices", 347, 120), ("brats_layout", "brats", 2, 2)],
)
def test_real_data_sets_are_recognised(
    shared_data: Path, folder: str, layout: str, cases: int, patients: int
) -> None:
    if not (shared_data / folder).is_dir():
        pytest.skip(f"no {folder} among the real data")
    scan = open_dataset(shared_data / folder)
    assert scan.layout == layout
    assert len(scan.cases) == cases
    assert len({case.patient for case in scan.cases}) == patients
