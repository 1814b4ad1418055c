import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from oncoseg.cli import main
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate import long_table
from oncoseg.evaluate.compare import compare
from oncoseg.evaluate.contest_files import heading, latex, markdown, write
from oncoseg.evaluate.long_table import Row
from oncoseg.files import write_json

PATIENTS = [f"p{number}" for number in range(8)]


def evaluation(folder: Path, dice: Mapping[str, float], scoring: str = "strict") -> Path:
    rows = [
        Row("", "", patient, "tumour", metric, value if metric == "dice" else 10 * (1 - value), "")
        for patient, value in dice.items()
        for metric in ("dice", "hd95_max_mm")
    ]
    folder.mkdir(parents=True)
    long_table.write(folder, long_table.PATIENTS, rows)
    write_json(folder / "summary.json", {"classes": {"tumour": [1]}, "scoring": {"policy": scoring}})
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    good = {patient: 0.8 + number / 100 for number, patient in enumerate(PATIENTS)}
    return {
        "good": evaluation(tmp_path / "good", good),
        "bad": evaluation(tmp_path / "bad", {patient: value - 0.1 for patient, value in good.items()}),
        "same": evaluation(tmp_path / "same", good),
    }


def test_every_pair_is_compared_by_every_shared_metric_as_one_family(folders: dict[str, Path]) -> None:
    contest = compare(folders)
    assert [heading(part) for part in contest.parts] == ["tumour dice", "tumour hd95_max_mm"]
    for part in contest.parts:
        assert [(each.a, each.b) for each in part.comparisons] == [
            ("good", "bad"),
            ("good", "same"),
            ("bad", "same"),
        ]
        assert {each.family for each in part.comparisons} == {6}
    better = [each.better for part in contest.parts for each in part.comparisons]
    # 2/2⁸ for each of four differences, times 6 by Holm: 0.047
    assert better == ["good", None, "same", "good", None, "same"]
    assert contest.parts[0].comparisons[0].p_adjusted == pytest.approx(6 * 2 / 2**8)


def test_systems_are_ranked_by_the_metrics_own_direction(folders: dict[str, Path]) -> None:
    for part in compare(folders).parts:
        assert {place.system: place.rank for place in part.ranking.systems} == {
            "good": 1.5,
            "same": 1.5,
            "bad": 3,
        }


def test_a_reference_leaves_fewer_comparisons(folders: dict[str, Path]) -> None:
    contest = compare(folders, metrics=["dice"], reference="bad")
    (part,) = contest.parts
    assert [(each.a, each.b) for each in part.comparisons] == [("good", "bad"), ("same", "bad")]


def test_other_patients_are_refused_unless_only_common_ones_count(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folders["few"] = evaluation(tmp_path / "few", dict.fromkeys(PATIENTS[:6], 0.5))
    with pytest.raises(DataError, match="--common-only"):
        compare(folders)
    contest = compare(folders, common_only=True)
    assert contest.parts[0].comparisons[2].n == 6
    assert contest.parts[0].comparisons[2].only_a == 2
    assert contest.parts[0].comparisons[0].n == 8
    # all means are over the same six patients, so that nobody gains by lacking the others
    assert {found.n for found in contest.parts[0].summaries.values()} == {6}
    assert contest.parts[0].summaries["good"].mean == pytest.approx(0.825)


def test_what_cannot_be_compared_is_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two or more"):
        compare({"good": folders["good"]})
    with pytest.raises(DataError, match="did you mean 'dice'"):
        compare(folders, metrics=["dise"])
    with pytest.raises(DataError, match="volume_difference_ml has a sign"):
        compare(folders, metrics=["volume_difference_ml"])
    with pytest.raises(DataError, match="did you mean 'good'"):
        compare(folders, reference="goood")
    with pytest.raises(DataError, match="share none of the metrics iou"):
        compare(folders, metrics=["iou"])
    with pytest.raises(DataError, match="is no evaluation"):
        compare(folders | {"none": tmp_path})
    other = evaluation(tmp_path / "other", dict.fromkeys(PATIENTS, 0.5), scoring="drop")
    with pytest.raises(
        DataError, match=r"good and other were evaluated with different scoring \(policy strict and drop\)"
    ):
        compare(folders | {"other": other})


def test_the_tables_hold_every_mean_and_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    contest = compare(folders)
    out = write(contest, tmp_path / "out")
    table = markdown(contest)
    assert (out / "summary.md").read_text(encoding="utf-8") == table
    assert "| good | 0.835 [0.819, 0.850] (n=8) |" in table
    assert sum(line.startswith("- tumour") for line in table.splitlines()) == 6
    assert "system & tumour dice & tumour hd95\\_max\\_mm \\\\" in latex(contest)
    found = json.loads((out / "comparison.json").read_text())
    assert found["parts"][0]["summaries"]["good"]["mean"] == pytest.approx(0.835)
    assert found["parts"][0]["comparisons"][0]["sentence"] in table
    values = (out / "values.csv").read_text().splitlines()
    assert len(values) == 1 + 2 * 3 * len(PATIENTS)
    with (out / "comparisons.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["metric"], line["a"], line["b"], line["better"]) for line in lines[:2]] == [
        ("dice", "good", "bad", "good"),
        ("dice", "good", "same", ""),
    ]
    assert float(lines[0]["difference"]) == pytest.approx(0.1)
    assert float(lines[0]["p_adjusted"]) == pytest.approx(6 * 2 / 2**8)
    with pytest.raises(RunError, match="not empty"):
        write(contest, out)


def test_trainings_of_one_system_are_averaged_and_their_spread_is_told(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    worse = evaluation(tmp_path / "worse", dict.fromkeys(PATIENTS, 0.4))
    better = evaluation(tmp_path / "better", dict.fromkeys(PATIENTS, 0.6))
    middle = evaluation(tmp_path / "middle", dict.fromkeys(PATIENTS, 0.5))
    contest = compare({"good": folders["good"], "several": [worse, middle, better]}, metrics=["dice"])
    (part,) = contest.parts
    assert part.values["several"] == pytest.approx(dict.fromkeys(PATIENTS, 0.5))
    assert list(part.variation) == ["several"]
    assert part.variation["several"].seed_sd == pytest.approx(0.1)
    assert "3 trainings; between trainings it varies by SD 0.1" in markdown(contest)
    few = evaluation(tmp_path / "few", dict.fromkeys(PATIENTS[:6], 0.5))
    with pytest.raises(DataError, match="trainings of several were evaluated on different patients"):
        compare({"good": folders["good"], "several": [worse, few]})


def test_copies_of_a_training_are_called_copies(folders: dict[str, Path]) -> None:
    contest = compare({"twice": [folders["good"], folders["same"]], "bad": folders["bad"]})
    (remark,) = [remark for remark in contest.remarks if "identical" in remark]
    assert remark.startswith("Trainings of twice are identical: the same predictions under several names.")
    assert remark in markdown(contest)
    assert contest.parts[0].variation["twice"].seed_sd == 0
    other = compare({"two": [folders["good"], folders["bad"]], "same": folders["same"]})
    assert not [remark for remark in other.remarks if "identical" in remark]


def test_where_no_test_could_show_a_difference_no_shares_of_first_places_are_given(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        evaluation(tmp_path / name, {f"p{n}": 0.5 + 0.1 * number + 0.01 * n for n in range(5)})
    contest = compare({name: tmp_path / name for name in ("a", "b")})
    for part in contest.parts:
        assert all(place.first_share is None for place in part.ranking.systems)
        assert part.ranking.note == "no intervals: 5 patients are too few for any test to show a difference"


def test_intervals_are_said_to_be_rough_and_not_adjusted(folders: dict[str, Path]) -> None:
    text = markdown(compare(folders))
    assert "Intervals from fewer than 10 patients are rough (here from 8)" in text
    assert "not adjusted for many; p-values are, by Holm's method" in text
    assert "rough (here from 8)" in latex(compare(folders))


def test_a_difference_names_both_systems_and_its_unit(folders: dict[str, Path]) -> None:
    (part,) = compare(folders, metrics=["hd95_max_mm"]).parts
    found = {(each.a, each.b): each.sentence for each in part.comparisons}
    assert found["good", "bad"].startswith("good is better than bad by 1 mm in each of 8 patients, p = ")
    assert found["bad", "same"].startswith("same is better than bad by 1 mm in each of 8 patients, p = ")


def test_a_class_or_metric_that_somebody_lacks_is_said_to_be_left_out(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    rows = long_table.read(folders["good"])
    rows += [row._replace(label="oedema") for row in rows] + [row._replace(metric="auc") for row in rows[:8]]
    long_table.write(folders["good"], long_table.PATIENTS, rows)
    contest = compare(folders, metrics=["dice", "auc"])
    assert {(part.label, part.metric) for part in contest.parts} == {("tumour", "dice")}
    assert contest.remarks[:2] == [
        "oedema is not compared, since bad, same lacks it.",
        "auc is not compared, since bad, same lacks it.",
    ]
    long_table.write(folders["good"], long_table.PATIENTS, [row._replace(label="core") for row in rows])
    with pytest.raises(DataError, match=r"share none of .*good has core; bad has tumour; same has tumour"):
        compare(folders)


def test_masks_are_compared_with_a_run_on_a_single_modality(folders: dict[str, Path]) -> None:
    rows = long_table.read(folders["good"])
    long_table.write(folders["good"], long_table.PATIENTS, [row._replace(group="mri") for row in rows])
    assert [heading(part) for part in compare(folders, metrics=["dice"]).parts] == ["mri tumour dice"]
    both = [row._replace(group=group) for row in rows for group in ("mri", "ct")]
    long_table.write(folders["good"], long_table.PATIENTS, both)
    with pytest.raises(DataError, match="good has mri tumour, ct tumour; bad has tumour"):
        compare(folders, metrics=["dice"])


def test_a_folder_is_taken_once_only(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="good and again are the same folder"):
        compare({"good": folders["good"], "again": folders["good"]})
    with pytest.raises(DataError, match="are the same folder"):
        compare({"bad": folders["bad"], "twice": [folders["good"], folders["same"], folders["good"]]})


def test_scores_on_the_training_side_are_said_to_be(folders: dict[str, Path], tmp_path: Path) -> None:
    scoring = {"policy": "strict"}
    for name, split in (("good", "train"), ("bad", "validation"), ("same", "test")):
        summary = {"classes": {"tumour": [1]}, "scoring": scoring, "split": split}
        write_json(folders[name] / "summary.json", summary)
    remarks = compare(folders).remarks
    assert [remark.partition(":")[0] for remark in remarks[:2]] == [
        "good was scored on the train side of its split",
        "bad was scored on the validation side of its split",
    ]
    assert len(remarks) == 3  # and these tables tell nothing of the truth


def test_the_command_takes_folders_and_runs(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    evaluation(run / "evaluation" / "test", dict.fromkeys(PATIENTS, 0.4))
    out = str(tmp_path / "out")
    assert main(["compare", f"first={folders['good']}", str(run), "--out", out, "--metric", "dice"]) == 0
    captured = capsys.readouterr()
    assert "first is better than run by 0.435" in captured.out
    assert main(["compare", str(run), str(run), "--out", out]) == 2
    assert "Two systems are called 'run'" in capsys.readouterr().err
    for given, message in {
        "=x": "Expected NAME=PATH, PATH or NAME=PATH,PATH, got '=x'",
        "x=": "got 'x='",
        "x=a,": "got 'x=a,'",
        f"{tmp_path}": "has no summary.json",
    }.items():
        assert main(["compare", given, str(run), "--out", out]) == 2
        assert message in capsys.readouterr().err
    assert main(["compare", str(folders["good"]), str(run), "--out", out, "--split", "tset"]) == 2
    assert "has no evaluation of 'tset', but of: test. Choose with --split" in capsys.readouterr().err
