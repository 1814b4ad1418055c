import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoseg import metrics
from oncoseg.case_prediction import CasePrediction, ClassMaps
from oncoseg.errors import DataError
from oncoseg.evaluate.result import Evaluation, evaluate_predictions
from oncoseg.evaluate.scoring import Scoring, of_counts, with_rules
from oncoseg.evaluate.table import EMPTY_RULE
from oncoseg.metrics.catalogue import SITUATIONS, outcome
from oncoseg.recipe import Published

PUBLISHED = (Published(row="mri", scores={"dice": 0.83}),)


def case(patient, slices, *, case_id=None, modality="mri", spacing_mm=(1.0, 1.0, 10.0)) -> CasePrediction:
    """Each slice is (truth, prediction) of four voxels in a row, as text: '1100 1000'."""
    truth, prediction = (
        np.array([[int(c) for c in pair.split()[side]] for pair in slices]).T[:, None, :] for side in (0, 1)
    )
    probability = np.where(prediction == 1, 0.9, 0.1).astype(np.float32)
    image = np.full(truth.shape, 0.5, np.float32)
    return CasePrediction(case_id or patient, patient, modality, image, truth == 1, probability, spacing_mm)


def test_the_three_averagings_differ_as_computed_by_hand():
    cases = [
        case("a", ["1111 1111", "1000 0000"]),  # slices 1 and 0; patient 2·4/(8+1) = 8/9
        case("b", ["1100 0110"]),  # slice 1/2; patient 1/2
    ]
    evaluation = evaluate_predictions(cases, 0.5)
    dice = {a: evaluation.row("mri", a).scores["dice"].mean for a in ("slice", "patient", "pooled")}
    assert dice["slice"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert dice["patient"] == pytest.approx((8 / 9 + 1 / 2) / 2)
    assert dice["pooled"] == pytest.approx(2 * 5 / (2 * 5 + 1 + 2))


def test_empty_slices_are_left_out_and_counted():
    cases = [case("a", ["1100 1100", "0000 0000", "0000 1000", "1000 0000"])]
    evaluation = evaluate_predictions(cases, 0.5)
    row = evaluation.row("mri", "slice")
    assert (row.units, row.both_empty, row.truth_empty, row.prediction_empty) == (4, 1, 1, 1)
    assert {name: row.scores[name].mean for name in ("dice", "precision", "recall")} == pytest.approx(
        {"dice": 1 / 3, "precision": 1 / 3, "recall": 1 / 2}  # recall: two slices hold tumour
    )
    assert (row.scores["recall"].n, row.scores["recall"].undefined) == (2, 2)
    assert (row.scores["dice"].n, row.scores["dice"].undefined) == (3, 1)
    assert evaluation.row("mri", "slice-empty-is-one").scores["dice"].mean == pytest.approx(2 / 4)


def test_a_patient_without_tumour_has_no_score_unless_some_was_predicted():
    evaluation = evaluate_predictions([case("a", ["0000 0000"]), case("b", ["0000 1000"])], 0.5)
    row = evaluation.row("mri")
    assert (row.scores["dice"].mean, row.scores["dice"].n, row.both_empty, row.truth_empty) == (0, 1, 1, 1)
    assert math.isnan(row.scores["auc"].mean)
    assert evaluation.curves_of("mri")["roc"] is None
    assert evaluation.curves_of("mri")["froc"] is None
    detection = evaluation.curves_of("mri")["detection"]
    assert [detection[name] for name in ("tp", "fp", "fn", "tn")] == [0, 1, 0, 1]


def test_the_cases_of_one_patient_are_counted_together_in_any_order():
    first, other = case("a", ["1111 1111"], case_id="a-1"), case("b", ["1000 1000"])
    second = case("a", ["1111 0000"], case_id="a-2")
    evaluation = evaluate_predictions([first, other, second], 0.5)
    assert [(p.patient, p.cases, p.dice) for p in evaluation.patients] == [("a", 2, 2 / 3), ("b", 1, 1.0)]


def test_every_modality_and_all_together_have_rows_curves_and_intervals():
    cases = [case(f"p{i}", [f"1100 {'1000' if i % 2 else '1100'}"], modality="mri") for i in range(6)]
    cases += [case(f"p{i}", ["1100 0011"], modality="ct") for i in range(2)]
    evaluation = evaluate_predictions(cases, 0.5)
    assert list(dict.fromkeys(row.group for row in evaluation.table)) == ["mri", "ct", "all"]
    mri, together = evaluation.row("mri").scores["dice"], evaluation.row("all").scores["dice"]
    assert mri.mean == pytest.approx((1 + 2 / 3) / 2)
    assert mri.low < mri.mean < mri.high
    assert evaluation.row("ct").scores["dice"].low is None
    # each of the first two patients has a Dice of 0 in CT besides
    assert (together.n, together.mean) == (6, pytest.approx((1 / 2 + 1 / 3 + 1 + 2 / 3 + 1 + 2 / 3) / 6))
    voxels = evaluation.curves_of("all")["voxels"]
    assert [voxels[name] for name in ("tp", "fp", "fn", "tn")] == [9, 4, 7, 12]
    assert evaluation.curves_of("ct")["roc"]["auc"]["value"] == 0
    assert [part["group"] for part in evaluation.curves] == ["mri", "ct", "all"]
    # the same patients p0 and p1 have both, so that the unit of all together is six patients
    assert [part["patients"] for part in evaluation.curves] == [6, 2, 6]


def of_two_classes(patient: str, truth: str, first: list[float], second: list[float]) -> CasePrediction:
    """Voxels in a row: the truth's class indices as text, and the probabilities of both classes."""
    indices = np.array([int(index) for index in truth], np.uint8)[:, None, None]
    each = np.array([first, second], np.float32)[..., None, None]
    maps = ClassMaps(("oedema", "core"), indices, each)
    image = np.full(indices.shape, 0.5, np.float32)
    whole = np.minimum(each.sum(axis=0), 1)
    return CasePrediction(patient, patient, "mri", image, indices > 0, whole, (1.0, 1.0, 1.0), classes=maps)


def test_each_class_of_several_is_scored_and_all_of_them_together_last():
    cases = [
        of_two_classes("a", "1120", [0.9, 0.2, 0.3, 0.1], [0.1, 0.25, 0.7, 0.2]),
        of_two_classes("b", "0011", [0.1, 0.1, 0.7, 0.9], [0.2, 0.1, 0.3, 0.1]),
    ]
    evaluation = evaluate_predictions(cases, 0.5)
    dice = {(row.patient, row.label): row.values["dice"] for row in evaluation.cases}
    # a: oedema is found in one of two voxels, the core in its only one; together two of three
    assert dice["a", "oedema"] == pytest.approx(2 / 3)
    assert dice["a", "core"] == 1
    assert dice["a", "all classes together"] == pytest.approx(4 / 5)
    assert dice["b", "all classes together"] == dice["b", "oedema"] == 1
    assert np.isnan(dice["b", "core"])
    assert [part["class"] for part in evaluation.curves] == ["oedema", "core", "all classes together"]
    # of the core's own probabilities 0.7 is the greatest, and above all background
    assert evaluation.curves_of("mri", "core")["roc"]["auc"]["value"] == 1
    mean = {label: evaluation.row("mri", label=label).scores["dice"].mean for label in evaluation.classes}
    assert list(mean) == ["oedema", "core", "all classes together"]
    assert list(mean.values()) == pytest.approx([(2 / 3 + 1) / 2, 1, (4 / 5 + 1) / 2])


def test_a_voxel_that_is_mostly_tumour_is_found_whatever_its_class():
    evaluation = evaluate_predictions(
        [of_two_classes("a", "1202", [0.45, 0.1, 0.2, 0], [0.4, 0.45, 0.2, 0])], 0.5
    )
    # 85, 55, 40 and 0 % tumour: the first two are found, each as its likelier class
    assert evaluation.patients[-1].counts == (2, 0, 1, 1)
    dice = {row.label: row.values["dice"] for row in evaluation.cases}
    assert dice == pytest.approx({"oedema": 1, "core": 2 / 3, "all classes together": 4 / 5})


def test_a_class_called_tumour_is_not_all_tumour_together():
    case = of_two_classes("a", "1120", [0.9, 0.2, 0.3, 0.1], [0.1, 0.25, 0.7, 0.2])
    named = case._replace(classes=case.classes._replace(names=("tumour", "core")))
    labels = [row.label for row in evaluate_predictions([named], 0.5).cases]
    assert labels == ["tumour", "core", "all classes together"]


def test_a_patient_with_several_modalities_is_one_unit_of_all_together():
    cases = [case(f"p{i}", ["1100 1100"], modality="mri") for i in range(4)]
    cases += [case("p0", ["1100 0011"], modality="ct"), case("p9", ["1100 0011"], modality="ct")]
    together = evaluate_predictions(cases, 0.5).row("all").scores["dice"]
    # p0 has 1 in MRI and 0 in CT; six values taken for six patients would give a narrower interval
    assert (together.n, together.mean) == (5, pytest.approx((0.5 + 3 * 1 + 0) / 5))


def test_one_modality_alone_has_no_row_for_all():
    assert {row.group for row in evaluate_predictions([case("a", ["1100 1100"])], 0.5).table} == {"mri"}


def test_a_voxel_is_tumour_from_the_threshold_on():
    prediction = case("a", ["1100 1000"])
    prediction.probability[:, 0, 0] = [0.5, 0.49, 0.2, 0.1]
    assert evaluate_predictions([prediction], 0.5).patients[0].counts == (1, 0, 1, 2)


def test_panels_show_best_median_worst_and_a_false_alarm():
    cases = [
        case("good", ["1100 1100", "0000 0001"]),
        case("bad", ["1100 0011"]),
        case("fair", ["1100 1010"]),
    ]
    evaluation = evaluate_predictions(cases, 0.5)
    assert shown(evaluation) == [
        ("best", "good", 0),
        ("median", "fair", 0),
        ("worst+missed", "bad", 0),
        ("false-slice", "good", 1),
    ]
    worst = evaluation.panels[2].view
    assert worst.truth[:, 0].tolist() == [1, 1, 0, 0]
    assert worst.prediction[:, 0].tolist() == [0, 0, 1, 1]
    assert worst.image.dtype == np.uint8
    assert worst.image[0, 0] == 128
    assert worst.volumes_ml == pytest.approx((0.02, 0.02))  # two voxels of 10 mm³ each


def shown(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    return [("+".join(p.roles), p.patient, p.view.slice_index) for p in evaluation.panels]


def test_a_case_without_tumour_is_a_false_alarm_at_the_slice_with_most_of_it():
    cases = [case("a", ["0000 1000", "0000 1110"]), case("b", ["0000 1100"]), case("c", ["0000 0000"])]
    cases += [case(name, ["1100 1100"]) for name in "de"]
    # from the best: d and e, then a and b, which have no tumour and so 0; c has no score
    assert shown(evaluate_predictions(cases, 0.5)) == [
        ("best", "d", 0),
        ("median+false-alarm", "a", 1),
        ("worst", "b", 0),
    ]


def test_of_a_patients_cases_the_one_with_most_tumour_is_shown():
    cases = [
        case("a", ["1100 1100", "1000 1000"], case_id="a-1"),  # 3 voxels, 2 of them in a slice
        case("a", ["1110 1110"], case_id="a-2"),  # 3 voxels as well, found as well: the first is kept
        case("a", ["1111 0000"], case_id="a-3"),
    ]
    (panel,) = evaluate_predictions(cases, 0.5).panels
    assert (panel.roles, panel.view.case_id) == (("only", "missed"), "a-3")
    assert panel.patient_dice == pytest.approx(2 * 6 / (10 + 6))


def test_files_hold_everything_and_need_no_pickle(tmp_path):
    cases = [
        case("a", ["1100 1100", "0000 0000"]),
        case("b", ["1000 0001"], spacing_mm=None),
        case("c", ["1111 1110"]),
    ]
    evaluate_predictions(cases, 0.5, PUBLISHED).write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cases.csv",
        "cases.parquet",
        "counts.csv",
        "curves.json",
        "panels.npz",
        "patients.csv",
        "patients.parquet",
        "per_patient.csv",
        "per_slice.csv",
        "summary.json",
        "summary.md",
        "summary.tex",
    ]
    with (tmp_path / "per_patient.csv").open() as file:
        a, b, _ = csv.DictReader(file)
    assert (a["patient"], a["dice"], a["tp"], a["truth_ml"]) == ("a", "1.0", "2", "0.02")
    assert (b["dice"], b["truth_ml"]) == ("0.0", "")
    with (tmp_path / "per_slice.csv").open() as file:
        empty = list(csv.DictReader(file))[1]
    assert (empty["slice"], empty["dice"], empty["auc"]) == ("1", "", "")
    panels = np.load(tmp_path / "panels.npz", allow_pickle=False)
    assert panels["truth_0"].dtype == np.uint8
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["published"] == [{"row": "mri", "scores": {"dice": 0.83}}]
    assert len(summary["panels"]) == 3
    assert summary["table"][0]["scores"]["dice"]["note"].startswith("no interval: 3 patients")


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "no case to evaluate"),
        ([case("a", ["1000 1000"])] * 2, "came twice"),
        ([case("a", ["1000 1000"])._replace(image=np.zeros((1, 1, 1)))], "on one grid"),
        ([case("a", ["1000 1000"])._replace(truth=np.zeros((4, 1, 1)))], "bool truth"),
        ([case("a", ["1000 1000"])._replace(probability=np.full((4, 1, 1), 1.5))], r"in \[0, 1\]"),
        ([case("a", ["1000 1000"])._replace(probability=np.full((4, 1, 1), np.nan))], r"in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(cases, message):
    with pytest.raises(DataError, match=message):
        evaluate_predictions(cases, 0.5)


# the rule for empty masks


def test_the_words_on_empty_masks_say_what_the_catalogue_decides():
    assert "Dice, IoU, F1 and precision are 0" in EMPTY_RULE
    for name in ("dice", "iou", "f1", "precision"):
        decided = [outcome(name, situation, "strict", {}) for situation in SITUATIONS[:3]]
        assert decided == ["undefined", 0, 0]
    assert "Recall and AUC need tumour" in EMPTY_RULE
    for name in ("recall", "auc"):
        assert [outcome(name, s, "strict", {}) for s in SITUATIONS[:2]] == ["undefined", "undefined"]


@given(*[st.integers(0, 2)] * 4)
def test_the_table_and_the_tables_of_all_metrics_score_alike(tp, fp, fn, tn):
    counts = metrics.Confusion(tp, fp, fn, tn)
    values, _ = with_rules(of_counts(counts, 1.0), metrics.situation_of(counts), 1.0, True, Scoring())
    for name in metrics.SCORES:
        assert metrics.score(name, counts) == pytest.approx(values[name], nan_ok=True)
