import math

import numpy as np
import pytest

from oncoseg.statistics import SMALLEST_SAMPLE, plain_summary, summarise


def test_mean_median_and_undefined_by_hand():
    summary = summarise([0.0, 0.5, math.nan, 1.0, 0.9, 0.1])
    assert (summary.mean, summary.median) == (0.5, 0.5)
    assert (summary.n, summary.undefined) == (5, 1)
    assert summary.low < 0.5 < summary.high
    assert summary.note == "BCa bootstrap"


def test_too_few_patients_get_no_interval_but_a_reason():
    summary = summarise([0.2, 0.4, 0.6, 0.8])
    assert (summary.mean, summary.low, summary.high) == (pytest.approx(0.5), None, None)
    assert summary.note == f"no interval: 4 patients, fewer than {SMALLEST_SAMPLE}"


def test_nothing_defined():
    summary = summarise([math.nan, math.nan])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.median)
    assert (summary.n, summary.undefined, summary.low) == (0, 2, None)


def test_equal_values_have_no_width():
    summary = summarise([0.7] * 6)
    assert (summary.low, summary.high) == (0.7, 0.7)
    assert "equal" in summary.note


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
