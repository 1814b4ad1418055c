"""The curves of an evaluation: bands, rates, what a missing map counts, and curves.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncoseg.evaluate import curve_sums, curves
from oncoseg.evaluate.scoring import CaseScores, Scoring, of_patients, score_case
from oncoseg.evaluate.summary import describe
from oncoseg.report import captions
from test_curve_sums import numbers

SPACING = (1.0, 1.0, 2.0)
LEFT_OUT = Scoring(
    outcomes={
        ("auc", "prediction_missing"): "undefined",
        ("lesion_sensitivity", "prediction_missing"): "undefined",
    }
)


def patient(
    name: str, probability: list[float] | None, truth: list[int], scoring: Scoring | None = None
) -> CaseScores:
    """A patient with one case of voxels in a row; the mask is probability 0.5 and above."""
    marked = np.array(truth, np.uint8)[:, None, None]
    scores = None if probability is None else np.array(probability, np.float32)[:, None, None]
    mask = None if scores is None else (scores >= 0.5).astype(np.uint8)
    maps = {"tumour": None if scores is None else lambda: scores}
    of_case = name, name, marked, mask, SPACING, {"tumour": (1,)}, scoring or Scoring(), maps
    return score_case(*of_case)[0]


def some_patients(number: int, seed: int = 0) -> list[CaseScores]:
    """Each with tumour in the first 4 of 30 voxels, found more or less well."""
    rng = np.random.default_rng(seed)
    truth = [1] * 4 + [0] * 26
    return [
        patient(f"p{n}", list(1 / (1 + np.exp(-rng.normal(4 * np.array(truth) - 2.0, 1.5)))), truth)
        for n in range(number)
    ]


def described(rows: list[CaseScores], scoring: Scoring | None = None) -> dict[str, Any]:
    return curves.describe(rows, scoring or Scoring())


CURVES = [
    ("roc", "recall"),
    ("precision_recall", "precision"),
    ("reliability", "observed_share"),
    ("froc", "sensitivity"),
]


@pytest.mark.parametrize(("plot", "curve"), CURVES)
def test_bands_hold_their_curve(plot: str, curve: str) -> None:
    found = described(some_patients(8))[plot][curve]
    value, low, high = (np.array(found[name], float) for name in ("value", "low", "high"))
    defined = ~np.isnan(value)
    assert defined.any()
    assert (low[defined] <= value[defined]).all()
    assert (value[defined] <= high[defined]).all()
    assert (high[defined] > low[defined]).any()


@pytest.mark.parametrize(("plot", "curve"), CURVES)
def test_bands_shrink_to_the_curve_where_all_patients_are_alike(plot: str, curve: str) -> None:
    (one,) = some_patients(1)
    found = described([one._replace(patient=f"p{n}") for n in range(8)])[plot][curve]
    np.testing.assert_allclose(
        np.array(found["low"], float), np.array(found["value"], float), rtol=1e-12, equal_nan=True
    )
    np.testing.assert_allclose(
        np.array(found["high"], float), np.array(found["value"], float), rtol=1e-12, equal_nan=True
    )


def test_curves_of_a_single_patient_have_no_band_and_say_so() -> None:
    part = described([patient("a", [0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0])])
    assert part["roc"]["auc"]["value"] == pytest.approx(0.75)
    assert part["roc"]["recall"]["low"] is None
    # the mask marks the first and third voxel
    assert part["roc"]["mask"] == [0.5, 0.5]
    assert part["precision_recall"]["mask"] == [0.5, 0.5]
    assert part["precision_recall"]["chance"] == 0.5
    (said,) = [line for line in captions.of_voxels(part) if line.startswith("No intervals")]
    assert said == "No intervals of the curves: 1 patient with tumour, fewer than 5."


def test_luna16_reads_lesions_by_hand() -> None:
    # three cases: lesions found at 0.9 and 0.4, false candidates at 0.8 and 0.2
    rows = [
        patient("a", [0.9, 0, 0.8, 0], [1, 0, 0, 0]),
        patient("b", [0.4, 0, 0, 0], [1, 0, 0, 0]),
        patient("c", [0, 0, 0, 0.2], [0, 1, 0, 0]),
    ]
    froc = described(rows)["froc"]
    assert (froc["lesions"], froc["candidates"], froc["cases"]) == (3, 2, 3)
    at = {point["false_positives_per_case"]: point["value"] for point in froc["points"]}
    # without a false positive 1/3; with one in three cases 2/3, and linear between
    assert at[1 / 8] == pytest.approx(1 / 3)
    assert at[1 / 2] == pytest.approx(2 / 3)
    assert at[8] == pytest.approx(2 / 3)


# what is missing


def test_a_missing_map_counts_as_the_policy_says_and_the_page_says_so() -> None:
    rows = [
        patient("a", [0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0]),
        patient("b", None, [1, 1, 0, 0]),
    ]
    part = described(rows)
    assert part["maps"]["missing"] == 1
    assert part["roc"]["recall"]["value"][-1] == pytest.approx(0.5)
    assert part["roc"]["mask"] == [0.5, 0.25]
    assert part["froc"]["lesions"] == 2
    assert part["froc"]["sensitivity"]["value"][-1] == 0.5
    assert "1 case has no probability map that can be used: by the policy their tumour voxels" in " ".join(
        captions.of_voxels(part)
    )
    assert "by the policy their lesions count as never found" in " ".join(captions.of_lesions(part))


def test_where_the_policy_leaves_missing_maps_out_they_are_left_out() -> None:
    rows = [
        patient("a", [0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0], LEFT_OUT),
        patient("b", None, [1, 1, 0, 0], LEFT_OUT),
    ]
    part = described(rows, LEFT_OUT)
    assert part["roc"]["auc"]["value"] == pytest.approx(0.75)
    assert part["froc"]["points"][-1]["value"] == 1
    assert part["froc"]["lesions"] == 1
    said = " ".join(captions.of_voxels(part) + captions.of_lesions(part))
    assert said.count("by the policy they are left out") == 2


def test_a_withheld_map_loses_all_of_its_tumour() -> None:
    rows = some_patients(5)
    truth = [1] * 4 + [0] * 26
    poor, withheld = patient("poor", [0.2] * 4 + [0.1] * 26, truth), patient("poor", None, truth)
    with_poor, without = described([*rows, poor]), described([*rows, withheld])
    for plot, curve in (("roc", "recall"), ("froc", "sensitivity")):
        values = (np.array(part[plot][curve]["value"]) for part in (without, with_poor))
        assert np.less_equal(*values).all()
    assert without["roc"]["recall"]["value"][-1] == pytest.approx(5 / 6)


def test_all_maps_missing_leaves_no_curve_but_the_matrix() -> None:
    part = described([patient("a", None, [1, 0, 0, 0])])
    assert (part["roc"], part["reliability"], part["froc"]) == (None, None, None)
    assert [part["voxels"][name] for name in ("tp", "fp", "fn", "tn")] == [0, 0, 1, 3]
    assert "no probability map that can be used" in " ".join(captions.of_voxels(part))
    assert "no probability map that can be used" in " ".join(captions.of_lesions(part))


def test_without_tumour_only_reliability_is_left() -> None:
    rows = [patient(f"p{n}", [0.2, 0.1, 0.6, 0.1], [0, 0, 0, 0]) for n in range(6)]
    part = described(rows)
    assert (part["roc"], part["froc"]) == (None, None)
    assert part["reliability"]["brier"]["value"] == pytest.approx((0.04 + 0.01 + 0.36 + 0.01) / 4, rel=1e-6)
    assert part["voxels"]["recall"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "note": "no interval: not defined",
    }
    assert "no tumour in the truth" in " ".join(captions.of_voxels(part))


def test_masks_without_maps_have_their_matrix_alone() -> None:
    (row,) = score_case(
        "a", "a", np.ones((2, 2, 2), np.uint8), np.ones((2, 2, 2), np.uint8), SPACING, {"t": (1,)}, Scoring()
    )
    part = described([row])
    assert part["maps"] is None
    assert "roc" not in part
    assert part["voxels"]["tp"] == 8


# matrices


def test_rates_rest_on_the_patients_who_can_move_them() -> None:
    rows = some_patients(5) + [patient(f"h{n}", [0.1] * 30, [0] * 30) for n in range(3)]
    voxels = described(rows)["voxels"]
    assert voxels["recall"]["n"] == 5
    assert voxels["specificity"]["n"] == 8
    assert voxels["tp"] + voxels["fn"] == 20
    assert voxels["recall"]["value"] == pytest.approx(voxels["tp"] / 20)
    assert voxels["recall"]["low"] <= voxels["recall"]["value"] <= voxels["recall"]["high"]


def test_patients_with_and_without_tumour_are_counted() -> None:
    rows = [
        patient("found", [0.9, 0, 0, 0], [1, 0, 0, 0]),
        patient("missed", [0.1, 0, 0, 0], [1, 0, 0, 0]),
        patient("absent", None, [1, 0, 0, 0]),
        patient("alarm", [0.9, 0, 0, 0], [0, 0, 0, 0]),
        patient("quiet", [0.1, 0, 0, 0], [0, 0, 0, 0]),
        patient("quiet-too", [0.2, 0, 0, 0], [0, 0, 0, 0]),
    ]
    part = described(rows)
    detection = part["detection"]
    assert [detection[name] for name in ("tp", "fn", "fp", "tn")] == [1, 1, 1, 2]
    assert detection["missing"] == [1, 0]
    assert detection["sensitivity"]["value"] == pytest.approx(1 / 3)
    assert detection["specificity"]["value"] == pytest.approx(2 / 3)
    assert "A missing prediction is wrong" in " ".join(captions.of_detection(part))
    assert described(rows[:3])["detection"] is None


# several cases, classes and the file


def test_cases_of_a_patient_are_drawn_together() -> None:
    rows = some_patients(6)
    of_three = [row._replace(patient=f"q{n // 2}") for n, row in enumerate(rows)]
    three, six = described(of_patients(of_three, Scoring())), described(rows)
    assert (three["patients"], six["patients"]) == (3, 6)
    assert three["roc"]["auc"]["value"] == pytest.approx(six["roc"]["auc"]["value"])
    assert three["roc"]["auc"]["low"] is None  # three patients are too few, six are not
    assert six["roc"]["auc"]["low"] is not None
    assert three["froc"]["cases"] == 6


def test_the_file_holds_the_parts_and_the_sums_that_they_rest_on(tmp_path: Path) -> None:
    rows = [*some_patients(3), patient("missing", None, [1, 0, 0, 0])]
    curves.write(tmp_path, rows, describe(rows, Scoring()))
    text = (tmp_path / curves.CURVES_FILE).read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)  # without NaN
    content = curves.read(tmp_path)
    assert [case["patient"] for case in content["cases"]] == ["p0", "p1", "p2", "missing"]
    again = [curve_sums.from_json(case) for case in content["cases"]]
    expected = curve_sums.pool(row.curves for row in rows if row.curves)
    np.testing.assert_allclose(numbers(curve_sums.pool(again)), numbers(expected), rtol=1e-12)
    assert content["parts"][0]["class"] == "tumour"
    (tmp_path / curves.CURVES_FILE).write_text(text.replace('"format_version":2', '"format_version":0'))
    with pytest.raises(ValueError, match="another version"):
        curves.read(tmp_path)


def test_nothing_undefined_is_written_as_a_number() -> None:
    assert described([patient("a", [0.2, 0.1], [0, 0])])["voxels"]["precision"]["value"] is None
