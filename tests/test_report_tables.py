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
from oncoseg.report.distributions import bland_altman, histogram, volumes_in_words
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
    assert "over 2 patients" in drawn.alt
    assert b"dice (1 undefined)" in drawn.svg


def test_limits_of_agreement_by_hand_and_only_with_enough_cases() -> None:
    true = [10.0] * 10
    predicted = [9.0, 11.0] * 5
    # differences ±1, their standard deviation √(10/9)
    reach = 1.96 * math.sqrt(10 / 9)
    assert (
        f"mean +0.00 ml; 95 % limit +{reach:.2f} ml; 95 % limit -{reach:.2f} ml"
        in bland_altman("b", true, predicted).alt
    )
    few = bland_altman("b", true[:9], predicted[:9]).alt
    assert "limit" not in few


def test_volumes_have_limits_with_intervals_or_a_reason_why_not() -> None:
    true, predicted = [10.0] * 10, [9.0, 11.0] * 5
    # s = √(10/9), t(0.975, 9) = 2.262: ± 2.262 · s / √10 = 0.754, √3 times that for a limit
    assert volumes_in_words(true, predicted) == (
        "Volumes: predicted minus true is +0.00 [-0.75, +0.75] ml in the mean of 10 cases, limits of "
        "agreement -2.07 [-3.37, -0.76] and +2.07 [+0.76, +3.37]."
    )
    few = volumes_in_words(true[:8], predicted[:8])
    assert "+0.00 ml in the mean of 8 cases" in few
    assert "not given of fewer than 10" in few
