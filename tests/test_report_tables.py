"""The pages of evaluations and comparisons."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from oncoseg.evaluate.compare import compare
from oncoseg.evaluate.contest_files import write
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.report import write_comparison, write_evaluation
from oncoseg.report.distributions import Volumes, bland_altman, histogram
from test_pairs import GRID, marked
from test_pairs import write as write_mask

EXTERNAL = re.compile(r'(src|href)="(?!data:|#)')


@pytest.fixture
def evaluated(tmp_path: Path) -> dict[str, Path]:
    """Two systems on six patients; one misses the tumour of one and cannot be read in another."""
    for number in range(6):
        write_mask(tmp_path / "truth" / f"p{number}.nii.gz", marked())
        write_mask(tmp_path / "good" / f"p{number}.nii.gz", marked())
        write_mask(tmp_path / "poor" / f"p{number}.nii.gz", marked() if number else np.zeros(GRID, np.uint8))
    (tmp_path / "poor" / "p5.nii.gz").write_bytes(b"no image")
    folders = {name: tmp_path / f"scores-{name}" for name in ("good", "poor")}
    for name, folder in folders.items():
        evaluate_masks(tmp_path / "truth", tmp_path / name, folder, workers=0)
    return folders


def test_an_evaluations_page_stands_alone_and_says_what_was_ruled(evaluated: dict[str, Path]) -> None:
    page = write_evaluation(evaluated["poor"]).read_text(encoding="utf-8")
    assert not EXTERNAL.search(page)
    assert "<h1>Evaluation of 6 patients</h1>" in page
    assert "<strong>p5</strong> could not be used and counts as missing" in page
    assert "prediction_empty 1, prediction_missing 1" in page
    dice = re.search(r'<th scope="row">dice</th>\s*<td>([\d.]+)', page)
    assert float(dice[1]) == pytest.approx(4 / 6, abs=5e-4)
    listed = re.findall(r'<tr><th scope="row">(p\d)</th>', page)
    assert listed == ["p0", "p5", "p1", "p2", "p3", "p4"]  # the lowest Dice first
    # five plots of boxes, three histograms, the volumes and the confusion matrix
    assert page.count("data:image/svg+xml") == 10
    assert "There are no probability maps and so no curves" in page
    assert '<th scope="row">hausdorff_mm</th><td>undefined</td><td>diagonal</td>' in page
    assert (evaluated["poor"] / "volumes-label-1.svg").is_file()


def test_a_comparisons_page_shows_every_sentence_and_patient(
    evaluated: dict[str, Path], tmp_path: Path
) -> None:
    contest = compare(evaluated, metrics=["dice", "hd95_max_mm"])
    page = write_comparison(contest, write(contest, tmp_path / "out")).read_text(encoding="utf-8")
    assert not EXTERNAL.search(page)
    for part in contest.parts:
        for each in part.comparisons:
            assert each.sentence.replace("'", "&#39;") in page
    assert "Lower is better." in page
    assert "good − poor" in page
    plots = sorted(path.name for path in (tmp_path / "out").glob("*.svg"))
    assert plots == ["patients-label-1-dice.svg", "patients-label-1-hd95_max_mm.svg"]


def test_names_cannot_write_html(evaluated: dict[str, Path], tmp_path: Path) -> None:
    named = {"<script>": evaluated["good"], "poor": evaluated["poor"]}
    contest = compare(named, metrics=["dice"])
    page = write_comparison(contest, write(contest, tmp_path / "out")).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_histogram_says_how_many_are_undefined() -> None:
    drawn = histogram("h", "dice", [0.5, 1.0, math.nan])
    assert drawn.caption == drawn.alt == "Histogram of dice over 2 patients, 1 undefined."
    assert b"dice (0 to 1)" in drawn.svg
    assert b"number of patients" in drawn.svg


def volumes(true: list[float], predicted: list[float], cases_each: int = 1) -> list[Volumes]:
    patients = [f"p{number // cases_each}" for number in range(len(true))]
    return [Volumes(*one) for one in zip(patients, true, predicted, strict=True)]


def test_limits_of_agreement_by_hand_and_only_with_enough_patients() -> None:
    true = [10.0] * 10
    predicted = [9.0, 11.0] * 5
    # differences ±1, their standard deviation √(10/9)
    reach = 1.96 * math.sqrt(10 / 9)
    assert (
        f"mean +0.00 ml; 95 % limit +{reach:.2f} ml; 95 % limit −{reach:.2f} ml"
        in bland_altman("b", volumes(true, predicted)).alt
    )
    few = bland_altman("b", volumes(true[:9], predicted[:9])).alt
    assert "limit" not in few
    of_five = bland_altman("b", volumes(true, predicted, cases_each=2))
    assert "limit" not in of_five.alt
    assert "+0.00 ml in the mean of 10 cases of 5 patients. Limits" in of_five.caption


def test_volumes_have_limits_with_intervals_or_a_reason_why_not() -> None:
    true, predicted = [10.0] * 10, [9.0, 11.0] * 5
    # s² = 10/9, t(0.975, 9) = 2.262: ± 2.262 · √(s² / 10) = 0.754; of a limit
    # ± 2.262 · √(s² (1/10 + 1.96²/18))
    assert bland_altman("b", volumes(true, predicted)).caption == (
        "Volumes: predicted minus true is +0.00 [−0.75, +0.75] ml in the mean of 10 cases of 10 patients; "
        "limits of agreement −2.07 [−3.40, −0.73] and +2.07 [+0.73, +3.40] ml. They are to hold 95 % of "
        "single cases, if differences are about normal and do not grow with the volume; intervals by "
        "Student's t over patients. Made as by Bland and Altman (1999)."
    )
    few = bland_altman("b", volumes(true[:8], predicted[:8])).caption
    assert "+0.00 ml in the mean of 8 cases of 8 patients" in few
    assert "not given of fewer than 10 patients" in few


def test_volumes_of_several_cases_per_patient_say_how_their_limits_were_made() -> None:
    rng = np.random.default_rng(0)
    of_patient = np.repeat(rng.normal(size=12), 3)
    plot = bland_altman("b", volumes([10.0] * 36, (10 + of_patient).tolist(), cases_each=3))
    assert "36 cases of 12 patients; limits of agreement" in plot.caption
    assert "variance between patients to that within them (Bland and Altman 2007)" in plot.caption
    assert "1999" not in plot.caption


def test_limits_of_readers_have_no_intervals_as_comparisons_share_masks() -> None:
    predicted = [9.0, 11.0] * 10
    caption = bland_altman("b", volumes([10.0] * 20, predicted, cases_each=2), readers=True).caption
    assert (
        "in 20 comparisons of 10 patients: mean +0.00 ml, limits of agreement −1.96 and +1.96 ml, which"
        in caption
    )
    assert "No intervals: the comparisons of a patient share masks." in caption
    few = bland_altman("b", volumes([10.0] * 18, predicted[:18], cases_each=2), readers=True).caption
    assert few.endswith("of 9 patients: mean +0.00 ml, no limits of agreement, from fewer than 10 patients.")


def test_a_missing_prediction_is_a_cross_among_the_volumes(evaluated: dict[str, Path]) -> None:
    page = write_evaluation(evaluated["poor"]).read_text(encoding="utf-8")
    assert "A cross is a missing prediction, which counts as an empty one (1 case)." in page
    assert "A cross is a missing" not in write_evaluation(evaluated["good"]).read_text(encoding="utf-8")


def test_the_page_names_what_was_compared_and_every_missing_file(tmp_path: Path) -> None:
    for number in range(6):
        write_mask(tmp_path / "truth" / f"p{number}.nii.gz", marked())
        if number:
            write_mask(tmp_path / "ours" / f"p{number}.nii.gz", marked())
    (tmp_path / "ours" / "p1_probability.nii.gz").write_bytes(b"no image")
    patients = {f"p{number}": "P" for number in range(5)}
    evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", patients=patients, workers=0)
    page = write_evaluation(tmp_path / "out").read_text(encoding="utf-8")
    assert "ours against truth · 6 cases · policy" in page
    assert "1 of 6 cases without a prediction, by the policy counted as missing: <strong>p0</strong>" in page
    assert "probability map of <strong>p1</strong> could not be used" in page
    assert "1 of 6 cases are not in the list of patients" in page
    assert "the first is p5" in page


def test_the_page_says_where_grids_were_changed_and_cases_taken_for_patients(tmp_path: Path) -> None:
    for number in range(2):
        for side in ("truth", "ours"):
            write_mask(tmp_path / side / f"p{number}.nii.gz", marked())
    for resample in (False, True):
        out = tmp_path / str(resample)
        evaluate_masks(tmp_path / "truth", tmp_path / "ours", out, resample=resample, workers=0)
        page = write_evaluation(out).read_text(encoding="utf-8")
        assert ("brought onto it by nearest neighbour" in page) == resample
        assert "2 cases, each taken for a patient of its own · policy" in page


def test_every_small_plot_has_its_caption_above_it(evaluated: dict[str, Path]) -> None:
    page = write_evaluation(evaluated["good"]).read_text(encoding="utf-8")
    above = re.findall(r'<p class="over">([^<]*)</p>\s*<img src="data:image/svg', page)
    assert [text for text in above if text.startswith("Histogram of")] == [
        f"Histogram of {metric} over 6 patients." for metric in ("dice", "surface_dice", "lesion_f1")
    ]
    assert any(text.startswith("volume_error: ") for text in above)
    assert any(text.startswith("Volumes: predicted minus true") for text in above)


def test_plots_of_an_earlier_page_are_taken_away_and_nothing_else(evaluated: dict[str, Path]) -> None:
    folder = evaluated["good"]
    for name in ("histogram-oedema-dice.svg", "roc.svg", "rocket.svg", "notes.svg", "examples.png"):
        (folder / name).write_bytes(b"old")
    write_evaluation(folder)
    left = {path.name for path in folder.glob("*.svg")}
    assert {"rocket.svg", "notes.svg", "histogram-label-1-dice.svg"} <= left
    assert not left & {"histogram-oedema-dice.svg", "roc.svg"}
    assert (folder / "examples.png").read_bytes() != b"old"


def test_a_lost_mean_says_why_and_calls_no_patient_undefined(evaluated: dict[str, Path]) -> None:
    page = write_evaluation(evaluated["poor"]).read_text(encoding="utf-8")
    row = re.search(r'<tr><th scope="row">volume_error</th>(.*?)</tr>', page, re.S)[1]
    assert "no mean: 1 patient lacks a file" in row
    assert "<td>0</td><td>0</td>" in row
    assert "no interval: all 6 values are equal" in write_evaluation(evaluated["good"]).read_text("utf-8")


def test_a_score_that_nobody_has_says_nothing_of_an_interval(tmp_path: Path) -> None:
    for folder in ("truth", "found"):
        write_mask(tmp_path / folder / "p.nii.gz", np.zeros(GRID, np.uint8))
    evaluate_masks(
        tmp_path / "truth", tmp_path / "found", tmp_path / "scores", classes={"tumour": (1,)}, workers=0
    )
    page = write_evaluation(tmp_path / "scores").read_text(encoding="utf-8")
    row = re.search(r'<tr><th scope="row">dice</th>(.*?)</tr>', page, re.S)[1]
    assert re.findall(r"<td>(.*?)</td>", row) == ["–", "–", "0", "1"]


def test_wilsons_interval_is_named_where_it_is_used(evaluated: dict[str, Path], tmp_path: Path) -> None:
    page = write_evaluation(evaluated["good"]).read_text(encoding="utf-8")
    assert "(BCa bootstrap; of the mean of false_alarm Wilson&#39;s)" in page
    for number in range(6):
        for case in "ab":
            write_mask(tmp_path / "two" / f"p{number}{case}.nii.gz", marked())
            alarm = marked()
            alarm[0, 0, 0] = case == "a" and number < 3
            write_mask(tmp_path / "found" / f"p{number}{case}.nii.gz", alarm)
    patients = {f"p{number}{case}": f"p{number}" for number in range(6) for case in "ab"}
    evaluate_masks(tmp_path / "two", tmp_path / "found", tmp_path / "out", patients=patients, workers=0)
    page = write_evaluation(tmp_path / "out").read_text(encoding="utf-8")
    assert "(BCa bootstrap)" in page  # half of a patient's cases have a false alarm, so that it is no share
    assert "Wilson" not in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_a_comparison_says_by_which_rules_and_what_was_not_handed_in(
    evaluated: dict[str, Path], tmp_path: Path
) -> None:
    contest = compare(evaluated, metrics=["dice"])
    page = write_comparison(contest, write(contest, tmp_path / "out")).read_text(encoding="utf-8")
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    for said in (page, summary):
        assert "poor: 0 of 6 predictions missing, 1 unusable; they count as missing." in said
        assert "Empty and missing masks: policy strict, the same for all. Surface Dice at 2 mm." in said
    assert "prediction_empty 1, prediction_missing 1</td>" in page
    assert "decided: poor prediction_empty 1, prediction_missing 1" in summary
    assert "policy strict" in (tmp_path / "out" / "summary.tex").read_text(encoding="utf-8")
