"""Finding DICOM series wherever they lie, and naming what was left out."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_files import multi_frame, numbered, slices, uid, write
from oncoseg.errors import DataError
from oncoseg.io.dicom.listing import rows
from oncoseg.io.dicom.patients import user_salt
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import read_series

SALT = b"x" * 32
GRID = (4, 5, 6)
EXPECTED = numbered(GRID).astype(int) - 1024


def test_files_of_any_name_at_any_depth(tmp_path: Path) -> None:
    first, *rest = slices(numbered(GRID))
    write([first], tmp_path / "a" / "b" / "c", ["IM_0001"])
    write(rest, tmp_path / "d", ["x.txt", "y.nii", "1.2.3", ".hidden", "Z"])
    (tmp_path / "notes.txt").write_text("these are no images")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"\x08\x00")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" + bytes(500))
    found = survey(tmp_path, salt=SALT)
    (series,) = found.series
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)
    assert (found.not_dicom, found.left_out, found.annotations) == (4, [], [])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_ways_of_writing_numbers(tmp_path: Path, syntax: str) -> None:
    big = syntax == ExplicitVRBigEndian
    for k, dataset in enumerate(slices(numbered(GRID))):
        dataset.file_meta.TransferSyntaxUID = syntax
        if big:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.set_original_encoding(None, None)  # type: ignore[arg-type]
        dataset.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)


def test_deflated_files(tmp_path: Path) -> None:
    for k, dataset in enumerate(slices(numbered(GRID))):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        dataset.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)


@pytest.mark.parametrize("meta", [False, True])
def test_files_without_the_preamble(tmp_path: Path, meta: bool) -> None:
    for file in write(slices(numbered(GRID)), tmp_path):
        data = file.read_bytes()
        length = int.from_bytes(data[140:144], "little")
        file.write_bytes(data[132:] if meta else data[144 + length :])
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    datasets = slices(numbered(GRID))
    for dataset in datasets:
        dataset.add_new(0x0009_0010, "LO", "PRIVATE")
        dataset.add_new(0x0009_1001, "OB", bytes(200_000))
    write(datasets, tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)


def test_studies_and_patients_are_kept_apart(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path / "a")
    write(slices(numbered(GRID), name="b"), tmp_path / "b")
    write(slices(numbered(GRID), StudyInstanceUID=uid("another study")), tmp_path / "c")
    write(slices(numbered(GRID), PatientID="someone else"), tmp_path / "d")
    series = find_series(tmp_path, salt=SALT)
    assert len(series) == 4
    assert len({each.patient for each in series}) == 2
    assert [each.number for each in series] == [3] * 4


def test_the_key_of_a_patient_is_stable_and_tells_nothing(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path)
    (one,), (again,) = find_series(tmp_path, salt=SALT), find_series(tmp_path, salt=SALT)
    (other,) = find_series(tmp_path, salt=b"y" * 32)
    # HMAC-SHA-256 of '["", "secret-id"]' with 32 times x as the key, from a separate program
    assert one.patient == again.patient == "7b14b9ba7f52f933"
    assert other.patient != one.patient
    assert "secret" not in repr(one).lower()


def test_the_issuer_belongs_to_the_identity(tmp_path: Path) -> None:
    write(slices(numbered(GRID), name="a", IssuerOfPatientID="here"), tmp_path / "a")
    write(slices(numbered(GRID), name="b", IssuerOfPatientID="there"), tmp_path / "b")
    assert len({each.patient for each in find_series(tmp_path, salt=SALT)}) == 2


def test_without_a_patient_the_study_is_one(tmp_path: Path) -> None:
    write(slices(numbered(GRID), name="a", PatientID=None), tmp_path / "a")
    write(slices(numbered(GRID), name="b", PatientID=""), tmp_path / "b")
    write(slices(numbered(GRID), name="c", PatientID=None, StudyInstanceUID=uid("other")), tmp_path / "c")
    series = find_series(tmp_path, salt=SALT)
    assert len({each.patient for each in series}) == 2
    assert all("no PatientID: the study is taken as a patient of its own" in each.remarks for each in series)


def test_the_user_s_salt_is_made_once_and_readable_by_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    salt = user_salt()
    assert len(salt) == 32
    assert user_salt() == salt
    (file,) = (tmp_path / "oncoseg").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    with pytest.raises(DataError, match="is damaged; expected 32 random bytes"):
        user_salt()


def test_no_salt_is_made_where_there_is_no_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "notes.txt").write_text("nothing")
    assert find_series(tmp_path) == []
    assert not (tmp_path / "config").exists()


def _object(sop_class: str, folder: Path, name: str, modality: str) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid(name)
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid(name)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series of", name)
    dataset.Modality, dataset.PatientID = modality, "secret-id"
    dataset.SeriesDescription = f"a {name}"
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / name, enforce_file_format=True)


def test_annotations_are_listed_apart(tmp_path: Path) -> None:
    storage = "1.2.840.10008.5.1.4.1.1."
    for name, sop_class in {"RTSTRUCT": "481.3", "SEG": "66.4", "SR": "88.33"}.items():
        _object(storage + sop_class, tmp_path, name, name)
    write(slices(numbered(GRID)), tmp_path / "ct")
    found = survey(tmp_path, salt=SALT)
    assert [(each.kind, each.file.name, each.sop_instance_uid) for each in found.annotations] == [
        (name, name, uid(name)) for name in ("RTSTRUCT", "SEG", "SR")
    ]
    assert {each.patient for each in found.annotations} == {found.series[0].patient}
    assert found.left_out == []


def test_what_is_no_volume_is_left_out_and_named(tmp_path: Path) -> None:
    storage = "1.2.840.10008.5.1.4.1.1."
    for name, sop_class in {"capture": "7", "dose": "88.67", "state": "11.1", "plan": "481.5"}.items():
        _object(storage + sop_class, tmp_path, name, "OT")
    _object("1.2.3.4", tmp_path, "unheard of", "OT")
    write(
        slices(numbered(GRID), name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "a"
    )
    write(slices(numbered(GRID), name="burned", BurnedInAnnotation="YES"), tmp_path / "b")
    write(slices(numbered(GRID), name="tiles", ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]), tmp_path / "c")
    found = survey(tmp_path, salt=SALT)
    assert found.series == []
    assert sorted(each.kind for each in found.left_out) == [
        *("RT plan", "SOP class 1.2.3.4", "burned-in text", "dose report", "localiser"),
        *("mosaic", "presentation state", "secondary capture"),
    ]


def test_damaged_files_are_named_and_cast_doubt_on_their_neighbours(tmp_path: Path) -> None:
    files = write(slices(numbered(GRID)), tmp_path)
    files[-1].write_bytes(files[-1].read_bytes()[:200] + b"\xff" * 300)
    found = survey(tmp_path, salt=SALT)
    (left_out,) = found.left_out
    assert (left_out.kind, left_out.files) == ("damaged", (files[-1],))
    assert found.series[0].grid == (4, 5, 5)
    assert found.series[0].remarks == ("damaged files lie beside its own: slices may be missing at its ends",)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    write(slices(numbered(GRID)), tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert len(find_series(tmp_path, salt=SALT)) == 1


def test_a_series_without_a_uid_is_refused(tmp_path: Path) -> None:
    write(slices(numbered(GRID), SeriesInstanceUID=None), tmp_path)
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert "SeriesInstanceUID is missing, so that nothing says which belong together" in left_out.reason


def test_a_single_file_and_nothing(tmp_path: Path) -> None:
    (file,) = write([multi_frame(numbered(GRID))], tmp_path)
    assert find_series(file, salt=SALT)[0].grid == GRID
    with pytest.raises(
        DataError, match="does not exist; expected a folder of DICOM files, a DICOMDIR or a zip"
    ):
        survey(tmp_path / "nothing")


def test_rows_to_show(tmp_path: Path) -> None:
    write(slices(numbered(GRID), SliceThickness=3), tmp_path / "a")
    write(
        slices(numbered(GRID), name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "b"
    )
    _object("1.2.840.10008.5.1.4.1.1.481.3", tmp_path, "contours", "RTSTRUCT")
    volume, annotation, scout = rows(survey(tmp_path, salt=SALT))
    assert volume == {
        "what": "volume",
        "number": "3",
        "modality": "CT",
        "size": "4×5×6",
        "spacing_mm": "0.5×0.8×2",
        "files": "6",
        "description": "description of series",
        "remarks": "",
    }
    assert (annotation["what"], annotation["modality"]) == ("annotation", "RTSTRUCT")
    assert (scout["what"], scout["remarks"]) == ("localiser", "single slices that plan a scan, no volume")


def _dicomdir(folder: Path, listed: list[list[str]]) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.3.10", uid("directory")
    directory = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    directory.DirectoryRecordSequence = []
    with disable_value_validation():
        for parts in listed:
            record = Dataset()
            record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
            directory.DirectoryRecordSequence.append(record)
        directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_a_dicomdir_says_which_files(tmp_path: Path) -> None:
    names = ["IM1", "IM2", "IM3", "im4", "im5", "im6"]  # the last three as a disc without upper case has them
    write(slices(numbered(GRID)), tmp_path / "DICOM" / "ST1", names)
    write(slices(numbered(GRID), name="not listed"), tmp_path / "other")
    listed = [["DICOM", "ST1", name.upper()] for name in names]
    (series,) = find_series(_dicomdir(tmp_path, listed), salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], EXPECTED)
    assert len(find_series(tmp_path, salt=SALT)) == 2  # the folder is searched whole


def test_files_that_a_dicomdir_lists_and_that_are_gone_are_named(tmp_path: Path) -> None:
    write(slices(numbered(GRID))[:5], tmp_path)
    found = survey(_dicomdir(tmp_path, [[f"{k:03}.dcm"] for k in range(6)]), salt=SALT)
    (left_out,) = found.left_out
    assert left_out.kind == "damaged"
    assert "005.dcm" in left_out.reason
    assert "No such file" in left_out.reason


@pytest.mark.parametrize(
    "parts", [["..", "secret"], ["/etc", "passwd"], [".", "IM1"], ["C:", "IM1"], ["a/b"]]
)
def test_a_dicomdir_cannot_name_files_elsewhere(tmp_path: Path, parts: list[str]) -> None:
    with pytest.raises(DataError, match="names files outside its own folder"):
        survey(_dicomdir(tmp_path, [parts]))


def test_a_damaged_dicomdir(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    with pytest.raises(DataError, match="name the folder instead"):
        survey(tmp_path / "DICOMDIR")


def test_nothing_of_the_patient_is_in_what_is_kept(tmp_path: Path) -> None:
    (file,) = write([multi_frame(numbered(GRID))], tmp_path)
    assert dcmread(file).PatientName == "Secret^Name"
    (series,) = find_series(file, salt=SALT)
    assert "secret" not in repr(series).lower()
    assert "secret" not in repr(read_series(series).header).lower()


def test_looking_through_files_tells_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(120):
        (tmp_path / "in" / f"{number}.txt").write_text("no image")
    told: list[tuple[int, int]] = []
    survey(tmp_path / "in", salt=SALT, progress=lambda *at: told.append(at))
    assert told == [(50, 120), (100, 120), (120, 120)]
