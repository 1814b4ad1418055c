"""De-identification: what was planted is nowhere in what is written, and what is needed is all there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from conformant import ROOT, TURNED, slice_header, write_enhanced, write_slices
from oncoseg.errors import DataError, RunError
from oncoseg.io.dicom.deidentify import deidentify, deidentify_folder
from oncoseg.io.dicom.deidentify.keep import KEPT
from oncoseg.io.dicom.deidentify.pseudonyms import LEAST_DAYS, MOST_DAYS, Pseudonyms
from oncoseg.io.dicom.deidentify.terms import cleaned_terms
from oncoseg.io.dicom.deidentify.words import all_known, known_words
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.io.dicom.rtstruct import open_rtstruct
from oncoseg.io.dicom.rtstruct_writer import write_rtstruct
from oncoseg.io.dicom.seg import open_seg
from oncoseg.io.dicom.seg_writer import write_seg
from oncoseg.io.dicom.survey import find_series
from oncoseg.io.dicom.voxels import read_series
from outside import dicom_errors

SECRET = b"1" * 32
TEXTS = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE")
BYTES = ("OB", "OW", "OF", "OD", "OL", "OV", "UN")

PLANTED = b"planted"
PLANTED_DATE = b"19610203"


def the_file(folder: Path) -> Path:
    (file,) = folder.rglob("*.dcm")
    return file


def converted(source: Path, out: Path) -> list[Path]:
    return list(deidentify_folder(source, out, SECRET).written)


def traces(path: Path) -> list[bytes]:
    """What of the planted is in a file, in any case of letters or two bytes per letter."""
    content = path.read_bytes().lower()
    wide = b"".join(bytes([letter, 0]) for letter in PLANTED)
    return [what for what in (PLANTED, PLANTED_DATE, ROOT.encode(), wide) if what in content]


# what stays


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_voxels_and_geometry_stay(tmp_path: Path, modality: str) -> None:
    write_slices(tmp_path / "source", (9, 7, 5), modality=modality, cosines=TURNED)
    converted(tmp_path / "source", tmp_path / "out")
    assert_same_volume(tmp_path / "source", tmp_path / "out")


def test_voxels_and_geometry_of_multi_frame_files_stay(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "source", (9, 7, 5), cosines=TURNED)
    converted(tmp_path / "source", tmp_path / "out")
    assert_same_volume(tmp_path / "source", tmp_path / "out")


def assert_same_volume(one: Path, other: Path) -> None:
    (first,), (second,) = (find_series(folder, salt=SECRET) for folder in (one, other))
    np.testing.assert_array_equal(read_series(first).array, read_series(second).array)
    np.testing.assert_array_equal(first.affine_ras, second.affine_ras)
    assert first.modality == second.modality


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dciodvfy_finds_no_error_in_images(tmp_path: Path, modality: str) -> None:
    write_slices(tmp_path / "source", (8, 6, 1), modality=modality)
    (written,) = converted(tmp_path / "source", tmp_path / "out")
    assert dicom_errors(written) == []


def test_dciodvfy_finds_no_new_error_in_multi_frame_images(tmp_path: Path) -> None:
    source = write_enhanced(tmp_path / "source", (9, 7, 5))
    (written,) = converted(tmp_path / "source", tmp_path / "out")
    assert set(dicom_errors(written)) <= set(dicom_errors(source))


def test_it_says_what_was_done() -> None:
    cleaned = deidentify(slice_header(), SECRET)
    assert cleaned.PatientIdentityRemoved == "YES"
    assert cleaned.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [code.CodeValue for code in cleaned.DeidentificationMethodCodeSequence] == [
        "113100",
        "113105",
        "113107",
    ]
    assert cleaned.PatientName == cleaned.PatientID
    assert (cleaned.PatientBirthDate, cleaned.PatientSex, cleaned.AccessionNumber) == ("", "", "")


def test_the_original_is_not_changed() -> None:
    header = slice_header()
    before = header.to_json()
    deidentify(header, SECRET)
    assert header.to_json() == before


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("Ax T1 FLAIR +C Mueller 12.03.1961", "Ax T1 FLAIR C"),
        ("t2_tse_tra_p2_3mm", "t2 tse tra p2 3mm"),
        ("CT Thorax B40f", "CT Thorax B40f"),
        ("Dr. Doe's protocol", "protocol"),
        ("03.02.61", ""),
        ("PAT4711", ""),
        ("Müller", ""),
        ("", ""),
    ],
)
def test_known_words_stay(text: str, stays: str) -> None:
    assert known_words(text) == stays
    assert deidentify(slice_header(SeriesDescription=text), SECRET).SeriesDescription == stays


@pytest.mark.parametrize(
    ("name", "whole"),
    [("GTV-1", True), ("Lung_Left", True), ("GTV Doe", False), ("", False), ("GTV;1", False)],
)
def test_names_of_known_words_stay_as_they_are(name: str, whole: bool) -> None:
    assert all_known(name) == whole


def test_terms_are_the_dictionarys() -> None:
    def term(value: str, scheme: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "Planted"
        item.MappingResourceName = "Planted"
        return item

    known, old, unknown = cleaned_terms(
        [term("108369006", "SCT"), term("T-62000", "SRT"), term("Planted", "99XYZ")]
    )
    assert (known.CodeValue, known.CodeMeaning) == ("108369006", "Neoplasm")
    assert (old.CodeValue, old.CodingSchemeDesignator, old.CodeMeaning) == ("10200004", "SCT", "Liver")
    assert (unknown.CodeValue, unknown.CodingSchemeDesignator) == ("removed", "99ONCOSEG")
    assert "Planted" not in str([known, old, unknown])


# pseudonyms


def test_files_of_one_patient_agree_and_others_do_not() -> None:
    one, two = (deidentify(slice_header(n, StudyDate=f"2024050{n + 1}"), SECRET) for n in range(2))
    other = deidentify(slice_header(PatientID="another"), SECRET)
    resalted = deidentify(slice_header(), b"2" * 32)
    assert one.PatientID == two.PatientID
    assert one.StudyInstanceUID == two.StudyInstanceUID != resalted.StudyInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert len({one.PatientID, other.PatientID, resalted.PatientID}) == 3
    assert int(two.StudyDate) - int(one.StudyDate) in (1, 70, 71, 72, 73, 8870)  # the next day
    same_issuer = deidentify(slice_header(IssuerOfPatientID="elsewhere"), SECRET)
    assert same_issuer.PatientID != one.PatientID


def test_without_a_patient_id_a_study_is_a_patient() -> None:
    one, two, other = (
        deidentify(slice_header(n, PatientID=None, StudyInstanceUID=f"{ROOT}{study}"), SECRET)
        for n, study in ((0, 2), (1, 2), (0, 8))
    )
    assert one.PatientID == two.PatientID != other.PatientID


def test_dates_keep_their_distance() -> None:
    from datetime import datetime

    pseudonyms = Pseudonyms("P1", SECRET)

    def day(text: str) -> datetime:
        return datetime.strptime(pseudonyms.date(text), "%Y%m%d")

    assert (day("20240301") - day("20240229")).days == 1
    assert (day("20250101") - day("20240101")).days == 366
    assert LEAST_DAYS <= (datetime(2024, 2, 29) - day("20240229")).days <= MOST_DAYS
    assert pseudonyms.date_time("20240229101112.5+0100") == pseudonyms.date("20240229") + "101112.5"
    assert pseudonyms.date("2024.02.29") == pseudonyms.date("20240229")
    for damaged in ("", "2024", "20240230", "Planted", "00010101"):
        assert pseudonyms.date(damaged) == ""
    for damaged in ("2024", "202402", "Planted"):
        assert pseudonyms.date_time(damaged) == ""


def test_uids_are_hashes_and_the_standards_own_stay() -> None:
    pseudonyms = Pseudonyms("P1", SECRET)
    assert pseudonyms.uid("1.2.840.10008.1.2") == "1.2.840.10008.1.2"
    # not every UID of that beginning is the standard's
    for own in (f"{ROOT}1", "1.2.840.10008.4711.19610203"):
        replaced = pseudonyms.uid(own)
        assert replaced.startswith("2.25.")
        assert len(replaced) <= 64
        assert replaced == Pseudonyms("P2", SECRET).uid(own)
    assert pseudonyms.uid("") == ""


# masks and their images


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_masks_still_belong_to_their_images(tmp_path: Path, kind: str) -> None:
    write, read = {"seg": (write_seg, open_seg), "rtstruct": (write_rtstruct, open_rtstruct)}[kind]
    write_slices(tmp_path / "source" / "images", (16, 12, 5), cosines=TURNED)
    (series,) = find_series(tmp_path / "source" / "images", salt=SECRET)
    labels = np.random.default_rng(0).integers(0, 3, series.grid, np.uint8)
    names = {1: "tumour", 2: "tumour of Planted"}
    write(tmp_path / "source" / "mask.dcm", labels, series, names, Algorithm("0.1.0", {"note": "planted"}))
    files = converted(tmp_path / "source", tmp_path / "out")
    assert [traces(file) for file in files] == [[]] * 6
    (new_series,) = find_series(tmp_path / "out", salt=SECRET)
    (mask,) = {*files} - {*new_series.files}
    assert dicom_errors(mask) == []
    structures = read(mask)
    assert structures.series_uids == (new_series.uid,)
    assert [each.name for each in structures.structures] == ["tumour", "tumour of 2"]
    for value, structure in enumerate(structures.structures, start=1):
        inside = structures.draw(structure, new_series).inside
        np.testing.assert_array_equal(inside, labels == value)


# folders


def report(path: Path) -> None:
    """A structured report: text alone."""
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", f"{ROOT}8"
    file.PatientID, file.StudyInstanceUID, file.SeriesInstanceUID = "PLANTED-ID", f"{ROOT}2", f"{ROOT}9"
    file.Modality = "SR"
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "planted report"
    file.ContentSequence = [item]
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, file, enforce_file_format=True)


def test_what_cannot_be_cleaned_is_left_out_and_counted(tmp_path: Path) -> None:
    source = tmp_path / "planted"
    write_slices(source / "a", (8, 6, 2))
    write_slices(source / "b", (8, 6, 3), BurnedInAnnotation="YES")
    write_slices(source / "c", (8, 6, 1), ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    write_slices(source / "d", (8, 6, 1), SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    write_slices(source / "e", (8, 6, 1), SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
    write_slices(source / "f", (8, 6, 1), SOPClassUID=f"{ROOT}4711")
    write_slices(source / "g", (8, 6, 1), edit=lambda header: setattr(header, "Rows", 600))
    report(source / "report.dcm")
    (source / "notes.txt").write_text("planted")
    done = deidentify_folder(source, tmp_path / "out", SECRET)
    assert (len(done.written), done.patients) == (2, 1)
    reasons = "\n".join(f"{count} {reason}" for reason, count in done.left_out.items())
    for count, reason in (
        *(
            (3, "text is drawn into the pixels"),
            (1, "it is a picture of a screen"),
            (1, "secondary capture cannot"),
        ),
        *((1, "ultrasound cannot"), (1, "an object of another kind cannot"), (1, "its pixels are truncated")),
        *((1, "SR cannot be de-identified"), (1, "no DICOM file")),
    ):
        assert f"{count} {reason}" in reasons
    assert "planted" not in reasons.lower()
    assert ROOT not in reasons
    assert all(traces(file) == [] for file in (tmp_path / "out").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"BodyPartExamined": "HEAD", "SliceThickness": 1}, True),
        ({"StudyDescription": "MR brain", "SliceThickness": 1}, True),
        ({"BodyPartExamined": "HEAD", "SliceThickness": 5}, False),
        ({"BodyPartExamined": "CHEST", "SliceThickness": 1}, False),
        ({"Modality": "MR", "SliceThickness": 1}, True),
        ({"Modality": "MR", "SliceThickness": 1, "BodyPartExamined": "LEG"}, False),
    ],
)
def test_faces_are_warned_of(tmp_path: Path, changes: dict[str, object], warned: bool) -> None:
    thickness = float(str(changes["SliceThickness"]))
    write_slices(tmp_path / "source", (8, 6, 4), spacing_mm=(1, 1, thickness), **changes)
    done = deidentify_folder(tmp_path / "source", tmp_path / "out", SECRET)
    assert [text.startswith("4 file(s) are, or may be, thin slices of heads") for text in done.warnings] == [
        True
    ] * warned


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_header_of_their_own(tmp_path: Path, implicit: bool) -> None:
    write_slices(tmp_path / "source", (8, 6, 1))
    file = dcmread(the_file(tmp_path / "source"))
    (tmp_path / "bare").mkdir()
    del file.file_meta
    file.preamble = None
    dcmwrite(tmp_path / "bare" / "a.dcm", file, implicit_vr=implicit, little_endian=True)
    (written,) = converted(tmp_path / "bare", tmp_path / "out")
    assert traces(written) == []
    assert dcmread(written).PixelData == file.PixelData


def test_the_same_call_goes_on_where_it_was(tmp_path: Path) -> None:
    write_slices(tmp_path / "source", (8, 6, 4))
    seen: list[tuple[int, int]] = []

    class Stopped(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        deidentify_folder(tmp_path / "source", tmp_path / "out", SECRET, stop)
    assert seen == [(1, 4), (2, 4)]
    assert len(converted(tmp_path / "source", tmp_path / "out")) == 4
    with pytest.raises(RunError, match="is not empty"):
        deidentify_folder(tmp_path / "source", tmp_path / "out", b"2" * 32)


@pytest.mark.parametrize("out", [".", "source", "source/out"])
def test_output_and_source_lie_apart(tmp_path: Path, out: str) -> None:
    write_slices(tmp_path / "source", (8, 6, 1))
    with pytest.raises(RunError, match="overlap"):
        deidentify_folder(tmp_path / "source", tmp_path / out, SECRET)


def test_other_files_are_not_mixed_with(tmp_path: Path) -> None:
    write_slices(tmp_path / "source", (8, 6, 1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.dcm").write_bytes(b"")
    with pytest.raises(RunError, match="is not empty"):
        deidentify_folder(tmp_path / "source", tmp_path / "out", SECRET)
    with pytest.raises(DataError, match="does not exist"):
        deidentify_folder(tmp_path / "nowhere", tmp_path / "new", SECRET)


def test_a_secret_is_made_once_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_slices(tmp_path / "source", (8, 6, 1))
    names = [deidentify_folder(tmp_path / "source", tmp_path / out).written[0].name for out in ("a", "b")]
    assert names[0] == names[1]
    (secret,) = (file for file in (tmp_path / "config").rglob("*") if file.is_file())
    if os.name == "posix":
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    content = secret.read_bytes()
    for file in (tmp_path / "a").rglob("*"):
        assert not file.is_file() or content not in file.read_bytes()


# the list


def test_only_what_can_be_handled_is_on_the_list() -> None:
    """Free text would be dropped for its kind; on the list it would only mislead."""
    kinds = {keyword: dictionary_VR(tag_for_keyword(keyword)).split(" or ") for keyword in KEPT}
    free = [keyword for keyword, some in kinds.items() if {*some} & {*TEXTS}]
    assert free == []
    bulk = [keyword for keyword, some in kinds.items() if {*some} & {*BYTES}]
    assert bulk == []


# real images


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["nsclc_rtstruct", "lidc_dicom_xml", "pet_dicom_seg", "sts_ct_mr/dicom"])
def test_real_folders(folder: str, shared_data: Path, tmp_path: Path) -> None:
    files = {file for file in (shared_data / folder).rglob("*") if file.is_file()}
    done = deidentify_folder(shared_data / folder, tmp_path / "out", SECRET)
    before, after = (dict(problems(some)) for some in (sorted(files), done.written))
    for kind, errors in after.items():
        assert errors <= before[kind]
    for one, other in zip(
        *(
            sorted(find_series(path, salt=SECRET), key=lambda each: (each.modality, each.grid))
            for path in (shared_data / folder, tmp_path / "out")
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(read_series(one).array, read_series(other).array)
        np.testing.assert_array_equal(one.affine_ras, other.affine_ras)


def problems(files: list[Path]) -> Iterator[tuple[str, set[str]]]:
    """Of the first file of each kind: what dciodvfy finds, without the values that it quotes."""
    seen = set()
    for file in files:
        try:
            kind = str(dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"]).SOPClassUID)
        except Exception:
            continue
        if kind not in seen:
            seen.add(kind)
            yield kind, {error.split("<2.25")[0].split("<1.3")[0] for error in dicom_errors(file)}
