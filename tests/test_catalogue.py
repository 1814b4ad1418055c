from typing import get_args

import pytest

from oncoseg.metrics.catalogue import METRICS, POLICIES, SITUATIONS, Situation, outcome


def test_every_metric_has_an_outcome_for_every_situation_and_a_definition() -> None:
    assert get_args(Situation) == SITUATIONS
    for name, metric in METRICS.items():
        assert len(metric.outcomes) == len(SITUATIONS)
        assert metric.definition.endswith(".")
        assert (metric.unit == "mm") == name.endswith("_mm")


@pytest.mark.parametrize("name", METRICS)
def test_by_default_a_missing_prediction_never_beats_an_empty_one(name: str) -> None:
    metric = METRICS[name]
    empty, missing = (
        metric.outcomes[SITUATIONS.index(s)] for s in ("prediction_empty", "prediction_missing")
    )
    if isinstance(missing, float) and isinstance(empty, float):
        assert missing <= empty if metric.better == "higher" else missing >= empty
    else:
        # what an empty prediction computes must not be given to a missing one, volumes aside
        assert missing == empty == "diagonal" or missing != "computed" or metric.kind == "volume"


@pytest.mark.parametrize(
    "name", [name for name, m in METRICS.items() if m.kind in ("overlap", "surface", "distance")]
)
def test_by_default_finding_nothing_where_there_is_tumour_is_the_worst_or_counts_background(
    name: str,
) -> None:
    worst = {"higher": 0.0, "lower": "diagonal"}[METRICS[name].better]
    assert outcome(name, "prediction_empty", "strict", {}) in (worst, "computed")


def test_policies_change_families_and_the_user_changes_single_outcomes() -> None:
    assert outcome("dice", "both_empty", "strict", {}) == "undefined"
    assert outcome("dice", "both_empty", "brats-2023", {}) == 1.0
    assert outcome("hd95_max_mm", "prediction_empty", "strict", {}) == "diagonal"
    assert outcome("hd95_max_mm", "prediction_empty", "brats-2023", {}) == 374.0
    assert outcome("hd95_max_mm", "prediction_empty", "drop", {}) == "undefined"
    assert outcome("surface_dice", "prediction_empty", "brats-2023", {}) == 0.0
    assert outcome("specificity", "both_empty", "brats-2023", {}) == "computed"
    changes = {("dice", "both_empty"): 0.5}
    assert outcome("dice", "both_empty", "brats-2023", changes) == 0.5
    assert outcome("iou", "both_empty", "brats-2023", changes) == 1.0
    assert set(POLICIES) == {"strict", "brats-2023", "drop"}
