"""The paired statistics against scipy and statsmodels, which the package itself does not need."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power

from tunebook.metrics import statistics

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200))


@given(COUNTS)
def test_the_test_of_shares_is_the_exact_binomial_one(counts):
    only_first, only_second, agreed = counts
    found = statistics.paired_shares_test(only_first, only_second, only_first + only_second + agreed)
    wanted = stats.binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert found.p_value == pytest.approx(wanted, rel=1e-9)


@given(COUNTS)
def test_the_standard_error_of_shares_is_that_of_their_differences(counts):
    only_first, only_second, _ = counts
    column = np.repeat([-1.0, 1.0, 0.0], counts)
    found = statistics.paired_shares_test(only_first, only_second, len(column))
    assert found.difference == pytest.approx(column.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(column.std() / math.sqrt(len(column)), abs=1e-12)


def test_the_interval_of_shares_is_the_published_one():
    # Bonett and Price's formula by hand for 12 and 3 of 100.
    first, second = 13 / 102, 4 / 102
    half = stats.norm.ppf(0.975) * math.sqrt((first + second - (second - first) ** 2) / 102)
    found = statistics.paired_shares_interval(12, 3, 100)
    assert found == pytest.approx((second - first - half, second - first + half), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "only_first", "only_second"), [(30, 0.1, 0.1), (30, 0.02, 0.2), (100, 0.01, 0.03), (60, 0.0, 0.05)]
)
def test_the_interval_of_shares_covers_what_it_says(n, only_first, only_second):
    # Not drawn but summed: every outcome with its probability.
    truth, covered = only_second - only_first, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = statistics.paired_shares_interval(b, c, n)
            if low <= truth <= high:
                covered += stats.multinomial.pmf(
                    [b, c, n - b - c], n, [only_first, only_second, 1 - only_first - only_second]
                )
    assert covered > 0.935


def test_an_interval_of_shares_has_a_width_where_no_row_differs():
    low, high = statistics.paired_shares_interval(0, 0, 50)
    assert low == -high
    assert 0.03 < high < 0.08


@pytest.mark.parametrize("counts", [(3, 3, 5), (-1, 0, 5), (0, 0, 0)])
def test_disagreements_beyond_the_examples_are_refused(counts):
    with pytest.raises(ValueError, match="cannot disagree"):
        statistics.paired_shares_interval(*counts)


def test_the_paired_bootstrap_is_near_scipys():
    generator = np.random.default_rng(5)
    first = generator.beta(2, 3, size=300)
    second = np.clip(first + generator.normal(0.02, 0.15, size=300), 0, 1)
    found = statistics.paired_means_test(first, second)
    interval = stats.bootstrap(
        (second - first,), np.mean, n_resamples=4000, method="percentile", rng=generator
    ).confidence_interval
    assert found.interval == pytest.approx((interval.low, interval.high), abs=0.002)
    assert found.p_value == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=0.02)
    assert found.standard_error == pytest.approx(stats.sem(second - first), rel=0.05)
    assert found == statistics.paired_means_test(first, second)
    assert found != statistics.paired_means_test(first, second, seed=1)


def test_the_bootstrap_is_near_scipys_permutation_test_for_skewed_differences():
    generator = np.random.default_rng(6)
    differences = generator.exponential(0.2, size=200) - 0.17
    permuted = stats.permutation_test(
        (differences, np.zeros(200)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=5000,
        vectorized=True,
        rng=generator,
    )
    found = statistics.paired_means_test(np.zeros(200), differences)
    assert found.p_value == pytest.approx(permuted.pvalue, abs=0.03)


def test_the_bootstrap_claims_no_p_value_that_its_resamples_cannot_tell():
    found = statistics.paired_means_test([0.0] * 50, np.linspace(0.4, 0.6, 50), resamples=999)
    assert found.p_value == 1 / 1000


def test_no_difference_at_all_has_p_one():
    assert statistics.paired_means_test([0.2, 0.4, 0.1], [0.2, 0.4, 0.1]).p_value == 1.0


def test_false_alarms_of_the_bootstrap_are_as_rare_as_it_says():
    generator = np.random.default_rng(7)
    alarms = sum(
        statistics.paired_means_test(np.zeros(60), generator.normal(size=60), resamples=300).p_value < 0.05
        for _ in range(400)
    )
    assert 8 <= alarms <= 36  # 20 expected


def test_many_examples_are_tested_by_the_normal_distribution(monkeypatch):
    generator = np.random.default_rng(8)
    first, second = generator.random(500), generator.random(500)
    bootstrap = statistics.paired_means_test(first, second)
    monkeypatch.setattr(statistics, "NORMAL_ABOVE", 100)
    normal = statistics.paired_means_test(first, second)
    statistic = normal.difference / stats.sem(second - first)
    assert normal.p_value == pytest.approx(2 * stats.norm.sf(abs(statistic)), rel=1e-9)
    assert normal.interval == pytest.approx(bootstrap.interval, abs=0.004)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_holm_is_statsmodels(size):
    # To two decimals, so that some are equal.
    p_values = np.random.default_rng(size).beta(0.3, 1, size=size).round(2).tolist()
    wanted = multipletests(p_values, method="holm")[1]
    assert statistics.holm(p_values) == pytest.approx(list(wanted), abs=1e-12)


def test_holm_of_nothing_is_nothing():
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("difference", "spread", "n"), [(0.02, 0.3, 200), (-0.05, 0.5, 100), (0.4, 1.0, 10)])
def test_the_examples_needed_have_the_power_that_statsmodels_says(difference, spread, n):
    needed = statistics.examples_needed(difference, spread / math.sqrt(n), n)
    power = normal_power(abs(difference) / spread, needed, 0.05)
    assert 0.8 <= power < 0.83
    assert normal_power(abs(difference) / spread, needed - 1, 0.05) < 0.8 + 1e-6


def test_the_detectable_difference_needs_just_the_examples_that_there_are():
    detectable = statistics.detectable_difference(0.01)
    assert statistics.examples_needed(detectable, 0.01, 500) in (500, 501)
    assert statistics.examples_needed(0.0, 0.01, 500) is None
