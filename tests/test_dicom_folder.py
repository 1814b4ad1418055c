"""A hospital's folder of DICOM files as a data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_files import numbered, slices, uid, write
from oncoseg import io
from oncoseg.convert import convert
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError
from oncoseg.evaluate.pairs import find_pairs
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.io.dicom.patients import patient_key
from oncoseg.io.dicom.rtstruct_writer import write_rtstruct as write_rtstruct_file
from oncoseg.io.dicom.seg_writer import write_seg
from oncoseg.io.dicom.survey import find_series
from test_indexed_layouts import kinds
from tiny import brats_case
from tiny_dicom import SALT, Drawn, Geometry, write_rtstruct

GRID = (4, 5, 6)

GEOMETRY = Geometry(step_mm=(0, 0, 2), origin_mm=(-10, 20, 30), pixel_mm=(0.8, 0.5))
"""Of the series below, as `tiny_dicom` describes it."""


def series(
    root: Path,
    name: str,
    description: str,
    *,
    patient: str = "Jane Doe",
    study: str = "study",
    grid: tuple[int, int, int] = GRID,
    **more: Any,
) -> str:
    """A series in a folder of its own; gives its UID."""
    made = slices(
        numbered(grid),
        name=name,
        PatientID=patient,
        PatientName=patient,
        StudyInstanceUID=uid(patient, study),
        SeriesDescription=description,
        FrameOfReferenceUID=uid("frame", patient),
        **({"modality": "MR"} | more),
    )
    write(made, root / patient / study / name)
    return str(made[0].SeriesInstanceUID)


def square(low: int, high: int, k: int) -> Drawn:
    """A contour round the voxels from low to high along i and j, in one slice."""
    low_edge, high_edge = low - 0.4, high + 0.4
    corners = [(low_edge, low_edge), (high_edge, low_edge), (high_edge, high_edge), (low_edge, high_edge)]
    return Drawn(GEOMETRY.points([(i, j, k) for i, j in corners]))


def outline(
    root: Path, name: str, of: str, structures: dict[str, list[Drawn]], patient: str = "Jane Doe"
) -> Path:
    path = root / f"{name}.dcm"
    write_rtstruct(path, structures, series=of, frame=uid("frame", patient))
    return path


def only(scan: Scan) -> Case:
    (case,) = scan.cases
    return case


def key(patient: str) -> str:
    return f"P{patient_key(patient, '', SALT)}"


def test_a_study_is_a_case_and_nothing_names_the_patient(tmp_path: Path) -> None:
    flair = series(tmp_path, "b", "ax flair")
    series(tmp_path, "a", "ax t1")
    series(tmp_path, "c", "ax t1", patient="John Doe")
    outline(tmp_path, "rs", flair, {"tumour": [square(1, 2, 3)]})
    scan = open_dataset(tmp_path)
    assert scan.layout == "dicom_folder"
    found = {case.id: (case.patient, *case.images) for case in scan.cases}
    jane, john = key("Jane Doe"), key("John Doe")
    assert found == {jane: (jane, "FLAIR", "T1"), john: (john, "T1")}
    case = next(case for case in scan.cases if case.id == jane)
    mask = io.read(case.masks[0])
    assert mask.grid == io.read_channels(case.images).grid == GRID
    assert np.argwhere(mask.array[0]).tolist() == [[1, 1, 3], [1, 2, 3], [2, 1, 3], [2, 2, 3]]
    assert kinds(scan) == ["missing-mask"]
    told = repr((found, case.labels, scan.remarks, [problem.message for problem in scan.problems]))
    assert "Doe" not in told
    assert (
        "T1 by guess: its description says 't1', and nothing names a contrast agent (2 series, number 3)."
        in scan.remarks
    )


def test_studies_are_numbered_and_grids_are_cases_of_their_own(tmp_path: Path) -> None:
    series(tmp_path, "a", "ax t1")
    series(tmp_path, "b", "ax t2")
    series(tmp_path, "c", "ax flair", grid=(4, 5, 7))
    series(tmp_path, "d", "ax t1", study="later")
    scan = open_dataset(tmp_path)
    found = {case.id.removeprefix(key("Jane Doe")): tuple(case.images) for case in scan.cases}
    assert len({case.patient for case in scan.cases}) == 1
    assert sorted(found.values()) == [("FLAIR",), ("T1",), ("T1", "T2")]
    number = next(name for name, channels in found.items() if channels == ("T1", "T2")).partition("_T1")[0]
    assert set(found) == {f"{number}_T1-T2", f"{number}_FLAIR", {"_1": "_2", "_2": "_1"}[number]}


def test_of_series_that_show_the_same_the_one_with_an_annotation_is_taken(tmp_path: Path) -> None:
    series(tmp_path, "long", "ax t1", grid=(4, 5, 9))
    drawn = series(tmp_path, "short", "ax t1 b")
    outline(tmp_path, "rs", drawn, {"tumour": [square(1, 2, 3)]})
    case = only(open_dataset(tmp_path))
    assert (len(case.images["T1"].files), len(case.masks)) == (6, 1)


def test_a_mapping_says_which_series_is_what(tmp_path: Path) -> None:
    first = series(tmp_path, "a", "sequence 17")
    series(tmp_path, "b", "sequence 18")
    series(tmp_path, "c", "sequence 17", patient="John Doe")
    with pytest.raises(
        DataError, match=r"(?s)No case was found.*what they show with --channel or in channels\.json"
    ):
        open_dataset(tmp_path)
    (tmp_path / "channels.json").write_text(json.dumps({"T1w": first, "flair": "*18"}))
    scan = open_dataset(tmp_path)
    assert {case.id: tuple(case.images) for case in scan.cases} == {key("Jane Doe"): ("T1", "FLAIR")}
    assert sorted(kinds(scan)) == ["missing-mask", "no-case"]
    (tmp_path / "channels.json").write_text(json.dumps({"T1": "sequence", "T2": "*17", "FLAIR": "*17"}))
    scan = open_dataset(tmp_path)
    assert {case.id: tuple(case.images) for case in scan.cases} == {
        key("Jane Doe"): ("T2",),
        key("John Doe"): ("T1",),
    }
    assert kinds(scan).count("ambiguous-channel") == 4


def test_channels_may_be_said_in_place_of_the_file_and_what_they_became_is_told(tmp_path: Path) -> None:
    series(tmp_path, "a", "t1 Doe one", SeriesNumber=3)
    series(tmp_path, "b", "t1 Doe two", SeriesNumber=4)
    series(tmp_path, "c", "t2 Doe", SeriesNumber=5)
    (tmp_path / "channels.json").write_text(json.dumps({"T2": "one"}))
    scan = open_dataset(tmp_path)
    assert set(scan.remarks) == {
        "T2 as channels.json says (1 series, number 3).",
        "Of no channel, and not used: 2 series, number 4, 5.",
    }
    scan = open_dataset(tmp_path, channels={"t1w": "two", "FLAIR": "flair"})
    case = only(scan)
    assert tuple(case.images) == ("T1",)
    assert {file.parent.name for file in case.images["T1"].files} == {"b"}
    assert "T1 as --channel says (1 series, number 4)." in scan.remarks
    (missed,) = [each for each in scan.problems if each.kind == "unmatched-channel"]
    assert missed.message.startswith("FLAIR: no series fits what --channel says")
    with pytest.raises(DataError) as error:
        open_dataset(tmp_path, channels={"T1": "nothing"})
    assert "series 4, MR 't1 two'" in str(error.value)  # of the description, only what names nobody
    assert "Doe" not in str(error.value)


def test_channels_are_only_chosen_in_a_dicom_folder(tmp_path: Path) -> None:
    brats_case(tmp_path, 1)
    with pytest.raises(DataError, match="expected a DICOM folder where a series is chosen for T1"):
        open_dataset(tmp_path, channels={"T1": "t1"})


def test_tumours_are_drawn_over_what_they_lie_in_and_labels_can_be_joined(tmp_path: Path) -> None:
    ct = series(tmp_path, "a", "thorax", modality="CT")
    structures = {"GTV-1": [square(1, 2, 3)], "Lung-Left": [square(0, 3, 3)], "Cord": [square(0, 0, 5)]}
    outline(tmp_path, "rs", ct, structures)
    scan = open_dataset(tmp_path)
    case = only(scan)
    assert case.labels == {1: "Cord", 2: "Lung-Left", 3: "GTV-1"}
    labels = io.read(case.masks[0]).array[0]
    assert labels[..., 3].tolist() == [[2, 2, 2, 2, 0], [2, 3, 3, 2, 0], [2, 3, 3, 2, 0], [2, 2, 2, 2, 0]]
    assert labels[0, 0, 5] == 1
    assert "Structures are labels of their own: 'Cord', 'Lung-Left', 'GTV-1'." in scan.remarks[-1]
    (tmp_path / "labels.json").write_text('{"lung": "lung*", "tumour": ["ctv*", "gtv*"]}')
    case = only(open_dataset(tmp_path))
    assert case.labels == {1: "lung", 2: "tumour"}
    labels = io.read(case.masks[0]).array[0]
    assert (labels[1, 1, 3], labels[0, 0, 3], labels[0, 0, 5]) == (2, 1, 0)


def test_a_name_in_a_structures_name_does_not_become_a_label(tmp_path: Path) -> None:
    ct = series(tmp_path, "a", "thorax", modality="CT")
    outline(tmp_path, "rs", ct, {"GTV Miller": [square(1, 2, 3)], "Miller": [square(0, 0, 5)]})
    case = only(open_dataset(tmp_path))
    assert case.labels == {1: "structure 1", 2: "GTV 2"}
    assert np.unique(io.read(case.masks[0]).array, return_counts=True)[1].tolist()[1:] == [1, 4]


def test_several_annotations_are_several_readers(tmp_path: Path) -> None:
    t1 = series(tmp_path, "a", "t1")
    for name, high in (("one", 1), ("two", 2)):
        outline(tmp_path, name, t1, {"tumour": [square(1, high, 3)]})
    case = only(open_dataset(tmp_path))
    assert sorted(int(io.read(mask).array.sum()) for mask in case.masks) == [1, 4]
    (tmp_path / "labels.json").write_text('{"tumour": "GTV*"}')
    scan = open_dataset(tmp_path)
    assert only(scan).masks == ()
    assert sorted(kinds(scan)) == ["missing-mask", "unused-annotation"]
    assert "labels.json names none of its structures, which are 'tumour', so" in scan.problems[0].message


def test_structures_that_labels_json_does_not_name_are_told_without_patients_names(tmp_path: Path) -> None:
    outline(tmp_path, "one", series(tmp_path, "a", "t1"), {"GTV Jane Doe": [square(1, 1, 3)]})
    (tmp_path / "labels.json").write_text('{"tumour": "lesion"}')
    message = open_dataset(tmp_path).problems[0].message
    assert "none of its structures, which are 'GTV 1', so it has no truth" in message
    assert "Doe" not in message


def test_what_oncoseg_has_predicted_is_no_truth(tmp_path: Path) -> None:
    drawn = series(tmp_path, "a", "ax t1")
    by_hand = outline(tmp_path, "rs", drawn, {"tumour": [square(1, 2, 3)]})
    (taken,) = find_series(tmp_path)
    labels = np.ones(taken.grid, np.uint8)
    for writer, name in ((write_seg, "seg.dcm"), (write_rtstruct_file, "rtstruct.dcm")):
        writer(tmp_path / name, labels, taken, {1: "tumour"}, Algorithm("0.1.0"))
    scan = open_dataset(tmp_path)
    assert [mask.files for mask in only(scan).masks] == [(by_hand,)]
    assert "RTSTRUCT and SEG that oncoseg made are no truth, and not used: 2." in scan.remarks
    assert len(only(open_dataset(tmp_path, predicted=True)).masks) == 3
    with pytest.raises(DataError, match="has several masks; expected one prediction"):
        find_pairs(tmp_path, tmp_path)  # what was drawn is not scored as if it were predicted
    by_hand.unlink()
    scan = open_dataset(tmp_path)
    assert only(scan).masks == ()
    assert kinds(scan) == ["missing-mask"]


def test_what_cannot_be_used_does_not_keep_the_rest(tmp_path: Path) -> None:
    series(tmp_path, "a", "t1")
    series(tmp_path, "gap", "t2")
    (tmp_path / "Jane Doe" / "study" / "gap" / "002.dcm").unlink()
    path = outline(tmp_path, "lost", uid("a series elsewhere"), {"tumour": [square(1, 2, 3)]})
    (tmp_path / "broken.dcm").write_bytes(path.read_bytes()[:700])
    (tmp_path / "notes.txt").write_text("no DICOM")
    scan = open_dataset(tmp_path)
    assert tuple(only(scan).images) == ("T1",)
    assert {"missing-mask", "no-case", "unused-annotation"} <= set(kinds(scan))
    (gap,) = [problem for problem in scan.problems if "missing (between" in problem.message]
    assert gap.kind == "no-case"
    assert gap.message.endswith("Export it again, whole, if it should be used.")
    (unused,) = [problem for problem in scan.problems if problem.kind == "unused-annotation"]
    assert unused.message.endswith("The images that they mark must lie in the folder, too.")


def test_only_labels_that_are_drawn_in_what_is_converted_are_declared(tmp_path: Path) -> None:
    ct = series(tmp_path / "in", "a", "thorax", modality="CT", grid=(4, 5, 9))
    t1 = series(tmp_path / "in", "b", "t1")
    outline(tmp_path / "in", "one", ct, {"GTV-CT": [square(1, 2, 3)]})
    outline(tmp_path / "in", "two", t1, {"GTV-MR": [square(1, 2, 3)]})
    done = convert(tmp_path / "in", "nnunet", tmp_path / "out", channels=["T1"], workers=0)
    assert (done.plan.labels, done.names) == ({"GTV-MR": 1}, "keep")
    assert int(io.read(only(open_dataset(tmp_path / "out")).masks[0]).array.sum()) == 4


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("channels.json", "{", "cannot be read"),
        ("channels.json", "[]", "expected a map"),
        ("channels.json", '{"T1": 7}', "one text per channel"),
        ("labels.json", '{"tumour": [7]}', "names of structures"),
        ("labels.json", "{}", "expected a map"),
    ],
)
def test_mappings_that_cannot_be_used(tmp_path: Path, name: str, text: str, reason: str) -> None:
    series(tmp_path, "a", "t1")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path)


@pytest.mark.real_data
def test_a_real_patients_dicom_is_what_its_publishers_nifti_says(shared_data: Path) -> None:
    folder = shared_data / "sts_ct_mr"
    if not (folder / "dicom" / "STS_002").is_dir():
        pytest.skip("no DICOM of STS_002 among the real data")
    cases = {next(iter(case.images)): case for case in open_dataset(folder / "dicom").cases}
    published = {next(iter(case.images)): case for case in open_dataset(folder / "nifti" / "STS_002").cases}
    assert set(cases) == set(published) == {"CT", "T1"}
    for channel, case in cases.items():
        ours, theirs = io.read(case.images[channel]), io.read(published[channel].images[channel])
        np.testing.assert_allclose(ours.affine_ras, theirs.affine_ras, atol=1e-2)
        assert np.mean(ours.array != theirs.array) < 0.01
        mine, mask = io.read(case.masks[0]).array > 0, io.read(published[channel].masks[0]).array > 0
        assert 2 * (mine & mask).sum() / (mine.sum() + mask.sum()) > 0.95
