"""Splits by patient, as properties."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg import split as splitting
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.split import PARTS, check_disjoint, split_patients


def case(patient: str, number: int = 0) -> Case:
    return Case(f"{patient}-{number}", patient, {})


@st.composite
def datasets(draw: st.DrawFn) -> list[Case]:
    counts = draw(st.lists(st.integers(1, 4), min_size=3, max_size=30))
    return [case(f"P{patient:03d}", n) for patient, count in enumerate(counts) for n in range(count)]


shares = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda both: sum(both) < 1)


@given(datasets(), shares, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_every_case_is_on_one_side_and_every_side_has_a_patient(
    cases: list[Case], both: tuple[float, float], seed: int
) -> None:
    split = split_patients(cases, *both, seed)
    assert tuple(split) == PARTS
    assert all(split.values())
    used = [one.id for side in split.values() for one in side]
    assert sorted(used) == sorted(one.id for one in cases)
    check_disjoint(split)
    patients = {part: len({one.patient for one in side}) for part, side in split.items()}
    everyone = len({one.patient for one in cases})
    # the shares are of patients, to within the rounding and the one patient that every side keeps
    assert abs(patients["train"] - both[0] * everyone) <= 2.5
    assert abs(patients["validation"] - both[1] * everyone) <= 2.5


@given(datasets(), st.integers(0, 100), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_cases_does_not_matter(cases: list[Case], seed: int, shuffle: random.Random) -> None:
    shuffled = list(cases)
    shuffle.shuffle(shuffled)
    assert split_patients(shuffled, 0.7, 0.1, seed) == split_patients(cases, 0.7, 0.1, seed)


def test_the_seed_decides_and_this_split_must_never_change() -> None:
    cases = [case(f"P{number}") for number in range(10)]
    split = split_patients(cases, 0.7, 0.1, 0)
    assert [one.patient for one in split["validation"]] == ["P0"]
    assert [one.patient for one in split["test"]] == ["P6", "P9"]
    assert any(split_patients(cases, 0.7, 0.1, seed) != split for seed in range(1, 5))


def test_patients_who_have_a_side_keep_it_and_the_others_fill_up_the_shares() -> None:
    cases = [case(f"P{number}") for number in range(10)]  # of their own: P0 validation, P6 and P9 test
    known = {"P0": "test", "P6": "train", "X": "validation"}
    sides = {
        part: {one.patient for one in side}
        for part, side in split_patients(cases, 0.7, 0.1, 0, known).items()
    }
    assert "P0" in sides["test"]
    assert "P6" in sides["train"]
    assert {part: len(side) for part, side in sides.items()} == {"train": 7, "validation": 1, "test": 2}
    assert split_patients(cases, 0.7, 0.1, 0, {"X": "train"}) == split_patients(cases, 0.7, 0.1, 0)


def test_a_patient_is_kept_for_each_side_where_nobody_is_yet() -> None:
    cases = [case(f"P{number}") for number in range(7)]  # the shares are 4, 2 and 1
    known = {f"P{number}": "train" for number in range(5)}
    assert [len(side) for side in split_patients(cases, 0.5, 0.25, 0, known).values()] == [5, 1, 1]
    with pytest.raises(DataError, match="No patient is left for validation"):
        split_patients(cases[:6], 0.5, 0.25, 0, known)


def test_more_cases_of_a_patient_move_nobody() -> None:
    cases = [case(f"P{number}") for number in range(10)]
    more = [*cases, *(case("P4", number) for number in range(1, 5))]
    before, after = (split_patients(some, 0.7, 0.1, 0) for some in (cases, more))
    for part in PARTS:
        assert {one.patient for one in before[part]} == {one.patient for one in after[part]}


def test_too_few_patients_are_refused_however_many_cases() -> None:
    with pytest.raises(DataError, match="Expected at least 3 patients"):
        split_patients([case("A", n) for n in range(9)] + [case("B")], 0.7, 0.1, 0)


@given(datasets(), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_written_split_is_found_again(cases: list[Case], seed: int) -> None:
    split = split_patients(cases, 0.7, 0.1, seed)
    listed = splitting.to_json(split)
    assert splitting.from_json(listed, cases[::-1]) == split
    assert all(one.id in listed[part][one.patient] for part in PARTS for one in split[part])


THREE = {"train": {"A": ["A-0"]}, "validation": {"B": ["B-0"]}, "test": {"C": ["C-0"]}}


def test_a_case_that_is_gone_is_named() -> None:
    with pytest.raises(DataError, match=r"1 cases under test .* 'C-0'"):
        splitting.from_json(THREE, [case("A"), case("B")])


def test_a_patient_on_two_sides_is_refused_even_under_two_names() -> None:
    cases = [case("A", 0), case("B"), case("C"), case("A", 1)]
    with pytest.raises(DataError, match="1 patients are in both train and test"):
        splitting.from_json(THREE | {"test": {"C": ["C-0"], "X": ["A-1"]}}, cases)


@pytest.mark.parametrize("side", [["A-0"], "A-0", {"A": "A-0"}, {"A": [["A-0"]]}, None])
def test_a_written_split_of_another_form_is_refused(side: object) -> None:
    with pytest.raises(DataError):
        splitting.from_json(THREE | {"train": side}, [case("A"), case("B"), case("C")])


def test_a_case_listed_twice_counts_once() -> None:
    cases = [case("A"), case("B"), case("C")]
    split = splitting.from_json(THREE | {"train": {"A": ["A-0", "A-0"]}}, cases)
    assert [one.id for one in split["train"]] == ["A-0"]
