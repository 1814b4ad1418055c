"""Folds for cross-validation, as properties: who is where, and how evenly."""

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoseg.errors import DataError
from oncoseg.folds import Patient, choose_validation, deal, draw, patients_of
from oncoseg.split import PARTS
from oncoseg.store import PreparedCase
from oncoseg.training.data import load_all
from tiny import tiny_recipe


def case(
    patient: str, pixels: int = 5, number: int = 0, site: str | None = None, target: str | None = None
) -> PreparedCase:
    """A case with so many tumour pixels in its only slice, without files."""
    made = PreparedCase(f"{patient}-{number}", patient, Path("unused"), (0,), site, target)
    made.__dict__["description"] = {"tumour_pixels": [pixels]}
    return made


MODALITIES = (("mri",), ("ct",), ("mri", "ct"))

several = st.lists(
    st.builds(
        Patient,
        st.just(""),
        st.sampled_from(MODALITIES),
        st.sampled_from([(), ("benign",), ("malignant",), ("benign", "malignant")]),
        st.sampled_from([(), ("A",), ("B",)]),
        st.integers(0, 50),
    ),
    min_size=3,
    max_size=40,
).map(lambda found: [one._replace(name=f"P{number:02d}") for number, one in enumerate(found)])


def spread(dealt: list[list[Patient]], chosen: set[str]) -> int:
    """By how many of some patients two folds differ at most."""
    counts = [sum(one.name in chosen for one in fold) for fold in dealt]
    return max(counts) - min(counts)


@given(several, st.integers(2, 12), st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_everybody_is_in_one_fold_and_every_group_is_spread_evenly(
    patients: list[Patient], folds: int, seed: int, shuffle: random.Random
) -> None:
    folds = min(folds, len(patients))
    dealt = deal(patients, folds, seed)
    assert len(dealt) == folds
    assert all(dealt)
    assert sorted(one.name for fold in dealt for one in fold) == [one.name for one in patients]
    assert spread(dealt, {one.name for one in patients}) <= 1
    for depth in range(1, 5):
        for group in {one.group[:depth] for one in patients}:
            assert spread(dealt, {one.name for one in patients if one.group[:depth] == group}) <= 1
    assert deal(shuffle.sample(patients, len(patients)), folds, seed) == dealt


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 99))
def test_of_patients_alike_in_volume_every_fold_gets_one(folds: int, runs: int, seed: int) -> None:
    patients = [Patient(f"P{n:02d}", ("mri",), (), (), n + 1) for n in range(folds * runs)]
    for fold in deal(patients, folds, seed):
        # of the smallest k volumes one, of the next k one, and so on
        assert sorted((one.volume - 1) // folds for one in fold) == list(range(runs))


def test_the_folds_must_never_change_and_follow_the_seed() -> None:
    patients = [Patient(f"P{n}", ("mri",), (), (), 10 + n) for n in range(7)]
    dealt = [[one.name for one in fold] for fold in deal(patients, 3, 0)]
    assert dealt == [["P2", "P5"], ["P0", "P3"], ["P1", "P4", "P6"]]
    assert any(deal(patients, 3, seed) != deal(patients, 3, 0) for seed in range(1, 5))


def test_a_patient_is_one_whatever_the_cases_and_modalities() -> None:
    mri = [case("A", 3, 0, target="malignant"), case("A", 4, 1, site="Z"), case("B", 0)]
    ct = [case("C", 1, target="benign"), case("A", 5, 2, site="Y", target="benign")]
    assert patients_of({"mri": mri, "ct": ct}) == [
        Patient("A", ("mri", "ct"), ("benign", "malignant"), ("Y", "Z"), 12),
        Patient("B", ("mri",), (), (), 0),
        Patient("C", ("ct",), ("benign",), (), 1),
    ]


@given(several, st.floats(0.01, 0.99), st.integers(0, 99))
def test_validation_has_its_share_of_every_set_of_modalities(
    patients: list[Patient], share: float, seed: int
) -> None:
    chosen = choose_validation(patients, share, seed)
    assert len({one.name for one in chosen}) == len(chosen)
    for modalities in MODALITIES:
        alike = [one for one in patients if one.modalities == modalities]
        of_these = [one for one in chosen if one.modalities == modalities]
        assert len(of_these) == min(max(1, round(share * len(alike))), max(0, len(alike) - 1))
        if any(one.volume for one in alike) and len(of_these) == 1:
            assert of_these[0].volume, "the others say nothing about a Dice"


def test_validation_is_not_always_the_same() -> None:
    patients = [Patient(f"P{n}", ("mri",), (), (), n + 1) for n in range(9)]
    assert len({choose_validation(patients, 0.1, seed)[0] for seed in range(30)}) > 5


@st.composite
def data_sets(draw: st.DrawFn) -> dict[str, list[PreparedCase]]:
    counts = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=6, max_size=20))
    found: dict[str, list[PreparedCase]] = {"mri": [], "ct": []}
    for number, (mri, ct) in enumerate(counts):
        found["mri"] += [case(f"P{number}", 5 + number, n) for n in range(mri)]
        found["ct"] += [case(f"P{number}", 9, 5 + n) for n in range(ct)]
    for modality in found:  # enough for all sides of any fold
        found[modality] += [case(f"{modality}{number}", 7) for number in range(6)]
    return found


@given(data_sets(), st.sampled_from([2, 3, 5, None]), st.integers(0, 99))
def test_out_of_fold_every_case_is_tested_once_and_no_patient_is_on_two_sides(
    prepared: dict[str, list[PreparedCase]], folds: int | None, seed: int
) -> None:
    splits = draw(prepared, folds, 0.1, seed)
    patients = {one.name for one in patients_of(prepared)}
    assert len(splits) == (folds or len(patients))
    tested: Counter[tuple[str, str]] = Counter()
    for split in splits:
        assert list(split) == ["mri", "ct"]
        for modality, parts in split.items():
            assert tuple(parts) == PARTS
            everything = [name for part in parts.values() for cases in part.values() for name in cases]
            assert sorted(everything) == sorted(one.id for one in prepared[modality])
            tested.update((modality, name) for cases in parts["test"].values() for name in cases)
        for one, other in combinations(PARTS, 2):
            assert not {p for m in split for p in split[m][one]} & {p for m in split for p in split[m][other]}
    every = [(modality, one.id) for modality, cases in prepared.items() for one in cases]
    assert tested == Counter(every)
    if folds is None:
        assert all(len({p for parts in split.values() for p in parts["test"]}) == 1 for split in splits)


def test_validation_takes_the_recipes_share_of_all_patients() -> None:
    prepared = {"mri": [case(f"P{number}") for number in range(50)]}
    for split in draw(prepared, 5, 0.1, 0):
        assert [len(split["mri"][part]) for part in PARTS] == [35, 5, 10]


@pytest.mark.parametrize(
    ("patients", "folds", "message"),
    [
        (1, 2, "at least 3 patients with a mask, one for each of train, validation, test, got 1"),
        (2, None, "at least 3 patients .* got 2"),
        (4, 5, "from 2 folds to as many as there are patients with a mask, 4; got 5"),
        (4, 1, "got 1"),
    ],
)
def test_too_few_patients_are_refused(patients: int, folds: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw({"mri": [case(f"P{number}") for number in range(patients)]}, folds, 0.1, 0)


def test_a_side_without_tumour_is_refused_before_anything_is_trained() -> None:
    healthy = [case(f"H{number}", 0) for number in range(9)]
    ill = [case(f"T{number}", 5) for number in range(3)]
    with pytest.raises(DataError, match=r"mri: fold 1 has nobody with a tumour under train \(1 patients"):
        draw({"mri": [*healthy, *ill[:2]]}, 2, 0.1, 0)
    with pytest.raises(
        DataError, match=r"under test of fold \d has a tumour \(3 of 12 patients.*fewer folds"
    ):
        draw({"mri": [*healthy, *ill]}, 4, 0.1, 0)
    assert len(draw({"mri": [*healthy, *ill]}, 3, 0.1, 0)) == 3
    # somebody without a tumour who is left out alone counts as a false alarm or not at all
    assert len(draw({"mri": [*healthy, *ill]}, None, 0.1, 0)) == 12


@given(st.integers(2, 5), st.integers(0, 20), st.integers(0, 20), st.integers(0, 99))
def test_as_many_tumours_as_folds_are_enough(folds: int, healthy: int, more: int, seed: int) -> None:
    cases = [case(f"T{number}", number + 1) for number in range(max(folds, 4) + more)]
    cases += [case(f"H{number}", 0, site=("X", None)[number % 2]) for number in range(healthy)]
    assert len(draw({"mri": cases}, folds, 0.1, seed)) == folds


@pytest.mark.slow
@pytest.mark.real_data
def test_real_patients_are_divided_evenly(shared_data: Path, tmp_path: Path) -> None:
    """152 patients: the MRI come from five sites, and of the CT 14 have no tumour."""
    recipe = tiny_recipe(modalities__mri__missing="substitute", preparation__slice_size=[32, 32])
    folders = {"mri": shared_data / "lgg", "ct": shared_data / "lidc_slices"}
    prepared, _ = load_all(recipe, folders, tmp_path / "store", workers=0)
    patients = patients_of(prepared)
    assert Counter(one.modalities for one in patients) == {("mri",): 32, ("ct",): 120}
    dealt = deal(patients, 5, 0)
    for site in {one.sites for one in patients}:
        assert spread(dealt, {one.name for one in patients if one.sites == site and one.volume}) <= 1
    for modality in prepared:
        alike = [one for one in patients if one.modalities == (modality,)]
        by_chance = [
            unevenness([order[first::5] for first in range(5)])
            for order in (random.Random(seed).sample(alike, len(alike)) for seed in range(200))
        ]
        ours = [unevenness(deal(alike, 5, seed)) for seed in range(200)]
        assert np.median(ours) < np.median(by_chance)
    assert [len(split["ct"]["test"]) for split in draw(prepared, 5, 0.1, 0)] == [24] * 5


def unevenness(dealt: list[list[Patient]]) -> float:
    """How far the folds' mean volumes lie from each other: their standard deviation over their mean."""
    means = [np.mean([one.volume for one in fold]) for fold in dealt]
    return float(np.std(means) / np.mean(means))
