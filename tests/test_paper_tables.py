"""Tables for papers: every cell means itself, whatever a system, class or patient is called."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.paper_tables import latex_table, markdown_table, with_interval
from oncoseg.evaluate.result import evaluate_predictions
from oncoseg.evaluate.scoring import OF_PROBABILITY, Scoring
from oncoseg.metrics.catalogue import METRICS
from oncoseg.recipe import Published
from test_evaluate import case
from test_pairs import GRID, marked, write


def test_letters_of_latex_are_escaped() -> None:
    table = latex_table(["a_b", "50 %"], [["x & y", "$1 #2 {3}"], ["~^\\", "– −1 <|>"]], ["two\nlines"])
    assert table.splitlines() == [
        "% two lines",
        "\\begin{tabular}{lr}",
        "\\hline",
        "a\\_b & 50 \\% \\\\",
        "\\hline",
        "x \\& y & \\$1 \\#2 \\{3\\} \\\\",
        "\\textasciitilde{}\\textasciicircum{}\\textbackslash{} & "
        "-- \\ensuremath{-}1 \\textless{}\\textbar{}\\textgreater{} \\\\",
        "\\hline",
        "\\end{tabular}",
    ]


def test_letters_of_markdown_are_escaped() -> None:
    table = markdown_table(["system", "hd95_max_mm"], [["a|b *c*", "<b>`x`</b>"], ["two\nlines", "\\"]])
    assert table.splitlines() == [
        "| system | hd95_max_mm |",
        "|---|---|",
        "| a\\|b \\*c\\* | \\<b\\>\\`x\\`\\</b\\> |",
        "| two lines | \\\\ |",
    ]


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.9987, 0.9981, 0.9992, "0.999 [0.998, 0.999]"),  # with fewer digits the mean would lie outside
        (0.5, None, None, "0.500"),
        (None, None, None, "–"),
        (math.nan, None, None, "–"),
    ],
)
def test_a_mean_and_its_interval_have_the_same_digits(
    value: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert with_interval(value, low, high) == text


def test_an_evaluation_of_masks_has_its_summary_as_tables(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "truth" / f"p{number}.nii.gz", marked())
        write(tmp_path / "ours" / f"p{number}.nii.gz", marked() if number else np.zeros(GRID, np.uint8))
    scoring = Scoring(outcomes={("dice", "both_empty"): 1.0})
    classes = {"core_1": (1,)}
    folders = tmp_path / "truth", tmp_path / "ours"
    out = evaluate_masks(*folders, tmp_path / "out", classes=classes, scoring=scoring, workers=0).folder
    lines = (out / "summary.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| class | metric | mean | median | n | undefined | by rule |"
    (row,) = [
        row for row in json.loads((out / "summary.json").read_text())["table"] if row["metric"] == "dice"
    ]
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
    assert any(line.startswith(f"| core_1 | dice | 0.833 {interval} | 1.000 [") for line in lines)
    assert any("policy strict, dice.both_empty = 1.0" in line for line in lines)
    (dice,) = [line for line in lines if line.startswith("| core_1 | dice |")]
    assert dice.endswith("| 6 | 0 | prediction_empty 1 |")
    assert any("6 patients; 0 of 6 predictions missing, 0 unusable." in line for line in lines)
    assert any("Intervals from fewer than 10 patients are rough (here from 6)" in line for line in lines)
    latex = (out / "summary.tex").read_text(encoding="utf-8")
    assert f"core\\_1 & dice & 0.833 {interval} & 1.000" in latex
    assert sum(line.count("&") == 6 for line in latex.splitlines()) == 1 + len(METRICS) - len(OF_PROBABILITY)


def test_the_tables_say_how_many_predictions_are_missing_and_whom_a_rule_decided(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / "truth" / f"p{number}.nii.gz", marked())
        if number:
            write(tmp_path / "ours" / f"p{number}.nii.gz", marked())
    out = evaluate_masks(tmp_path / "truth", tmp_path / "ours", tmp_path / "out", workers=0).folder
    text = (out / "summary.md").read_text(encoding="utf-8")
    assert "9 patients; 1 of 9 predictions missing, 0 unusable." in text
    assert "| 9 | 0 | prediction_missing 1 |" in text
    assert "prediction\\_missing 1" in (out / "summary.tex").read_text(encoding="utf-8")


def test_an_evaluation_of_a_run_has_its_summary_and_the_papers_as_tables(tmp_path: Path) -> None:
    cases = [case(f"p{number}", ["1100 1000"]) for number in range(5)] + [case("none", ["0000 1000"])]
    published = (Published(row="mri", scores={"dice": 0.83}),)
    evaluate_predictions(cases, 0.5, published).write(tmp_path)
    lines = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| modality | averaging | n | dice | iou | precision | recall | f1 | auc |"
    assert lines[2].startswith("| mri | patient | 6 | 0.556 [0.222, 0.667] | ")
    assert "| 0.500 (n=5) |" in lines[2]  # recall needs tumour
    assert lines[6] == "| mri | paper, other data | – | 0.83 | – | – | – | – | – |"
    assert any(line.startswith("- Empty masks: ") for line in lines)
    assert "mri & patient & 6 & 0.556 [0.222, 0.667]" in (tmp_path / "summary.tex").read_text(
        encoding="utf-8"
    )


def test_a_negative_number_has_a_minus_in_print() -> None:
    cell = with_interval(-0.5, -1.25, 0.25)
    assert cell == "−0.500 [−1.250, 0.250]"
    assert r"\ensuremath{-}0.500 [\ensuremath{-}1.250, 0.250]" in latex_table(["a", "b"], [["x", cell]])
