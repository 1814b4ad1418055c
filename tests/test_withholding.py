"""No system gains by withholding a file; false alarms on patients without tumour are seen and compared."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg.cli import main
from oncoseg.errors import DataError
from oncoseg.evaluate.compare import TESTED, compare
from oncoseg.evaluate.contest_files import as_json, markdown
from oncoseg.evaluate.curves import describe
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.scoring import FORFEITED, CaseScores, Scoring, of_patients, score_case
from oncoseg.evaluate.summary import summarise
from oncoseg.metrics.catalogue import METRICS
from oncoseg.report import captions, matrices, operating
from oncoseg.statistics import ROUNDING
from test_pairs import write

GRID = (8, 8, 4)
SPACING = (1.0, 1.0, 2.0)


def block(i: int, j: int, size: int = 2) -> np.ndarray:
    mask = np.zeros(GRID, np.uint8)
    mask[i : i + size, j : j + size, 1:3] = 1
    return mask


NOTHING, TUMOUR, BESIDE, LARGE = np.zeros(GRID, np.uint8), block(1, 1), block(5, 5), block(0, 0, 8)


def score(case: str, truth: np.ndarray, prediction: np.ndarray | None, patient: str = "p") -> CaseScores:
    (row,) = score_case(case, patient, truth, prediction, SPACING, {"tumour": (1,)}, Scoring())
    return row


def of_patient(*predictions: np.ndarray | None, truths: Sequence[np.ndarray]) -> CaseScores:
    rows = [
        score(str(n), truth, mask) for n, (truth, mask) in enumerate(zip(truths, predictions, strict=True))
    ]
    (patient,) = of_patients(rows, Scoring())
    return patient


def no_better(metric: str, withheld: float, handed_in: float) -> bool:
    """Whether it does not pay; NaN is no gain where the mean over patients is lost with it."""
    if METRICS[metric].better == "zero" or math.isnan(handed_in):
        return True
    gain = withheld - handed_in if METRICS[metric].better == "higher" else handed_in - withheld
    return gain <= ROUNDING * abs(handed_in)


def test_withholding_would_have_paid_where_voxels_are_counted_together() -> None:
    """One of two cases is right, the other a false alarm of 128 voxels beside 8 of tumour."""
    truths = (TUMOUR, NOTHING)
    honest = of_patient(TUMOUR, LARGE, truths=truths)
    assert honest.values["dice"] == pytest.approx(2 * 8 / (2 * 8 + 128))
    # as an empty mask the missing file would have had a Dice of 1, no false lesion and a specificity of 1
    sly = of_patient(TUMOUR, None, truths=truths)
    assert of_patient(TUMOUR, NOTHING, truths=truths).values["dice"] == 1
    assert [sly.values[name] for name in ("dice", "precision", "specificity", "accuracy")] == [0, 0, 0, 0]
    assert sly.rules["dice"] == "prediction_missing"
    assert sly.values["false_alarm"] == 0.5
    for name in ("false_positive_lesions", "volume_error"):
        assert math.isnan(sly.values[name])
        assert sly.rules[name] == FORFEITED


MASKS = st.builds(
    lambda voxels: np.isin(np.arange(27), list(voxels)).reshape(3, 3, 3).astype(np.uint8),
    st.sets(st.integers(0, 26), max_size=12),
)


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=3), st.data())
@settings(max_examples=80)
def test_withholding_never_pays_whatever_the_masks(
    cases: list[tuple[np.ndarray, np.ndarray]], data: st.DataObject
) -> None:
    withheld = data.draw(st.integers(0, len(cases) - 1))
    truths = [truth for truth, _ in cases]
    predictions: list[np.ndarray | None] = [mask for _, mask in cases]
    honest = of_patient(*predictions, truths=truths)
    predictions[withheld] = None
    sly = of_patient(*predictions, truths=truths)
    for name in honest.values:
        if sly.rules.get(name) == FORFEITED:
            continue  # the system has no mean of it at all, as tested below
        assert no_better(name, sly.values[name], honest.values[name]), name


def test_a_system_that_withholds_has_no_mean_of_what_has_no_bound() -> None:
    rows = [score(str(n), TUMOUR, LARGE if n else None, patient=str(n)) for n in range(6)]
    table = {row["metric"]: row for row in summarise(of_patients(rows, Scoring()), Scoring())["table"]}
    for name in ("false_positive_lesions", "volume_error"):
        assert (table[name]["mean"], table[name]["n"], table[name]["low"]) == (None, 0, None)
        assert (table[name]["rules"], table[name]["undefined"]) == ({FORFEITED: 1}, 0)
        assert table[name]["note"] == "no mean: 1 patient lacks a file"
    assert table["false_alarm"]["mean"] == pytest.approx(1 / 6)  # the large mask touches the tumour
    assert table["dice"]["n"] == 6


def scored_map(name: str, truth: np.ndarray, probability: np.ndarray | None) -> CaseScores:
    maps = {"tumour": None if probability is None else lambda: probability}
    mask = None if probability is None else (probability >= 0.5).astype(np.uint8)
    (row,) = score_case(name, name, truth, mask, SPACING, {"tumour": (1,)}, Scoring(), maps)
    return row


def test_who_withholds_a_map_full_of_false_positives_has_no_number_of_all_voxels_together() -> None:
    """Five good maps; the sixth marks everything but the tumour."""
    good, full = np.where(TUMOUR, 0.9, 0.05).astype(np.float32), np.where(TUMOUR, 0.1, 0.9)
    rows = [scored_map(str(n), TUMOUR, good) for n in range(5)]
    honest = describe([*rows, scored_map("5", TUMOUR, full.astype(np.float32))], Scoring())
    sly = describe([*rows, scored_map("5", TUMOUR, None)], Scoring())
    # left out, the sixth map would have raised all of these
    alone = describe(rows, Scoring())
    assert honest["precision_recall"]["average_precision"]["value"] < 0.5
    assert alone["precision_recall"]["average_precision"]["value"] == pytest.approx(1)
    assert honest["reliability"]["brier"]["value"] > alone["reliability"]["brier"]["value"]
    numbers = [
        *(sly["voxels"][name] for name in ("specificity", "precision")),
        *(sly["roc"]["auc"], sly["precision_recall"]["average_precision"], sly["froc"]["score"]),
        *(sly["reliability"][name] for name in ("brier", "calibration_error")),
        *sly["froc"]["points"],
    ]
    for number in numbers:
        assert (number["value"], number["low"], number["high"]) == (None, None, None)
    assert sly["roc"]["auc"]["note"] == "not given: 1 of 6 probability maps missing: not comparable"
    assert sly["voxels"]["precision"]["note"] == "not given: 1 of 6 patients' masks missing: not comparable"
    assert sly["voxels"]["recall"]["value"] == honest["voxels"]["recall"]["value"] == pytest.approx(5 / 6)
    said = " ".join([*captions.of_voxels(sly), *captions.of_lesions(sly)])
    assert said.count("No number is read off these curves") == 2
    assert "Specificity and precision of the masks are not given" in said
    for plot in (
        operating.roc("roc", {"tumour": sly}),
        operating.precision_recall("pr", {"tumour": sly}),
        operating.reliability("reliability", sly),
        operating.froc("froc", sly),
        matrices.of_voxels("matrix", sly["voxels"]),
    ):
        assert plot is not None
        assert "missing: not comparable" in " ".join(re.findall(r">([^<>]+)</text>", plot.svg.decode()))


@pytest.fixture
def systems(tmp_path: Path) -> dict[str, Path]:
    """Ten patients, four of them without tumour.

    `careful` is right; `eager` marks something in three of the four; `sly` withholds these three files.
    """
    for number in range(10):
        name = f"p{number}.nii.gz"
        truth = TUMOUR if number < 6 else NOTHING
        write(tmp_path / "truth" / name, truth)
        write(tmp_path / "careful" / name, truth)
        write(tmp_path / "eager" / name, truth if number < 7 else BESIDE)
        if number < 7:
            write(tmp_path / "sly" / name, truth)
    found = {name: tmp_path / f"scores-{name}" for name in ("careful", "eager", "sly")}
    for name, folder in found.items():
        evaluate_masks(tmp_path / "truth", tmp_path / name, folder, workers=0)
    return found


def test_false_alarms_on_patients_without_tumour_are_compared_though_dice_leaves_them_out(
    systems: dict[str, Path],
) -> None:
    assert "false_alarm" in TESTED
    contest = compare({name: systems[name] for name in ("careful", "eager")})
    parts = {part.metric: part for part in contest.parts}
    (dice,), (alarm,) = parts["dice"].comparisons, parts["false_alarm"].comparisons
    assert (dice.n, dice.difference.mean, dice.left_out) == (6, 0, 4)
    assert (alarm.n, alarm.difference.mean, alarm.left_out) == (10, pytest.approx(-0.3), 0)
    # three patients differ, all in one direction: 2 / 2³
    assert alarm.p == pytest.approx(0.25)
    (found,) = contest.false_alarms
    assert (found.patients, found.alarms) == (4, {"careful": 0, "eager": 3})
    sentence = "4 patients have no label-1 in the truth; of these a false alarm has careful in 0, eager in 3"
    assert sentence in markdown(contest)
    assert as_json(contest)["false_alarms"][0]["alarms"] == {"careful": 0, "eager": 3}


def test_who_withholds_the_false_alarms_is_no_better_off(systems: dict[str, Path]) -> None:
    contest = compare({name: systems[name] for name in ("eager", "sly")})
    assert contest.false_alarms[0].alarms == {"eager": 3, "sly": 3}
    for part in contest.parts:
        eager, sly = (part.summaries[name].mean for name in ("eager", "sly"))
        assert no_better(part.metric, sly, eager), part.metric
    for metric in ("false_positive_lesions", "volume_error"):
        with pytest.raises(
            DataError, match=f"sly cannot be compared by {metric}: .* 3 patients, the first is"
        ):
            compare(systems, metrics=["dice", metric])


def test_a_value_for_missing_files_may_be_chosen(systems: dict[str, Path], tmp_path: Path) -> None:
    scoring = Scoring(outcomes={("false_positive_lesions", "prediction_missing"): 10.0})
    for name in ("eager", "sly"):
        evaluate_masks(
            tmp_path / "truth", tmp_path / name, tmp_path / f"again-{name}", scoring=scoring, workers=0
        )
    again = {name: tmp_path / f"again-{name}" for name in ("eager", "sly")}
    (part,) = compare(again, metrics=["false_positive_lesions"]).parts
    assert {name: found.mean for name, found in part.summaries.items()} == pytest.approx(
        {"eager": 0.3, "sly": 3}
    )


def test_the_terminal_says_what_was_forfeited_and_who_gave_false_alarms(
    systems: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, sly = str(tmp_path / "truth"), str(tmp_path / "sly")
    out = str(tmp_path / "printed")
    assert main(["evaluate", "--prediction", sly, "--truth", truth, "--out", out, "--workers", "0"]) == 2
    printed = capsys.readouterr().out
    assert "forfeited 3" in printed
    assert "forfeited: no mean, as files are missing" in printed
    both = [f"{name}={systems[name]}" for name in ("careful", "eager")]
    assert main(["compare", *both, "--out", str(tmp_path / "comparison")]) == 0
    assert "a false alarm has careful in 0, eager in 3" in capsys.readouterr().out
    assert (
        "a false alarm has careful in 0, eager in 3" in (tmp_path / "comparison" / "index.html").read_text()
    )
