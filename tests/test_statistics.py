import math

import numpy as np
import pytest

from oncoseg import statistics
from oncoseg.statistics import (
    SMALLEST_SAMPLE,
    all_equal,
    band,
    common_patients,
    estimate,
    plain_summary,
    proportion,
    resampled_means,
    rough_sentence,
    summarise,
    summarise_shares,
)


def test_mean_median_and_undefined_by_hand():
    summary = summarise([0.0, 0.5, math.nan, 1.0, 0.9, 0.1])
    assert (summary.mean, summary.median) == (0.5, 0.5)
    assert (summary.n, summary.undefined) == (5, 1)
    assert summary.low < 0.5 < summary.high
    assert summary.note == "BCa bootstrap; rough: 5 patients, fewer than 10"


def test_an_interval_of_ten_patients_is_not_called_rough():
    values = [i / 16 for i in range(10)]
    assert summarise(values).note == "BCa bootstrap"
    assert "rough" in summarise(values[1:]).note


def test_too_few_patients_get_no_interval_but_a_reason():
    summary = summarise([0.2, 0.4, 0.6, 0.8])
    assert (summary.mean, summary.low, summary.high) == (pytest.approx(0.5), None, None)
    assert (summary.median_low, summary.median_high) == (None, None)
    assert summary.note == f"no interval: 4 patients, fewer than {SMALLEST_SAMPLE}"


def test_nothing_defined():
    summary = summarise([math.nan, math.nan])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.median)
    assert (summary.n, summary.undefined, summary.low, summary.note) == (0, 2, None, "")


def test_equal_values_have_no_interval_rather_than_one_without_width():
    summary = summarise([0.7] * 6)
    assert (summary.mean, summary.n) == (pytest.approx(0.7), 6)
    assert (summary.low, summary.high, summary.median_low, summary.median_high) == (None,) * 4
    assert summary.note == all_equal(summary.n)


def test_a_median_that_hardly_a_sample_moves_has_no_interval():
    summary = summarise([1.0] * 19 + [0.5])
    assert summary.median == 1
    assert (summary.median_low, summary.median_high) == (None, None)
    assert summary.low < summary.mean < summary.high
    assert "of the median: no interval" in summary.note


def test_an_estimate_that_no_drawing_moves_has_no_interval():
    (found,) = estimate(lambda weights: weights.sum(axis=1, keepdims=True) / 8, 8)
    assert (found.value, found.low, found.high) == (1, None, None)
    assert found.note == "no interval: all 8 patients are alike"


def test_a_yes_or_no_per_patient_has_wilsons_interval():
    # 0 of 10: the upper end is z² / (n + z²)
    found = summarise_shares([0.0] * 10)
    assert (found.mean, found.low) == (0, 0)
    assert found.high == pytest.approx(1.959964**2 / (10 + 1.959964**2), rel=1e-6)
    halves = [0.5, 0, 1, 1, 0, 0, 1]
    assert summarise_shares(halves) == summarise(halves)


def test_rough_intervals_are_announced_with_the_fewest_patients():
    assert "(here from 7)" in rough_sentence([4, 12, 9, 7])
    assert rough_sentence([4, 10, 12]) == ""


def test_the_seed_decides():
    values = np.random.default_rng(1).random(12)
    assert summarise(values, seed=3) == summarise(values, seed=3)
    assert summarise(values, seed=3) != summarise(values, seed=4)


def test_bca_leans_towards_the_long_tail_and_is_near_the_normal_interval():
    skewed = np.random.default_rng(0).exponential(size=40)
    summary = summarise(skewed)
    assert summary.high - summary.mean > summary.mean - summary.low
    even = np.random.default_rng(0).normal(size=200)
    half = 1.96 * even.std(ddof=1) / math.sqrt(len(even))
    summary = summarise(even)
    assert summary.low == pytest.approx(even.mean() - half, abs=half / 5)
    assert summary.high == pytest.approx(even.mean() + half, abs=half / 5)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    inside = [s.low <= 0.5 <= s.high for s in (summarise(rng.random(20), seed=i) for i in range(60))]
    assert 0.85 <= np.mean(inside) <= 1


def test_plain_summary_has_no_interval():
    summary = plain_summary([1.0, 0.0, math.nan], "one number")
    assert (summary.mean, summary.low, summary.n, summary.undefined, summary.note) == (
        0.5,
        None,
        2,
        1,
        "one number",
    )


@pytest.mark.parametrize("n", [5, 12, 13, 40])
@pytest.mark.parametrize("seed", [0, 7])
def test_both_intervals_agree_with_scipy(n, seed):
    from scipy.stats import bootstrap

    # Of integers sums are exact, so that SciPy sees the ties that we see.
    values = np.sort(np.random.default_rng(n).choice(1000, n, replace=False)).astype(float)
    summary = summarise(values, seed)
    for statistic, found in [
        (np.mean, (summary.low, summary.high)),
        (np.median, (summary.median_low, summary.median_high)),
    ]:
        rng = np.random.default_rng(seed)
        expected = bootstrap((values,), statistic, method="BCa", n_resamples=statistics.RESAMPLES, rng=rng)
        assert found == pytest.approx(tuple(expected.confidence_interval), rel=1e-12)


def test_a_median_among_ties_has_the_percentile_interval_and_says_so():
    # The median stays 0 without any one value. Of 9 draws, 5 or more are among the highest two with a
    # chance of 3.0 %, more than a tail of 2.5 %, and are the highest with one of 0.1 %.
    summary = summarise([0, 0, 0, 0, 0, 0, 1, 2, 3])
    assert (summary.median_low, summary.median_high) == (0, 2)
    assert summary.note.startswith("BCa bootstrap; of the median: percentile bootstrap; BCa is not defined")


def test_the_order_of_patients_does_not_move_the_medians_interval():
    values = np.arange(15.0)
    shuffled = np.random.default_rng(0).permutation(values)
    for name in ("median_low", "median_high"):
        assert getattr(summarise(values), name) == getattr(summarise(shuffled), name)


@pytest.mark.parametrize("n", [5, 6])
def test_the_median_without_each_value(n):
    ascending = np.arange(n) ** 2.0
    expected = [np.median(np.delete(ascending, i)) for i in range(n)]
    assert statistics._medians_without_each(ascending).tolist() == expected


@pytest.mark.parametrize("tenths", [[8, 8, 2, 5, 8], [9, 3, 8, 3, 8]])
def test_sums_equal_but_for_rounding_count_as_ties(tenths):
    # If they did not, the bias would depend on the order of adding, and 0.1 would be no tenth of 1.
    whole, parts = summarise(tenths), summarise([value / 10 for value in tenths])
    assert (parts.low, parts.high) == pytest.approx((whole.low / 10, whole.high / 10), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_draws_count_n_patients_and_know_their_middle(n):
    drawn = statistics.draws(n, seed=1)
    assert drawn.counts.shape == (statistics.RESAMPLES, n)
    for counts, middle in zip(drawn.counts[:50], drawn.middle[:50], strict=True):
        patients = np.repeat(np.arange(n), counts)
        assert len(patients) == n
        assert middle.mean() == np.median(patients)


def test_samples_have_the_median_that_the_binomial_distribution_says():
    # At most the 2nd of 5 values: three or more of 5 draws are among the 2 lowest.
    share = (statistics.draws(5, seed=0).middle[:, 0] <= 1).mean()
    expected = sum(math.comb(5, k) * 0.4**k * 0.6 ** (5 - k) for k in (3, 4, 5))
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 9_999))


def test_draws_do_not_depend_on_how_much_is_in_memory_at_once(monkeypatch):
    whole = statistics.draws.__wrapped__(7, 3)
    means = resampled_means(np.eye(7), 3)
    monkeypatch.setattr(statistics, "CHUNK", 7 * 1000)
    parts = statistics.draws.__wrapped__(7, 3)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.middle, parts.middle)
    np.testing.assert_array_equal(resampled_means(np.eye(7), 3), means)
    np.testing.assert_allclose(means, whole.counts / 7)


def test_draws_are_shared_and_cannot_be_written():
    drawn = statistics.draws(6, 0)
    assert statistics.draws(6, 0) is drawn
    with pytest.raises(ValueError, match="read-only"):
        drawn.counts[0, 0] = 1


def test_systems_with_different_patients_are_refused_or_cut_to_the_common_ones():
    table = {"A": {"p2": 1.0, "p1": 1.0, "p3": 1.0}, "B": {"p2": 0.0, "p4": 0.0, "p1": 0.5}}
    with pytest.raises(ValueError, match=r"same 4 patients, but 'A' lacks 1 \(p4\)"):
        common_patients(table)
    assert common_patients(table, common_only=True) == (["p1", "p2"], {"A": 1, "B": 1})
    assert common_patients({"A": table["A"]}) == (["p1", "p2", "p3"], {"A": 0})


def test_a_long_list_of_lacking_patients_is_cut():
    with pytest.raises(ValueError, match=r"lacks 5 \(p0, p1, p2, …\)"):
        common_patients({"A": {f"p{i}": 1.0 for i in range(5)}, "B": {}})


# what patients make together -----------------------------------------------------------------------


def mean_of(values: np.ndarray):
    return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]


@pytest.mark.parametrize("n", [5, 12])
def test_an_estimate_that_is_a_mean_has_the_means_interval(n):
    values = np.random.default_rng(n).random(n)
    (found,), expected = estimate(mean_of(values), n), summarise(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (found.n, found.note) == (n, expected.note)


def test_a_rate_of_all_voxels_agrees_with_scipy():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    part, whole = rng.integers(0, 50, 15).astype(float), rng.integers(50, 90, 15).astype(float)
    (found,) = estimate(lambda weights: (weights @ part / (weights @ whole))[:, None], 15)
    expected = bootstrap(
        (part, whole),
        lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        method="BCa",
        n_resamples=statistics.RESAMPLES,
        rng=np.random.default_rng(0),
    )
    # the same method with other random draws
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_few_deciding_patients_get_no_interval():
    (found,) = estimate(mean_of(np.arange(8.0)), 8, deciding=3)
    assert (found.value, found.low, found.high) == (3.5, None, None)
    assert found.note == "no interval: 3 patients, fewer than 5"
    assert band(mean_of(np.arange(8.0)), 8, deciding=1).note == "no interval: 1 patient, fewer than 5"


def test_samples_that_leave_a_statistic_undefined_are_left_out():
    # only the first two patients count; without both of them there is nothing to divide by
    part, whole = np.array([1.0, 3, 0, 0, 0, 0]), np.array([4.0, 4, 0, 0, 0, 0])

    def rate(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights @ part / (weights @ whole))[:, None]

    (found,) = estimate(rate, 6)
    assert (found.value, found.low, found.high) == (0.5, 0.25, 0.75)
    (nothing,) = estimate(lambda weights: np.full((len(weights), 1), math.nan), 6)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.note) == (None, "no interval: not defined")


def test_a_band_holds_its_curve_and_has_no_width_where_all_patients_are_alike():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(9, 4))
    values[:, 2] = 7.0

    def curve(weights: np.ndarray) -> np.ndarray:
        return (weights @ values) ** 2 / 81  # biased upwards: samples vary, and squares of them are larger

    found = band(curve, 9)
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert found.low[2] == found.value[2] == found.high[2]
    assert (np.delete(found.high - found.low, 2) > 0).all()
    again = band(curve, 9)
    assert np.array_equal(found.low, again.low)  # the seed is fixed
    assert "pointwise" in found.note


@pytest.mark.parametrize(("count", "n"), [(0, 5), (3, 7), (5, 5), (40, 100)])
def test_wilsons_interval_agrees_with_scipy(count, n):
    from scipy.stats import binomtest

    found = proportion(count, n)
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert (found.value, found.n) == (count / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_proportion_of_nobody_is_undefined():
    found = proportion(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.n) == (None, 0)
