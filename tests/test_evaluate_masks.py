import csv
import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import nibabel as nib
import numpy as np
import pyarrow.parquet
import pytest

from oncoseg.cli import main
from oncoseg.cli.evaluation import MaskOptions
from oncoseg.cli.scores import faults, print_mask_scores
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate import curves, long_table
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.scoring import Scoring
from oncoseg.files import SYNTHETIC_NOTE, SYNTHETIC_SENTENCE
from oncoseg.metrics.brats import BRATS_2023
from oncoseg.metrics.catalogue import POLICIES
from oncoseg.report import write_evaluation
from oncoseg.run_folder import RunFolder
from test_pairs import GRID, marked, write


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases: one right, one predicted empty, one on another grid."""
    for name in ("a", "b", "c"):
        write(tmp_path / "truth" / f"{name}_seg.nii.gz", marked())
    write(tmp_path / "ours" / "a.nii.gz", marked())
    write(tmp_path / "ours" / "b.nii.gz", np.zeros(GRID, np.uint8))
    write(tmp_path / "ours" / "c.nii.gz", marked()[:3])
    write(tmp_path / "ours" / "d.nii.gz", marked())
    return tmp_path / "truth", tmp_path / "ours"


def test_one_bad_prediction_counts_as_missing_and_loses_no_other(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = evaluate_masks(*folders, tmp_path / "out", workers=0)
    dice = {row.case: (row.values["dice"], row.rules.get("dice")) for row in result.cases}
    assert dice == {"a": (1, None), "b": (0, "prediction_empty"), "c": (0, "prediction_missing")}
    assert list(result.failures) == ["c"]
    assert "must lie on one grid" in result.failures["c"]
    assert result.without_truth == ["d"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failures"] == result.failures
    (row,) = [row for row in summary["table"] if row["metric"] == "dice"]
    assert row["mean"] == pytest.approx(1 / 3)
    assert row["rules"] == {"prediction_empty": 1, "prediction_missing": 1}
    assert summary["policy"]["dice"]["prediction_missing"] == 0
    assert summary["policy"]["hausdorff_mm"]["prediction_empty"] == "diagonal"


def test_masks_of_a_tilted_scan_are_measured_where_their_voxels_lie(tmp_path: Path) -> None:
    tilted = np.array([[1.0, 0, 0, 5], [0, 1, 4, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    for name, k in (("truth", 2), ("prediction", 3)):
        voxels = np.zeros((6, 7, 6), np.uint8)
        voxels[3, 3, k] = 1
        (tmp_path / name).mkdir()
        nib.Nifti1Image(voxels, tilted).to_filename(tmp_path / name / "a.nii.gz")
    scored = evaluate_masks(tmp_path / "truth", tmp_path / "prediction", tmp_path / "out").cases
    assert scored[0].values["hausdorff_mm"] == pytest.approx(5, abs=1e-5)  # 3 mm up and 4 mm back


def test_every_value_is_in_both_tables(folders: tuple[Path, Path], tmp_path: Path) -> None:
    result = evaluate_masks(*folders, tmp_path / "out", workers=0)
    with (tmp_path / "out" / "cases.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == long_table.HEADER
    assert len(lines) == sum(len(row.values) for row in result.cases)
    in_parquet = pyarrow.parquet.read_table(tmp_path / "out" / "cases.parquet").to_pylist()
    assert [
        {k: v if v is not None else "" for k, v in row.items() if k != "value"} for row in in_parquet
    ] == [{k: v for k, v in line.items() if k != "value"} for line in lines]
    assert [row["value"] for row in in_parquet] == [float(x["value"]) if x["value"] else None for x in lines]
    again = long_table.read(tmp_path / "out", long_table.CASES)
    assert str(again) == str(long_table.rows_of(result.cases))  # as text, since NaN is not equal to itself


def test_two_processes_find_the_same(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate_masks(*folders, tmp_path / "one", workers=0)
    seen: list[tuple[int, int]] = []
    evaluate_masks(*folders, tmp_path / "two", workers=2, progress=lambda *done: seen.append(done))
    for name in ("cases.csv", "patients.csv", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_every_label_is_a_class_unless_declared(tmp_path: Path) -> None:
    both = marked(2)
    both[0, 0, 0] = 1
    write(tmp_path / "truth" / "a.nii.gz", both)
    write(tmp_path / "ours" / "a.nii.gz", marked(2))
    found = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "each", workers=0)
    assert {row.label: row.values["dice"] for row in found.cases} == {"label-1": 0, "label-2": 1}
    classes = {"whole": (1, 2)}
    found = evaluate_masks(
        tmp_path / "truth", tmp_path / "ours", tmp_path / "whole", classes=classes, workers=0
    )
    assert {row.label: row.values["dice"] for row in found.cases} == {"whole": pytest.approx(2 / 3)}


def test_tables_without_images_are_scored_and_their_1_and_255_are_one_class(tmp_path: Path) -> None:
    for folder, value in (("truth", 255), ("ours", 1)):
        write(tmp_path / folder / "x.nii.gz", marked(value))
        (tmp_path / folder / "cases.csv").write_text("case,patient,label\na,P,x.nii.gz\n")
    (row,) = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", workers=0).cases
    assert (row.case, row.patient, row.label, row.values["dice"]) == ("a", "P", "tumour", 1)


def test_a_probability_map_adds_ranking_and_calibration(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", marked())
    write(tmp_path / "ours" / "a.nii.gz", marked())
    write(tmp_path / "ours" / "a_probability.nii.gz", marked(0.5, np.float32))
    found = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", workers=0)
    assert found.cases[0].values["auc"] == 1
    assert found.cases[0].values["brier"] == pytest.approx(0.25 / marked().size)


def labelled(*values: float, dtype: type = np.uint8) -> np.ndarray:
    """Values along the first axis, 0 elsewhere."""
    voxels = np.zeros(GRID, dtype)
    voxels[: len(values), 0, 0] = values
    return voxels


def test_each_class_takes_the_map_that_is_named_after_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "truth" / f"{name}.nii.gz", labelled(1, 1, 2))
        write(tmp_path / "ours" / f"{name}.nii.gz", labelled(1, 1, 2))
    for name, values in {
        "a_core": (0.9, 0.8),
        "a_rest": (0, 0.7, 0.4),
        "b_rest": (0, 0, 0.9),
        "a": (1,),
    }.items():
        path = tmp_path / "ours" / f"{name}_probability.nii.gz"
        write(path, labelled(*values, dtype=np.float32))
    classes = {"core": (1,), "rest": (2,), "all": (1, 2)}
    for workers in (0, 2):
        found = evaluate_masks(
            tmp_path / "truth",
            tmp_path / "ours",
            tmp_path / f"out{workers}",
            classes=classes,
            workers=workers,
        )
        auc = {(row.case, row.label): row.values.get("auc") for row in found.cases}
        others = marked().size - 1
        assert auc == {
            ("a", "core"): 1,
            ("a", "rest"): pytest.approx((others - 1) / others),  # one background voxel has more
            ("a", "all"): None,
            ("b", "core"): 0,  # its map is missing, and another case has one
            ("b", "rest"): 1,
            ("b", "all"): None,
        }
        assert found.summary["maps_without_class"] == 1  # a_probability is of no class
        parts = {part["class"]: part for part in curves.read(found.folder)["parts"]}
        assert parts["core"]["maps"]["missing"] == 1
        assert parts["all"]["maps"] is None
        page = write_evaluation(found.folder).read_text(encoding="utf-8")
        assert "names say none of the classes were not used: 1." in page
    assert (tmp_path / "out0" / "curves.json").read_bytes() == (
        tmp_path / "out2" / "curves.json"
    ).read_bytes()


def test_a_map_that_cannot_be_used_is_missing_from_the_curves(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "truth" / f"{name}.nii.gz", marked())
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
        write(tmp_path / "ours" / f"{name}_probability.nii.gz", marked(0.5, np.float32))
    write(tmp_path / "ours" / "b_probability.nii.gz", marked(1.5, np.float32))
    found = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", workers=0)
    assert "expected 0 to 1" in found.map_failures["b"]
    assert [row.values["dice"] for row in found.cases] == [1, 1]
    assert found.cases[1].curves.missing_cases == 1


def test_an_unusable_truth_stops_with_its_case(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "b_seg.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="Case b: "):
        evaluate_masks(*folders, tmp_path / "out", workers=0)


def test_a_folder_that_holds_something_is_left_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not empty"):
        evaluate_masks(*folders, folders[1], workers=0)


def test_cases_of_one_patient_are_one_unit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    patients = {"a": "1", "b": "1", "c": "2"}
    found = evaluate_masks(*folders, tmp_path / "out", patients=patients, workers=0)
    assert [(row.patient, row.values["dice"]) for row in found.patients] == [
        ("1", pytest.approx(2 / 3)),
        ("2", 0),
    ]


def test_patients_that_the_network_has_seen_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write_split(0, {"mri": {"train": {"x": ["x"]}, "validation": {"b": ["b"]}, "test": {"a": ["a"]}}})
    with pytest.raises(DataError, match="1 patients were seen in training, the first is 'b'"):
        evaluate_masks(*folders, tmp_path / "out", trained_on=run.path, workers=0)
    assert not (tmp_path / "out").exists()
    run.write_split(0, {"mri": {"train": {"x": ["x"]}, "validation": {"y": ["y"]}, "test": {"a": ["a"]}}})
    evaluate_masks(*folders, tmp_path / "out", trained_on=run.path, workers=0)


def test_a_bad_probability_map_costs_only_what_needs_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "truth" / f"{name}.nii.gz", marked())
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
        write(
            tmp_path / "ours" / f"{name}_probability.nii.gz", marked(80 if name == "b" else 0.8, np.float32)
        )
    folders = tmp_path / "truth", tmp_path / "ours"
    found = evaluate_masks(*folders, tmp_path / "out", workers=0)
    assert {row.case: (row.values["dice"], row.values["auc"]) for row in found.cases} == {
        "a": (1, 1),
        "b": (1, 0),
    }
    assert found.failures == {}
    assert "expected 0 to 1" in found.map_failures["b"]
    assert [row.curves.missing_cases for row in found.cases] == [0, 1]
    write(tmp_path / "ours" / "b.nii.gz", marked(9))  # now the mask is unusable, too
    found = evaluate_masks(*folders, tmp_path / "again", workers=0)
    assert "label values [9]" in found.failures["b"]
    assert found.map_failures == {}


def test_a_map_that_nothing_needs_is_not_read(tmp_path: Path) -> None:
    both = marked(2)
    both[0, 0, 0] = 1
    write(tmp_path / "truth" / "a.nii.gz", both)
    write(tmp_path / "ours" / "a.nii.gz", both)
    write(tmp_path / "ours" / "a_probability.nii.gz", marked(80, np.float32))
    found = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", workers=0)
    assert (found.failures, found.map_failures) == ({}, {})
    assert [row.values["dice"] for row in found.cases] == [1, 1]


@pytest.mark.parametrize(
    "chosen",
    [
        {"connectivity": 8},
        {"policy": "lenient"},
        {"challenge": "GLIO"},
        {"tolerance_mm": float("nan")},
        {"outcomes": {("dice", "empty"): 1.0}},
    ],
)
def test_choices_that_mean_nothing_are_refused(chosen: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"[Ee]xpected"):
        Scoring(**chosen)


# the command


def test_missing_and_unlisted_cases_and_bad_maps_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "truth" / f"{name}.nii.gz", marked())
    for name in ("a", "b"):
        write(tmp_path / "ours" / f"{name}.nii.gz", marked())
    write(tmp_path / "ours" / "b_probability.nii.gz", marked(80, np.float32))
    (tmp_path / "patients.csv").write_text("case,patient\na,1\nB,1\n")
    truth, ours = str(tmp_path / "truth"), str(tmp_path / "ours")
    options = ["--workers", "0", "--patients", str(tmp_path / "patients.csv"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "--prediction", ours, "--truth", truth, *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "2 cases not in the list of patients and therefore taken for a patient each, the first is b",
        "1 case without a prediction, which must count as missing:",
    ]
    assert said[2:4] == [
        "  c",
        "1 probability map could not be used and must count as missing, but the masks beside do not:",
    ]
    assert said[4].startswith("  b: The probability map holds values from 0.0 to 80.0")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["missing"], summary["unlisted"]) == (["c"], ["b", "c"])


def test_the_command_scores_masks_and_ends_with_2_where_one_was_unusable(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, ours = map(str, folders)
    command = ["evaluate", "--prediction", ours, "--truth", truth, "--workers", "0", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert re.search(r"label-1 +\n.*\n +metric +mean over patients", captured.out)
    assert "prediction_empty 1, prediction_missing 1" in captured.out
    assert "1 prediction could not be used and must count as missing:\n  c: " in captured.err
    assert "1 prediction without a truth, left out, the first is d" in captured.err
    (folders[1] / "c.nii.gz").rename(folders[1] / "C.nii.gz")
    options = ["--class", "tumour=1,2", "--outcome", "dice.prediction_missing=0.5", "--policy", "drop"]
    assert main([*command, str(tmp_path / "again"), *options]) == 2
    assert (
        "1 case without a prediction, which must count as missing:\n"
        "  c (the nearest name without a truth is C; rename it if it is this case)"
    ) in capsys.readouterr().err
    scoring = json.loads((tmp_path / "again" / "summary.json").read_text())["scoring"]
    assert scoring == {
        "tolerance_mm": 2.0,
        "connectivity": 26,
        "min_lesion_mm3": 0.0,
        "challenge": "GLI",
        "policy": "drop",
        "outcomes": {"dice.prediction_missing": 0.5},
    }
    assert Scoring(policy="drop").tolerance_mm == scoring["tolerance_mm"]


def test_five_bad_predictions_are_named_and_the_others_counted() -> None:
    failures = {f"case{number}": f"reason {number}" for number in range(7)}
    summary = {"failures": failures, "map_failures": {}, "missing": ["x_9", "y"], "without_truth": ["X-9"]}
    assert faults(summary).splitlines() == [
        "7 predictions could not be used and must count as missing:",
        *(f"  case{number}: reason {number}" for number in range(5)),
        "  and 2 more; all are in summary.json",
        "2 cases without a prediction, which must count as missing:",
        "  x_9 (the nearest name without a truth is X-9; rename it if it is this case)",
        "  y",
    ]
    assert faults({"failures": {}, "map_failures": {}, "missing": [], "without_truth": ["a"]}) == ""


def test_the_flags_offer_every_policy_and_challenge() -> None:
    types = get_type_hints(MaskOptions)
    assert set(get_args(types["policy"])) == set(POLICIES)
    assert set(get_args(types["challenge"])) == set(BRATS_2023)
    defaults = MaskOptions(Path(), Path())
    for field in ("tolerance_mm", "connectivity", "min_lesion_mm3", "challenge", "policy"):
        assert getattr(defaults, field) == getattr(Scoring(), field)


def test_in_a_narrow_terminal_every_metric_has_one_line(
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = evaluate_masks(*folders, tmp_path / "out", workers=0).summary
    for width in (240, 80):
        monkeypatch.setattr("oncoseg.cli.terminal.WIDTH_OF_TABLES", width)
        print_mask_scores(summary)
        printed = capsys.readouterr().out
        table = printed[printed.index("label-1") : printed.index("No intervals")].splitlines()
        assert max(map(len, table)) <= width
        (dice,) = [line.split() for line in table if line.split()[:1] == ["dice"]]
        assert dice[:4] == ["dice", "0.333", "0.000", "3"]
        assert dice[4:] == (["2"] if width == 80 else ["prediction_empty", "1,", "prediction_missing", "1"])
        assert sum(line.split()[:1] == [name] for line in table for name in summary["definitions"]) == len(
            summary["definitions"]
        )


def test_phantoms_are_marked_in_every_table(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / SYNTHETIC_NOTE).touch()
    for name in ("one", "two"):
        result = evaluate_masks(*folders, tmp_path / name, workers=0)
        assert result.summary["synthetic"] is True
        assert "Synthetic phantoms" in write_evaluation(tmp_path / name).read_text(encoding="utf-8")
    one, two, out = (str(tmp_path / name) for name in ("one", "two", "out"))
    assert main(["compare", one, two, "--out", out, "--metric", "dice"]) == 0
    assert SYNTHETIC_SENTENCE in capsys.readouterr().out
    for name in ("index.html", "summary.md", "summary.tex"):
        assert "ynthetic phantoms" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    (folders[0] / SYNTHETIC_NOTE).unlink()
    result = evaluate_masks(*folders, tmp_path / "real", workers=0)
    assert result.summary["synthetic"] is False
    assert "Synthetic" not in write_evaluation(tmp_path / "real").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Expected a run folder, or --prediction, --truth and --out"),
        (["run", "--truth", "x", "--prediction", "y", "--out", "z"], "got both"),
        (["--split", "train"], "got both"),
        (["--replace"], "got both"),
        (["--prediction", "x", "--truth", "y"], "Expected all of --prediction FOLDER, --truth"),
        (["--truth", "y"], "Expected all of --prediction FOLDER, --truth"),
        (["run", "--policy", "drop"], "got both"),
        (["--prediction", "x", "--truth", ".//x", "--out", "z"], "are the same folder"),
        (["--class", "a=1", "--class", "a=2"], "--class a= is given twice"),
        (["--tolerance-mm", "-1"], "Expected a tolerance of 0 or more, got -1"),
        (["--min-lesion-mm3", "nan"], "Expected a smallest lesion of 0 or more, got nan"),
        (["--consensus", "0"], "Expected a share of the readers above 0"),
        (["--workers", "-1"], "Expected --workers of 0 or more, got -1"),
        (["--out", "x"], "Expected a run folder, or --prediction, --truth and --out"),
        (["--class", "tumour"], "as in tumour=1,2,4, got 'tumour'"),
        (["--class", "tumour=0"], "above 0"),
        (["--outcome", "dise.both_empty=1"], "did you mean 'dice'"),
        (["--outcome", "dice.both_emtpy=1"], "did you mean 'both_empty'"),
        (["--outcome", "dice.both_empty=best"], "Expected a finite number"),
        (["--outcome", "dice.both_empty=inf"], "Expected a finite number"),
        (["--outcome", "dice.both_empty=diagonal"], "or one of undefined, computed, forfeit; got"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str],
    message: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = ["--truth", str(folders[0]), "--prediction", str(folders[1]), "--out", str(tmp_path / "out")]
    whole = not options or {"--prediction", "--truth", "--out", "run"} & set(options)
    given = ["evaluate", *options, *([] if whole else paths)]
    assert main(given) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupted_evaluation_leaves_no_folder_in_the_way(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_masks(*folders, tmp_path / "out", workers=0, progress=interrupt)
    assert not (tmp_path / "out").exists()
    evaluate_masks(*folders, tmp_path / "out", workers=0)
    assert (tmp_path / "out" / "summary.json").is_file()
