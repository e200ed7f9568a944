"""The crossed design: coverage by simulation, and its limits."""

import numpy as np
import pytest
from scipy import stats as reference

from realign import stats


@pytest.mark.parametrize("seeds", [3, 8])
def test_hierarchical_interval_covers_when_seeds_shift_all_tasks_and_a_task_bootstrap_does_not(seeds):
    rng = np.random.default_rng(3)
    hits = np.zeros(2)
    for trial in range(500):
        table = rng.normal(0, 1, (12, 1)) + rng.normal(0, 1, (1, seeds)) + rng.normal(0, 1, (12, seeds))
        for i, interval in enumerate(
            (
                stats.hierarchical_interval(table),
                stats.bootstrap_mean(table.mean(1), resamples=300, seed=trial),
            )
        ):
            hits[i] += interval[0] <= 0 <= interval[1]
    assert 0.92 <= hits[0] / 500 <= 0.985
    assert hits[1] / 500 < 0.9


def test_hierarchical_interval_equals_a_t_interval_when_seeds_do_not_matter():
    x = np.random.default_rng(4).normal(1, 2, size=12)
    low, high = stats.hierarchical_interval(np.repeat(x[:, None], 3, axis=1))
    np.testing.assert_allclose((low, high), reference.ttest_1samp(x, 0).confidence_interval(0.95), rtol=1e-6)


def test_a_missing_seed_of_one_task_barely_moves_the_interval():
    table = np.random.default_rng(5).normal(size=(12, 3))
    full = np.array(stats.hierarchical_interval(table))
    table[4, 1] = np.nan
    np.testing.assert_allclose(stats.hierarchical_interval(table), full, atol=0.4 * (full[1] - full[0]))
