import math

import numpy as np
import pytest

from oncoseg.comparisons import across_seeds, rank_stability
from oncoseg.comparisons.rank_stability import _interval, _kendall_tau
from oncoseg.statistics import RESAMPLES, all_equal, percentiles, resampled_means


def table_of(**values) -> dict[str, dict[str, float]]:
    return {name: {f"p{i}": float(v) for i, v in enumerate(row)} for name, row in values.items()}


def test_a_system_that_is_better_on_every_patient_is_always_first():
    found = rank_stability(table_of(low=range(5), high=range(20, 25), middle=range(10, 15)))
    assert [s.system for s in found.systems] == ["high", "middle", "low"]
    assert [(s.mean, s.rank, s.low, s.high, s.first_share) for s in found.systems] == [
        (22, 1, 1, 1, 1),
        (12, 2, 2, 2, 0),
        (2, 3, 3, 3, 0),
    ]
    assert (found.tau_mean, found.tau_low, found.tau_high) == (1, 1, 1)
    assert found.note == "percentile bootstrap; rough: 5 patients, fewer than 10"


def test_where_less_is_better_the_least_mean_is_first():
    found = rank_stability(table_of(a=range(5), b=range(1, 6)), higher_is_better=False)
    assert [(s.system, s.rank, s.first_share) for s in found.systems] == [("a", 1, 1), ("b", 2, 0)]


def test_equal_systems_share_ranks_and_the_first_place():
    found = rank_stability(table_of(a=[0.1, 0.2, 0.4, 0.6, 0.8], b=[0.1, 0.2, 0.4, 0.6, 0.8], c=[0] * 5))
    assert [s.rank for s in found.systems] == [1.5, 1.5, 3]
    assert [s.first_share for s in found.systems] == [0.5, 0.5, 0]
    assert (found.systems[0].low, found.systems[0].high) == (1.5, 1.5)


def test_means_that_differ_by_rounding_only_are_equal():
    found = rank_stability(table_of(a=[0.1, 0.2, 0.3], b=[0.3, 0.2, 0.1]))
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    assert [s.rank for s in found.systems] == [1.5, 1.5]


def test_without_any_order_there_is_no_tau():
    found = rank_stability(table_of(a=range(6), b=range(6)))
    assert (found.tau_mean, found.tau_low, found.tau_high) == (None, None, None)


def test_the_share_of_first_places_is_that_of_the_binomial_distribution():
    # a leads on three patients of five: it is first where at least three of five draws are of them.
    found = rank_stability(table_of(a=[1, 1, 1, 0, 0], b=[0, 0, 0, 1, 1]))
    first = sum(math.comb(5, k) * 0.6**k * 0.4 ** (5 - k) for k in (3, 4, 5))
    error = math.sqrt(first * (1 - first) / RESAMPLES)
    a, b = found.systems
    assert (a.system, a.low, a.high) == ("a", 1, 2)
    assert a.first_share == pytest.approx(first, abs=4 * error)
    assert a.first_share + b.first_share == pytest.approx(1)
    assert found.tau_mean == pytest.approx(2 * a.first_share - 1)  # τ is 1 or −1


def test_ends_of_an_interval_are_ranks_that_occurred():
    # The tails of 50 samples are 1.25 of them: more than the first, so the second, which is 1 and not 1.2.
    drawn = np.repeat([[1.0], [2.0], [3.0]], [2, 46, 2], axis=0)
    assert _interval(drawn)[:, 0].tolist() == [1, 3]


def test_tau_agrees_with_scipy():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    ranking, drawn = rng.integers(1, 5, 6).astype(float), rng.integers(1, 5, (40, 6)).astype(float)
    expected = [kendalltau(ranking, row).statistic for row in drawn]
    np.testing.assert_allclose(_kendall_tau(ranking, drawn), expected, rtol=1e-12)


def test_a_patient_undefined_for_one_system_is_left_out_for_all():
    found = rank_stability(table_of(a=[math.nan, 1, 1, 1], b=[9, 0, 0, 0]))
    assert [(s.system, s.mean, s.left_out) for s in found.systems] == [("a", 1, 1), ("b", 0, 0)]
    assert (found.n, found.left_out) == (3, 1)


def test_few_patients_are_ranked_without_intervals():
    found = rank_stability(table_of(a=[1, 1, 1, 1], b=[0, 0, 0, 0]))
    assert [(s.rank, s.low, s.high, s.first_share) for s in found.systems] == [
        (1, None, None, None),
        (2, None, None, None),
    ]
    assert found.tau_mean is None
    assert found.note == "no intervals: 4 patients, fewer than 5"


def test_without_patients_there_are_no_ranks():
    found = rank_stability(table_of(a=[math.nan], b=[1]))
    assert all(math.isnan(s.rank) and math.isnan(s.mean) for s in found.systems)
    assert found.left_out == 1


def test_systems_to_rank_must_have_the_same_patients():
    unequal = table_of(a=[1, 2, 3], b=[1, 2])
    with pytest.raises(ValueError, match=r"'b' lacks 1 \(p2\)"):
        rank_stability(unequal)
    found = rank_stability(unequal, common_only=True)
    assert [s.left_out for s in found.systems] == [0, 1]
    assert (found.n, found.left_out) == (2, 1)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="two or more systems"):
        rank_stability(table_of(a=[1]))
    with pytest.raises(ValueError, match="infinite"):
        rank_stability(table_of(a=[1], b=[math.inf]))


def test_the_seed_decides_the_shares():
    rng = np.random.default_rng(0)
    table = table_of(a=rng.random(9), b=rng.random(9))
    assert rank_stability(table, seed=1) == rank_stability(table, seed=1)
    assert rank_stability(table, seed=1) != rank_stability(table, seed=2)


def test_variation_of_patients_and_trainings_by_hand():
    found = across_seeds(np.array([[1, 2, 3], [2, 4, 6], [3, 6, 9]]))
    assert (found.mean, found.patient_sd, found.seed_sd) == (4, 2, 2)  # means 2, 4, 6 either way
    assert (found.n, found.seeds, found.low) == (3, 3, None)
    assert found.note == "no interval: 3 patients, fewer than 5"
    assert found.sentence == "mean 4 over 3 patients and 3 trainings; between trainings it varies by SD 2"


def test_the_luck_of_a_training_is_not_averaged_away_over_patients():
    # Each training scores all patients alike; in a quarter of samples both drawn are the one, or the other.
    found = across_seeds(np.tile([0.0, 1.0], (50, 1)))
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)
    assert found.patient_sd == 0


def test_one_training_has_the_percentile_interval_of_its_patients():
    values = np.random.default_rng(0).random((12, 1))
    found = across_seeds(values, seed=4)
    assert (found.low, found.high) == pytest.approx(percentiles(resampled_means(values, 4)[:, 0]))
    assert math.isnan(found.seed_sd)
    assert found.sentence == (
        f"mean {values.mean():.3g} [{found.low:.3g}, {found.high:.3g}] over 12 patients; "
        "1 training: too few to say how much it varies between trainings"
    )
    assert found.note == "percentile bootstrap of patients, of one training"


def test_trainings_that_are_copies_do_not_vary_at_all():
    one = np.random.default_rng(0).random(9)
    assert across_seeds(np.stack([one] * 3, axis=1)).seed_sd == 0


def test_where_every_score_is_the_same_nothing_tells_how_they_vary():
    found = across_seeds(np.full((6, 3), 0.5))
    assert (found.mean, found.low, found.high, found.note) == (0.5, None, None, all_equal(6))


def test_two_trainings_are_too_few_to_say_how_they_vary():
    found = across_seeds(np.arange(12.0).reshape(6, 2))
    assert "2 trainings: too few" in found.sentence
    assert found.note == "percentile bootstrap of patients and trainings; rough: 6 patients, fewer than 10"


def test_patients_and_trainings_are_drawn_independently():
    # As many trainings as patients: the same draws for both would tie a training to a patient.
    table = np.add.outer(np.arange(6.0), -np.arange(6.0))  # their sum is 0 where both draws are alike
    found = across_seeds(table)
    assert found.low < -0.5 < 0.5 < found.high


def test_intervals_widen_with_the_variation_between_trainings():
    rng = np.random.default_rng(0)
    patients, luck = rng.normal(size=(40, 1)), np.array([[-1.0, -0.5, 0, 0.5, 1]])
    calm, wild = across_seeds(patients + 0 * luck), across_seeds(patients + luck)
    assert calm.seed_sd == pytest.approx(0, abs=1e-12)
    assert wild.seed_sd == pytest.approx(luck.std(ddof=1))
    assert wild.high - wild.low > 1.5 * (calm.high - calm.low)


def test_a_patient_undefined_in_one_training_is_left_out_of_all():
    found = across_seeds(np.array([[1.0, 1.0], [math.nan, 9.0], [3.0, 3.0]]))
    assert (found.mean, found.n, found.left_out) == (2, 2, 1)
    nothing = across_seeds(np.full((2, 2), math.nan))
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.seed_sd)


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((3, 0)), np.full((2, 2), math.inf)])
def test_what_is_no_table_of_patients_and_trainings_is_refused(values):
    with pytest.raises(ValueError, match="patients × seeds"):
        across_seeds(values)
