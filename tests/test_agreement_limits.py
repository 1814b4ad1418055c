"""Limits of agreement with several cases per patient."""

import math

import numpy as np
import pytest

from oncoseg.comparisons.agreement_limits import limits_of_agreement


def test_two_cases_of_each_patient_by_hand() -> None:
    # ten patients with the differences (-1, 1) or (3, 5): their means are 0 and 4, of all 2
    differences = [-1.0, 1.0, 3.0, 5.0] * 5
    found = limits_of_agreement(differences, [n // 2 for n in range(20)])
    # within: ten times 2, over 20 - 10; between: 10 * 2 * 2**2 = 80, over 10 - 1; two cases per patient
    within, between = 2.0, 80 / 9
    variance = (between - within) / 2 + within
    reach = 1.96 * math.sqrt(variance)
    assert found.mean.value == pytest.approx(2)
    assert found.lower.value == pytest.approx(2 - reach)
    assert found.upper.value == pytest.approx(2 + reach)
    assert (found.cases, found.patients) == (20, 10)
    # t(0.975, 9) = 2.2622; the sums of the patients are off by 4 each: ten times 16 · 10 / 9 / 20²
    assert found.mean.high == pytest.approx(2 + 2.2622 * math.sqrt(16 * 10 * (10 / 9) / 400), abs=1e-3)
    of_sd = 2 * ((between / 2) ** 2 / 9 + (within / 2) ** 2 / 10) / (4 * variance)
    of_limit = 16 * 10 * (10 / 9) / 400 + 1.96**2 * of_sd
    assert found.upper.high == pytest.approx(2 + reach + 2.2622 * math.sqrt(of_limit), abs=1e-3)
    # as if independent, the variance would be 100 / 19
    assert variance > 100 / 19


def test_patients_of_different_size_are_weighed_as_in_the_paper() -> None:
    rng = np.random.default_rng(2)
    sizes = [1, 2, 3, 4, 1, 2, 3, 4, 5, 5, 1, 1]
    patients = np.repeat(np.arange(12), sizes)
    d = rng.normal(size=12)[patients] + 0.5 * rng.normal(size=len(patients))
    n, cases = 12, len(d)
    of = [d[patients == p] for p in range(n)]
    within = sum(((x - x.mean()) ** 2).sum() for x in of) / (cases - n)
    between = sum(len(x) * (x.mean() - d.mean()) ** 2 for x in of) / (n - 1)
    # Bland and Altman 2007: divisor ((sum m)**2 - sum m**2) / ((n - 1) sum m)
    divisor = (cases**2 - sum(m**2 for m in sizes)) / ((n - 1) * cases)
    sd = math.sqrt((between - within) / divisor + within)
    found = limits_of_agreement(d.tolist(), patients.tolist())
    assert found.mean.value == pytest.approx(d.mean())
    assert found.lower.value == pytest.approx(d.mean() - 1.96 * sd)
    assert found.lower.low < found.lower.value < found.lower.high


def test_one_case_each_is_the_method_of_1999() -> None:
    d = [float(n) for n in range(10)]
    found = limits_of_agreement(d, list(range(10)))
    sd = np.std(d, ddof=1)
    assert found.upper.value == pytest.approx(4.5 + 1.96 * sd)
    # t(0.975, 9) = 2.2622
    assert found.mean.high == pytest.approx(4.5 + 2.2622 * sd / math.sqrt(10), abs=1e-3)
    of_limit = sd**2 * (1 / 10 + 1.96**2 / 18)
    assert found.upper.high == pytest.approx(4.5 + 1.96 * sd + 2.2622 * math.sqrt(of_limit), abs=1e-3)


def test_differences_that_cancel_within_a_patient_do_not_widen_the_limits() -> None:
    # two readers in both orders: +d and -d; one difference has the variance d**2
    differences = [2.0, -2.0] * 10
    found = limits_of_agreement(differences, [n // 2 for n in range(20)])
    assert found.upper.value == pytest.approx(1.96 * 2)


def test_many_cases_of_few_patients_have_no_limits() -> None:
    found = limits_of_agreement([0.0, 1.0] * 20, [n // 5 for n in range(40)])
    assert (found.lower, found.upper, found.mean.low) == (None, None, None)
    assert (found.cases, found.patients) == (40, 8)
    assert found.mean.value == 0.5
