"""Plain tables of cases, as people write them."""

from pathlib import Path

import pytest

from oncoseg import io
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.datasets.tables import read_table
from oncoseg.errors import DataError
from oncoseg.io import ImageRef
from test_dicom_folder import outline, series, square
from test_indexed_layouts import kinds, touch
from test_itk import segmentation

IMAGES = ("a_ct.nii.gz", "a_mask.nii.gz", "b_ct.nii.gz", "b_mask.nii.gz")


def table(root: Path, *lines: str, name: str = "cases.csv", encoding: str = "utf-8") -> Path:
    touch(root, *IMAGES)
    (root / name).write_bytes("\r\n".join(lines).encode(encoding))
    return root


def only_case(scan: Scan) -> Case:
    (case,) = scan.cases
    return case


def test_a_table_of_everything(tmp_path: Path) -> None:
    scan = open_dataset(
        table(
            tmp_path,
            "case,patient,CT,T1w,label.ann,label.bob,class,site,age",
            "x 1,P,a_ct.nii.gz,b_ct.nii.gz#2,a_mask.nii.gz,b_mask.nii.gz,benign,Ulm,63",
            "",
            "y,Q,b_ct.nii.gz,,,b_mask.nii.gz,,,",
        )
    )
    assert (scan.layout, scan.problems) == ("table", ())
    first, second = scan.cases
    assert (first.id, first.patient, first.target, first.site) == ("x-1", "P", "benign", "Ulm")
    assert first.images == {
        "CT": ImageRef((tmp_path / "a_ct.nii.gz",)),
        "T1": ImageRef((tmp_path / "b_ct.nii.gz",), 2),
    }
    assert [mask.files[0].name for mask in first.masks] == ["a_mask.nii.gz", "b_mask.nii.gz"]
    assert first.labels == {1: "tumour", 255: "tumour"}
    assert (list(second.images), len(second.masks), second.target, second.site) == (["CT"], 1, None, None)
    assert scan.remarks == ("No cell of these columns names an image, so they are not read: age.",)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_spreadsheet_is_understood(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = ("Case,Patient,CT,Label", "Müller,Jörg,a_ct.nii.gz,a_mask.nii.gz")
    root = table(tmp_path, *(line.replace(",", separator) for line in lines), encoding=encoding)
    scan = open_dataset(root)
    assert (only_case(scan).id, only_case(scan).patient) == ("M-ller", "Jörg")
    assert len(only_case(scan).masks) == 1
    assert bool(scan.remarks) == (encoding == "cp1252")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_the_line_that_tells_excel_the_separator_is_no_heading(tmp_path: Path, first: str) -> None:
    root = table(tmp_path, first, "case;patient;CT", "a,1;A;a_ct.nii.gz", "b;;a_ct.nii.gz")
    scan = open_dataset(root)
    assert only_case(scan).id == "a-1"
    (problem,) = scan.problems
    assert problem.message.startswith("cases.csv, line 4: expected a case and its patient")


def test_the_file_itself_may_be_given_and_paths_may_lead_anywhere(tmp_path: Path) -> None:
    touch(tmp_path, "far/image.nii.gz")
    lines = ("case,patient,CT", f"a,A,{tmp_path / 'far' / 'image.nii.gz'}", "b,B,..\\far\\image.nii.gz")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "mine.tsv").write_text("\n".join(lines))
    first, second = open_dataset(tmp_path / "near" / "mine.tsv").cases
    assert first.images["CT"].files[0].samefile(second.images["CT"].files[0])
    with pytest.raises(DataError, match="no known layout"):
        open_dataset(tmp_path / "near")
    with pytest.raises(DataError, match=r"is a file.*table of cases"):
        open_dataset(tmp_path / "far" / "image.nii.gz")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "is empty"),
        (
            ("name,patient,CT", "a,A,a_ct.nii.gz"),
            "lacks the column case; its first line names name, pat",
        ),
        (("case,CT", "a,a_ct.nii.gz"), r"lacks the column patient;.*repeat its name as the patient's"),
        (("id,CT", "a,a_ct.nii.gz"), "lacks the columns case and patient; its first line names id, CT"),
        (("case,patient,CT,mask", "a,A,a_ct.nii.gz,b_ct.nii.gz"), "column mask of files; .* under label"),
        (("case,patient,CT,Labels", "a,A,a_ct.nii.gz,b_ct.nii.gz"), "column Labels of files"),
        (("case,patient,CT,label_ann", "a,A,a_ct.nii.gz,b_ct.nii.gz"), "column label_ann of files"),
        (("case,patient,CT", "a,A,A_CT.nii.gz"), "but a_ct.nii.gz does: capital letters count"),
        (("case,patient,CT",), "names its columns and no case"),
        (("case,patient,age", "a,A,63"), "no column of images.*columns are case, patient, age"),
        (("case,patient,CT,ct", "a,A,a_ct.nii.gz,b_ct.nii.gz"), "two columns named ct"),
        (("case,patient,T1,T1w", "a,A,a_ct.nii.gz,b_ct.nii.gz"), "two columns of the channel T1"),
        (("case,patient,CT", "a,A,a_ct.nii.gz,more"), "line 2, has 4 cells, but there are 3 columns"),
        (("case,patient,CT", 'a,A,"a_ct.nii.gz'), "is no table"),
    ],
)
def test_tables_that_cannot_be_used_are_explained(
    tmp_path: Path, lines: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        open_dataset(table(tmp_path, *lines), "table")


def test_one_bad_line_never_loses_the_others(tmp_path: Path) -> None:
    lines = (
        *(
            "case,patient,CT,T1,label",
            "a,A,a_ct.nii.gz,,a_mask.nii.gz",
            "a,A,b_ct.nii.gz,,",
            ",X,a_ct.nii.gz,,",
        ),
        *("c,C,gone.nii.gz,,", "d,D,a_ct.nii.gz,gone.nii.gz,gone.nii.gz", "e,E,cases.csv,,"),
    )
    scan = open_dataset(table(tmp_path, *lines))
    assert [case.id for case in scan.cases] == ["a", "d"]
    assert sorted(kinds(scan)) == [
        *("duplicate-case", "missing-file", "missing-file", "missing-file", "missing-file"),
        *("no-case", "no-case", "unnamed-case"),
    ]
    assert "cases.csv, line 4" in next(p.message for p in scan.problems if p.kind == "unnamed-case")
    assert "gone.nii.gz does not exist. Paths are relative" in scan.problems[2].message


def test_labels_have_names_beside_the_table(tmp_path: Path) -> None:
    root = table(tmp_path, "case,patient,CT,label", "a,A,a_ct.nii.gz,a_mask.nii.gz")
    for text in (
        '{"background": 0, "liver": 1, "tumour": 2}',
        '{"0": "background", "2": "tumour", "1": "liver"}',
        '{"liver": "1", "tumour": "2"}',
    ):
        (root / "labels.json").write_text(text)
        assert only_case(open_dataset(root)).labels == {1: "liver", 2: "tumour"}
    for text in ("[]", "{", '{"liver": "x"}', '{"liver": null}'):
        (root / "labels.json").write_text(text)
        with pytest.raises(DataError, match="is no map of labels"):
            open_dataset(root)


def test_segments_of_slicer_are_labels_alike_in_all_cases(tmp_path: Path) -> None:
    segmentation(tmp_path / "a.seg.nrrd")
    segmentation(tmp_path / "b.seg.nrrd", lines="Segment0_Name:=tumour\nSegment1_Name:=spleen\n")
    lines = ("case,patient,CT,label", "a,A,a_ct.nii.gz,a.seg.nrrd", "b,B,b_ct.nii.gz,b.seg.nrrd")
    first, second = open_dataset(table(tmp_path, *lines)).cases
    assert first.labels == second.labels == {1: "liver", 2: "spleen", 3: "vessel of liver", 4: "tumour"}
    assert first.masks[0].structures == (("liver", 1), ("vessel of liver", 3), ("tumour", 4))
    assert second.masks[0].structures == (("spleen", 2), ("tumour", 4))
    assert first.masks[0].grid_of == (tmp_path / "a_ct.nii.gz",)
    (tmp_path / "labels.json").write_text('{"tumour": 7}')
    first, _ = open_dataset(tmp_path).cases
    assert (first.labels, first.masks[0].structures) == ({7: "tumour"}, (("tumour", 7),))
    (tmp_path / "labels.json").write_text('{"kidney": 7}')
    scan = open_dataset(tmp_path)
    assert [len(case.masks) for case in scan.cases] == [0, 0]
    assert "marks spleen, tumour, none of which labels.json names" in scan.problems[1].message
    segmentation(tmp_path / "b.seg.nrrd", lines="Segment0_Name:=GTV Jane Doe\nSegment1_Name:=spleen\n")
    assert "marks spleen, GTV 2, none of which" in open_dataset(tmp_path).problems[1].message
    (tmp_path / "a.seg.nrrd").write_bytes(b"NRRD0005\n\n")
    assert "lists no segments" in open_dataset(tmp_path).problems[0].message


def test_a_series_and_its_contours_may_stand_in_a_table(tmp_path: Path) -> None:
    of = series(tmp_path / "in", "a", "thorax", modality="CT")
    outline(tmp_path / "in", "rs", of, {"GTV": [square(1, 2, 3)]})
    (tmp_path / "empty").mkdir()
    lines = (
        *("case,patient,CT,age,label", "a,A,in/Jane Doe/study/a,63,in/rs.dcm"),
        *("b,B,in/Jane Doe/study,64,", "c,C,empty,65,", "d,D,nowhere,66,"),
    )
    scan = open_dataset(table(tmp_path, *lines))
    case = only_case(scan)
    assert (case.id, len(case.images["CT"].files), case.labels) == ("a", 6, {1: "GTV"})
    assert int(io.read(case.masks[0]).array.sum()) == 4
    told = "".join(problem.message for problem in scan.problems)
    assert told.count("is a folder without DICOM files") == 2
    assert "nowhere does not exist" in told
    assert "not read: age" in scan.remarks[0]


def test_a_spreadsheets_own_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"PK\x03\x04\0\0binary")
    with pytest.raises(DataError, match="is no text"):
        read_table(tmp_path / "cases.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "nowhere.csv")
