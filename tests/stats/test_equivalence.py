"""Intervals and TOST against scipy; coverage and error rates by simulation."""

import numpy as np
import pytest
from scipy import stats as reference

from realign import stats


def test_tost_equals_two_scipy_t_tests_and_the_90_percent_interval():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(rng.uniform(-1, 1), rng.uniform(0.2, 3), size=rng.integers(3, 30))
        below = reference.ttest_1samp(x, -1, alternative="greater").pvalue
        above = reference.ttest_1samp(x, 1, alternative="less").pvalue
        assert stats.tost(x, 1.0) == pytest.approx(max(below, above))
        low, high = reference.ttest_1samp(x, 0).confidence_interval(0.90)
        assert (stats.tost(x, 1.0) < 0.05) == (low > -1 and high < 1)


def test_tost_rejects_at_most_five_percent_at_the_margin():
    rng = np.random.default_rng(1)
    rate = np.mean([stats.tost(rng.normal(1.0, 1.5, size=15), 1.0) < 0.05 for _ in range(2000)])
    assert 0.035 <= rate <= 0.065


@pytest.mark.parametrize("n", [6, 12, 30])
def test_bootstrap_interval_of_a_mean_covers_for_the_task_counts_of_a_suite(n):
    rng = np.random.default_rng(n)
    hits = 0
    for trial in range(500):
        low, high = stats.bootstrap_mean(rng.normal(0.3, 2, size=n), resamples=600, seed=trial)
        hits += low <= 0.3 <= high
    assert 0.92 <= hits / 500 <= 0.985


def test_t_interval_is_scipys_and_unknown_for_a_single_value():
    x = np.random.default_rng(3).normal(size=7)
    expected = reference.t.interval(0.9, 6, loc=x.mean(), scale=reference.sem(x))
    assert stats.t_interval(x) == pytest.approx(expected)
    assert np.isnan(stats.t_interval([1.0])).all()
