import math

import pytest

from oncoseg.evaluate.choosing import FALSE_ALARM, FALSE_SLICE, MISSED, Candidate, choose, error_of
from oncoseg.metrics import Confusion


def patient(name: str, dice: float, size: float = 1, label: str = "tumour", shown: str = "") -> Candidate:
    return Candidate("", label, name, dice, size, shown or name)


def chosen(patients: list[Candidate], errors: list[tuple[str, Candidate]] = ()) -> list[tuple[str, str]]:
    return [("+".join(roles), one.patient) for roles, one in choose(patients, errors)]


def test_best_median_and_worst_of_five() -> None:
    patients = [patient(name, dice) for name, dice in zip("abcde", (0.3, 0.9, 0.5, 0.1, 0.7), strict=True)]
    assert chosen(patients) == [("best", "b"), ("median", "c"), ("worst", "d")]


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.4], [("only", "a")]),
        ([0.4, 0.6], [("best", "b"), ("worst", "a")]),
        ([0.4, math.nan, 0.6], [("best", "c"), ("worst", "a")]),
        ([math.nan], []),
        # of four the lower of the two in the middle
        ([0.1, 0.2, 0.3, 0.4], [("best", "d"), ("median", "b"), ("worst", "a")]),
    ],
)
def test_few_patients_and_undefined_ones(dice: list[float], expected: list[tuple[str, str]]) -> None:
    assert chosen([patient(name, value) for name, value in zip("abcd", dice, strict=False)]) == expected


def test_of_equally_bad_patients_the_one_with_the_largest_tumour_is_the_worst() -> None:
    patients = [patient("a", 0, size=3), patient("b", 0, size=9), patient("c", 0, size=5), patient("d", 0.5)]
    assert chosen(patients)[-1] == ("worst", "b")


def test_the_largest_error_of_each_kind_is_added_and_nothing_is_shown_twice() -> None:
    patients = [patient("a", 0.9), patient("b", 0.5), patient("c", 0, size=7), patient("d", 0, size=0)]
    errors = [
        (MISSED, patient("c", 0, size=7)),
        (FALSE_ALARM, patient("d", 0, size=4)),
        (MISSED, patient("b", 0.5, size=2, shown="b2")),
        (FALSE_SLICE, patient("a", 0.9, size=1, shown="a, slice 3")),
    ]
    # by Dice, then by size: a, b, d, c; the third is the median of four
    assert chosen(patients, errors) == [
        ("best", "a"),
        ("median+false-alarm", "d"),
        ("worst+missed", "c"),
        ("false-slice", "a"),
    ]


def test_every_class_is_chosen_for_by_itself() -> None:
    patients = [patient("a", 0.9), patient("b", 0.1), patient("a", 0.2, label="core")]
    patients.append(patient("b", 0.3, label="core"))
    found = [(one.label, roles, one.patient) for roles, one in choose(patients, [])]
    assert found == [
        ("tumour", ("best",), "a"),
        ("tumour", ("worst",), "b"),
        ("core", ("best",), "b"),
        ("core", ("worst",), "a"),
    ]


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        (Confusion(tp=1, fp=5, fn=5, tn=0), None),
        (Confusion(tp=0, fp=0, fn=0, tn=9), None),
        (Confusion(tp=0, fp=0, fn=3, tn=6), MISSED),
        (Confusion(tp=0, fp=4, fn=3, tn=2), MISSED),  # what was found lies elsewhere
        (Confusion(tp=0, fp=4, fn=0, tn=5), FALSE_ALARM),
    ],
)
def test_plain_errors(counts: Confusion, kind: str | None) -> None:
    assert error_of(counts) == kind
