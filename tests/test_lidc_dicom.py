"""The layout `lidc_dicom`: where images and readings may lie, and what is reported about them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from oncoseg import io, processes
from oncoseg.datasets import Scan, lidc_dicom, open_dataset
from oncoseg.datasets.lidc_nodules import nodules_of
from oncoseg.errors import DataError
from oncoseg.inspect import inspect_dataset
from oncoseg.prepare import Settings, read_truth
from oncoseg.recipe import Modality, Preparation
from oncoseg.store import FileHashes
from test_lidc_nodules import REAL_GOLDEN
from tiny_dicom import image_uid, write_ct
from tiny_lidc import Marked, Roi, Session, border, write_lidc_xml

GRID = (12, 10, 6)
SERIES = "1.2.3.1"


def nodule(k: int, low: int = 3, high: int = 6, series: str = SERIES, name: str = "1") -> Marked:
    return Marked([Roi(image_uid(k, series), 30 + 2.5 * k, border((low, low), (high, high)))], name=name)


FOUR = [Session([nodule(2)]), Session([nodule(2, 3, 5)]), Session([]), Session([nodule(3)])]


def write_patient(
    root: Path,
    folder: str = "LIDC-IDRI-0007/01-01-2000-30178/3000566-03192",
    *,
    series: str = SERIES,
    sessions: Sequence[Session] | None = FOUR,
    patient: str = "LIDC-IDRI-0007",
) -> tuple[Path, ...]:
    """A CT of noise with its reading beside it."""
    voxels = np.random.default_rng(0).integers(-900, 100, GRID)
    files = write_ct(root / folder, voxels, series=series, patient=patient)
    if sessions is not None:
        write_lidc_xml(root / folder / "069.xml", series, sessions)
    return files


def kinds(scan: Scan) -> list[tuple[str, str | None]]:
    return [(problem.kind, problem.case) for problem in scan.problems]


def test_deep_folders_with_the_reading_beside_the_images(tmp_path: Path) -> None:
    files = write_patient(tmp_path)
    scan = open_dataset(tmp_path)
    (case,) = scan.cases
    assert (scan.layout, case.id, case.patient, scan.problems) == (
        "lidc_dicom",
        "LIDC-IDRI-0007",
        "LIDC-IDRI-0007",
        (),
    )
    assert set(case.images["CT"].files) == set(files)
    assert [ref.structures for ref in case.masks] == [((f"reader {n}", 1),) for n in (1, 2, 3, 4)]
    masks = [io.read(ref).array[0] for ref in case.masks]
    assert [int(mask.sum()) for mask in masks] == [16, 9, 0, 16]
    assert masks[0][3:7, 3:7, 2].all()
    assert io.read(case.images["CT"]).grid == GRID


def test_readings_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_patient(tmp_path / "LIDC-IDRI", sessions=None)
    write_lidc_xml(tmp_path / "tcia-lidc-xml/157/158.xml", SERIES, FOUR)
    write_lidc_xml(tmp_path / "tcia-lidc-xml/157/159.xml", "9.9", FOUR)  # of a patient who is not here
    scan = open_dataset(tmp_path)
    (case,) = scan.cases
    assert (len(case.masks), scan.problems) == (4, ())
    alone = open_dataset(tmp_path / "LIDC-IDRI")
    assert (alone.cases[0].masks, kinds(alone)) == ((), [("missing-mask", "LIDC-IDRI-0007")])


def test_a_thousand_patients_are_recognised_by_the_first(tmp_path: Path) -> None:
    for number in range(1, 200):
        (tmp_path / f"LIDC-IDRI-{number:04}").mkdir()
    write_patient(tmp_path, "LIDC-IDRI-0001/a/b", sessions=None)
    assert lidc_dicom.recognise(tmp_path)
    (tmp_path / "nodules" / "LIDC-IDRI-0001" / "nodule-0").mkdir(parents=True)
    (tmp_path / "nodules" / "LIDC-IDRI-0001" / "nodule-0" / "slice-0.png").touch()
    assert not lidc_dicom.recognise(tmp_path / "nodules")


def test_chest_x_rays_and_their_readings_are_passed_over(tmp_path: Path) -> None:
    write_patient(tmp_path)
    write_lidc_xml(tmp_path / "LIDC-IDRI-0007/x/070.xml", "1.2.3.4", [], root="IdriReadMessage")
    (x_ray,) = write_ct(tmp_path / "LIDC-IDRI-0007/x", np.zeros((12, 10, 1)), series="1.2.3.4")
    image = dcmread(x_ray)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    image.Modality = "CR"
    image.save_as(x_ray)
    scan = open_dataset(tmp_path)
    assert ([case.id for case in scan.cases], scan.problems) == (["LIDC-IDRI-0007"], ())


def test_two_scans_of_a_patient_are_two_cases_of_one_patient(tmp_path: Path) -> None:
    for number in (1, 2):
        series = f"1.2.3.{number}"
        sessions = [Session([nodule(2, series=series)])] * 4
        write_patient(tmp_path, f"LIDC-IDRI-0007/scan-{number}", series=series, sessions=sessions)
    scan = open_dataset(tmp_path)
    assert {case.id: case.patient for case in scan.cases} == {
        "LIDC-IDRI-0007_1": "LIDC-IDRI-0007",
        "LIDC-IDRI-0007_2": "LIDC-IDRI-0007",
    }


def test_many_patients_are_looked_through_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 5):
        write_patient(tmp_path, f"LIDC-IDRI-{number:04}/a", series=f"1.2.3.{number}", patient="removed")
    alone = open_dataset(tmp_path)
    monkeypatch.setattr(lidc_dicom, "MANY_FOLDERS", 3)
    monkeypatch.setattr(processes, "available_processors", lambda: 2)
    assert open_dataset(tmp_path) == alone
    assert len(alone.cases) == 4


@pytest.mark.parametrize(
    ("folder", "header", "expected"),
    [
        ("LIDC-IDRI-0007/a", "removed", "LIDC-IDRI-0007"),
        ("downloaded", "LIDC-IDRI-0008", "LIDC-IDRI-0008"),
        ("LIDC-IDRI-0007/a", "LIDC-IDRI-0008", "LIDC-IDRI-0008"),
    ],
)
def test_the_patient_is_the_collections_number(
    tmp_path: Path, folder: str, header: str, expected: str
) -> None:
    write_patient(tmp_path, folder, patient=header)
    assert [case.patient for case in open_dataset(tmp_path).cases] == [expected]


def test_another_identifier_is_hidden(tmp_path: Path) -> None:
    write_patient(tmp_path, "downloaded", patient="Jane^Doe")
    scan = open_dataset(tmp_path)
    assert "Jane" not in repr(scan)
    assert len(scan.cases[0].patient) == 16


def test_marks_in_slices_that_are_not_here_are_reported(tmp_path: Path) -> None:
    small = Marked([Roi("1.2.9", 99.0, [(5, 5)])], {})
    sessions = [
        Session([nodule(2), nodule(9), small], [Roi(image_uid(7), 47.5, [(1, 1)])]),
        Session([], [Roi(image_uid(1), 32.5, [(1, 1)])]),
    ]
    write_patient(tmp_path, sessions=sessions)
    scan = open_dataset(tmp_path)
    (problem,) = scan.problems
    assert (problem.kind, problem.case) == ("missing-image-slice", "LIDC-IDRI-0007")
    assert (
        "1 of 2 outline(s) of nodules and 1 of 1 nodule(s) below 3 mm and 1 of 2 non-nodule(s) are marked in "
        "slices that are not here"
    ) in problem.message


def test_a_reading_that_is_there_twice_is_one_and_the_corrected_one_is_used(tmp_path: Path) -> None:
    write_patient(tmp_path)
    write_lidc_xml(tmp_path / "xml/068.xml", SERIES, FOUR)
    assert open_dataset(tmp_path).problems == ()
    corrected = write_lidc_xml(
        tmp_path / "xml/068-resubmitted-correction.xml", SERIES, [Session([nodule(3)])] * 4
    )
    scan = open_dataset(tmp_path)
    assert kinds(scan) == [("duplicate-mask", "LIDC-IDRI-0007")]
    assert all(ref.files == (corrected,) for ref in scan.cases[0].masks)


def test_of_two_panels_the_first_is_used(tmp_path: Path) -> None:
    write_patient(tmp_path, sessions=FOUR * 2)
    scan = open_dataset(tmp_path)
    assert (len(scan.cases[0].masks), kinds(scan)) == (4, [("surplus-readers", "LIDC-IDRI-0007")])


def test_a_series_with_missing_slices_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write_patient(tmp_path)
    files = write_patient(tmp_path, "LIDC-IDRI-0008/a", series="1.2.3.8", patient="LIDC-IDRI-0008")
    files[2].unlink()
    scan = open_dataset(tmp_path)
    assert [case.id for case in scan.cases] == ["LIDC-IDRI-0007"]
    (problem,) = scan.problems
    assert problem.kind == "no-case"
    assert "1 of 6 slices are missing" in problem.message


def test_damaged_readings_are_reported(tmp_path: Path) -> None:
    write_patient(tmp_path)
    (tmp_path / "b.xml").write_text("<LidcReadMessage><readingSession>")
    (tmp_path / "notes.xml").write_text("<notes/>")
    scan = open_dataset(tmp_path)
    assert kinds(scan) == [("unreadable", None)]
    assert "b.xml is no well-formed XML" in scan.problems[0].message


def test_readers_in_one_file_are_prepared_apart(tmp_path: Path) -> None:
    write_patient(tmp_path)
    (case,) = open_dataset(tmp_path).cases
    settings = Settings.of(Modality(channels=("CT",)), {"tumour": ("*",)}, Preparation(slice_size=(16, 16)))
    hashes = FileHashes(tmp_path / "store")
    alone = {settings.key(replace(case, masks=(ref,)), hashes) for ref in case.masks}
    assert len(alone) == 4


REAL = "lidc_dicom_xml"


@pytest.mark.real_data
def test_a_real_patient_and_the_readers_consensus(shared_data: Path) -> None:
    scan = open_dataset(shared_data / REAL)
    (case,) = scan.cases
    assert (scan.layout, case.id, case.patient) == ("lidc_dicom", "LIDC-IDRI-0314", "LIDC-IDRI-0314")
    assert len(case.images["CT"].files) == 43
    (problem,) = scan.problems
    assert "35 of 39 non-nodule(s) are marked in slices that are not here" in problem.message
    image = io.read(case.images["CT"])
    settings = Settings.of(Modality(channels=("CT",)), {"tumour": ("*",)}, Preparation())
    assert read_truth(case, settings, image).sum() == REAL_GOLDEN["consensus"]["0.5"]
    (nodule_found,) = nodules_of(case)
    inside = image.array[0][tuple(nodule_found.consensus(0.5).T)]
    assert (
        -200 < np.median(inside) < 100
    )  # soft tissue, in Hounsfield units; the lung around it has about −850


@pytest.mark.real_data
def test_inspecting_a_real_patient(shared_data: Path) -> None:
    found = inspect_dataset(shared_data / REAL, workers=1)
    (row,) = found.cases
    assert (row.readers, row.readers_marking, row.majority_voxels) == (4, 4, 3398)
    assert (row.union_voxels, row.foreground_slices) == (4196, 18)
    assert row.grid == (512, 512, 43)
    assert [problem.kind for problem in found.problems] == ["missing-image-slice"]


def test_looking_through_files_tells_how_far_it_is(tmp_path: Path) -> None:
    write_patient(tmp_path / "one")
    write_patient(tmp_path, "LIDC-IDRI-0009", series="1.2.3.9", patient="LIDC-IDRI-0009")
    told: list[tuple[int, int]] = []
    open_dataset(tmp_path, progress=lambda *at: told.append(at))
    slices, texts = GRID[2], 2
    assert told == [(texts + slices, texts + 2 * slices), (texts + 2 * slices, texts + 2 * slices)]


def test_readings_without_any_image_are_told(tmp_path: Path) -> None:
    for file in write_patient(tmp_path):
        file.unlink()
    with pytest.raises(DataError, match=r"1 series have readings \(XML\), but there is no CT image"):
        open_dataset(tmp_path)
