import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoseg import comparisons
from oncoseg.comparisons import (
    cohen_d,
    compare_systems,
    holm,
    paired,
    rank_biserial,
    share_positive,
    sign_flip,
    smallest_p,
    wilcoxon_p,
)
from oncoseg.comparisons import differences as module


def of(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def by_patient(values) -> dict[str, float]:
    return {f"p{i}": float(value) for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        (of(1, 2, 3), 2 / 8),  # only +++ and −−− are as far from 0
        (of(3, 2, -1), 4 / 8),  # of ±6, ±4, ±2, ±0, four are 4 or farther
        (of(1, 2, -3), 1),  # the sum is 0: all are as far
        (of(1, 1, 1, 1), 2 / 16),
        (of(4, 3, 2, -1), 4 / 16),  # 10 less twice a subset: as far as 8 for the subsets {}, {1} and theirs
        (of(0, 5, 0), 1),
        (of(0, 0), 1),
    ],
)
def test_sign_flips_by_hand(differences, p):
    assert sign_flip(differences) == (p, True)


def test_nothing_has_no_p():
    assert math.isnan(sign_flip(of()).p)
    assert math.isnan(wilcoxon_p(of()))
    assert math.isnan(smallest_p(0))


def test_rounding_does_not_make_equal_sums_different():
    assert sign_flip(of(-1, 3, -4, 4)).p == 1
    assert sign_flip(of(-0.1, 0.3, -0.4, 0.4)).p == 1
    assert sign_flip(of(6, 1, 4, -6)).p == sign_flip(of(0.6, 0.1, 0.4, -0.6)).p == 12 / 16


def test_patients_without_difference_leave_the_test_exact():
    assert sign_flip(np.append(np.zeros(100), [1, 2, 3])) == (2 / 8, True)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_sign_flips_agree_with_scipy(differences):
    from scipy.stats import permutation_test

    expected = permutation_test(
        (np.array(differences),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(np.array(differences, float)).p == pytest.approx(expected.pvalue, rel=1e-12)


def test_random_flips_are_near_all_flips_and_the_seed_decides(monkeypatch):
    differences = np.random.default_rng(0).normal(0.4, size=12)
    exact = sign_flip(differences)
    monkeypatch.setattr(module, "EXACT_FLIPS", 2**11)
    drawn = sign_flip(differences, 50_000)
    assert (exact.exact, drawn.exact) == (True, False)
    error = math.sqrt(exact.p * (1 - exact.p) / 50_000)
    assert 0 < abs(drawn.p - exact.p) < 3 * error
    assert sign_flip(differences, 50_000) == drawn
    assert sign_flip(differences, 50_000, seed=1) != drawn
    monkeypatch.setattr(module, "CHUNK", 12 * 15_000)  # drawn in parts
    assert abs(sign_flip(differences, 50_000).p - exact.p) < 3 * error


def test_a_random_p_is_never_zero():
    assert sign_flip(np.ones(40), permutations=99) == (1 / 100, False)


def test_equal_systems_are_found_different_as_often_as_the_level_says():
    rng = np.random.default_rng(3)
    exact = [sign_flip(rng.standard_t(3, size=8)).p <= 0.05 for _ in range(1500)]
    error = math.sqrt(0.05 * 0.95 / 1500)
    assert 12 / 256 - 3 * error <= np.mean(exact) <= 12 / 256 + 3 * error  # p is a multiple of 2 / 256
    drawn = [sign_flip(rng.standard_t(3, size=20), permutations=199, seed=i).p <= 0.05 for i in range(1500)]
    assert 0.05 - 3 * error <= np.mean(drawn) <= 0.05 + 3 * error


@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 0.5), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p_is_that_of_differences_of_one_sign(n, p):
    assert smallest_p(n) == sign_flip(np.arange(1.0, n + 1)).p == p


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(1, 8)), st.lists(st.sampled_from([-1, 1]), min_size=7, max_size=7))
def test_wilcoxon_is_the_sign_flip_test_of_ranks(ranks, signs):
    signed = np.array(ranks, float) * signs
    squares = np.sign(signed) * signed**2  # other sizes, the same ranks
    assert wilcoxon_p(squares) == pytest.approx(sign_flip(signed).p, rel=1e-12)


def test_wilcoxon_drops_pairs_without_difference():
    assert wilcoxon_p(of(1, 2, 3, 4, 5, 6)) == pytest.approx(2 / 64)
    # As low as 3 are the sums of {}, {1}, {2}, {3} and {1, 2}; with ranks from 3 on it would be four sets.
    assert wilcoxon_p(of(0, 1, 2, -3, 0, 4, 5, 6)) == pytest.approx(2 * 5 / 64)
    assert wilcoxon_p(of(0, 0, 0)) == 1


def test_effect_sizes_by_hand():
    assert cohen_d(of(1, 2, 3)) == 2  # mean 2, standard deviation 1
    assert rank_biserial(of(1, 2, -3, 4)) == pytest.approx((1 + 2 + 4 - 3) / 10)
    assert rank_biserial(of(0, 2, -2, 5)) == pytest.approx((1.5 + 3 - 1.5) / 6)
    assert share_positive(of(1, 0, -1, 2)) == (2 + 0.5) / 4


def test_effect_sizes_without_variation_or_values():
    assert math.isnan(cohen_d(of(2, 2, 2)))
    assert math.isnan(cohen_d(of(2)))
    assert math.isnan(rank_biserial(of(0, 0)))
    assert share_positive(of(0, 0)) == 0.5
    assert math.isnan(share_positive(of()))


@given(st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=8, unique_by=abs))
def test_the_rank_biserial_is_the_balance_of_pairwise_means(differences):
    # Without ties the sum of positive ranks is the number of positive means of two values or of one.
    means = [x + y for i, x in enumerate(differences) for y in differences[i:]]
    assert rank_biserial(of(*differences)) == pytest.approx(np.mean(np.sign(means)))


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 × 0.01, 2 × 0.03, and 1 × 0.04 but no less than 0.06
        ([0.5, 0.6], [1, 1]),
        ([0.02], [0.02]),
        ([], []),
        ([0.01, math.nan, 0.03], [0.02, math.nan, 0.03]),
    ],
)
def test_holm_by_hand(p, adjusted):
    np.testing.assert_allclose(holm(p), adjusted, rtol=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_closed_testing_with_bonferroni(p):
    """A test is rejected if Bonferroni rejects every set of tests that it is in."""
    everyone = range(len(p))
    sets = [chosen for size in everyone for chosen in combinations(everyone, size + 1)]
    for i, adjusted in enumerate(holm(p)):
        closed = max(len(s) * min(p[j] for j in s) for s in sets if i in s)
        assert adjusted == pytest.approx(min(1, closed), rel=1e-12)


def test_holm_refuses_what_is_no_p():
    with pytest.raises(ValueError, match=r"\[0, 1\], got 0.1 to 1.5"):
        holm([0.1, 1.5])


def test_a_pair_of_systems_by_hand():
    nan = math.nan
    a, b = of(0.9, 0.8, nan, 0.7, 0.5, nan), of(0.8, 0.6, 0.5, 0.7, nan, nan)
    found = paired(a, b)
    assert (found.n, found.left_out, found.undefined_a, found.undefined_b) == (3, 3, 2, 2)
    assert paired(a, np.zeros(6)).undefined_a == paired(np.zeros(6), a).undefined_b == 2
    assert paired(a, np.zeros(6)).undefined_b == 0
    assert found.difference.mean == pytest.approx(0.1)
    assert found.difference.median == pytest.approx(0.1)
    assert found.p == found.p_adjusted == 0.5  # 0.1 and 0.2, beside one of 0
    assert found.cohen_d == pytest.approx(1)
    assert (found.rank_biserial, found.share_a_better) == (1, (2 + 0.5) / 3)
    assert found.difference.note == "no interval: 3 patients, fewer than 5"


def test_four_patients_are_too_few_to_say():
    found = paired([2, 3, 4, 6], [1, 1, 1, 1])
    assert found.better is None
    assert found.sentence == ("A and B: too few patients to say: with n = 4 the smallest possible p is 0.125")


def test_the_better_system_is_named_with_its_lead():
    b = np.arange(8) / 64
    a = b + of(5, 6, 7, 8, 8, 9, 10, 11) / 32
    low, high = (getattr(paired(a, b).difference, name) for name in ("low", "high"))
    words = f"by 0.25 [{low:.3g}, {high:.3g}], p = 0.0078"  # 2 / 2⁸
    assert 0 < low < 0.25 < high
    assert paired(a, b, names=("ours", "theirs")).sentence == f"ours is better than theirs {words}"
    assert paired(b, a, names=("theirs", "ours")).sentence == f"ours is better than theirs {words}"
    assert paired(a, b, higher_is_better=False).sentence == f"B is better than A {words}"
    assert paired(b, a, higher_is_better=False).sentence == f"A is better than B {words}"
    assert (paired(a, b).share_a_better, paired(a, b, higher_is_better=False).share_a_better) == (1, 0)


def test_no_difference_is_shown_where_signs_balance():
    a, b = of(1, 0, 2, 0, 3, 0, 4, 0, math.nan), of(0, 1, 0, 2, 0, 3, 0, 4, 1)
    found = paired(a, b)
    low, high = found.difference.low, found.difference.high
    assert (found.p, found.better, found.rank_biserial) == (1, None, 0)
    assert found.sentence == (
        f"no difference shown between A and B: A − B = 0 [−{-low:.3g}, {high:.3g}], p = 1 "
        "(patients left out: 1; undefined for A in 1, for B in 0)"
    )


def test_where_all_differences_are_equal_there_is_no_interval_and_p_decides():
    a, b = np.full(8, 0.75), np.full(8, 0.5)
    found = paired(a, b)
    assert (found.difference.low, found.better) == (None, "A")
    assert found.sentence == "A is better than B by 0.25 in each of 8 patients, p = 0.0078"
    assert paired(a, b, higher_is_better=False).better == "B"
    unsure = found._replace(p_adjusted=0.06)
    assert unsure.better is None
    assert unsure.sentence == (
        "no difference shown between A and B: A − B = 0.25 in each of 8 patients, p = 0.06"
    )
    same = paired(a, a)
    assert (same.better, same.sentence) == (None, "no difference between A and B in each of 8 patients")


def test_a_small_p_beside_an_interval_with_zero_shows_no_difference():
    found = paired(of(*range(2, 12)), np.ones(10))
    assert found.better == "A"
    wide = found.difference._replace(low=-0.1)
    assert found._replace(difference=wide).better is None
    assert found._replace(p_adjusted=0.06).better is None


def test_values_equal_but_for_rounding_are_ties():
    found = paired([0.1 + 0.2, 0.7], [0.3, 0.2])
    assert (found.share_a_better, found.rank_biserial, found.p) == (0.75, 1, 1)
    found = paired([0.3, 0.6], [0.2, 0.7])  # 0.09999999999999998 and −0.09999999999999998 or so
    assert found.rank_biserial == 0


def test_no_common_value_is_said():
    found = paired([math.nan], [1.0])
    assert (
        found.sentence
        == "A and B: no patients to compare them on (patients left out: 1; undefined for A in 1, for B in 0)"
    )
    assert math.isnan(found.p)


def test_pairs_must_be_pairs_of_finite_values():
    with pytest.raises(ValueError, match=r"one value per patient .* \(2,\) and \(1,\)"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="infinite"):
        paired([math.inf], [1])


def test_every_pair_is_compared_once_or_each_with_the_reference():
    table = {name: by_patient(range(6)) for name in "abc"}
    assert [(c.a, c.b) for c in compare_systems(table)] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(c.a, c.b) for c in compare_systems(table, reference="b")] == [("a", "b"), ("c", "b")]


def test_the_family_is_corrected_and_its_least_p_stated():
    steps = np.arange(1, 7) / 8
    found = compare_systems({"a": by_patient(steps * 3), "b": by_patient(steps), "c": by_patient(steps)})
    assert [c.p for c in found] == [2 / 64, 2 / 64, 1]
    assert [c.p_adjusted for c in found] == [6 / 64, 6 / 64, 1]
    assert [c.p_wilcoxon_adjusted for c in found] == pytest.approx([6 / 64, 6 / 64, 1])
    assert [(c.p_smallest, c.family) for c in found] == [(6 / 64, 3)] * 3
    assert found[0].sentence == (
        "a and b: too few patients to say: with n = 6 the smallest possible p is 0.0938 "
        "after Holm's correction over 3 comparisons"
    )


def test_metrics_can_share_a_family_in_which_empty_comparisons_do_not_count():
    clear, empty = paired(of(*range(2, 12)), np.ones(10)), paired([], [])
    found = comparisons.as_family([clear, empty, clear])
    assert [c.family for c in found] == [2, 2, 2]
    assert found[0].p_adjusted == 2 * clear.p
    assert math.isnan(found[1].p_adjusted)


def test_unequal_patients_are_refused_or_counted():
    a, b = by_patient(range(1, 8)), by_patient([0] * 9)
    a["only in a"] = 100
    with pytest.raises(ValueError, match="'a' lacks 2"):
        compare_systems({"a": a, "b": b})
    [found] = compare_systems({"a": a, "b": b}, common_only=True)
    assert (found.n, found.only_a, found.only_b, found.left_out) == (7, 1, 2, 3)
    assert found.difference.mean == 4
    assert found.sentence.endswith("(patients left out: 3)")


def test_patients_are_matched_by_name_not_by_order():
    a = by_patient(range(8))
    [found] = compare_systems({"a": a, "b": dict(reversed(a.items()))})
    assert (found.p, found.share_a_better, found.difference.mean) == (1, 0.5, 0)


def test_a_large_family_draws_enough_signs_to_show_a_difference():
    table = {f"s{k}": by_patient([k + i / 64 for i in range(40)]) for k in range(12)}
    found = compare_systems(table)
    assert found[0].p == 1 / (66 * 200 + 1)
    assert all(c.better == c.b for c in found)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"two or more systems .* \['a'\]"):
        compare_systems({"a": {"p": 1.0}})
    with pytest.raises(ValueError, match="'c'"):
        compare_systems({"a": {"p": 1.0}, "b": {"p": 1.0}}, reference="c")
