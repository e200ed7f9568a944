"""Intervals cover, p-values are uniform, and the resampled unit is the text."""

import numpy as np
import pytest
from scipy import stats

from realign.hrsa import uncertainty as unc
from realign.hrsa.intervals import interval


def test_interval_of_a_mean_covers_when_tokens_depend_on_their_text_and_one_of_tokens_does_not():
    rng = np.random.default_rng(0)
    texts, each, trials = 80, 10, 600
    groups = np.repeat(np.arange(texts), each)
    hits = np.zeros(2)
    for _ in range(trials):
        values = rng.normal(size=texts)[groups] + rng.normal(size=texts * each)
        low, high = interval(values.mean(), unc.mean_influence(values, groups, texts), "any")
        hits[0] += low <= 0 <= high
        influence = unc.mean_influence(values, np.arange(texts * each), texts * each)
        low, high = interval(values.mean(), influence, "any")
        hits[1] += low <= 0 <= high
    assert 0.92 <= hits[0] / trials <= 0.98
    assert hits[1] / trials < 0.75


def test_influence_interval_equals_a_plain_bootstrap_over_texts():
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, 9, size=60)
    groups = np.repeat(np.arange(60), sizes)
    values = rng.exponential(size=len(groups)) + rng.normal(size=60)[groups]
    weights = unc.resample_weights(60, 4000, 2)
    sums = np.bincount(groups, values)
    plain = np.quantile((weights @ sums) / (weights @ sizes), [0.025, 0.975])
    low, high = interval(values.mean(), unc.mean_influence(values, groups, 60), "any")
    width = plain[1] - plain[0]
    np.testing.assert_allclose([low, high], plain, atol=0.06 * width)


def test_interval_from_parts_of_texts_covers_and_is_as_wide_as_that_from_texts():
    rng = np.random.default_rng(8)
    texts, each, trials = 100, 5, 600
    groups = np.repeat(np.arange(texts), each)
    hits, widths = 0, []
    for trial in range(trials):
        values = rng.normal(size=texts)[groups] + rng.normal(size=texts * each)
        parts = unc.text_parts(groups, seed=trial)
        effect = np.bincount(parts, values - values.mean()) / len(values)
        low, high = interval(values.mean(), effect, "any")
        hits += low <= 0 <= high
        by_text = interval(values.mean(), unc.mean_influence(values, groups, texts), "any")
        widths.append((high - low) / (by_text[1] - by_text[0]))
    assert 0.92 <= hits / trials <= 0.98
    assert 1.0 < np.mean(widths) < 1.15  # t with 19 degrees of freedom


def test_texts_are_dealt_whole_into_parts_of_equal_size():
    groups = np.random.default_rng(9).permutation(np.repeat(np.arange(45), 3))
    parts = unc.text_parts(groups, seed=0)
    assert all(len(set(parts[groups == text])) == 1 for text in range(45))
    assert set(np.bincount(parts)) == {6, 9}
    assert set(unc.text_parts(np.array([0, 1, 2, 2]), seed=0)) == {0, 1, 2}


def test_weights_are_multinomial_and_seeded():
    weights = unc.resample_weights(30, 2000, 3)
    np.testing.assert_array_equal(weights.sum(1), 30)
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)
    np.testing.assert_array_equal(weights, unc.resample_weights(30, 2000, 3))
    assert (weights != unc.resample_weights(30, 2000, 4)).any()


def test_permutation_p_values_are_uniform_under_the_null_the_maximum_over_layers_included():
    rng = np.random.default_rng(4)
    single, maximum = [], []
    for trial in range(250):
        x, y = rng.normal(size=(2, 12, 40))  # 12 layers, 40 texts, each layer a noisy copy of the first
        x[1:] = x[:1] + 0.3 * x[1:]

        def statistic(rows, x=x, y=y):
            return np.abs((x * y[:, rows]).sum(1))

        found = unc.permutation_test(statistic, 40, permutations=79, seed=trial)
        single.append(found["p"][0])
        maximum.append(found["max_p"][0])
    for p in (single, maximum):
        assert stats.kstest(p, "uniform").pvalue > 0.01


def test_searching_layers_for_the_largest_value_without_correction_would_be_wrong():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 200, 12, 40))
    smallest = []
    for trial in range(200):
        found = unc.permutation_test(
            lambda rows, t=trial: np.abs((x[t] * y[t][:, rows]).sum(1)), 40, permutations=39, seed=trial
        )
        smallest.append(found["p"].min())
    assert np.mean(np.array(smallest) <= 0.05) > 0.25


def test_p_value_counts_the_observed_arrangement_itself():
    assert unc.p_value(5.0, [1, 2, 3]) == 0.25
    assert unc.p_value(2.0, [1, 2, 3]) == 0.75
    assert unc.p_value(0.0, [1, 2, 3], larger=False) == 0.25


def test_text_order_moves_whole_texts_and_keeps_their_inside():
    groups = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    order = unc.text_order(groups, np.random.default_rng(6))
    assert sorted(order) == list(range(10))
    moved = groups[order]
    assert (np.diff(np.flatnonzero(np.diff(moved))) > 0).all()
    for text in range(4):
        np.testing.assert_array_equal(order[moved == text], np.flatnonzero(groups == text))
    assert len({tuple(unc.text_order(groups, np.random.default_rng(s))) for s in range(20)}) > 5


def test_halves_split_by_text():
    groups = np.repeat(np.arange(11), 3)
    half = unc.halves(groups, seed=0)
    assert all(len(set(half[groups == t])) == 1 for t in range(11))
    assert half.sum() == 15
    with pytest.raises(ValueError, match="at least 2 texts"):
        unc.halves(np.zeros(5), seed=0)
